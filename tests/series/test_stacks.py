"""Which frames make a volume, on series that the test writes."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch import scan
from dicomtorch.errors import GeometryError, OptionError
from dicomtorch.series.search import stacks
from dicomtorch.series.stacks import Stack, StackList
from tests.support.phantoms import ct, ct_pixels, group, write

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def slices(folder: Path, order: Any, **attributes: Any) -> None:
    """Files in the order of their names; slice k lies at 2.5 mm * k."""
    for number, k in enumerate(order):
        write(ct(ct_pixels(k), k, **attributes), folder / f"{number:03d}.dcm")


def found(folder: Path, **options: Any) -> StackList:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return stacks(scan(folder)[0], **options)


def only(folder: Path, **options: Any) -> Stack:
    (stack,) = found(folder, **options)
    return stack


def heights(folder: Path, stack: Stack) -> list[float]:
    index, _ = scan(folder)
    return [float(z) for z in np.asarray(index.column("ImagePositionPatient"))[stack.positions, 2]]


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), (3, 1, 7, 0, 2, 6, 5, 4)])
def test_slices_are_ordered_by_place_not_by_name(tmp_path: Path, order: Any) -> None:
    slices(tmp_path, order)
    stack = only(tmp_path)
    assert heights(tmp_path, stack) == [2.5 * k for k in range(8)]
    assert stack.shape == (8, 24, 32)
    assert stack.spacing == (2.5, 0.7, 0.8)
    np.testing.assert_allclose(
        stack.affine, np.array([[0, 0, 0.8, 0], [0, 0.7, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1.0]])
    )
    assert stack.report.is_regular
    assert stack.report.problems == ""
    assert "8 x 24 x 32" in repr(stack)
    np.testing.assert_allclose(stack.patient_to_voxel((1.6, 2.1, 5.0)), (2, 3, 2))


def test_a_missing_slice(tmp_path: Path) -> None:
    slices(tmp_path, (0, 1, 2, 5, 6))
    with pytest.raises(
        GeometryError, match=r"2 missing between .*002\.dcm and .*003\.dcm \(7\.5 mm\)"
    ):
        found(tmp_path)
    stack = only(tmp_path, on_gap="keep")
    assert len(stack) == 5
    (gap,) = stack.report.gaps
    assert (Path(gap.before).name, Path(gap.after).name) == ("002.dcm", "003.dcm")
    assert (gap.missing, gap.millimetres) == (2, 7.5)
    # A point is looked for among the slices that are there.
    np.testing.assert_allclose(stack.patient_to_voxel((0, 0, 12.5)), (3, 0, 0), atol=1e-9)
    np.testing.assert_allclose(stack.patient_to_voxel((0, 0, 5)), (2, 0, 0), atol=1e-9)
    with pytest.warns(UserWarning, match="2 missing"):
        stacks(scan(tmp_path)[0], on_gap="warn")
    with pytest.raises(OptionError, match="on_gap"):
        found(tmp_path, on_gap="ignore")


def test_unequal_spacing(tmp_path: Path) -> None:
    slices(tmp_path, range(4))
    write(ct(ct_pixels(9), 9, ImagePositionPatient=[0, 0, 11]), tmp_path / "9.dcm")
    with pytest.raises(GeometryError, match=r"unequal spacing: .*dcm"):
        found(tmp_path)
    assert only(tmp_path, on_gap="keep").report.position_error > 0.1


def test_slices_beside_each_other_lead_there_and_back(tmp_path: Path) -> None:
    """An unequal stack is not where its affine says within the plane either."""
    for k in range(6):
        place = [3.0 if k == 3 else 0, 0, 2.5 * k]
        write(ct(ct_pixels(k), k, ImagePositionPatient=place), tmp_path / f"{k}.dcm")
    stack = only(tmp_path, on_gap="keep")
    np.testing.assert_allclose(stack.patient_to_voxel((3.0, 0.0, 7.5)), (3, 0, 0), atol=1e-9)
    voxels = np.array([(3, 5, 7), (2, 1, 1), (3.5, 2, 2), (-2, 0, 0), (8, 1, 1)])
    there = stack.voxel_to_patient(voxels)
    np.testing.assert_allclose(there[0], (3 + 7 * 0.8, 5 * 0.7, 7.5))
    np.testing.assert_allclose(stack.patient_to_voxel(there), voxels, atol=1e-9)


def test_a_slice_that_is_there_twice(tmp_path: Path) -> None:
    slices(tmp_path, (0, 1, 2, 2, 3))
    with pytest.raises(GeometryError, match=r"1 slice is a copy.*003\.dcm"):
        found(tmp_path)
    stack = only(tmp_path, on_gap="keep")
    assert len(stack) == 4
    assert [Path(name).name for name in stack.report.duplicates] == ["003.dcm"]
    index, _ = scan(tmp_path)
    assert len(stacks(index.deduplicate())) == 1


def test_copies_are_named_with_their_own_stack(tmp_path: Path) -> None:
    for phase in range(2):
        for k in (0, 1, 1, 2) if phase else (0, 1, 2):
            dataset = ct(
                ct_pixels(k), k, SOPInstanceUID=f"1.2.{phase}.{k}", AcquisitionNumber=phase
            )
            number = len(list(tmp_path.iterdir()))
            write(dataset, tmp_path / f"{number}.dcm")
    first, second = found(tmp_path, on_gap="keep")
    assert (len(first), len(second)) == (3, 3)
    assert first.report.duplicates == ()
    assert [Path(name).name for name in second.report.duplicates] == ["5.dcm"]


def test_images_without_uid_are_no_copies(tmp_path: Path) -> None:
    for number, k in enumerate((0, 1, 1, 2)):
        dataset = ct(ct_pixels(number), k)
        path = write(dataset, tmp_path / f"{number}.dcm")
        del dataset.SOPInstanceUID
        dataset.save_as(path, enforce_file_format=False)
    none = found(tmp_path, on_gap="keep")
    assert len(none) == 0
    assert "4: several slices at one place" in none.reasons()


def test_repeats_that_nothing_tells_apart(tmp_path: Path) -> None:
    slices(tmp_path / "a", range(3))
    for k in range(3):
        again = ct(ct_pixels(k), k, SOPInstanceUID=f"1.2.3.{k}", ConvolutionKernel="")
        write(again, tmp_path / "b" / f"{k}.dcm")
    with pytest.raises(GeometryError, match=r"6 slices are at the place of another.*split_by="):
        found(tmp_path)
    with pytest.warns(UserWarning, match="6 slices"):
        none = stacks(scan(tmp_path)[0], on_gap="warn")
    assert len(none) == 0
    assert "6: several slices at one place" in none.reasons()


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionNumber", (1, 2)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("EchoTime", (4.6, 9.2)),
        ("DiffusionBValue", (0.0, 1000.0)),
        ("NominalPercentageOfCardiacPhase", (30.0, 70.0)),
        ("TriggerTime", (12, 512)),
    ],
)
def test_two_phases_in_one_series(tmp_path: Path, keyword: str, values: tuple[Any, Any]) -> None:
    for phase, value in enumerate(values):
        for k in range(4):
            dataset = ct(ct_pixels(k), k + 100 * phase, ImagePositionPatient=[0, 0, 2.5 * k])
            setattr(dataset, keyword, value)
            write(dataset, tmp_path / f"{k}{phase}.dcm")
    first, second = found(tmp_path)
    assert heights(tmp_path, first) == heights(tmp_path, second) == [0, 2.5, 5, 7.5]
    index, _ = scan(tmp_path)
    numbers = np.asarray(index.column("InstanceNumber"))
    assert numbers[first.positions].tolist() == [1, 2, 3, 4]
    assert numbers[second.positions].tolist() == [101, 102, 103, 104]


def test_trigger_times_that_differ_from_slice_to_slice(tmp_path: Path) -> None:
    for k in range(4):
        for phase, time in enumerate((10 + k, 510 + 3 * k, 990 - k)):
            dataset = ct(ct_pixels(k), k + 100 * phase, ImagePositionPatient=[0, 0, 2.5 * k])
            dataset.TriggerTime = time
            write(dataset, tmp_path / f"{k}{phase}.dcm")
    index, _ = scan(tmp_path)
    numbers = np.asarray(index.column("InstanceNumber"))
    assert [numbers[s.positions].tolist() for s in stacks(index)] == [
        [1, 2, 3, 4],
        [101, 102, 103, 104],
        [201, 202, 203, 204],
    ]


def phases(folder: Path, attributes: Any, places: Any = range(6)) -> list[list[int]]:
    """Stacks of series with several slices at each place, as [attribute, ...] in the order of slices.

    `attributes(place, phase)` gives keywords and values, `None` for no such slice.
    """
    number = 0
    for k in places:
        for phase in range(2):
            found_ = attributes(k, phase)
            if found_ is not None:
                dataset = ct(ct_pixels(k), number, ImagePositionPatient=[0, 0, 2.5 * k], **found_)
                dataset.InstanceNumber = 100 * phase + k
                write(dataset, folder / f"{number:02d}.dcm")
                number += 1
    index, _ = scan(folder)
    numbers = np.asarray(index.column("InstanceNumber"))
    return [numbers[s.positions].tolist() for s in stacks(index, on_gap="keep")]


def test_times_that_alternate_between_slices(tmp_path: Path) -> None:
    """Even slices have two times of their own: no two stacks of every other slice."""
    stacks_ = phases(tmp_path, lambda k, phase: {"TriggerTime": 10 + 500 * phase + 2 * (k % 2)})
    assert stacks_ == [[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]]


def test_packages_of_interleaved_slices_are_no_stacks(tmp_path: Path) -> None:
    def interleaved(k: int, phase: int) -> dict[str, Any]:
        return {"AcquisitionNumber": 1 + 2 * phase + k % 2}

    # The numbers tell them apart, which the report says.
    assert phases(tmp_path / "a", interleaved) == [
        [0, 1, 2, 3, 4, 5],
        [100, 101, 102, 103, 104, 105],
    ]
    index, _ = scan(tmp_path / "a")
    (first, _) = stacks(index)
    assert first.separated_by == ("InstanceNumber",)
    assert "InstanceNumber" in first.report.remarks[0]
    stacks_ = phases(tmp_path / "b", lambda k, p: {**interleaved(k, p), "EchoTime": 5 + 5 * p})
    assert stacks_ == [[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]]


def test_a_slice_missing_in_one_phase(tmp_path: Path) -> None:
    stacks_ = phases(
        tmp_path,
        lambda k, p: None if (k, p) == (3, 1) else {"AcquisitionNumber": 1 + p},
    )
    assert stacks_ == [[0, 1, 2, 3, 4, 5], [100, 101, 102, 104, 105]]
    with pytest.raises(GeometryError, match="1 missing"):
        found(tmp_path)


def test_acquisitions_that_overlap(tmp_path: Path) -> None:
    def overlapping(k: int, phase: int) -> dict[str, Any] | None:
        if phase and k not in (3, 6):
            return None
        return {"AcquisitionNumber": 1 + max(k - 1, 0) // 3 + phase}

    stacks_ = phases(tmp_path, overlapping, range(10))
    assert stacks_ == [[0, 1, 2, 3], [103, 4, 5, 6], [106, 7, 8, 9]]


def test_two_echoes_at_two_times(tmp_path: Path) -> None:
    number = 0
    for time in (1, 2):
        for echo in (5, 10):
            for k in range(3):
                dataset = ct(ct_pixels(k), number, ImagePositionPatient=[0, 0, 2.5 * k])
                dataset.TemporalPositionIdentifier, dataset.EchoTime = time, echo
                write(dataset, tmp_path / f"{number}.dcm")
                number += 1
    assert [len(stack) for stack in found(tmp_path)] == [3, 3, 3, 3]


def test_an_acquisition_number_of_each_slice_separates_nothing(tmp_path: Path) -> None:
    number = 0
    for echo in (5, 10):
        for k in range(3):
            dataset = ct(ct_pixels(k), number, ImagePositionPatient=[0, 0, 2.5 * k])
            dataset.AcquisitionNumber, dataset.EchoTime = number, echo
            write(dataset, tmp_path / f"{number}.dcm")
            number += 1
    assert [len(stack) for stack in found(tmp_path)] == [3, 3]


def test_split_by(tmp_path: Path) -> None:
    for part in range(2):
        for k in range(3):
            dataset = ct(ct_pixels(k), k, SOPInstanceUID=f"1.2.{part}.{k}")
            write(dataset, tmp_path / f"{part}{k}.dcm")
    index, _ = scan(tmp_path)
    labels = {"SOPInstanceUID": [], "part": []}  # type: ignore[var-annotated]
    for uid in index.column("SOPInstanceUID"):
        labels["SOPInstanceUID"].append(uid)
        labels["part"].append(int(uid.split(".")[2]))
    index = index.join(labels)
    assert [len(stack) for stack in stacks(index, split_by="part")] == [3, 3]
    with pytest.raises(OptionError, match="Nothing"):
        stacks(index, split_by=["Nothing"])


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ConvolutionKernel", "B70f"),
        ("ImageType", ["DERIVED", "SECONDARY", "AXIAL"]),
        ("PixelSpacing", [0.7, 0.9]),
        ("FrameOfReferenceUID", "1.2.3"),
        ("SeriesInstanceUID", "1.2.3"),
        ("KVP", 80),
        ("ContrastBolusAgent", "CONTRAST"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 0.9998, -0.02]),
    ],
)
def test_what_slices_of_a_stack_have_in_common(tmp_path: Path, keyword: str, value: Any) -> None:
    slices(tmp_path / "a", range(3))
    slices(tmp_path / "b", range(3), **{keyword: value})
    assert [len(stack) for stack in found(tmp_path)] == [3, 3]


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
@pytest.mark.parametrize("uid", ["1.2.3", ""])
def test_patients_and_studies_are_not_mixed_where_series_have_one_uid(
    tmp_path: Path, keyword: str, uid: str
) -> None:
    slices(tmp_path / "a", range(3), SeriesInstanceUID=uid)
    slices(tmp_path / "b", range(3, 6), SeriesInstanceUID=uid, **{keyword: "7"})
    assert [heights(tmp_path, stack) for stack in found(tmp_path)] == [[0, 2.5, 5], [7.5, 10, 12.5]]


def test_orientations_written_differently_are_alike(tmp_path: Path) -> None:
    slices(tmp_path / "a", range(2))
    slices(
        tmp_path / "b", (2, 3), ImageOrientationPatient=["1.0", "0.00005", "-0.0", "0", "1", "0"]
    )
    assert len(only(tmp_path)) == 4


def test_a_localizer_is_left_out_and_named(tmp_path: Path) -> None:
    slices(tmp_path, range(4))
    scout = ct(ct_pixels(9), 9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    scout.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    write(scout, tmp_path / "scout.dcm")
    all_found = found(tmp_path)
    (stack,) = all_found
    assert len(stack) == 4
    assert [Path(name).name for name in stack.report.localizers] == ["scout.dcm"]
    assert all_found.reasons() == "1: localizers, by their ImageType"


def test_a_tilted_gantry(tmp_path: Path) -> None:
    tilt = math.radians(12)
    for k in range(6):
        dataset = ct(ct_pixels(k), k, ImagePositionPatient=[-10, -10, 3 * k])
        dataset.ImageOrientationPatient = [
            1,
            0,
            0,
            0,
            round(math.cos(tilt), 6),
            round(math.sin(tilt), 6),
        ]
        write(dataset, tmp_path / f"{k}.dcm")
    stack = only(tmp_path)
    assert stack.report.tilt == pytest.approx(12, abs=1e-3)
    assert stack.spacing[0] == pytest.approx(3 * math.cos(tilt), abs=1e-4)
    np.testing.assert_allclose(stack.affine[:3, 0], (0, 0, 3), atol=1e-9)


def enhanced(order: list[int]) -> Any:
    dataset = ct(np.stack([ct_pixels(k) for k in order]), 0, SOPClassUID=ENHANCED_CT)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    dataset.SharedFunctionalGroupsSequence = [
        group(
            PlaneOrientationSequence=[group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[group(PixelSpacing=[0.7, 0.8], SliceThickness=2.5)],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        group(PlanePositionSequence=[group(ImagePositionPatient=[0, 0, 2.5 * k])]) for k in order
    ]
    return dataset


def test_enhanced_multi_frame(tmp_path: Path) -> None:
    write(enhanced([3, 0, 2, 1]), tmp_path / "enhanced.dcm")
    stack = only(tmp_path)
    assert stack.positions.tolist() == [1, 3, 2, 0]
    assert stack.affine[2, 0] == 2.5
    write(enhanced([3, 0, 1]), tmp_path / "enhanced.dcm")
    with pytest.raises(GeometryError, match=r"enhanced\.dcm, frame 2 and .*enhanced\.dcm, frame 0"):
        found(tmp_path)


@pytest.mark.parametrize("modality", ["US", "XA"])
def test_cine_is_no_volume(tmp_path: Path, modality: str) -> None:
    write(ct(np.stack([ct_pixels(k) for k in range(5)]), Modality=modality), tmp_path / "cine.dcm")
    none = found(tmp_path)
    assert len(none) == 0
    assert "5: ultrasound, angiography" in none.reasons()


def test_what_shows_one_place_or_none(tmp_path: Path) -> None:
    write(ct(ct_pixels(), 0, SeriesInstanceUID="1.1"), tmp_path / "single.dcm")
    flat = ct(ct_pixels(), 1)
    del flat.PixelSpacing
    write(flat, tmp_path / "flat.dcm")
    write(ct(ct_pixels(), 2, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), tmp_path / "skew.dcm")
    for k in range(3):
        again = ct(ct_pixels(k), 10 + k, ImagePositionPatient=[0, 0, 0], SeriesInstanceUID="1.2")
        write(again, tmp_path / f"time{k}.dcm")
    none = found(tmp_path)
    assert len(none) == 0
    assert none.reasons() == (
        "4: a single place, which is no volume; 1: PixelSpacing is missing; "
        "1: ImageOrientationPatient is not two unit vectors at a right angle"
    )
