"""`python mutate_index.py FOLDER COUNT`: opens damaged copies of an index and uses what opens; for `test_index_file`.

Every other copy has the checksum of its damaged content, as one that a faulty program wrote: there Arrow's own
validation and our checks are all that stands between the content and the process.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from pathlib import Path

import numpy as np

from dicomtorch.errors import IndexFileError
from dicomtorch.index.builder import FileRows
from dicomtorch.index.checksums import checksum
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import LookupTable


def make(folder: Path) -> None:
    """An index with every kind of column, a selection, and joined columns."""
    files = []
    for n in range(6):
        count = n % 3 + 1
        columns = {
            "frame": list(range(count)),
            "offset": [500 + 10 * k for k in range(count)],
            "length": 10,
            "fragments": 0,
            "bit_offset": 0,
            "SOPInstanceUID": f"1.2.{n}",
            "PatientID": f"p{n // 2}",
            "Rows": 2,
            "Columns": 5,
            "SamplesPerPixel": 1,
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
            "TransferSyntaxUID": "1.2.840.10008.1.2.1",
            "pixel_data_vr": "OB",
            "PhotometricInterpretation": "MONOCHROME2",
            "ImagePositionPatient": (1.0, 2.0, float(n)),
            "WindowCenter": 40.0 + n,
            "WindowWidth": 400.0,
            "voi_lut": 0,
            "voi_lut_count": 1,
        }
        lut = LookupTable(n, 8, np.arange(4, dtype=np.uint16))
        name = f"{n}.dcm".encode()
        files.append(
            FileRows(name, 600, 17, n, "image", count=count, columns=columns, lookups=[lut])
        )
    index = FrameIndex.build(files, root=b"/data", tags={"PatientSex": "text", "Age": "int64"})
    labels = {"PatientID": ["p0", "p1", "p2"], "label": [1, 0, 1], "site": ["a", "b", "a"]}
    index.join(labels, on="PatientID").select([5, 1, 3, 2, 8]).save(folder)


def damaged(whole: bytes, chosen: random.Random) -> bytes:
    """A few bits, bytes or words changed, a piece cut out, put in, or the end missing."""
    data = bytearray(whole)
    kind = chosen.random()
    at = chosen.randrange(len(data))
    if kind < 0.4:
        for _ in range(chosen.choice((1, 1, 2, 8))):
            data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    elif kind < 0.7:
        word = chosen.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, chosen.getrandbits(32)))
        at -= at % 4
        data[at : at + 4] = word.to_bytes(4, "little")
    elif kind < 0.8:
        del data[at:]
    elif kind < 0.9:
        del data[at : at + chosen.randrange(1, 64)]
    else:
        data[at:at] = chosen.randbytes(chosen.randrange(1, 64))
    return bytes(data)


def use(index: FrameIndex) -> None:
    """Touches everything that there is."""
    for column in index.columns:
        index.gather(column.name, np.arange(len(index)))
    index.report()
    index.whole().table.validate(full=True)
    index.table.validate(full=True)
    for i in range(len(index)):
        index.path(i)
        index.locate([i])
        index.frame_values(i)


def main(folder: Path, count: int, seed: int) -> None:
    """Prints how many copies were refused, and how many opened and were used."""
    make(folder)
    wholes = {path.name: path.read_bytes() for path in folder.iterdir()}
    chosen = random.Random(seed)
    results = {"refused": 0, "unclear": 0, "used": 0, "odd": 0}
    for n in range(count):
        name = chosen.choice(sorted(wholes))
        data = damaged(wholes[name], chosen)
        (folder / name).write_bytes(data)
        if n % 2 and name == "manifest.json":
            text = data.partition(b"\n")[2].rstrip(b"\n")
            (folder / name).write_bytes(b"%08x\n%s\n" % (zlib.crc32(text), text))
        elif n % 2:
            manifest = json.loads(wholes["manifest.json"].partition(b"\n")[2])
            manifest["files"][name] = [len(data), checksum(data)]
            text = json.dumps(manifest).encode()
            (folder / "manifest.json").write_bytes(b"%08x\n%s\n" % (zlib.crc32(text), text))
        (folder / "state").write_text(f"{n} {name}")
        try:
            index = FrameIndex.load(folder)
        except IndexFileError as error:
            results["refused" if "scan again" in str(error) else "unclear"] += 1
        else:
            assert n % 2 or data == wholes[name], f"copy {n} of {name} was damaged and opened"
            try:
                use(index)
                results["used"] += 1
            except Exception:  # values that no scan gives; only the process has to survive
                results["odd"] += 1
        (folder / name).write_bytes(wholes[name])
        (folder / "manifest.json").write_bytes(wholes["manifest.json"])
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[-1]))
