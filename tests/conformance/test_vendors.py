"""Time and diffusion series as scanners of each vendor write them, private elements included, against dcm2niix.

Made here, because real ones of every vendor are not to be had: what decides which slices make a volume, in which order,
and which b-value and direction each has, is written where the conformance statement of the vendor says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from dicomtorch import DicomVolumes
from tests.support.converter import compare, compare_diffusion, converted
from tests.support.csa import csa_header
from tests.support.phantoms import ct, group, write

MR, ENHANCED_MR = UID("1.2.840.10008.5.1.4.1.1.4"), UID("1.2.840.10008.5.1.4.1.1.4.1")
SLICES, TIMES, ROWS, COLUMNS = 4, 3, 20, 24
STEP, PIXEL = 3.0, (2.0, 2.5)
NAMES = {
    "Siemens": "SIEMENS",
    "GE": "GE MEDICAL SYSTEMS",
    "Philips": "Philips Medical Systems",
    "Canon": "CANON_MEC",
    "Toshiba": "TOSHIBA_MEC",
    "UIH": "UIH",
}
DIRECTIONS = np.array([[0, 0, 0], [0.6, 0.64, 0.48], [-0.6, 0, 0.8], [0.28, -0.96, 0]], np.float64)
"""Of the volumes of a diffusion series, in patient coordinates; the first has none."""
B_VALUES = (0.0, 1000.0, 1000.0, 700.0)


def plane() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The directions of rows, columns and the normal of an oblique axial slice."""
    a, b = np.deg2rad(12), np.deg2rad(-7)
    row = np.array([np.cos(b), np.sin(b), 0])
    column = np.array([-np.sin(b) * np.cos(a), np.cos(b) * np.cos(a), np.sin(a)])
    return row, column, np.cross(row, column)


def place(k: int) -> list[str]:
    """Image Position (Patient) of slice `k`."""
    return [f"{number:.8f}" for number in np.array([-25.0, -20.0, 7.0]) + k * STEP * plane()[2]]


def orientation() -> list[str]:
    return [f"{number:.10f}" for number in np.concatenate(plane()[:2])]


def pixels(time: int, k: int) -> np.ndarray:
    """Of one slice: no two are alike, and no axis is like another."""
    return (
        np.random.default_rng(100 * time + k).integers(0, 3000, (ROWS, COLUMNS)).astype(np.uint16)
    )


def slice_of(vendor: str, time: int, k: int, number: int, **attributes: Any) -> Dataset:
    """One classic MR image."""
    dataset = ct(pixels(time, k), 0, Modality="MR", SOPClassUID=MR)
    dataset.file_meta.MediaStorageSOPClassUID = MR
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(
        entropy_srcs=[vendor, str(number)]
    )
    del dataset.WindowCenter, dataset.WindowWidth, dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.Manufacturer = NAMES[vendor]
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.SeriesNumber, dataset.SeriesDescription, dataset.ProtocolName = 5, "made", "made"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = (
        "20260102"
    )
    dataset.StudyTime = dataset.SeriesTime = "100000"
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.MRAcquisitionType = "EP", "SK", "2D"
    dataset.ScanOptions = ""
    dataset.RepetitionTime, dataset.EchoTime, dataset.FlipAngle = 2000, 30, 90
    dataset.MagneticFieldStrength = 3
    dataset.InPlanePhaseEncodingDirection = "COL"
    dataset.SliceThickness, dataset.SpacingBetweenSlices = 3, 3
    dataset.PixelSpacing, dataset.ImageOrientationPatient = list(PIXEL), orientation()
    dataset.ImagePositionPatient = place(k)
    dataset.InstanceNumber = number
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def clock(seconds: float) -> str:
    return f"10{int(seconds) // 60:02d}{seconds % 60:09.6f}"


# Time series


def siemens_times(folder: Path) -> None:
    for time, k in itertools.product(range(TIMES), range(SLICES)):
        number = time * SLICES + k + 1
        at = clock(2 * time + 0.1 * k)
        dataset = slice_of("Siemens", time, k, number, AcquisitionNumber=time + 1)
        dataset.AcquisitionTime = dataset.ContentTime = at
        write(dataset, folder / f"{number}.dcm")


