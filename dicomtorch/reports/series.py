"""What each series of an index is: its volumes, what tells them apart, what differs inside, what is left out.

```python
>>> print(format_series(describe_series(index), index))
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dicomtorch.errors import format_count
from dicomtorch.index.codes import firsts, numbered
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.shown import shown
from dicomtorch.reports.page import PLAIN, Block, Line, Page, Sentence, group, listed, table
from dicomtorch.reports.text import format_name, name_file
from dicomtorch.series.search import stacks
from dicomtorch.series.stacks import Stack, StackList
from dicomtorch.series.volumes import series_volumes

_LEGEND = (
    "volumes: number x slices*rows*columns; mm: between slices*rows, or slices*rows*columns; separated_by: what tells "
    "volumes of one series apart."
)
_SERIES = ("patient", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(slots=True)
class SeriesReport:
    """One series.

    Attributes:
        file: Row of the index's files table: its first file.
        modality: As shown.
        frames: How many.
        volumes: Its stacks, in order.
        is_one_array: Whether the voxels of all volumes are at the same places.
        left_out: Why frames are in no volume -> how many.
    """

    file: int
    modality: str
    frames: int
    volumes: list[Stack] = field(default_factory=list)
    is_one_array: bool = False
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def separated_by(self) -> list[str]:
        """Attributes that tell the volumes apart."""
        return list(dict.fromkeys(name for one in self.volumes for name in one.separated_by))

    @property
    def differing(self) -> list[str]:
        """Attributes that differ inside of volumes."""
        return list(dict.fromkeys(name for one in self.volumes for name in one.differing))

    @property
    def missing(self) -> int:
        """Slices that gaps leave room for."""
        return sum(gap.missing for one in self.volumes for gap in one.report.gaps)

    @property
    def uneven(self) -> int:
        """Slices that are not where equal spacing would put them."""
        return sum(len(one.report.unequal) for one in self.volumes)

    @property
    def copies(self) -> int:
        """Copies of slices that were left out."""
        return sum(len(one.report.duplicates) for one in self.volumes)


def describe_series(index: FrameIndex) -> list[SeriesReport]:
    """Puts the frames of an index into volumes, and says what there is of each series, in the order of its files."""
    if not len(index):
        return []
    found = stacks(index, on_gap="keep")
    codes = numbered(map(index.column, _SERIES), len(index))
    first, counts = firsts(codes), np.bincount(codes)
    order = np.argsort(first)
    files, modalities = (index.gather(name, first[order]) for name in ("file", "Modality"))
    series = {
        number: SeriesReport(file, shown("Modality", modality), frames)
        for number, file, modality, frames in zip(
            order.tolist(), files, modalities, counts[order].tolist(), strict=True
        )
    }
    for volumes in series_volumes(index, found):
        mine = [found[k] for k in volumes.stacks]
        one = series[int(codes[mine[0].positions[0]])]
        one.volumes, one.is_one_array = mine, volumes.share_grid
    _leave_out(series, codes, found)
    return list(series.values())


def _leave_out(series: dict[int, SeriesReport], codes: np.ndarray, found: StackList) -> None:
    for part in found.left_out:
        numbers, counts = np.unique(codes[part.positions], return_counts=True)
        for code, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            left = series[code].left_out
            left[part.reason] = left.get(part.reason, 0) + count


def to_json(
    found: Sequence[SeriesReport], index: FrameIndex, *, redact_paths: bool = False
) -> list[dict[str, Any]]:
    """The same as plain values, ready for `json.dumps`; files are named by path, or by number."""
    return [
        {
            **name_file(index, one.file, redact_paths=redact_paths),
            "modality": one.modality,
            "frames": one.frames,
            "one_array": one.is_one_array,
            "separated_by": one.separated_by,
            "differing": one.differing,
            "missing_slices": one.missing,
            "uneven_slices": one.uneven,
            "copies": one.copies,
            "left_out": one.left_out,
            "volumes": [
                {
                    "shape": list(stack.shape),
                    "spacing": list(stack.spacing),
                    "separated_by": list(stack.separated_by),
                    "differing": list(stack.differing),
                    "tilt": stack.report.tilt,
                    "position_error": stack.report.position_error,
                    # Both name files.
                    "problems": [] if redact_paths else list(stack.problems),
                    "remarks": [] if redact_paths else list(stack.report.remarks),
                }
                for stack in one.volumes
            ],
        }
        for one in found
    ]


def series_blocks(
    found: Sequence[SeriesReport], index: FrameIndex, *, redact_paths: bool = False
) -> list[Block]:
    """The table of series, and below it what is missing or left out."""
    if not found:
        return []
    rows = []
    lines: list[Block] = []
    for one in found:
        name = format_name(name_file(index, one.file, redact_paths=redact_paths))
        kinds = Counter((_size(stack), _spacing(stack)) for stack in one.volumes).most_common()
        what = [f"{count} x {size}" for (size, _), count in kinds[:2]] + ["..."] * (len(kinds) > 2)
        spacing = dict.fromkeys(spacing for (_, spacing), _ in kinds[:2])
        told = ", ".join(one.separated_by)
        cells = (", ".join(what), ", ".join(spacing), told, _odd(one))
        rows.append((name, one.modality, one.frames, *(cell or "-" for cell in cells)))
        lines += [Line(name, f"{count:,}: {reason}") for reason, count in one.left_out.items()]
    header = ("A file of the series", "", "frames", "volumes", "mm", "separated_by", "odd")
    blocks = [group([table(header, rows), Sentence(_LEGEND, 0)])]
    if lines:
        blocks.append(listed("In no volume:", lines))
    return blocks


def _size(stack: Stack) -> str:
    """Slices, rows and columns, short enough for a terminal."""
    return "*".join(map(str, stack.shape))


def _spacing(stack: Stack) -> str:
    between, rows, columns = (f"{number:.3g}" for number in stack.spacing)
    return f"{between}*{rows}" if rows == columns else f"{between}*{rows}*{columns}"


def _odd(one: SeriesReport) -> str:
    parts = [f"{one.missing:,} missing"] * bool(one.missing)
    parts += [f"{one.uneven:,} uneven"] * bool(one.uneven)
    parts += [format_count(one.copies, "copy")] * bool(one.copies)
    parts += [f"{', '.join(one.differing)} differ"] * bool(one.differing)
    if len(one.volumes) > 1 and not one.is_one_array:
        parts.append("several grids")
    return "; ".join(parts).replace("copys", "copies")


def format_series(
    found: Sequence[SeriesReport],
    index: FrameIndex,
    *,
    redact_paths: bool = False,
    page: Page = PLAIN,
) -> str:
    """The same as text for a terminal."""
    return page.render(series_blocks(found, index, redact_paths=redact_paths))
