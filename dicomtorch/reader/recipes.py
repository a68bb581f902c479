"""How frames that share their values become tensors: decided once for each kind."""

from __future__ import annotations

import logging
from typing import NamedTuple

from dicomtorch.backends.base import Backend
from dicomtorch.backends.guard import check_claim
from dicomtorch.errors import printable
from dicomtorch.index.location import FrameLocation
from dicomtorch.model.frame import FrameValues
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels.plan import Plan, make_plan
from dicomtorch.pixels.reduced import reduction_levels, whole_notices
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.reader.ranges import SharedRanges

_logger = logging.getLogger("dicomtorch")

MOST_RECIPES = 4096


class Recipe(NamedTuple):
    """What frames that share their values have in common: how each becomes a tensor."""

    values: FrameValues
    backend: Backend
    plan: Plan
    shares: tuple[str, ...]  # for each channel: "file" or "series" whose mapping it has, or ""
    levels: int  # how often the resolution is halved while decoding


class Recipes:
    """Makes recipes and keeps them; what is odd about a kind is said once.

    Args:
        fetcher: Reads the frames.
        options: What is asked of the pixels.
        ranges: What frames have in common with others.
    """

    def __init__(self, fetcher: FrameFetcher, options: PixelOptions, ranges: SharedRanges) -> None:
        self._fetcher = fetcher
        self._options = options
        self._ranges = ranges
        self._kept: dict[int, Recipe] = {}
        self._said: set[str] = set()

    def of(self, where: FrameLocation) -> Recipe:
        """How a frame becomes a tensor.

        Raises:
            DicomTorchError: It cannot.
        """
        known = self._kept.get(where.value_group)
        if known is None:
            if len(self._kept) >= MOST_RECIPES:
                self._kept.clear()
            index = self._fetcher.index
            values = index.frame_values(where.position)
            check_claim(values.pixel, index.limits)  # before anything is allocated for it
            plan = make_plan(values, self._options)
            backend = self._fetcher.backends.of(values.pixel)
            levels = reduction_levels(plan)
            known = Recipe(values, backend, plan, self._ranges.sharers(plan), levels)
            self._kept[where.value_group] = known
            for notice in (*plan.notices, *whole_notices(plan)):
                self.say(notice, where.position)
        return known

    def say(self, notice: str, position: int) -> None:
        """Warns of something about a frame, once."""
        if notice not in self._said:
            self._said.add(notice)
            path = printable(self._fetcher.index.path(position))
            _logger.warning("%s (first seen in %s; said once)", notice, path)
