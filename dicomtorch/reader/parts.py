"""Reads parts of frames, each as `FrameReader` gives it there: of an uncompressed frame only the rows of the part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy.typing as npt
from torch import Tensor

from dicomtorch.errors import DicomTorchError
from dicomtorch.index.location import FrameLocation
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels.voi import SharedRange
from dicomtorch.reader.open_files import OpenFiles
from dicomtorch.reader.reader import Frame, FrameReader
from dicomtorch.reader.recipes import Recipe
from dicomtorch.reader.rectangles import encoded_rectangle, stored_rectangle
from dicomtorch.reader.rows import reads_rows
from dicomtorch.storage.base import ByteRange


class Part(NamedTuple):
    """A rectangle of a frame, inside of it.

    Attributes:
        position: Of the frame, in the index.
        top: First row.
        left: First column.
        rows: How many.
        columns: How many.
    """

    position: int
    top: int
    left: int
    rows: int
    columns: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns in the frame."""
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.columns)


class _Job(NamedTuple):
    """What is read at once: one part of an uncompressed frame, or all parts of another."""

    where: FrameLocation
    recipe: Recipe
    numbers: list[int]


def read_parts(
    reader: FrameReader,
    parts: Sequence[Part],
    out: Sequence[Tensor],
    *,
    num_threads: int | None = None,
) -> list[Frame | DicomTorchError]:
    """Reads parts of frames; each frame that has to be decoded is decoded once, however many parts it has.

    A part has the values that the whole frame has there. Where those depend on all pixels (a display range that the
    pixels decide, statistics), the whole frame is read.

    Args:
        reader: Of the frames, without `size`.
        parts: Rectangles.
        out: Part k is read into `out[k]`, (C, rows, columns).
        num_threads: At most so many at once; `None`: as many as this process may use.

    Returns:
        Each, or its error, in the order asked for.
    """
    results: list[Any] = [None] * len(parts)
    jobs = _jobs(reader, parts, results)

    def read(k: int, files: OpenFiles) -> None:
        job = jobs[k]
        try:
            _read(reader, job, parts, out, files, results)
        except DicomTorchError as error:
            named = reader.fetcher.named(error, job.where.position)
            for number in job.numbers:
                results[number] = named

    reader.fetcher.each(
        [job.where for job in jobs], read, num_threads, lambda: _ranges(reader, jobs, parts)
    )
    return cast("list[Frame | DicomTorchError]", results)


def _jobs(reader: FrameReader, parts: Sequence[Part], results: list[Any]) -> list[_Job]:
    of_frame: dict[int, list[int]] = {}
    for k in sorted(range(len(parts)), key=lambda k: parts[k].top):
        of_frame.setdefault(parts[k].position, []).append(k)
    jobs = []
    for where in reader.index.locate(list(of_frame)):
        numbers = of_frame[where.position]
        try:
            recipe = reader.recipe(where)
        except DicomTorchError as error:
            named = reader.fetcher.named(error, where.position)
            for k in numbers:
                results[k] = named
            continue
        alone = is_read_by_rows(where, recipe)
        jobs += [
            _Job(where, recipe, some) for some in ([[k] for k in numbers] if alone else [numbers])
        ]
    return jobs


def is_read_by_rows(where: FrameLocation, recipe: Recipe) -> bool:
    """Whether of a frame no more is read than the rows of its parts."""
    return reads_rows(where, recipe.values.pixel) and _is_pixelwise(recipe)


def _is_pixelwise(recipe: Recipe) -> bool:
    """Whether the value of a pixel depends on no other pixel of the frame."""
    plan, options = recipe.plan, recipe.plan.options
    ranges = [k for k, mapping in enumerate(plan.channels) if mapping.kind == "range"]
    shares = recipe.shares or ("",) * len(plan.channels)
    background = plan.background
    return (
        not isinstance(options.normalize, str)
        and all(shares[k] for k in ranges)
        and (background is None or background == background)  # nan: the lowest of the frame
    )


def _read(
    reader: FrameReader,
    job: _Job,
    parts: Sequence[Part],
    out: Sequence[Tensor],
    files: OpenFiles,
    results: list[Any],
) -> None:
    where, recipe, numbers = job
    if not _is_pixelwise(recipe):
        (whole,) = reader.read_many([where.position], num_threads=1)
        if isinstance(whole, DicomTorchError):
            raise whole
        for k in numbers:
            out[k].copy_(whole.image[:, *parts[k].slices])
            results[k] = Frame(out[k], whole.voi)
        return
    if reads_rows(where, recipe.values.pixel):
        (k,) = numbers
        results[k] = _read_rows(reader, job, parts[k], out[k], files)
        return
    # First, because measuring other frames goes through the same memory.
    shared = reader.ranges.of(where, recipe.shares) if recipe.shares else None
    stored = reader.fetcher.stored(where, files, recipe.values.pixel, recipe.backend)
    for k in numbers:
        results[k] = _converted(reader, recipe, stored[parts[k].slices], out[k], shared)


def _read_rows(reader: FrameReader, job: _Job, part: Part, out: Tensor, files: OpenFiles) -> Frame:
    """A part of which no more than its rows is read."""
    where, recipe, _ = job
    fetcher, pixel = reader.fetcher, recipe.values.pixel
    rows, columns = (range(each.start, each.stop) for each in part.slices)
    kind = reader.plain.kind(where.value_group, lambda: recipe)
    if kind.template is not None:
        encoded = encoded_rectangle(fetcher, where, files, pixel, rows, columns)
        if reader.plain.convert_part(kind, encoded, part.rows, part.columns, out):
            return Frame(out, kind.voi)
    # First, because measuring other frames goes through the same memory.
    shared = reader.ranges.of(where, recipe.shares) if recipe.shares else None
    stored = stored_rectangle(fetcher, where, files, pixel, recipe.backend, rows, columns)
    return _converted(reader, recipe, stored, out, shared)


def _converted(
    reader: FrameReader,
    recipe: Recipe,
    stored: npt.NDArray[Any],
    out: Tensor,
    shared: Sequence[SharedRange | None] | None,
) -> Frame:
    rows, columns = stored.shape[:2]
    pixel = replace(recipe.values.pixel, rows=rows, columns=columns)
    values = replace(recipe.values, pixel=pixel)
    return Frame(
        *pixels.apply(stored, values, reader.options, out, shared=shared, plan=recipe.plan)
    )


def will_need_parts(reader: FrameReader, parts: Sequence[Part]) -> None:
    """Asks the storage to have parts of frames at hand soon; nothing is said of errors."""
    if reader.fetcher.giver is not None:
        reader.fetcher.will_need(sorted({part.position for part in parts}))
        return
    jobs = _jobs(reader, parts, [None] * len(parts))
    reader.fetcher.storage.will_need(_ranges(reader, jobs, parts))


def _ranges(reader: FrameReader, jobs: Sequence[_Job], parts: Sequence[Part]) -> list[ByteRange]:
    """What is read for parts of frames, each once."""
    fetcher = reader.fetcher
    ranges = []
    for where, recipe, numbers in jobs:
        rows = None
        if is_read_by_rows(where, recipe):
            _, top, _, count, _ = parts[numbers[0]]
            rows = range(top, top + count)
        elif where.deflated or fetcher.is_decoded(where):
            continue
        ranges.append((where, fetcher.byte_range(where, recipe.values.pixel, rows)))
    return fetcher.not_at_hand(ranges)
