"""Markers in attributes, at random: `python -m tests.long.leaks --seconds 60`.

Files with some markers are scanned, reported on, read, damaged, pickled, cached and saved; whatever is said, printed or
kept is searched for the markers in every disguise. The index keeps a few on purpose and is for its owner alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import random
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameIndex, scan
from dicomtorch.cli import main as cli
from dicomtorch.errors import DicomTorchError
from tests.support.canaries import SHOWN_UIDS, keywords, leaks, marker, with_markers
from tests.support.long_run import Tally, main
from tests.support.phantoms import ct, ct_pixels, encapsulated, write

COMMANDS = ("scan", "info", "series", "doctor", "verify")
KEPT = frozenset(("PatientID", "ContrastBolusAgent"))
"""What PRIVACY.md says that an index has, besides UIDs and coded values."""


def marked(path: Path, rng: random.Random, number: int) -> list[str]:
    """A file with markers in some attributes, perhaps damaged; which ones."""
    dataset = ct(ct_pixels(number), number)
    names = rng.sample(keywords(), rng.choice((1, 3, 20)))
    write(dataset, path)
    data = bytearray(with_markers(path.read_bytes(), names))
    kind = rng.randrange(4)
    if kind == 0:
        del data[rng.randrange(200, len(data)) :]
    elif kind == 1:
        data[rng.randrange(200, len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return names


def said_by(work: Callable[[], Any]) -> str:
    """What an error says, with its causes, also when it is pickled; what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = repr(work())
        except (DicomTorchError, MemoryError) as error:
            again = pickle.loads(pickle.dumps(error))
            lines = "".join(traceback.format_exception(error)).splitlines()
            result = "\n".join(line for line in lines if not line.startswith("    ")) + str(again)
    return result + "".join(str(one.message) for one in caught)


def check(folder: Path, rng: random.Random, number: int) -> str:
    """Everything that is said and kept of a file."""
    tree = folder / "tree"
    tree.mkdir(exist_ok=True)
    path = tree / "a.dcm"
    names = marked(path, rng, number)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    try:
        out = io.StringIO()
        command = rng.choice(COMMANDS)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            cli.main([command, str(tree), *rng.choice(([], ["--json"]))])
        said = [out.getvalue()]
        index, report = scan(tree)
        said += [repr(report), *(one.reason for one in report.findings)]
        frames: Any = None
        if len(index):
            values: Any = rng.choice(("display", "modality", "stored"))
            said.append(said_by(lambda: DicomFrames(index, values=values)))
            with contextlib.suppress(DicomTorchError):
                frames = DicomFrames(index, values=values, cache=folder / "cache")
        if frames is not None:
            said.append(said_by(lambda: frames[0][1]))
            said.append(said_by(lambda: [dict(meta) for _, meta in DataLoader(frames)]))
            said.append(frames._repr_html_())
        data = "\n".join(said).encode("utf-8", "surrogateescape") + log.getvalue().encode()
        assert (found := leaks(data)) == [], (
            f"{command} or what came after it says {found} of {names}"
        )
        if frames is not None:
            sample = pickle.dumps(dict(frames[0][1])) if _reads(frames) else b""
            assert (found := leaks(sample)) == [], f"a pickle of a sample has {found}"
            for entry in (folder / "cache").rglob("*"):
                if entry.is_file():
                    assert (found := leaks(entry.read_bytes())) == [], f"a cache entry has {found}"
            _check_index(index, folder)
    finally:
        logging.getLogger().removeHandler(handler)
    return f"files with {len(names)} markers"


def _reads(frames: Any) -> bool:
    try:
        frames[0]
    except DicomTorchError:
        return False
    return True


def _check_index(index: FrameIndex, folder: Path) -> None:
    """An index may have what the package's own columns are made of, and nobody else may read it."""
    index.save(folder / "index", replace=True)
    own = {column.name for column in index.columns} | set(SHOWN_UIDS) | KEPT
    wanted = {name: marker(name) for name in keywords() if name not in own}
    for path in (folder / "index").iterdir():
        assert os.stat(path).st_mode & 0o077 == 0, f"others may read {path.name}"
    text = json.dumps(index.table.to_pydict(), default=str).encode()
    found = [name for name in leaks(text, wanted) if name in _PERSONAL]
    assert found == [], f"the index has {found}"


_PERSONAL = frozenset(
    (
        *(
            "PatientName",
            "PatientBirthDate",
            "PatientAddress",
            "OtherPatientIDs",
            "AccessionNumber",
        ),
        *("ReferringPhysicianName", "InstitutionName", "StationName", "PatientComments", "StudyID"),
        *("OperatorsName", "ImageComments", "RequestedProcedureDescription", "DeviceSerialNumber"),
    )
)


def rounds(seed: int, tally: Tally) -> Iterator[None]:
    """One file after the other."""
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "user"))
        broken = encapsulated(
            ct(ct_pixels(), 9), [bytes(imagecodecs.jpeg2k_encode(ct_pixels())[:99])]
        )
        write(broken, Path(folder, "tree", "broken.dcm"))
        while True:
            rng = random.Random(f"{seed} {number}")
            tally.timed(
                f"file {number} of seed {seed}",
                lambda rng=rng, number=number: check(Path(folder), rng, number),  # type: ignore[misc]
            )
            number += 1
            yield


if __name__ == "__main__":
    sys.exit(main("leaks", rounds))
