"""Where the frames of a Pixel Data element are: offset tables, fragments, native frames (PS3.5 section 8, annex A.4).

Pure functions: bytes come from a `read(offset, length)` that is handed in, or are given as a whole.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dicomtorch.dicom.elements import PixelDataElement, Read
from dicomtorch.dicom.encapsulated import Encapsulated, element_name
from dicomtorch.dicom.fragments import packs_into_big_endian_words
from dicomtorch.dicom.items import ITEM
from dicomtorch.errors import EncapsulationError, format_count
from dicomtorch.model.frame import FrameSpans
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.shown import named_uid


def locate_frames(
    read: Read,
    size: int,
    element: PixelDataElement,
    pixel: ImagePixel,
    number_of_frames: int | None,
    *,
    extended_offsets: npt.ArrayLike | None = None,
    extended_lengths: npt.ArrayLike | None = None,
    limits: Limits = LIMITS,
) -> FrameSpans:
    """Finds the bytes of every frame of a Pixel Data element.

    Native frames follow from the header alone. Encapsulated ones are told apart by, in order of trust: the Extended
    Offset Table, the Basic Offset Table, their being one, one fragment each, start and end markers. Frames that are
    claimed but not in the file are left out, and a notice says so.

    Args:
        read: Positioned read of the file, of the inflated data set if it is deflated.
        size: Bytes of the same.
        element: The element's place.
        pixel: Its Image Pixel Module.
        number_of_frames: (0028,0008) as in the header, `None` if absent.
        extended_offsets: (7FE0,0001) Extended Offset Table, integers from the first item after the Basic Offset Table.
        extended_lengths: (7FE0,0002) Extended Offset Table Lengths.
        limits: `frames_per_file` and `fragments` hold.

    Raises:
        EncapsulationError: The frames cannot be told apart, or the element contradicts its transfer syntax.
    """
    notices: list[str] = []
    claimed = 1 if number_of_frames is None else number_of_frames
    if claimed < 1:
        notices.append(f"(0028,0008) NumberOfFrames is {claimed}; taken as 1")
        claimed = 1
    if not pixel.is_encapsulated:
        return _native(size, element, pixel, claimed, limits, notices)
    if element.length >= 0 and read(element.offset, 4) == ITEM.to_bytes(4, "little"):
        notices.append(
            f"{element_name(element)} states {element.length} bytes, where transfer syntax "
            f"{pixel.transfer_syntax_uid} has undefined length; its items are taken within them"
        )
    elif element.length >= 0:
        raise EncapsulationError(
            f"{element_name(element)} has {element.length} bytes, but transfer syntax "
            f"{named_uid(pixel.transfer_syntax_uid)} needs undefined length and items; one of the two is wrong"
        )
    if claimed > limits.frames_per_file:
        raise EncapsulationError(
            f"(0028,0008) NumberOfFrames is {claimed}, more than Limits.frames_per_file = "
            f"{limits.frames_per_file}"
        )
    return Encapsulated(read, size, element, pixel, claimed, limits, notices).locate(
        extended_offsets, extended_lengths
    )


def _native(
    size: int,
    element: PixelDataElement,
    pixel: ImagePixel,
    claimed: int,
    limits: Limits,
    notices: list[str],
) -> FrameSpans:
    if element.length < 0:
        raise EncapsulationError(
            f"{element_name(element)} has undefined length, but transfer syntax "
            f"{named_uid(pixel.transfer_syntax_uid)} is native and needs a length; one of the two is wrong"
        )
    available = max(min(element.length, size - element.offset), 0)
    if available < element.length:
        notices.append(
            f"{element_name(element)} states {element.length} bytes, the file has {available} of them"
        )
    bits, interpretation = _native_frame(pixel, claimed, element.length, notices)
    words = packs_into_big_endian_words(pixel)
    whole = (available // 2 * 2 if words else available) * 8 // bits
    if min(whole, claimed) > limits.frames_per_file:
        raise EncapsulationError(
            f"{min(whole, claimed)} frames are more than Limits.frames_per_file = "
            f"{limits.frames_per_file}"
        )
    count = min(whole, claimed)
    excess = available - -(-claimed * bits // 8)
    found = whole if excess > 1 else count
    if count < claimed or found > claimed:
        notices.append(f"{format_count(claimed, 'frame')} claimed, {found:,} found")
    elif excess > 1:
        notices.append(f"{format_count(excess, 'byte')} follow the last frame")
    start = np.arange(count, dtype=np.int64) * bits
    unit = 16 if words else 8
    offset, bit_offset = start // unit * (unit // 8), start % unit
    length = (bit_offset + bits + unit - 1) // unit * (unit // 8)
    return FrameSpans(
        offset + element.offset,
        length,
        np.zeros(count, np.int32),
        bit_offset.astype(np.int8),
        np.full(count, -1, np.int64),
        "native",
        found,
        interpretation,
        tuple(notices),
    )


def _native_frame(
    pixel: ImagePixel, claimed: int, stated: int, notices: list[str]
) -> tuple[int, str]:
    """(bits of a frame, photometric interpretation that the length bears out)."""
    bits = pixel.native_bits
    if bits <= 0:
        raise EncapsulationError(
            f"(0028,0010) Rows is {pixel.rows}, (0028,0011) Columns is {pixel.columns}; both must be "
            "positive"
        )
    if pixel.photometric_interpretation == "YBR_FULL_422" and pixel.samples_per_pixel == 3:
        full = bits // 2 * 3
        if 0 <= stated - -(-claimed * full // 8) <= 1:
            notices.append(
                "(0028,0004) PhotometricInterpretation is YBR_FULL_422, but the pixel data have "
                "the length of YBR_FULL; taken as that"
            )
            return full, "YBR_FULL"
    return bits, pixel.photometric_interpretation
