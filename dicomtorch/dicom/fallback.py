"""Headers that the own walk cannot read, by pydicom."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Final

from dicomtorch.dicom.elements import Group, Header, Read
from dicomtorch.dicom.tags import PIXEL_DATA_TAGS, vr_of
from dicomtorch.dicom.walk import Walk
from dicomtorch.errors import HeaderError
from dicomtorch.model.limits import Limits

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_FALLBACK_BYTES: Final = 1 << 18  # pydicom takes seconds for megabytes of empty items


def header_from_pydicom(
    read: Read,
    size: int,
    start: int,
    wanted: frozenset[int],
    header: Header,
    explicit: bool,
    limits: Limits,
    *,
    cause: HeaderError,
) -> Header:
    """Reads what the walk made no sense of with pydicom, if the data set in front of the pixels is small.

    Raises:
        HeaderError: pydicom does not get to the pixel data, fails as well, or the header is too large for it; the
            message begins with that of `cause`.
    """
    from pydicom.filereader import read_dataset

    data = io.BytesIO(read(start, min(size - start, _FALLBACK_BYTES)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the notice below says it all
            dataset = read_dataset(
                data,
                is_implicit_VR=not explicit,
                is_little_endian=not header.big_endian,
                stop_when=lambda tag, vr, length: int(tag) in PIXEL_DATA_TAGS,
            )
            elements = _from_dataset(dataset, wanted, limits.depth)
    except MemoryError:
        raise
    except Exception as error:
        raise HeaderError(f"{cause}; pydicom fails too ({type(error).__name__})") from cause
    position = start + data.tell()
    result = Header(header.transfer_syntax_uid, header.big_endian, elements)
    result.deflated = header.deflated
    result.notices = [*header.notices, f"read by pydicom, because {cause}"]
    if not _finds_pixel_data(read, size, position, result, explicit, limits):
        raise HeaderError(f"{cause}; pydicom stops at offset {position}") from cause
    return result


def _finds_pixel_data(
    read: Read, size: int, position: int, header: Header, explicit: bool, limits: Limits
) -> bool:
    """Whether pydicom stopped at pixel data, and not because it lost its way or ran out of bytes."""
    try:
        Walk(read, size, header, frozenset(), limits).run(b"", position, position, explicit)
    except HeaderError:
        return False
    return header.pixel_data is not None and header.pixel_data.offset - position <= 12


def _from_dataset(dataset: Dataset, wanted: frozenset[int], depth: int) -> Group:
    """The wanted raw elements of a data set of pydicom; `depth` bounds the recursion."""
    if depth == 0:
        raise RecursionError
    group: Group = {}
    for tag in map(int, wanted.intersection(dataset.keys())):
        element = dataset.get_item(tag)
        vr, value = element.VR, element.value or b""
        if vr in (None, "UN"):
            vr = vr_of(tag)
        if vr == "SQ":
            items = dataset[tag].value
            value = [_from_dataset(item, wanted, depth - 1) for item in items]
        elif isinstance(value, str):  # Specific Character Set, which pydicom converts at once
            value = value.encode()
        elif not isinstance(value, bytes):
            value = "\\".join(value).encode()
        group[tag] = vr or "", value
    return group
