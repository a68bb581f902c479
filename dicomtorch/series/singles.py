"""Stacks of one slice each, many at once: an archive of radiographs has a million of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dicomtorch.series.geometry import Floats, Ints
from dicomtorch.series.keys import LAST, shown
from dicomtorch.series.slices import VECTORS, Slices
from dicomtorch.series.stacks import Stack, StackReport

_AT_ONCE = 1 << 12  # stacks whose affines are parts of one array


def build_singles(
    slices: Slices,
    rows: Ints,
    keys: Sequence[tuple[str, ...]],
    series: Ints,
    localizers: Mapping[int, Ints],
) -> list[Stack]:
    """What `build` makes of each slice alone.

    Args:
        slices: All slices.
        rows: (n,), which they are.
        keys: What each was told apart by.
        series: (n,), the number of the series of each.
        localizers: Of each series that has some.
    """
    reports = _Reports(slices, localizers)
    stacks = []
    for first in range(0, len(rows), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        made = [reports.of(*one) for one in zip(series[some].tolist(), keys[some], strict=True)]
        stacks += _stacks(slices, rows[some], made)
    return stacks


class _Reports:
    """What is to be said about stacks; those of which the same is said share it."""

    def __init__(self, slices: Slices, localizers: Mapping[int, Ints]) -> None:
        self._slices, self._localizers = slices, localizers
        self._made: dict[tuple[int, tuple[str, ...]], tuple[StackReport, tuple[str, ...]]] = {}

    def of(self, series: int, keys: tuple[str, ...]) -> tuple[StackReport, tuple[str, ...]]:
        """(the report, the columns that tell it from others) of a slice."""
        key = (series if series in self._localizers else -1, keys)
        if key not in self._made:
            remark = f"only {LAST} tells it from the other volumes at its places"
            report = StackReport(
                localizers=tuple(self._slices.names(self._localizers.get(series, ()))),
                remarks=(remark,) if LAST in keys else (),
            )
            # Of several columns that stand together none differs within one slice.
            names = tuple(name for key in keys for name in shown(key) if shown(key) != VECTORS)
            self._made[key] = report, names
        return self._made[key]


def _stacks(
    slices: Slices, rows: Ints, said: Sequence[tuple[StackReport, tuple[str, ...]]]
) -> list[Stack]:
    place, orientation, pixel = slices.place[rows], slices.orientation[rows], slices.pixel[rows]
    positions = slices.rows[rows]
    between = _between(slices, positions)
    affines = _affines(place, orientation, pixel, between)
    is_sheet = slices.is_sheet[rows].tolist()
    windows = None if slices.windows is None else slices.windows[rows]
    if windows is None:
        sizes = [slices.index.gather(name, positions) for name in ("Rows", "Columns")]
    else:
        sizes = windows[:, 2:].T.tolist()
    if windows is None:
        of_sheets: Sequence[Ints | None] = [None] * len(rows)
    else:
        of_sheets = [windows[k : k + 1] if is_sheet[k] else None for k in range(len(rows))]
    spacing = zip(between.tolist(), *pixel.T.tolist(), strict=True)
    # Rows of arrays are made faster by going through them than by asking for each.
    columns = (positions[:, None], affines, spacing, zip(*sizes, strict=True), place[:, None])
    return [
        Stack(position, affine, steps, (1, *size), origin, plane, report, names, windows=window)
        for position, affine, steps, size, origin, plane, (report, names), window in zip(
            *columns, orientation, said, of_sheets, strict=True
        )
    ]


def _between(slices: Slices, positions: Ints) -> Floats:
    """From each slice to where the next would be: Spacing Between Slices, else Slice Thickness, else 1 mm."""
    spacing, thickness = (
        np.abs(np.array(slices.index.gather(name, positions), np.float64))
        for name in ("SpacingBetweenSlices", "SliceThickness")
    )
    return np.where(spacing > 0, spacing, np.where(thickness > 0, thickness, 1.0))


def _affines(place: Floats, orientation: Floats, pixel: Floats, between: Floats) -> Floats:
    """(n, 4, 4), as `affine_lps` has them, with a step along the normal."""
    row, column = orientation[:, :3], orientation[:, 3:]
    normal = np.cross(row, column)
    affines = np.zeros((len(place), 4, 4))
    affines[:, :3, 0] = _unit(normal) * between[:, None]
    affines[:, :3, 1] = _unit(column) * pixel[:, :1]
    affines[:, :3, 2] = _unit(row) * pixel[:, 1:]
    affines[:, :3, 3] = place
    affines[:, 3, 3] = 1
    return affines


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
