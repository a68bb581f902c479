"""Where a scan looks: below folders and files of this machine, in an inventory, or below addresses."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from dicomtorch.errors import (
    OptionError,
    SourceError,
    StaleIndexError,
    StorageError,
    printable,
)
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.limits import Limits
from dicomtorch.scanner.archives import is_named_archive, known_tars, remote_archive_entries
from dicomtorch.scanner.entries import Entry
from dicomtorch.scanner.given import paths_of
from dicomtorch.scanner.inventory import Inventory, Part, check_part, of_part
from dicomtorch.scanner.listing import Listing
from dicomtorch.scanner.pool import ChildProcesses
from dicomtorch.scanner.tree import Source, list_all, roots, walk
from dicomtorch.storage.address import HTTP, parse, scheme_of
from dicomtorch.storage.address import is_address as is_address
from dicomtorch.storage.address import split_query as split_query
from dicomtorch.storage.base import Identity
from dicomtorch.storage.choose import storage_for
from dicomtorch.storage.remote import RemoteStorage
from dicomtorch.storage.web import is_web


class Place(Protocol):
    """Where a scan looks.

    Attributes:
        root: What all paths are below.
        storage: What objects are read from; `None` for files of this machine.
    """

    @property
    def root(self) -> bytes:
        """What all paths are below."""
        ...

    @property
    def storage(self) -> RemoteStorage | None:
        """What objects are read from; `None` for files of this machine."""
        ...

    def entries(self) -> Iterable[Entry]:
        """Everything there."""
        ...

    def listing(self) -> Listing:
        """The same as columns, with what tells whether files are as they were."""
        ...


class LocalPlace:
    """Folders and files of this machine; see `Place`."""

    storage = None

    def __init__(self, source: Source, follow_symlinks: bool, limits: Limits) -> None:
        self.root, self._starts = roots(source)
        self._follow = follow_symlinks
        self._limits = limits

    def entries(self) -> Iterable[Entry]:
        """Everything there."""
        return walk(self.root, self._starts, self._follow, stats=False, limits=self._limits)

    def listing(self) -> Listing:
        """The same as columns."""
        return list_all(self.root, self._starts, self._follow, self._limits)


class RemotePlace:
    """Objects below addresses, listed once, in a process of its own; see `Place`.

    Args:
        addresses: Without queries.
        storage: Of them.
        index: Of the same source, if there is one: what a listing does not say of its objects is asked for, and tar
            archives of which it has all members are not listed.
        limits: What archives may cost.

    Raises:
        SourceError: There is nothing, or it may not be listed.
    """

    def __init__(
        self,
        addresses: Sequence[bytes],
        storage: RemoteStorage,
        index: FrameIndex | None,
        limits: Limits,
    ) -> None:
        self.storage = storage
        starts = sorted({_without_slashes(address) for address in addresses})
        known = known_tars(index, limits)
        identities = {name: identity for name, (identity, _) in known.items()}
        asked = (storage, starts, index is not None, identities, limits)
        found = in_child(storage, list_objects, *asked)
        self.root = _root(starts, [listed.objects for listed in found])
        below = len(os.path.join(self.root, b""))
        objects: dict[bytes, Sequence[Entry]] = {}
        for start, listed in zip(starts, found, strict=True):
            for name, (size, mtime_ns, inode, version) in listed.objects:
                objects.setdefault(name, [Entry(name, size, mtime_ns, inode, version=version)])
            if listed.members is not None:
                objects[start] = known[start][1] if listed.is_known else listed.members
        self._entries = [
            replace(entry, path=entry.path[below:])
            for _, entries in sorted(objects.items(), key=itemgetter(0))
            for entry in entries
        ]

    def entries(self) -> list[Entry]:
        """Everything there."""
        return self._entries

    def listing(self) -> Listing:
        """The same as columns."""
        return Listing(self._entries)


def _without_slashes(address: bytes) -> bytes:
    """An address without those at its end, which `memory://` and `file:///` consist of."""
    short = address.rstrip(b"/")
    return short if is_address(short) else address


class PartOfPlace:
    """One part of what is somewhere; see `Place`."""

    def __init__(self, place: Place, part: Part) -> None:
        self.root, self.storage = place.root, place.storage
        self._place, self._part = place, part

    def entries(self) -> Iterable[Entry]:
        """Everything of the part."""
        return of_part(self._place.entries(), self._part)

    def listing(self) -> Listing:
        """The same as columns."""
        return Listing(of_part(self._place.listing(), self._part))


def place_of(
    source: Source | None,
    inventory: Any,
    part: Part | None,
    storage_options: Mapping[str, Any] | None,
    follow_symlinks: bool,
    limits: Limits,
    index: FrameIndex | None,
) -> Place:
    """Where a scan of `source` looks.

    Args:
        source: As in `scan`.
        inventory: As in `scan`.
        part: As in `scan`.
        storage_options: As in `scan`.
        follow_symlinks: As in `scan`.
        limits: As in `scan`.
        index: As in `scan`.

    Raises:
        SourceError: There is nothing.
        OptionError: Options are out of their range, or given for a folder.
    """
    if part is not None:
        part = check_part(part)  # before there is any work
        whole = place_of(source, inventory, None, storage_options, follow_symlinks, limits, index)
        return PartOfPlace(whole, part)
    paths = [] if source is None and inventory is not None else paths_of(source)
    has_addresses = any(map(is_address, paths))
    if not has_addresses:
        storage_for(b"", storage_options)  # refuses options
    if inventory is not None:
        if has_addresses or len(paths) > 1:
            raise SourceError(
                f"beside an inventory the source is one folder of this machine, which its paths are below; got "
                f"{'an address' if has_addresses else f'{len(paths)} sources'}"
            )
        return Inventory(inventory, paths[0] if paths else None, limits, index)
    if not has_addresses:
        return LocalPlace(paths, follow_symlinks, limits)
    addresses, storage = remote_source(paths, storage_options)
    return RemotePlace(addresses, storage, index, limits)


def remote_source(
    paths: Sequence[Any], storage_options: Mapping[str, Any] | None
) -> tuple[list[bytes], RemoteStorage]:
    """The addresses that a source is, without queries, and the storage of their objects.

    Raises:
        SourceError: They are not of one place.
        OptionError: Options are out of their range.
    """
    given = [os.fsencode(path) for path in paths]
    split = [split_query(address) for address in given]
    addresses = [address for address, _ in split]
    bases = {b"/".join(address.split(b"/", 3)[:3]) for address in addresses}
    if len(bases) > 1 or not all(map(scheme_of, addresses)):
        raise SourceError(
            f"the sources lie in {len(bases)} places; scan each bucket, host or folder alone, and put datasets of them "
            "together with torch.utils.data.ConcatDataset"
        )
    queries = {address: query for address, query in split if query}
    storage = storage_for(addresses[0], storage_options, queries)
    assert isinstance(storage, RemoteStorage)
    try:
        pickle.dumps(storage)
    except Exception as error:
        raise OptionError(
            f"storage_options cannot be pickled ({type(error).__name__}), and processes that scan and workers get "
            "them; give names and values, or have them found in the environment"
        ) from None
    return addresses, storage


def options_beside(
    source: Any, root: bytes, options: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The options for something that is read beside what lies below `root`: the same for buckets of the same kind.

    Of servers it must be the same one: what authorizes there is no other's business.

    Args:
        source: As in `scan`.
        root: Of an index.
        options: Of it.
    """
    places = {_account(os.fsencode(path)) for path in paths_of(source)}
    return options if places == {_account(root)} else None


