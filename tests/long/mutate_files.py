"""Scans and reads files that are wrong on purpose: `python -m tests.long.mutate_files --seconds 60`.

No input may end the process, raise anything but the errors of the package, take more than two seconds, or name
anybody; an index of it must come back from the disk as it was; and where pydicom reads the same pixels without
complaint, they must be the same.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.utils import pixel_array

from dicomtorch import DicomFrames, FrameIndex, FrameReader, Limits, scan
from dicomtorch.errors import DicomTorchError
from dicomtorch.model.syntaxes import NATIVE
from tests.support.dicom_mutator import CANARY, mutated
from tests.support.long_run import Tally, main

LIMITS = Limits(
    decode_memory_bytes=64 << 20,
    decode_seconds=2.0,
    decoded_bytes_per_frame=64 << 20,
    inflated_bytes=64 << 20,
    frames_per_file=100_000,
)
MOST_FRAMES = 3
_MOST_FOR_PYDICOM = 100_000
"""Bytes of a file; pydicom takes seconds for what is refused or passed over here."""


Pending = list[tuple[int, npt.NDArray[Any]]]
"""Frames that are yet to be compared with pydicom: their number, and what was read."""


def check(data: bytes, folder: Path, pending: Pending, *, isolation: bool) -> str:
    """What came of one file."""
    path = folder / "a.dcm"
    path.write_bytes(data)
    index, report = scan(path, limits=LIMITS)
    for finding in report.findings:
        assert CANARY not in finding.reason, "a reason names somebody"
    if not len(index):
        return report.findings[0].file_class
    kept = folder / "index"
    index.save(kept, replace=True)
    again = FrameIndex.load(kept)
    both = (repr(one.table.to_pydict()) for one in (again, index))  # nan is nan
    assert next(both) == next(both), "the index came back otherwise"
    reader = FrameReader(index, isolation="process" if isolation else None)
    outcome = "refused"
    for i in range(min(len(index), MOST_FRAMES)):
        try:
            stored = reader.read_stored(i)
            outcome = "decoded"
        except (DicomTorchError, MemoryError) as error:
            check_message(error)
            continue
        if index.image_pixel(i).transfer_syntax_uid in NATIVE:
            pending.append((int(index.gather("frame", np.array([i]))[0]), stored))
        all_options: tuple[dict[str, Any], ...] = ({}, {"values": "modality"})
        for options in all_options:
            try:
                image, meta = DicomFrames(index.select([i]), **options)[0]
                assert np.isfinite(image.numpy()).all() or options, "a display value is no number"
                assert CANARY not in repr(meta), "a sample names somebody"
            except (DicomTorchError, MemoryError) as error:
                check_message(error)
    return outcome


def check_message(error: Exception) -> None:
    """Fails where a message names somebody, or no file."""
    assert CANARY not in str(error), "a message names somebody"
    assert isinstance(error, MemoryError) or "a.dcm" in str(error), "no file is named"


def compare(data: bytes, frame: int, stored: npt.NDArray[Any]) -> None:
    """Fails where pydicom reads other values, and has nothing to complain of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            dataset = pydicom.dcmread(io.BytesIO(data))
            expected = pixel_array(dataset, index=frame, raw=True)
        except Exception:  # whatever it does not read
            return
    if dataset.file_meta.TransferSyntaxUID not in NATIVE or expected.shape != stored.shape:
        return
    if dataset.PixelRepresentation not in (0, 1) or dataset.BitsStored != dataset.HighBit + 1:
        return
    assert np.array_equal(expected, stored), "pydicom reads other values"


def rounds(seed: int, tally: Tally) -> Iterator[None]:
    """One file after the other."""
    warnings.simplefilter("ignore")
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        while True:
            data, ways = mutated(random.Random(f"{seed} {number}"))
            what = f"file {number} of seed {seed} ({ways})"
            pending: Pending = []

            def one(data: bytes = data, pending: Pending = pending, n: int = number) -> str:
                return check(data, Path(folder), pending, isolation=n % 2 == 0)

            tally.timed(what, one)
            if len(data) < _MOST_FOR_PYDICOM:
                for frame, stored in pending:
                    try:
                        compare(data, frame, stored)
                    except AssertionError as error:
                        tally.problems.append(f"{what}: {error}")
            number += 1
            yield


if __name__ == "__main__":
    sys.exit(main("mutate_files", rounds))
