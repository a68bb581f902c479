"""`FrameValues` as a record that JSON holds, for frames that leave their files; and back, equal.

What is absent is left out. A number that is not finite is `null` (nan) or text; tables are packed.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import HeaderError
from dicomtorch.model.frame import FrameValues, LookupTable, RealWorldValueMap
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.shown import shown, shown_uid

# What a header has as text, and a record may be shared.
_SHOWN: Final[dict[str, Callable[[str], str]]] = {
    **{
        name: partial(shown, keyword)
        for name, keyword in (
            ("modality", "Modality"),
            ("rescale_type", "RescaleType"),
            ("voi_lut_function", "VOILUTFunction"),
            ("presentation_lut_shape", "PresentationLUTShape"),
            ("pixel_presentation", "PixelPresentation"),
            ("segmentation_type", "SegmentationType"),
            ("photometric_interpretation", "PhotometricInterpretation"),
            ("units", "Units"),
        )
    },
    "sop_class_uid": shown_uid,
    "transfer_syntax_uid": shown_uid,
}
_MOST_ENTRIES = (
    1 << 20
)  # of one table: descriptors have 16 bits, a real world value map may have more


def to_record(values: FrameValues, *, withhold: bool = True) -> dict[str, Any]:
    """What JSON can hold of `values`: keys are the names of its fields.

    Args:
        values: Of a frame.
        withhold: Whether VR and length stand for coded values that are not of the standard (`model.shown`).
    """
    there = {
        field.name: getattr(values, field.name)
        for field in dataclasses.fields(FrameValues)
        if not _is_absent(getattr(values, field.name))
    }
    record: dict[str, Any] = plain(there)
    return _withheld(record) if withhold else record


def _withheld(record: dict[str, Any]) -> dict[str, Any]:
    for name, value in record.items():
        if isinstance(value, dict):
            _withheld(value)
        elif name in _SHOWN:
            record[name] = _SHOWN[name](value)
    return record


def _is_absent(value: Any) -> bool:
    missing = isinstance(value, float) and math.isnan(value)
    return value is None or missing or (isinstance(value, str | tuple) and not value)


def plain(value: Any) -> Any:
    """A value of metadata or of `FrameValues` as JSON can hold it.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, ImagePixel | LookupTable | RealWorldValueMap):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        packed = zlib.compress(np.ascontiguousarray(value).tobytes())
        return {"dtype": value.dtype.str, "zlib": base64.b64encode(packed).decode()}
    raise TypeError(f"a record cannot hold a {type(value).__name__}")


def from_record(record: Mapping[str, Any]) -> FrameValues:
    """The values that `to_record` was given.

    Raises:
        HeaderError: It is no such record.
    """
    try:
        fields = dict(record)
        pixel = ImagePixel(**fields.pop("pixel"))
        return FrameValues(pixel, **{k: _read(k, value) for k, value in fields.items()})
    except (TypeError, ValueError, KeyError, AttributeError, zlib.error) as error:
        raise HeaderError(
            f"this is no record of a frame that this version wrote ({type(error).__name__}); write the frames anew "
            "with FrameIndex.write"
        ) from error


def _read(name: str, value: Any) -> Any:
    read = _READ.get(name)
    return read(value) if read is not None else value


def number(value: Any) -> float:
    """A number that `plain` made something else of where it is not finite."""
    return math.nan if value is None else float(value)


def _pair(value: Any) -> tuple[float, float]:
    first, second = map(number, value)
    return first, second


def _array(value: Mapping[str, Any]) -> npt.NDArray[Any]:
    dtype = np.dtype(value["dtype"])
    unpacked = zlib.decompressobj()
    most = _MOST_ENTRIES * dtype.itemsize
    data = unpacked.decompress(base64.b64decode(value["zlib"], validate=True), most)
    if dtype.kind not in "iuf" or not unpacked.eof:
        raise ValueError("no table")
    return np.frombuffer(data, dtype)


def _table(value: Mapping[str, Any]) -> LookupTable:
    return LookupTable(value["first_mapped"], value["bits"], _array(value["data"]))


def _map(value: Mapping[str, Any]) -> RealWorldValueMap:
    data = value["data"]
    first, last, slope, intercept = (
        number(value[name]) for name in ("first", "last", "slope", "intercept")
    )
    units, table = value["units"], None if data is None else _array(data)
    return RealWorldValueMap(first, last, slope, intercept, units, table)


_READ: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("rescale_slope", "rescale_intercept", "dose_grid_scaling"), number),
    "suv_factor": number,
    "padding": _pair,
    "windows": lambda pairs: tuple(map(_pair, pairs)),
    "modality_lut": _table,
    "voi_luts": lambda tables: tuple(map(_table, tables)),
    "palette": lambda tables: tuple(map(_table, tables)),
    "real_world_value_map": _map,
}