def ge_times(folder: Path) -> None:
    """Instance Numbers run through all slices of a time; Temporal Position Identifier is there, times are not."""
    for time, k in itertools.product(range(TIMES), range(SLICES)):
        number = time * SLICES + k + 1
        dataset = slice_of("GE", time, k, number, AcquisitionNumber=1)
        dataset.TemporalPositionIdentifier, dataset.NumberOfTemporalPositions = time + 1, TIMES
        dataset.TriggerTime = 2000 * time + 100 * k
        dataset.private_block(0x0021, "GEMS_RELA_01", create=True).add_new(0x4F, "SL", SLICES)
        write(dataset, folder / f"{number}.dcm")


def philips_times(folder: Path) -> None:
    """All times of a slice one after the other."""
    for k, time in itertools.product(range(SLICES), range(TIMES)):
        number = k * TIMES + time + 1
        dataset = slice_of("Philips", time, k, number, AcquisitionNumber=5)
        dataset.TemporalPositionIdentifier, dataset.NumberOfTemporalPositions = time + 1, TIMES
        dataset.AcquisitionTime = clock(0)
        dataset.ContentTime = clock(30)
        block = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
        block.add_new(0x0A, "IS", k + 1)
        block.add_new(0x18, "SL", SLICES)
        block.add_new(0x81, "IS", TIMES)
        write(dataset, folder / f"{number}.dcm")


def canon_times(folder: Path, vendor: str = "Canon") -> None:
    for time, k in itertools.product(range(TIMES), range(SLICES)):
        number = time * SLICES + k + 1
        dataset = slice_of(vendor, time, k, number, AcquisitionNumber=time + 1)
        dataset.TemporalPositionIdentifier, dataset.NumberOfTemporalPositions = time + 1, TIMES
        dataset.AcquisitionTime = dataset.ContentTime = clock(2 * time)
        write(dataset, folder / f"{number}.dcm")


def toshiba_times(folder: Path) -> None:
    canon_times(folder, "Toshiba")


def uih_times(folder: Path) -> None:
    for time, k in itertools.product(range(TIMES), range(SLICES)):
        number = time * SLICES + k + 1
        dataset = slice_of("UIH", time, k, number, AcquisitionNumber=time + 1)
        dataset.AcquisitionTime = dataset.ContentTime = clock(2 * time + 0.1 * k)
        write(dataset, folder / f"{number}.dcm")


# Diffusion series, classic


def siemens_diffusion(folder: Path) -> None:
    for shot, k in itertools.product(range(len(B_VALUES)), range(SLICES)):
        number = shot * SLICES + k + 1
        dataset = slice_of("Siemens", shot, k, number, AcquisitionNumber=shot + 1)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND"]
        dataset.AcquisitionTime = dataset.ContentTime = clock(5 * shot + 0.1 * k)
        block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0C, "IS", int(B_VALUES[shot]))
        if B_VALUES[shot]:
            block.add_new(0x0E, "FD", DIRECTIONS[shot].tolist())
        write(dataset, folder / f"{number}.dcm")


def siemens_csa_diffusion(folder: Path) -> None:
    """Older systems say it in the CSA header alone."""
    for shot, k in itertools.product(range(len(B_VALUES)), range(SLICES)):
        number = shot * SLICES + k + 1
        dataset = slice_of("Siemens", shot, k, number, AcquisitionNumber=shot + 1)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND"]
        dataset.AcquisitionTime = dataset.ContentTime = clock(5 * shot + 0.1 * k)
        direction = DIRECTIONS[shot].tolist() if B_VALUES[shot] else []
        header = csa_header(
            B_value=[int(B_VALUES[shot])],
            DiffusionGradientDirection=[f"{x:.8f}" for x in direction],
            PhaseEncodingDirectionPositive=[1],
            NumberOfImagesInMosaic=[],
            SliceNormalVector=[f"{x:.8f}" for x in plane()[2]],
        )
        dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
        write(dataset, folder / f"{number}.dcm")


