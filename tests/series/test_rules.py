"""The rules of stacks by exact cases: files that the test makes, and the volumes that they must give."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import UID, generate_uid

from dicomtorch import DicomFrames, DicomVolumes, FrameIndex, scan
from dicomtorch.errors import GeometryError
from dicomtorch.series.search import stacks
from dicomtorch.series.stacks import Stack, StackList
from tests.support.phantoms import ct, ct_pixels, group, write

Slice = dict[str, Any]


def made(folder: Path, slices: Iterable[Slice]) -> FrameIndex:
    """A file for each; `z` is its place, the others are keywords. Instance Numbers count from 1 if none is given."""
    for number, given in enumerate(slices):
        attributes = {"SOPInstanceUID": generate_uid(), "InstanceNumber": number + 1, **given}
        z = attributes.pop("z")
        attributes.setdefault("ImagePositionPatient", [0, 0, z])
        absent = [name for name, value in attributes.items() if value is None]
        kept = {name: value for name, value in attributes.items() if value is not None}
        dataset = ct(ct_pixels(number, 16, 16), number, **kept)
        for name in absent:
            if name in dataset:
                delattr(dataset, name)
        write(dataset, folder / f"{number:03d}.dcm")
    return scan(folder)[0]


def found(index: FrameIndex, **options: Any) -> StackList:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return stacks(index, **options)


def lengths(stacks_: Iterable[Stack]) -> list[int]:
    return [len(stack) for stack in stacks_]


def numbers(index: FrameIndex, stack: Stack) -> list[int]:
    return index.gather("InstanceNumber", stack.positions)


FRAME_OF_REFERENCE = "1.2.840.1"
DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
PLAIN: Slice = {
    "FrameOfReferenceUID": FRAME_OF_REFERENCE,
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "PixelSpacing": [0.48828125, 0.48828125],
    "KVP": 120,
    "ConvolutionKernel": "B30f",
}


@pytest.mark.parametrize(
    ("odd", "name"),
    [
        ({"ContrastBolusAgent": "AGENT"}, "ContrastBolusAgent"),
        ({"KVP": 100}, "KVP"),
        ({"ConvolutionKernel": "B70f"}, "ConvolutionKernel"),
        ({"FrameOfReferenceUID": None}, "FrameOfReferenceUID"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "NORM"]}, "ImageType"),
        ({"PixelSpacing": [0.488, 0.488]}, "PixelSpacing"),
    ],
)
def test_a_slice_that_alone_differs(tmp_path: Path, odd: Slice, name: str) -> None:
    index = made(tmp_path, [{**PLAIN, **(odd if k == 0 else {}), "z": 2 * k} for k in range(8)])
    (stack,) = found(index)
    assert lengths([stack]) == [8]
    assert list(stack.differing) == [name]
    assert stack.spacing == pytest.approx((2, 0.48828125, 0.48828125))
    assert (stack.report.direction_error != 0) == (name == "PixelSpacing")


TURNED = [1, 0, 0, 0, math.cos(3e-4), math.sin(3e-4)]


@pytest.mark.parametrize(
    "odd",
    [
        {"ContrastBolusAgent": "Agent"},
        {"KVP": 119.9},
        {"FrameOfReferenceUID": "1.2.840.2"},
        {"ImageOrientationPatient": TURNED},
    ],
)
def test_every_second_slice_differs(tmp_path: Path, odd: Slice) -> None:
    even = {**PLAIN, "ContrastBolusAgent": "AGENT"}
    index = made(tmp_path, [{**even, **(odd if k % 2 else {}), "z": 2 * k} for k in range(8)])
    (stack,) = found(index)
    assert lengths([stack]) == [8]
    assert stack.differing == tuple(odd)


def test_a_drifting_orientation(tmp_path: Path) -> None:
    index = made(
        tmp_path,
        [
            {
                "z": 3 * k,
                "ImageOrientationPatient": [1, 0, 0, 0, math.cos(4e-5 * k), math.sin(4e-5 * k)],
            }
            for k in range(12)
        ],
    )
    assert lengths(found(index)) == [12]


def test_a_frame_of_reference_for_each_slice(tmp_path: Path) -> None:
    index = made(tmp_path, [{"z": k, "FrameOfReferenceUID": f"1.2.{k + 1}"} for k in range(60)])
    (stack,) = found(index)
    assert lengths([stack]) == [60]
    frames, alone = DicomFrames(index, context=1), DicomFrames(index)
    image = frames[30][0]
    for channel, k in enumerate((29, 30, 31)):
        np.testing.assert_array_equal(image[channel], alone[k][0][0])


def test_one_place_that_drifts_is_no_volume(tmp_path: Path) -> None:
    index = made(tmp_path, [{"z": round(0.002 * k, 3), "Modality": "MR"} for k in range(60)])
    stacks_ = found(index)
    assert (list(stacks_), stacks_.reasons()) == ([], "60: a single place, which is no volume")


def test_times_a_little_beside_each_other(tmp_path: Path) -> None:
    index = made(
        tmp_path,
        [
            {"z": 3 * k + 0.002 * t, "TemporalPositionIdentifier": t + 1}
            for t in range(3)
            for k in range(5)
        ],
    )
    volumes = found(index)
    assert lengths(volumes) == [5, 5, 5]
    assert volumes[0].separated_by == ("TemporalPositionIndex",)
    frames = DicomFrames(index, context=1)
    # The middle of the second time has neighbours of that time.
    neighbours = frames._reader.neighbours([5 + 2])  # type: ignore[union-attr]
    assert neighbours.tolist() == [[6, 7, 8]]


def passes(shift: float, numbers_: Any) -> list[Slice]:
    return [
        {"z": 3 * k + shift * p, "AcquisitionNumber": p + 1, "InstanceNumber": numbers_(k, p)}
        for p in range(2)
        for k in range(10)
    ]


@pytest.mark.parametrize("shift", [1.4, 1.5, 27 + 40])
def test_two_passes(tmp_path: Path, shift: float) -> None:
    volumes = found(made(tmp_path, passes(shift, lambda k, p: 10 * p + k + 1)))
    assert lengths(volumes) == [10, 10]
    assert {volume.separated_by for volume in volumes} == {("AcquisitionNumber",)}


@pytest.mark.parametrize("numbers_", [lambda k, p: None, lambda k, p: 2 * k + p])
def test_interleaved_passes_are_one_stack(tmp_path: Path, numbers_: Any) -> None:
    (stack,) = found(made(tmp_path, passes(1.5, numbers_)))
    assert len(stack) == 20
    assert "AcquisitionNumber alternates from slice to slice" in stack.report.remarks


def test_a_slice_is_lost_where_the_acquisition_changes(tmp_path: Path) -> None:
    index = made(
        tmp_path,
        [{"z": 3 * k, "AcquisitionNumber": 1 + (k > 5)} for k in range(12) if k != 6],
    )
    with pytest.raises(GeometryError, match=r"1 missing .* where AcquisitionNumber changes"):
        found(index)
    (stack,) = found(index, on_gap="keep")
    assert stack.report.gaps[0].changes == ("AcquisitionNumber",)
    assert "AcquisitionNumber" in stack.problems[0]


def test_packages_of_even_and_odd_slices(tmp_path: Path) -> None:
    steps = np.cumsum([0, *[1.7, 2.3] * 7])
    index = made(
        tmp_path,
        [
            {"z": round(float(z), 3), "AcquisitionNumber": 1 + k % 2, "InstanceNumber": k}
            for k, z in enumerate(steps)
        ],
    )
    with pytest.raises(GeometryError, match="unequal spacing"):
        found(index)
    assert lengths(found(index, on_gap="keep")) == [15]


def test_two_thicknesses_in_one_series(tmp_path: Path) -> None:
    near = [{"z": 4.0 * k, "ImageType": ["ORIGINAL", "PRIMARY", "A"]} for k in range(14)]
    far = [
        {"z": 13 * 4 + 7.0 * (k + 1), "ImageType": ["DERIVED", "SECONDARY", "B"]} for k in range(14)
    ]
    volumes = found(made(tmp_path, near + far))
    assert [(len(v), v.spacing[0]) for v in volumes] == [(14, 4), (14, 7)]
    assert volumes[0].separated_by == ("ImageType",)


def enhanced(frames: list[tuple[float, dict[str, Any], list[int]]], pointers: list[int]) -> Any:
    """(place, macros, dimension indices) of each frame of an enhanced MR image."""
    dataset = ct(np.stack([ct_pixels(k, 16, 16) for k in range(len(frames))]), 0, Modality="MR")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(
        "1.2.840.10008.5.1.4.1.1.4.1"
    )
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    dataset.DimensionIndexSequence = [group(DimensionIndexPointer=p) for p in pointers]
    dataset.SharedFunctionalGroupsSequence = [
        group(
            PlaneOrientationSequence=[group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[group(PixelSpacing=[0.7, 0.8], SliceThickness=2.5)],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence=[group(ImagePositionPatient=[0, 0, z])],
            FrameContentSequence=[group(DimensionIndexValues=values)],
            **macros,
        )
        for z, macros, values in frames
    ]
    return dataset


def echo(time: float) -> dict[str, Any]:
    return {"MREchoSequence": [group(EffectiveEchoTime=time)]}


def test_content_tells_more_than_dimension_indices(tmp_path: Path) -> None:
    """T2, T1 and post-contrast, and one post-contrast slice more that has the T2's index."""

    def frame(z: float, time: float, kind: str, index: int, position: int) -> Any:
        macro = {
            **echo(time),
            "MRImageFrameTypeSequence": [group(FrameType=["ORIGINAL", "PRIMARY", kind])],
        }
        return z, macro, [index, position]

    frames = [frame(3 * k, 90, "T2", 1, k + 1) for k in range(5)]
    frames += [frame(3 * k, 10, "T1", 2, k + 1) for k in range(5)]
    frames += [frame(3 * k, 10, "POST", 3, k + 1) for k in range(5)]
    frames.append(frame(15, 10, "POST", 1, 6))
    write(enhanced(frames, [0x00180081, 0x00200032]), tmp_path / "enhanced.dcm")
    volumes = found(scan(tmp_path)[0], on_gap="keep")
    assert sorted(sorted(v.positions.tolist()) for v in volumes) == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14, 15],
    ]


