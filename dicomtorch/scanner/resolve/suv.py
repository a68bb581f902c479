"""PET: the factor that turns modality values into standardised uptake values by body weight (SUVbw), in g/ml.

SUVbw = activity concentration [Bq/ml] x body weight [g] / injected activity [Bq], the injected activity decayed to the
moment that the image is decay corrected to (PS3.3 C.8.9.1; the vendor-neutral computation of the RSNA QIBA FDG-PET
profile). Nothing is assumed: whatever is missing is an error that names the attribute.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta

from dicomtorch.errors import PixelValueError

MINIMUM_DOSE = 1e6
"""Bq. Clinical doses are 1e7 to 1e9 Bq; a smaller number is most likely in MBq, and SUV would be off by 10^6."""

_SMALLEST, _LARGEST = 1e-6, 1e18
"""What kilograms, becquerels, seconds and milliseconds of an examination can be."""

_YEAR_IN_MS = 366 * 86_400_000.0

_TIME = re.compile(r"(\d{2}):?(?:(\d{2}):?(?:(\d{2})(?:\.(\d{1,6})\d*)?)?)?")
_DATE = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})")
_DATE_ONLY = re.compile(r"(\d{4})(?:(\d{2})(\d{2})?)?(?:[+-]\d{4})?")
_DATE_TIME = re.compile(r"(\d{8})(\d{2}(?:\d{2}(?:\d{2}(?:\.\d+)?)?)?)([+-]\d{4})?")


@dataclass(frozen=True, slots=True)
class PETAttributes:
    """What the factor is made of, as in the file; absent text is "", absent numbers are nan.

    Attributes:
        units: (0054,1001), BQML, CNTS or GML.
        suv_type: (0054,1006).
        corrected_image: Values of (0028,0051).
        decay_correction: (0054,1102), START, ADMIN or NONE.
        patient_weight: (0010,1030), kg.
        radionuclide_total_dose: (0018,1074), Bq.
        radionuclide_half_life: (0018,1075), seconds.
        radiopharmaceutical_start_time: (0018,1072).
        radiopharmaceutical_start_date_time: (0018,1078).
        series_date: (0008,0021).
        series_time: (0008,0031).
        acquisition_date: (0008,0022).
        acquisition_time: (0008,0032).
        timezone_offset: (0008,0201).
        frame_reference_time: (0054,1300), ms.
        actual_frame_duration: (0018,1242), ms.
        ge_scan_date_time: (0009,xx0D) of "GEMS_PETD_01".
        philips_suv_factor: (7053,xx00) of "Philips PET Private Group", SUVbw per count.
        philips_activity_factor: (7053,xx09) of the same, Bq/ml per count.
    """

    units: str = ""
    suv_type: str = ""
    corrected_image: tuple[str, ...] = ()
    decay_correction: str = ""
    patient_weight: float = math.nan
    radionuclide_total_dose: float = math.nan
    radionuclide_half_life: float = math.nan
    radiopharmaceutical_start_time: str = ""
    radiopharmaceutical_start_date_time: str = ""
    series_date: str = ""
    series_time: str = ""
    acquisition_date: str = ""
    acquisition_time: str = ""
    timezone_offset: str = ""
    frame_reference_time: float = math.nan
    actual_frame_duration: float = math.nan
    ge_scan_date_time: str = ""
    philips_suv_factor: float = math.nan
    philips_activity_factor: float = math.nan


@dataclass(frozen=True, slots=True)
class SUVParts:
    """What the factor of one image is made of, when its series is known. Moments are seconds after the injection.

    Attributes:
        factor: What modality values are multiplied with, of the dose as injected.
        half_life: Seconds, inf where the dose does not decay until the moment that the image is corrected to.
        series: When the series began, by Series Time.
        acquisition: When this image was acquired.
        scan: When the scan began, if Series Time does not say so; nan if that is not known, and `problem` says why.
        problem: The keyword to blame for that, and a reason.
    """

    factor: float
    half_life: float = math.inf
    series: float = 0.0
    acquisition: float = 0.0
    scan: float = 0.0
    problem: str = ""

    @property
    def alone(self) -> float | None:
        """The factor if the series is this image, `None` if there is none."""
        if self.series <= self.acquisition:
            return self.at(self.series)
        return None if self.problem else self.at(self.scan)

    def at(self, seconds: float) -> float:
        """The factor where the image is corrected to a moment."""
        return (
            self.factor
            if math.isinf(self.half_life)
            else self.factor * math.exp2(seconds / self.half_life)
        )


def suv_factor(pet: PETAttributes) -> float:
    """The number that modality values are multiplied with to give SUVbw in g/ml, of a series of one image.

    Args:
        pet: The attributes of the image.

    Raises:
        PixelValueError: It cannot be computed; the message begins with the keyword to blame and holds no patient data.
    """
    parts = suv_parts(pet)
    factor = parts.alone
    if factor is None:
        raise PixelValueError(parts.problem)
    return factor


def suv_parts(pet: PETAttributes) -> SUVParts:
    """What the factor of an image is made of: the moment that it is corrected to is that of its whole series.

    Args:
        pet: The attributes of one image.

    Raises:
        PixelValueError: It cannot be computed; the message begins with the keyword to blame and holds no patient data.
    """
    for correction in ("ATTN", "DECY"):
        if correction not in pet.corrected_image:
            raise PixelValueError(f"CorrectedImage (0028,0051) does not have {correction}")
    if pet.units == "GML":
        if pet.suv_type not in ("", "BW"):
            raise PixelValueError("SUVType (0054,1006) is neither BW nor absent")
        return SUVParts(1.0)
    if pet.units == "CNTS":
        if pet.philips_suv_factor > 0:
            return SUVParts(pet.philips_suv_factor)
        if pet.philips_activity_factor > 0:
            of_activity = _parts_of_activity(pet)
            return replace(of_activity, factor=pet.philips_activity_factor * of_activity.factor)
        raise PixelValueError(
            "Units (0054,1001) is CNTS, and neither (7053,xx00) nor (7053,xx09) of Philips PET Private Group is there"
        )
    if pet.units == "BQML":
        return _parts_of_activity(pet)
    raise PixelValueError("Units (0054,1001) is none of BQML, CNTS and GML")


def mean_count_time(duration: float, half_life: float) -> float:
    """Seconds after the start of a frame at which the activity equals its mean over the frame.

    Args:
        duration: Of the frame, in seconds.
        half_life: In seconds.
    """
    decay = math.log(2) / half_life
    # -expm1(-x) is 1 - exp(-x) without cancellation for short frames of long-lived nuclides.
    return math.log(decay * duration / -math.expm1(-decay * duration)) / decay


def seconds_of_day(text: str) -> float:
    """A TM value in seconds since midnight (HH[MM[SS[.F]]], also with the colons of ACR-NEMA); nan if it is none."""
    parsed = _time(text)
    if parsed is None:
        return math.nan
    return parsed.hour * 3600 + parsed.minute * 60 + parsed.second + parsed.microsecond / 1e6


def parse_date_time(text: str) -> datetime | None:
    """A DT value that has at least an hour, without its offset from UTC; `None` if it is none."""
    text = text.strip()
    if text[:8].isdigit() and text[8:10].isdigit():
        # Files with many frames have one each, and this is ten times as fast as the expressions.
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(f"{text[:8]}T{text[8:]}").replace(tzinfo=None)
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        return None
    day, clock = _date(match[1]), _time(match[2])
    return None if day is None or clock is None else datetime.combine(day, clock)


def is_date_only(text: str) -> bool:
    """Whether a DT value is a year, a month or a day (PS3.5 6.2), which has no time of day."""
    match = _DATE_ONLY.fullmatch(text.strip())
    if match is None:
        return False
    year, month, day = match.groups(default="01")
    return _date(year + month + day) is not None


def _parts_of_activity(pet: PETAttributes) -> SUVParts:
    """Body weight over injected activity, for values in Bq/ml."""
    weight = _positive(pet.patient_weight, "PatientWeight (0010,1030)")
    dose = _positive(pet.radionuclide_total_dose, "RadionuclideTotalDose (0018,1074)")
    if dose < MINIMUM_DOSE:
        raise PixelValueError(
            "RadionuclideTotalDose (0018,1074) is below 1e6 Bq; it may be in MBq, which DICOM does not allow"
        )
    if pet.decay_correction == "ADMIN":
        return SUVParts(weight * 1000 / dose)
    if pet.decay_correction != "START":
        raise PixelValueError("DecayCorrection (0054,1102) is neither START nor ADMIN")
    half_life = _positive(pet.radionuclide_half_life, "RadionuclideHalfLife (0018,1075)")
    return _with_moments(pet, dose, SUVParts(weight * 1000 / dose, half_life))


def _with_moments(pet: PETAttributes, dose: float, parts: SUVParts) -> SUVParts:
    """With the moments that DecayCorrection START may refer to."""
    series_time = _required_time(pet.series_time, "SeriesTime (0008,0031)")
    acquisition_time = _required_time(pet.acquisition_time, "AcquisitionTime (0008,0032)")
    series_day, acquisition_day = _date(pet.series_date), _date(pet.acquisition_date)
    # Without any date the times are compared within one day, whichever it is.
    day = series_day or acquisition_day or date(2000, 1, 3)
    series = datetime.combine(series_day or day, series_time)
    acquisition = datetime.combine(acquisition_day or day, acquisition_time)
    scan, problem = None, ""
    try:
        scan = _scan_start(pet, parts.half_life, acquisition)
    except PixelValueError as error:
        problem = str(error)
    # The moment that counts if this is the only image says on which day the injection was.
    counts = series if series <= acquisition or scan is None else scan
    since = _since_injection(pet, counts)
    if dose * math.exp2(-since / parts.half_life) < 1:  # Bq
        raise PixelValueError(
            "RadionuclideHalfLife (0018,1075): nothing of the dose is left at the scan"
        )

    def seconds(moment: datetime) -> float:
        return since + (moment - counts).total_seconds()

    return replace(
        parts,
        series=seconds(series),
        acquisition=seconds(acquisition),
        scan=math.nan if scan is None else seconds(scan),
        problem=problem,
    )


def _scan_start(pet: PETAttributes, half_life: float, acquisition: datetime) -> datetime:
    """When the scan began, where Series Time was overwritten by post-processing."""
    if pet.ge_scan_date_time:
        scan = parse_date_time(pet.ge_scan_date_time)
        if scan is None:  # also where it is a date alone, which says nothing of the decay
            raise PixelValueError("(0009,xx0D) of GEMS_PETD_01 is no date and time")
        return scan
    reference = pet.frame_reference_time
    if not math.isfinite(reference):
        raise PixelValueError(
            "FrameReferenceTime (0054,1300) is missing, and SeriesTime (0008,0031) is after AcquisitionTime (0008,0032)"
        )
    if abs(reference) > _YEAR_IN_MS:
        raise PixelValueError("FrameReferenceTime (0054,1300) is further away than a year")
    keyword = "ActualFrameDuration (0018,1242)"
    duration = _positive(pet.actual_frame_duration, keyword) / 1000
    if duration > _YEAR_IN_MS / 1000:
        raise PixelValueError(f"{keyword} is longer than a year")
    seconds = mean_count_time(duration, half_life) - reference / 1000
    try:
        return acquisition + timedelta(seconds=seconds)
    except OverflowError as error:  # a date of the year 1 or 9999
        raise PixelValueError("AcquisitionDate (0008,0022) is far from any real one") from error


def _since_injection(pet: PETAttributes, scan: datetime) -> float:
    """Seconds from the injection to the start of the scan."""
    if pet.radiopharmaceutical_start_date_time:
        keyword = "RadiopharmaceuticalStartDateTime (0018,1078)"
        if _date(pet.series_date) is None and _date(pet.acquisition_date) is None:
            raise PixelValueError("SeriesDate (0008,0021) is missing")
        injection = _injection(pet, keyword)
        elapsed = (scan - injection).total_seconds() + _zone_difference(pet)
        if elapsed < 0:
            raise PixelValueError(f"{keyword} is later than the scan")
        return elapsed
    clock = _required_time(
        pet.radiopharmaceutical_start_time, "RadiopharmaceuticalStartTime (0018,1072)"
    )
    elapsed = (scan - datetime.combine(scan.date(), clock)).total_seconds()
    return elapsed if elapsed >= 0 else elapsed + 86_400  # injected before midnight


def _injection(pet: PETAttributes, keyword: str) -> datetime:
    """The moment of the injection; where the attribute is a date alone, with Radiopharmaceutical Start Time."""
    text = pet.radiopharmaceutical_start_date_time
    injection = parse_date_time(text)
    day = _date(text.strip()[:8]) if is_date_only(text) else None
    if day is not None:
        clock = _required_time(
            pet.radiopharmaceutical_start_time, "RadiopharmaceuticalStartTime (0018,1072)"
        )
        return datetime.combine(day, clock)
    if injection is None:
        raise PixelValueError(f"{keyword} is no date and time")
    return injection


def _zone_difference(pet: PETAttributes) -> float:
    """Seconds to add to scan minus injection, where both say how far they are from UTC."""
    injected = re.search(r"[+-]\d{4}$", pet.radiopharmaceutical_start_date_time.strip())
    scanned = re.fullmatch(r"[+-]\d{4}", pet.timezone_offset.strip())
    if injected is None or scanned is None:
        return 0.0
    return _offset_seconds(injected[0]) - _offset_seconds(scanned[0])


def _offset_seconds(text: str) -> float:
    seconds = int(text[1:3]) * 3600 + int(text[3:5]) * 60
    return -seconds if text[0] == "-" else seconds


def _positive(value: float, keyword: str) -> float:
    if math.isnan(value):
        raise PixelValueError(f"{keyword} is missing")
    if not 0 < value < math.inf:
        raise PixelValueError(f"{keyword} is not a positive number")
    if not _SMALLEST < value < _LARGEST:
        raise PixelValueError(f"{keyword} is far from any real one")
    return value


def _required_time(text: str, keyword: str) -> time:
    if not text.strip():
        raise PixelValueError(f"{keyword} is missing")
    parsed = _time(text)
    if parsed is None:
        raise PixelValueError(f"{keyword} is no time")
    return parsed


def _time(text: str) -> time | None:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute, second, fraction = match.groups(default="0")
    try:
        # 60 is a leap second (PS3.5 section 6.2); Python has none.
        return time(int(hour), int(minute), min(int(second), 59), int(fraction.ljust(6, "0")))
    except ValueError:
        return None


def _date(text: str) -> date | None:
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None
