"""Every real sample, from scan to tensor, against reference values that other programs made.

`DICOMTORCH_SAMPLES` names a folder with `golden.json` (reference values per file and frame) and the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch import DicomFrames, FrameIndex, FrameReader, PixelOptions, scan
from dicomtorch.errors import DecodeError, DicomTorchError
from dicomtorch.model.report import ScanReport

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


def check_stored(file: str, frame: str, backend: str) -> None:
    """Stored values against the reference: to the bit where two decoders agreed on them, else within their spread."""
    entry = golden()[file]
    reference = entry["frames"][frame]
    stored = reader("stored", backend).read_stored(position_of(file, frame))
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


def check_values(file: str, frame: str, values: str, backend: str) -> None:
    """Modality or display values against a reference that is trusted."""
    entry = golden()[file]
    reference = entry["frames"][frame][values]
    position = position_of(file, frame)
    (result,) = reader(values, backend).read_many([position])
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


@pytest.mark.parametrize(("file", "frame"), cases())
def test_stored_values(file: str, frame: str) -> None:
    check_stored(file, frame, "auto")


@pytest.mark.parametrize(("file", "frame", "values"), value_cases())
def test_values(file: str, frame: str, values: str) -> None:
    check_values(file, frame, values, "auto")


_INVALID_SCAN = "Se = 0 in a sequential scan, where T.81 table B.3 wants 63; libjpeg refuses it"
REFUSED = {
    ("pydicom", "pydicom__pydicom/src/pydicom/data/test_files/GDCMJ2K_TextGBR.dcm"): (
        "each tile has six tile-parts where TNsot says five; Pillow refuses it"
    ),
    ("pydicom", "pydicom__pydicom/src/pydicom/data/test_files/JPEG-lossy.dcm"): _INVALID_SCAN,
    ("pydicom", "robyoung__dicom-test-files/data/WG04/JPLY/MR1_JPLY"): _INVALID_SCAN,
    ("pydicom", "robyoung__dicom-test-files/data/WG04/JPLY/RG3_JPLY"): _INVALID_SCAN,
}
"""What a plug-in under a backend may refuse although it decodes the kind, and why; it may not decode it wrongly."""

LEAST = {"imagecodecs": 317, "pydicom": 245, "simpleitk": 250}
"""Frames with a reference that each backend decodes, at the least; pydicom with Pillow as its only plug-in."""


@pytest.mark.parametrize("backend", LEAST)
def test_every_backend(backend: str) -> None:
    """Each backend on what it says it can do."""
    pytest.importorskip({"simpleitk": "SimpleITK"}.get(backend, backend))
    failures, ran = [], 0
    unable = reader("stored", backend).unsupported
    for file, frame in cases():
        if scanned()[0].image_pixel(position_of(file, frame)) in unable:
            continue
        ran += 1
        try:
            check_stored(file, frame, backend)
        except (AssertionError, DicomTorchError) as error:
            if not (isinstance(error, DecodeError) and (backend, file) in REFUSED):
                failures.append(f"{file} {frame}: {error}"[:300])
    assert not failures
    if backend == "pydicom":
        pytest.importorskip("PIL")
    assert ran >= LEAST[backend], ran


@pytest.mark.parametrize("backend", [name for name in LEAST if name != "imagecodecs"])
def test_values_of_every_backend(backend: str) -> None:
    """Values made of what another backend than the usual one decodes."""
    pytest.importorskip({"simpleitk": "SimpleITK"}.get(backend, backend))
    unable = reader("stored", backend).unsupported
    failures = []
    for file, frame, values in value_cases():
        if scanned()[0].image_pixel(position_of(file, frame)) in unable:
            continue
        try:
            check_values(file, frame, values, backend)
        except (AssertionError, DicomTorchError) as error:
            if not (isinstance(error, DecodeError) and (backend, file) in REFUSED):
                failures.append(f"{file} {frame} {values}: {error}"[:300])
    assert not failures


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


FO = "fo-dicom__fo-dicom/Tests/"
PYDICOM = "pydicom__pydicom/src/pydicom/data/test_files/"
ORTHANC = "orthanc-mirrors__orthanc-tests/Database/"

NO_IMAGES = {
    # name: (file class, what the reason says)
    "ImagingDataCommons__highdicom/data/test_files/sm_annotations.dcm": ("no_pixels", "Annotations"),
    "dicompyler__dicompyler-core/tests/testdata/example_data/rtss.dcm": ("no_pixels", "Structure"),
    "pydicom__pydicom/history-e7aaaf77/presentation_lut.zip/presentation_lut/ovly_p01.pre": (
        "no_pixels",
        "Presentation State",
    ),
    "pydicom__pydicom/src/pydicom/data/palettes/fall.dcm": ("no_pixels", "Color Palette"),
    PYDICOM + "ExplVR_BigEndNoMeta.dcm": ("no_pixels", "RT Ion Plan"),
    PYDICOM + "dicomdirtests/DICOMDIR": ("no_pixels", "DICOMDIR"),
    PYDICOM + "test-SR.dcm": ("no_pixels", "SR"),
    PYDICOM + "waveform_ecg.dcm": ("no_pixels", "ECG"),
    "robyoung__dicom-test-files/data/dcmqi/sr-example/rwvm.dcm": ("no_pixels", "Real World"),
    # Begins with a stray byte, in front of a data set without preamble.
    PYDICOM + "no_meta.dcm": ("not_dicom", "neither DICM at offset 128"),
    # VM of Rows is 1 (PS3.6), and the 3 GB of pixels are not there.
    "dcm4che__dcm4che/dcm4che-test-data/src/main/resources/3gb-bulk-data-truncated": (
        "unreadable",
        r"Rows has 2 values",
    ),
    # Made to exhaust stacks and memory.
    ORTHANC + "2026-05-06-Deeply-Nested-Sequence.dcm": ("unreadable", "Limits.depth"),
    ORTHANC + "2026-05-26-oob-monochrome-65535.dcm": ("unreadable", "Limits.pixels_per_frame"),
    PYDICOM + "MR_truncated.dcm": ("unreadable", "states 8192 bytes, the file has 8130"),
    # IS holds decimal digits (PS3.5 6.2).
    PYDICOM + "badVR.dcm": ("unreadable", r"NumberOfFrames has VR IS and length 2"),
    # Rows is type 1 (PS3.3 C.7.6.3).
    PYDICOM + "meta_missing_tsyntax.dcm": ("unreadable", "Rows is missing"),
    PYDICOM + "nested_priv_SQ.dcm": ("unreadable", "Rows is missing"),
    PYDICOM + "rtplan_truncated.dcm": ("unreadable", "the file ends inside its header"),
}  # fmt: skip
"""Files without a frame, and why."""

NO_FRAMES = {
    # Some streams are those of another image: 240 x 55 or smaller, where the header says 240 x 240 (PS3.5 8.2.1).
    FO + "FO-DICOM.Benchmark/Data/multiframe.dcm": (23, r"the code stream has .* the header says"),
    # Zeros where the stream should be: T.81 B.1.1.3 begins with SOI.
    FO + "FO-DICOM.Tests/Test_Data/genFile.dcm": (1, "SOI"),
    # A sequence delimiter, FE FF DD E0, lies over Rsiz and half of Xsiz (T.800 A.5.1): 3.8e12 pixels in 1.5e7 tiles.
    PYDICOM + "JPEG2000-embedded-sequence-delimiter.dcm": (1, "Limits.tiles"),
    # T.800 A.4.2: what follows a tile-part is SOT or EOC, here it is neither.
    "pydicom__pylibjpeg-data/ljdata/ds/JPEG2000Lossless/966.dcm": (1, "tile-part"),
}
"""Files with frames that no decoder can make an image of: how many, and why."""


def test_files_without_a_frame_are_those_known() -> None:
    _, report = scanned()
    own = {"README.md", "golden.json", "manifest.csv"}
    found = {os.fsdecode(f.path): f for f in report.findings if f.file_class != "image"}
    assert found.keys() - own == NO_IMAGES.keys()
    for name, (file_class, reason) in NO_IMAGES.items():
        assert found[name].file_class == file_class
        assert re.search(reason, found[name].reason), found[name].reason


def test_frames_that_do_not_decode_are_those_known() -> None:
    """Every frame of every file, not only those with a reference."""
    index, _ = scanned()
    stored = reader("stored")
    assert not stored.unsupported
    failed: dict[str, list[str]] = {}
    for position in range(len(index)):
        try:
            stored.read_stored(position)
        except DicomTorchError as error:
            name = os.path.relpath(os.fsdecode(index.path(position)), SAMPLES)
            failed.setdefault(name, []).append(str(error))
    assert {name: len(errors) for name, errors in failed.items()} == {
        name: count for name, (count, _) in NO_FRAMES.items()
    }
    for name, (_, reason) in NO_FRAMES.items():
        for message in failed[name]:
            assert re.search(reason, message), message


@pytest.mark.parametrize("backend", ["auto", *LEAST])
def test_frames_that_must_fail(backend: str) -> None:
    pytest.importorskip({"simpleitk": "SimpleITK", "auto": "numpy"}.get(backend, backend))
    index, _ = scanned()
    asked = 0
    for file, entry in golden().items():
        for frame in entry.get("must_fail", {}):
            asked += 1
            with pytest.raises(DicomTorchError):
                reader("stored", backend).read_stored(position_of(file, frame))
    assert asked
    for name in NO_FRAMES:
        position = np.flatnonzero(index.where(file=list(index.files["path"]).index(name.encode())))
        if len(position) == 1:
            with pytest.raises(DicomTorchError):
                reader("stored", backend).read_stored(int(position[0]))


def test_bad_frames_are_replaced_where_asked_for() -> None:
    index, _ = scanned()
    name = next(name for name in NO_FRAMES if name.endswith("multiframe.dcm"))
    rows = np.flatnonzero(index.where(file=list(index.files["path"]).index(name.encode())))
    frames = DicomFrames(index.select(rows), on_error="replace")
    bad = frames.index.find(frame=139)
    with pytest.warns(UserWarning, match="frame 139"):
        image, meta = frames[bad]
    assert image.shape == (3, 240, 240)
    assert (meta["requested_index"], meta["index"]) != (bad, bad)
    assert [failure.index for failure in frames.failures] == [bad]
