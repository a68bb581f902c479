"""From files to an index: walks folders, reads headers, and takes over what has not changed.

Nothing is written, and no bad file ends a scan: each is in the report with its class and the reason.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError, StaleIndexError, printable
from dicomtorch.index.builder import FileRows, Part, build_part
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.joins import Joined
from dicomtorch.index.memory import give_back
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.report import ScanReport
from dicomtorch.model.schema import Column, Kind
from dicomtorch.scanner.compare import Compared, compare, count_gone
from dicomtorch.scanner.entries import UNREAD, Entry, entry_of_row
from dicomtorch.scanner.given import paths_of
from dicomtorch.scanner.keywords import Tag, named_tags, tag_columns
from dicomtorch.scanner.place import place_of
from dicomtorch.scanner.reading import Reading
from dicomtorch.scanner.tree import PathLike as PathLike
from dicomtorch.scanner.tree import Source as Source
from dicomtorch.scanner.web import scan_web, web_source
from dicomtorch.scanner.worker import Job
from dicomtorch.storage.base import Identity
from dicomtorch.storage.choose import storage_for
from dicomtorch.storage.remote import RemoteStorage
from dicomtorch.storage.web import client_for, is_web


def scan(
    source: Source | None = None,
    *,
    inventory: Any = None,
    part: tuple[int, int] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    index: FrameIndex | None = None,
    tags: Sequence[Tag] = (),
    follow_symlinks: bool = False,
    progress: bool | None = None,
    num_workers: int | None = None,
    executor: Executor | None = None,
    checkpoint: Callable[[FrameIndex], None] | None = None,
    limits: Limits = LIMITS,
) -> tuple[FrameIndex, ScanReport]:
    """Indexes every frame of every DICOM file of `source`.

    Sources: PS3.10 7 (files), PS3.3 annex F (DICOMDIR), PS3.18 10.6 (DICOMweb).

    Args:
        source: A folder, a file, or a list of either. A DICOMDIR stands for the files that it names. Or addresses of
            one place, as `s3://bucket/prefix`: objects below a prefix, or single ones. They are listed and read in
            processes of their own, so that this one may still fork.
        storage_options: For addresses: those of the storage (`Settings`) and of its client, as `access_key_id`,
            `endpoint` or `skip_signature=True` of `s3://`. They are never part of an index.
        inventory: The files to read in place of a listing: a Parquet, Arrow or CSV file, an Arrow table or a DataFrame
            with the column `path` (absolute, or below `source`, which is a folder then), and `size` and `mtime`
            where they are known: they tell with `index` what has not changed; other files are looked at.
        part: (k, n), k from 1 to n: of all files only those of one of n parts, as for a job array. The path of a file
            below the root decides which part it is in.
        index: An earlier index of the same source: files whose size, time and inode are as they were are taken over
            from it without being read.
        tags: Keywords, or tags as in 0x00100040, that become further columns, taken per frame, shared, or from the main
            data set. Numbers that have one value are float64 or int64 columns, everything else is text, several values
            joined with a backslash. If `index` lacks one, everything is read again, with its tags and these.
        follow_symlinks: Whether to go into symbolic links to folders and to read those to files.
        progress: Whether to show progress on stderr; `None`: on a terminal, after two seconds.
        num_workers: Processes that read headers; 0: this one. `None`: one for each usable core if there are thousands
            of files to read. They never import the program that scans, and the result is the same.
        executor: Reads headers in place of processes of this machine: any `concurrent.futures.Executor`, as of a thread
            or process pool, loky, Dask (`client.get_executor(pure=False)`), Ray (`RayExecutor`) or MPI. Its workers
            open the same paths. The result is the same, and the executor stays the caller's to shut down.
        checkpoint: Called twice a minute at most, and when `executor` breaks, with an index of what was read so far;
            handed in as `index=` of a later scan, it spares that one to read it again.
        limits: What a file may cost; the index keeps them, and they hold for reading and decoding its frames too. If
            `index` was made with others, everything is read again.

    Returns:
        The index, which is the same object as `index` if nothing changed, and what was met.

    Raises:
        SourceError: There is nothing at `source`, or the inventory cannot be read or has paths elsewhere.
        OptionError: `tags` has a keyword that does not exist, or whose values cannot be a column; `executor` is none,
            or stands beside `num_workers`.
        ExecutorError: The executor broke, or its workers cannot read what this process can.
    """
    source = None if source is None else paths_of(source)  # once: it may be an iterator
    if source is not None and (server := web_source(source)):
        _refuse_for_servers(inventory=inventory, part=part)
        return scan_web(server, storage_options, index, tags, limits, progress, checkpoint)
    began = time.monotonic()
    columns = tag_columns(named_tags(tags))
    place = place_of(source, inventory, part, storage_options, follow_symlinks, limits, index)
    root, storage = place.root, place.storage
    base: FrameIndex | None = None
    found: Compared | None = None
    removed = 0
    entries: Iterable[Entry]
    if index is None or index.root != root:
        entries = place.entries()
    else:
        index = index.whole()
        is_base = columns.keys() <= index.tags.keys() and index.limits == limits
        columns = tag_columns([*index.tags, *columns])
        entries = listing = place.listing()
        if is_base:
            base = index
            found = compare(index, listing, Job(os.path.join(root, b""), columns, limits, storage))
            entries = [listing[k] for k in found.changed.tolist()]
        removed = found.removed if found else count_gone(index, listing)
    job = Job(os.path.join(root, b""), columns, limits, storage)
    reading = Reading(job, progress, num_workers, executor)

    def assemble(part: Part) -> FrameIndex:
        if base is not None and found is not None:
            return base.updated(found.is_kept, part)
        kinds: dict[str, Kind] = {keyword: tag.kind for keyword, tag in columns.items()}
        return FrameIndex.build(part, root=root, tags=kinds, limits=limits)

    is_here = storage is None or not len(found.changed if found else ())
    if base is not None and is_here and found and not found.removed and found.all_failed(base):
        # Failures are tried again in every scan: as long as each fails as before, nothing changed.
        rows = list(reading.rows(entries))
        old = found.rows[found.changed].tolist()
        same = all(_failed_before(base, k, item) for k, item in zip(old, rows, strict=True))
        result = base if same else assemble(build_part(rows, job.columns))
    else:
        result = assemble(reading.part(entries, _for_parts(checkpoint, assemble)))
    give_back()
    reused = 0 if found is None else int(found.is_kept.sum())
    return result, _reported(result, reading, reused, removed, time.monotonic() - began)


def _refuse_for_servers(**given: Any) -> None:
    """A server lists its instances itself: what says which files to read has no meaning there."""
    for name, value in given.items():
        if value is not None:
            raise OptionError(
                f"{name}= is for files; of a DICOMweb server name studies or series: .../studies/UID"
            )


def _reported(
    index: FrameIndex, reading: Reading, reused: int, removed: int, seconds: float
) -> ScanReport:
    """The report of an index with what finding it took."""
    return replace(
        index.report(),
        read=reading.count,
        reused=reused,
        removed=removed,
        requests=reading.requests,
        bytes_read=reading.bytes_read,
        seconds=seconds,
    )


def _for_parts(
    checkpoint: Callable[[FrameIndex], None] | None, assemble: Callable[[Part], FrameIndex]
) -> Callable[[Part], None] | None:
    """A checkpoint that takes what was read so far, in place of the index that it makes."""
    if checkpoint is None:
        return None
    return lambda part: checkpoint(assemble(part))


def with_tags(
    index: FrameIndex,
    tags: Sequence[Tag],
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    executor: Executor | None = None,
) -> FrameIndex:
    """This index with columns for attributes that its scan did not read: from the files of its frames, and no others.

    Args:
        index: Filtered, joined and split as it may be; order and length stay.
        tags: Keywords or tags; those that it has are left out.
        storage_options: As in `scan`, where its files are below an address.
        progress: As in `scan`.
        executor: As in `scan`.

    Raises:
        OptionError: A keyword does not exist, or its values cannot be a column.
        StaleIndexError: A file is not the one that was indexed.
    """
    # Before anything else: the options of an index's place are those that were given last.
    storage = None
    if not is_web(index.root):
        storage = storage_for(index.root, storage_options)
    elif storage_options is not None:
        client_for(index.root, storage_options)
    known = {column.name for column in index.columns}
    columns = tag_columns([tag for tag in named_tags(tags) if tag not in known])
    if not columns or not len(index):
        return index
    if storage is None:
        raise OptionError(
            f"the index of the server has no column {', '.join(columns)}; scan it again with tags={list(columns)}"
        )
    files: Any = index.files
    numbers, which = np.unique(np.asarray(index.column("file")), return_inverse=True)
    remote = storage if isinstance(storage, RemoteStorage) else None
    job = Job(os.path.join(index.root, b""), columns, index.limits, remote)
    entries = [entry_of_row(files, k) for k in numbers.tolist()]
    part = Reading(job, progress, None, executor).part(entries, None)
    kinds: dict[str, Kind] = {keyword: tag.kind for keyword, tag in columns.items()}
    read = FrameIndex.build(part, root=index.root, tags=kinds, limits=index.limits)
    found = {path: k for k, path in enumerate(read.files["path"])}
    order = np.array([found[entry.path] for entry in entries], np.int64)
    _refuse_changed(index, entries, read, order, numbers)
    within = np.asarray(index.rows) - np.asarray(files["first_row"])[numbers][which]
    rows = np.asarray(read.files["first_row"])[order][which] + within
    table = {keyword: read.column(keyword) for keyword in columns}
    described = tuple(Column(keyword, kind) for keyword, kind in kinds.items())
    return index.beside(Joined(rows.astype(np.int32), described, table))


def _refuse_changed(
    index: FrameIndex,
    entries: Sequence[Entry],
    read: FrameIndex,
    order: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
) -> None:
    """Rows of a file are found by their number, which holds only for the file that was indexed."""
    now: Any = read.files
    for entry, k, number in zip(entries, order.tolist(), numbers.tolist(), strict=True):
        identity = Identity.of_row(now, k)
        before = Identity(entry.size, entry.mtime_ns, entry.inode, entry.version)
        if not identity.matches(before) or now["frames"][k] != index.files["frames"][number]:
            reason = now["reason"][k]
            raise StaleIndexError(
                f"{printable(index.file_path(number))} is not the file that was indexed{reason and f' ({reason})'}; "
                f"refresh the index (scan(root, index=old)) and select again"
            )


def _failed_before(index: FrameIndex, row: int, item: FileRows) -> bool:
    """Whether a file could not be opened, for the same reason as when the index was made."""
    files = index.files
    return (
        row >= 0
        and item.mtime_ns == UNREAD == files["mtime_ns"][row]
        and files["reason"][row] == item.reason
    )
