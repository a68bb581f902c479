"""Which image a shape lies on: by instance or file and frame, by tile of a slide, or by its place in space."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.placing import Images, Planes, place
from dicomtorch.masks.shapes import Floats, Ints, Shapes
from dicomtorch.series.geometry import slice_normal

ANY_FRAME = -1
"""For a frame: the whole instance, of a slide in coordinates of the total pixel matrix."""


UNSTATED = -2
"""For a frame: nothing is said, which is enough for an instance of one frame, and for a slide."""


class On(NamedTuple):
    """Shapes on images.

    Attributes:
        row: Position of the image.
        shape: Which shape.
        left: What to subtract from x for pixels of the image.
        top: From y.
    """

    row: Ints
    shape: Ints
    left: Ints
    top: Ints

    @classmethod
    def joined(cls, parts: Sequence[On]) -> On:
        """Several as one."""
        empty = cls(*(np.empty(0, np.int64) for _ in range(4)))
        return cls(*(np.concatenate(values) for values in zip(empty, *parts, strict=True)))


def instances(images: FrameIndex, uids: Sequence[str]) -> tuple[Ints, Ints]:
    """(code of the instance of every frame, code of each UID, -1 for none)."""
    column = images.column("SOPInstanceUID")
    return np.asarray(column.codes, np.int64), np.asarray(column.codes_of(list(uids)), np.int64)


def files(images: FrameIndex, names: Sequence[str]) -> tuple[Ints, Ints]:
    """(file of every frame, the file that each name means, -1 for none).

    A name is a path below the root, what a file is called, or that without its end.

    Raises:
        OptionError: Several files are called so.
    """
    wanted = set(names)
    found: dict[str, set[int]] = {}
    of_rows = np.asarray(images.column("file"), np.int64)
    paths: Any = images.files["path"]
    for file in np.unique(of_rows).tolist():
        path = PurePosixPath(os.fsdecode(paths[file]).replace(os.sep, "/"))
        for name in {str(path), path.name, path.stem} & wanted:
            found.setdefault(name, set()).add(file)
    several = next((name for name, those in found.items() if len(those) > 1), None)
    if several is not None:
        raise OptionError(
            f"{len(found[several])} files are called as one row of the table names them; use paths below the root, or "
            f"SOPInstanceUID"
        )
    return of_rows, np.array([next(iter(found.get(name, {-1}))) for name in names], np.int64)


def on_frames(images: Images, keys: tuple[Ints, Ints], frames: Ints, shapes: Shapes) -> On:
    """Shapes in pixels of the images that they name.

    Args:
        images: All of them.
        keys: (of every image, of every shape): what they are found by.
        frames: (n,), counted from 0, `ANY_FRAME` or `UNSTATED`.
        shapes: (n,).

    Raises:
        OptionError: An image has several frames, and nothing says which is meant.
    """
    of_rows, wanted = keys
    order = np.argsort(of_rows, kind="stable")
    low, high = (np.searchsorted(of_rows[order], wanted, side) for side in ("left", "right"))
    is_slide = np.zeros(len(wanted), np.bool_)
    there = np.flatnonzero((wanted >= 0) & (high > low))
    is_slide[there] = (images.tile[order[low[there]]] >= 0).all(1) & (frames[there] < 0)
    plain = there[~is_slide[there]]
    count = (high - low)[plain]
    unclear = int(((frames[plain] == UNSTATED) & (count > 1)).sum())
    if unclear:
        raise OptionError(
            f"{unclear} {'row of the table names' if unclear == 1 else 'rows of the table name'} images of several "
            f"frames and no frame; add a column frame, counted from 0, or {ANY_FRAME} for all of them"
        )
    shape = np.repeat(plain, count)
    row = order[
        np.arange(len(shape)) + np.repeat(low[plain] - (np.cumsum(count) - count), count)
    ].astype(np.int64)
    fits = (frames[shape] < 0) | (images.frame[row] == frames[shape])
    zeros = np.zeros(int(fits.sum()), np.int64)
    parts = [On(row[fits], shape[fits], zeros, zeros)]
    for key in np.unique(wanted[is_slide]).tolist():
        mine = np.flatnonzero(is_slide & (wanted == key))
        rows = order[slice(*np.searchsorted(of_rows[order], [key, key + 1]))]
        parts.append(_on_tiles(images, rows, mine, shapes.take(mine)))
    return On.joined(parts)


def _on_tiles(images: Images, rows: Ints, which: Ints, shapes: Shapes) -> On:
    """Shapes in pixels of the total pixel matrix on every tile that their boxes meet."""
    height, width = images.shape[rows[0]].tolist()
    tile = images.tile[rows] - 1
    columns, lines = (np.unique(tile[:, k]) for k in (0, 1))
    low, high = np.split(shapes.boxes(), 2, axis=1)
    ranges = []
    for starts, size, a, b in (
        (columns, width, low[:, 0], high[:, 0]),
        (lines, height, low[:, 1], high[:, 1]),
    ):
        begin = np.searchsorted(starts, a - size, "right")
        # A point on a border, and a box that begins there, lie on the tile that begins there.
        end = np.maximum(np.searchsorted(starts, b, "left"), np.searchsorted(starts, a, "right"))
        ranges.append((begin, np.maximum(end - begin, 0)))
    (x, across), (y, down) = ranges
    count = across * down
    shape = np.repeat(np.arange(len(shapes)), count)
    number = np.arange(len(shape)) - np.repeat(np.cumsum(count) - count, count)
    column = columns[x[shape] + number % np.maximum(across[shape], 1)]
    line = lines[y[shape] + number // np.maximum(across[shape], 1)]
    # Several planes and channels of one tile all have the shape.
    wide = int(tile[:, 0].max()) + 1
    key = tile[:, 1] * wide + tile[:, 0]
    order = np.argsort(key, kind="stable")
    first, end = (np.searchsorted(key[order], line * wide + column, s) for s in ("left", "right"))
    many = end - first
    at = np.repeat(np.arange(len(shape)), many)
    row = rows[order[np.arange(len(at)) + np.repeat(first - (np.cumsum(many) - many), many)]]
    return On(row.astype(np.int64), which[shape[at]], column[at], line[at])


class InSpace(NamedTuple):
    """Shapes in millimetres (LPS) of one frame of reference.

    Attributes:
        shapes: Without points.
        points: (m, 3).
        number: (n,), which shape of their table each is.
    """

    shapes: Shapes
    points: Floats
    number: Ints


def in_space(images: Images, space: str, given: InSpace) -> tuple[Shapes, Ints, Ints]:
    """Shapes in millimetres, projected on the images in whose planes all of their points lie.

    Returns:
        (shapes in pixels, one for each image that has one; position of that image; number of the shape).
    """
    rows = np.flatnonzero(
        images.frame_of_reference.codes == images.code("frame_of_reference", space)
    )
    counts = given.shapes.counts
    first = np.cumsum(counts) - counts
    count = len(counts)
    none = np.full(count, -1)
    links = place(
        images,
        rows,
        Planes(
            frame_of_reference=space,
            origin=given.points[first],
            orientation=None,
            spacing=np.full((count, 2), np.nan),
            shape=(0, 0),
            reference=none,
            frame_number=np.zeros(count, np.int64),
            preserved=np.ones(count, np.bool_),
            tile=np.full((count, 2), -1),
        ),
        "position",
    ).links
    kept, points = [], []
    for k, row in zip(links.plane.tolist(), links.row.tolist(), strict=True):
        own = given.points[first[k] : first[k] + counts[k]]
        across, down = (
            part / np.linalg.norm(part) for part in images.orientation[row].reshape(2, 3)
        )
        away = (own - images.origin[row]) @ slice_normal(images.orientation[row])
        if np.abs(away).max() > max(0.1, 0.2 * float(images.thickness[row])):
            continue
        between_rows, between_columns = images.spacing[row]
        moved = (own - images.origin[row]) @ np.stack(
            [across / between_columns, down / between_rows], 1
        )
        kept.append((k, row))
        points.append(moved + 0.5)
    which = np.array([k for k, _ in kept], np.int64)
    some: npt.NDArray[np.float64] = np.concatenate([np.empty((0, 2)), *points])
    old = given.shapes
    shapes = Shapes(old.segment[which], old.kind[which], some, counts[which], old.boxed[which])
    return shapes, np.array([row for _, row in kept], np.int64), given.number[which]
