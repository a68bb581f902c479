"""What the list at the left shows: the series of a dataset of frames, or the samples of any other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import GeometryError, OptionError
from dicomtorch.index.codes import plain as codes_of
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.shown import named_uid, shown
from dicomtorch.series.neighbours import frame_order
from dicomtorch.viewer.answer import number_of
from dicomtorch.viewer.filters import matching
from dicomtorch.viewer.looked import Opened

Ints = npt.NDArray[np.int64]

_LONGEST_ORDERED = 20_000  # frames of a series that are put in the order of their places
_MOST_KEPT = 64


class Group(NamedTuple):
    """One line of the list.

    Attributes:
        number: Of the group, whatever is filtered.
        items: Frames by position in the index: of a series those that the filter leaves, of a sample its planes.
    """

    number: int
    items: Ints


class Groups:
    """The groups, in the order in which their first frame comes.

    Args:
        opened: What is looked at.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._kept: dict[tuple[int, str], Ints] = {}
        self._filters: dict[str, list[Group]] = {}
        self._all = self._series() if opened.has_frames else self._samples()

    def _series(self) -> list[Group]:
        opened = self._opened
        at = np.arange(len(opened.index)) if opened.chosen is None else opened.chosen
        codes = np.asarray(codes_of(opened.index.column("SeriesInstanceUID")))[at]
        order = np.argsort(codes, kind="stable")
        parts = np.split(at[order], np.flatnonzero(np.diff(codes[order])) + 1) if len(at) else []
        place = {int(position): k for k, position in enumerate(at[::-1])}
        parts.sort(key=lambda part: -place[int(part[0])])
        return [Group(number, part) for number, part in enumerate(parts)]

    def _samples(self) -> list[Group]:
        opened = self._opened
        found = []
        for number, sample in enumerate(opened.samples.tolist()):
            found.append(Group(number, np.asarray(opened.dataset.frames_of(sample), np.int64)))
        return found

    def __len__(self) -> int:
        return len(self._all)

    def listed(self, text: str) -> list[Group]:
        """The groups of which a filter leaves something.

        Args:
            text: The filter, "" for none; see `matching`.

        Raises:
            OptionError: The filter means nothing.
        """
        text = text.strip()
        if not text:
            return self._all
        known = self._filters.get(text)
        if known is None:
            mask = matching(self._opened.index, text)
            known = []
            for group in self._all:
                kept = mask[group.items]
                if kept.any():
                    items = group.items[kept] if self._opened.has_frames else group.items
                    known.append(Group(group.number, items))
            if len(self._filters) >= _MOST_KEPT:
                self._filters.clear()
            self._filters[text] = known
        return known

    def number(self, text: str) -> int:
        """The number of a group that a question names."""
        return number_of(text, len(self._all), "series" if self._opened.has_frames else "sample")

    def holding(self, position: int) -> int:
        """The number of the series that a frame is in."""
        return next(one.number for one in self._all if (one.items == position).any())

    def items(self, number: int, text: str) -> Ints:
        """The frames of a group in the order of viewing: slices by place, others by time, else as files come."""
        key = (number, text.strip())
        kept = self._kept.get(key)
        if kept is None:
            group = next((one for one in self.listed(text) if one.number == number), None)
            kept = np.empty(0, np.int64) if group is None else group.items
            if self._opened.has_frames and self._opened.chosen is None:
                kept = _ordered(self._opened.index, kept)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = kept
        return kept

    def described(self, group: Group) -> dict[str, Any]:
        """What the list says of a group, without identifiers."""
        index, items = self._opened.index, group.items
        said: dict[str, Any] = {"number": group.number, "count": len(items)}
        if not len(items):
            return said
        middle = items[len(items) // 2 : len(items) // 2 + 1]
        names = ("Modality", "Rows", "Columns", "TransferSyntaxUID")
        modality, rows, columns, syntax = (index.gather(name, middle)[0] for name in names)
        return said | {
            "cover": int(middle[0]),
            "modality": shown("Modality", modality),
            "rows": rows,
            "columns": columns,
            "syntax": named_uid(syntax),
        }


def _ordered(index: FrameIndex, items: Ints) -> Ints:
    if not 1 < len(items) <= _LONGEST_ORDERED:
        return items
    try:
        order = frame_order(index.select(items), on_gap="keep").order
    except (GeometryError, OptionError):
        return items
    return np.asarray(items[order], np.int64)
