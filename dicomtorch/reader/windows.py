"""Reads parts of frames: the slices of a sheet, which lie beside each other in one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dicomtorch.errors import DicomTorchError
from dicomtorch.index.location import FrameLocation
from dicomtorch.model.frame import FrameValues
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels import plan
from dicomtorch.pixels.plan import make_plan
from dicomtorch.pixels.sample import Sample
from dicomtorch.reader.open_files import OpenFiles
from dicomtorch.reader.reader import Frame, FrameReader
from dicomtorch.reader.recipes import Recipe
from dicomtorch.reader.rectangles import stored_rectangle

Window = Sequence[int]
"""First row, first column, rows and columns of a part."""


def window_shape(
    reader: FrameReader, position: int, rows: int, columns: int
) -> tuple[int, int, int]:
    """(C, H, W) of a part of a frame, without reading it.

    Raises:
        PixelValueError: The options have no meaning for this frame.
    """
    values = reader.index.frame_values(position)
    try:
        return plan.output_shape(_part(values, rows, columns), reader.options)
    except DicomTorchError as error:
        raise reader.fetcher.named(error, position) from error


def read_windows(
    reader: FrameReader,
    positions: Sequence[int],
    windows: Sequence[Window],
    out: Sequence[Tensor] | Tensor,
    *,
    num_threads: int | None = None,
) -> list[Frame]:
    """Reads parts of frames as one sample, like `FrameReader.read_together`.

    Each frame is read once, however many parts it has, and of native ones only the rows that some part has.

    Args:
        reader: Of the frames.
        positions: In the index, one for each part.
        windows: Of the parts.
        out: Part k is read into `out[k]`, (C, H, W).
        num_threads: At most so many at once; `None`: as many as this process may use.

    Raises:
        DicomTorchError: A frame cannot be read.
    """
    located = reader.index.locate(positions)
    recipes: dict[tuple[int, int, int], Recipe] = {}
    of_part = []
    for where, window in zip(located, windows, strict=True):
        key = where.value_group, window[2], window[3]
        if key not in recipes:
            recipes[key] = _recipe_of(reader, where, window)
        of_part.append(recipes[key])
    stored = _stored(reader, located, windows, num_threads)
    sample = Sample([recipe.values for recipe in recipes.values()], reader.options)
    if sample.is_measured:
        sample.measure(stored, [recipe.plan for recipe in of_part])
    frames = []
    for k, (where, recipe) in enumerate(zip(located, of_part, strict=True)):
        own = reader.ranges.of(where, recipe.shares) if recipe.shares else None
        image, voi = pixels.apply(
            stored[k],
            recipe.values,
            reader.options,
            out[k],
            shared=sample.ranges(recipe.plan, own),
            plan=sample.plan(recipe.plan),
        )
        frames.append(Frame(image, voi))
    return frames


def _recipe_of(reader: FrameReader, where: FrameLocation, window: Window) -> Recipe:
    """How a part of a frame becomes a tensor."""
    try:
        recipe = reader.recipe(where)
        values = _part(recipe.values, window[2], window[3])
        return recipe._replace(values=values, plan=make_plan(values, reader.options))
    except DicomTorchError as error:
        raise reader.fetcher.named(error, where.position) from error


def _stored(
    reader: FrameReader,
    located: Sequence[FrameLocation],
    windows: Sequence[Window],
    num_threads: int | None,
) -> list[npt.NDArray[Any]]:
    """Stored values of the parts, in memory of their own."""
    of_frame: dict[int, list[int]] = {}
    for k, where in enumerate(located):
        of_frame.setdefault(where.position, []).append(k)
    several = list(of_frame.values())
    results: list[Any] = [None] * len(located)
    errors: dict[int, DicomTorchError] = {}

    def read(number: int, files: OpenFiles) -> None:
        chosen = several[number]
        where = located[chosen[0]]
        rows, columns = (
            range(
                min(windows[k][axis] for k in chosen),
                max(windows[k][axis] + windows[k][axis + 2] for k in chosen),
            )
            for axis in (0, 1)
        )
        try:
            recipe = reader.recipe(where)
            pixel, backend = recipe.values.pixel, recipe.backend
            part = stored_rectangle(reader.fetcher, where, files, pixel, backend, rows, columns)
        except DicomTorchError as error:
            errors[number] = reader.fetcher.named(error, where.position)
            return
        for k in chosen:
            top, left = windows[k][0] - rows.start, windows[k][1] - columns.start
            height, width = windows[k][2:]
            results[k] = np.array(part[top : top + height, left : left + width])

    reader.fetcher.each([located[chosen[0]] for chosen in several], read, num_threads)
    if errors:
        raise errors[min(errors)]
    return results


def _part(values: FrameValues, rows: int, columns: int) -> FrameValues:
    """What holds for a part of a frame."""
    return replace(values, pixel=replace(values.pixel, rows=rows, columns=columns))
