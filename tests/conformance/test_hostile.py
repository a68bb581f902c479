"""What damaged and hostile files may cost: seconds and memory, measured in a child process that they must not end."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomtorch import DicomFrames, scan
from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.model.syntaxes import (
    DEFLATED_IMAGE_FRAME,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LS_LOSSLESS,
    JPEG_XL_LOSSLESS,
    RLE_LOSSLESS,
)
from tests.support import streams_by_encoders as streams
from tests.support.phantoms import ct, ct_pixels, encapsulated, image, write

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MOST_SECONDS, MOST_KIB = 1.0, 500 << 10

CHILD = """
import json, os, resource, sys, time
from pathlib import Path
from dicomtorch import DicomFrames, FrameReader, scan
from dicomtorch.errors import DicomTorchError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

names = json.load(sys.stdin)
index, _ = scan(names[0])                        # a good file: everything is imported and warm
reader = FrameReader(index)
reader.read_many([0])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (2 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name in names[1:]:
    before = peak()
    start = time.process_time()
    index, report = scan(name)
    scanned = time.process_time() - start
    slowest, errors = 0.0, []
    reader = FrameReader(index)
    for position in range(len(index)):
        start = time.process_time()
        try:
            reader.read_stored(position)
        except DicomTorchError as error:
            slowest = max(slowest, time.process_time() - start)
            errors.append(str(error))
    row = [name, report.findings[0].file_class, scanned, slowest, len(index), errors[:1], peak() - before]
    print(json.dumps(row), flush=True)
"""


def measure(paths: list[Path], good: Path) -> dict[str, dict[str, Any]]:
    """Scans and reads each of `paths` in a child process with 2 GiB more than it has; what came of each."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps([os.fspath(path) for path in (good, *paths)]),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    keys = ("file_class", "scan", "slowest", "frames", "errors", "kib")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    found = {row[0]: dict(zip(keys, row[1:], strict=True)) for row in rows}
    assert done.returncode == 0, (paths[len(found)], done.returncode, done.stderr[-2000:])
    return found


def check_costs(found: dict[str, dict[str, Any]]) -> None:
    for name, row in found.items():
        assert row["scan"] < MOST_SECONDS, (name, row)
        assert row["slowest"] < MOST_SECONDS, (name, row)
        if row["errors"] or not row["frames"]:
            assert row["kib"] < MOST_KIB, (name, row)


@LINUX
def test_no_sample_costs_a_second_or_500_mb_to_be_refused(samples: Path, tmp_path: Path) -> None:
    good = write(ct(ct_pixels()), tmp_path / "good.dcm")
    paths = sorted(path for path in samples.rglob("*") if path.is_file())
    found = measure(paths, good)
    assert len(found) == len(paths)
    check_costs(found)
    assert sum(not row["frames"] for row in found.values()) >= 18
    assert sum(bool(row["errors"]) for row in found.values()) >= 4


def explicit(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"SQ", b"OB", b"UN", b"OW"):
        return head + struct.pack("<HI", 0, length) + value
    return head + struct.pack("<H", length) + value


def part_10(body: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = explicit(0x00020010, b"UI", uid)
    size = explicit(0x00020000, b"UL", struct.pack("<I", len(meta)))
    return b"\0" * 128 + b"DICM" + size + meta + body


UNDEFINED = 0xFFFFFFFF
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


def nested(depth: int, vr: bytes) -> bytes:
    return b"".join([explicit(0x00081115, vr, ITEM, UNDEFINED)] * depth)


def j2k_tiles(tiles: int) -> bytes:
    """A stream of 24 x 32 pixels whose header states tiles of 1 pixel in an image of so many."""
    data = bytearray(streams.jpeg_2000(np.zeros((24, 32), "u2"), 16))
    at = data.index(b"\xff\x51") + 6
    struct.pack_into(">II", data, at, tiles, 24)
    struct.pack_into(">II", data, at + 16, 1, 1)
    return bytes(data)


def deflated_gigabyte(start: bytes) -> bytes:
    """`start` and a gigabyte of zeros, deflated to a megabyte."""
    engine = zlib.compressobj(9, wbits=-15)
    head = engine.compress(start) + engine.flush(zlib.Z_FULL_FLUSH)
    zeros = engine.compress(bytes(32 << 20)) + engine.flush(zlib.Z_FULL_FLUSH)
    return head + zeros * 32 + engine.flush()


def hostile() -> dict[str, bytes]:
    pixels = image(np.zeros((24, 32), "u2"))
    return {
        "empty": b"",
        "zeros": bytes(1 << 20),
        "deep": part_10(nested(100_000, b"SQ")),
        "deep UN": part_10(nested(100_000, b"UN")),
        "empty items": part_10(explicit(0x00081115, b"SQ", EMPTY_ITEM * 1_000_000)),
        "empty items that are wanted": part_10(explicit(0x52009230, b"SQ", EMPTY_ITEM * 300_000)),
        "deep and wanted": part_10(
            b"".join([explicit(0x52009230, b"SQ", ITEM, UNDEFINED)] * 100_000)
        ),
        "empty items in UN": part_10(explicit(0x00091115, b"UN", EMPTY_ITEM * 1_000_000)),
        "many elements": part_10(explicit(0x00091010, b"LO", b"") * 1_000_000),
        "a length beyond the file": part_10(explicit(0x00081115, b"SQ", b"", UNDEFINED - 1)),
        "a long text": part_10(explicit(0x00080018, b"UN", b"1" * (32 << 20))),
        "meta only": part_10(b""),
        "bomb": part_10(deflated_gigabyte(b""), DeflatedExplicitVRLittleEndian),
        "bomb in an element": part_10(
            deflated_gigabyte(
                explicit(0x00080018, b"UI", b"1.2\0") + explicit(0x00091010, b"OB", b"", 1 << 30)
            ),
            DeflatedExplicitVRLittleEndian,
        ),
        "deflated noise": part_10(os.urandom(1 << 16), DeflatedExplicitVRLittleEndian),
        "no pixels": part_10(explicit(0x00280010, b"US", struct.pack("<H", 1))),
        "pixels": bytes(pixels.PixelData),
    }


@LINUX
def test_hostile_headers_are_refused_at_once(tmp_path: Path) -> None:
    good = write(ct(ct_pixels()), tmp_path / "good.dcm")
    paths = []
    for name, data in hostile().items():
        paths.append(tmp_path / f"{name}.dcm")
        paths[-1].write_bytes(data)
    found = measure(paths, good)
    assert len(found) == len(paths)
    check_costs(found)
    assert not any(row["frames"] for row in found.values())


def hostile_images(folder: Path) -> list[Path]:
    flat = np.zeros((24, 32), "u2")
    paths = []

    def add(name: str, **attributes: Any) -> None:
        paths.append(write(image(flat, **attributes), folder / f"{name}.dcm"))

    add("rows", Rows=65535, Columns=65535)
    add("frames", NumberOfFrames=2_000_000)
    add("too many frames", NumberOfFrames=2_147_483_647)
    add("no rows", Rows=0)
    add("bits", BitsAllocated=16, BitsStored=17)
    for syntax, stream in (
        (JPEG_2000_LOSSLESS, j2k_tiles(65_535)),
        (JPEG_2000_LOSSLESS, j2k_tiles(3_000_000_000)),
        (HTJ2K_LOSSLESS, j2k_tiles(65_535)),
        (DEFLATED_IMAGE_FRAME, zlib.compress(b"", wbits=-15)),
        (RLE_LOSSLESS, struct.pack("<16I", 2, *[64] * 15)),
        (JPEG_LS_LOSSLESS, streams.jpeg_ls(flat, 16)[:-20]),
        (JPEG_XL_LOSSLESS, streams.jpeg_xl(flat, 16)[:8]),
        (JPEG_BASELINE, b"\xff" * 1_000_000),
    ):
        dataset = encapsulated(image(flat), [stream + b"\0" * (len(stream) % 2)], syntax)
        paths.append(write(dataset, folder / f"stream {len(paths)}.dcm"))
    dataset = image(flat, JPEG_BASELINE, NumberOfFrames=3)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    dataset.PixelData = item * 1_000_000
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    paths.append(write(dataset, folder / "a million fragments.dcm"))
    return paths


@LINUX
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_hostile_images_are_refused_at_once(tmp_path: Path) -> None:
    good = write(ct(ct_pixels()), tmp_path / "good.dcm")
    paths = hostile_images(tmp_path / "bad")
    found = measure(paths, good)
    check_costs(found)
    for name, row in found.items():
        if not name.endswith("frames.dcm"):  # the frames that are there are read
            assert row["errors"] or not row["frames"], (name, row)


# --- Files that change after the scan ------------------------------------------------------------------


def frames_of(path: Path) -> DicomFrames:
    return DicomFrames(scan(path)[0])


@pytest.mark.parametrize("how", ["gone", "shorter", "another", "folder", "fifo", "device"])
@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices")
@pytest.mark.timeout(20)
def test_files_that_are_others_now(tmp_path: Path, how: str) -> None:
    path = write(ct(ct_pixels()), tmp_path / "case.dcm")
    frames = frames_of(path)
    data = path.read_bytes()
    path.unlink()
    if how == "shorter":
        path.write_bytes(data[:-10])
    elif how == "another":
        path.write_bytes(data[:-10] + b"\0" * 10)
    elif how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    for ask in (0, [0, 0]):
        with pytest.raises((StaleIndexError, StorageError), match=r"case\.dcm, frame 0"):
            frames[ask]


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
@pytest.mark.parametrize("name", [b"\xff\xfe\n\x1b[31m.dcm", b"x" * 250, "ä\u202e.dcm".encode()])
def test_names_that_are_no_text_are_read_and_printed(tmp_path: Path, name: bytes) -> None:
    path = write(ct(ct_pixels()), tmp_path / "case.dcm")
    folder = os.fsencode(tmp_path / "names")
    os.mkdir(folder)
    os.rename(path, os.path.join(folder, name))
    frames = DicomFrames(tmp_path / "names")
    again = DicomFrames(tmp_path / "names")
    np.testing.assert_array_equal(frames[0][0], again[[0]][0][0])
    os.unlink(os.path.join(folder, name))
    with pytest.raises(StaleIndexError) as caught:
        frames[0]
    message = str(caught.value)
    assert message.isprintable()
    message.encode("ascii" if name.startswith(b"\xff") else "utf-8")
