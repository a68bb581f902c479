"""Which frames are beside each other where a series has no order."""

from __future__ import annotations

from typing import Any

import pytest

from dicomtorch.errors import GeometryError, OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.neighbours import frame_order
from tests.support.phantoms import file_rows

PLANE: dict[str, Any] = {
    "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "PixelSpacing": (0.5, 0.5),
    "Rows": 64,
    "Columns": 64,
}


def index_of(*slices: tuple[str, float, str]) -> FrameIndex:
    """(series, place, UID) of each slice."""
    rows = [
        file_rows(
            f"{k:03d}.dcm", k, SeriesInstanceUID=series, ImagePositionPatient=(0.0, 0.0, z), SOPInstanceUID=uid,
            **PLANE,
        )
        for k, (series, z, uid) in enumerate(slices)
    ]  # fmt: skip
    return FrameIndex.build(rows, root=b"/data")


def runs_of(index: FrameIndex, on_gap: Any) -> list[list[int]]:
    runs = frame_order(index, on_gap)
    return [
        runs.order[a:b].tolist() for a, b in zip(runs.starts[:-1], runs.starts[1:], strict=True)
    ]


GOOD = [("1.1", 5.0, "1"), ("1.1", 0.0, "2"), ("1.1", 10.0, "3")]
REPEATED = [("1.2", 0.0, "4"), ("1.2", 0.0, "5"), ("1.2", 5.0, "6")]


def test_a_series_without_order_leaves_others_alone() -> None:
    index = index_of(*GOOD, *REPEATED)
    with pytest.raises(GeometryError, match=r"have no neighbours: .*003\.dcm, .*005\.dcm.*on_gap"):
        frame_order(index)
    with pytest.warns(UserWarning, match="no neighbours"):
        frame_order(index, "warn")
    assert runs_of(index, "keep") == [[3], [4], [5], [1, 0, 2]]
    with pytest.raises(OptionError, match="on_gap"):
        frame_order(index, "ignore")  # type: ignore[arg-type]


def test_a_copy_has_no_neighbours() -> None:
    index = index_of(*GOOD, ("1.1", 5.0, "1"))
    with pytest.raises(GeometryError, match=r"003\.dcm.*deduplicate"):
        frame_order(index)
    assert runs_of(index, "keep") == [[3], [1, 0, 2]]


def test_frames_without_a_place_are_alone() -> None:
    index = index_of(*GOOD, ("1.3", float("nan"), "9"))
    assert runs_of(index, "raise") == [[3], [1, 0, 2]]


def test_a_sheet_has_no_neighbours() -> None:
    """It is a whole volume; those of other times are in other volumes."""
    rows = [
        file_rows(
            f"{k}.dcm", k, **{**PLANE, "SOPInstanceUID": f"1.{k}", "AcquisitionTime": 10.0 + k},
            mosaic="2\\2\\0\\0\\0\\0\\0\\3", ImagePositionPatient=(float("nan"),) * 3,
        )
        for k in range(3)
    ]  # fmt: skip
    assert runs_of(FrameIndex.build(rows, root=b"/data"), "raise") == [[0], [1], [2]]