def _account(name: bytes) -> str:
    """What options are for: the server that an address is on, or every bucket of its kind."""
    scheme = scheme_of(name)
    is_server = scheme in HTTP or is_web(name)
    return parse(split_query(name)[0]).base if is_server else scheme


class Listed(NamedTuple):
    """What lies below an address.

    Attributes:
        objects: Their names, and what they are.
        members: Of the one object, if that is an archive; `None`: it is none.
        is_known: Whether it is an archive that is as it was, so that its members were not listed.
    """

    objects: list[tuple[bytes, Identity]]
    members: list[Entry] | None = None
    is_known: bool = False


def list_objects(
    storage: RemoteStorage,
    starts: Sequence[bytes],
    again: bool,
    known: Mapping[bytes, Identity],
    limits: Limits,
) -> list[Listed]:
    """What is below each of `starts`; for `RemotePlace`, in any process.

    Raises:
        SourceError: There is nothing, or it may not be listed.
    """
    found = []
    for start in starts:
        try:
            # A page of an archive is none: an HTTP server is not asked for what it links to.
            is_alone = scheme_of(start) in HTTP and is_named_archive(start)
            some = [(start, storage.head(start))] if is_alone else list(storage.listed(start))
            if [name for name, _ in some] == [start]:
                found.append(_one_object(storage, start, some[0][1], known, limits))
                continue
        except (StorageError, StaleIndexError) as error:
            raise SourceError(f"{printable(start)} cannot be opened: {error}") from error
        unknown = [k for k, (_, identity) in enumerate(some) if identity.size < 0]
        if again and unknown:
            heads = storage.heads([some[k][0] for k in unknown])
            for k, head in zip(unknown, heads, strict=True):
                some[k] = (some[k][0], head or some[k][1])
        found.append(Listed(some))
    return found


def _one_object(
    storage: RemoteStorage,
    name: bytes,
    identity: Identity,
    known: Mapping[bytes, Identity],
    limits: Limits,
) -> Listed:
    """An object that was named itself, which may be an archive."""
    if identity.size < 0:
        identity = storage.head(name)
    if known.get(name) == identity:
        return Listed([(name, identity)], [], True)
    members = remote_archive_entries(storage, name, name, identity, limits)
    return Listed([(name, identity)], None if members is None else list(members))


def in_child(storage: RemoteStorage, function: Any, *arguments: Any) -> Any:
    """Has a function called in a process that shares nothing with this one, which stays able to fork.

    Raises:
        DicomTorchError: What the function raises.
    """
    if not storage.is_shared:
        return function(*arguments)
    with ChildProcesses(1) as children:
        try:
            return children.submit(function, *arguments).result()
        except BrokenExecutor:
            return function(*arguments)


def _root(starts: Sequence[bytes], found: Sequence[Sequence[tuple[bytes, Identity]]]) -> bytes:
    """What all objects are below."""
    folders = [
        start.rpartition(b"/")[0] if [name for name, _ in some] == [start] else start
        for start, some in zip(starts, found, strict=True)
    ]
    parts = [folder.split(b"/") for folder in folders]
    levels = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
    return b"/".join(level[0] for level in levels)
