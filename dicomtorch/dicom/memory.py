"""What the headers of the last files had in common, so that the next ones are read with one read each."""

from __future__ import annotations

import struct
from typing import Any, Final

from dicomtorch.dicom.elements import Element, Group, Header, Read
from dicomtorch.dicom.meta import FIRST_READ
from dicomtorch.dicom.runs import KnownRuns, first_two
from dicomtorch.dicom.tags import KEYWORDS, VRS
from dicomtorch.dicom.walk import Walk
from dicomtorch.dicom.words import lookups
from dicomtorch.errors import HeaderError
from dicomtorch.model.limits import LIMITS, Limits


class _Family:
    """Files whose file meta name the same transfer syntax, writer and SOP class."""

    def __init__(self, uid: str, explicit: bool, runs: KnownRuns) -> None:
        self.uid = uid
        self.explicit = explicit
        self.runs = runs
        self.starts: dict[bytes, tuple[struct.Struct, tuple[bytes, bytes]]] = {}


class HeaderMemory:
    """What the headers of a scan have in common.

    Args:
        wanted: The tags that all of them are read for.
        limits: What a header may cost.
    """

    def __init__(self, wanted: frozenset[int], limits: Limits = LIMITS) -> None:
        self.wanted = wanted
        self.limits = limits
        self._longest = min(limits.text_bytes, 0xFFFF)
        self._meta = KnownRuns(
            lookups(_META, False)[0], VRS, explicit=True, longest=64, prefix=b"\x02\x00"
        )
        self._families: dict[Any, _Family] = {}
        self._first_read = FIRST_READ
        self._needed = self._reads = 0

    def recall(self, read: Read, size: int) -> Header | None:
        """The header of a file like earlier ones; `None` if it is not, or if anything about it is odd."""
        length = min(size, self._first_read)
        buffer = read(0, length)
        if buffer[128:132] != b"DICM" or len(buffer) < length:
            return None
        meta: Group = {}
        pos, _, whole = self._meta.walk(buffer, 132, meta, self.limits.elements)
        family = self._families.get(_key(meta)) if whole else None
        if family is None or buffer[pos : pos + 2] == b"\x02\x00":
            return None
        start = family.starts.get(buffer[pos : pos + 8])
        if start is None or pos + start[0].size > len(buffer):
            return None
        if start[0].unpack_from(buffer, pos) != start[1]:
            return None
        header = Header(family.uid)
        walk = Walk(read, size, header, self.wanted, self.limits, family.runs)
        try:
            walk.run(buffer, 0, pos, family.explicit)
        except HeaderError:  # comes again, and with it what is to be said and tried
            return None
        self._adapt(walk)
        return header

    def _adapt(self, walk: Walk) -> None:
        """Sizes the first read so that most headers need no second one."""
        self._needed = max(self._needed, walk.base + walk.pos)
        self._reads += 1
        if walk.base and self._first_read < FIRST_READ:
            self._first_read = FIRST_READ
            self._reads = 0
        elif self._reads == _WINDOW:
            room = self._needed + self._needed // 8
            self._first_read = min(max(-(-room // 4096) * 4096, 4096), FIRST_READ)
            self._needed = self._reads = 0

    def learn(self, header: Header, buffer: bytes, position: int, explicit: bool) -> None:
        """Remembers how a file began whose encoding was found to be as stated.

        Args:
            header: Before its walk.
            buffer: The first bytes of the file.
            position: Where its data set begins.
            explicit: Whether its VRs are explicit.
        """
        meta: Group = {}
        self._meta.walk(buffer, 132, meta, self.limits.elements)
        uid, runs = header.transfer_syntax_uid, self._known_runs(explicit)
        if (
            header.big_endian
            or buffer[128:132] != b"DICM"
            or KEYWORDS["TransferSyntaxUID"][0] not in meta
        ):
            return
        family = self._families.get(_key(meta))
        if family is None:
            if len(self._families) >= _MOST_FAMILIES:
                self._families.clear()
            family = self._families[_key(meta)] = _Family(uid, explicit, runs)
        start = first_two(buffer, position, explicit)
        if start is not None:
            if len(family.starts) >= _MOST_FAMILIES:
                family.starts.clear()
            family.starts[start[1][0]] = start

    def _known_runs(self, explicit: bool) -> KnownRuns:
        lookup = lookups(self.wanted, False)[0]
        return KnownRuns(lookup, VRS, explicit=explicit, longest=self._longest)


_META: Final = frozenset((0x00020002, 0x00020010, 0x00020012))
"""Media Storage SOP Class, Transfer Syntax, Implementation Class: files that agree in them are much alike."""
_MOST_FAMILIES: Final = 32
_WINDOW: Final = 64  # headers that say how long the next ones will be


def _key(meta: Group) -> tuple[Element | None, ...]:
    return tuple(map(meta.get, (0x00020010, 0x00020012, 0x00020002)))
