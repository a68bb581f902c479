"""From one file to its rows: what kind of file it is, where its frames are, and the values that hold for them."""

from __future__ import annotations

import gc
import os
import stat
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dicomtorch.dicom.elements import Header, Read, array, texts
from dicomtorch.dicom.header import read_header
from dicomtorch.dicom.spans import locate_frames
from dicomtorch.dicom.tags import KEYWORDS
from dicomtorch.errors import EncapsulationError, HeaderError, NotDicomError, format_count
from dicomtorch.index.builder import FileRows
from dicomtorch.model.frame import SPAN_RULES, FrameSpans
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.report import FileClass
from dicomtorch.model.shown import named_uid
from dicomtorch.model.syntaxes import (
    KNOWN_SYNTAXES,
    VIDEO,
)
from dicomtorch.scanner.given import what_it_is
from dicomtorch.scanner.mask_objects import mask_object
from dicomtorch.scanner.objects import Begun
from dicomtorch.scanner.resolve.memory import SharedColumns
from dicomtorch.scanner.resolve.private import needs_large
from dicomtorch.scanner.resolve.resolver import Resolver
from dicomtorch.storage.files import identity_of, kind_of, open_at_once
from dicomtorch.storage.local import read_at

_BEGINNING: Final = 512  # bytes that tell what a file is that is no DICOM
DIRECTORY_RECORDS: Final = 0x00041200
"""(0004,1200) Offset of the First Directory Record: every DICOMDIR has it, and nothing else."""


def read_file(
    absolute: bytes, path: bytes, resolver: Resolver, limits: Limits = LIMITS
) -> FileRows:
    """What there is to know about one file; it is opened once and its pixel data are not read.

    Args:
        absolute: Where it is.
        path: What it is called in the index.
        resolver: Holds what files have in common.
        limits: What a header may cost.

    Raises:
        OSError: The system did not open or read it.
    """
    descriptor = open_at_once(absolute)
    try:
        info = os.fstat(descriptor)
        rows = FileRows(path, *identity_of(info)[:3], "not_dicom")
        if not stat.S_ISREG(info.st_mode):
            rows.reason = kind_of(info.st_mode)
        elif not info.st_size:
            rows.reason = "an empty file"
        else:
            read_dicom(partial(read_at, descriptor), rows, resolver, limits)
        return rows
    finally:
        os.close(descriptor)


def read_object(object: Begun, path: bytes, resolver: Resolver, limits: Limits) -> FileRows:
    """The same of an object whose first bytes are here.

    Raises:
        MoreNeeded: They are not enough, and more is not asked for.
        StaleIndexError: It is another one by now.
        StorageError: More was not given.
    """
    size, mtime_ns, inode, version = object.identity
    rows = FileRows(path, size, mtime_ns, inode, "not_dicom", version=version)
    if not size:
        rows.reason = "an empty object"
    else:
        read_dicom(object.read, rows, resolver, limits)
    return rows


def read_dicom(read: Read, rows: FileRows, resolver: Resolver, limits: Limits) -> None:
    """Fills in `rows` of one file.

    Args:
        read: Positioned read of it.
        rows: Its size is that of what `read` reads.
        resolver: Holds what files have in common.
        limits: What a header may cost.
    """
    # A header with many frames is 10^5 small objects without cycles: looking for some doubles the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        header = read_header(read, rows.size, resolver.wanted, limits, resolver.memory)
        if needs_large(header.elements):
            header = read_header(read, rows.size, resolver.wanted_of_large, limits)
        key, common = resolver.series_memory.find(header)
        if common is not None and _recall(read, header, rows, resolver, limits, common):
            return
        rows.deflated = header.deflated
        rows.file_class, rows.reason = classify(header, resolver)
        notices = list(header.notices)
        if rows.file_class != "no_pixels":
            rows.claimed_frames = resolver.number_of_frames(header, notices)
        if rows.file_class == "unsupported" and rows.claimed_frames >= 0:
            rows.reason += f"; {format_count(rows.claimed_frames, 'frame')} claimed"
        if rows.file_class == "image":
            pixel, spans = _resolve_frames(read, header, rows, resolver, limits, notices)
        rows.mask_object = mask_object(header, rows.count, limits)
        rows.notices = "; ".join(dict.fromkeys(notices))
        if rows.file_class == "image" and rows.count == 1 and common is None and key is not None:
            _remember(key, header, rows, resolver, pixel, spans)
    except NotDicomError as error:
        beginning = bytes(read(0, min(rows.size, _BEGINNING)))
        rows.file_class, rows.reason = "not_dicom", what_it_is(beginning) or str(error)
    except (HeaderError, EncapsulationError) as error:
        rows.file_class, rows.reason, rows.count = "unreadable", str(error), 0
        rows.columns, rows.lookups = {}, []
    finally:
        if collecting:
            gc.enable()


