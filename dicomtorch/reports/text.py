"""Plain text of reports: counts, sizes, names and tables."""

from __future__ import annotations

import re
from typing import Any

from dicomtorch.errors import format_count, printable, redacting
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.report import CLASS_NAMES, ScanReport
from dicomtorch.reports.page import Block, Line, listed

PROBLEMS = ("unsupported", "unreadable")
"""File classes that somebody should look at."""


def format_bytes(count: float) -> str:
    """As in 76.7 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def nothing_found(report: ScanReport) -> str:
    """Says that there is no image, and what there is instead."""
    found = ", ".join(f"{CLASS_NAMES[name]}: {n:,}" for name, n in report.counts.items() if n)
    if len(report.findings) == 1 and report.findings[0].reason:
        found = f"{CLASS_NAMES[report.findings[0].file_class]}: {report.findings[0].reason}"
    files = format_count(len(report.findings), "file")
    return f"there is no frame here, in {files}{found and f' ({found})'}"


def findings_blocks(findings: list[dict[str, Any]]) -> list[Block]:
    """Damaged and undecodable files by name; of the others only how many there are for each reason."""
    blocks = []
    for name in PROBLEMS:
        mine = [finding for finding in findings if finding["class"] == name]
        lines = [Line(format_name(finding), finding["reason"]) for finding in mine]
        if mine:
            blocks.append(listed(f"{CLASS_NAMES[name].capitalize()}:", lines, style="bold red"))
    alike: dict[str, list[str]] = {}  # reasons that differ in numbers only, such as offsets
    for finding in findings:
        if finding["class"] not in PROBLEMS and finding["reason"]:
            line = f"{CLASS_NAMES[finding['class']]}: {finding['reason']}"
            alike.setdefault(re.sub(r"\d[\d,]*", "", line), []).append(line)
    if alike:
        noticed = [
            Line("", f"{len(same):6,}  {same[0]}{', or the like' * (len(set(same)) > 1)}")
            for same in sorted(alike.values(), key=len, reverse=True)
        ]
        blocks.append(listed("Noticed (files):", noticed))
    return blocks


def name_file(index: FrameIndex, file: int, *, redact_paths: bool = False) -> dict[str, Any]:
    """How a row of the files table is named: by its path below the root, or by its number in the scan."""
    redacted = redact_paths or redacting()
    return {"file": file} if redacted else {"path": printable(index.files["path"][file])}


def format_name(entry: dict[str, Any]) -> str:
    """What `name_file` gave, as text."""
    return str(entry["path"]) if "path" in entry else f"file {entry['file']}"