def ge_diffusion(folder: Path, encoding: str = "COL") -> None:
    """Components along the axes of the image, in the order of phase encoding."""
    axes = np.stack(plane())
    for shot, k in itertools.product(range(len(B_VALUES)), range(SLICES)):
        number = shot * SLICES + k + 1
        dataset = slice_of("GE", shot, k, number, AcquisitionNumber=1)
        dataset.InPlanePhaseEncodingDirection = encoding
        dataset.TriggerTime = 0
        x, y, z = axes @ DIRECTIONS[shot]
        parts = (-x, -y, z) if encoding == "COL" else (y, -x, z)
        acquired = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
        for element, part in zip((0xBB, 0xBC, 0xBD), parts, strict=True):
            acquired.add_new(element, "DS", f"{part:.10f}")
        dataset.private_block(0x0021, "GEMS_RELA_01", create=True).add_new(0x4F, "SL", SLICES)
        stated = int(B_VALUES[shot]) + (1_000_000_000 if B_VALUES[shot] else 0)
        block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x39, "IS", [stated, 8, 0, 0])
        write(dataset, folder / f"{number}.dcm")


def ge_diffusion_along_rows(folder: Path) -> None:
    ge_diffusion(folder, "ROW")


def philips_diffusion(folder: Path) -> None:
    for k, shot in itertools.product(range(SLICES), range(len(B_VALUES))):
        number = k * len(B_VALUES) + shot + 1
        dataset = slice_of("Philips", shot, k, number, AcquisitionNumber=5)
        dataset.AcquisitionTime = clock(0)
        dataset.ContentTime = clock(30)
        block = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
        block.add_new(0x03, "FL", B_VALUES[shot])
        block.add_new(0x04, "CS", "O" if B_VALUES[shot] else "N")
        block.add_new(0x0A, "IS", k + 1)
        block.add_new(0x18, "SL", SLICES)
        more = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        for element, part in zip((0xB0, 0xB1, 0xB2), DIRECTIONS[shot].tolist(), strict=True):
            more.add_new(element, "FL", part)
        write(dataset, folder / f"{number}.dcm")


def toshiba_diffusion(folder: Path, vendor: str = "Toshiba") -> None:
    """The attributes of the standard at the top level, of volumes with a gradient only."""
    for shot, k in itertools.product(range(len(B_VALUES)), range(SLICES)):
        number = shot * SLICES + k + 1
        dataset = slice_of(vendor, shot, k, number, AcquisitionNumber=shot + 1)
        dataset.AcquisitionTime = dataset.ContentTime = clock(5 * shot)
        if B_VALUES[shot]:
            dataset.DiffusionBValue = B_VALUES[shot]
            dataset.DiffusionGradientOrientation = DIRECTIONS[shot].tolist()
        write(dataset, folder / f"{number}.dcm")


def canon_diffusion(folder: Path, encoding: str = "COL") -> None:
    """Components along the axes of the image, in the order of phase encoding, in Image Comments."""
    axes = np.stack(plane())
    for shot, k in itertools.product(range(len(B_VALUES)), range(SLICES)):
        number = shot * SLICES + k + 1
        dataset = slice_of("Canon", shot, k, number, AcquisitionNumber=shot + 1)
        dataset.InPlanePhaseEncodingDirection = encoding
        dataset.AcquisitionTime = dataset.ContentTime = clock(5 * shot)
        if B_VALUES[shot]:
            dataset.DiffusionBValue = B_VALUES[shot]
            x, y, z = axes @ DIRECTIONS[shot]
            parts = (-y, -x, z) if encoding == "COL" else (-x, y, z)
            words = ",".join(f"{part:.6f}" for part in parts)
            dataset.ImageComments = f"b={B_VALUES[shot]:.0f}({words})"
        write(dataset, folder / f"{number}.dcm")


def canon_diffusion_along_rows(folder: Path) -> None:
    canon_diffusion(folder, "ROW")


def uih_diffusion(folder: Path) -> None:
    """Components along the axes of the image."""
    axes = np.stack(plane())
    for shot, k in itertools.product(range(len(B_VALUES)), range(SLICES)):
        number = shot * SLICES + k + 1
        dataset = slice_of("UIH", shot, k, number, AcquisitionNumber=shot + 1)
        dataset.AcquisitionTime = dataset.ContentTime = clock(5 * shot + 0.1 * k)
        block = dataset.private_block(0x0065, "Image Private Header", create=True)
        block.add_new(0x09, "FD", B_VALUES[shot])
        block.add_new(0x37, "FD", (axes @ DIRECTIONS[shot]).tolist())
        write(dataset, folder / f"{number}.dcm")


