"""Where and when frames are, in files that do not say it in one attribute."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.scanner.resolve.test_resolver import columns, image, item, per_frame, resolve, shared


def dimensions(*pointers: int) -> list[Dataset]:
    return [item(DimensionIndexPointer=pointer) for pointer in pointers]


@pytest.mark.parametrize("position", [0x00209057, 0x00200032, 0x00209301, 0x00201041])
def test_dimension_indices_without_the_position(position: int) -> None:
    dataset = image(4, DimensionIndexSequence=dimensions(0x00209056, position, 0x00189087))
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        FrameContentSequence=[
            {"DimensionIndexValues": [1, k % 2 + 1, k // 2 + 1]} for k in range(4)
        ]
    )
    found = columns(dataset)
    assert found["dimension"] == ["1\\1", "1\\1", "1\\2", "1\\2"]
    assert found["DimensionIndexValues"][3] == "1\\2\\2"


def test_dimension_indices_of_nothing_but_the_position() -> None:
    dataset = image(2, DimensionIndexSequence=dimensions(0x00200032))
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        FrameContentSequence=[{"DimensionIndexValues": [k + 1]} for k in range(2)]
    )
    assert "dimension" not in columns(dataset)


def test_vectors_of_nuclear_medicine() -> None:
    dataset = image(
        4,
        Modality="NM",
        TimeSlotVector=[1, 1, 2, 2],
        DetectorVector=[1, 1, 1, 1],
        PhaseVector=[1, 2],
    )
    found, _, notices = resolve(dataset)
    assert found.columns["TimeSlotVector"] == [1, 1, 2, 2]
    assert found.columns["DetectorVector"] == 1
    assert "PhaseVector" not in found.columns
    assert any("PhaseVector has 2 values for 4 frames" in notice for notice in notices)


def volume(**macros: Any) -> Dataset:
    dataset = image(2, Modality="US")
    dataset.SharedFunctionalGroupsSequence = shared(
        PlaneOrientationVolumeSequence={"ImageOrientationVolume": [0, 1, 0, 0, 0, 1]},
        ImageDataTypeSequence={"DataType": "TISSUE_INTENSITY"},
    )
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        PlanePositionVolumeSequence=[{"ImagePositionVolume": [0.5 * k, 0, 0]} for k in range(2)],
        **macros,
    )
    return dataset


def test_the_volume_frame_of_reference_of_ultrasound() -> None:
    found = columns(volume())
    assert found["ImagePositionPatient"] == [(0, 0, 0), (0.5, 0, 0)]
    assert found["ImageOrientationPatient"] == (0, 1, 0, 0, 0, 1)
    assert (found["coordinates"], found["DataType"]) == ("VOLUME", "TISSUE_INTENSITY")
    place = [{"ImagePositionPatient": [1, 2, k]} for k in range(2)]
    found = columns(volume(PlanePositionSequence=place))
    assert found["ImagePositionPatient"] == [(1, 2, 0), (1, 2, 1)]
    assert "coordinates" not in found


def test_macros_that_are_shared_and_per_frame() -> None:
    """What frames lack of a place is taken from the shared item, and said; values never are."""
    dataset = image(2)
    dataset.SharedFunctionalGroupsSequence = shared(
        PixelMeasuresSequence={"PixelSpacing": [0.5, 0.5]},
        PixelValueTransformationSequence={"RescaleSlope": 3, "RescaleIntercept": 1},
    )
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        PixelMeasuresSequence=[{"SliceThickness": 2.0}] * 2,
        PixelValueTransformationSequence=[{"RescaleIntercept": 5}] * 2,
    )
    found, _, notices = resolve(dataset)
    assert found.columns["PixelSpacing"] == (0.5, 0.5)
    assert found.columns["SliceThickness"] == 2
    assert any("(0028,9110) PixelMeasuresSequence is in the shared" in one for one in notices)
    assert found.columns.get("RescaleSlope") != 3


def test_what_tells_frames_apart() -> None:
    found = columns(
        image(
            EchoNumbers=2, InversionTime=900, FlipAngle=15, ContentTime="000001.5",
            FrameReferenceTime=1250.5, NominalPercentageOfRespiratoryPhase=30.0,
        )
    )  # fmt: skip
    assert found["EchoNumbers"] == 2
    assert (found["InversionTime"], found["FlipAngle"]) == (900, 15)
    assert (found["ContentTime"], found["FrameReferenceTime"]) == (1.5, 1250.5)
    assert found["NominalPercentageOfRespiratoryPhase"] == 30
    dataset = image(2, Modality="MR")
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        MRModifierSequence=[{"InversionTimes": [900.0]}, {"InversionTimes": [1100.0]}],
        MRTimingAndRelatedParametersSequence=[{"FlipAngle": 5.0}, {"FlipAngle": 15.0}],
        RespiratorySynchronizationSequence=[
            {"NominalPercentageOfRespiratoryPhase": p} for p in (0.0, 50.0)
        ],
    )
    found = columns(dataset)
    assert found["InversionTime"] == [900, 1100]
    assert found["FlipAngle"] == [5, 15]
    assert found["NominalPercentageOfRespiratoryPhase"] == [0, 50]