def _recall(
    read: Read,
    header: Header,
    rows: FileRows,
    resolver: Resolver,
    limits: Limits,
    common: SharedColumns,
) -> bool:
    """Fills in `rows` of an image of one frame like an earlier one; `False` if something about it is odd."""
    element = header.pixel_data
    assert element is not None
    columns = resolver.series_memory.own_columns(header, resolver.context(header))
    if columns is None:
        return False
    if common.offset >= 0:
        if element.offset + element.length > rows.size:
            return False
        columns["offset"] = element.offset + common.offset
    else:
        spans = _locate(read, rows.size, header, common.pixel, common.claimed_frames, limits)
        if len(spans) != 1 or spans.notices:
            return False
        columns.update(_places(spans))
    rows.file_class, rows.count = "image", 1
    rows.claimed_frames, rows.found_frames = common.claimed_frames, common.found_frames
    rows.columns, rows.shared, rows.lookups = columns, common.columns, common.lookups
    rows.notices = common.notices
    return True


def _remember(
    key: Any,
    header: Header,
    rows: FileRows,
    resolver: Resolver,
    pixel: ImagePixel,
    spans: FrameSpans,
) -> None:
    """Keeps what an image of one frame has in common with those to come."""
    element = header.pixel_data
    assert element is not None
    places, offset = _places(spans), -1
    rows.columns = {
        name: value[0] if isinstance(value, list) else value for name, value in rows.columns.items()
    }
    rows.columns.update(places)
    own: tuple[str, ...] = ("offset",)
    if pixel.is_encapsulated:  # where its fragments are, each file says itself
        own = _PLACES
        if spans.notices or spans.photometric_interpretation not in (
            "",
            pixel.photometric_interpretation,
        ):
            return
    elif element.offset + element.length <= rows.size:
        offset = places["offset"] - element.offset
    else:
        return
    common = SharedColumns(
        columns={name: value for name, value in rows.columns.items() if name not in own},
        lookups=rows.lookups,
        claimed_frames=rows.claimed_frames,
        found_frames=rows.found_frames,
        notices=rows.notices,
        pixel=pixel,
        offset=offset,
    )
    resolver.series_memory.remember(key, header, resolver.context(header), common)


def classify(header: Header, resolver: Resolver) -> tuple[FileClass, str]:
    """What kind of file has this header, and why it has no frames to read."""
    syntax = header.transfer_syntax_uid
    if header.pixel_data is None:
        if DIRECTORY_RECORDS in header.elements:
            return "no_pixels", "a DICOMDIR (Media Storage Directory)"
        uid = "\\".join(texts(header.elements.get(KEYWORDS["SOPClassUID"][0])))
        return "no_pixels", named_uid(uid) if uid else "no SOPClassUID"
    if syntax in VIDEO:
        return "unsupported", f"video is not decoded: TransferSyntaxUID is {named_uid(syntax)}"
    if syntax not in KNOWN_SYNTAXES:
        stated = f"is {named_uid(syntax)}, which is not decoded" if syntax else "is absent"
        return "unsupported", f"(0002,0010) TransferSyntaxUID {stated}"
    return "image", ""


def _resolve_frames(
    read: Read,
    header: Header,
    rows: FileRows,
    resolver: Resolver,
    limits: Limits,
    notices: list[str],
) -> tuple[ImagePixel, FrameSpans]:
    """Finds the frames of an image and resolves their columns."""
    pixel = resolver.image_pixel(header, notices)
    spans = _locate(read, rows.size, header, pixel, rows.claimed_frames, limits)
    notices.extend(spans.notices)
    rows.count, rows.found_frames = len(spans), spans.found
    if not rows.count:
        raise EncapsulationError("; ".join(("no frame is there in whole", *spans.notices)))
    real = pixel
    if spans.photometric_interpretation not in ("", pixel.photometric_interpretation):
        real = replace(pixel, photometric_interpretation=spans.photometric_interpretation)
    resolved = resolver.resolve(header, real, rows.count)
    notices.extend(resolved.notices)
    rows.lookups = resolved.lookups
    rows.columns = resolved.columns
    rows.columns.update({name: getattr(spans, name) for name in _PLACES[2:]})
    rows.columns.update(frame=np.arange(rows.count), span_rule=SPAN_RULES.index(spans.rule))
    return pixel, spans


_PLACES: Final = (
    *("frame", "span_rule"),
    *("offset", "length", "fragments", "bit_offset", "true_length"),
)
"""The columns that say where a frame is."""


def _places(spans: FrameSpans) -> dict[str, int]:
    """The columns of the only frame."""
    places = {name: int(getattr(spans, name)[0]) for name in _PLACES[2:]}
    return {"frame": 0, "span_rule": SPAN_RULES.index(spans.rule), **places}


def _locate(
    read: Read, size: int, header: Header, pixel: ImagePixel, claimed: int, limits: Limits
) -> FrameSpans:
    assert header.pixel_data is not None
    if header.inflated is not None:
        inflated = header.inflated
        size = len(inflated)

        def read(offset: int, length: int) -> bytes:
            return inflated[offset : offset + length]

    return locate_frames(
        read,
        size,
        header.pixel_data,
        pixel,
        claimed if claimed >= 0 else None,
        extended_offsets=_table(header, "ExtendedOffsetTable"),
        extended_lengths=_table(header, "ExtendedOffsetTableLengths"),
        limits=limits,
    )


def _table(header: Header, keyword: str) -> npt.NDArray[Any] | None:
    """An extended offset table or its lengths."""
    tag, vr = KEYWORDS[keyword]
    element = header.elements.get(tag)
    return None if element is None else array((vr, element[1]), header.big_endian)