def test_stations_beside_each_other(tmp_path: Path) -> None:
    sagittal = [0, 1, 0, 0, 0, -1]
    index = made(
        tmp_path,
        [
            {
                "z": 0,
                "ImageOrientationPatient": sagittal,
                "ImagePositionPatient": [5 * k, 0, -280 * s],
            }
            for s in range(2)
            for k in range(6)
        ],
    )
    volumes = found(index)
    assert lengths(volumes) == [6, 6]
    assert volumes[0].separated_by == ("ImagePositionPatient",)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ConvolutionKernel", ["B30f", "B70f"]),
        ("ImageType", [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]]),
    ],
)
def test_contents_at_alternate_places(tmp_path: Path, name: str, values: list[Any]) -> None:
    index = made(tmp_path, [{"z": 2 * k + p, name: values[p]} for p in range(2) for k in range(8)])
    volumes = found(index)
    assert lengths(volumes) == [8, 8]
    assert volumes[0].separated_by == (name,)


def test_thin_and_thick_reconstructions(tmp_path: Path) -> None:
    thin = [{"z": 1.0 * k, "SliceThickness": 1} for k in range(16)]
    thick = [{"z": 5.0 * k, "SliceThickness": 5} for k in range(4)]
    volumes = found(made(tmp_path, thin + thick))
    assert lengths(volumes) == [16, 4]
    assert volumes[0].separated_by == ("SliceThickness",)


