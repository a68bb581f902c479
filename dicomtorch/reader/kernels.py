"""Uncompressed and RLE frames by `dicomtorch_kernels`, where it is installed: a batch is one call.

What the call can do is decided once for each kind of frame (`templates`). Everything else, and every frame that
fails, goes the way of all frames, which gives the same bits and the messages. DICOMTORCH_KERNELS=0 in the environment
leaves it out.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.backends.base import Backend
from dicomtorch.backends.isolated import IsolatedBackend, inner
from dicomtorch.errors import DicomTorchError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.index.members import STORED, object_length, object_lengths
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.image import ImagePixel
from dicomtorch.pixels import linear
from dicomtorch.pixels.formulas import with_range
from dicomtorch.pixels.plan import Plan
from dicomtorch.pixels.sample import Sample
from dicomtorch.reader.recipes import MOST_RECIPES, Recipe
from dicomtorch.reader.templates import (
    FLAGS,
    TAP,
    TEMPLATE,
    TYPES,
    Record,
    Template,
    decoded_template,
    scaled,
    template,
    together,
)
from dicomtorch.storage.base import Storage
from dicomtorch.storage.local import LocalStorage
from dicomtorch.storage.remote import RemoteStorage
from dicomtorch.storage.web import is_web

ABI = 2
_OWN = "dicomtorch.backends."
JOB = np.dtype(
    [
        *((name, np.int64) for name in ("path", "path_length", "size", "mtime_ns", "inode")),
        *((name, np.int64) for name in ("offset", "template", "out", "error", "number")),
    ]
)


class Module(Protocol):
    """What is used of `dicomtorch_kernels`."""

    ABI: int
    FLAGS: int
    JOB_BYTES: int
    TEMPLATE_BYTES: int
    TAP_BYTES: int
    LEVELS: int

    def convert(self, template: Any, taps: Any, data: Any, out: Any, level: int = -1, /) -> int:
        """One frame from memory."""

    def read(
        self,
        jobs: Any,
        templates: Any,
        taps: Any,
        prefix: bytes,
        paths: Any,
        out: Any,
        threads: int,
        level: int = -1,
        /,
    ) -> int:
        """Frames of files."""

    def read_memory(
        self,
        jobs: Any,
        templates: Any,
        taps: Any,
        sources: list[Any],
        out: Any,
        threads: int,
        level: int = -1,
        /,
    ) -> int:
        """Frames that lie in memory: `path` of a job is the number of its source."""


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
    own = (JOB.itemsize, TEMPLATE.itemsize, TAP.itemsize)
    names = ("JOB_BYTES", "TEMPLATE_BYTES", "TAP_BYTES")
    is_other = getattr(module, "ABI", 0) != ABI or getattr(module, "FLAGS", 0) & FLAGS != FLAGS
    is_other |= not hasattr(module, "read_memory")
    if is_other or tuple(getattr(module, name, 0) for name in names) != own:
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
            record = scaled(dtype, stored.size, 1, scale, offset, low, high)
            for level in range(module.LEVELS):
                got = np.empty(stored.shape, np.float32)
                module.convert(record, b"", np.ascontiguousarray(stored), got, level)
                if got.tobytes() != expected.tobytes():
                    return f"{dtype} at level {level}"
    return ""


class PlainKind(NamedTuple):
    """Frames that share their values, as the compiled kernels read them.

    Attributes:
        template: From their files, `None` for those that go the way of all frames.
        decoded: From stored values that a backend gave.
        pixel: What says their shape and type.
        shape: Of the tensor.
        voi: How they are made display values.
    """

    template: Template | None = None
    decoded: Template | None = None
    pixel: ImagePixel | None = None
    shape: tuple[int, ...] = ()
    voi: AppliedVOI = AppliedVOI()


_OTHER = PlainKind()


class PlainBatch(NamedTuple):
    """What the kernels are called with.

    Attributes:
        which: Numbers of the frames in the batch.
        jobs: One for each of them.
        templates: Records and taps.
        memory: Of the whole batch, in bytes.
    """

    which: npt.NDArray[np.int64]
    jobs: npt.NDArray[Any]
    templates: tuple[Record, Record]
    memory: npt.NDArray[np.uint8]


class PlainReader:
    """Reads the frames of a batch that are no more than words to convert, all in one call.

    Args:
        index: What positions are of.
        storage: Where its files are.
        dtype: Of the tensors.

    Attributes:
        is_used: Whether there are kernels, and they can read from `storage`, or what it or a server gives.
        reads_files: Whether they read from `storage` themselves.
    """

    def __init__(self, index: FrameIndex, storage: Storage, dtype: torch.dtype) -> None:
        self._index = index
        self._dtype = dtype
        self._converts = kernels().module is not None
        self._is_given = is_web(index.root)
        is_local = type(storage) is LocalStorage and not self._is_given
        self.reads_files = is_local and self._converts
        comes = isinstance(storage, RemoteStorage) or self._is_given
        self.is_used = self.reads_files or (comes and self._converts)
        self._kinds: dict[Any, PlainKind] = {}

    def kind(
        self, group: int, recipe: Callable[[], Recipe], sample: Sample | None = None
    ) -> PlainKind:
        """How the kernels read the frames that share their values.

        Args:
            group: Number of what they share.
            recipe: How they become tensors.
            sample: What they are a part of, if they are converted as the others of it are.
        """
        if not self._converts:
            return _OTHER
        key = group if sample is None else (group, sample.key)
        known = self._kinds.get(key)
        if known is None:
            try:
                known = self._kind(recipe(), sample)
            except DicomTorchError:
                known = _OTHER  # reading the frame says so
            if len(self._kinds) >= MOST_RECIPES:
                self._kinds.clear()
            self._kinds[key] = known
        return known

    def _kind(self, recipe: Recipe, sample: Sample | None) -> PlainKind:
        plan = recipe.plan
        if recipe.shares or (sample is not None and sample.plan(plan) is not plan):
            return _OTHER
        ranges = None if sample is None else sample.ranges(plan, None)
        if ranges is not None:
            plan = replace(plan, channels=with_range(plan, ranges))
        stored = plan.options.values == "stored"
        voi = plan.channels[0].voi if plan.channels and not stored else AppliedVOI()
        decoded = None if recipe.levels else decoded_template(plan, self._dtype)
        template = self._template(plan, recipe.backend, recipe.levels) if self.is_used else None
        return PlainKind(template, decoded, plan.frame.pixel, plan.shape, voi)

    def _template(self, plan: Plan, backend: Backend, levels: int) -> Template | None:
        """How frames are converted as they lie in their files."""
        ours = type(inner(backend)).__module__.startswith(_OWN)  # others are always asked
        # Streams that are to be decoded in processes of their own are.
        here = not (plan.frame.pixel.is_encapsulated and isinstance(backend, IsolatedBackend))
        return template(plan, self._dtype, levels) if ours and here else None

    def convert(self, kind: PlainKind, stored: Any, out: Tensor) -> bool:
        """Converts the stored values of one frame, and says whether it did.

        Args:
            kind: What it is one of.
            stored: As a backend gave them.
            out: (C, H, W), on the CPU.
        """
        module, pixel = kernels().module, kind.pixel
        if (
            kind.decoded is None
            or pixel is None
            or module is None
            or not isinstance(stored, np.ndarray)
            or (stored.shape, stored.dtype) != (pixel.shape, pixel.stored_dtype)
            or out.shape != kind.shape
            or not (out.is_contiguous() and stored.flags.c_contiguous)
        ):
            return False
        return module.convert(*kind.decoded, stored, out.numpy()) == 0

    def convert_part(
        self, kind: PlainKind, encoded: Any, rows: int, columns: int, out: Tensor
    ) -> bool:
        """Converts a rectangle of a frame that lies in memory as in its file, and says whether it did.

        Args:
            kind: What the frame is one of.
            encoded: The rows of the rectangle, one after the other.
            rows: How many.
            columns: How many.
            out: (C, rows, columns), on the CPU.
        """
        module = kernels().module
        if module is None or kind.template is None or not out.is_contiguous():
            return False
        # The size of a frame is nothing but a number of pixels where no resolution is halved.
        record = kind.template.record.copy()
        record["pixels"] = rows * columns
        return module.convert(record, kind.template.taps, encoded, out.numpy()) == 0

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
        batch = self.batch(positions, templates, out)
        if module is None or batch is None:
            return done
        order = np.lexsort((batch.jobs["offset"], batch.jobs["path"]))
        jobs, which = batch.jobs[order], batch.which[order]
        paths: Any = self._index.files["path"]
        prefix = self._index.path_prefix
        module.read(jobs, *batch.templates, prefix, paths.data, batch.memory, num_threads)
        done[which] = jobs["error"] == 0
        return done

    def batch(
        self,
        positions: npt.NDArray[np.int64],
        templates: Sequence[Template | None],
        out: Tensor,
    ) -> PlainBatch | None:
        """What the kernels are called with for those frames of a batch that they can read; `None`: for none."""
        distinct = {id(each): each for each in templates if each is not None}
        if not distinct:
            return None
        number_of = {id(None): -1} | {name: number for number, name in enumerate(distinct)}
        numbers = np.array([number_of[id(each)] for each in templates])
        kinds = np.array([(each.nbytes, each.is_rle) for each in distinct.values()])
        lengths, is_rle = kinds[np.maximum(numbers, 0)].T
        (which,) = np.nonzero((numbers >= 0) & self._readable(positions, lengths, is_rle))
        if not len(which):
            return None
        jobs = self._jobs(positions[which], numbers[which])
        jobs["out"] = which * (out.stride(0) * out.element_size())
        memory = out.numpy().reshape(-1).view(np.uint8)
        return PlainBatch(which, jobs, together(list(distinct.values())), memory)

    def read_memory(
        self, batch: PlainBatch, part: slice, got: Sequence[Any], num_threads: int
    ) -> list[bool]:
        """Converts what came for a part of a batch, and says for each frame whether it is there.

        Args:
            batch: What the kernels are called with.
            part: Of its jobs.
            got: The bytes of each, or an exception.
            num_threads: At most so many at once.
        """
        module = kernels().module
        came = np.array([not isinstance(data, Exception) for data in got])
        if module is None:
            return [False] * len(came)
        jobs = batch.jobs[part][came]
        jobs["path"], jobs["offset"] = np.arange(len(jobs)), 0
        sources = [data for data in got if not isinstance(data, Exception)]
        module.read_memory(jobs, *batch.templates, sources, batch.memory, num_threads)
        came[came] = jobs["error"] == 0
        return list(map(bool, came))

    def read_one(self, where: FrameLocation, template: Template, out: Tensor) -> bool:
        """Reads one frame, and says whether it is there.

        Args:
            where: The frame.
            template: How it is converted.
            out: (C, H, W), contiguous.
        """
        module, span = kernels().module, where.span
        whole = span.fragments == 0 and where.size - span.offset >= template.nbytes
        if template.is_rle:
            padding = span.length - 8 - span.true_length
            whole = abs(span.fragments) == 1 and (span.true_length < 0 or 0 <= padding <= 1)
        is_plain = whole and not (span.bit_offset or where.deflated or where.container > STORED)
        if module is None or not is_plain:
            return False
        index = self._index
        paths: Any = index.files["path"]
        start, length = paths.offsets.item(where.file), object_length(index.files, where.file)
        jobs = np.zeros(1, JOB)
        about = (where.size, where.mtime_ns, max(where.inode, 0), span.offset, 0, 0, 0, span.length)
        jobs[0] = (start, length, *about)
        memory = out.numpy().reshape(-1).view(np.uint8)
        return module.read(jobs, *template, index.path_prefix, paths.data, memory, 1) == 0

    def _readable(
        self,
        positions: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        is_rle: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        """Whether each frame lies in one piece, on whole bytes, inside a file or archive where it is not deflated."""
        values, files = self._index.values, self._index.files
        if self._is_given:  # what comes of each is looked at
            return np.ones(len(positions), np.bool_)
        file = np.asarray(values("file", positions))
        fragments = np.asarray(values("fragments", positions))
        # Of some frames it is only known that they are items; that it is one is looked at when it is read.
        whole: npt.NDArray[np.bool_] = (fragments == is_rle) | (fragments == -is_rle)
        if is_rle.any():
            items = np.asarray(values("length", positions))
            lengths = np.where(is_rle, items, lengths)
            # A pad byte may follow a stream.
            padding = items - 8 - np.asarray(values("true_length", positions))
            whole &= (is_rle == 0) | (padding <= 1) & (padding >= 0) | (padding == items - 7)
        whole &= np.asarray(values("bit_offset", positions)) == 0
        whole &= files["deflated"][file] != 1
        whole &= files["container"][file] <= STORED
        whole &= np.asarray(values("offset", positions)) + lengths <= files["size"][file]
        return whole

    def _jobs(
        self, positions: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        files: Any = self._index.files
        file = np.asarray(self._index.values("file", positions))
        paths = files["path"]
        jobs = np.zeros(len(positions), JOB)
        jobs["path"] = paths.offsets[file]
        jobs["path_length"] = object_lengths(files, file)
        for name in ("size", "mtime_ns"):
            jobs[name] = files[name][file]
        jobs["inode"] = np.maximum(files["inode"][file], 0)  # 0: not known
        jobs["offset"] = self._index.values("offset", positions)
        jobs["template"] = numbers
        jobs["number"] = self._index.values("length", positions)
        return jobs
