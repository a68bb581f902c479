"""The columns that turn stored values into others: padding, LUTs, windows, palettes, real world values, PET SUV.

PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.7.5.1.1.2 (padding), C.7.6.3.1.5 (palettes), C.7.6.16.2.11 (real world
values).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from dicomtorch.dicom.elements import Element, Group, array, floats
from dicomtorch.dicom.tags import describe, private_tags
from dicomtorch.errors import HeaderError, PixelValueError
from dicomtorch.model.frame import LookupTable, RealWorldValueMap
from dicomtorch.model.schema import FRAME_COLUMNS
from dicomtorch.scanner.resolve.conversions import TAGS, keywords, tags_of
from dicomtorch.scanner.resolve.groups import Frames, without_items
from dicomtorch.scanner.resolve.lookup import lookup_table
from dicomtorch.scanner.resolve.private import Private
from dicomtorch.scanner.resolve.suv import PETAttributes, suv_parts

_PALETTES: Final = tuple(
    (
        TAGS[f"{color}PaletteColorLookupTableDescriptor"],
        TAGS[f"{color}PaletteColorLookupTableData"],
        TAGS[f"Segmented{color}PaletteColorLookupTableData"],
    )
    for color in ("Red", "Green", "Blue")
)
_TIMEZONE_OFFSET: Final = 0x00080201  # (0008,0201) TimezoneOffsetFromUTC

VALUE_TAGS: Final = (
    tags_of(
        keywords("""
            PixelPaddingValue PixelPaddingRangeLimit FloatPixelPaddingValue FloatPixelPaddingRangeLimit
            DoubleFloatPixelPaddingValue DoubleFloatPixelPaddingRangeLimit
            ModalityLUTSequence ModalityLUTType LUTDescriptor LUTData
            FrameVOILUTSequence VOILUTSequence VOILUTFunction WindowCenter WindowWidth
            RealWorldValueMappingSequence RealWorldValueFirstValueMapped RealWorldValueLastValueMapped
            DoubleFloatRealWorldValueFirstValueMapped DoubleFloatRealWorldValueLastValueMapped
            RealWorldValueSlope RealWorldValueIntercept RealWorldValueLUTData
            MeasurementUnitsCodeSequence CodeValue LongCodeValue DoseUnits
            CorrectedImage DecayCorrection SUVType PatientWeight FrameReferenceTime ActualFrameDuration
            SeriesDate SeriesTime AcquisitionDate AcquisitionTime
            RadiopharmaceuticalInformationSequence RadiopharmaceuticalStartTime
            RadiopharmaceuticalStartDateTime RadionuclideTotalDose RadionuclideHalfLife
        """)
    )
    | private_tags()
    | {_TIMEZONE_OFFSET}
    | {tag for tags in _PALETTES for tag in tags}
)
"""What `resolve_values` reads beyond single attributes."""

_MANY: Final = 16  # frames from which on a look at all of them at once pays

_Table = tuple[Element, Element, bool, int]  # descriptor, data, whether segmented, tag of the data


def resolve_values(frames: Frames) -> None:
    """Sets the columns of this module.

    Raises:
        HeaderError: A Modality LUT or a palette contradicts its descriptor.
    """
    columns = frames.columns
    if "Units" not in columns:
        frames.put("Units", frames.get("DoseUnits", "text"))
    _padding(frames)
    _modality_lut(frames)
    _voi(frames)
    if frames.pixel.is_palette or columns.get("PixelPresentation") in ("MIXED", "COLOR"):
        _palette(frames)
    _real_world_values(frames)
    if columns.get("Modality") == "PT":
        _suv(frames)


def _padding(frames: Frames) -> None:
    prefix = {"OF": "Float", "OD": "DoubleFloat"}.get(frames.pixel.pixel_data_vr, "")
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if prefix:
            frames.put(name, frames.get(prefix + name, "float64"))
        elif TAGS[name] in frames.top:
            value = frames.get(name, "int64")
            frames.put(name, None if value is None else _as_stored(frames, value))


def _as_stored(frames: Frames, value: int) -> float:
    """A US or SS value with the sign of Pixel Representation, whatever its VR says."""
    value &= 0xFFFF
    signed = frames.pixel.pixel_representation == 1 and value >= 0x8000
    return float(value - 0x10000 if signed else value)


# Lookup tables


def _modality_lut(frames: Frames) -> None:
    items = frames.items("ModalityLUTSequence")
    if not items or frames.macro("PixelValueTransformationSequence") is not None:
        return
    first, count = _store(frames, _tables_of(items[:1]), frames.pixel.pixel_representation == 1)
    if not count:
        return
    frames.columns["modality_lut"] = first
    if "RescaleSlope" in frames.columns:
        both = [describe(TAGS[k]) for k in ("ModalityLUTSequence", "RescaleSlope")]
        frames.notices.append(f"{' and '.join(both)} are both present; the LUT is used")
    if "RescaleType" not in frames.columns:
        frames.put("RescaleType", frames.get("ModalityLUTType", "text", items[0]))


def _tables_of(items: list[Group]) -> tuple[_Table, ...]:
    """The tables of Modality or VOI LUT items that have both parts."""
    descriptor_tag, data_tag = TAGS["LUTDescriptor"], TAGS["LUTData"]
    return tuple(
        (item[descriptor_tag], item[data_tag], False, data_tag)
        for item in items
        if _has(item, descriptor_tag) and _has(item, data_tag)
    )


def _has(group: Group, tag: int) -> bool:
    return tag in group and isinstance(group[tag][1], bytes)


def _store(
    frames: Frames, tables: tuple[_Table, ...], signed: bool, *, lenient: bool = False
) -> tuple[int, int]:
    """Stores tables that are not empty, one after the other; (position of the first or -1, how many)."""
    key = (tables, signed)
    if key not in frames.stored:
        found = []
        for table in tables:
            try:
                expanded = _expand(frames, table, signed)
            except HeaderError as error:
                if not lenient:
                    raise
                frames.notices.append(f"{error}; taken as absent")
                continue
            if expanded is not None:
                found.append(expanded)
        frames.stored[key] = (len(frames.lookups) if found else -1, len(found))
        frames.lookups.extend(found)
    position: tuple[int, int] = frames.stored[key]
    return position


def _expand(frames: Frames, table: _Table, signed: bool) -> LookupTable | None:
    descriptor, data, segmented, tag = table
    big_endian = frames.context.big_endian
    # The descriptor's VR is ambiguous (US or SS): it is read as words, and `signed` decides.
    return lookup_table(
        array(("US", descriptor[1]), big_endian).tolist(),
        data[1],
        big_endian=big_endian,
        signed_first=signed,
        vr=data[0],
        segmented=segmented,
        name=describe(tag),
    )


def _palette(frames: Frames) -> None:
    top = frames.top
    tables = []
    for descriptor, plain, segmented in _PALETTES:
        data = plain if plain in top or segmented not in top else segmented
        if _has(top, descriptor) and _has(top, data):
            tables.append((top[descriptor], top[data], data == segmented, data))
    first, count = _store(frames, tuple(tables), frames.pixel.pixel_representation == 1)
    if count == 3:
        frames.columns["palette"] = first
    else:
        frames.notices.append("the palette of this image is missing, in whole or in part")


# Windows and VOI LUTs


def _voi(frames: Frames) -> None:
    macro = frames.macro("FrameVOILUTSequence")
    if not isinstance(macro, list):
        frames.columns.update(_voi_of(frames, frames.top if macro is None else macro))
        return
    sources = [frames.top if group is None else group for group in macro]
    if _plain_windows(frames, sources):
        return
    known: dict[Any, dict[str, Any]] = {}
    found = []
    for source in sources:
        key = _voi_key(source)
        columns = known.get(key)
        if columns is None:
            columns = known[key] = _voi_of(frames, source)
        found.append(columns)
    for name in {name for columns in known.values() for name in columns}:
        missing = FRAME_COLUMNS[name].missing
        frames.spread(name, [columns.get(name, missing) for columns in found])


def _plain_windows(frames: Frames, groups: list[Group]) -> bool:
    """Sets the columns if each group has one window that is as it should be, and nothing else."""
    if len(groups) < _MANY:
        return False
    windows = []
    for keyword in ("WindowCenter", "WindowWidth"):
        tag = TAGS[keyword]
        elements = [group[tag] for group in groups if tag in group and len(group) == 2]
        if len(elements) != len(groups):
            return False
        told: list[str] = []
        numbers = frames.context.convert_many(tag, "float64", elements, told)
        if told or None in numbers:
            return False
        windows.append(numbers)
    if min(windows[1]) < 1:
        return False
    frames.spread("WindowCenter", windows[0])
    frames.spread("WindowWidth", windows[1])
    return True


def _voi_key(group: Group) -> Any:
    """Equal for groups with the same windows and tables."""
    tags = (TAGS["WindowCenter"], TAGS["WindowWidth"], TAGS["VOILUTFunction"])
    luts = group.get(TAGS["VOILUTSequence"])
    tables = _tables_of(luts[1]) if luts is not None and luts[0] == "SQ" else ()
    return (*(without_items(group.get(tag)) for tag in tags), tables)


def _voi_of(frames: Frames, group: Group) -> dict[str, Any]:
    """The columns of one Frame VOI LUT item, or of the main data set."""
    columns: dict[str, Any] = {}
    function = frames.get("VOILUTFunction", "text", group)
    if function is not None:
        columns["VOILUTFunction"] = function
    if TAGS["WindowCenter"] in group and TAGS["WindowWidth"] in group:
        columns.update(_windows(frames, group, function or "LINEAR"))
    items = frames.items("VOILUTSequence", group)
    if items:
        signed = _modality_can_be_negative(frames)
        first, count = _store(frames, _tables_of(items), signed, lenient=True)
        if count:
            columns["voi_lut"], columns["voi_lut_count"] = first, count
    return columns


def _windows(frames: Frames, group: Group, function: str) -> dict[str, Any]:
    centers = frames.get("WindowCenter", "list", group) or ()
    widths = frames.get("WindowWidth", "list", group) or ()
    width_name = describe(TAGS["WindowWidth"])
    if centers and widths and len(centers) != len(widths):
        frames.notices.append(
            f"{describe(TAGS['WindowCenter'])} has {len(centers)} values and {width_name} has "
            f"{len(widths)}; those without a partner are ignored"
        )
    pairs = [pair for pair in zip(centers, widths, strict=False) if all(map(math.isfinite, pair))]
    for _, width in pairs:
        if width <= 0:
            frames.notices.append(f"{width_name} is {width:g}; the window is taken as absent")
        elif width < 1 and function == "LINEAR":
            frames.notices.append(
                f"{width_name} is {width:g}, below 1 with VOILUTFunction LINEAR; taken as LINEAR_EXACT"
            )
    if not pairs:
        return {}
    columns: dict[str, Any] = {"WindowCenter": pairs[0][0], "WindowWidth": pairs[0][1]}
    if len(pairs) > 1:
        columns["windows"] = "\\".join(f"{center!r}\\{width!r}" for center, width in pairs)
    return columns


def _modality_can_be_negative(frames: Frames) -> bool:
    """Whether what goes into the VOI LUT can be below 0, which makes its first value signed (C.11.2.1.1)."""
    if "modality_lut" in frames.columns:
        return False
    pixel = frames.pixel
    sign_bit = 1 << (pixel.bits_stored - 1)
    low, high = (-sign_bit, sign_bit - 1) if pixel.pixel_representation else (0, 2 * sign_bit - 1)
    slopes = np.nan_to_num(np.asarray(frames.columns.get("RescaleSlope", 1.0), float), nan=1.0)
    intercepts = np.nan_to_num(np.asarray(frames.columns.get("RescaleIntercept", 0.0), float))
    with np.errstate(over="ignore", invalid="ignore"):
        lowest = np.minimum(slopes * low, slopes * high) + intercepts
        return bool(np.min(lowest) < 0)


# Real world values


def _real_world_values(frames: Frames) -> None:
    name = "RealWorldValueMappingSequence"
    top = next(iter(frames.items(name)), None)
    macro = frames.macro(name)
    if not isinstance(macro, list):
        group = top if macro is None else macro
        if group is not None:
            frames.put("real_world_value_map", _real_world_value_map(frames, group))
        return
    groups = [top if group is None else group for group in macro]
    positions = [-1 if g is None else _real_world_value_map(frames, g) for g in groups]
    frames.spread("real_world_value_map", positions)


def _real_world_value_map(frames: Frames, group: Group) -> int:
    """Position of an item's map in `lookups`, -1 if it has none."""
    units = ""
    for item in frames.items("MeasurementUnitsCodeSequence", group)[:1]:
        codes = (frames.get(keyword, "text", item) for keyword in ("CodeValue", "LongCodeValue"))
        units = next(filter(None, codes), "")
    data = without_items(group.get(TAGS["RealWorldValueLUTData"]))
    if data is not None and not data[1]:
        data = None
    first, last = _mapped(frames, "First", group), _mapped(frames, "Last", group)
    slope = frames.get("RealWorldValueSlope", "float64", group)
    intercept = frames.get("RealWorldValueIntercept", "float64", group)
    key = ("real world", first, last, slope, intercept, units, data)
    if key not in frames.stored:
        frames.stored[key] = -1
        if first is None or last is None or (data is None and None in (slope, intercept)):
            frames.notices.append(
                f"{describe(TAGS['RealWorldValueMappingSequence'])} has no range, or neither slope "
                f"and intercept nor a table; taken as absent"
            )
        else:
            frames.stored[key] = len(frames.lookups)
            table = None if data is None else np.array(floats(data, frames.context.big_endian))
            if table is not None:
                slope = intercept = math.nan
            frames.lookups.append(RealWorldValueMap(first, last, slope, intercept, units, table))
    position: int = frames.stored[key]
    return position