@pytest.mark.parametrize(
    "odd", [{"ImageType": ["ORIGINAL", "PRIMARY", "MONITORING"]}, {"AcquisitionNumber": 1}]
)
def test_monitoring_slices_before_a_volume(tmp_path: Path, odd: Slice) -> None:
    index = made(
        tmp_path,
        [{"z": 10, **odd} for _ in range(10)]
        + [{"z": k, "AcquisitionNumber": 2} for k in range(40)],
    )
    volumes = found(index)
    assert lengths(volumes) == [40]
    (left,) = volumes.left_out
    assert left.positions.tolist() == list(range(10))
    assert next(iter(odd)) in left.reason


def test_each_file_twice(tmp_path: Path) -> None:
    uids = [generate_uid() for _ in range(6)]
    index = made(
        tmp_path,
        [
            {"z": 2 * k, "SOPInstanceUID": uids[k], "InstanceNumber": k}
            for _ in "ab"
            for k in range(6)
        ],
    )
    with pytest.raises(GeometryError, match=r"6 slices are copies.*deduplicate"):
        found(index)
    (stack,) = found(index, on_gap="keep")
    assert len(stack) == 6
    assert [Path(name).name for name in stack.report.duplicates] == [
        f"{k:03d}.dcm" for k in range(6, 12)
    ]
    with pytest.warns(UserWarning, match="6 slices are copies"):
        stacks(index, on_gap="warn")


