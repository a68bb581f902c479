"""Lookup tables from their elements: descriptor, packed entries, segmented palettes.

PS3.3 C.11.1.1 (Modality LUT), C.11.2.1.1 (VOI LUT), C.7.6.3.1.5 and C.7.6.3.1.6 (palettes), C.7.9.2 (segmented
palettes).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import HeaderError
from dicomtorch.model.frame import LookupTable

Entries = npt.NDArray[np.uint16]

MAX_ENTRIES = 65_536
DISCRETE, LINEAR, INDIRECT = 0, 1, 2


def lookup_table(
    descriptor: Sequence[int],
    data: bytes,
    *,
    big_endian: bool = False,
    signed_first: bool = False,
    vr: str = "OW",
    segmented: bool = False,
    name: str = "lookup table",
) -> LookupTable | None:
    """The table that a descriptor and its data describe.

    Entries of at most 8 bits may lie two in a word or one in each word: the length of the data tells which.

    Args:
        descriptor: Number of entries (0 means 65,536), first value mapped, bits per entry; read as US or as SS.
        data: Value of the LUT data element, in file order.
        big_endian: Byte order of the data set.
        signed_first: Whether the first value mapped is two's complement: for a Modality LUT or a palette if Pixel
            Representation is 1, for a VOI LUT if modality values can be negative.
        vr: VR of the data element.
        segmented: Whether `data` are segments, as in (0028,1221).
        name: Tag and keyword of the data element, for messages.

    Returns:
        The table, or `None` if descriptor or data are empty, which means the same as absent.

    Raises:
        HeaderError: Descriptor and data contradict each other.
    """
    if not len(descriptor) or not data:
        return None
    if len(descriptor) != 3:
        raise HeaderError(f"{name}: the descriptor has {len(descriptor)} values; expected 3")
    count = (int(descriptor[0]) & 0xFFFF) or MAX_ENTRIES
    first = int(descriptor[1]) & 0xFFFF
    if signed_first and first >= 0x8000:
        first -= 0x10000
    bits = int(descriptor[2])
    if segmented:
        entries = _segmented_entries(data, count, bits, big_endian, vr, name)
    else:
        entries = _plain_entries(data, count, big_endian, vr, name)
    if len(data) < 2 * count and not segmented:
        bits = 8  # whatever the descriptor says, there are 8 bits for each entry
    # Bits that no table can have say nothing; `LookupTable.maximum` then goes by the entries.
    return LookupTable(first, bits if 0 < bits <= 16 else 0, entries)


def expand_segmented_palette(
    data: npt.NDArray[np.unsignedinteger], *, limit: int = MAX_ENTRIES, name: str = "palette"
) -> Entries:
    """Expands segmented palette data (PS3.3 C.7.9.2).

    The entries of a linear segment are rounded to nearest. The offset of an indirect segment counts bytes.

    Args:
        data: The segments as they are in the element: uint8 for 8-bit entries, uint16 for 16-bit ones.
        limit: The most entries that may come out.
        name: Tag and keyword, for messages.

    Raises:
        HeaderError: The segments are damaged, or give more than `limit` entries.
    """
    values = data.tolist()
    parts: list[npt.NDArray[np.float64]] = []
    count, position = 0, 0
    segments = 0
    # (segment number at which to go back, position to go back to) while inside an indirect segment
    back: tuple[int, int] | None = None
    while back is not None or position + 2 < len(values):
        if back is not None and segments == back[0]:
            position, back = back[1], None
            continue
        if position + 2 >= len(values):
            raise HeaderError(f"{name}: an indirect segment runs beyond the data")
        opcode, length = values[position], values[position + 1]
        position += 2
        if opcode == INDIRECT:
            if back is not None:
                raise HeaderError(f"{name}: an indirect segment refers to an indirect segment")
            target, after = _indirect_target(values, position, data.dtype.itemsize, name)
            back, position = (segments + length, after), target
            continue
        segments += 1
        last = float(parts[-1][-1]) if parts else None
        part, position = _segment(values, position, opcode, length, last, name)
        count += len(part)
        # Empty segments that are repeated cost time and give nothing, so segments count as well.
        if count > limit or segments > limit + len(values):
            raise HeaderError(f"{name}: the segments give more than the {limit} entries expected")
        if len(part):
            parts.append(part)
    return np.concatenate(parts).astype(np.uint16) if parts else np.empty(0, np.uint16)


def _segment(
    values: list[int], position: int, opcode: int, length: int, last: float | None, name: str
) -> tuple[npt.NDArray[np.float64], int]:
    """The entries of one discrete or linear segment, and the position after it."""
    if opcode == DISCRETE:
        part = np.asarray(values[position : position + length], np.float64)
        if len(part) != length:
            raise HeaderError(
                f"{name}: a discrete segment of {length} entries has only {len(part)} in the data"
            )
        return part, position + length
    if opcode != LINEAR:
        raise HeaderError(f"{name}: segment type {opcode} is not known; expected 0, 1 or 2")
    if last is None:
        raise HeaderError(f"{name}: the first segment is linear, so it has no value to start from")
    if length == 0:
        return np.empty(0), position + 1
    steps = np.arange(1, length + 1) / length
    return np.rint(last + (values[position] - last) * steps), position + 1


def _indirect_target(values: list[int], position: int, itemsize: int, name: str) -> tuple[int, int]:
    """Where an indirect segment points to, and the position after it; its offset is four bytes, low word first."""
    size = 4 // itemsize
    words = values[position : position + size]
    offset = sum(word << (8 * itemsize * i) for i, word in enumerate(words))
    if len(words) != size or offset % itemsize or offset // itemsize >= position - 2:
        raise HeaderError(f"{name}: an indirect segment refers to byte {offset}, not before itself")
    return offset // itemsize, position + size


def _words(data: bytes, big_endian: bool, vr: str) -> Entries:
    # UN is little endian in every transfer syntax (PS3.5 section 6.2.2).
    order = ">" if big_endian and vr != "UN" else "<"
    return np.frombuffer(data, f"{order}u2", len(data) // 2).astype(np.uint16)


def _bytes(data: bytes, big_endian: bool, vr: str) -> npt.NDArray[np.uint8]:
    # Two bytes of one word swap places in a big endian file, unless they were written as bytes.
    if vr == "OB" or not big_endian:
        return np.frombuffer(data, np.uint8)
    return _words(data, big_endian, vr).view(np.uint8)


def _plain_entries(data: bytes, count: int, big_endian: bool, vr: str, name: str) -> Entries:
    if len(data) >= 2 * count:
        return _words(data, big_endian, vr)[:count]
    if len(data) - count in (0, 1):
        return _bytes(data, big_endian, vr)[:count].astype(np.uint16)
    raise HeaderError(
        f"{name}: {len(data)} bytes do not hold the {count} entries of the descriptor; "
        f"expected {count} or {2 * count} bytes"
    )


def _segmented_entries(
    data: bytes, count: int, bits: int, big_endian: bool, vr: str, name: str
) -> Entries:
    if bits <= 8:
        segments: npt.NDArray[np.unsignedinteger] = _bytes(data, big_endian, vr)
    else:
        segments = _words(data, big_endian, vr)
    entries = expand_segmented_palette(segments, limit=count, name=name)
    if len(entries) != count:
        raise HeaderError(
            f"{name}: the segments give {len(entries)} entries; the descriptor says {count}"
        )
    return entries
