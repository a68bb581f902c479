"""What `verify` found: counts and findings, as JSON and as text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dicomtorch.errors import format_count
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.quarantine import Quarantined
from dicomtorch.reports.page import PLAIN, Block, Line, Page, Sentence, group, listed
from dicomtorch.reports.text import format_name, name_file

_HEADINGS = {
    "failure": "Failed",
    "unsupported": "Not decoded by this backend",
    "difference": "Different",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One frame that failed or differs.

    Attributes:
        file: Row of the index's files table.
        frame: From 0 in the file.
        kind: "failure", "unsupported" (no decoder was tried) or "difference".
        text: The error without path and frame, or how much differs.
        backend: Whose error it is ("" where none decodes it), or the two that differ, as in "imagecodecs, pydicom".
    """

    file: int
    frame: int
    kind: str
    text: str
    backend: str


@dataclass(slots=True)
class Result:
    """What was found so far.

    Attributes:
        frames: Frames that are done, whatever came of it.
        resumed: How many of them the state file knew.
        decoded: Frames that the first backend decoded.
        compared: Frames that both decoded.
        single: Frames that the second backend does not decode, or that are decoded by one and the same.
        largest_accepted: Largest difference within the tolerance.
        damaged: Files that have no frame here because they are damaged.
        findings: By file and frame, once all is done.
    """

    frames: int = 0
    resumed: int = 0
    decoded: int = 0
    compared: int = 0
    single: int = 0
    largest_accepted: int = 0
    damaged: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no file is damaged, every frame was decoded, and none differs."""
        return not self.findings and not self.damaged

    def quarantined(self) -> list[Quarantined]:
        """The frames that training should leave out, each once, with what was said of it first."""
        found: dict[tuple[int, int], Quarantined] = {}
        for one in self.findings:
            entry = Quarantined(one.file, one.frame, f"{one.kind}: {one.text}")
            found.setdefault((one.file, one.frame), entry)
        return list(found.values())

    def add(self, unit: Result) -> None:
        """Counts in what was found in a part."""
        for name in ("frames", "resumed", "decoded", "compared", "single"):
            setattr(self, name, getattr(self, name) + getattr(unit, name))
        self.largest_accepted = max(self.largest_accepted, unit.largest_accepted)
        self.findings += unit.findings


def to_json(result: Result, index: FrameIndex, *, redact_paths: bool = False) -> dict[str, Any]:
    """Plain values, ready for `json.dumps`; files are named by path, or by number."""
    return {
        "frames": result.frames,
        "resumed": result.resumed,
        "decoded": result.decoded,
        "compared": result.compared,
        "not_compared": result.single,
        "damaged_files": result.damaged,
        "largest_accepted_difference": result.largest_accepted,
        "findings": [
            {
                **name_file(index, finding.file, redact_paths=redact_paths),
                **{name: value for name, value in asdict(finding).items() if name != "file"},
            }
            for finding in result.findings
        ],
    }


def format_result(
    result: Result, index: FrameIndex, *, redact_paths: bool = False, page: Page = PLAIN
) -> str:
    """The same as text for a terminal; frames of one file with the same error are one line."""
    blocks: list[Block] = [group([Sentence(line, 0) for line in _counts(result)])]
    for kind, heading in _HEADINGS.items():
        alike = _alike([finding for finding in result.findings if finding.kind == kind])
        if alike:
            frames = sum(len(one.frames) for one in alike)
            lines = [_line(one, index, redact_paths) for one in alike]
            title = f"{heading} ({format_count(frames, 'frame')}):"
            blocks.append(listed(title, lines, style="bold red"))
    return page.render(blocks)


def _counts(result: Result) -> list[str]:
    lines = [f"{result.decoded:,} of {format_count(result.frames, 'frame')} decoded"]
    if result.compared:
        lines.append(
            f"{result.compared:,} compared with a second decoder; the largest difference within the tolerance is "
            f"{result.largest_accepted}"
        )
    if result.single:
        lines.append(
            f"{format_count(result.single, 'frame')} not compared: no second decoder for them"
        )
    if result.resumed:
        lines.append(f"{format_count(result.resumed, 'frame')} known from the state file")
    if result.damaged:
        damaged = format_count(result.damaged, "damaged file")
        lines.append(f"{damaged} without frames; `dicomtorch scan` gives the reason")
    return lines


@dataclass(frozen=True, slots=True)
class _Alike:
    """Frames of one file of which the same is said: each reason with the backends whose it is."""

    file: int
    frames: list[int]
    reasons: dict[str, list[str]]


def _alike(findings: Sequence[Finding]) -> list[_Alike]:
    """Findings by frame, each frame once, then frames of a file together whose reasons differ in numbers only."""
    by_frame: dict[tuple[int, int], dict[str, list[str]]] = {}
    for finding in findings:
        reasons = by_frame.setdefault((finding.file, finding.frame), {})
        reasons.setdefault(finding.text, []).append(finding.backend)
    found: dict[tuple[Any, ...], _Alike] = {}
    for (file, frame), reasons in by_frame.items():
        said = tuple((re.sub(r"\d+", "", text), *names) for text, names in reasons.items())
        found.setdefault((file, said), _Alike(file, [], reasons)).frames.append(frame)
    return list(found.values())


def _line(one: _Alike, index: FrameIndex, redact_paths: bool) -> Line:
    name = format_name(name_file(index, one.file, redact_paths=redact_paths))
    where = f", {_numbers(one.frames)}"
    if len(one.reasons) == 1:
        ((text, backends),) = one.reasons.items()
        by = f" ({', '.join(backends)})" if any(backends) else ""
        return Line(name, text, where=f"{where}{by}")
    said = (f"({', '.join(backends)}) {text}" for text, backends in one.reasons.items())
    return Line(name, "; ".join(said), where=where)


def _numbers(frames: Sequence[int]) -> str:
    if len(frames) == 1:
        return f"frame {frames[0]}"
    more = f" and {len(frames) - 5:,} more" if len(frames) > 5 else ""
    return f"frames {', '.join(map(str, frames[:5]))}{more}"
