"""`FrameReader`: positions of an index -> tensors. The way of every frame, written once.

row -> bytes of its span -> code stream -> stored values -> values asked for. What to do about an error is the datasets'
business.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dicomtorch.backends.base import Backend, choose_backend, decoding
from dicomtorch.dicom.fragments import align, join
from dicomtorch.errors import DicomTorchError, UnsupportedError, printable
from dicomtorch.index.frame_index import FrameIndex, FrameLocation
from dicomtorch.model.frame import AppliedVOI, FrameSpan, FrameValues
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels import dtypes, plan, statistics
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels.batch import Conversion
from dicomtorch.pixels.memory import new_batch
from dicomtorch.pixels.plan import Plan, make_plan
from dicomtorch.pixels.sample import Sample
from dicomtorch.pixels.voi import SharedRange, common_window, has_voi, is_dose
from dicomtorch.reader.cache import EXPENSIVE, FrameCache, frame_key
from dicomtorch.reader.threads import _pool, usable_threads
from dicomtorch.storage.local import Scratch, StoredFile, will_need

_logger = logging.getLogger("dicomtorch")

_MOST_RECIPES = 4096
_MOST_SHARED = 1024  # value ranges of series and dose grids that are remembered


@dataclass(slots=True)
class Frame:
    """One frame that was read.

    Attributes:
        image: (C, H, W).
        voi: How it was made display values.
    """

    image: Tensor
    voi: AppliedVOI


class _Recipe(NamedTuple):
    """What frames that share their values have in common."""

    values: FrameValues
    backend: Backend
    plan: Plan
    shares: tuple[str, ...]  # for each channel: "file" or "series" whose mapping it has, or ""


class FrameReader:
    """Reads frames of an index as tensors.

    Picklable, and safe to use from several threads and in forked processes; holds no open file.

    Args:
        index: What to read from.
        backend: A name, "auto", or a `Backend`; chosen here, once for each distinct `ImagePixel`, and never changed.
        options: What is asked of the pixels.
        cache: Where decoded frames of the expensive syntaxes are kept.

    Attributes:
        unsupported: The `ImagePixel`s that the backend does not decode, with the error that says so.
    """

    def __init__(
        self,
        index: FrameIndex,
        backend: str | Backend = "auto",
        options: PixelOptions | None = None,
        cache: FrameCache | None = None,
    ) -> None:
        self.index = index
        self.cache = cache
        self.options = options or PixelOptions()
        self.unsupported: dict[ImagePixel, UnsupportedError] = {}
        self._backends: dict[ImagePixel, Backend] = {}
        for pixel, _ in index.image_pixels():
            try:
                self._backends[pixel] = choose_backend(backend, pixel)
            except UnsupportedError as error:
                self.unsupported[pixel] = error
        self.dtype = dtypes.output_dtype(self._backends, self.options)
        self._renew()

    def _renew(self) -> None:
        """What belongs to one process and is made anew in each."""
        self._local = _Local()
        self._shared = _SharedRanges()
        self._recipes: dict[int, _Recipe] = {}
        self._noticed: set[str] = set()

    def restricted(self, rows: npt.NDArray[np.int64]) -> FrameReader:
        """A reader of some positions of this one's index, with the same backends and options."""
        reader = FrameReader.__new__(FrameReader)
        reader.__setstate__({**self.__getstate__(), "index": self.index.select(rows)})
        return reader

    def with_options(self, options: PixelOptions) -> FrameReader:
        """A reader of the same frames with the same backends, of which something else is asked."""
        reader = FrameReader.__new__(FrameReader)
        dtype = dtypes.output_dtype(self._backends, options)
        reader.__setstate__({**self.__getstate__(), "options": options, "dtype": dtype})
        return reader

    def conversions(self, positions: Sequence[int]) -> list[Conversion]:
        """What turns the stored values of frames into those asked for.

        Raises:
            DicomTorchError: They cannot be made of a frame; the message names it.
        """
        found = []
        for where in self.index.locate(positions):
            try:
                recipe = self._recipe(where)
                shared = self._shared_ranges(where, recipe.shares) if recipe.shares else None
            except DicomTorchError as error:
                raise self._with_context(error, where.position) from error
            found.append(Conversion(recipe.plan, shared))
        return found

    def decodable(self) -> npt.NDArray[np.bool_]:
        """For each frame of the index whether its backend can decode it."""
        numbers = np.asarray(self.index.column("image_pixel"))
        known, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
        able = np.zeros(len(known), np.bool_)
        for k, position in enumerate(first):
            able[k] = self.index.image_pixel(int(position)) in self._backends
        return able[inverse]

    def shape(self, position: int) -> tuple[int, int, int]:
        """(C, H, W) of a frame, without reading it."""
        return plan.output_shape(self.index.frame_values(position), self.options)

    def shapes(self, positions: Sequence[int]) -> set[tuple[int, int, int]]:
        """The (C, H, W) that occur among several frames."""
        alike = {where.values: where.position for where in self.index.locate(positions)}
        return {self.shape(position) for position in alike.values()}

    def read_many(
        self,
        positions: Sequence[int],
        out: Tensor | None = None,
        *,
        num_threads: int | None = None,
    ) -> list[Frame | DicomTorchError]:
        """Reads several frames, ordered by file and offset, and gives each or its error in the order asked for.

        Args:
            positions: In the index.
            out: (B, C, H, W) of `dtype` to read into, frame k into `out[k]`; `None`: each gets its own tensor.
            num_threads: At most so many at once; `None`: as many as this process may use.
        """
        located = self.index.locate(positions)
        results: list[Any] = [None] * len(located)

        def read(k: int, files: _FileGroup) -> None:
            results[k] = self._read(located[k], files, None if out is None else out[k])

        self._each(located, read, num_threads)
        return results

    def read_together(
        self,
        positions: Sequence[int],
        out: Tensor | None = None,
        *,
        num_threads: int | None = None,
    ) -> list[Frame]:
        """Reads the frames of one sample, which has one mapping to display and one normalisation (see `together`).

        Each frame is decoded once.

        Args:
            positions: In the index.
            out: (B, C, H, W) of `dtype` to read into, frame k into `out[k]`; `None`: each gets its own tensor.
            num_threads: At most so many at once; `None`: as many as this process may use.

        Raises:
            DicomTorchError: A frame cannot be read; of several the first one of `positions`.
        """
        located = self.index.locate(positions)
        results: list[Any] = [None] * len(located)
        recipes: dict[int, _Recipe] = {}
        for where in located:
            try:
                if where.values not in recipes:
                    recipes[where.values] = self._recipe(where)
            except DicomTorchError as error:
                raise self._with_context(error, where.position) from error
        sample = Sample([recipe.values for recipe in recipes.values()], self.options)
        if sample.is_measured:
            stored = self._all_stored(located, num_threads)
            sample.measure(stored, [recipes[where.values].plan for where in located])

        def read(k: int, files: _FileGroup) -> None:
            target = None if out is None else out[k]
            kept = sample.stored[k] if sample.is_measured else None
            results[k] = self._read(located[k], files, target, sample, kept)

        self._each(located, read, num_threads)
        for result in results:
            if isinstance(result, DicomTorchError):
                raise result
        return results

    def _all_stored(
        self, located: Sequence[FrameLocation], num_threads: int | None
    ) -> list[npt.NDArray[Any]]:
        """Stored values of several frames, in memory of their own."""
        results: list[Any] = [None] * len(located)

        def read(k: int, files: _FileGroup) -> None:
            try:
                recipe = self._recipe(located[k])
                stored = self._stored(located[k], files, recipe.values.pixel, recipe.backend)
                results[k] = np.array(stored)
            except DicomTorchError as error:
                results[k] = self._with_context(error, located[k].position)

        self._each(located, read, num_threads)
        for result in results:
            if isinstance(result, DicomTorchError):
                raise result
        return results

    def _each(
        self,
        located: Sequence[FrameLocation],
        work: Callable[[int, _FileGroup], None],
        num_threads: int | None,
    ) -> None:
        """Calls `work` for each of several frames, in several threads, each in the order of files and offsets."""
        order = sorted(range(len(located)), key=lambda k: (located[k].file, located[k].span))
        threads = min(num_threads or usable_threads(), len(order))

        def do(part: Sequence[int]) -> None:
            with _FileGroup(self.index) as files:
                for k in part:
                    work(k, files)

        if threads <= 1:
            do(order)
            return
        bounds = [len(order) * k // threads for k in range(threads + 1)]
        parts = [order[a:b] for a, b in itertools.pairwise(bounds)]
        tasks = [_pool().submit(do, part) for part in parts[1:]]
        try:
            do(parts[0])
        finally:
            failures = [task.exception() for task in tasks]
        for failure in failures:
            if failure is not None:
                raise failure

    def will_need(self, positions: Sequence[int]) -> None:
        """Asks the system to read frames into its cache ahead of time; it may not, and nothing is said of errors."""
        located = self.index.locate(positions)
        for where in sorted(located, key=lambda where: (where.file, where.span)):
            start, length = (0, 0) if where.deflated else where.span[:2]
            will_need(self.index.file_path(where.file), start, length)

    def read_stored(self, position: int) -> npt.NDArray[Any]:
        """Stored values of one frame, (rows, columns) or (rows, columns, samples); RGB where the file has colour.

        Raises:
            DicomTorchError: It cannot be read or decoded.
        """
        with _FileGroup(self.index) as files:
            try:
                # The scratch memory of this thread is read into again: hand out a copy.
                (where,) = self.index.locate([position])
                pixel = self.index.image_pixel(position)
                return np.array(self._stored(where, files, pixel, self._backend(pixel)))
            except DicomTorchError as error:
                raise self._with_context(error, position) from error

    def read_encoded(self, position: int) -> bytes:
        """The code stream of one frame as the file has it: fragments joined, nothing decoded.

        Raises:
            DicomTorchError: It cannot be read.
        """
        with _FileGroup(self.index) as files:
            try:
                (where,) = self.index.locate([position])
                return bytes(self._encoded(where, files, self.index.image_pixel(position)))
            except DicomTorchError as error:
                raise self._with_context(error, position) from error

    def _read(
        self,
        where: FrameLocation,
        files: _FileGroup,
        out: Tensor | None,
        sample: Sample | None = None,
        stored: npt.NDArray[Any] | None = None,
    ) -> Frame | DicomTorchError:
        try:
            recipe = self._recipe(where)
            values = recipe.values
            if out is None:
                # One tensor each, in a worker too: there a segment is for a whole batch.
                fresh = torch.empty if get_worker_info() else new_batch
                out = fresh(recipe.plan.shape, dtype=self.dtype)
            # First, because measuring other frames goes through the same memory.
            shared: Sequence[SharedRange | None] | None = None
            if recipe.shares:
                shared = self._shared_ranges(where, recipe.shares)
            plan = recipe.plan
            if sample is not None:
                plan, shared = sample.plan(plan), sample.ranges(plan, shared)
            if stored is None:
                stored = self._stored(where, files, values.pixel, recipe.backend)
            image, voi = pixels.apply(stored, values, self.options, out, shared=shared, plan=plan)
        except DicomTorchError as error:
            return self._with_context(error, where.position)
        return Frame(image, voi)

    def _encoded(
        self, where: FrameLocation, files: _FileGroup, pixel: ImagePixel
    ) -> memoryview | bytes:
        offset, length, fragments, bit_offset, _ = where.span
        data = files.of(where).read(offset, length, self._local.scratch)
        if fragments:
            return join(data, FrameSpan(*where.span))
        return align(data, bit_offset, pixel) if bit_offset else data

    def _stored(
        self, where: FrameLocation, files: _FileGroup, pixel: ImagePixel, backend: Backend
    ) -> npt.NDArray[Any]:
        """Stored values, in memory of this thread that the next frame overwrites, or in memory of their own."""
        if self.cache is None or pixel.transfer_syntax_uid not in EXPENSIVE:
            return self._decoded(where, files, pixel, backend)
        key = self._cache_key(where, files, pixel, backend)
        stored = self.cache.read(key, pixel, self._local.scratch, self._local.decoded(pixel))
        if stored is None:
            stored = self._decoded(where, files, pixel, backend)
            self.cache.write(key, stored)
        return stored

    def _decoded(
        self, where: FrameLocation, files: _FileGroup, pixel: ImagePixel, backend: Backend
    ) -> npt.NDArray[Any]:
        data = self._encoded(where, files, pixel)
        decoding.where = lambda: printable(files.index.path(where.position))
        try:
            return backend.decode(data, pixel, self._local.decoded(pixel))
        finally:
            decoding.where = None

    @staticmethod
    def _cache_key(
        where: FrameLocation, files: _FileGroup, pixel: ImagePixel, backend: Backend
    ) -> bytes:
        # First, because a file that changed since it was indexed is an error, whatever is kept of it.
        file, index = files.of(where), files.index
        at = np.array([where.position])
        (uid,) = index.gather("SOPInstanceUID", at)
        paths: Any = index.files["path"]
        return frame_key(
            uid=uid,
            path=paths[where.file] if uid else file.path,
            frame=index.gather("frame", at)[0],
            size=where.size,
            mtime_ns=where.mtime_ns,
            span=where.span,
            pixel=pixel,
            backend=backend,
        )

    def _backend(self, pixel: ImagePixel) -> Backend:
        backend = self._backends.get(pixel)
        if backend is None:
            raise UnsupportedError(str(self.unsupported[pixel]))
        return backend

    def _recipe(self, where: FrameLocation) -> _Recipe:
        known = self._recipes.get(where.values)
        if known is None:
            if len(self._recipes) >= _MOST_RECIPES:
                self._recipes.clear()
            values = self.index.frame_values(where.position)
            plan = make_plan(values, self.options)
            known = _Recipe(values, self._backend(values.pixel), plan, self._shares(plan))
            self._recipes[where.values] = known
            for notice in set(plan.notices) - self._noticed:
                self._noticed.add(notice)
                path = printable(self.index.path(where.position))
                _logger.warning("%s (first seen in %s; said once)", notice, path)
        return known

    def _shares(self, plan: Plan) -> tuple[str, ...]:
        if self.options.values != "display" or not has_voi(plan.values):
            return ()
        shares = []
        for window, mapping in zip(self.options.windows, plan.channels, strict=True):
            grid = is_dose(plan.values) and mapping.kind == "range"
            shares.append("series" if window == "series" else "file" if grid else "")
        return tuple(shares) if any(shares) else ()

    def _shared_ranges(
        self, where: FrameLocation, shares: tuple[str, ...]
    ) -> list[SharedRange | None]:
        """The mapping of each channel that this frame has in common with its dose grid or its series."""
        found: dict[str, SharedRange | None] = {"": None}
        if "file" in shares:
            found["file"] = self._shared.get(
                ("file", where.file), lambda: self._dose_range(where.position)
            )
        if "series" in shares:
            series = self.index.gather("SeriesInstanceUID", np.array([where.position]))[0]
            found["series"] = self._shared.get(
                ("series", series), lambda: self._series_range(series)
            )
        return [found[what] for what in shares]

    def _dose_range(self, position: int) -> SharedRange:
        ranges = self._ranges(self.index.whole_file(position))
        return SharedRange(0.0, float(ranges[:, 1].max()), "dose")

    def _series_range(self, series: str) -> SharedRange:
        frames = self.index.filter(SeriesInstanceUID=series)
        numbers = np.asarray(frames.column("frame_values"))
        known, first = np.unique(numbers, return_index=True)
        values = [frames.frame_values(int(k)) for k in first]
        common = common_window(values, "series")
        if common is not None:
            return common
        counted = [number for number, of in zip(known, values, strict=True) if has_voi(of)]
        ranges = self._ranges(frames.select(np.flatnonzero(np.isin(numbers, counted))))
        return SharedRange(float(ranges[:, 0].min()), float(ranges[:, 1].max()), "series")

    def _ranges(self, index: FrameIndex) -> npt.NDArray[np.float64]:
        """Lowest and highest modality value of every frame of `index`, (len, 2)."""
        ranges = []
        with _FileGroup(index) as files:
            for where in index.locate(range(len(index))):
                values = index.frame_values(where.position)
                try:
                    stored = self._stored(where, files, values.pixel, self._backend(values.pixel))
                    ranges.append(statistics.frame_range(stored, values))
                except DicomTorchError as error:
                    path = printable(index.path(where.position))
                    frame = index.gather("frame", np.array([where.position]))[0]
                    raise type(error)(
                        f"it is shown alike with frame {frame} of {path}, which cannot be measured: {error}"
                    ) from error
        return np.array(ranges)

    def _with_context(self, error: DicomTorchError, position: int) -> DicomTorchError:
        """The same error, its message naming file and frame."""
        frame = self.index.gather("frame", np.array([position]))[0]
        path = printable(self.index.path(position))
        named = type(error)(f"{path}, frame {frame} (index {position}): {error}")
        named.__cause__ = error
        return named

    def __getstate__(self) -> dict[str, Any]:
        own = ("_local", "_shared", "_recipes", "_noticed")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()


class _Local(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.scratch = Scratch()
        self._decoded: npt.NDArray[Any] = np.empty((0, 0))

    def decoded(self, pixel: ImagePixel) -> npt.NDArray[Any] | None:
        """An array that a decoder may write to; fresh pages for every frame would cost as much as a fast decoder."""
        if not pixel.is_encapsulated:
            return None
        if self._decoded.shape != pixel.shape or self._decoded.dtype != pixel.stored_dtype:
            self._decoded = np.empty(pixel.shape, pixel.stored_dtype)
        return self._decoded


class _FileGroup:
    """The file that was read last stays open: positions come ordered by file."""

    def __init__(self, index: FrameIndex) -> None:
        self.index = index
        self._number = -1
        self._file: StoredFile | None = None

    def of(self, where: FrameLocation) -> StoredFile:
        if self._file is None or where.file != self._number:
            self.close()
            path = self.index.file_path(where.file)
            self._file = StoredFile(path, where.size, where.mtime_ns, deflated=where.deflated)
            self._number = where.file
        return self._file

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __enter__(self) -> _FileGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _SharedRanges:
    """Mappings of series and dose grids, computed once, the oldest forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, SharedRange] = OrderedDict()

    def get(self, key: Any, make: Callable[[], SharedRange]) -> SharedRange:
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            found = make()
            with self._lock:
                self._kept[key] = found
                if len(self._kept) > _MOST_SHARED:
                    self._kept.popitem(last=False)
        return found
