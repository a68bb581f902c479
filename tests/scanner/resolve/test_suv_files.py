"""`values="suvbw"` from files: the worked numbers of the computation, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch import DicomFrames, DicomVolumes, scan
from dicomtorch.errors import PixelValueError
from tests.support.phantoms import ct, group, write

PET = {
    "Modality": "PT",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128",
    "Units": "BQML",
    "CorrectedImage": ["ATTN", "DECY"],
    "DecayCorrection": "START",
    "PatientWeight": 70,
    "SeriesDate": "20240101",
    "SeriesTime": "110000",
    "AcquisitionDate": "20240101",
    "AcquisitionTime": "110000",
}
DOSE = {
    "RadionuclideTotalDose": "370000000",
    "RadionuclideHalfLife": "6586.2",
    "RadiopharmaceuticalStartTime": "100000",
}


def pet(
    folder: Path, attributes: dict[str, Any], dose: dict[str, Any], slopes: Any = (1, 2)
) -> Path:
    for k, slope in enumerate(slopes):
        dataset = ct(np.full((2, 2), 5000 // slope, np.int16), k, RescaleSlope=slope, **attributes)
        dataset.RadiopharmaceuticalInformationSequence = [group(**dose)]
        for keyword, value in attributes.items():
            if value is None:
                delattr(dataset, keyword)
        write(dataset, folder / f"{k}.dcm")
    return folder


@pytest.mark.parametrize(
    ("attributes", "dose", "suv"),
    [
        ({}, {}, 1.381683),  # decayed from injection to scan
        (
            {"SeriesTime": "003000", "AcquisitionTime": "003000"},
            {"RadiopharmaceuticalStartTime": "233000"},
            1.381683,
        ),
        ({"DecayCorrection": "ADMIN"}, {}, 0.945946),
        ({"Units": "GML"}, {}, 5000),
        ({"Units": "GML", "SUVType": "BW"}, {}, 5000),
    ],
)
def test_suvbw(
    tmp_path: Path, attributes: dict[str, Any], dose: dict[str, Any], suv: float
) -> None:
    volume, _ = DicomVolumes(pet(tmp_path, PET | attributes, DOSE | dose), values="suvbw")[0]
    assert volume.shape == (1, 2, 2, 2)
    np.testing.assert_allclose(volume.numpy(), suv, rtol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "dose", "keyword"),
    [
        ({"DecayCorrection": "NONE"}, {}, "DecayCorrection"),
        ({"CorrectedImage": ["ATTN"]}, {}, "CorrectedImage"),
        ({"CorrectedImage": ["DECY"]}, {}, "CorrectedImage"),
        ({"PatientWeight": None}, {}, "PatientWeight"),
        ({"PatientWeight": 0}, {}, "PatientWeight"),
        ({}, {"RadionuclideTotalDose": "370"}, "RadionuclideTotalDose"),
        ({}, {"RadionuclideTotalDose": ""}, "RadionuclideTotalDose"),
        ({}, {"RadionuclideHalfLife": "0"}, "RadionuclideHalfLife"),
        ({}, {"RadiopharmaceuticalStartTime": ""}, "RadiopharmaceuticalStartTime"),
        ({"Units": "CNTS"}, {}, "Units"),
        ({"Units": "GML", "SUVType": "LBM"}, {}, "SUVType"),
        ({"Modality": "CT"}, {}, "Modality"),
    ],
)
def test_no_suvbw_names_the_attribute(
    tmp_path: Path, attributes: dict[str, Any], dose: dict[str, Any], keyword: str
) -> None:
    volumes = DicomVolumes(pet(tmp_path, PET | attributes, DOSE | dose), values="suvbw")
    with pytest.raises(PixelValueError, match=rf"0\.dcm, frame 0.*no SUV: .*{keyword}"):
        volumes[0]


@pytest.mark.parametrize(
    ("factors", "stored", "suv"),
    [({0x00: "0.000551"}, 1000, 1.102), ({0x09: "3"}, 1000, 6000 * 70_000 / 253_314_180.24)],
)
def test_suvbw_of_counts(tmp_path: Path, factors: dict[int, str], stored: int, suv: float) -> None:
    for k in range(2):
        dataset = ct(
            np.full((2, 2), stored, np.int16), k, RescaleSlope=2, **{**PET, "Units": "CNTS"}
        )
        dataset.RadiopharmaceuticalInformationSequence = [group(**DOSE)]
        block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        for element, value in factors.items():
            block.add_new(element, "DS", value)
        write(dataset, tmp_path / f"{k}.dcm")
    volume, _ = DicomVolumes(tmp_path, values="suvbw")[0]
    np.testing.assert_allclose(volume.numpy(), suv, rtol=1e-6)


def test_a_series_time_after_the_acquisition(tmp_path: Path) -> None:
    """Of a processed series: GE's scan time counts, else the scan time computed back from the frame reference time."""
    late = {**PET, "SeriesTime": "150000", "AcquisitionTime": "111000"}
    with pytest.raises(PixelValueError, match="FrameReferenceTime"):
        DicomVolumes(pet(tmp_path / "none", late, DOSE), values="suvbw")[0]
    # An 180 s frame of F-18 has its mean activity 89.857923 s after its start.
    counted = {
        **late,
        "FrameReferenceTime": f"{(600 + 89.857923) * 1000:.3f}",
        "ActualFrameDuration": 180_000,
    }
    volume, _ = DicomVolumes(pet(tmp_path / "counted", counted, DOSE), values="suvbw")[0]
    np.testing.assert_allclose(volume.numpy(), 1.381683, rtol=1e-6)
    for k in range(2):
        dataset = ct(np.full((2, 2), 5000, np.int16), k, **late)
        dataset.RadiopharmaceuticalInformationSequence = [group(**DOSE)]
        dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(
            0x0D, "DT", "20240101110000.00"
        )
        write(dataset, tmp_path / "ge" / f"{k}.dcm")
    volume, _ = DicomVolumes(tmp_path / "ge", values="suvbw")[0]
    np.testing.assert_allclose(volume.numpy(), 1.381683, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("fo-dicom__fo-dicom/Tests/FO-DICOM.Tests/Test_Data/GH184.dcm", 3.3176371e-4),
        ("suyashkumar__dicom/testdata/2.dcm", 4.7354892e-4),
    ],
)
def test_recorded_images(samples: Path, name: str, factor: float) -> None:
    index, _ = scan(samples / name)
    assert index.column("suv_factor")[0] == pytest.approx(factor, rel=2e-7)
    becquerel, _ = DicomFrames(index, values="modality")[0]
    suv, _ = DicomFrames(index, values="suvbw")[0]
    np.testing.assert_allclose(suv.numpy(), becquerel.numpy() * factor, rtol=1e-5, atol=1e-6)


def test_a_recorded_image_without_weight(samples: Path) -> None:
    frames = DicomFrames(
        samples / "orthanc-mirrors__orthanc-tests/Database/Issue94.dcm", values="suvbw"
    )
    with pytest.raises(PixelValueError, match="PatientWeight"):
        frames[0]
