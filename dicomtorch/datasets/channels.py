"""Several series as the channels of one sample: which volumes go together, and on which grid."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import GeometryError, OptionError
from dicomtorch.index.columns import as_list
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.schema import FRAME_COLUMNS
from dicomtorch.scanner.keywords import is_keyword
from dicomtorch.series.search import stacks
from dicomtorch.series.stacks import LeftOut, OnGap, Stack, StackList
from dicomtorch.series.volumes import on_one_grid

Bools = npt.NDArray[np.bool_]


class Incomplete(NamedTuple):
    """A study, or whatever `by` names, that is no sample.

    Attributes:
        value: Of the column `by`.
        reason: Which channel has no volume, or several.
    """

    value: Any
    reason: str


class Channels:
    """Which series are which channels; see `DicomVolumes`.

    Args:
        given: Name of a channel -> values of columns, as `index.filter` takes them, or an index.
        by: Column whose values tell samples apart.
        regrid: Whether channels are resampled to the grid of the first one where theirs is another.

    Raises:
        OptionError: There is no channel, or one is neither a mapping nor an index.
    """

    def __init__(self, given: Mapping[str, Any], by: str, *, regrid: bool) -> None:
        values = list(getattr(given, "values", list)())
        if not values or not all(isinstance(one, Mapping | FrameIndex) for one in values):
            raise OptionError(
                'channels must be names with what index.filter takes, as in {"t1": {"SeriesDescription": "T1"}}, or '
                "with an index"
            )
        self.given, self.by, self.regrid = dict(given), by, regrid
        self.names = tuple(map(str, given))

    @property
    def tags(self) -> tuple[str, ...]:
        """Attributes that the index needs for it."""
        keys = [self.by]
        for one in self.given.values():
            keys += one if isinstance(one, Mapping) else ()
        return tuple(
            key for key in dict.fromkeys(keys) if key not in FRAME_COLUMNS and is_keyword(key)
        )

    def within(self, index: FrameIndex) -> FrameIndex:
        """The frames of all channels."""
        return index.select(np.logical_or.reduce([self._mask(index, name) for name in self.given]))

    def _mask(self, index: FrameIndex, name: str) -> Bools:
        """Which frames are of a channel."""
        asked = self.given[name]
        if isinstance(asked, Mapping):
            mask = index.where(**asked)
        elif asked.uuid == index.uuid:
            mask = np.isin(np.asarray(index.rows), np.asarray(asked.rows))
        else:
            raise OptionError(
                f"the index of channel {name!r} is not a part of the source; filter both from one index"
            )
        if not mask.any():
            raise OptionError(f"no frame is of channel {name!r}")
        return mask

    def find(self, index: FrameIndex, **options: Any) -> StackList:
        """The volumes of all channels, each channel's after those of the one before; `options` as in `stacks`."""
        found = StackList()
        self._of_channel: list[list[int]] = []
        for name in self.given:
            where = np.flatnonzero(self._mask(index, name))
            own = stacks(index.select(where), **options)
            self._of_channel.append(list(range(len(found), len(found) + len(own))))
            found.extend(replace(stack, positions=where[stack.positions]) for stack in own)
            found.left_out += tuple(LeftOut(where[p.positions], p.reason) for p in own.left_out)
            found.copies = np.append(found.copies, where[own.copies])
            found.problems += own.problems
        return found

    def samples(
        self, index: FrameIndex, found: Sequence[Stack], on_gap: OnGap
    ) -> tuple[list[tuple[int, ...]], tuple[Incomplete, ...]]:
        """(the volumes of each sample, what is none).

        Raises:
            GeometryError: Grids differ, and `regrid` is not set.
        """
        firsts = np.array([int(stack.positions[0]) for stack in found])
        values = as_list(index.values(self.by, firsts))
        groups: dict[Any, list[list[int]]] = {}
        for channel, numbers in enumerate(self._of_channel):
            for number in numbers:
                groups.setdefault(values[number], [[] for _ in self.names])[channel].append(number)
        samples, incomplete = [], []
        for value, group in groups.items():
            if all(len(numbers) == 1 for numbers in group):
                samples.append(tuple(number for numbers in group for number in numbers))
            else:
                incomplete.append(Incomplete(value, self._reason(group)))
        if incomplete and on_gap != "keep":
            counts = Counter(one.reason for one in incomplete)
            listed = "; ".join(f"{count}: {reason}" for reason, count in counts.most_common(4))
            warnings.warn(
                f"{len(incomplete)} of {len(groups)} values of {self.by} are no sample ({listed}); "
                f"volumes.incomplete lists them",
                stacklevel=4,
            )
        if not self.regrid:
            self._refuse_other_grids(samples, found)
        return samples, tuple(incomplete)

    def _reason(self, group: list[list[int]]) -> str:
        pairs = list(zip(self.names, group, strict=True))
        absent = [repr(name) for name, numbers in pairs if not numbers]
        if absent:
            return f"no volume of channel {' and '.join(absent)}"
        name, numbers = next(pair for pair in pairs if len(pair[1]) > 1)
        return f"{len(numbers)} volumes of channel {name!r}, of which a filter is to leave one"

    def _refuse_other_grids(self, samples: list[tuple[int, ...]], found: Sequence[Stack]) -> None:
        for numbers in samples:
            first = found[numbers[0]]
            for name, number in zip(self.names[1:], numbers[1:], strict=True):
                if not on_one_grid([first, found[number]]):
                    raise GeometryError(
                        f"channel {self.names[0]!r} is on the grid {_grid(first)}, {name!r} on {_grid(found[number])}; "
                        f"regrid=True resamples each channel to the grid of the first"
                    )


def _grid(stack: Stack) -> str:
    spacing = " x ".join(f"{number:.4g}" for number in stack.spacing)
    first = ", ".join(f"{number:.4g}" for number in stack.affine[:3, 3])
    return f"{' x '.join(map(str, stack.shape))} of {spacing} mm from ({first})"
