"""PET SUVbw factors against the worked numbers of the QIBA computation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.errors import PixelValueError
from dicomtorch.scanner.resolve.suv import (
    PETAttributes,
    is_date_only,
    mean_count_time,
    parse_date_time,
    seconds_of_day,
    suv_factor,
)

START = PETAttributes(
    units="BQML",
    corrected_image=("NORM", "DECY", "ATTN"),
    decay_correction="START",
    patient_weight=70,
    radionuclide_total_dose=370e6,
    radionuclide_half_life=6586.2,
    radiopharmaceutical_start_time="100000",
    series_time="110000.000",
    acquisition_time="110000",
)
FACTOR = 70_000 / 253_314_180.24


def test_start_decays_the_dose_to_the_series_time() -> None:
    assert suv_factor(START) == pytest.approx(FACTOR, rel=1e-9)
    assert 5000 * suv_factor(START) == pytest.approx(1.381683, abs=1e-6)


def test_injection_after_the_scan_was_the_day_before() -> None:
    over_midnight = replace(
        START,
        radiopharmaceutical_start_time="23:30:00",
        series_time="003000",
        acquisition_time="0030",
    )
    assert suv_factor(over_midnight) == pytest.approx(FACTOR, rel=1e-9)


def test_the_date_of_the_injection_decides_where_there_is_one() -> None:
    dated = replace(
        START,
        radiopharmaceutical_start_time="120000",  # contradicts, and is not used
        radiopharmaceutical_start_date_time="20240101100000.0",
        series_date="20240102",
        acquisition_date="20240102",
    )
    expected = 70_000 / (370e6 * 2 ** (-(3600 + 86_400) / 6586.2))
    assert suv_factor(dated) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(PixelValueError, match=r"RadiopharmaceuticalStartDateTime.*later"):
        suv_factor(replace(dated, radiopharmaceutical_start_date_time="20240103100000"))
    with pytest.raises(PixelValueError, match=r"^SeriesDate"):
        suv_factor(replace(dated, series_date="", acquisition_date=""))


def test_offsets_from_utc_count_where_both_are_known() -> None:
    zoned = replace(
        START,
        radiopharmaceutical_start_date_time="20240101090000+0000",
        timezone_offset="+0100",
        series_date="20240101",
    )
    assert suv_factor(zoned) == pytest.approx(FACTOR, rel=1e-9)


def test_admin_takes_the_dose_as_injected() -> None:
    admin = replace(START, decay_correction="ADMIN", series_time="", acquisition_time="")
    assert 5000 * suv_factor(admin) == pytest.approx(0.945946, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "keyword"),
    [
        ({"decay_correction": "NONE"}, "DecayCorrection"),
        ({"decay_correction": ""}, "DecayCorrection"),
        ({"corrected_image": ("DECY",)}, "CorrectedImage"),
        ({"corrected_image": ("ATTN", "NORM")}, "CorrectedImage"),
        ({"units": "PROPCNTS"}, "Units"),
        ({"units": ""}, "Units"),
        ({"radionuclide_total_dose": math.nan}, "RadionuclideTotalDose"),
        ({"radionuclide_total_dose": 0.0}, "RadionuclideTotalDose"),
        ({"radionuclide_total_dose": 370.0}, "RadionuclideTotalDose.*MBq"),
        ({"patient_weight": math.nan}, "PatientWeight"),
        ({"patient_weight": 0.0}, "PatientWeight"),
        ({"radionuclide_half_life": math.nan}, "RadionuclideHalfLife"),
        ({"radionuclide_half_life": 0.0}, "RadionuclideHalfLife"),
        ({"radionuclide_half_life": 1.0}, "RadionuclideHalfLife"),
        ({"radiopharmaceutical_start_time": ""}, "RadiopharmaceuticalStartTime"),
        ({"radiopharmaceutical_start_time": "25"}, "RadiopharmaceuticalStartTime"),
        ({"series_time": ""}, "SeriesTime"),
        ({"acquisition_time": ""}, "AcquisitionTime"),
        ({"series_time": "110001"}, "FrameReferenceTime"),
        ({"series_time": "110001", "frame_reference_time": 0.0}, "ActualFrameDuration"),
        ({"series_time": "110001", "ge_scan_date_time": "2024"}, "GEMS_PETD_01"),
        ({"units": "CNTS"}, "Units"),
        ({"units": "GML", "suv_type": "LBM"}, "SUVType"),
    ],
)
def test_what_is_missing_is_named(change: dict[str, object], keyword: str) -> None:
    with pytest.raises(PixelValueError, match=keyword):
        suv_factor(replace(START, **change))  # type: ignore[arg-type]


def test_weight_is_blamed_before_the_dates() -> None:
    nothing = replace(START, patient_weight=math.nan, series_time="", acquisition_time="")
    with pytest.raises(PixelValueError, match=r"^PatientWeight"):
        suv_factor(nothing)


@pytest.mark.parametrize("suv_type", ["", "BW"])
def test_g_per_ml_is_suv_already(suv_type: str) -> None:
    gml = PETAttributes(units="GML", suv_type=suv_type, corrected_image=("ATTN", "DECY"))
    assert suv_factor(gml) == 1


def test_counts_need_a_factor_of_the_vendor() -> None:
    counts = replace(START, units="CNTS", philips_suv_factor=0.000551, philips_activity_factor=3)
    assert 2 * 1000 * suv_factor(counts) == pytest.approx(1.102, rel=1e-12)
    activity = replace(counts, philips_suv_factor=0.0)
    assert suv_factor(activity) == pytest.approx(3 * FACTOR, rel=1e-9)


def test_a_series_time_after_the_acquisition_is_not_the_scan_time() -> None:
    """F-18, 180 s frame: its activity equals the mean 89.857923 s after the start."""
    assert mean_count_time(180, 6586.2) == pytest.approx(89.857923, abs=1e-6)
    late = replace(START, series_time="150000", acquisition_time="111000")
    reference_ms = (600 + mean_count_time(180, 6586.2)) * 1000  # the scan began at 11:00:00
    computed = replace(late, frame_reference_time=reference_ms, actual_frame_duration=180_000.0)
    assert suv_factor(computed) == pytest.approx(FACTOR, rel=1e-9)
    ge = replace(late, series_date="20240101", ge_scan_date_time="20240101110000.00")
    assert suv_factor(ge) == pytest.approx(FACTOR, rel=1e-9)


def test_recorded_series() -> None:
    """Attributes of two public PET series."""
    first = replace(
        START,
        patient_weight=90,
        radionuclide_total_dose=474592928,
        radionuclide_half_life=6588,
        radiopharmaceutical_start_time="093200",
        series_time="110036",
        acquisition_time="110036",
    )
    assert suv_factor(first) == pytest.approx(3.3176371e-4, rel=1e-7)


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999_999))
def test_times_of_day(hour: int, minute: int, second: int, micro: int) -> None:
    expected = hour * 3600 + minute * 60 + second + micro / 1e6
    assert seconds_of_day(f"{hour:02}{minute:02}{second:02}.{micro:06}") == pytest.approx(expected)
    assert seconds_of_day(f"{hour:02}:{minute:02}:{second:02}") == pytest.approx(
        hour * 3600 + minute * 60 + second
    )
    moment = parse_date_time(f"20240229{hour:02}{minute:02}{second:02}.{micro:06}+0100")
    assert moment is not None
    assert (moment.hour, moment.minute, moment.second, moment.microsecond) == (
        hour,
        minute,
        second,
        micro,
    )


@pytest.mark.parametrize("text", ["", "1", "24", "1260", "noon", "12.5", "-1"])
def test_what_is_no_time(text: str) -> None:
    assert math.isnan(seconds_of_day(text))


@pytest.mark.parametrize("text", ["", "20240229", "2023022910", "20241301100000", "x"])
def test_what_is_no_date_and_time(text: str) -> None:
    assert parse_date_time(text) is None


@pytest.mark.parametrize("text", ["2024", "202401", "20240102", "20240102+0100", " 20240102 "])
def test_a_date_alone_is_a_valid_dt_without_a_time(text: str) -> None:
    assert is_date_only(text)
    assert parse_date_time(text) is None


@pytest.mark.parametrize("text", ["", "20241301", "20240230", "2024010", "2024010212", "tomorrow"])
def test_what_is_no_date_alone(text: str) -> None:
    assert not is_date_only(text)


def test_an_injection_with_a_date_alone_happened_at_its_time() -> None:
    dated = replace(
        START,
        radiopharmaceutical_start_date_time="20240101",
        series_date="20240102",
        acquisition_date="20240102",
    )
    expected = 70_000 / (370e6 * 2 ** (-(3600 + 86_400) / 6586.2))
    assert suv_factor(dated) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(PixelValueError, match="RadiopharmaceuticalStartTime"):
        suv_factor(replace(dated, radiopharmaceutical_start_time=""))


EXTREME = (5e-324, 1e-320, 1e-100, 1e39, 1e300, 1.7e308)


@pytest.mark.parametrize("number", EXTREME)
@pytest.mark.parametrize("decay_correction", ["START", "ADMIN"])
@pytest.mark.parametrize(
    "name",
    [
        *("patient_weight", "radionuclide_total_dose", "radionuclide_half_life"),
        *("actual_frame_duration", "frame_reference_time"),
    ],
)
def test_extreme_numbers_are_an_error_or_give_a_finite_factor(
    name: str, number: float, decay_correction: str
) -> None:
    later = replace(
        START,
        series_time="120000",
        frame_reference_time=90_000.0,
        actual_frame_duration=180_000.0,
        decay_correction=decay_correction,
    )
    told, factor = "", math.inf
    try:
        factor = suv_factor(replace(later, **{name: number}))  # type: ignore[arg-type]
    except PixelValueError as error:
        told = str(error).lower()
    assert name.replace("_", "") in told or 0 < factor < math.inf


@pytest.mark.parametrize("day", ["00010101", "99991231"])
def test_dates_at_the_ends_of_the_calendar(day: str) -> None:
    later = replace(
        START,
        series_date=day,
        acquisition_date=day,
        series_time="235959",
        acquisition_time="235900" if day[0] == "9" else "000000",
        frame_reference_time=-200_000_000.0 if day[0] == "9" else 200_000_000.0,
        actual_frame_duration=180_000.0,
    )
    with pytest.raises(PixelValueError, match="AcquisitionDate"):
        suv_factor(later)