def test_a_multi_frame_file_twice(tmp_path: Path) -> None:
    dataset = enhanced([(3 * k, {}, [k + 1]) for k in range(5)], [0x00200032])
    write(dataset, tmp_path / "a.dcm")
    write(dataset, tmp_path / "b.dcm")
    (stack,) = found(scan(tmp_path)[0], on_gap="keep")
    assert len(stack) == 5
    assert len(stack.report.duplicates) == 5
    assert {str(name).partition(",")[0][-5:] for name in stack.report.duplicates} == {"b.dcm"}


def test_one_uid_for_all_files_makes_no_copies(tmp_path: Path) -> None:
    """Careless de-identification: places and times tell more than a UID."""
    index = made(
        tmp_path,
        [
            {"z": 2 * k, "SOPInstanceUID": "1.2.3", "TemporalPositionIdentifier": t}
            for t in (1, 2)
            for k in range(4)
        ],
    )
    assert lengths(found(index)) == [4, 4]


def repeated(order: list[int], lost: int = -1) -> list[Slice]:
    """3 volumes of 5 slices that are equal but for Instance Number."""
    slices = [{"z": 3 * (k % 5), "InstanceNumber": n} for k, n in enumerate(order)]
    return [one for k, one in enumerate(slices) if k != lost]


@pytest.mark.parametrize(
    "order", [list(range(1, 16)), [3 * (k % 5) + k // 5 + 1 for k in range(15)]]
)
def test_only_instance_number_tells(tmp_path: Path, order: list[int]) -> None:
    index = made(tmp_path, repeated(order))
    volumes = found(index)
    assert [sorted(v.positions.tolist()) for v in volumes] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14],
    ]
    assert {v.separated_by for v in volumes} == {("InstanceNumber",)}
    assert "only InstanceNumber tells it" in volumes[0].report.remarks[0]


def test_instance_numbers_that_tell_nothing(tmp_path: Path) -> None:
    order = np.random.default_rng(3).permutation(15).tolist()
    index = made(tmp_path, repeated(order))
    with pytest.raises(
        GeometryError, match=r"15 slices .* nothing known tells them apart: .*000\.dcm"
    ):
        found(index)
    assert lengths(found(index, on_gap="keep")) == []


