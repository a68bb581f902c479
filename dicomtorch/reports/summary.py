"""What a scan found, counted: for people as a table, for programs as JSON.

Neither has values that identify a patient; both have paths, unless they are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.backends.base import choose_backend
from dicomtorch.errors import UnsupportedError, format_count, printable, redacting
from dicomtorch.index.codes import firsts, numbered
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.report import CLASS_NAMES, ScanReport
from dicomtorch.model.shown import shown, shown_uid
from dicomtorch.model.syntaxes import uid_name
from dicomtorch.reports.page import PLAIN, Block, Page, Sentence, group, table
from dicomtorch.reports.text import PROBLEMS, findings_blocks, format_bytes


def summarize(
    index: FrameIndex,
    report: ScanReport,
    *,
    tags: Sequence[str] = (),
    redact_paths: bool = False,
) -> dict[str, Any]:
    """Counts of everything that decides what can be trained on.

    Args:
        index: The frames.
        report: The files.
        tags: Columns of the index to look at more closely.
        redact_paths: Leaves paths out; a file is then named by its number in the scan.

    Returns:
        A dict of plain values, ready for `json.dumps`:
            files: Number of files per class.
            frames: Number of frames.
            pixel_data_bytes: Encoded bytes of all frames.
            scan: Files read, reused and removed, and seconds.
            modalities, sop_classes, transfer_syntaxes: Lists of `name` (and `uid`), `frames`, `files`.
            sizes: The same of rows, columns, samples_per_pixel and bits_stored.
            decoding: Per kind of image `transfer_syntax`, `frames`, the `backend` that decodes it ("" if none) and
                the `reason` if there is none.
            tags: Per column of `tags`, the frames that have a value and the number of distinct values.
            findings: `path` (or `file`), `class` and `reason` of each file with something to say about.
    """
    return {
        "files": dict(report.counts),
        "frames": len(index),
        "pixel_data_bytes": int(np.sum(index.column("length"))),
        "scan": {
            "read": report.read,
            "reused": report.reused,
            "removed": report.removed,
            "seconds": round(report.seconds, 3),
        },
        "modalities": _count(index, "Modality", partial(shown, "Modality")),
        "sop_classes": _with_names(_count(index, "SOPClassUID", shown_uid)),
        "transfer_syntaxes": _with_names(_count(index, "TransferSyntaxUID", shown_uid)),
        "sizes": _sizes(index),
        "decoding": _decoding(index.image_pixels()),
        "tags": {keyword: _presence(index.column(keyword)) for keyword in tags},
        "findings": [
            {
                **(
                    {"file": number}
                    if redact_paths or redacting()
                    else {"path": printable(finding.path)}
                ),
                "class": finding.file_class,
                "reason": finding.reason,
            }
            for number, finding in ((k, report.findings[k]) for k in report.findings.told())
        ],
    }


def has_problems(summary: dict[str, Any]) -> bool:
    """Whether files are damaged or some image cannot be decoded."""
    return any(summary["files"][name] for name in PROBLEMS) or any(
        not entry["backend"] for entry in summary["decoding"]
    )


def format_summary(summary: dict[str, Any], page: Page = PLAIN) -> str:
    """The same as text for a terminal."""
    return page.render(summary_blocks(summary))


def summary_blocks(summary: dict[str, Any]) -> list[Block]:
    """The parts of the text."""
    files = summary["files"]
    blocks: list[Block] = [
        Sentence(headline(summary), 0),
    ]
    if any(files.values()):
        blocks.append(
            table(("Files", ""), [(CLASS_NAMES[name], n) for name, n in files.items() if n])
        )
    if summary["frames"]:
        undecodable = _undecodable(summary["decoding"])
        blocks += [
            _counted("Modality", summary["modalities"]),
            _counted("SOP class", summary["sop_classes"]),
            table(
                ("Transfer syntax", "frames", "files", "decoded by"),
                [
                    (e["name"], e["frames"], e["files"], _decoders(e["uid"], summary["decoding"]))
                    for e in summary["transfer_syntaxes"]
                ],
            ),
            table(
                ("Size", "frames", "files"),
                [(_size(e), e["frames"], e["files"]) for e in summary["sizes"]],
            ),
            *([group(undecodable)] if undecodable else []),
        ]
    if summary["tags"]:
        rows = [(keyword, e["frames"], e["distinct"]) for keyword, e in summary["tags"].items()]
        blocks.append(table(("Tag", "frames with a value", "distinct values"), rows))
    return blocks + findings_blocks(summary["findings"])


def _count(index: FrameIndex, name: str, show: Callable[[str], str]) -> list[dict[str, Any]]:
    """Frames and files per value of a text column, the most frequent first."""
    column: Texts = index.column(name)
    used = np.flatnonzero(np.bincount(column.codes, minlength=1)).tolist()
    numbers: dict[str, int] = {}  # values that are not shown may be alike
    number_of = np.zeros(int(max(used, default=-1)) + 1, np.int64)
    for code in used:
        number_of[code] = numbers.setdefault(show(column.value(code)), len(numbers))
    number = number_of[column.codes]
    frames, files = np.bincount(number, minlength=len(numbers)), _files_of_each(number, index)
    counted = [
        {"name": name, "frames": int(frames[k]), "files": files[k]} for name, k in numbers.items()
    ]
    return sorted(counted, key=lambda entry: (-entry["frames"], entry["name"]))


def _files_of_each(numbers: npt.NDArray[Any], index: FrameIndex) -> list[int]:
    """How many files have frames with each number."""
    file = np.asarray(index.column("file"), np.int64)
    many = int(numbers.max(initial=-1)) + 1
    if not len(file) or np.bincount(file).max() == 1:
        of_files = numbers
    else:
        pairs = np.unique(numbers.astype(np.int64) * (int(file.max()) + 1) + file)
        of_files = pairs // (int(file.max()) + 1)
    counts: list[int] = np.bincount(of_files, minlength=many).tolist()
    return counts


def _with_names(counted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    named = ((entry, uid_name(entry["name"])) for entry in counted)
    return [
        {**entry, "uid": entry["name"] if name else "", "name": name or entry["name"]}
        for entry, name in named
    ]


def _sizes(index: FrameIndex) -> list[dict[str, Any]]:
    names = ("Rows", "Columns", "SamplesPerPixel", "BitsStored")
    columns = [np.asarray(index.column(name)) for name in names]
    number = numbered(columns, len(index))
    first = firsts(number)
    sizes = np.stack([column[first].astype(np.int64) for column in columns], axis=1)
    frames, files = np.bincount(number), _files_of_each(number, index)
    keys = ("rows", "columns", "samples_per_pixel", "bits_stored")
    counted = [
        {**dict(zip(keys, map(int, size), strict=True)), "frames": int(n), "files": files[k]}
        for k, (size, n) in enumerate(zip(sizes, frames, strict=True))
    ]
    return sorted(counted, key=lambda entry: -entry["frames"])


def _decoding(pixels: Iterable[tuple[ImagePixel, int]]) -> list[dict[str, Any]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for pixel, frames in pixels:
        try:
            backend, reason = choose_backend("auto", pixel).name, ""
        except UnsupportedError as error:
            backend, reason = "", str(error)
        found[shown_uid(pixel.transfer_syntax_uid), backend, reason] += frames
    return [
        {"transfer_syntax": uid, "backend": backend, "frames": frames, "reason": reason}
        for (uid, backend, reason), frames in found.most_common()
    ]


def _presence(column: Any) -> dict[str, int]:
    """How often a column has a value, and how many different ones; never the values."""
    if isinstance(column, Texts):
        codes, frames = np.unique(column.codes, return_counts=True)
        present = [
            (code, n) for code, n in zip(codes, frames, strict=True) if column.value(int(code))
        ]
        return {"frames": int(sum(n for _, n in present)), "distinct": len(present)}
    numbers = np.asarray(column).reshape(len(column), -1)
    absent = np.isnan(numbers) if numbers.dtype.kind == "f" else numbers == -1
    values = numbers[~absent.all(axis=1)]
    return {"frames": len(values), "distinct": len(np.unique(values, axis=0))}


def headline(summary: dict[str, Any]) -> str:
    """How much there is, in one line."""
    files, scan = sum(summary["files"].values()), summary["scan"]
    took = f", scanned in {scan['seconds']:.1f} s" if scan["read"] else ""
    size = format_bytes(summary["pixel_data_bytes"])
    return f"{format_count(files, 'file')}, {format_count(summary['frames'], 'frame')}, {size} of pixel data{took}"


def _size(entry: dict[str, Any]) -> str:
    samples = f" x {entry['samples_per_pixel']}" if entry["samples_per_pixel"] > 1 else ""
    return f"{entry['rows']} x {entry['columns']}{samples}, {entry['bits_stored']} bit"


def _decoders(uid: str, decoding: list[dict[str, Any]]) -> str:
    mine = [entry for entry in decoding if entry["transfer_syntax"] == uid]
    names = sorted({entry["backend"] for entry in mine if entry["backend"]})
    missing = sum(entry["frames"] for entry in mine if not entry["backend"])
    return ", ".join(
        [*names, *([f"{format_count(missing, 'frame')} by nothing"] if missing else [])]
    )


def _undecodable(decoding: list[dict[str, Any]]) -> list[Block]:
    rows = [(entry["frames"], entry["reason"]) for entry in decoding if not entry["backend"]]
    return [Sentence(f"{format_count(frames, 'frame')}: {reason}", 0) for frames, reason in rows]


def _counted(title: str, entries: list[dict[str, Any]]) -> Block:
    rows = [(entry["name"] or "(none)", entry["frames"], entry["files"]) for entry in entries]
    return table((title, "frames", "files"), rows)
