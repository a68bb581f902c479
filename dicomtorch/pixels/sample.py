"""What the frames of one sample have in common: one mapping to display, one normalisation, one background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.model.frame import FrameValues
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels.plan import Plan
from dicomtorch.pixels.resize import resized
from dicomtorch.pixels.statistics import modality_sample, modality_span, statistics
from dicomtorch.pixels.voi import SharedRange, common_window, has_voi, is_dose

Array = npt.NDArray[Any]


class Sample:
    """Frames that are converted alike.

    The mapping to display is the frames' common VOI, else the range that covers the VOI of each; if one has none, the
    range of all their values. Dose and `window="series"` have a range in common with more than the sample and keep it.
    Where padding or borders get the lowest value, it is that of all frames.

    Args:
        values: What the frames say about their values, each kind once.
        options: What is asked for.

    Attributes:
        is_measured: Whether the stored values of all frames are needed before the first can be converted.
        stored: Those, in the order of the frames, where they are needed.
    """

    def __init__(self, frames: Sequence[FrameValues], options: PixelOptions) -> None:
        self._options = options
        self._ranges: list[SharedRange | None] = [None] * len(options.windows)
        self._open: list[int] = []
        self._statistics: tuple[float, float] | None = None
        self._lowest: float | None = None
        self._is_filled = _is_filled(frames, options)
        self.stored: list[Array] = []
        if options.values == "display" and not any(is_dose(each) for each in frames):
            for k, window in enumerate(options.windows):
                if window == "series":
                    continue
                common = common_window(frames, window, "sample")
                if common is None:
                    self._open.append(k)
                elif not math.isnan(common.low):
                    self._ranges[k] = common
        self.is_measured = bool(self._open) or isinstance(options.normalize, str) or self._is_filled

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for samples whose frames of one kind are converted alike."""
        return (self._statistics, self._lowest, *self._ranges)

    def measure(self, stored: list[Array], plans: Sequence[Plan]) -> None:
        """Takes the stored values of all frames, and what each of `plans` says is done with them."""
        self.stored = stored
        if self._open:
            spans = [
                modality_span(pixels, plan)
                for pixels, plan in zip(stored, plans, strict=True)
                if has_voi(plan.frame)
            ]
            whole = SharedRange(
                min(low for low, _ in spans), max(high for _, high in spans), "sample"
            )
            for k in self._open:
                self._ranges[k] = whole
        if isinstance(self._options.normalize, str):
            parts = [modality_sample(*each) for each in zip(stored, plans, strict=True)]
            self._statistics = statistics(np.concatenate(parts), self._options.normalize)
        if self._is_filled:
            lowest = min(modality_span(*each)[0] for each in zip(stored, plans, strict=True))
            self._lowest = lowest if math.isfinite(lowest) else 0.0

    def plan(self, plan: Plan) -> Plan:
        """The plan of one of the frames, with what it has in common with the others."""
        if self._statistics is None and self._lowest is None:
            return plan
        return replace(plan, statistics=self._statistics, lowest=self._lowest)

    def ranges(
        self, plan: Plan, own: Sequence[SharedRange | None] | None
    ) -> Sequence[SharedRange | None] | None:
        """The range of each channel of a frame; `own` is what it has in common with more than the sample."""
        if not any(self._ranges) or not has_voi(plan.frame):
            return own
        if own is None:
            return self._ranges
        return [a or b for a, b in zip(own, self._ranges, strict=True)]


def _is_filled(frames: Sequence[FrameValues], options: PixelOptions) -> bool:
    """Whether pixels of some frame get the lowest value."""
    if options.values == "display" or options.normalize is not None:
        return False
    if options.padding == "fill" and any(each.padding is not None for each in frames):
        return True
    size = options.size
    if size is None or options.values == "stored" or not isinstance(options.padding, str):
        return False
    pixels = {(each.pixel.rows, each.pixel.columns) for each in frames}
    return any((where.rows, where.columns) != size for where in (resized(*p, size) for p in pixels))