# Enhanced


def enhanced(vendor: str, frames: list[dict[str, Any]], stored: np.ndarray, uid: int) -> Dataset:
    """One Enhanced MR Image; each frame says `place`, `index`, and what of macros it has."""
    dataset = slice_of(vendor, 0, 0, uid)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ENHANCED_MR
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    del dataset.SliceThickness, dataset.SpacingBetweenSlices, dataset.EchoTime, dataset.FlipAngle
    dataset.AcquisitionNumber = uid
    dataset.AcquisitionDateTime = "20260102" + clock(2 * uid)
    dataset.NumberOfFrames = len(frames)
    dataset.PixelData = stored.tobytes()
    dataset.SharedFunctionalGroupsSequence = [
        group(
            PlaneOrientationSequence=[group(ImageOrientationPatient=orientation())],
            PixelMeasuresSequence=[
                group(PixelSpacing=list(PIXEL), SliceThickness=3, SpacingBetweenSlices=3)
            ],
            MREchoSequence=[group(EffectiveEchoTime=30.0)],
        )
    ]
    dimensions = generate_uid(entropy_srcs=["dimensions"])
    dataset.DimensionOrganizationSequence = [group(DimensionOrganizationUID=dimensions)]
    pointers = [(0x00209056, 0x00209111), (0x00209057, 0x00209111), (0x00209128, 0x00209111)]
    dataset.DimensionIndexSequence = [
        group(
            DimensionOrganizationUID=dimensions,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=functional,
        )
        for pointer, functional in pointers
    ]
    groups = []
    for frame in frames:
        content = group(
            StackID="1",
            InStackPositionNumber=frame["place"] + 1,
            TemporalPositionIndex=frame["time"] + 1,
            DimensionIndexValues=[1, frame["place"] + 1, frame["time"] + 1],
            FrameAcquisitionDateTime="20260102" + clock(2 * frame["time"]),
            FrameReferenceDateTime="20260102" + clock(2 * frame["time"]),
        )
        item = group(
            FrameContentSequence=[content],
            PlanePositionSequence=[group(ImagePositionPatient=place(frame["place"]))],
        )
        for keyword, value in frame.get("macros", {}).items():
            setattr(item, keyword, [value])
        groups.append(item)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return dataset


def diffusion_macro(shot: int) -> Dataset:
    if not B_VALUES[shot]:
        return group(DiffusionBValue=0.0, DiffusionDirectionality="NONE")
    direction = group(DiffusionGradientOrientation=DIRECTIONS[shot].tolist())
    return group(
        DiffusionBValue=B_VALUES[shot],
        DiffusionDirectionality="DIRECTIONAL",
        DiffusionGradientDirectionSequence=[direction],
    )


def enhanced_times(folder: Path, vendor: str) -> None:
    """All in one file, place after place."""
    order = list(itertools.product(range(SLICES), range(TIMES)))
    frames = [{"place": k, "time": time} for k, time in order]
    stored = np.stack([pixels(time, k) for k, time in order])
    write(enhanced(vendor, frames, stored, 1), folder / "1.dcm")


def enhanced_diffusion(folder: Path, vendor: str) -> None:
    order = list(itertools.product(range(SLICES), range(len(B_VALUES))))
    frames = [
        {"place": k, "time": shot, "macros": {"MRDiffusionSequence": diffusion_macro(shot)}}
        for k, shot in order
    ]
    stored = np.stack([pixels(shot, k) for k, shot in order])
    write(enhanced(vendor, frames, stored, 1), folder / "1.dcm")


def file_for_each_time(folder: Path, vendor: str) -> None:
    for time in range(TIMES):
        frames = [{"place": k, "time": time} for k in range(SLICES)]
        stored = np.stack([pixels(time, k) for k in range(SLICES)])
        write(enhanced(vendor, frames, stored, time + 1), folder / str(time) / "1.dcm")


