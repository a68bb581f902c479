"""Which files are as they were when an index was made."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from dicomtorch.index.builder import build_part
from dicomtorch.index.columns import Packed, large_binaries
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner.entries import UNREAD
from dicomtorch.scanner.listing import Listing
from dicomtorch.scanner.worker import EntryReader, Job

Rows = npt.NDArray[np.int64]

_SAMPLE = 32  # headers
_TOLD_BY = ("frame", "offset", "length", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns")


class Compared(NamedTuple):
    """What has become of the files of an index.

    Attributes:
        is_kept: For each row of its files table whether it still holds.
        changed: Places in the listing that have to be read.
        removed: How many files are no longer there.
        rows: The row of each place of the listing, -1 for a new one.
    """

    is_kept: npt.NDArray[np.bool_]
    changed: Rows
    removed: int
    rows: Rows

    def all_failed(self, index: FrameIndex) -> bool:
        """Whether none of the files to be read could be opened when the index was made."""
        rows = self.rows[self.changed]
        times = np.asarray(index.files["mtime_ns"])
        return bool((rows >= 0).all()) and bool((times[rows] == UNREAD).all())


def compare(index: FrameIndex, listing: Listing, job: Job) -> Compared:
    """Which files are as they were.

    A file is as it was if its size, time and inode are. Where an index does not know inodes, because it was moved with
    its files, size and time have to do, and some headers are read: if one of them says something else, no such file is
    taken over. Files below a folder that could not be listed just now are kept as they were.

    Args:
        index: A whole scan.
        listing: The files that there are.
        job: How their headers would be read.
    """
    old: Any = index.files
    rows = _rows_of(listing.paths, _paths(index))
    there = np.zeros(len(old["size"]), np.bool_)
    there[rows[rows >= 0]] = True
    lost = _below_unlisted(listing, _paths(index)) & ~there
    known = np.flatnonzero(rows >= 0)
    at = rows[known]
    size, time_ns, inode = (
        column[known] for column in (listing.size, listing.mtime_ns, listing.inode)
    )
    same = (old["size"][at] == size) & (old["mtime_ns"][at] == time_ns) & (time_ns != UNREAD)
    before = old["inode"][at]
    unknown = same & (before == 0) & (inode != 0)
    same &= (before == inode) | unknown
    same &= _same_versions(old["version"], at, listing, known)
    if unknown.any() and not _agree(index, at, listing, known, np.flatnonzero(unknown), job):
        same &= ~unknown
    is_same = np.zeros(len(listing), np.bool_)
    is_same[known[same]] = True
    is_kept = lost.copy()
    is_kept[at[same]] = True
    return Compared(
        is_kept=is_kept,
        changed=np.flatnonzero(~is_same),
        removed=int(np.count_nonzero(~there & ~lost)),
        rows=rows,
    )


def _same_versions(old: Any, rows: Rows, listing: Listing, places: Rows) -> Any:
    """Whether the objects at some places have the versions that they had; files have none."""
    if not listing.versions and len(old.values) <= 1:
        return np.ones(len(rows), np.bool_)
    pairs = zip(rows.tolist(), places.tolist(), strict=True)
    return np.array([old[row] == listing.versions.get(k, "") for row, k in pairs], np.bool_)


def count_gone(index: FrameIndex, listing: Listing) -> int:
    """How many files of an index are no longer there."""
    rows = _rows_of(listing.paths, _paths(index))
    return len(index.files["size"]) - int(np.count_nonzero(rows >= 0))


def _paths(index: FrameIndex) -> Packed:
    paths = index.files["path"]
    assert isinstance(paths, Packed)
    return paths


def _rows_of(paths: Packed, known: Packed) -> Rows:
    """The place of each path among those that are known, -1 if it is not."""
    if not len(paths) or not len(known):
        return np.full(len(paths), -1, np.int64)
    found = pc.index_in(large_binaries(paths), value_set=large_binaries(known))
    return np.asarray(found.fill_null(-1)).astype(np.int64)


def _below_unlisted(listing: Listing, known: Packed) -> Any:
    """The known files of folders that could not be listed just now; what is said of each folder gets their number."""
    lost = np.zeros(len(known), np.bool_)
    for entry in listing.odd.values():
        if not entry.is_unlisted:
            continue
        prefix = b"" if entry.path == b"." else os.path.join(entry.path, b"")
        below = [k for k, p in enumerate(known) if p.startswith(prefix) and p != entry.path]
        if below:
            entry.reason += f"; the {len(below)} files known below it are kept as they were"
        lost[below] = True
    return lost


def _agree(
    index: FrameIndex, rows: Rows, listing: Listing, places: Rows, among: Rows, job: Job
) -> bool:
    """Whether some of the known files, evenly spread, have the headers that the index was made of.

    Args:
        index: A whole scan.
        rows: Of known files.
        listing: All files.
        places: Where in it each of `rows` is.
        among: Which of these to look at.
        job: How headers are read.
    """
    held = np.asarray(index.files["frames"])[rows[among]]
    among = among[held > 0]
    if not len(among):
        return True
    chosen = among[np.unique(np.linspace(0, len(among) - 1, _SAMPLE).astype(np.intp))]
    reader = EntryReader(job)
    for k in chosen.tolist():
        read = reader.read(listing[int(places[k])])
        first, count = (int(index.files[name][rows[k]]) for name in ("first_row", "frames"))
        if read.count != count:
            return False
        part = build_part([read], job.columns).frames
        for name in _TOLD_BY:
            kept = index.gather(name, np.arange(first, first + count))
            if kept != list(np.asarray(part[name])):
                return False
    return True