def test_a_slice_is_missing_where_only_numbers_tell(tmp_path: Path) -> None:
    index = made(tmp_path, repeated(list(range(1, 16)), lost=7))
    with pytest.raises(
        GeometryError, match=r"; 3 are at most places, but 2 at that of .*002\.dcm.*split_by="
    ):
        found(index)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AcquisitionTime", lambda k, t: f"10{10 + t:02d}00"),
        ("FrameReferenceTime", lambda k, t: 1000.0 * t + 5),
        ("ContentTime", lambda k, t: f"10{10 + t:02d}00"),
        ("AcquisitionTime", lambda k, t: f"1010{10 * t + 2 * k:02d}.5"),
        ("ContentTime", lambda k, t: ("235959", "000001", "000003", "000005")[t]),
        ("AcquisitionTime", lambda k, t: f"{('2358', '2359', '0000', '0001')[t]}{10 + k}"),
    ],
)
def test_only_times_tell(tmp_path: Path, name: str, value: Any) -> None:
    """File names run against time."""
    slices = [
        {"z": 3 * k, name: value(k, t), "InstanceNumber": None}
        for t in (2, 0, 3, 1)
        for k in range(3)
    ]
    index = made(tmp_path, slices)
    volumes = found(index)
    assert [sorted(v.positions.tolist()) for v in volumes] == [
        [3, 4, 5], [9, 10, 11], [0, 1, 2], [6, 7, 8]
    ]  # fmt: skip
    assert {v.separated_by for v in volumes} == {(name,)}


