"""Which tiles are levels of one slide.

PS3.3 C.8.12.4 (whole slide images), C.7.11.1 (Multi-Resolution Pyramid), C.7.6.16.2.2.4 (concatenations).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.index.codes import numbered, pieces
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.geometry import Ints
from dicomtorch.series.levels import SlideLevel

_SAME = 0.02  # parts of the width and height of a level that others of its slide may differ by

_OF_PARTS = (
    *("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PyramidUID"),
    *("ContainerIdentifier", "OpticalPathIdentifier", "ConcatenationUID"),
    *("InConcatenationTotalNumber", "TotalPixelMatrixRows", "TotalPixelMatrixColumns"),
    *("Rows", "Columns", "PixelSpacing", "total_pixel_matrix_origin", "ImageOrientationSlide"),
    "file",
)


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The levels of one slide: of one optical path and one focal plane.

    Attributes:
        levels: The finest first.
        optical_path: Optical Path Identifier, "" where the files do not say.
        focal_plane: From 0, the lowest first.
        notices: What is odd, in words without names.
    """

    levels: tuple[SlideLevel, ...]
    optical_path: str
    focal_plane: int
    notices: tuple[str, ...] = ()

    @property
    def positions(self) -> Ints:
        """Of all its frames, in the order of the index."""
        return np.sort(np.concatenate([level.positions for level in self.levels]))


class _Part(NamedTuple):
    """The frames of one file that are of one optical path and focal plane."""

    positions: Ints
    path: str
    plane: int
    values: dict[str, Any]

    @property
    def matrix(self) -> tuple[int, int]:
        return self.values["TotalPixelMatrixRows"], self.values["TotalPixelMatrixColumns"]

    @property
    def level(self) -> tuple[int, ...]:
        return (*self.matrix, self.values["Rows"], self.values["Columns"])

    @property
    def series(self) -> str:
        return str(self.values["SeriesInstanceUID"])

    @property
    def family(self) -> tuple[Any, ...]:
        """Equal for what may be one slide, in whatever series."""
        names = ("StudyInstanceUID", "FrameOfReferenceUID", "ContainerIdentifier")
        glass = tuple(self.values[name] for name in names)
        unknown = not self.values["FrameOfReferenceUID"] or not self.values["ContainerIdentifier"]
        series = self.series if unknown else ""
        pyramid = self.values["PyramidUID"]
        return (pyramid or (glass, series), self.path, self.plane)


def pyramids(index: FrameIndex) -> list[Pyramid]:
    """The slides of an index, in the order in which it comes to them.

    Tiles of one slide have one PyramidUID. Where files have none, it is one series, frame of reference and container;
    and series of one frame of reference and container are one slide if no level is in two of them. Each optical path
    and each focal plane is a slide. Labels, overviews, thumbnails and segmentations are no levels.
    """
    parts = _parts(index)
    families: dict[Any, list[_Part]] = {}
    for part in parts:
        families.setdefault(part.family, []).append(part)
    slides = []
    for family in families.values():
        stated = bool(family[0].values["PyramidUID"])
        together = family if stated else None
        if together is None and _fit(family, index):
            together = family
        groups = [together] if together is not None else _by(family, lambda part: part.series)
        for group in groups:
            areas = [group] if stated else _areas(group)
            slides += [slide for area in areas for slide in _slides(area, index)]
    return sorted(slides, key=lambda slide: int(slide.levels[0].positions[0]))


def tile_mask(index: FrameIndex) -> npt.NDArray[np.bool_]:
    """For each frame whether it is a tile of a level."""
    names = ("tile_column", "tile_row", "TotalPixelMatrixRows", "TotalPixelMatrixColumns")
    tiles = index.image_mask()
    for name in names:
        tiles &= np.asarray(index.column(name)) > 0
    return tiles


def _parts(index: FrameIndex) -> list[_Part]:
    positions = np.flatnonzero(tile_mask(index))
    if not len(positions):
        return []
    chosen = index if len(positions) == len(index) else index.select(positions)
    planes = _planes(chosen)
    columns = (chosen.column("file"), chosen.column("OpticalPathIdentifier"), planes)
    found = pieces(numbered(columns, len(positions)))
    firsts = np.array([rows[0] for rows in found])
    known = {name: chosen.gather(name, firsts) for name in _OF_PARTS}
    return [
        _Part(
            positions[rows],
            known["OpticalPathIdentifier"][k],
            int(planes[rows[0]]),
            {name: values[k] for name, values in known.items()},
        )
        for k, rows in enumerate(found)
    ]


def _planes(index: FrameIndex) -> Ints:
    """The focal plane of each tile, from 0: tiles at one place that differ in their height are of several."""
    count = len(index)
    height = np.round(np.asarray(index.column("ZOffsetInSlideCoordinateSystem"), np.float64), 3)
    number = np.asarray(index.column("InStackPositionNumber"))
    depth = numbered((height, number), count)
    if not depth.any():
        return np.zeros(count, np.int64)
    # As many slides may be focused anew at every tile: a height alone is no plane.
    places = numbered(
        [
            index.column(name)
            for name in (
                *("StudyInstanceUID", "PyramidUID", "FrameOfReferenceUID", "ContainerIdentifier"),
                *("OpticalPathIdentifier", "TotalPixelMatrixRows", "TotalPixelMatrixColumns"),
                *("Rows", "Columns", "tile_row", "tile_column"),
            )
        ],
        count,
    )
    order = np.lexsort((depth, places))
    begins = np.diff(places[order], prepend=-1) != 0
    steps = begins | (np.diff(depth[order], prepend=-1) != 0)
    counted = np.cumsum(steps)
    ranks = np.empty(count, np.int64)
    ranks[order] = counted - np.maximum.accumulate(np.where(begins, counted, 0))
    heights = np.unique(depth)
    # Where every height is a plane of its own, a tile that is absent from one moves none of the others.
    return np.searchsorted(heights, depth) if len(heights) == ranks.max() + 1 else ranks


