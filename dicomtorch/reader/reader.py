"""`FrameReader`: positions of an index -> tensors. The way of every frame, written once.

row -> bytes of its span -> code stream -> stored values (all `fetch`) -> values asked for. What to do about an error is
the datasets' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dicomtorch.backends.base import Backend
from dicomtorch.errors import DicomTorchError, UnsupportedError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.model.frame import AppliedVOI, Reduced
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels import dtypes, plan
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels.batch import Conversion
from dicomtorch.pixels.memory import new_batch
from dicomtorch.pixels.sample import Sample
from dicomtorch.pixels.voi import SharedRange
from dicomtorch.reader.cache import FrameCache
from dicomtorch.reader.choice import ChosenBackends, Isolation
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.reader.kernels import PlainKind, PlainReader
from dicomtorch.reader.open_files import OpenFiles
from dicomtorch.reader.plain_remote import read_plain_remote
from dicomtorch.reader.ranges import SharedRanges
from dicomtorch.reader.recipes import Recipe, Recipes
from dicomtorch.reader.threads import usable_threads

_MEASURED = "decode='reduced': samples with a range or background that all their pixels decide are decoded whole"


@dataclass(slots=True)
class Frame:
    """One frame that was read.

    Attributes:
        image: (C, H, W).
        voi: How it was made display values.
    """

    image: Tensor
    voi: AppliedVOI


def fresh(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for what is no batch: in a worker not of the segments that batches are sent in."""
    return torch.empty(shape, dtype=dtype) if get_worker_info() else new_batch(shape, dtype)


