"""Plain text of reports: counts, sizes, names and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dicomtorch.errors import printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.report import ScanReport

CLASS_NAMES = {
    "image": "images",
    "no_pixels": "DICOM without pixels",
    "unsupported": "images that are not decoded",
    "not_dicom": "not DICOM",
    "unreadable": "damaged",
}
PROBLEMS = ("unsupported", "unreadable")
"""File classes that somebody should look at."""

_MOST_LISTED = 20

Row = Sequence[object]


def format_bytes(count: float) -> str:
    """As in 76.7 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_count(count: int, noun: str) -> str:
    """As in 1 file, 1,234 files; "series" stays as it is."""
    return f"{count:,} {noun}{'' if count == 1 or noun.endswith('s') else 's'}"


def nothing_found(report: ScanReport) -> str:
    """Says that there is no image, and what there is instead."""
    found = ", ".join(f"{CLASS_NAMES[name]}: {n:,}" for name, n in report.counts.items() if n)
    files = format_count(len(report.findings), "file")
    return f"there is no frame here, in {files}{found and f' ({found})'}"


def format_findings(findings: list[dict[str, Any]]) -> list[str]:
    """Damaged and undecodable files by name; of the others only how many there are for each reason."""
    blocks = []
    for name in PROBLEMS:
        mine = [finding for finding in findings if finding["class"] == name]
        lines = [
            f"  {format_name(finding)}: {harmless(finding['reason'])}"
            for finding in mine[:_MOST_LISTED]
        ]
        if len(mine) > _MOST_LISTED:
            lines.append(f"  and {len(mine) - _MOST_LISTED:,} more; --json lists them all")
        if mine:
            blocks.append("\n".join([f"{CLASS_NAMES[name].capitalize()}:", *lines]))
    alike: dict[
        str, list[str]
    ] = {}  # reasons that differ in numbers only, such as offsets, are one line
    for finding in findings:
        if finding["class"] not in PROBLEMS and finding["reason"]:
            line = f"{CLASS_NAMES[finding['class']]}: {harmless(finding['reason'])}"
            alike.setdefault(re.sub(r"\d+", "", line), []).append(line)
    if alike:
        lines = [
            f"  {len(same):6,}  {same[0]}{', or the like' * (len(set(same)) > 1)}"
            for same in sorted(alike.values(), key=len, reverse=True)
        ]
        blocks.append("\n".join(["Noticed (files):", *lines]))
    return blocks


def name_file(index: FrameIndex, file: int, *, redact_paths: bool = False) -> dict[str, Any]:
    """How a row of the files table is named: by its path below the root, or by its number in the scan."""
    return {"file": file} if redact_paths else {"path": printable(index.files["path"][file])}


def format_name(entry: dict[str, Any]) -> str:
    """What `name_file` gave, as text."""
    return str(entry["path"]) if "path" in entry else f"file {entry['file']}"


def format_table(header: Row, rows: Sequence[Row]) -> str:
    """Columns, text to the left and numbers to the right; long tables end with what was left out."""
    shown, hidden = rows[:_MOST_LISTED], rows[_MOST_LISTED:]
    cells = [
        [f"{cell:,}" if isinstance(cell, int) else harmless(str(cell)) for cell in row]
        for row in (header, *shown)
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = (
        [bool(shown) and isinstance(cell, int) for cell in shown[0]]
        if shown
        else [False] * len(header)
    )
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]
    if hidden:
        lines.append(f"and {len(hidden):,} more; --json lists them all")
    return "\n".join(lines)


def harmless(text: str) -> str:
    """Without the control characters that a value of a file may bring to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
