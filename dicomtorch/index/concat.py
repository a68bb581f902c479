"""Several scans as one: the shards of a job array, sites, years."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from dicomtorch.errors import OptionError, printable
from dicomtorch.index.builder import Part, merge_parts, part_columns
from dicomtorch.index.columns import Packed
from dicomtorch.index.generation import (
    Generation,
    Rows,
    finish,
    frame_columns,
    take_files,
    take_lookups,
)
from dicomtorch.model.schema import LUT_COLUMNS

_UNREAD = -1  # modification time of what could not be opened


def concatenated(scans: Sequence[tuple[Generation, Rows | None]]) -> tuple[Generation, Rows | None]:
    """One scan of the files of several, ordered by path, and the rows of it that were selected in any of them.

    Args:
        scans: Each with the rows that are selected, `None` for all.

    Raises:
        OptionError: There is none, they have different tags or limits, or say different things of one file.
    """
    if not scans:
        raise OptionError("concat needs an index at least")
    generations = [generation for generation, _ in scans]
    _refuse_different(generations)
    root = _common([generation.root for generation in generations])
    paths = [_below(root, generation) for generation in generations]
    kept = _kept(generations, paths, root)
    parts = [
        _part(generation, names, chosen)
        for generation, names, chosen in zip(generations, paths, kept, strict=True)
    ]
    first = generations[0]
    part = merge_parts(parts)
    whole = finish(root, first.tags, part.frames, part.files, part.lookups, first.limits)
    if all(rows is None for _, rows in scans):
        return whole, None
    files: Any = whole.files
    place = {path: int(row) for path, row in zip(files["path"], files["first_row"], strict=True)}
    rows = [_moved(scan, names, place) for scan, names in zip(scans, paths, strict=True)]
    return whole, _each_once(np.concatenate(rows))


def _refuse_different(generations: Sequence[Generation]) -> None:
    first = generations[0]
    for k, other in enumerate(generations[1:], 1):
        if dict(other.tags) != dict(first.tags):
            names = [", ".join(sorted(one.tags)) or "none" for one in (first, other)]
            raise OptionError(
                f"index 0 has other tags than index {k} ({names[0]}; {names[1]}); scan all with the same tags="
            )
        if other.limits != first.limits:
            raise OptionError(
                f"index 0 was scanned with other limits than index {k}; scan all with the same limits="
            )


def _common(roots: Sequence[bytes]) -> bytes:
    """The deepest folder or address that all are below."""
    if len(set(roots)) == 1:
        return roots[0]
    if not any(b"://" in root for root in roots):
        try:
            return os.path.commonpath(roots)
        except ValueError as error:
            raise OptionError("the indexes are of different drives; keep them apart") from error
    levels = zip(*(root.rstrip(b"/").split(b"/") for root in roots), strict=False)
    same = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    if len(same) < 3:  # scheme, nothing, bucket or host
        raise OptionError(
            "the indexes are of different places; keep them apart, and put their datasets together with "
            "torch.utils.data.ConcatDataset"
        )
    return b"/".join(same)


def _below(root: bytes, generation: Generation) -> list[bytes]:
    """The paths of a scan below another root."""
    paths: Any = generation.files["path"]
    prefix = generation.root[len(root) :].lstrip(b"/\\" if os.sep == "\\" else b"/")
    return [os.path.join(prefix, path) for path in paths] if prefix else list(paths)


def _kept(
    generations: Sequence[Generation], paths: Sequence[list[bytes]], root: bytes
) -> list[Rows]:
    """The files that each gives: of one that several have, the first that could open it.

    Raises:
        OptionError: It changed in between.
    """
    given: dict[bytes, tuple[int, int]] = {}
    for k, names in enumerate(paths):
        for row, path in enumerate(names):
            before = given.setdefault(path, (k, row))
            if before == (k, row):
                continue
            one, other = _identity(generations, *before), _identity(generations, k, row)
            if one[1] == _UNREAD != other[1]:
                given[path] = (k, row)
            elif other[1] != _UNREAD and not _is_same(one, other):
                raise OptionError(
                    f"index {before[0]} and index {k} say different things of {printable(os.path.join(root, path))}, "
                    f"which changed in between; refresh one of them (scan(..., index=old)) or leave the file out"
                )
    kept: list[list[int]] = [[] for _ in generations]
    for k, row in given.values():
        kept[k].append(row)
    return [np.array(sorted(rows), np.int64) for rows in kept]


def _identity(generations: Sequence[Generation], k: int, row: int) -> tuple[int, int, int, str]:
    files: Any = generations[k].files
    size, time_ns, inode = (int(files[name][row]) for name in ("size", "mtime_ns", "inode"))
    return size, time_ns, inode, files["version"][row]


def _is_same(one: tuple[int, int, int, str], other: tuple[int, int, int, str]) -> bool:
    unknown = 0 in (one[2], other[2])
    return one[:2] == other[:2] and one[3] == other[3] and (unknown or one[2] == other[2])


def _part(generation: Generation, paths: list[bytes], chosen: Rows) -> Part:
    """Some files of a scan, as if they had just been read."""
    frames, files = take_files(generation, chosen)
    files["path"] = Packed.of([paths[k] for k in chosen.tolist()])
    lookups = take_lookups(frames, generation.lookups)
    starts = np.unique(np.concatenate([np.asarray(frames[name]) for name in LUT_COLUMNS]))
    ends = np.append(starts[starts >= 0], len(lookups["bits"]))
    columns = [column.name for column in part_columns(frame_columns(generation.tags))]
    return Part({name: frames[name] for name in columns}, files, lookups, np.diff(ends).tolist())


def _moved(
    scan: tuple[Generation, Rows | None], paths: list[bytes], place: dict[bytes, int]
) -> Rows:
    """Where the selected rows of a scan are in the one of all."""
    generation, rows = scan
    rows = np.arange(len(generation)) if rows is None else rows
    file = np.asarray(generation.frames["file"])[rows]
    first = np.array([place[path] for path in paths], np.int64)
    moved: Rows = first[file] + rows - np.asarray(generation.files["first_row"])[file]
    return moved


def _each_once(rows: Rows) -> Rows:
    """The first of each."""
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]
