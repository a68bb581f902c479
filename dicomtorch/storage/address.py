"""Addresses of objects: told from paths, and freed of what must not be written down."""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

_SCHEME: Final = re.compile(rb"([a-zA-Z][a-zA-Z0-9+.-]+)://")
OBJECT_STORES: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl"})
HTTP: Final = frozenset({"http", "https"})


class Address(NamedTuple):
    """Where an object is.

    Attributes:
        scheme: In lower case.
        place: Bucket or host, with its port.
        path: Below that, without the first slash, as it is written.
    """

    scheme: str
    place: str
    path: bytes

    @property
    def base(self) -> str:
        """What all objects of one place have in common."""
        return f"{self.scheme}://{self.place}"

    @property
    def key(self) -> str:
        """The path as a store has it: escapes of `http` addresses are undone."""
        path = unquote_to_bytes(self.path) if self.scheme in HTTP else self.path
        return path.decode("utf-8", "surrogateescape")


def is_address(given: object) -> bool:
    """Whether something is the address of an object, and no path."""
    if not isinstance(given, str | bytes | os.PathLike):
        return False
    return _SCHEME.match(os.fsencode(given)) is not None


def scheme_of(name: bytes) -> str:
    """The scheme of an address in lower case; "" of a path."""
    found = _SCHEME.match(name)
    return found[1].decode("ascii").lower() if found else ""


def parse(name: bytes) -> Address:
    """The parts of an address that has no query."""
    found = _SCHEME.match(name)
    assert found is not None
    place, _, path = name[found.end() :].partition(b"/")
    return Address(found[1].decode().lower(), place.decode("utf-8", "surrogateescape"), path)


def split_query(name: bytes) -> tuple[bytes, bytes]:
    """(the address, its query and fragment): signed addresses have their signature there.

    Only those of `http` have queries; in the key of an object a question mark is a character.
    """
    if scheme_of(name) not in HTTP:
        return name, b""
    found = re.search(rb"[?#]", name)
    return (name, b"") if found is None else (name[: found.start()], name[found.start() :])


def has_user(name: bytes) -> bool:
    """Whether an address has a user or a password before its host."""
    found = _SCHEME.match(name)
    return found is not None and b"@" in name[found.end() :].partition(b"/")[0]
