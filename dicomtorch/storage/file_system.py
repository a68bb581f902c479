"""Objects of any place that fsspec has a file system for, and listings of plain HTTP servers.

A file system of fsspec asks once; here it is asked again where that may help. Its messages have addresses: of its
errors only the kind is told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import (
    DicomTorchError,
    OptionError,
    StaleIndexError,
    StorageError,
    import_optional,
)
from dicomtorch.storage.address import HTTP, scheme_of
from dicomtorch.storage.base import Identity
from dicomtorch.storage.client import Answer, Settings
from dicomtorch.storage.words import changed, forbidden, gone

_Result = TypeVar("_Result")
_FIRST_WAIT: Final = 0.1  # seconds, doubled from try to try
_VERSIONS: Final = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "contentHash",
    "md5",
    "checksum",
    "oid",
)
_TIMES: Final = (
    "LastModified",
    "Last-Modified",
    "last_modified",
    "mtime",
    "updated",
    "modified",
    "created",
)
_NOT_AGAIN: Final = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


class FileSystemClient:
    """Asks a file system of fsspec.

    Args:
        base: As in `memory://` or `sftp://host`.
        settings: `options` are those of the file system.
        queries: Name of an object -> the query that its address had, which may be a signature.

    Raises:
        MissingDependencyError: fsspec is not installed.
    """

    def __init__(
        self, base: str, settings: Settings, queries: Mapping[bytes, bytes] | None = None
    ) -> None:
        self._fsspec: Any = import_optional("fsspec", "remote")
        self._scheme = base.partition("://")[0]
        self._is_http = self._scheme in HTTP
        self._settings = settings
        self._queries = queries or {}
        self._lock = ForkedLock()
        if self._is_http:
            logging.getLogger("fsspec.http").addFilter(_without_query)
        self._made: tuple[int, Any] = (0, None)

    @property
    def _files(self) -> Any:
        """The file system of this process: those of fsspec are not to be used across a fork."""
        with self._lock:
            process, files = self._made
            if files is None or process != os.getpid():
                options = dict(self._settings.options)
                try:
                    files = self._fsspec.filesystem(
                        self._scheme, skip_instance_cache=True, **options
                    )
                except ImportError as error:
                    raise OptionError(
                        f"{self._scheme}:// needs a package that is not installed ({error.name or 'see fsspec'}); "
                        "the documentation of fsspec says which"
                    ) from None
                except ValueError:
                    raise OptionError(f"{self._scheme}:// is no scheme that fsspec knows") from None
                except Exception as error:
                    names = ", ".join(sorted(options)) or "none"
                    raise OptionError(
                        f"{self._scheme}:// cannot be opened with these storage_options (names given: {names}): "
                        f"{type(error).__name__}"
                    ) from None
                self._made = (os.getpid(), files)
            return files

    def _url(self, name: bytes) -> str:
        return (name + self._queries.get(name, b"")).decode("utf-8", "surrogateescape")

    def get(self, name: bytes, offset: int, length: int, identity: Identity | None) -> Answer:
        """A range of an object; see `Client`."""
        url = self._url(name)
        more: dict[str, Any] = {}
        if self._is_http and identity is not None and identity.version.startswith('"'):
            more["headers"] = {"If-Match": identity.version}
        found = (
            identity
            if more and identity is not None and identity.size >= 0
            else self._head(name, identity)
        )
        if identity is not None and identity.size >= 0 and not found.matches(identity):
            raise StaleIndexError(changed(identity, found))
        expected = max(0, min(length, found.size - offset))
        if not expected:
            return Answer(b"", found)

        def ask() -> bytes:
            data: bytes = self._files.cat_file(url, start=offset, end=offset + expected, **more)
            if len(data) != expected:
                raise StorageError(
                    f"bytes {offset} to {offset + expected} were asked for, and {len(data)} bytes came; "
                    "a server that knows Range (RFC 9110) is needed"
                )
            return data

        return Answer(self._asked(ask, identity), found)

    def head(self, name: bytes) -> Identity:
        """What an object is; see `Client`."""
        return self._head(name, None)

    def _head(self, name: bytes, expected: Identity | None) -> Identity:
        url = self._url(name)
        return self._asked(lambda: self._identity(self._files.info(url)), expected)

    def listed(self, prefix: bytes) -> Iterator[tuple[bytes, Identity]]:
        """The objects below a prefix; see `Client`. Those of an HTTP server are what its pages link to."""
        url = self._url(prefix)
        if self._is_http and not url.endswith("/"):
            url += "/"
        try:
            found = self._asked(lambda: self._files.find(url, detail=True), None)
        except StorageError:
            if not self._is_http:
                raise
            found = {}
        for name, info in sorted(found.items()):
            if info.get("type") == "file":
                full = name if "://" in name else self._files.unstrip_protocol(name)
                yield _below(full, prefix), self._identity(info)

    def _identity(self, info: Mapping[str, Any]) -> Identity:
        """The identity of an object, from what its file system says of it."""
        size = info.get("size")
        version = next((f'"{info[key]}"' for key in _VERSIONS if info.get(key)), "")
        version = version.replace('""', '"')
        if not version:
            when = next((info[key] for key in _TIMES if info.get(key) is not None), None)
            if isinstance(
                when, datetime
            ):  # some say it as a number in listings, and as this elsewhere
                when = when.timestamp()
            when = f"{when:.6f}" if isinstance(when, float) else when
            version = "" if when is None else f"modified {when}"
        return Identity(-1 if size is None else int(size), 0, 0, version)

    def _asked(self, ask: Callable[[], _Result], identity: Identity | None) -> _Result:
        """What `ask` gives, asked for again where that may help."""
        tries = self._settings.max_retries + 1
        for attempt in range(tries):
            try:
                return ask()
            except MemoryError:
                raise
            except Exception as error:
                if attempt + 1 == tries or not _may_pass(error):
                    raise _told(error, identity) from None
            time.sleep(random.uniform(0, _FIRST_WAIT * 2**attempt))
        raise AssertionError


def _without_query(record: logging.LogRecord) -> bool:
    """Takes queries out of a record of fsspec, which logs the addresses that it asks."""
    record.msg, record.args = re.sub(r"\?\S+", "?...", record.getMessage()), ()
    return True


def _below(name: str, prefix: bytes) -> bytes:
    """A name as it is below the prefix that was asked for; file systems have several spellings of one."""
    raw = name.encode("utf-8", "surrogateescape")
    scheme = scheme_of(prefix).encode()
    _, _, rest = raw.partition(b"://")
    asked = prefix.partition(b"://")[2]
    if not asked.startswith(b"/"):
        rest = rest.lstrip(b"/")
    return scheme + b"://" + rest


def _status(error: Exception) -> int:
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else 0


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help."""
    status = _status(error)
    if isinstance(error, StorageError):
        return True
    if isinstance(error, (*_NOT_AGAIN, DicomTorchError)) or 400 <= status < 500:
        return status in (408, 429)
    timeouts = (TimeoutError, asyncio.TimeoutError, ConnectionError, OSError)
    return isinstance(error, timeouts) or status >= 500 or _is_of_client(error)


def _is_of_client(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("aiohttp", "fsspec")


def _told(error: Exception, identity: Identity | None) -> Exception:
    """The error that leaves the package."""
    if isinstance(error, DicomTorchError | MemoryError):
        return error
    status = _status(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError) or status == 404:
        return gone(identity)
    if status == 412 and identity is not None:
        return StaleIndexError(changed(identity, identity._replace(version="")))
    if isinstance(error, PermissionError) or status in (401, 403):
        return forbidden(str(status or ""))
    if status:
        return StorageError(f"the server answered {status} in every of several tries")
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or "Timeout" in type(error).__name__:
        return StorageError("it was not given: the server did not answer in time")
    return StorageError(f"it was not given: {type(error).__name__}")
