"""Where the indexes of source folders live between runs: immutable generations and a file that names the current one.

`<cache>/indexes/<key>/<uuid>/` is a generation, `<cache>/indexes/<key>/current` holds the uuid of the newest. A process
that uses an older generation keeps it; those unused for days are removed. `<cache>/indexes/<key>/partial/` is what an
unfinished scan had read: never an index for others, but the next scan begins with it.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicomtorch.errors import IndexFileError, printable
from dicomtorch.index.files import is_index
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.memory import give_back
from dicomtorch.index.store import IndexStore
from dicomtorch.model.report import ScanReport
from dicomtorch.model.schema import FRAME_COLUMNS
from dicomtorch.scanner.given import paths_of
from dicomtorch.scanner.keywords import Tag, named_tags
from dicomtorch.scanner.place import remote_source
from dicomtorch.scanner.scan import scan
from dicomtorch.scanner.tree import Source as Source
from dicomtorch.scanner.web import web_source
from dicomtorch.storage.address import is_address
from dicomtorch.storage.choose import storage_for
from dicomtorch.storage.web import client_for


def open_index(
    source: Source,
    *,
    storage_options: Mapping[str, Any] | None = None,
    tags: Sequence[Tag] = (),
    refresh: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
) -> FrameIndex:
    """The stored index of `source`, compared with the files first; scanned and stored if there is none.

    Args:
        source: A folder, a file, or a list of either; or addresses, see `scan`.
        storage_options: For addresses; see `scan`.
        tags: Keywords that the index shall hold beyond its fixed columns.
        refresh: Compare with the files; `False` takes a stored index as it is.
        cache_dir: Where indexes are kept; `None`: the user's cache folder.

    Raises:
        SourceError: There is nothing at `source`.
        IndexFileError: `refresh=False`, and the stored index is damaged.
    """
    return open_source(
        source, storage_options=storage_options, tags=tags, refresh=refresh, cache_dir=cache_dir
    )[0]


def open_source(
    source: Source,
    *,
    storage_options: Mapping[str, Any] | None = None,
    tags: Sequence[Tag] = (),
    refresh: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    num_workers: int | None = None,
    executor: Executor | None = None,
) -> tuple[FrameIndex, ScanReport]:
    """As `open_index`, with what the scan met, and how many files it had to read.

    `num_workers` and `executor` are as in `scan`; when an executor breaks, what was read is kept for the next time.
    """
    paths = paths_of(source)
    store = IndexStore(_names(paths, storage_options), cache_dir)
    wanted = [tag for tag in named_tags(tags) if tag not in FRAME_COLUMNS]
    if not refresh:
        index = store.load()
        if index is not None and all(tag in index.tags for tag in wanted):
            return index, index.report()
    try:
        held = store.lock().acquire()
    except OSError as error:
        options = {"storage_options": storage_options, "num_workers": num_workers}
        return _scan_unstored(paths, wanted, store, error, executor=executor, **options)
    with held:  # acquired once: a kept traceback must not keep the lock
        if not held.exists:
            warnings.warn(
                f"{printable(store.folder)} is on a file system without locks: of processes that scan at the same time "
                "each reads all files, and the index of the last one is kept; cache_dir= names another folder",
                stacklevel=3,
            )
        old = _load_or_rebuild(store)
        begun = store.load_partial()
        if begun is None or not begun.tags.keys() >= {*wanted, *(old.tags if old else ())}:
            begun = old
        index, report = scan(
            paths,
            storage_options=storage_options,
            index=begun,
            tags=wanted,
            num_workers=num_workers,
            executor=executor,
            checkpoint=_Checkpoint(store.folder, store.save_partial).save,
        )
        if index is old:
            return index, report
        try:
            stored = store.save(index)
        except OSError as error:
            _warn_unstored(store, error)
            return index, report
        store.remove_partial()
        # What was just made goes: the report is that of what is stored, over the same mapping.
        report = replace(report, findings=stored.report().findings)
        del index, begun, old
        give_back()
        return stored, report


def scan_to(
    output: Path,
    source: Source | None = None,
    *,
    inventory: Any = None,
    part: tuple[int, int] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    tags: Sequence[Tag] = (),
    num_workers: int | None = None,
    executor: Executor | None = None,
) -> tuple[FrameIndex, ScanReport]:
    """Scans and saves the index; what was read before a scan was interrupted is kept beside it, and the next goes on.

    Args:
        output: Of the index, a new folder. What was read so far is in the folder with `.partial` after its name.
        source: As in `scan`, like the others.
        inventory: The same.
        part: The same.
        storage_options: The same.
        tags: The same.
        num_workers: The same.
        executor: The same.

    Raises:
        IndexFileError: There is something at `output` already.
        SourceError: As in `scan`.
    """
    if output.exists():
        raise IndexFileError(
            f"{printable(output)} exists already; remove it or choose another name"
        )
    partial = output.with_name(f"{output.name}.partial")
    begun = None
    if is_index(partial):
        try:
            begun = FrameIndex.load(partial)
        except IndexFileError as error:
            warnings.warn(f"what was scanned so far is read again: {error}", stacklevel=2)
    index, report = scan(
        source,
        inventory=inventory,
        part=part,
        storage_options=storage_options,
        index=begun,
        tags=tags,
        num_workers=num_workers,
        executor=executor,
        checkpoint=_Checkpoint(partial, lambda index: index.save(partial, replace=True)).save,
    )
    index.save(output)
    shutil.rmtree(partial, ignore_errors=True)
    return FrameIndex.load(output) if index is begun else index, report


def _names(paths: Sequence[Any], storage_options: Mapping[str, Any] | None) -> list[bytes]:
    """What tells a source from others: real paths, or addresses without what must not be written down."""
    if server := web_source(paths):
        if storage_options is not None:
            client_for(server, storage_options)
        return [server]
    if any(map(is_address, paths)):
        return sorted(remote_source(paths, storage_options)[0])
    storage_for(b"", storage_options)  # refuses options
    return [os.path.realpath(os.path.expanduser(os.fsencode(path))) for path in paths]


class _Checkpoint:
    """Keeps what a scan has read so far, as long as there is room for it."""

    def __init__(self, folder: Path, save: Callable[[FrameIndex], None]) -> None:
        self._folder = folder
        self._save = save
        self._failed = False

    def save(self, index: FrameIndex) -> None:
        """Stores an unfinished index; the first failure is told, and ends it."""
        if self._failed:
            return
        try:
            self._save(index)
        except OSError as error:
            self._failed = True
            warnings.warn(
                f"what was scanned so far cannot be kept in {printable(self._folder)} "
                f"({error.strerror or error}); if this scan is interrupted, the next one begins anew",
                stacklevel=2,
            )


def _load_or_rebuild(store: IndexStore) -> FrameIndex | None:
    try:
        return store.load()
    except IndexFileError as error:
        warnings.warn(f"the stored index is made anew: {error}", stacklevel=5)
        return None


def _scan_unstored(
    source: Source, tags: Sequence[str], store: IndexStore, error: OSError, **how: Any
) -> tuple[FrameIndex, ScanReport]:
    try:
        old = store.load()  # a cache folder may be there to be read only
    except IndexFileError:  # the warning below says what it means
        old = None
    index, report = scan(source, index=old, tags=tags, **how)
    if index is not old:
        _warn_unstored(store, error)
    return index, report


def _warn_unstored(store: IndexStore, error: OSError) -> None:
    warnings.warn(
        f"the index cannot be kept in {printable(store.folder)} ({error.strerror or error}), so the next start scans "
        f"again; name a writable folder with cache_dir=",
        stacklevel=5,
    )
