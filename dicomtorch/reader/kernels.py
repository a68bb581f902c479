"""Uncompressed frames by `dicomtorch_kernels`, where it is installed: a batch is read and converted in one call.

What the call can do is decided once for each kind of frame (`template`): conversions that are one multiplication, one
addition and one clamp, or none at all. Everything else, and every frame that fails, goes the way of all frames, which
gives the same bits and the messages. DICOMTORCH_KERNELS=0 in the environment leaves it out.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.backends.base import Backend
from dicomtorch.backends.isolated import inner
from dicomtorch.backends.stored import unsupported_reason
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from dicomtorch.pixels import linear
from dicomtorch.pixels.plan import Plan
from dicomtorch.storage.base import Storage
from dicomtorch.storage.local import LocalStorage

ABI = 1
_OWN = "dicomtorch.backends."
TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8")
_WIDTHS = np.array([int(name[1]) for name in TYPES])
COPY, CONSTANT, SINGLE, DOUBLE = range(4)
HAS_ORIGIN, HAS_SCALE, HAS_OFFSET, HAS_CLAMP, SWAP, PLANES, NAN_TO_ZERO, NO_OVERFLOW = (
    1 << k for k in range(8)
)
TEMPLATE = np.dtype(
    [
        *((name, np.int64) for name in ("type", "out_type", "mode", "flags", "left", "right")),
        *((name, np.int64) for name in ("pixels", "samples")),
        *((name, np.float64) for name in ("origin", "scale", "offset", "low", "high")),
    ]
)
JOB = np.dtype(
    [
        *((name, np.int64) for name in ("path", "path_length", "size", "mtime_ns", "inode")),
        *((name, np.int64) for name in ("offset", "template", "out", "error", "number")),
    ]
)

Template = npt.NDArray[Any]
"""One record of `TEMPLATE`."""


class Module(Protocol):
    """What is used of `dicomtorch_kernels`."""

    ABI: int
    JOB_BYTES: int
    TEMPLATE_BYTES: int
    LEVELS: int

    def convert(self, template: Any, data: Any, out: Any, level: int = -1, /) -> int:
        """One frame from memory."""

    def read(
        self,
        jobs: Any,
        templates: Any,
        prefix: bytes,
        paths: Any,
        out: Any,
        threads: int,
        level: int = -1,
        /,
    ) -> int:
        """Frames of files."""


class Kernels(NamedTuple):
    """The module, or why there is none."""

    module: Module | None
    reason: str = ""


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The compiled kernels, checked once against NumPy on this machine."""
    if os.environ.get("DICOMTORCH_KERNELS") == "0":
        return Kernels(None, "DICOMTORCH_KERNELS=0 is set")
    try:
        module = cast(Module, importlib.import_module("dicomtorch_kernels"))
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        return Kernels(None, "dicomtorch-kernels is not installed" if missing else str(error))
    if not hasattr(module, "read") or sys.byteorder != "little":
        return Kernels(None, "dicomtorch-kernels does not read files on this platform")
    sizes = (module.ABI, module.JOB_BYTES, module.TEMPLATE_BYTES)
    if sizes != (ABI, JOB.itemsize, TEMPLATE.itemsize):
        return Kernels(
            None, "dicomtorch-kernels is of another version; install the one of dicomtorch"
        )
    wrong = _first_difference(module)
    return (
        Kernels(None, f"dicomtorch-kernels computes {wrong} otherwise here")
        if wrong
        else Kernels(module)
    )


def _first_difference(module: Module) -> str:
    """The type and level that do not give NumPy's bits for a few numbers; "" if all do."""
    for name in TYPES[:8]:
        dtype = np.dtype(name)
        ends = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        stored = np.array([ends.min, ends.max, 0, 1, 7, 100, 33, 101], dtype)[None, None]
        for scale, offset, low, high in ((1 / 3, -1 / 7, 0.0, 1.0), (2.5, 12345.6, -9.0, 4e4)):
            expected = np.empty(stored.shape, np.float32)
            with np.errstate(over="ignore"):
                linear.fill_linear(stored, expected, scale, offset, low, high)
            record = _scaled(dtype, stored.size, 1, 0, scale, offset, low, high)
            for level in range(module.LEVELS):
                got = np.empty(stored.shape, np.float32)
                module.convert(record, np.ascontiguousarray(stored), got, level)
                if got.tobytes() != expected.tobytes():
                    return f"{dtype} at level {level}"
    return ""


def template(plan: Plan, dtype: torch.dtype) -> Template | None:
    """How frames of one kind are converted, `None` where more is to be done than the kernels can.

    Args:
        plan: What is done to the stored values.
        dtype: Of the tensor.
    """
    pixel, options = plan.frame.pixel, plan.options
    if not _is_plain(pixel) or options.size is not None:
        return None
    flags = SWAP if pixel.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else 0
    if pixel.samples_per_pixel > 1 and pixel.planar_configuration == 1:
        flags |= PLANES
    count = pixel.rows * pixel.columns
    if options.values == "stored":
        into = np.dtype(str(dtype).removeprefix("torch.")) if dtype != torch.bfloat16 else None
        if plan.background is not None or into is None or into == np.float16:
            return None
        if not _holds(into, pixel):
            return None
        return _record(_word(pixel), into, COPY, flags, pixel, count)
    if (
        dtype != torch.float32
        or len(plan.channels) != 1
        or plan.channels[0].kind != "linear"
        or plan.shape[0] != pixel.samples_per_pixel
        or not plan.is_affine
        or plan.paints
        or options.normalize is not None
    ):
        return None
    (mapping,) = plan.channels
    if pixel.is_float:
        flags |= NO_OVERFLOW | (NAN_TO_ZERO if options.values == "display" else 0)
    scale, offset = plan.folded(mapping)
    record = _scaled(
        pixel.stored_dtype,
        count,
        pixel.samples_per_pixel,
        flags,
        scale,
        offset,
        mapping.low,
        mapping.high,
    )
    bits = _record(_word(pixel), np.dtype(np.float32), COPY, 0, pixel, count)
    for name in ("type", "left", "right"):
        record[name] = bits[name]
    return record