class FrameReader:
    """Reads frames of an index as tensors.

    Picklable, and safe to use from several threads and in forked processes; holds no open file.

    Args:
        index: What to read from.
        backend: A name, "auto", or a `Backend`; chosen here, once for each distinct `ImagePixel`, and never changed.
        options: What is asked of the pixels.
        cache: Where decoded frames of the expensive syntaxes are kept.
        isolation: "process": code streams are decoded in child processes; see `ChosenBackends`.

    Attributes:
        fetcher: Reads and decodes.
        options: What is asked of the pixels.
        dtype: Of the images.
        ranges: What frames have in common with others of their file or series.
    """

    def __init__(
        self,
        index: FrameIndex,
        backend: str | Backend = "auto",
        options: PixelOptions | None = None,
        cache: FrameCache | None = None,
        isolation: Isolation = None,
    ) -> None:
        pixels = [pixel for pixel, _ in index.image_pixels()]
        backends = ChosenBackends(backend, pixels, isolation)
        self._set(FrameFetcher(index, backends, cache), options or PixelOptions())

    def _set(self, fetcher: FrameFetcher, options: PixelOptions) -> None:
        self.fetcher = fetcher
        self.options = options
        self.dtype = dtypes.output_dtype(fetcher.backends.chosen, options)
        self.ranges = SharedRanges(fetcher, options)
        self._recipes = Recipes(fetcher, options, self.ranges)
        self.plain = PlainReader(fetcher.index, fetcher.storage, self.dtype)

    @property
    def index(self) -> FrameIndex:
        """What is read from."""
        return self.fetcher.index

    @property
    def unsupported(self) -> dict[ImagePixel, UnsupportedError]:
        """Each `ImagePixel` that the backend does not decode, with the error that says so."""
        return self.fetcher.backends.unsupported

    def restricted(self, rows: npt.NDArray[np.int64]) -> FrameReader:
        """A reader of some positions of this one's index, (n,) int64, with the same backends and options."""
        return self._like(self.fetcher.restricted(rows), self.options)

    def with_options(self, options: PixelOptions) -> FrameReader:
        """A reader of the same frames with the same backends, of which something else is asked."""
        return self._like(self.fetcher, options)

    @staticmethod
    def _like(fetcher: FrameFetcher, options: PixelOptions) -> FrameReader:
        reader = FrameReader.__new__(FrameReader)
        reader._set(fetcher, options)
        return reader

    def conversions(self, positions: Sequence[int]) -> list[Conversion]:
        """What turns the stored values of frames into those asked for.

        Raises:
            DicomTorchError: They cannot be made of a frame; the message names it.
        """
        found = []
        for where in self.index.locate(positions):
            try:
                recipe = self.recipe(where)
                shared = self.ranges.of(where, recipe.shares) if recipe.shares else None
            except DicomTorchError as error:
                raise self.fetcher.named(error, where.position) from error
            found.append(Conversion(recipe.plan, shared))
        return found

    def decodable(self) -> npt.NDArray[np.bool_]:
        """(frames,) bool: whether the backend of a frame can decode it."""
        numbers = np.asarray(self.index.column("image_pixel"))
        known, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
        able = np.zeros(len(known), np.bool_)
        for k, position in enumerate(first):
            able[k] = self.index.image_pixel(int(position)) in self.fetcher.backends.chosen
        return able[inverse]

    def shape(self, position: int) -> tuple[int, int, int]:
        """(C, H, W) of a frame, without reading it.

        Raises:
            PixelValueError: The options have no meaning for this frame.
        """
        try:
            return plan.output_shape(self.index.frame_values(position), self.options)
        except DicomTorchError as error:
            raise self.fetcher.named(error, position) from error

    def factors(self, positions: Sequence[int], together: Sequence[int] = ()) -> list[int]:
        """Pixels of the file, in each direction, for one that is decoded: 1 but with `decode="reduced"`.

        Args:
            positions: In the index.
            together: Frames of the sample that they are of, which `read_together` may have to decode whole.

        Raises:
            DicomTorchError: What is asked for cannot be made of a frame; the message names it.
        """
        if self.options.decode == "exact" or (together and self._is_measured(together)):
            return [1] * len(positions)
        found = []
        for where in self.index.locate(positions):
            try:
                found.append(1 << self.recipe(where).levels)
            except DicomTorchError as error:
                raise self.fetcher.named(error, where.position) from error
        return found

    def shapes(self, positions: Sequence[int]) -> set[tuple[int, int, int]]:
        """The (C, H, W) that occur among several frames."""
        at = np.asarray(positions, np.int64)
        kinds = np.asarray(self.index.values("frame_values", at)).tolist()
        alike = dict(zip(kinds, positions, strict=True))
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
        if out is None and len(positions) == 1:
            return [self._read_single(positions[0], num_threads)]
        results = self._read_plain(positions, out, num_threads)
        left = [k for k, result in enumerate(results) if result is None]
        if not left:
            return cast("list[Frame | DicomTorchError]", results)
        located = self.index.locate([positions[k] for k in left])

        def read(k: int, files: OpenFiles) -> None:
            target = None if out is None else out[left[k]]
            results[left[k]] = self._read(located[k], files, target)

        self.fetcher.each(located, read, num_threads)
        return cast("list[Frame | DicomTorchError]", results)

    def _read_single(self, position: int, num_threads: int | None) -> Frame | DicomTorchError:
        """One frame, in a tensor of its own."""
        located = self.index.locate([position])
        out: Tensor | None = None
        if self.plain.reads_files:
            (where,) = located
            kind = self.plain.kind(where.value_group, lambda: self.recipe(where))
            if kind.template is not None:
                out = fresh(kind.shape, self.dtype)
                if self.plain.read_one(where, kind.template, out):
                    return Frame(out, kind.voi)
        results: list[Frame | DicomTorchError] = []
        self.fetcher.each(
            located,
            lambda k, files: results.append(self._read(located[k], files, out)),
            num_threads,
        )
        return results[0]

    def read_together(
        self,
        positions: Sequence[int],
        out: Sequence[Tensor] | Tensor | None = None,
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
        recipes = self._recipes_of(located)
        sample = Sample([recipe.values for recipe in recipes.values()], self.options)
        if not sample.is_measured and isinstance(out, Tensor):
            results = self._read_plain(positions, out, num_threads, sample)
        if sample.is_measured:
            if any(recipe.levels for recipe in recipes.values()):
                self._recipes.say(_MEASURED, located[0].position)
            stored = self._all_stored(located, num_threads)
            sample.measure(stored, [recipes[where.value_group].plan for where in located])

        grids = {w.file: w for w in located if "file" in recipes[w.value_group].shares}
        together = list(grids.values())

        left = [k for k, result in enumerate(results) if result is None]

        def read(n: int, files: OpenFiles) -> None:
            k = left[n]
            target = None if out is None else out[k]
            kept = sample.stored[k] if sample.is_measured else None
            results[k] = self._read(located[k], files, target, sample, kept, together)

        self.fetcher.each([located[k] for k in left], read, num_threads)
        for result in results:
            if isinstance(result, DicomTorchError):
                raise result
        return results

    def _recipes_of(self, located: Sequence[FrameLocation]) -> dict[int, Recipe]:
        """How the frames of one sample become tensors, by what they share."""
        recipes: dict[int, Recipe] = {}
        for where in located:
            try:
                if where.value_group not in recipes:
                    recipes[where.value_group] = self.recipe(where)
            except DicomTorchError as error:
                raise self.fetcher.named(error, where.position) from error
        return recipes

    def _is_measured(self, positions: Sequence[int]) -> bool:
        """Whether the stored values of all frames of a sample are needed before the first can be converted."""
        recipes = self._recipes_of(self.index.locate(positions))
        return Sample([recipe.values for recipe in recipes.values()], self.options).is_measured

    def _read_plain(
        self,
        positions: Sequence[int],
        out: Tensor | None,
        num_threads: int | None,
        sample: Sample | None = None,
    ) -> list[Frame | DicomTorchError | None]:
        """The frames that compiled kernels read into `out`; `None` for those that go the way of all frames."""
        results: list[Frame | DicomTorchError | None] = [None] * len(positions)
        if out is None or not self.plain.is_used or not out.is_contiguous():
            return results
        at = np.asarray(positions, np.int64)
        groups = np.asarray(self.index.values("frame_values", at)).tolist()
        alike = dict(zip(reversed(groups), reversed(positions), strict=True))
        kinds = {group: self._plain_kind(group, at, sample) for group, at in alike.items()}
        found = [kinds[group] for group in groups]
        shape = out.shape[1:]
        templates = [kind.template if kind.shape == shape else None for kind in found]
        threads = num_threads or usable_threads()
        done: Sequence[bool | DicomTorchError]
        if self.plain.reads_files:
            done = self.plain.read(at, templates, out, threads).tolist()
        else:
            done = read_plain_remote(self.plain, self.fetcher, at, templates, out, threads)
        for k, (image, is_there) in enumerate(zip(out.unbind(), done, strict=True)):
            if is_there:
                results[k] = Frame(image, found[k].voi) if is_there is True else is_there
        return results

    def _plain_kind(self, group: int, position: int, sample: Sample | None = None) -> PlainKind:
        """How the kernels read the frames that share their values with that at `position`."""

        def recipe() -> Recipe:
            (where,) = self.index.locate([position])
            return self.recipe(where)

        return self.plain.kind(group, recipe, sample)

    def _all_stored(
        self, located: Sequence[FrameLocation], num_threads: int | None
    ) -> list[npt.NDArray[Any]]:
        """Stored values of several frames, in memory of their own."""
        results: list[Any] = [None] * len(located)

        def read(k: int, files: OpenFiles) -> None:
            try:
                recipe = self.recipe(located[k])
                stored = self.fetcher.stored(located[k], files, recipe.values.pixel, recipe.backend)
                results[k] = np.array(stored)
            except DicomTorchError as error:
                results[k] = self.fetcher.named(error, located[k].position)

        self.fetcher.each(located, read, num_threads)
        for result in results:
            if isinstance(result, DicomTorchError):
                raise result
        return results

    def read_stored(self, position: int) -> npt.NDArray[Any]:
        """Stored values of a frame: (rows, columns) or (rows, columns, samples), dtype as in the file; colour is RGB.

        Source: PS3.5 8.1.1.

        Raises:
            DicomTorchError: It cannot be read or decoded.
        """
        with self.fetcher.files() as files:
            try:
                # The scratch memory of this thread is read into again: hand out a copy.
                (where,) = self.index.locate([position])
                pixel = self.index.image_pixel(position)
                backend = self.fetcher.backends.of(pixel)
                return np.array(self.fetcher.stored(where, files, pixel, backend))
            except DicomTorchError as error:
                raise self.fetcher.named(error, position) from error

    def read_encoded(self, position: int) -> bytes:
        """The code stream of one frame as the file has it: fragments joined, nothing decoded.

        Source: PS3.5 A.4.

        Raises:
            DicomTorchError: It cannot be read.
        """
        return self.fetcher.encoded(position)

    @property
    def is_remote(self) -> bool:
        """Whether frames are read over a network."""
        return self.fetcher.is_remote

    def will_need(self, positions: Sequence[int], *, is_known: bool = False) -> None:
        """Says which frames are read soon; see `FrameFetcher.will_need`.

        Args:
            positions: Each as often as it is read.
            is_known: These reads may have been told before.
        """
        self.fetcher.will_need(positions, is_known=is_known)

    def _read(
        self,
        where: FrameLocation,
        files: OpenFiles,
        out: Tensor | None,
        sample: Sample | None = None,
        stored: npt.NDArray[Any] | None = None,
        together: Sequence[FrameLocation] = (),
    ) -> Frame | DicomTorchError:
        try:
            recipe = self.recipe(where)
            values = recipe.values
            if out is None:
                out = fresh(recipe.plan.shape, self.dtype)
            # First, because measuring other frames goes through the same memory.
            shared: Sequence[SharedRange | None] | None = None
            if recipe.shares:
                shared = self.ranges.of(where, recipe.shares, together)
            plan = recipe.plan
            if sample is not None:
                plan, shared = sample.plan(plan), sample.ranges(plan, shared)
            decoded: npt.NDArray[Any] | Reduced | None = stored
            if stored is None and recipe.levels:
                decoded = self.fetcher.reduced(
                    where, files, values.pixel, recipe.backend, recipe.levels
                )
            elif decoded is None:
                decoded = self.fetcher.stored(where, files, values.pixel, recipe.backend)
            kind = self.plain.kind(where.value_group, lambda: recipe, sample)
            if self.plain.convert(kind, decoded, out):
                return Frame(out, kind.voi)
            image, voi = pixels.apply(decoded, values, self.options, out, shared=shared, plan=plan)
        except DicomTorchError as error:
            return self.fetcher.named(error, where.position)
        return Frame(image, voi)

    def recipe(self, where: FrameLocation) -> Recipe:
        """How a frame becomes a tensor.

        Raises:
            DicomTorchError: It cannot.
        """
        return self._recipes.of(where)

    def __getstate__(self) -> tuple[FrameFetcher, PixelOptions]:
        return self.fetcher, self.options

    def __setstate__(self, state: tuple[FrameFetcher, PixelOptions]) -> None:
        self._set(*state)  # all else belongs to one process
