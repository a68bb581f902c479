"""Mappings to display that frames have in common: of a dose grid, of a series with `window="series"`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import DicomTorchError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels import statistics
from dicomtorch.pixels.plan import Plan
from dicomtorch.pixels.voi import SharedRange, common_window, has_voi, is_dose
from dicomtorch.reader.fetch import FrameFetcher

_MOST = 1024  # mappings of series and dose grids that are remembered


class SharedRanges:
    """Finds the mappings that frames share; each is found once in a process, the oldest are forgotten.

    There is no lock: two threads may measure one series at the same time, and a fork never finds a lock held.

    Args:
        fetcher: Reads the frames that have to be measured.
        options: What is asked of the pixels.
    """

    def __init__(self, fetcher: FrameFetcher, options: PixelOptions) -> None:
        self._fetcher = fetcher
        self._options = options
        self._kept: OrderedDict[Any, SharedRange] = OrderedDict()

    def sharers(self, plan: Plan) -> tuple[str, ...]:
        """For each channel whose mapping it has: "file", "series", or "" for its own; () if all are its own."""
        options = self._options
        if options.values != "display" or not has_voi(plan.frame):
            return ()
        shares = []
        for window, mapping in zip(options.windows, plan.channels, strict=True):
            grid = is_dose(plan.frame) and mapping.kind == "range"
            shares.append("series" if window == "series" else "file" if grid else "")
        return tuple(shares) if any(shares) else ()

    def of(
        self,
        where: FrameLocation,
        shares: tuple[str, ...],
        together: Sequence[FrameLocation] = (),
    ) -> list[SharedRange | None]:
        """The mapping of each channel that a frame has in common with its dose grid or its series.

        Args:
            where: The frame.
            shares: What it shares, see `sharers`.
            together: A frame of each file of its sample; dose in several files has the range of all of them.

        Raises:
            DicomTorchError: A frame that has to be measured cannot be read; the message names it.
        """
        index = self._fetcher.index
        found: dict[str, SharedRange | None] = {"": None}
        if "file" in shares:
            grids = [self._grid(one) for one in together or (where,)]
            found["file"] = max(grids, key=lambda grid: grid.high)
        if "series" in shares:
            series = index.gather("SeriesInstanceUID", np.array([where.position]))[0]
            found["series"] = self._get(("series", series), lambda: self._series_range(series))
        return [found[what] for what in shares]

    def _get(self, key: Any, make: Callable[[], SharedRange]) -> SharedRange:
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = make()
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return found

    def _grid(self, where: FrameLocation) -> SharedRange:
        return self._get(("file", where.file), lambda: self._dose_range(where.position))

    def _dose_range(self, position: int) -> SharedRange:
        ranges = self._measured(self._fetcher.index.whole_file(position))
        return SharedRange(0.0, float(ranges[:, 1].max()), "dose")

    def _series_range(self, series: str) -> SharedRange:
        frames = self._fetcher.index.filter(SeriesInstanceUID=series)
        numbers = np.asarray(frames.column("frame_values"))
        known, first = np.unique(numbers, return_index=True)
        values = [frames.frame_values(int(k)) for k in first]
        common = common_window(values, "series")
        if common is not None:
            return common
        counted = [number for number, of in zip(known, values, strict=True) if has_voi(of)]
        ranges = self._measured(frames.select(np.flatnonzero(np.isin(numbers, counted))))
        return SharedRange(float(ranges[:, 0].min()), float(ranges[:, 1].max()), "series")

    def _measured(self, index: FrameIndex) -> npt.NDArray[np.float64]:
        """Lowest and highest modality value of every frame of `index`, (len, 2)."""
        fetcher = self._fetcher
        fetcher.will_need(range(len(index)), index)
        ranges = []
        with fetcher.files(index) as files:
            for where in index.locate(range(len(index))):
                values = index.frame_values(where.position)
                try:
                    backend = fetcher.backends.of(values.pixel)
                    stored = fetcher.stored(where, files, values.pixel, backend)
                    ranges.append(statistics.frame_range(stored, values))
                except DicomTorchError as error:
                    path = printable(index.path(where.position))
                    frame = index.gather("frame", np.array([where.position]))[0]
                    raise type(error)(
                        f"it is shown alike with frame {frame} of {path}, which cannot be measured: {error}"
                    ) from error
        return np.array(ranges)
