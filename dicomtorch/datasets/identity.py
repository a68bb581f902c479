"""What of metadata says whose they are: UIDs as they are or hashed, and the attributes that identify."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dicomtorch.batches.metadata import MetaColumns
from dicomtorch.errors import OptionError
from dicomtorch.index.exports import HASHED, UIDHash
from dicomtorch.model.identifiers import action_of


class Identity:
    """What samples say about whom they are of.

    Args:
        keys: Of the metadata.
        uids: "real", or "hash" for other UIDs in their place.
        salt: Of the hashes; `None`: a random one.

    Attributes:
        identifiers: Key -> what the profile of PS3.15 table E.1-1 does with it, for those that it treats and that are
            not hashed: "X" removes, "Z" empties, "D" replaces, "U" gives another UID.

    Raises:
        OptionError: An option means nothing.
    """

    def __init__(self, keys: Iterable[str], uids: str, salt: bytes | None) -> None:
        if uids not in ("real", "hash"):
            raise OptionError(f'uids must be "real" or "hash"; got {uids!r}')
        if salt is not None and (uids != "hash" or not isinstance(salt, bytes)):
            raise OptionError('salt must be bytes, and goes with uids="hash"')
        treated = {key: action for key in keys if (action := action_of(key))}
        self._hash = UIDHash(salt) if uids == "hash" else None
        self._hashed = [key for key in treated if key in HASHED or "U" in treated[key]]
        if self._hash is not None:
            treated = {key: each for key, each in treated.items() if key not in self._hashed}
        self.identifiers = treated

    def hide(self, columns: MetaColumns) -> None:
        """Puts hashes in the place of UIDs, if that is asked for."""
        if self._hash is not None:
            for key in self._hashed:
                if key in columns:
                    columns[key] = self.shown(columns[key])

    def shown(self, uids: Sequence[Any] | Any) -> list[Any]:
        """UIDs as samples have them."""
        hashed = self._hash
        return list(uids) if hashed is None else [hashed(uid) for uid in uids]
