"""One SUV factor for the images of a series."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomtorch import DicomVolumes, scan
from tests.support.phantoms import ct, ct_pixels, group, write

HALF_LIFE, DOSE, WEIGHT = 6586.2, 3.7e8, 80.0


def bed(k: int, clock: str, **attributes: Any) -> Dataset:
    """A PET image, injected at 10:00, whose series says that it began at 11:04."""
    dataset = ct(
        ct_pixels(k, 8, 8), k, Modality="PT", Units="BQML", CorrectedImage=["ATTN", "DECY"], DecayCorrection="START",
        PatientWeight=WEIGHT, SeriesDate="20200102", AcquisitionDate="20200102", SeriesTime="110400",
        AcquisitionTime=clock, ActualFrameDuration=180_000, FrameReferenceTime=1000.0 * 180 * k + 89_500,
        RadiopharmaceuticalInformationSequence=[
            group(RadionuclideTotalDose=DOSE, RadionuclideHalfLife=HALF_LIFE, RadiopharmaceuticalStartTime="100000")
        ],
    )  # fmt: skip
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


CLOCKS = ["110000", "110300", "110600", "110900"]


def factor(seconds: float) -> float:
    return WEIGHT * 1000 / (DOSE * 2 ** (-seconds / HALF_LIFE))


def test_beds_before_and_after_the_stated_series_time(tmp_path: Path) -> None:
    """Series Time lies behind the first two of four beds: the scan began with the first, for all of them."""
    for k, clock in enumerate(CLOCKS):
        write(bed(k, clock), tmp_path / f"{k}.dcm")
    index, _ = scan(tmp_path)
    factors = np.asarray(index.column("suv_factor"))
    assert len(set(factors.tolist())) == 1
    # The first bed's mean count time is 89.6 s after its start, and Frame Reference Time says 89.5 s.
    assert factors[0] == pytest.approx(factor(3600), rel=1e-4)
    assert not any(index.column("suv_problem"))
    volume, _ = DicomVolumes(tmp_path, values="suvbw")[0]
    assert volume.shape == (1, 4, 8, 8)


def test_series_time_counts_where_every_image_is_later(tmp_path: Path) -> None:
    for k, clock in enumerate(CLOCKS):
        write(bed(k, clock, SeriesTime="110000"), tmp_path / f"{k}.dcm")
    factors = np.asarray(scan(tmp_path)[0].column("suv_factor"))
    np.testing.assert_allclose(factors, factor(3600), rtol=1e-12)


def test_a_refresh_decides_again(tmp_path: Path) -> None:
    for k in (2, 3):  # both later than Series Time
        write(bed(k, CLOCKS[k]), tmp_path / f"{k}.dcm")
    index, _ = scan(tmp_path)
    np.testing.assert_allclose(np.asarray(index.column("suv_factor")), factor(3840), rtol=1e-12)
    write(bed(0, CLOCKS[0]), tmp_path / "0.dcm")
    factors = np.asarray(scan(tmp_path, index=index)[0].column("suv_factor"))
    np.testing.assert_allclose(factors, factor(3600), rtol=1e-4)
    assert len(set(factors.tolist())) == 1
    (tmp_path / "0.dcm").unlink()
    again = np.asarray(scan(tmp_path, index=index)[0].column("suv_factor"))
    np.testing.assert_allclose(again, factor(3840), rtol=1e-12)


def test_the_first_image_does_not_say_when_the_scan_began(tmp_path: Path) -> None:
    for k, clock in enumerate(CLOCKS):
        dataset = bed(k, clock)
        if k == 0:
            del dataset.FrameReferenceTime
        write(dataset, tmp_path / f"{k}.dcm")
    index, _ = scan(tmp_path)
    assert np.isnan(np.asarray(index.column("suv_factor"))).all()
    assert {text.partition(" ")[0] for text in index.column("suv_problem")} == {
        "FrameReferenceTime"
    }


def test_a_refresh_that_cannot_decide_says_so(tmp_path: Path) -> None:
    first = bed(0, CLOCKS[0])
    del first.FrameReferenceTime
    write(first, tmp_path / "0.dcm")
    index, _ = scan(tmp_path)
    write(bed(1, CLOCKS[1]), tmp_path / "1.dcm")
    again, _ = scan(tmp_path, index=index)
    write(bed(2, CLOCKS[2]), tmp_path / "2.dcm")
    last, _ = scan(tmp_path, index=again)
    for one in (index, again, last):
        assert np.isnan(np.asarray(one.column("suv_factor"))).all()
        assert all(one.column("suv_problem"))


def test_series_do_not_decide_for_each_other(tmp_path: Path) -> None:
    for k, clock in enumerate(CLOCKS):
        write(bed(k, clock, SeriesInstanceUID=f"1.2.{k}"), tmp_path / f"{k}.dcm")
    factors = np.asarray(scan(tmp_path)[0].column("suv_factor"))
    np.testing.assert_allclose(factors[2:], factor(3840), rtol=1e-12)
    assert math.isclose(factors[0], factor(3600), rel_tol=1e-4)