def test_gated_tomography(tmp_path: Path) -> None:
    dataset = ct(np.stack([ct_pixels(k, 16, 16) for k in range(18)]), 0, Modality="NM")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(
        "1.2.840.10008.5.1.4.1.1.20"
    )
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"]
    dataset.SpacingBetweenSlices = 4
    dataset.DetectorInformationSequence = [
        group(ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    ]
    dataset.SliceVector = [k % 6 + 1 for k in range(18)]
    dataset.TimeSlotVector = [k // 6 + 1 for k in range(18)]
    dataset.EnergyWindowVector = [1] * 18
    write(dataset, tmp_path / "nm.dcm")
    volumes = found(scan(tmp_path)[0])
    assert [v.positions.tolist() for v in volumes] == [
        list(range(6 * t, 6 * t + 6)) for t in range(3)
    ]
    assert {v.separated_by for v in volumes} == {("TimeSlotVector",)}


def test_enhanced_diffusion(tmp_path: Path) -> None:
    def macro(b: float, direction: list[float] | None) -> dict[str, Any]:
        item = group(DiffusionBValue=b)
        if direction:
            item.DiffusionGradientDirectionSequence = [
                group(DiffusionGradientOrientation=direction)
            ]
        return {"MRDiffusionSequence": [item]}

    axes = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]
    shots: list[tuple[float, list[float] | None]] = [(0.0, None)]
    shots += [(b, axis) for b in (500.0, 1000.0) for axis in axes]
    frames = [(2.5 * k, macro(*shot), [k + 1]) for shot in shots for k in range(4)]
    write(enhanced(frames, [0x00200032]), tmp_path / "dwi.dcm")
    volumes = found(scan(tmp_path)[0])
    assert lengths(volumes) == [4] * 7
    assert volumes[0].separated_by == ("DiffusionBValue",)
    assert volumes[1].separated_by == ("DiffusionBValue", "DiffusionGradientOrientation")


def test_two_dose_files_on_one_grid(tmp_path: Path) -> None:
    for beam in range(2):
        dataset = ct(np.stack([ct_pixels(k, 16, 16) for k in range(4)]), beam, Modality="RTDOSE")
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(DOSE)
        dataset.ImagePositionPatient = [0, 0, 0]
        dataset.GridFrameOffsetVector = [0, 3, 6, 9]
        dataset.DoseGridScaling = 0.01
        write(dataset, tmp_path / f"beam{beam}.dcm")
    volumes = found(scan(tmp_path)[0])
    assert lengths(volumes) == [4, 4]
    assert volumes[0].separated_by == ("SOPInstanceUID",)


def test_dose_files_of_one_plane_have_one_range(tmp_path: Path) -> None:
    for k, dose in enumerate((1.0, 2.002, 3.006, 4.012)):
        pixels = np.full((8, 8), round(dose * 1000), np.uint16)
        dataset = ct(pixels, k, Modality="RTDOSE", DoseGridScaling=0.001, DoseUnits="GY")
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(DOSE)
        for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
            delattr(dataset, keyword)
        write(dataset, tmp_path / f"{k}.dcm")
    volume, _ = DicomVolumes(tmp_path)[0]
    np.testing.assert_allclose(volume[0, :, 0, 0], [0.2493, 0.4990, 0.7493, 1], atol=1e-4)


def test_the_last_time_is_cut_short(tmp_path: Path) -> None:
    slices = [{"z": 3 * k, "TemporalPositionIdentifier": t} for t in (1, 2) for k in range(6)]
    index = made(tmp_path, [*slices, {"z": 6, "TemporalPositionIdentifier": 3}])
    with pytest.raises(
        GeometryError, match=r"5 of 6 slices are missing .*TemporalPositionIndex.*012\.dcm"
    ):
        found(index)
    with pytest.warns(UserWarning, match="5 of 6"):
        volumes = stacks(index, on_gap="warn")
    assert lengths(volumes) == [6, 6]
    (left,) = volumes.left_out
    assert left.positions.tolist() == [12]
    assert "TemporalPositionIndex" in left.reason


def test_a_time_with_several_of_its_slices_is_delivered(tmp_path: Path) -> None:
    slices = [{"z": 3 * k, "TemporalPositionIdentifier": t} for t in (1, 2) for k in range(6)]
    volumes = found(
        made(
            tmp_path, [*slices, *({**one, "TemporalPositionIdentifier": 3} for one in slices[:4])]
        ),
        on_gap="keep",
    )
    assert lengths(volumes) == [6, 6, 4]
    assert "2 of 6 slices are missing" in volumes[2].problems[0]


def test_time_orders_and_not_names(tmp_path: Path) -> None:
    """Folders 1, 10, 11, ..., 18, 2, ... of one volume each."""
    for t in range(1, 19):
        for k in range(2):
            dataset = ct(ct_pixels(k, 16, 16), 2 * t + k, ImagePositionPatient=[0, 0, 3 * k])
            dataset.TemporalPositionIdentifier = t
            write(dataset, tmp_path / str(t) / f"{k}.dcm")
    index, _ = scan(tmp_path)
    times = [index.gather("TemporalPositionIndex", v.positions)[0] for v in found(index)]
    assert times == list(range(1, 19))


def test_motion_correction_turns_volumes(tmp_path: Path) -> None:
    slices = []
    for t, angle in enumerate((0, 1e-3, 2e-3, 3e-3)):
        orientation = [1, 0, 0, 0, math.cos(angle), math.sin(angle)]
        normal = np.cross(orientation[:3], orientation[3:])
        slices += [
            {
                "z": 0,
                "ImageOrientationPatient": orientation,
                "ImagePositionPatient": np.round(3 * k * normal, 6).tolist(),
                "AcquisitionNumber": t + 1,
            }
            for k in range(6)
        ]
    index = made(tmp_path, slices)
    assert [sorted(v.positions.tolist()) for v in found(index)] == [
        list(range(6 * t, 6 * t + 6)) for t in range(4)
    ]


# Where no rule can be right: what is said then


def test_a_foreign_slice_at_the_next_place(tmp_path: Path) -> None:
    slices = [{"z": 2 * k, "AcquisitionNumber": 2} for k in range(20)]
    (stack,) = found(made(tmp_path, [*slices, {"z": 40, "AcquisitionNumber": 1}]))
    assert len(stack) == 21
    (remark,) = stack.report.remarks
    assert "AcquisitionNumber of" in remark
    assert "020.dcm alone" in remark


def test_two_frames_of_reference_on_one_grid(tmp_path: Path) -> None:
    index = made(tmp_path, [{"z": k, "FrameOfReferenceUID": f"1.{1 + k // 5}"} for k in range(10)])
    (stack,) = found(index)
    assert stack.differing == ("FrameOfReferenceUID",)


def test_times_against_numbers(tmp_path: Path) -> None:
    index = made(
        tmp_path,
        [
            {
                "z": k,
                "ContentTime": f"1010{10 + t}",
                "InstanceNumber": 2 * k + (t if k % 2 else 1 - t),
            }
            for t in range(2)
            for k in range(4)
        ],
    )
    first, second = found(index)
    assert (first.positions.tolist(), second.positions.tolist()) == ([0, 1, 2, 3], [4, 5, 6, 7])
    assert any("disagree" in remark for remark in first.report.remarks)


# Rule 5


def test_a_slice_that_fits_nowhere_is_a_problem(tmp_path: Path) -> None:
    index = made(tmp_path, [{"z": k} for k in range(6)])
    write(ct(ct_pixels(9, 8, 8), 9, ImagePositionPatient=[0, 0, 6]), tmp_path / "small.dcm")
    index, _ = scan(tmp_path)
    with pytest.raises(
        GeometryError, match=r"small\.dcm: Rows and Columns is not that of the 6 slices"
    ):
        found(index)
    volumes = found(index, on_gap="keep")
    assert lengths(volumes) == [6]
    assert "Rows and Columns" in volumes.reasons()


def test_split_by_that_leaves_single_slices(tmp_path: Path) -> None:
    index = made(tmp_path, [{"z": k} for k in range(4)])
    volumes = found(index, split_by="SOPInstanceUID")
    assert not volumes
    assert "split_by=['SOPInstanceUID'] leaves only single slices" in volumes.reasons()


def test_split_by_of_a_time_is_its_rank(tmp_path: Path) -> None:
    index = made(
        tmp_path,
        [
            {
                "z": 3 * k,
                "AcquisitionTime": f"10{10 + 5 * t}{k:02d}",
                "TemporalPositionIdentifier": t + 1,
            }
            for t in range(2)
            for k in range(4)
        ],
    )
    assert lengths(found(index, split_by="AcquisitionTime")) == [4, 4]


def test_a_series_that_falls_apart_names_why(tmp_path: Path) -> None:
    for k in range(3):
        write(ct(ct_pixels(k, 16 + k, 16), k), tmp_path / f"{k}.dcm")
    volumes = found(scan(tmp_path)[0])
    assert not volumes
    assert "Rows differs from slice to slice" in volumes.reasons()


def test_a_refusal_names_the_column_that_would_help(tmp_path: Path) -> None:
    slices = [
        {"z": 3 * k, "InstanceNumber": 1, "SeriesDescription": f"part {t}"}
        for t in range(2)
        for k in range(4)
    ]
    made(tmp_path, slices)
    index, _ = scan(tmp_path, tags=["SeriesDescription"])
    with pytest.raises(GeometryError, match='split_by="SeriesDescription" would'):
        found(index)
    assert lengths(found(index, split_by="SeriesDescription")) == [4, 4]


def test_what_is_missing_is_named_apart(tmp_path: Path) -> None:
    for number, keyword in enumerate(
        ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    ):
        dataset = ct(ct_pixels(number, 16, 16), number)
        delattr(dataset, keyword)
        write(dataset, tmp_path / f"{number}.dcm")
    left = found(scan(tmp_path)[0]).left_out
    assert [part.reason for part in left] == [
        "ImagePositionPatient is missing", "ImageOrientationPatient is missing", "PixelSpacing is missing"
    ]  # fmt: skip


def test_messages_have_no_values_of_kernel_or_agent(tmp_path: Path) -> None:
    index = made(
        tmp_path,
        [
            {
                "z": 3 * k,
                "ConvolutionKernel": "SECRETKERNEL" if k > 4 else "B30f",
                "ContrastBolusAgent": f"HIDDEN{k}",
            }
            for k in range(9)
            if k != 5
        ],
    )
    with pytest.raises(GeometryError) as caught:
        found(index)
    (stack,) = found(index, on_gap="keep")
    said = f"{caught.value} {stack.problems} {stack.report.remarks} {stack.differing}"
    assert "SECRET" not in said
    assert "HIDDEN" not in said


def test_volumes_stand_on_these_stacks(tmp_path: Path) -> None:
    index = made(tmp_path, [{**PLAIN, "KVP": 100 + k % 2, "z": 2 * k} for k in range(8)])
    volumes = DicomVolumes(index)
    assert len(volumes) == 1
    assert volumes[0][0].shape == (1, 8, 16, 16)