def the_series(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The one sample of a folder."""
    ((image, meta),) = DicomVolumes(folder, group="series", values="stored")
    return image, meta


CLASSIC_TIMES = [siemens_times, ge_times, philips_times, canon_times, toshiba_times, uih_times]
CLASSIC_DIFFUSION = [
    siemens_diffusion,
    siemens_csa_diffusion,
    ge_diffusion,
    ge_diffusion_along_rows,
    philips_diffusion,
    canon_diffusion,
    canon_diffusion_along_rows,
    toshiba_diffusion,
    uih_diffusion,
]


@pytest.mark.parametrize("make", CLASSIC_TIMES)
def test_classic_times(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "series")
    (expected,) = converted(tmp_path / "series", tmp_path / "out")
    assert expected.voxels.shape == (COLUMNS, ROWS, SLICES, TIMES)
    compare(*the_series(tmp_path / "series"), expected)


@pytest.mark.parametrize("make", CLASSIC_DIFFUSION)
def test_classic_diffusion(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "series")
    (expected,) = converted(tmp_path / "series", tmp_path / "out")
    image, meta = the_series(tmp_path / "series")
    compare(image, meta, expected)
    compare_diffusion(meta, expected)
    # And both are what was written.
    assert meta["b_values"] == B_VALUES
    directions = np.nan_to_num(meta["gradient_directions"].numpy())
    np.testing.assert_allclose(directions, DIRECTIONS, atol=1e-5)


@pytest.mark.parametrize("vendor", ["Philips", "Canon"])
def test_enhanced_times(tmp_path: Path, vendor: str) -> None:
    """Of other vendors the converter leaves frames of one file in the order of the file."""
    enhanced_times(tmp_path / "series", vendor)
    (expected,) = converted(tmp_path / "series", tmp_path / "out")
    compare(*the_series(tmp_path / "series"), expected)


@pytest.mark.parametrize("vendor", ["Philips", "Canon"])
def test_enhanced_diffusion(tmp_path: Path, vendor: str) -> None:
    enhanced_diffusion(tmp_path / "series", vendor)
    (expected,) = converted(tmp_path / "series", tmp_path / "out")
    image, meta = the_series(tmp_path / "series")
    compare(image, meta, expected)
    compare_diffusion(meta, expected)
    assert meta["b_values"] == B_VALUES


@pytest.mark.parametrize("vendor", list(NAMES))
def test_an_enhanced_file_for_each_time(tmp_path: Path, vendor: str) -> None:
    """The converter makes a volume of each file, and we one sample of all."""
    file_for_each_time(tmp_path / "series", vendor)
    image, meta = the_series(tmp_path / "series")
    assert tuple(image.shape) == (TIMES, 1, SLICES, ROWS, COLUMNS)
    assert meta["times"] == (0.0, 2000.0, 4000.0)
    for time in range(TIMES):
        (expected,) = converted(tmp_path / "series" / str(time), tmp_path / f"out{time}")
        compare(image[time : time + 1], meta, expected)


@pytest.mark.parametrize("vendor", list(NAMES))
def test_enhanced_places_in_the_order_of_the_file(tmp_path: Path, vendor: str) -> None:
    """Times within a place: (0020,9057) In-Stack Position Number and (0020,9128) Temporal Position Index say which
    frame is which (PS3.3 C.7.6.16.2.2); converters that go by the order of frames mix times.
    """
    enhanced_times(tmp_path, vendor)
    image, _ = the_series(tmp_path)
    for time, k in itertools.product(range(TIMES), range(SLICES)):
        slices = image[time, 0, k].numpy(), image[time, 0, SLICES - 1 - k].numpy()
        assert any(np.array_equal(one, pixels(time, k)) for one in slices)


def test_canons_use_of_the_standard_attribute(tmp_path: Path) -> None:
    """(0018,9089) is in patient coordinates (PS3.3 C.8.13.5.9); the converter reads Canon's as along the image."""
    toshiba_diffusion(tmp_path / "series", "Canon")
    (expected,) = converted(tmp_path / "series", tmp_path / "out")
    image, meta = the_series(tmp_path / "series")
    compare(image, meta, expected)
    directions = meta["gradient_directions"].numpy()
    np.testing.assert_allclose(np.nan_to_num(directions), DIRECTIONS, atol=1e-12)
    assert expected.directions is not None
    assert np.abs(expected.directions - DIRECTIONS).max() > 0.1
