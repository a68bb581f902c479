"""Which storage the objects below a root are in: chosen by the scheme of its address.

| Address | Read with | Listed with |
|---|---|---|
| a path | the system | the system |
| `s3://`, `gs://`, `az://` | obstore | obstore |
| `http://`, `https://` | obstore | fsspec: the links of its pages |
| `https://` with a query, as signed addresses have | fsspec | - |
| anything else, as `memory://`, `sftp://`, `hf://` | fsspec | fsspec |

An archive (`study.zip`, also below such an address) is an object of the storage that it lies in, see `base`.

Options are remembered for each place in this process, and nowhere else: whoever reads from an index of that place
later, and was given none, asks with these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import OptionError
from dicomtorch.storage.address import HTTP, OBJECT_STORES, has_user, parse, scheme_of
from dicomtorch.storage.base import Identity, Storage
from dicomtorch.storage.client import Client, Settings
from dicomtorch.storage.file_system import FileSystemClient
from dicomtorch.storage.local import LocalStorage
from dicomtorch.storage.object_store import ObjectStoreClient
from dicomtorch.storage.remote import RemoteStorage
from dicomtorch.storage.web import is_web

_of_place: dict[str, RemoteStorage] = {}
_lock: Final = ForkedLock()


def storage_for(
    root: bytes,
    options: Mapping[str, Any] | None = None,
    queries: Mapping[bytes, bytes] | None = None,
) -> Storage:
    """The storage of the objects below `root`.

    Args:
        root: A path, or an address without a query.
        options: `storage_options`: of `Settings`, and of the client; `None`: those that were given last for this
            place, else none.
        queries: Name of an object -> the query that its address had.

    Raises:
        OptionError: An option is out of its range, or is given for a folder.
        MissingDependencyError: The package that reads from there is not installed.
    """
    if not scheme_of(root):
        if options:
            raise OptionError(
                "storage_options= is for addresses, as s3://bucket/prefix; this is a folder or file"
            )
        return LocalStorage()
    if is_web(root):
        raise OptionError(
            "a DICOMweb server gives frames and no files; export these objects and read the files"
        )
    if has_user(root):
        raise OptionError(
            "the address has a user name or a password, which would be kept with the index; give them in "
            "storage_options"
        )
    base = parse(root).base
    with _lock:
        return _storage_of(base, options, queries)


def _storage_of(
    base: str, options: Mapping[str, Any] | None, queries: Mapping[bytes, bytes] | None
) -> RemoteStorage:
    known = _of_place.get(base)
    if known is not None and options is None and not queries:
        return known
    settings = known.settings if known and options is None else Settings.of(options)
    # Those of a new list of signed addresses take the place of older ones, which may have expired.
    if known is not None:
        queries = {**known.queries, **(queries or {})}
    storage = RemoteStorage(base, settings, make_client, queries)
    storage.client  # noqa: B018 - a package that is missing is told here
    _of_place[base] = storage
    return storage


def remember(storage: Storage) -> None:
    """Takes a storage that came from another process as that of its place, if there is none yet."""
    if isinstance(storage, RemoteStorage):
        _of_place.setdefault(storage.base, storage)


def make_client(base: str, settings: Settings, queries: Mapping[bytes, bytes]) -> Client:
    """The client for a place."""
    scheme = scheme_of(base.encode("utf-8", "surrogateescape"))
    if scheme in OBJECT_STORES:
        return ObjectStoreClient(base, settings)
    if scheme in HTTP and not queries:
        return _HTTPClient(base, settings)
    return FileSystemClient(base, settings, queries)


class _HTTPClient(ObjectStoreClient):
    """A plain HTTP server: read with obstore, listed with fsspec."""

    def listed(self, prefix: bytes) -> Iterator[tuple[bytes, Identity]]:
        """What the pages of the server link to, below a prefix."""
        client: Mapping[str, Any] = self.settings.options.get("client_options", {})
        headers = client.get("default_headers")
        options = {"client_kwargs": {"headers": dict(headers)}} if headers else {}
        lister = FileSystemClient(self.base, replace(self.settings, options=options))
        return lister.listed(prefix)
