"""The image header that older Siemens scanners keep in one private element: names with values in text.

Public knowledge of the format (CSA1, and CSA2 that begins with "SV10"): each entry is a name of 64 bytes, the number of
its values, a VR, a type, the number of its items, a check word, and the items: four numbers, of which the second is the
length, and the bytes, padded to 4.
"""

from __future__ import annotations

import struct
from typing import Final

_ENTRY: Final = struct.Struct("<64si4siii")
_ITEM: Final = struct.Struct("<4i")
_CHECKS: Final = (77, 205)
_MOST_ITEMS: Final = 64


def csa_values(data: bytes, name: str) -> list[str]:
    """The values of one entry, without the empty ones; none if it is absent or makes no sense."""
    label = name.encode("ascii") + b"\0"
    at = data.find(label)
    while at >= 0:
        found = _values_at(data, at, label)
        if found is not None:
            return found
        at = data.find(label, at + 1)
    return []


def _values_at(data: bytes, at: int, label: bytes) -> list[str] | None:
    """The values of the entry at an offset; `None` if there is none."""
    if at + _ENTRY.size > len(data):
        return None
    _, multiplicity, _, _, items, check = _ENTRY.unpack_from(data, at)
    if check not in _CHECKS or not 0 <= items <= _MOST_ITEMS:
        return None
    values = []
    at += _ENTRY.size
    for _ in range(min(items, multiplicity) if multiplicity > 0 else items):
        if at + _ITEM.size > len(data):
            return None
        length = _ITEM.unpack_from(data, at)[1]
        at += _ITEM.size
        if not 0 <= length <= len(data) - at:
            return None
        text = data[at : at + length].split(b"\0", 1)[0].strip()
        if text:
            values.append(text.decode("ascii", "replace"))
        at += -(-length // 4) * 4
    return values


def csa_numbers(data: bytes, name: str, count: int) -> tuple[float, ...] | None:
    """The `count` numbers of one entry; `None` if there are not as many."""
    values = csa_values(data, name)
    if len(values) != count:
        return None
    try:
        return tuple(map(float, values))
    except ValueError:
        return None
