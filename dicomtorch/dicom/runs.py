"""What headers have in common: runs of elements with the same tags, VRs and lengths, matched at once.

The files of a series differ in a few values and in the lengths of fewer. A run that was walked element by element is
kept as one `struct` format; where its element headers are found again, byte for byte, it says the same as that walk.

An example: Rows and Columns of one file were `28 00 10 00 "US" 02 00` with 2 bytes and `28 00 11 00 "US" 02 00` with 2
bytes. They are kept as the format `<8s2s8s2s`. In the next file one `unpack` at that place gives both headers and both
values: if the headers are the same bytes, the values are Rows and Columns; if only the first is, the run ends there.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

Group = dict[int, Any]
UNDEFINED: Final = 0xFFFFFFFF

_TEXT: Final = frozenset(
    ["AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)
_NUMBERS: Final = frozenset(["AT", "DS", "FL", "FD", "IS", "SL", "SS", "UL", "US"])
_SHORT_VRS: Final = (_TEXT | _NUMBERS) - {"UC", "UR", "UT"}
_LONG_VRS: Final = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
TEXT: Final = _TEXT
SHORT: Final = {vr.encode(): vr for vr in _SHORT_VRS}  # 16-bit length
LONG: Final = {vr.encode(): vr for vr in _LONG_VRS}  # two reserved bytes, 32-bit length

_MOST_ELEMENTS: Final = 1 << 14  # kept, some 100 bytes each
_LONGEST_RUN: Final = 256
_TRIAL: Final = 2048  # runs after which they must have paid
_PAYS: Final = 3  # elements per run, below which walking them one by one is faster

_head = struct.Struct("<I2sH").unpack_from
_pair = struct.Struct("<II").unpack_from
_length = struct.Struct("<I").unpack_from


@dataclass(frozen=True, slots=True)
class _Part:
    """One element of a run.

    Attributes:
        head: Its header as in the file.
        length: Bytes of its value.
        tag: Its tag if it is recorded, else 0.
        vr: Its VR if it is recorded.
    """

    head: bytes
    length: int
    tag: int = 0
    vr: str = ""


class _Run:
    """Elements one after the other."""

    __slots__ = (
        "count",
        "heads",
        "heads_of",
        "parts",
        "size",
        "tags",
        "unpack",
        "values_of",
        "vrs",
    )

    def __init__(self, parts: list[_Part]) -> None:
        self.parts = parts
        self.count = len(parts)
        form, heads, values, recorded = ["<"], [], [], []
        fields = 0
        for part in parts:
            form.append(f"{len(part.head)}s")
            heads.append(fields)
            fields += 1
            if part.tag:
                form.append(f"{part.length}s")
                values.append(fields)
                recorded.append(part)
                fields += 1
            elif part.length:
                form.append(f"{part.length}x")
        packed = struct.Struct("".join(form))
        self.unpack = packed.unpack_from
        self.size = packed.size
        self.heads_of = itemgetter(*heads)
        self.heads: Any = tuple(part.head for part in parts) if len(parts) > 1 else parts[0].head
        self.tags = tuple(part.tag for part in recorded)
        self.vrs = tuple(part.vr for part in recorded)
        self.values_of = itemgetter(*values) if values else None


class KnownRuns:
    """The runs that are known of files which one writer wrote.

    Args:
        lookup: Tag as a little endian word of the file -> tag if it is recorded, negative if it is special.
        vrs: VRs of what is recorded where the file does not say it.
        explicit: Whether the file says VRs.
        longest: Of a value that is recorded, in bytes.
        prefix: What every element header begins with; others end the walk.
    """

    def __init__(
        self,
        lookup: Mapping[int, int],
        vrs: Mapping[int, str],
        *,
        explicit: bool,
        longest: int,
        prefix: bytes = b"",
    ) -> None:
        self._lookup = lookup
        self._vrs = vrs
        self._explicit = explicit
        self._longest = longest
        self._prefix = prefix
        self._runs: dict[bytes, _Run | None] = {}  # None: an element to be walked alone
        self._met: set[bytes] = set()
        self._elements = self._matched = self._steps = 0
        self._pays = True

    def walk(self, buffer: bytes, pos: int, group: Group, most: int) -> tuple[int, int, bool]:
        """Records into `group` what the runs that begin at `pos` hold.

        Args:
            buffer: Bytes of the file.
            pos: Where an element begins.
            group: A data set that no item surrounds.
            most: Elements to walk at most.

        Returns:
            (where the first element begins that is in no run, elements passed, whether it is worthwhile to come back
            after that element).
        """
        runs, first = self._runs, self._matched
        end = len(buffer)
        while self._pays:
            head = buffer[pos : pos + 8]
            run = runs.get(head)
            if run is None:
                if head in runs:
                    break
                if self._prefix and not head.startswith(self._prefix):
                    break
                if len(head) < 8 or head not in self._met:
                    self._meet(head)
                    return pos, self._matched - first, False
                if not self._learn(buffer, pos, head):
                    break
                continue
            if pos + run.size > end or self._matched - first + run.count > most:
                return pos, self._matched - first, False
            fields = run.unpack(buffer, pos)
            if run.heads_of(fields) != run.heads:
                self._split(run, head, run.heads_of(fields))
                continue
            if run.values_of is not None:
                values = run.values_of(fields)
                if len(run.tags) == 1:
                    group[run.tags[0]] = run.vrs[0], values
                else:
                    group.update(zip(run.tags, zip(run.vrs, values)))  # noqa: B905 (costs 5 %)
            pos += run.size
            self._matched += run.count
            self._steps += 1
            if self._steps == _TRIAL:
                self._pays = self._matched >= _PAYS * _TRIAL
        return pos, self._matched - first, self._pays

    def _meet(self, head: bytes) -> None:
        """Learns only what comes again: many headers come once."""
        if len(self._met) >= _MOST_ELEMENTS:
            self._met.clear()
        self._met.add(head)

    def _keep(self, head: bytes, run: _Run | None) -> None:
        self._elements += 1 if run is None else run.count
        if self._elements > _MOST_ELEMENTS:
            self._runs.clear()
            self._elements = 0
        self._runs[head] = run

    def _learn(self, buffer: bytes, pos: int, head: bytes) -> bool:
        """Makes a run of the elements from `pos` to one that is known or unusual; `False` if there is none."""
        parts: list[_Part] = []
        begins = head
        while len(parts) < _LONGEST_RUN and (not parts or head not in self._runs):
            part = self._part(buffer, pos)
            if part is None:
                break
            parts.append(part)
            pos += len(part.head) + part.length
            head = buffer[pos : pos + 8]
        self._keep(begins, _Run(parts) if parts else None)
        return bool(parts)

    def _part(self, buffer: bytes, pos: int) -> _Part | None:
        """The element at `pos`, `None` if it is not whole, or not one that is just recorded or just skipped."""
        if pos + 12 > len(buffer) or not buffer.startswith(self._prefix, pos):
            return None
        header, vr = 8, ""
        if self._explicit:
            word, code, length = _head(buffer, pos)
            vr = SHORT.get(code, "")
            if not vr:
                if code not in LONG:
                    return None
                (length,) = _length(buffer, pos + 8)
                header = 12
        else:
            word, length = _pair(buffer, pos)
        tag = self._lookup.get(word)
        if length == UNDEFINED or pos + header + length > len(buffer):
            return None
        if tag is None:
            return _Part(buffer[pos : pos + header], length)
        if not vr and not self._explicit:
            vr = self._vrs.get(tag, "SQ")
        if tag < 0 or header == 12 or vr == "SQ" or length > self._longest:
            return None
        return _Part(buffer[pos : pos + header], length, tag, vr)

    def _split(self, run: _Run, head: bytes, found: Any) -> None:
        """Lets a run end where this file differs, and another one begin there."""
        heads = found if run.count > 1 else (found,)
        at = next(k for k, part in enumerate(run.parts) if part.head != heads[k])
        # Long values, as of private elements, differ from file to file: a run neither has one nor begins with one.
        long = len(run.parts[at].head) == 12
        if at:
            self._keep(head, _Run(run.parts[:at]))
        if long:
            self._keep(run.parts[at].head[:8], None)
        tail = run.parts[at + long :]
        if tail and tail[0].head[:8] not in self._runs:
            self._keep(tail[0].head[:8], _Run(tail))


def first_two(
    buffer: bytes, pos: int, explicit: bool
) -> tuple[struct.Struct, tuple[bytes, bytes]] | None:
    """How to see whether a data set begins with the same two elements as this one; `None` if they are unusual."""
    heads = []
    gap = 0
    for _ in range(2):
        if pos + 8 > len(buffer):
            return None
        _, vr, length = _head(buffer, pos)
        if not explicit:
            _, length = _pair(buffer, pos)
        elif vr not in SHORT:
            return None
        if pos + 8 + length > len(buffer):
            return None
        heads.append(buffer[pos : pos + 8])
        gap = gap if len(heads) == 2 else length
        pos += 8 + length
    return struct.Struct(f"<8s{gap}x8s"), (heads[0], heads[1])
