"""Several stored indexes opened as one: partitions, one a site or a year, each scanned and refreshed alone.

The scan of all is an index as any other, kept in the cache folder and mapped by every process; it is made anew when a
partition is another one than before.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid as uuids
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicomtorch.errors import IndexFileError, OptionError, printable
from dicomtorch.index.concat import concatenated
from dicomtorch.index.files import Stored, inode_of, read, read_manifest
from dicomtorch.index.generation import Generation
from dicomtorch.index.generation_store import GenerationStore
from dicomtorch.index.memory import give_back
from dicomtorch.index.private import is_local

_ATTEMPTS = 3
_OF_CALLER = 6  # who called `FrameIndex.load`, seen from what warns


def open_partitions(
    folders: Sequence[Path], cache_dir: str | os.PathLike[str] | None = None
) -> Stored:
    """The files of several stored indexes as one, as `concatenated` has them.

    Scans without selections and labels are put together once, and what comes of it is mapped; others each time.

    Args:
        folders: Of the indexes, absolute.
        cache_dir: Where the one of all is kept; `None`: the user's cache folder.

    Raises:
        IndexFileError: One is missing, damaged, or of another version.
        OptionError: There is none, one is named twice, or they do not go together.
    """
    if not folders:
        raise OptionError("load needs an index at least")
    _refuse_repeated(folders)
    if len(folders) == 1:
        return read(folders[0])
    for attempt in range(_ATTEMPTS):
        try:
            return _opened(_manifests(folders), cache_dir)
        except _Changed:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


class _Changed(IndexFileError):
    """A partition became another one while it was read."""


def _manifests(folders: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    return {folder: read_manifest(folder) for folder in folders}


def _opened(manifests: dict[Path, dict[str, Any]], cache_dir: Any) -> Stored:
    if any(manifest["joined"] or "rows" in manifest["files"] for manifest in manifests.values()):
        return _together(manifests)
    return Stored(_kept(dict(sorted(manifests.items())), cache_dir), None, ())


def _refuse_repeated(folders: Sequence[Path]) -> None:
    seen = set()
    for folder in folders:
        real = os.path.realpath(folder)
        if real in seen:
            raise OptionError(f"{printable(folder)} is named twice; name each index once")
        seen.add(real)


def _together(manifests: dict[Path, dict[str, Any]]) -> Stored:
    # What is mapped is copied at once: nothing here depends on files that others may write to.
    scans = [read(folder, mapped=is_local(folder)) for folder in manifests]
    whole = concatenated(scans, list(map(printable, manifests)))
    if _manifests([*manifests]) != manifests:
        raise _Changed(
            "a partition was written anew while the partitions were opened; open them again"
        )
    return whole


def _kept(manifests: dict[Path, dict[str, Any]], cache_dir: Any) -> Generation:
    uuid = _name(manifests)
    store = GenerationStore([b"partitions", *map(os.fsencode, manifests)], cache_dir)
    try:
        held = store.lock().acquire()
    except OSError as error:
        found = _current(store, uuid)
        if found is None:
            _warn_unkept(store, error)
            found = _whole(manifests, uuid)
        return found
    with held:  # acquired once: a kept traceback must not keep the lock
        found = _current(store, uuid)
        if found is not None:
            return found
        whole = _whole(manifests, uuid)
        try:
            kept = store.keep(whole)
        except OSError as error:
            _warn_unkept(store, error)
            return whole
    del whole
    give_back()
    return kept


def _current(store: GenerationStore, uuid: str) -> Generation | None:
    try:
        return store.current(uuid)
    except IndexFileError as error:
        warnings.warn(f"the partitions are put together again: {error}", stacklevel=_OF_CALLER)
        return None


def _whole(manifests: dict[Path, dict[str, Any]], uuid: str) -> Generation:
    return replace(_together(manifests).generation, uuid=uuid)


def _name(manifests: dict[Path, dict[str, Any]]) -> str:
    """A uuid for what comes of these contents: they have the checksums of everything.

    Inodes count only while the folder that they are of is the one that was scanned.
    """
    named = [
        [manifest, inode_of(bytes.fromhex(manifest["root"]))] for manifest in manifests.values()
    ]
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).digest()
    return str(uuids.UUID(bytes=digest[:16], version=5))


def _warn_unkept(store: GenerationStore, error: OSError) -> None:
    warnings.warn(
        f"the index of all partitions cannot be kept in {printable(store.folder)} ({error.strerror or error}), so the "
        f"next start puts them together again; name a writable folder with cache_dir=",
        stacklevel=_OF_CALLER,
    )
