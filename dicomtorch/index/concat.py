"""Several scans as one: the shards of a job array, sites, years."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.errors import OptionError, printable
from dicomtorch.index.builder import Part, merge_parts, part_columns
from dicomtorch.index.columns import Packed, arrow_to_packed, large_binaries
from dicomtorch.index.files import Stored
from dicomtorch.index.generation import (
    Generation,
    Rows,
    by_path,
    finish,
    frame_columns,
    take_files,
    take_lookups,
)
from dicomtorch.index.joins import Joined
from dicomtorch.index.merging import concatenate_tables, is_repeated
from dicomtorch.model.schema import LUT_COLUMNS

_UNREAD = -1  # modification time of what could not be opened
_MOST_FILES = 2**31 - 1  # numbers of files are int32


def concatenated(scans: Sequence[Stored], names: Sequence[str] = ()) -> Stored:
    """One scan of the files of several, ordered by path, the rows of it that were selected in any of them, and labels.

    Args:
        scans: Each with the rows that are selected, `None` for all, and what was joined.
        names: What messages call them; "index 0" and so on if there are none.

    Raises:
        OptionError: There is none, they have different tags, limits or joined columns, or say different things of one
            file.
    """
    if not scans:
        raise OptionError("concat needs an index at least")
    names = names or [f"index {k}" for k in range(len(scans))]
    generations = [scan.generation for scan in scans]
    _refuse_different(generations, names)
    joined = _joined(scans, names)
    root = _common([generation.root for generation in generations])
    whole, places = _merged(generations, root, names)
    are_whole = all(scan.rows is None for scan in scans)
    if are_whole and not joined:
        return Stored(whole, None, ())
    first_rows = np.asarray(whole.files["first_row"])
    moved = [_moved(scan, first_rows[place]) for scan, place in zip(scans, places, strict=True)]
    rows = np.concatenate(moved)
    _, chosen, again = np.unique(rows, return_index=True, return_inverse=True)  # the first of each
    _refuse_contradictions(joined, chosen[again])
    if not are_whole:
        chosen.sort()
    kept = tuple(part.select(chosen) for part in joined)
    return Stored(whole, None if are_whole else rows[chosen], kept)


def _merged(
    generations: Sequence[Generation], root: bytes, names: Sequence[str]
) -> tuple[Generation, list[Rows]]:
    """(one scan of all files, the file of it that each file of each scan is)."""
    if sum(len(generation.files["size"]) for generation in generations) > _MOST_FILES:
        raise OptionError(f"an index has {_MOST_FILES:,} files at most; keep some of these apart")
    paths = [_below(root, generation) for generation in generations]
    kept, places = _without_repeated(generations, paths, names)
    parts = [_part(generations[k], paths[k], kept[k]) for k in _by_first(paths)]
    first = generations[0]
    part = merge_parts(parts)
    del parts, paths
    whole = finish(root, first.tags, part.frames, part.files, part.lookups, first.limits)
    return whole, places


def _refuse_different(generations: Sequence[Generation], names: Sequence[str]) -> None:
    first = generations[0]
    for name, other in zip(names[1:], generations[1:], strict=True):
        if dict(other.tags) != dict(first.tags):
            tags = [", ".join(sorted(one.tags)) or "none" for one in (first, other)]
            raise OptionError(
                f"{names[0]} has other tags than {name} ({tags[0]}; {tags[1]}); scan all with the same tags="
            )
        if other.limits != first.limits:
            raise OptionError(
                f"{names[0]} was scanned with other limits than {name}; scan all with the same limits="
            )


def _joined(scans: Sequence[Stored], names: Sequence[str]) -> list[Joined]:
    """What was joined to all of them, one after the other."""
    columns = [[part.columns for part in scan.joined] for scan in scans]
    for name, other in zip(names[1:], columns[1:], strict=True):
        if other != columns[0]:
            said = [
                ", ".join(f"{column.name} ({column.kind})" for part in one for column in part)
                for one in (columns[0], other)
            ]
            raise OptionError(
                f"{names[0]} has other joined columns than {name} ({said[0] or 'none'}; {said[1] or 'none'}); join the "
                "same tables to all, or to the index of all"
            )
    together = []
    for parts in zip(*(scan.joined for scan in scans), strict=True):
        tables = [part.table for part in parts]
        counts = [len(next(iter(table.values()))) for table in tables]
        starts = np.cumsum([0, *counts[:-1]], dtype=np.int32).tolist()
        rows = [part.rows + np.int32(start) for part, start in zip(parts, starts, strict=True)]
        together.append(Joined(np.concatenate(rows), parts[0].columns, concatenate_tables(tables)))
    return together


def _refuse_contradictions(joined: Sequence[Joined], first: Rows) -> None:
    """A frame that several have must have the same labels in all; `first` is where each position was met first."""
    repeated = np.flatnonzero(first != np.arange(len(first)))
    for part in joined if len(repeated) else ():
        pairs = np.stack([part.rows[repeated], part.rows[first[repeated]]], axis=1)
        for one, other in np.unique(pairs, axis=0).tolist():
            for name, data in part.table.items():
                if repr(data[one]) != repr(data[other]):  # nan is as nan
                    raise OptionError(
                        f"the indexes have different values of the joined column {name} for the same frames; join the "
                        "table to the index of all"
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
    if any(root.startswith(b"dicomweb") for root in roots):
        raise OptionError(
            "the indexes are of different DICOMweb servers, or of one by different addresses; keep them apart, and put "
            "their datasets together with torch.utils.data.ConcatDataset"
        )
    levels = zip(*(root.rstrip(b"/").split(b"/") for root in roots), strict=False)
    same = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    if len(same) < 3:  # scheme, nothing, bucket or host
        raise OptionError(
            "the indexes are of different places; keep them apart, and put their datasets together with "
            "torch.utils.data.ConcatDataset"
        )
    return b"/".join(same)


def _below(root: bytes, generation: Generation) -> Packed:
    """The paths of a scan below another root."""
    paths = generation.files["path"]
    assert isinstance(paths, Packed)
    prefix = generation.root[len(root) :].lstrip(b"/\\" if os.sep == "\\" else b"/")
    if not prefix or not len(paths):
        return paths
    before = pa.scalar(os.path.join(prefix, b""), pa.large_binary())
    nothing = pa.scalar(b"", pa.large_binary())
    return arrow_to_packed(
        pc.binary_join_element_wise(
            before, large_binaries(paths), nothing
        )  # the separator comes last
    )


def _by_first(paths: Sequence[Packed]) -> list[int]:
    """Scans in the order of their first paths: those of folders apart are in order then, one after the other."""
    return sorted(range(len(paths)), key=lambda k: paths[k][0] if len(paths[k]) else b"")


def _without_repeated(
    generations: Sequence[Generation], paths: Sequence[Packed], names: Sequence[str]
) -> tuple[list[Rows], list[Rows]]:
    """The files that each gives, and for each of its files the place among all in the order of paths.

    Of a file that several have, the first that could open it gives it.

    Raises:
        OptionError: It changed in between.
    """
    sequence = _by_first(paths)
    starts = np.cumsum([0, *(len(paths[k]) for k in sequence)])
    order, is_again = _repeated([paths[k] for k in sequence])
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(~is_again) - 1
    is_kept = np.ones(len(order), np.bool_)
    begins = np.flatnonzero(~is_again & np.append(is_again[1:], False))
    counts = np.diff(np.append(np.flatnonzero(~is_again), len(order)))
    for begin, count in zip(begins.tolist(), counts[counts > 1].tolist(), strict=True):
        at = order[begin : begin + count]
        parts = np.searchsorted(starts, at, side="right") - 1
        files = {sequence[k]: int(one - starts[k]) for k, one in zip(parts, at, strict=True)}
        giver = _giver(generations, dict(sorted(files.items())), names)
        is_kept[at] = [sequence[k] == giver for k in parts]
    kept: list[Any] = [None] * len(paths)
    places: list[Any] = [None] * len(paths)
    for k, start, end in zip(sequence, starts[:-1], starts[1:], strict=True):
        kept[k], places[k] = np.flatnonzero(is_kept[start:end]), place[start:end]
    return kept, places


def _repeated(paths: Sequence[Packed]) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """(the order of all paths, for each in that order whether it is the one before again)."""
    together = Packed.concatenate(paths)
    order, ordered = by_path(together), large_binaries(together)
    if order is None:
        order = np.arange(len(together))
    else:
        ordered = ordered.take(pa.array(order))
    again = np.zeros(len(order), np.bool_)
    again[1:] = np.asarray(pc.equal(ordered[:-1], ordered[1:]))
    return order, again


def _giver(generations: Sequence[Generation], files: dict[int, int], names: Sequence[str]) -> int:
    """The scan that gives a file which several have.

    Args:
        generations: All scans.
        files: Of each scan that has it, the row of its files table.
        names: What messages call them.
    """
    giver, first = next(iter(files.items()))
    for k, row in files.items():
        one, other = _said(generations[giver], first), _said(generations[k], row)
        if one.time_ns == _UNREAD != other.time_ns:
            giver, first = k, row
        elif other.time_ns != _UNREAD and not _is_same(one, other):
            path = os.path.join(generations[k].root, generations[k].files["path"][row])
            raise OptionError(
                f"{names[giver]} and {names[k]} say different things of {printable(path)}: it changed in between, or "
                f"was read by another version; scan one of them again, or leave the file out"
            )
    return giver


class _Said(NamedTuple):
    """What a scan says of a file."""

    size: int
    time_ns: int
    inode: int  # 0: not known
    version: str
    frames: int


def _said(generation: Generation, row: int) -> _Said:
    files: Any = generation.files
    size, time_ns, inode, frames = (
        int(files[name][row]) for name in ("size", "mtime_ns", "inode", "frames")
    )
    return _Said(size, time_ns, inode, files["version"][row], frames)


def _is_same(one: _Said, other: _Said) -> bool:
    unknown = 0 in (one.inode, other.inode)
    return one._replace(inode=0) == other._replace(inode=0) and (
        unknown or one.inode == other.inode
    )


def _part(generation: Generation, paths: Packed, chosen: Rows) -> Part:
    """Some files of a scan, as if they had just been read."""
    frames, files = dict(generation.frames), dict(generation.files)
    if len(chosen) < len(paths):
        frames, files = take_files(generation, chosen)
        paths = paths.take(chosen)
    files["path"] = paths
    lookups = take_lookups(frames, generation.lookups)
    starts = np.unique(np.concatenate([_numbers_in(frames[name]) for name in LUT_COLUMNS]))
    ends = np.append(starts[starts >= 0], len(lookups["bits"]))
    columns = [column.name for column in part_columns(frame_columns(generation.tags))]
    return Part({name: frames[name] for name in columns}, files, lookups, np.diff(ends).tolist())


def _numbers_in(column: Any) -> npt.NDArray[Any]:
    numbers = np.asarray(column)
    return numbers[:1] if is_repeated(numbers) else numbers


def _moved(scan: Stored, first: Rows) -> Rows:
    """Where the selected rows of a scan are in the one of all; `first` is where its files begin there."""
    generation, rows, _ = scan
    rows = np.arange(len(generation)) if rows is None else rows
    file = np.asarray(generation.frames["file"])[rows]
    moved: Rows = first[file] + rows - np.asarray(generation.files["first_row"])[file]
    return moved
