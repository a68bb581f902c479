"""Which files are as they were when an index was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dicomtorch.index.builder import build_part
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner.entries import UNREAD, Entry
from dicomtorch.scanner.worker import EntryReader, Job

_IDENTITY = ("size", "mtime_ns", "inode")
_SAMPLE = 32  # headers
_TOLD_BY = ("frame", "offset", "length", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns")


def compare(
    index: FrameIndex, old: Mapping[bytes, int], entries: Sequence[Entry], job: Job
) -> tuple[list[int], list[Entry]]:
    """(rows of the files table that still hold, entries that have to be read).

    A file is as it was if its size, time and inode are. Where an index does not know inodes, because it was moved with
    its files, size and time have to do, and some headers are read: if one of them says something else, no such file is
    taken over.

    Args:
        index: A whole scan.
        old: The row of each path in its files table.
        entries: The files that there are.
        job: How their headers would be read.
    """
    if not entries or not old:
        return [], list(entries)
    rows = np.array([old.get(entry.path, -1) for entry in entries], np.int64)
    now = np.array([(entry.size, entry.mtime_ns, entry.inode) for entry in entries], np.int64)
    before = np.stack([np.asarray(index.files[name])[rows] for name in _IDENTITY], axis=1)
    same = (rows >= 0) & (before[:, :2] == now[:, :2]).all(axis=1) & (now[:, 1] != UNREAD)
    unknown = same & (before[:, 2] == 0) & (now[:, 2] != 0)
    same &= (before[:, 2] == now[:, 2]) | unknown
    if unknown.any() and not _agree(index, rows, entries, np.flatnonzero(unknown), job):
        same &= ~unknown
    return rows[same].tolist(), [entries[k] for k in np.flatnonzero(~same).tolist()]


def _agree(index: FrameIndex, rows: Any, entries: Sequence[Entry], among: Any, job: Job) -> bool:
    """Whether some of the entries `among`, evenly spread, have the headers that the index was made of."""
    held = np.asarray(index.files["frames"])[rows[among]]
    among = among[held > 0]
    if not len(among):
        return True
    chosen = among[np.unique(np.linspace(0, len(among) - 1, _SAMPLE).astype(np.intp))]
    reader = EntryReader(job)
    for k in chosen.tolist():
        read = reader.read(entries[k])
        first, count = (int(index.files[name][rows[k]]) for name in ("first_row", "frames"))
        if read.count != count:
            return False
        part = build_part([read], job.columns).frames
        for name in _TOLD_BY:
            kept = index.gather(name, np.arange(first, first + count))
            if kept != list(np.asarray(part[name])):
                return False
    return True