def _by(parts: Iterable[_Part], key: Any) -> list[list[_Part]]:
    groups: dict[Any, list[_Part]] = {}
    for part in parts:
        groups.setdefault(key(part), []).append(part)
    return list(groups.values())


def _fit(family: Sequence[_Part], index: FrameIndex) -> bool:
    """Whether several series hold different levels of one area."""
    series = _by(family, lambda part: part.series)
    if len(series) == 1:
        return True
    sizes = [{part.matrix for part in parts} for parts in series]
    apart = all(not a & b for a, b in itertools.combinations(sizes, 2))
    return apart and len(_areas(family)) == 1


def _areas(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Parts by the area of the glass that they show: a series may hold several scans of one slide."""
    areas: list[list[_Part]] = []
    for part in sorted(parts, key=lambda part: -part.matrix[0] * part.matrix[1]):
        for area in areas:
            if _same_area(area[0], part):
                area.append(part)
                break
        else:
            areas.append([part])
    return areas


def _same_area(fine: _Part, coarse: _Part) -> bool:
    """Whether the extents of two levels, and the places where they begin, agree."""
    (a, b), (c, d) = _extent(fine), _extent(coarse)
    if not all(map(math.isfinite, (a, b, c, d))):
        first, second = fine.matrix[0] / fine.matrix[1], coarse.matrix[0] / coarse.matrix[1]
        return abs(first / second - 1) < 0.5
    spacing = coarse.values["PixelSpacing"]
    # Some writers round the matrix up to whole tiles.
    spare = [n * s for n, s in zip(coarse.level[2:], spacing, strict=True)]
    near = (abs(a - c) <= _SAME * a + spare[0], abs(b - d) <= _SAME * b + spare[1])
    origins = np.array([part.values["total_pixel_matrix_origin"] for part in (fine, coarse)])
    moved = np.abs(origins[0] - origins[1])
    begin = not np.isfinite(moved).all() or bool(
        (moved <= _SAME * max(a, b) + 2 * max(spacing)).all()
    )
    return all(near) and begin


def _extent(part: _Part) -> tuple[float, float]:
    """Height and width in millimetres."""
    rows, columns = part.values["PixelSpacing"]
    return part.matrix[0] * rows, part.matrix[1] * columns


def _slides(parts: Sequence[_Part], index: FrameIndex) -> list[Pyramid]:
    """One slide, or several where instances repeat a level: then each series, or else each instance, is one."""
    levels = _by(parts, lambda part: part.matrix)
    repeated = any(len({part.level for part in level}) > 1 for level in levels)
    if not repeated and not any(_clash(level, index) for level in levels):
        return [_pyramid(parts, index)]
    by_series = _by(parts, lambda part: part.series)
    if len(by_series) > 1:
        return [slide for group in by_series for slide in _slides(group, index)]
    instances = _by(parts, lambda part: part.values["ConcatenationUID"] or part.values["file"])
    if len(instances) == 1:
        return [_pyramid(parts, index)]
    note = "several instances of a series have one level, so each instance is a slide of its own"
    made = [_pyramid(group, index) for group in instances]
    return [replace(slide, notices=(*slide.notices, note)) for slide in made]


def _clash(level: Sequence[_Part], index: FrameIndex) -> bool:
    """Whether instances that are not parts of one concatenation have tiles at one place."""
    instances = {part.values["ConcatenationUID"] or part.values["file"] for part in level}
    if len(instances) == 1:
        return False
    at = np.concatenate([part.positions for part in level])
    names = ("tile_row", "tile_column")
    places = np.stack([np.asarray(index.values(name, at)) for name in names], 1)
    return len(np.unique(places, axis=0)) < len(places)


def _pyramid(parts: Sequence[_Part], index: FrameIndex) -> Pyramid:
    groups = _by(parts, lambda part: part.level)
    groups.sort(key=lambda group: -group[0].matrix[0] * group[0].matrix[1])
    levels = tuple(_level(k, group, index) for k, group in enumerate(groups))
    notices = [notice for group in groups for notice in _lost(group)]
    return Pyramid(levels, parts[0].path, parts[0].plane, tuple(dict.fromkeys(notices)))


def _level(number: int, parts: Sequence[_Part], index: FrameIndex) -> SlideLevel:
    positions: npt.NDArray[np.int64] = parts[0].positions
    if len(parts) > 1:
        positions = np.sort(np.concatenate([part.positions for part in parts]))
    values = parts[0].values
    rows, columns, *tile = parts[0].level
    return SlideLevel(
        number=number,
        rows=rows,
        columns=columns,
        tile=(tile[0], tile[1]),
        spacing=values["PixelSpacing"],
        origin=values["total_pixel_matrix_origin"],
        orientation=values["ImageOrientationSlide"],
        positions=positions,
        index=index,
    )


def _lost(parts: Sequence[_Part]) -> list[str]:
    """Says of concatenations which parts are not there."""
    notices = []
    for group in _by(parts, lambda part: part.values["ConcatenationUID"]):
        uid, total = (
            group[0].values[n] for n in ("ConcatenationUID", "InConcatenationTotalNumber")
        )
        there = len({part.values["file"] for part in group})
        if uid and total > there:
            notices.append(
                f"{there} of the {total} parts of a concatenation are there; their tiles are absent"
            )
    return notices
