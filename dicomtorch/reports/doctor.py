"""What to know about a tree before training on it: what is not decoded, what is lost, what may surprise.

```python
>>> report = examine(index, index.report())
>>> print(format_report(report, index))
```
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dicomtorch.backends import capability
from dicomtorch.backends.capability import Capability
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.report import ScanReport
from dicomtorch.model.shown import shown, shown_uid
from dicomtorch.reader.kernels import kernels
from dicomtorch.reports import checks, series
from dicomtorch.reports.checks import Level, Remark
from dicomtorch.reports.large import of_large_frames
from dicomtorch.reports.mask_checks import of_masks
from dicomtorch.reports.page import (
    PLAIN,
    Block,
    Heading,
    Line,
    Page,
    Sentence,
    group,
    table,
)
from dicomtorch.reports.series import SeriesReport, describe_series, series_blocks
from dicomtorch.reports.streams import check_streams
from dicomtorch.reports.text import format_name, name_file


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Attributes:
        decoding: What decodes each kind of image, the most frequent first.
        remarks: Problems first, then warnings, then notes.
        series: What each series is.
    """

    decoding: tuple[Capability, ...]
    remarks: tuple[Remark, ...]
    series: tuple[SeriesReport, ...] = ()

    @property
    def worst(self) -> Level | None:
        """The level of the worst remark."""
        return self.remarks[0].level if self.remarks else None


def examine(index: FrameIndex, report: ScanReport) -> Examination:
    """Runs every check over the columns of an index, and looks at the first bytes of one code stream a file.

    Args:
        index: The frames.
        report: The files.
    """
    decoding = capability.table(index.image_pixels())
    remarks = (
        checks.of_files(report, index)
        + checks.of_frames(index, decoding)
        + of_large_frames(index)
        + check_streams(index)
        + of_masks(index)
    )
    order = ("problem", "warning", "note")
    remarks.sort(key=lambda remark: order.index(remark.level))
    return Examination(tuple(decoding), tuple(remarks), tuple(describe_series(index)))


def to_json(found: Examination, index: FrameIndex, *, redact_paths: bool = False) -> dict[str, Any]:
    """The same as plain values, ready for `json.dumps`; files are named by path, or by number."""
    return {
        "frames": len(index),
        "worst": found.worst or "",
        "kernels": {"in_use": kernels().module is not None, "reason": kernels().reason},
        "decoding": [
            {
                "transfer_syntax": shown_uid(kind.pixel.transfer_syntax_uid),
                "name": kind.syntax_name,
                "photometric_interpretation": shown(
                    "PhotometricInterpretation", kind.pixel.photometric_interpretation
                ),
                "samples_per_pixel": kind.pixel.samples_per_pixel,
                "bits_allocated": kind.pixel.bits_allocated,
                "bits_stored": kind.pixel.bits_stored,
                "frames": kind.frames,
                "backends": list(kind.backends),
                "advice": kind.advice,
            }
            for kind in found.decoding
        ],
        "remarks": [
            {
                "check": remark.check,
                "level": remark.level,
                "text": remark.text,
                "advice": remark.advice,
                "frames": remark.frames,
                "files": [
                    name_file(index, file, redact_paths=redact_paths) for file in remark.files
                ],
            }
            for remark in found.remarks
        ],
        "series": series.to_json(found.series, index, redact_paths=redact_paths),
    }


def format_report(
    found: Examination, index: FrameIndex, *, redact_paths: bool = False, page: Page = PLAIN
) -> str:
    """The same as text for a terminal."""
    blocks: list[Block] = []
    if found.decoding:
        said = [Sentence(_kernels_line(), 0)]
        ways = {(kind.syntax_name, kind.backends, kind.advice) for kind in found.decoding}
        if len(ways) > len({name for name, *_ in ways}):
            said.insert(0, Sentence(_SEVERAL, 0))
        blocks.append(group([_decoding_table(found.decoding), *said]))
    with_volumes = [one for one in found.series if one.volumes]
    blocks += series_blocks(with_volumes, index, redact_paths=redact_paths)
    for level, (heading, style) in _HEADINGS.items():
        mine = [remark for remark in found.remarks if remark.level == level]
        if mine:
            lines = [line for remark in mine for line in _lines(remark, index, redact_paths)]
            blocks.append(group([Heading(heading, style), *lines]))
    if any(len(remark.files) > 1 for remark in found.remarks):
        blocks.append(Sentence("--json lists all files.", 0))
    if not found.remarks:
        text = "Nothing to remark." if len(index) else "There are no frames."
        blocks.append(Sentence(text, 0))
    return page.render(blocks)


_SEVERAL = (
    "A transfer syntax has several lines where some of its frames (by bits, colours) are decoded by "
    "other backends."
)

_HEADINGS = {
    "problem": ("Problems", "bold red"),
    "warning": ("Warnings", "bold yellow"),
    "note": ("Notes", "bold"),
}


def _decoding_table(decoding: Sequence[Capability]) -> Block:
    """A line for each transfer syntax, several where its kinds of image are decoded by different backends."""
    frames: defaultdict[tuple[str, str], int] = defaultdict(int)
    for kind in decoding:
        able = ", ".join(kind.backends) or f"nothing: {kind.advice}"
        frames[kind.syntax_name, able] += kind.frames
    rows = [(name, number, able) for (name, able), number in frames.items()]
    rows.sort(key=lambda row: (-row[1], row[0]))
    return table(("Transfer syntax", "frames", "decoded by"), rows)


def _kernels_line() -> str:
    found = kernels()
    if found.module is not None:
        return "Uncompressed frames of a batch are read by dicomtorch-kernels."
    return f"Uncompressed frames are converted by NumPy: {found.reason}."


def _lines(remark: Remark, index: FrameIndex, redact_paths: bool) -> list[Block]:
    """What was found, what to do, and one file with how many more there are."""
    lines: list[Block] = [Sentence(remark.text), Sentence(remark.advice, 4, "-> ")]
    if remark.files:
        name = format_name(name_file(index, remark.files[0], redact_paths=redact_paths))
        more = len(remark.files) - 1
        lines.append(Line(name, "", 7, f" and {more:,} more" if more else ""))
    return lines
