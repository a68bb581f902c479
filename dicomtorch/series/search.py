"""Finds the stacks of an index, by the rules that the modules of this room number.

1. candidates: `candidates`. 2. Places: `group`. 3. One slice a place, and 4. several: `parts`. 5. Nothing is left out
without a word, and 6. order: here. 7. and 8. are the datasets'. 9. to 12. are the scan's, and 10. `slices`.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np

from dicomtorch.errors import GeometryError, OptionError, format_count
from dicomtorch.index.codes import pieces
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.build import build
from dicomtorch.series.candidates import MOST_TURNED, candidates, localizers, unusable
from dicomtorch.series.geometry import Ints
from dicomtorch.series.group import Group
from dicomtorch.series.keys import (
    ALIKE,
    KEYS,
    MONITORING,
    OF_ONE_ACQUISITION,
    RANKED,
    TIMES,
)
from dicomtorch.series.ordering import order_of
from dicomtorch.series.parts import Part, apart, places_within, split_by_time
from dicomtorch.series.regular import build_regular
from dicomtorch.series.singles import build_singles
from dicomtorch.series.slices import Slices
from dicomtorch.series.stacks import (
    FOREIGN,
    MISSING,
    REPEATED,
    SINGLE,
    LeftOut,
    OnGap,
    Stack,
    StackList,
    listed,
)

Mosaic = Literal["slices", "sheet"]

_PLANE = ("ImageOrientationPatient", "PixelSpacing")


def stacks(
    index: FrameIndex,
    *,
    split_by: str | Sequence[str] | None = None,
    on_gap: OnGap = "raise",
    mosaic: Mosaic = "slices",
    single_slices: bool = False,
) -> StackList:
    """Groups the frames of an index into volumes, and orders each along its normal; file names play no part.

    Slices belong together by where they lie: those of one series, kind, size and plane with one slice at every place
    are one volume, whatever other attributes say; what differs is in `Stack.differing`. Where several are at one place,
    or the places are irregular, they are told apart by what separates volumes: image type, echo, b-value and direction,
    phase, dimension indices, temporal position, acquisition and others; then times; then the order of Instance Number.
    `Stack.separated_by` says by what. Frames of ultrasound, angiography and fluoroscopy, localizers, frames without
    position, orientation or pixel spacing, and what shows a single place are in no stack: see `StackList.left_out`.

    Source: PS3.3 C.7.6.2 (Image Plane).

    Args:
        index: Of the frames.
        split_by: Columns of the index whose values shall not be mixed in a stack; of times and Instance Number the k-th
            of each place makes the k-th volume.
        on_gap: For missing slices, unequal spacing, copies, slices that fit nowhere and repeats that nothing tells
            apart: "raise", "warn" once, or "keep" in silence. With the last two copies of a slice are left out, and
            sets with other repeats too.
        mosaic: Of frames in which all slices of a volume lie beside each other (Siemens MOSAIC, UIH VFRAME): "slices"
            takes them apart, "sheet" leaves them out.
        single_slices: Whether a slice that is alone at its place, or shows a place again, is a stack of one slice.

    Raises:
        GeometryError: `on_gap="raise"`, and a stack is irregular; the message lists the files.
        OptionError: There is no such column, or an option is none of these.
    """
    check_on_gap(on_gap)
    if mosaic not in ("slices", "sheet"):
        raise OptionError(f'mosaic must be "slices" or "sheet"; got {mosaic!r}')
    keys = [split_by] if isinstance(split_by, str) else list(split_by or ())
    slices = Slices(index, sheets=mosaic == "slices")
    # A million stacks are objects without cycles: looking for some takes a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _Search(slices, keys, mosaic, single_slices=single_slices).run(on_gap)
    finally:
        if collecting:
            gc.enable()


class _Search:
    """One call of `stacks`.

    Attributes:
        found: (stack, where its slices are among all) so far.
        left_out: Slices that are in none, and why.
        problems: What `on_gap` decides about, in words.
    """

    def __init__(
        self, slices: Slices, split_by: list[str], mosaic: Mosaic, *, single_slices: bool
    ) -> None:
        for name in split_by:
            slices.index.column(name)
        self.slices = slices
        self.by_value = [name for name in split_by if name not in RANKED]
        self.by_rank = [name for name in split_by if name in RANKED]
        self.sheets = mosaic == "slices"
        self.single_slices = single_slices
        self.found: list[tuple[Stack, Ints]] = []
        self.left_out: list[tuple[Ints, str]] = []
        self.singles: list[tuple[Ints, tuple[str, ...]]] = []
        self.copies: list[Ints] = []
        self.problems: list[str] = []

    def run(self, on_gap: OnGap) -> StackList:
        usable = np.ones(len(self.slices), np.bool_)
        for mask, reason in unusable(self.slices, sheets=self.sheets):
            mask = mask & usable
            if mask.any():
                self.left_out.append((np.flatnonzero(mask), reason))
                usable &= ~mask
        self._localizers = self._by_series(np.flatnonzero(localizers(self.slices)))
        self._candidates(candidates(self.slices, np.flatnonzero(usable), self.by_value))
        if self.single_slices:
            self._as_stacks()
        else:
            self._single_places()
        result = StackList(self._in_order())
        result.left_out = tuple(
            LeftOut(np.unique(self.slices.rows[rows]), reason) for rows, reason in self.left_out
        )
        result.copies = (
            np.unique(self.slices.rows[np.concatenate(self.copies)])
            if self.copies
            else result.copies
        )
        result.problems = tuple(self.problems)
        if self.problems:
            say(self.problems, on_gap)
        return result

    def _series(self, rows: Ints) -> Ints:
        codes = self.slices.codes("SeriesInstanceUID")
        return np.zeros(len(rows), np.int64) if codes is None else codes[rows]

    def _by_series(self, rows: Ints) -> dict[int, Ints]:
        series = self._series(rows)
        return {
            int(codes[0]): part
            for part, codes in zip(pieces(series, rows), pieces(series, series), strict=True)
        }

    def _candidates(self, sets: list[Ints]) -> None:
        """Most are regular volumes, which are made together; the others one by one."""
        regular: list[Stack | None] = [None] * len(sets)
        if not self.by_rank:
            firsts = np.array([rows[0] for rows in sets], np.int64)
            regular = build_regular(self.slices, sets, self._series(firsts), self._localizers)
        for rows, stack in zip(sets, regular, strict=True):
            if stack is None:
                self._candidate(rows)
            else:
                self.found.append((stack, rows))

    # Rule 4

    def _candidate(self, rows: Ints) -> None:
        if len(rows) == 1:  # an archive of radiographs has a million of them
            self.singles.append((rows, ()))
            return
        for group in split_by_time(Group(self.slices, rows), self.by_rank):
            parts, copies = apart(group), rows[:0]
            if parts is None and len(copies := self._copies(group)):
                files = listed(self.slices.names(copies))
                one = len(copies) == 1
                what = "slice is a copy" if one else "slices are copies"
                self.problems.append(
                    f"{len(copies):,} {what}, with SOPInstanceUID and place of another one: {files}. Leave "
                    f"{'it' if one else 'them'} out with index.deduplicate()"
                )
                self.copies.append(copies)
                group = Group(self.slices, np.setdiff1d(group.rows, copies))
                parts = apart(group)
            if parts is None:
                self._repeated(group)
            else:
                self._parts(group, parts, copies)

    def _copies(self, group: Group) -> Ints:
        """Rule 4a: all but the first of the slices with one SOPInstanceUID, frame and place.

        Only such slices are alike in every key, so that they are looked for where keys have told nothing apart. Images
        without a UID are no copies of each other.
        """
        slices, rows = self.slices, group.rows
        column = slices.index.column_at("SOPInstanceUID", slices.rows[rows])
        assert isinstance(column, Texts)
        uids = column.codes.astype(np.int64)
        frames = slices.index.column_at("frame", slices.rows[rows]).astype(np.int64)
        keys = (uids, frames, group.places)
        order = np.lexsort(keys[::-1])
        same = uids[order] != column.code("")
        same[0] = False
        for values in keys:
            same[1:] &= np.diff(values[order]) == 0
        return np.sort(rows[order[same]])

    def _parts(self, whole: Group, parts: list[Part], copies: Ints) -> None:
        """Rule 4e: which of the parts are whole volumes, and what the others lack."""
        if len(parts) == 1:
            where = [frozenset(range(len(parts[0].group.counts)))]
        else:
            together = Group(self.slices, np.concatenate([part.group.rows for part in parts]))
            where = places_within(parts, together.places)
        most = max(map(len, where))
        for part, own in zip(parts, where, strict=True):
            larger = 0
            if part.keys and part.keys[-1] in OF_ONE_ACQUISITION:
                larger = max((len(other) for other in where if own < other), default=0)
            missing = self._missing(part, len(own), larger) if larger else ""
            if len(own) == 1:
                if self.single_slices:
                    self.singles.append((part.group.rows, part.keys))
                elif missing:
                    self.problems.append(missing)
                    self.left_out.append((part.group.rows, missing.partition(",")[0]))
                elif most > 1:
                    reason = f"{SINGLE}, told apart from others of its series by {' and '.join(part.keys)}"
                    self.left_out.append((part.group.rows, reason))
                else:
                    self.singles.append((part.group.rows, part.keys))
                continue
            self._add(part, whole, copies, missing)

    def _missing(self, part: Part, count: int, larger: int) -> str:
        files = listed(self.slices.names(part.group.rows))
        return (
            f"{larger - count} of {larger} {MISSING} told apart by {' and '.join(part.keys)}, of "
            f"which there is {files}"
        )

    def _add(self, part: Part, whole: Group, copies: Ints, missing: str) -> None:
        rows = part.group.rows
        uids = self.slices.codes("SOPInstanceUID")
        if len(copies) and uids is not None:
            copies = copies[np.isin(uids[copies], uids[rows])]
        series = int(self._series(rows[:1])[0])
        local = self._localizers.get(series, rows[:0])
        stack = build(part, whole, copies, local, missing)
        self.found.append((stack, rows))
        self.problems.extend(stack.problems)

    def _repeated(self, group: Group) -> None:
        """Rule 5: a refusal names the place whose count differs, and what would help."""
        counts, places = group.counts, group.places
        repeats = np.flatnonzero(counts[places] > 1)
        repeats = repeats[np.argsort(places[repeats], kind="stable")]
        usual = int(np.argmax(np.bincount(counts)))
        odd = np.flatnonzero(counts != usual)
        other = ""
        if usual > 1 and len(odd) and len(odd) <= len(counts) / 2:
            one = int(group.rows[places == odd[0]][0])
            other = f"; {usual} are at most places, but {counts[odd[0]]} at that of {self.slices.name(one)}"
        self.problems.append(
            f"{format_count(len(repeats), 'slice')} {'is' if len(repeats) == 1 else 'are'} at the place of another "
            f"one, and nothing known tells them apart: "
            f"{listed(self.slices.names(group.rows[repeats]))}{other}. {self._help(group)}"
        )
        self.left_out.append((group.rows, REPEATED))

    def _help(self, group: Group) -> str:
        """Which column would tell slices at one place apart."""
        index = self.slices.index
        known = {*KEYS, *TIMES, *ALIKE}
        for name in (*index.tags, *index.joined):
            parts = group.by(name) if name not in known and group.tells(name) else None
            if parts and all(part.is_single for part in parts):
                return f'split_by="{name}" would'
        return (
            "Name what tells them apart with split_by=, a column that tags= of the scan may add; leave copies out with "
            "index.deduplicate()"
        )

    def _as_stacks(self) -> None:
        """Rule 7: a stack for each slice that is in none."""
        rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in self.singles)])
        keys = [keys for rows, keys in self.singles for _ in range(len(rows))]
        stacks = build_singles(self.slices, rows, keys, self._series(rows), self._localizers)
        self.found += [(stack, rows[k : k + 1]) for k, stack in enumerate(stacks)]

    # Rule 5

    def _single_places(self) -> None:
        """What shows one place only: a problem where its series has a stack that it fits, else a reason."""
        of_series: dict[int, list[tuple[Stack, Ints]]] = {}
        for stack, rows in self.found:
            of_series.setdefault(int(self._series(rows[:1])[0]), []).append((stack, rows))
        alone: dict[int, list[Ints]] = {}
        first = np.array([rows[0] for rows, _ in self.singles], np.int64)
        for (rows, _), series in zip(self.singles, self._series(first).tolist(), strict=True):
            beside = [one for one in of_series.get(series, ()) if self._is_parallel(one[0], rows)]
            if beside:
                self._does_not_fit(rows, beside[0][1])
            else:
                alone.setdefault(series, []).append(rows)
        by_reason: dict[str, list[Ints]] = {}
        for parts in alone.values():
            by_reason.setdefault(self._why_alone(parts), []).extend(parts)
        self.left_out += [(np.concatenate(rows), reason) for reason, rows in by_reason.items()]

    def _is_parallel(self, stack: Stack, rows: Ints) -> bool:
        off = np.abs(self.slices.orientation[rows[0]] - stack.orientation)
        return bool(off.max() <= MOST_TURNED)

    def _does_not_fit(self, rows: Ints, stack: Ints) -> None:
        both = np.concatenate([rows[:1], stack[:1]])
        told = [name for name in MONITORING if self._tells_apart(name, rows, stack)]
        names = [
            name
            for name in (*ALIKE, *_PLANE)
            if name != "window" and self.slices.differ(name, both)
        ]
        if told:
            self.left_out.append(
                (rows, f"{SINGLE}, told apart from others of its series by {' and '.join(told)}")
            )
            return
        what = " and ".join(names) or "its place"
        self.problems.append(
            f"{listed(self.slices.names(rows))}: {what} is not that of the {len(stack)} slices of its series that make "
            f"a volume, so that it is in none"
        )
        self.left_out.append((rows, f"{what} {FOREIGN}"))

    def _tells_apart(self, name: str, rows: Ints, stack: Ints) -> bool:
        codes = self.slices.codes(name)
        return codes is not None and not np.isin(codes[rows], codes[stack]).any()

    def _why_alone(self, parts: list[Ints]) -> str:
        """Of slices of a series of which no two belong together."""
        if self.by_value or self.by_rank:
            return f"{SINGLE}: split_by={[*self.by_value, *self.by_rank]} leaves only single slices"
        if len(parts) > 1 and all(len(part) == 1 for part in parts):
            rows = np.concatenate(parts)
            differing = [
                n for n in (*ALIKE, *_PLANE) if n != "window" and self.slices.differ(n, rows)
            ]
            if differing:
                return (
                    f"{SINGLE}: {' and '.join(differing)} differs from slice to slice of its series"
                )
        return SINGLE

    # Rule 6

    def _in_order(self) -> list[Stack]:
        if not self.found:
            return []
        rows = [rows for _, rows in self.found]
        series = self._series(np.array([one[0] for one in rows], np.int64))
        return [self.found[k][0] for k in order_of(self.slices, rows, series).tolist()]


def check_on_gap(on_gap: str) -> None:
    """Whether it is one of the values that it may have.

    Raises:
        OptionError: It is not.
    """
    if on_gap not in ("raise", "warn", "keep"):
        raise OptionError(f'on_gap must be "raise", "warn" or "keep"; got {on_gap!r}')


def say(problems: Sequence[str], on_gap: OnGap) -> None:
    """Raises or warns of problems, as `on_gap` has it; there may be none.

    Raises:
        GeometryError: `on_gap="raise"`.
    """
    if not problems:
        return
    others = len(problems) - 1
    more = f" ({others} more such {'problem' if others == 1 else 'problems'})" if others else ""
    if on_gap == "raise":
        raise GeometryError(
            f'{problems[0]}{more}. on_gap="warn" goes on without them where it must, and lists them in '
            f"stack.problems and left_out"
        )
    if on_gap == "warn":
        warnings.warn(f"{problems[0]}{more}", stacklevel=4)
