"""What a client of a remote place does, and what all of them have in common: settings, and which process may ask.

A client asks for one thing at a time and waits for it; `remote` asks in many threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, Protocol

from dicomtorch.errors import OptionError, StorageError
from dicomtorch.storage.base import Identity

Buffer = bytes | memoryview


class Answer(NamedTuple):
    """What a place gave.

    Attributes:
        data: The bytes.
        identity: Of the object that they are of.
    """

    data: Buffer
    identity: Identity


class Client(Protocol):
    """Asks a remote place; used by several threads of one process."""

    def get(self, name: bytes, offset: int, length: int, identity: Identity | None) -> Answer:
        """A range of an object; fewer bytes only at its end.

        Raises:
            StaleIndexError: An identity is given, and the object is gone or another one.
            StorageError: It was not given.
        """
        ...

    def head(self, name: bytes) -> Identity:
        """What an object is.

        Raises:
            StorageError: It is not there, or not for this user.
        """
        ...

    def listed(self, prefix: bytes) -> Iterator[tuple[bytes, Identity]]:
        """The objects below a prefix, with what the listing says of each: size -1 where it does not.

        Raises:
            StorageError: It was not given.
        """
        ...


@dataclass(frozen=True)
class Settings:
    """How a place is asked; our own part of `storage_options`.

    Attributes:
        io_threads: Requests at once, 1 to 256.
        prefetch_bytes: What may be held that was asked for ahead.
        timeout: Seconds that a request may take, with its answer.
        connect_timeout: Seconds until a connection is there.
        max_retries: How often what failed for no reason of the request is asked for again.
        range_cache: A folder for encoded frames as they came; `None`: none.
        range_cache_bytes: What they may take.
        read_tar: Whether the members of tar archives are listed, which takes a request for each.
        options: What is left: of the client.
    """

    io_threads: int = 64
    prefetch_bytes: int = 256 << 20
    timeout: float = 20.0
    connect_timeout: float = 5.0
    max_retries: int = 5
    range_cache: str | None = None
    range_cache_bytes: int = 50_000_000_000
    read_tar: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Settings:
        """Ours apart from those of the client.

        Raises:
            OptionError: One of ours is out of its range.
        """
        if options is not None and not isinstance(options, Mapping):
            raise OptionError(
                f"storage_options must be a mapping from names to values; got a {type(options).__name__}"
            )
        left = dict(options or {})
        own = {
            f.name: left.pop(f.name) for f in fields(cls) if f.name in left and f.name != "options"
        }
        if own.get("range_cache") is not None:
            own["range_cache"] = os.path.abspath(os.path.expanduser(os.fspath(own["range_cache"])))
        lowest = {"io_threads": 1, "prefetch_bytes": 0, "max_retries": 0, "range_cache_bytes": 1}
        for name, value in own.items():
            if name == "range_cache":
                continue
            if name == "read_tar":
                if not isinstance(value, bool):
                    raise OptionError("storage_options['read_tar'] must be True or False")
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or value < lowest.get(name, 0.001):
                raise OptionError(
                    f"storage_options[{name!r}] must be a number of at least {lowest.get(name, 0.001)}"
                )
        if own.get("io_threads", 1) > 256:
            raise OptionError("storage_options['io_threads'] must be at most 256")
        return cls(**own, options=left)


_FORKED: Final = (
    "this storage was used before this process was forked from its parent, and its connections do not work in both; "
    'use FrameLoader, or DataLoader(..., multiprocessing_context="forkserver"), or read no frame before the workers '
    "are there"
)
_state = {"used": False, "inherited": False}


def use_connections() -> None:
    """Says that this process uses a client whose threads a fork would lose.

    Raises:
        StorageError: The parent of this process used one before it forked: here requests would wait for ever.
    """
    if _state["inherited"]:
        raise StorageError(_FORKED)
    _state["used"] = True


def _after_fork() -> None:
    _state["inherited"] = _state["used"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