def _mapped(frames: Frames, which: str, group: Group) -> float | None:
    """First or last value mapped, in stored values."""
    value: float | None = frames.get(
        f"DoubleFloatRealWorldValue{which}ValueMapped", "float64", group
    )
    if value is not None:
        return value
    number = frames.get(f"RealWorldValue{which}ValueMapped", "int64", group)
    return None if number is None else _as_stored(frames, number)


# PET


def _pet_attributes(frames: Frames) -> PETAttributes:
    drug = next(iter(frames.items("RadiopharmaceuticalInformationSequence")), {})

    def text(keyword: str, group: Group | None = None) -> str:
        return frames.get(keyword, "text", group) or ""

    def number(keyword: str, group: Group | None = None) -> float:
        return _or_nan(frames.get(keyword, "float64", group))

    private = Private(frames.top, frames.context, frames.notices)
    zone = frames.top.get(_TIMEZONE_OFFSET)
    return PETAttributes(
        units=text("Units"),
        suv_type=text("SUVType"),
        corrected_image=tuple(text("CorrectedImage").split("\\")),
        decay_correction=text("DecayCorrection"),
        patient_weight=number("PatientWeight"),
        radionuclide_total_dose=number("RadionuclideTotalDose", drug),
        radionuclide_half_life=number("RadionuclideHalfLife", drug),
        radiopharmaceutical_start_time=text("RadiopharmaceuticalStartTime", drug),
        radiopharmaceutical_start_date_time=text("RadiopharmaceuticalStartDateTime", drug),
        series_date=text("SeriesDate"),
        series_time=text("SeriesTime"),
        acquisition_date=text("AcquisitionDate"),
        acquisition_time=text("AcquisitionTime"),
        timezone_offset="" if zone is None else frames.context.text(zone),
        frame_reference_time=number("FrameReferenceTime"),
        actual_frame_duration=number("ActualFrameDuration"),
        ge_scan_date_time=private.value("GEPETScanDateTime", "text") or "",
        philips_suv_factor=_or_nan(private.value("PhilipsSUVScaleFactor", "float64")),
        philips_activity_factor=_or_nan(
            private.value("PhilipsActivityConcentrationScaleFactor", "float64")
        ),
    )


def _suv(frames: Frames) -> None:
    try:
        parts = suv_parts(_pet_attributes(frames))
    except PixelValueError as error:
        frames.columns["suv_problem"] = str(error)
        return
    frames.put("suv_factor", parts.alone)
    if parts.alone is None:
        frames.columns["suv_problem"] = parts.problem
    if math.isfinite(parts.half_life):  # then the moment is that of the whole series
        frames.columns.update(
            suv_at_injection=parts.factor,
            suv_half_life=parts.half_life,
            suv_series_start=parts.series,
            suv_acquisition=parts.acquisition,
            suv_scan_start=parts.scan,
        )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