def _is_plain(pixel: ImagePixel) -> bool:
    """Whether a frame is words that need no more than a swap of bytes and a shift to be stored values."""
    big = pixel.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    little = pixel.transfer_syntax_uid in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    return (
        (little or big)
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
    dtype: np.dtype[Any],
    into: np.dtype[Any],
    mode: int,
    flags: int,
    pixel: ImagePixel,
    count: int,
) -> Template:
    record = np.zeros(1, TEMPLATE)
    record["type"], record["out_type"] = TYPES.index(dtype.str[1:]), TYPES.index(into.str[1:])
    record["mode"], record["flags"] = mode, flags
    record["pixels"], record["samples"] = count, pixel.samples_per_pixel
    if not pixel.is_float:
        # The field goes to the top of the word and comes back, with its sign.
        record["left"] = pixel.bits_allocated - 1 - pixel.high_bit
        record["right"] = pixel.bits_allocated - pixel.bits_stored
    return record


def _scaled(
    dtype: np.dtype[Any],
    count: int,
    samples: int,
    flags: int,
    scale: float,
    offset: float,
    low: float,
    high: float,
) -> Template:
    """The steps that `pixels.linear` makes of a scale, an offset and a clamp, as numbers."""
    record = np.zeros(1, TEMPLATE)
    record["type"], record["out_type"] = TYPES.index(dtype.str[1:]), TYPES.index("f4")
    record["pixels"], record["samples"], record["mode"] = count, samples, SINGLE
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


class PlainReader:
    """Reads the frames of a batch that are no more than words to convert, all in one call.

    Args:
        index: What positions are of.
        storage: Where its files are.

    Attributes:
        is_used: Whether there are kernels, and they can read from `storage`.
    """

    def __init__(self, index: FrameIndex, storage: Storage) -> None:
        self._index = index
        self.is_used = type(storage) is LocalStorage and kernels().module is not None

    def template(self, plan: Plan, backend: Backend, dtype: torch.dtype) -> Template | None:
        """How frames of one kind are converted; `None` for those that go the way of all frames.

        Args:
            plan: What is done to their stored values.
            backend: What decodes them; one that is not of this package is always asked.
            dtype: Of the tensor.
        """
        ours = type(inner(backend)).__module__.startswith(_OWN)
        return template(plan, dtype) if self.is_used and ours else None

    def read(
        self,
        positions: npt.NDArray[np.int64],
        templates: Sequence[Template | None],
        out: Tensor,
        num_threads: int,
    ) -> npt.NDArray[np.bool_]:
        """Reads frames into a batch and says for each whether it is there.

        Args:
            positions: Frames.
            templates: How each is converted, `None` for those that are left out.
            out: (B, C, H, W), contiguous; frame k goes into `out[k]`.
            num_threads: At most so many at once.
        """
        module = kernels().module
        done = np.zeros(len(positions), np.bool_)
        known: dict[int, int] = {}
        distinct: list[Template] = []
        numbers = np.full(len(positions), -1, np.int64)
        for k, each in enumerate(templates):
            if each is not None:
                number = known.setdefault(id(each), len(distinct))
                if number == len(distinct):
                    distinct.append(each)
                numbers[k] = number
        if module is None or not distinct:
            return done
        table = np.concatenate(distinct)
        (which,) = np.nonzero(self._readable(positions, numbers, table))
        if not len(which):
            return done
        jobs = self._jobs(positions[which], numbers[which])
        jobs["out"] = which * (out.stride(0) * out.element_size())
        order = np.lexsort((jobs["offset"], jobs["path"]))
        jobs, which = jobs[order], which[order]
        memory = out.numpy().reshape(-1).view(np.uint8)
        paths: Any = self._index.files["path"]
        module.read(jobs, table, self._index.path_prefix, paths.data, memory, num_threads)
        done[which] = jobs["error"] == 0
        return done

    def _readable(
        self,
        positions: npt.NDArray[np.int64],
        numbers: npt.NDArray[np.int64],
        templates: Template,
    ) -> npt.NDArray[np.bool_]:
        """Whether each frame lies in one piece, on whole bytes, inside a file that is not deflated."""
        file, offset, fragments, bit_offset = (
            np.asarray(self._index.values(name, positions))
            for name in ("file", "offset", "fragments", "bit_offset")
        )
        files: Any = self._index.files
        kind = templates[np.maximum(numbers, 0)]
        ends = offset + kind["pixels"] * kind["samples"] * _WIDTHS[kind["type"]]
        whole = (numbers >= 0) & (fragments == 0) & (bit_offset == 0)
        readable: npt.NDArray[np.bool_] = (
            whole & (files["deflated"][file] != 1) & (ends <= files["size"][file])
        )
        return readable

    def _jobs(
        self, positions: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        files: Any = self._index.files
        file = np.asarray(self._index.values("file", positions))
        paths = files["path"]
        jobs = np.zeros(len(positions), JOB)
        jobs["path"] = paths.offsets[file]
        jobs["path_length"] = paths.offsets[file + 1] - jobs["path"]
        for name in ("size", "mtime_ns"):
            jobs[name] = files[name][file]
        jobs["inode"] = np.maximum(files["inode"][file], 0)  # 0: not known
        jobs["offset"] = self._index.values("offset", positions)
        jobs["template"] = numbers
        return jobs
