"""Every real sample, from scan to tensor, against reference values that other programs made.

`DICOMTORCH_SAMPLES` names a folder with `golden.json` (reference values per file and frame) and the files.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch import DicomFrames, FrameIndex, FrameReader, PixelOptions, scan
from dicomtorch.attributes import ScanReport
from dicomtorch.errors import DicomTorchError

SAMPLES = os.environ.get("DICOMTORCH_SAMPLES", "")
pytestmark = pytest.mark.skipif(not SAMPLES, reason="DICOMTORCH_SAMPLES names no folder of samples")


@cache
def golden() -> dict[str, Any]:
    return json.loads((Path(SAMPLES) / "golden.json").read_text()) if SAMPLES else {}


@cache
def scanned() -> tuple[FrameIndex, ScanReport]:
    return scan(SAMPLES)


def cases() -> list[tuple[str, str]]:
    return [(file, frame) for file, entry in golden().items() for frame in entry.get("frames", {})]


def value_cases() -> list[tuple[str, str, str]]:
    return [
        (file, frame, values)
        for file, frame in cases()
        for values in ("modality", "display")
        if golden()[file]["frames"][frame].get(values, {}).get("trusted")
    ]


def position_of(file: str, frame: str) -> int:
    index, _ = scanned()
    path = os.fsencode(file)
    paths = index.files["path"]
    numbers = [k for k in range(len(paths)) if paths[k] == path]
    assert len(numbers) == 1, f"{file} is not in the files table"
    return index.find(file=numbers[0], frame=int(frame))


@cache
def reader(values: str, backend: str = "auto") -> FrameReader:
    return FrameReader(scanned()[0], backend, PixelOptions(values=values))  # type: ignore[arg-type]


def compare(received: np.ndarray, reference: dict[str, Any], tolerance: float) -> None:
    flat = received.reshape(-1)
    for position, expected in reference["points"]:
        assert abs(flat[position] - expected) <= tolerance, (position, flat[position], expected)


@pytest.mark.parametrize(("file", "frame"), cases())
def test_stored_values(file: str, frame: str) -> None:
    entry = golden()[file]
    reference = entry["frames"][frame]
    stored = reader("stored").read_stored(position_of(file, frame))
    assert list(stored.shape) == reference["shape"]
    if stored.dtype.kind == "f":
        np.testing.assert_allclose(
            [stored.min(), stored.max()], [reference["min"], reference["max"]]
        )
        return
    # References of 32-bit values are kept modulo 2^32.
    wrapped = stored.astype(np.int64).astype(np.int32)
    if entry["exact"]:
        digest = hashlib.sha256(np.ascontiguousarray(wrapped.astype("<i4")).tobytes()).hexdigest()
        assert digest == reference["sha256"]
        return
    converted = entry["photometric"].startswith("YBR") or len(stored.shape) == 3
    compare(wrapped, reference, max(entry["spread"] + 2, 2 if converted else 0))


@pytest.mark.parametrize(("file", "frame", "values"), value_cases())
def test_values(file: str, frame: str, values: str) -> None:
    entry = golden()[file]
    reference = entry["frames"][frame][values]
    position = position_of(file, frame)
    (result,) = reader(values).read_many([position])
    if isinstance(result, DicomTorchError):
        raise result
    received = result.image.numpy().astype(np.float64)[0]
    tolerance = 1e-4 * max(abs(reference["max"]), abs(reference["min"]), 1e-12)
    if not entry["exact"]:
        # Decoders of lossy streams differ in stored values; that difference goes through slope and window.
        slope = np.nan_to_num(abs(scanned()[0].frame_values(position).rescale_slope), nan=1.0)
        width = np.nan_to_num(result.voi.window_width, nan=256.0) if values == "display" else 1.0
        tolerance += (entry["spread"] + 2) * slope / width
    compare(received, reference, tolerance)


def test_every_file_is_in_the_report() -> None:
    _, report = scanned()
    on_disk = {
        os.path.relpath(os.path.join(folder, name), SAMPLES)
        for folder, _, names in os.walk(SAMPLES)
        for name in names
    }
    assert {os.fsdecode(finding.path) for finding in report.findings} == on_disk
    for finding in report.findings:
        assert finding.file_class == "image" or finding.reason


def test_frames_that_must_fail() -> None:
    frames = DicomFrames(scanned()[0], values="stored", on_error="replace")
    for file, entry in golden().items():
        for frame in entry.get("must_fail", {}):
            with pytest.raises(DicomTorchError):
                reader("stored").read_stored(position_of(file, frame))
    assert len(frames)
