"""How the compiled kernels convert frames of one kind: a record of numbers, decided once for each kind.

Their steps are those of `pixels`, with the same constants: conversions that are one multiplication, one addition and
one clamp, or none at all, and means of blocks before them. Everything else is left to `pixels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dicomtorch.backends.stored import unsupported_reason
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    RLE_LOSSLESS,
)
from dicomtorch.pixels import linear
from dicomtorch.pixels.frame import bounds, surroundings
from dicomtorch.pixels.linear import LARGEST_SCALE, SMALLEST_SCALE
from dicomtorch.pixels.plan import Plan
from dicomtorch.pixels.resize import resized, taps

TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8")
COPY, CONSTANT, SINGLE, DOUBLE = range(4)
HAS_ORIGIN, HAS_SCALE, HAS_OFFSET, HAS_CLAMP, SWAP, PLANES, NAN_TO_ZERO, NO_OVERFLOW = (
    1 << k for k in range(8)
)
LOWEST, HAS_BOUNDS, RLE, NORMALIZE, THRICE = (1 << k for k in range(8, 13))
FLAGS = 8191
"""All of them."""
TEMPLATE = np.dtype(
    [
        *((name, np.int64) for name in ("type", "out_type", "mode", "flags", "left", "right")),
        *((name, np.int64) for name in ("pixels", "samples")),
        *((name, np.float64) for name in ("origin", "scale", "offset", "low", "high")),
        *((name, np.int64) for name in ("factor", "rows", "columns")),
        *((name, np.int64) for name in ("inner_rows", "inner_columns", "top", "left_column")),
        *((name, np.int64) for name in ("out_rows", "out_columns")),
        *((name, np.int64) for name in ("row_taps", "column_taps", "row_at", "column_at")),
        *((name, np.float64) for name in ("around", "floor", "ceiling")),
    ]
)
TAP = np.dtype([("index", np.int32), ("weight", np.float32)])
LARGEST_STRIP = 1 << 19
"""Bytes of the rows of one row of blocks, at most."""

Record = npt.NDArray[Any]


class Template(NamedTuple):
    """How frames of one kind are converted.

    Attributes:
        record: One record of `TEMPLATE`.
        taps: Records of `TAP`, to which `row_at` and `column_at` of the record count.
    """

    record: Record
    taps: Record = np.zeros(0, TAP)

    @property
    def is_rle(self) -> bool:
        """Whether frames are RLE streams."""
        return bool(self.record["flags"][0] & RLE)

    @property
    def nbytes(self) -> int:
        """Of the samples of a frame."""
        (width,) = self.record["type"]
        return int(self.record["pixels"][0] * self.record["samples"][0]) * int(TYPES[width][1])


def template(plan: Plan, dtype: torch.dtype, levels: int = 0) -> Template | None:
    """How frames of one kind are converted as they lie in their files, `None` where more is to be done to them.

    Args:
        plan: What is done to the stored values.
        dtype: Of the tensor.
        levels: How often the resolution is halved first, as `pixels.reduced` says.
    """
    pixel = plan.frame.pixel
    if not _is_plain(pixel) or (plan.options.size is not None and not levels):
        return None
    is_rle = pixel.transfer_syntax_uid == RLE_LOSSLESS
    flags = SWAP if pixel.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else RLE if is_rle else 0
    if pixel.samples_per_pixel > 1 and (is_rle or pixel.planar_configuration == 1):
        flags |= PLANES
    # Means of integers have the steps of integers.
    record = _steps(plan, dtype, linear.SMALL if levels else pixel.stored_dtype)
    if record is None:
        return None
    record["type"] = TYPES.index(_word(pixel).str[1:])
    record["flags"] |= flags
    if not pixel.is_float:
        # The field goes to the top of the word and comes back, with its sign.
        record["left"] = pixel.bits_allocated - 1 - pixel.high_bit
        record["right"] = pixel.bits_allocated - pixel.bits_stored
    return _reduced(record, plan, levels) if levels else Template(record)


def decoded_template(plan: Plan, dtype: torch.dtype) -> Template | None:
    """How stored values of one kind are converted that were decoded; `None` where more is to be done to them.

    Args:
        plan: What is done to them.
        dtype: Of the tensor.
    """
    stored = plan.frame.pixel.stored_dtype
    if plan.options.size is not None or stored.str[1:] not in TYPES[:8]:
        return None
    record = _steps(plan, dtype, stored)
    return None if record is None else Template(record)


def _steps(plan: Plan, dtype: torch.dtype, stored: np.dtype[Any]) -> Record | None:
    """What is done to the stored values of a frame, which are of a type."""
    pixel, options = plan.frame.pixel, plan.options
    count, samples = pixel.rows * pixel.columns, pixel.samples_per_pixel
    if options.values == "stored":
        into = np.dtype(str(dtype).removeprefix("torch.")) if dtype != torch.bfloat16 else None
        if plan.background is not None or into is None or into == np.float16:
            return None
        return _record(stored, into, COPY, count, samples) if _holds(into, pixel) else None
    is_repeated = plan.shape[0] == 3 and samples == 1
    if (
        dtype != torch.float32
        or len(plan.channels) != 1
        or plan.channels[0].kind != "linear"
        or not (plan.shape[0] == samples or is_repeated)
        or not plan.is_affine
        or plan.paints
    ):
        return None
    (mapping,) = plan.channels
    record = scaled(stored, count, samples, *plan.folded(mapping), mapping.low, mapping.high)
    if pixel.is_float:
        record["flags"] |= NO_OVERFLOW | (NAN_TO_ZERO if options.values == "display" else 0)
    if is_repeated:
        record["flags"] |= THRICE
    return record if options.normalize is None else _normalized(record, plan)


def _normalized(record: Record, plan: Plan) -> Record | None:
    """`record` with the step of a mean and a deviation that are given."""
    how = plan.options.normalize
    if not isinstance(how, tuple) or plan.padding is not None or plan.frame.pixel.is_float:
        return None
    center, width = how
    usual = SMALLEST_SCALE < width < LARGEST_SCALE and abs(center) < LARGEST_SCALE
    if not usual or record["flags"][0] & HAS_CLAMP:
        return None
    record["flags"] |= NORMALIZE
    record["low"], record["high"] = center, width
    return record


def _reduced(record: Record, plan: Plan, levels: int) -> Template | None:
    """`record` for means of blocks that are resized."""
    pixel, size, factor = plan.frame.pixel, plan.options.size, 1 << levels
    assert size is not None
    samples = 1 if record["flags"][0] & PLANES else pixel.samples_per_pixel
    if factor * pixel.columns * samples * pixel.bits_allocated // 8 > LARGEST_STRIP:
        return None
    where, offset = resized(pixel.rows, pixel.columns, size), (factor - 1) / 2
    tables = [
        taps(full, wanted, factor, offset, -(-full // factor))
        for full, wanted in ((pixel.rows, where.rows), (pixel.columns, where.columns))
    ]
    found = [np.zeros((len(table), len(table[0][0])), TAP) for table in tables]
    for table, into in zip(tables, found, strict=True):
        into["index"], into["weight"] = [each[0] for each in table], [each[1] for each in table]
    around, span = surroundings(plan), bounds(plan)
    record["flags"] |= (LOWEST if around is None else 0) | (HAS_BOUNDS if span else 0)
    record["around"] = 0.0 if around is None else around
    record["floor"], record["ceiling"] = span or (0.0, 0.0)
    record["factor"], record["rows"], record["columns"] = factor, pixel.rows, pixel.columns
    record["inner_rows"], record["inner_columns"] = where.rows, where.columns
    record["top"], record["left_column"] = where.top, where.left
    record["out_rows"], record["out_columns"] = size
    record["row_taps"], record["column_taps"] = map(len, found)
    record["column_at"] = found[0].size
    return Template(record, np.concatenate([each.reshape(-1) for each in found]))


def _is_plain(pixel: ImagePixel) -> bool:
    """Whether a frame is words, as they are or in RLE, that a swap of bytes and a shift make stored values."""
    big = pixel.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    others = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, RLE_LOSSLESS)
    return (
        (big or pixel.transfer_syntax_uid in others)
        and pixel.bits_allocated in ((32, 64) if pixel.is_float else (8, 16, 32))
        # OW is a string of 16-bit words: other integers packed into them are not merely swapped (PS3.5 8.1.1).
        and (
            not big
            or pixel.is_float
            or pixel.bits_allocated == (8 if pixel.pixel_data_vr == "OB" else 16)
        )
        and (
            pixel.samples_per_pixel == 1
            or (pixel.samples_per_pixel == 3 and pixel.photometric_interpretation == "RGB")
        )
        and not unsupported_reason(pixel)
    )


def _holds(dtype: np.dtype[Any], pixel: ImagePixel) -> bool:
    """Whether every stored value is one of `dtype`."""
    if np.can_cast(pixel.stored_dtype, dtype) or dtype.kind not in "iu":
        return np.can_cast(pixel.stored_dtype, dtype)
    sign = pixel.pixel_representation
    low, high = (-1 << (pixel.bits_stored - 1)) * sign, (1 << (pixel.bits_stored - sign)) - 1
    ends = np.iinfo(dtype)
    return not pixel.is_float and ends.min <= low and high <= ends.max


def _word(pixel: ImagePixel) -> np.dtype[Any]:
    """The words of BitsAllocated bits, with the sign of the stored values."""
    kind = "f" if pixel.is_float else "i" if pixel.pixel_representation else "u"
    return np.dtype(f"{kind}{pixel.bits_allocated // 8}")


def _record(
    dtype: np.dtype[Any], into: np.dtype[Any], mode: int, count: int, samples: int
) -> Record:
    record = np.zeros(1, TEMPLATE)
    record["factor"] = 1
    record["type"], record["out_type"] = TYPES.index(dtype.str[1:]), TYPES.index(into.str[1:])
    record["mode"], record["pixels"], record["samples"] = mode, count, samples
    return record


def scaled(
    dtype: np.dtype[Any],
    count: int,
    samples: int,
    scale: float,
    offset: float,
    low: float,
    high: float,
) -> Record:
    """The steps that `pixels.linear` makes of a scale, an offset and a clamp, as numbers."""
    record = _record(dtype, np.dtype(np.float32), SINGLE, count, samples)
    flags = 0
    for function, operands in linear.linear_steps(
        dtype, np.dtype(np.float32), scale, offset, low, high
    ):
        if function is linear.fill_constant:
            record["mode"], record["offset"] = CONSTANT, operands[0]
        elif function is linear.fill_in_float64:
            record["mode"], record["scale"], record["offset"] = DOUBLE, *operands
        elif function is np.subtract:
            flags |= HAS_ORIGIN
            record["origin"] = operands[0]
        elif function is np.multiply:
            flags |= HAS_SCALE
            record["scale"] = operands[0]
        elif function is np.add:
            flags |= HAS_OFFSET
            record["offset"] = operands[0]
        elif function is np.ndarray.clip:
            flags |= HAS_CLAMP
            record["low"], record["high"] = operands
    record["flags"] = flags
    return record


def together(templates: list[Template]) -> tuple[Record, Record]:
    """Records of several templates, and the taps of all."""
    if len(templates) == 1:
        return templates[0][:2]
    table = np.concatenate([each.record for each in templates])
    lengths = [len(each.taps) for each in templates]
    if any(lengths):
        before = np.cumsum(lengths) - lengths
        table["row_at"] += before
        table["column_at"] += before
    return table, np.concatenate([each.taps for each in templates])
