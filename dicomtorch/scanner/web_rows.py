"""From the header of an instance in JSON (PS3.18 annex F) to its rows, by the rules that hold for files."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dicomtorch.dicom.elements import Header, PixelDataElement, texts
from dicomtorch.dicom.header import read_header
from dicomtorch.dicom.tags import KEYWORDS, PIXEL_DATA_TAGS, VRS
from dicomtorch.errors import EncapsulationError, HeaderError, StorageError
from dicomtorch.index.builder import FileRows
from dicomtorch.model.frame import SPAN_RULES
from dicomtorch.model.mask_object import KINDS
from dicomtorch.scanner.entries import UNREAD, fault_of
from dicomtorch.scanner.file import DIRECTORY_RECORDS, classify, read_dicom
from dicomtorch.scanner.mask_objects import MASK_TAGS, mask_object
from dicomtorch.scanner.resolve.image import IMAGE_PIXEL_TAGS
from dicomtorch.scanner.resolve.private import needs_large
from dicomtorch.scanner.resolve.resolver import Resolver
from dicomtorch.scanner.worker import Job
from dicomtorch.storage.instances import identity_of_bytes

_AVAILABLE: Final = "00083002"
_PIXEL_DATA: Final = 0x7FE00010
_CONTOURS: Final = "30060039"  # ROI Contour Sequence: of these the places in the file are kept
_TABLES: Final = (0x0028, 0x5400, 0x0040)
"""Groups of values that are fetched where a header only says where they are: lookup tables."""


@dataclass(eq=False)
class Described:
    """An instance whose header is read, and how its frames are encoded not yet known.

    Attributes:
        rows: What is known of it.
        header: Its wanted elements; `None` if they cannot be read.
        transfer_syntax_uid: How its frames are encoded, "" if nobody knows yet.
        problem: Why that could not be found out.
    """

    rows: FileRows
    header: Header | None = None
    transfer_syntax_uid: str = ""
    problem: str = ""

    @property
    def is_image(self) -> bool:
        """Whether it has frames to ask for."""
        return self.header is not None and self.header.pixel_data is not None


def alike(one: Described) -> Any:
    """Equal for instances of a series that are most likely encoded alike."""
    assert one.header is not None
    elements = one.header.elements
    class_uid = texts(elements.get(KEYWORDS["SOPClassUID"][0]))
    pixels = tuple(str(elements.get(tag)) for tag in sorted(IMAGE_PIXEL_TAGS))
    return tuple(class_uid), pixels, (KEYWORDS["NumberOfFrames"][0] in elements)


class WebReader:
    """Reads headers in JSON; one thread.

    Args:
        job: What is read of each.
        bulk: Gives a value by its address.
        whole: Gives the file of an instance by its path.
    """

    def __init__(
        self, job: Job, bulk: Callable[[str], bytes], whole: Callable[[bytes], bytes]
    ) -> None:
        self._limits = job.limits
        self._bulk = bulk
        self._whole = whole
        self._resolver = Resolver(
            tags=job.tags, extra={DIRECTORY_RECORDS} | MASK_TAGS, limits=job.limits
        )

    def described(self, header: Mapping[str, Any], rows: FileRows) -> Described:
        """An instance with its header; what is wrong with it is in `rows`."""
        rows.version = _checksum(header)
        try:
            found = self._header(header)
        except StorageError as error:
            rows.mtime_ns, rows.reason = UNREAD, str(error)
            return Described(rows)
        except (HeaderError, EncapsulationError) as error:
            rows.reason = str(error)
            return Described(rows)
        except MemoryError:
            raise
        except Exception as error:  # whatever pydicom makes of what the server gave
            rows.reason = (
                f"the server describes it in a way that cannot be read ({type(error).__name__})"
            )
            return Described(rows)
        return Described(rows, found, _available(header))

    def _header(self, given: Mapping[str, Any]) -> Header:
        import pydicom
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian

        pixels: list[int] = [int(tag, 16) for tag in given if int(tag, 16) in PIXEL_DATA_TAGS]
        elements = {
            tag: value
            for tag, value in given.items()
            if tag != _CONTOURS and self._is_wanted(int(tag, 16))
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are none of the standard's
            dataset = pydicom.Dataset.from_json(elements, self._value)
            dataset.SpecificCharacterSet = "ISO_IR 192"
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.preamble = bytes(128)
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=False)
        data = buffer.getvalue()

        def read(offset: int, length: int) -> bytes:
            return data[offset : offset + length]

        resolver = self._resolver
        header = read_header(read, len(data), resolver.wanted, self._limits)
        if needs_large(header.elements):
            header = read_header(read, len(data), resolver.wanted_of_large, self._limits)
        if all(
            KEYWORDS[name][0] in header.elements for name in ("Rows", "Columns", "BitsAllocated")
        ):
            tag = pixels[0] if pixels else _PIXEL_DATA
            header.pixel_data = PixelDataElement(tag, VRS[tag], 0, 0)
        return header

    def _is_wanted(self, tag: int) -> bool:
        """Whether an element of the main data set is read; creators of private ones are."""
        resolver = self._resolver
        is_creator = tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF
        known = tag in resolver.wanted or tag in resolver.wanted_of_large
        return (known and tag not in PIXEL_DATA_TAGS) or bool(is_creator)

    def _value(self, tag: str, vr: str, address: str) -> Any:
        """A value that the server gives apart: fetched if it may be a lookup table, else left out."""
        if int(tag[:4], 16) not in _TABLES or vr not in ("OW", "OB", "US", "SS", "UN"):
            return b"" if vr in ("OB", "OW", "OD", "OF", "OL", "OV", "UN") else None
        return self._bulk(address)

    def finished(self, one: Described) -> FileRows:
        """The rows of an instance, now that its transfer syntax is known, if it is."""
        rows, header = one.rows, one.header
        if header is None:
            return rows
        if one.problem:
            rows.mtime_ns, rows.reason = UNREAD, one.problem
            return rows
        try:
            header.transfer_syntax_uid = one.transfer_syntax_uid
            self._finish(rows, header)
        except StorageError as error:
            rows.mtime_ns, rows.file_class, rows.reason = UNREAD, "unreadable", str(error)
        except (HeaderError, EncapsulationError) as error:
            rows.file_class, rows.reason, rows.count, rows.columns = "unreadable", str(error), 0, {}
        except MemoryError:
            raise
        except Exception as error:
            rows.file_class, rows.reason, rows.count = "unreadable", fault_of(error), 0
            rows.mtime_ns, rows.columns = UNREAD, {}
        return rows

    def _finish(self, rows: FileRows, header: Header) -> None:
        resolver = self._resolver
        notices = list(header.notices)
        rows.file_class, rows.reason = classify(header, resolver)
        if rows.file_class == "image":
            rows.claimed_frames = resolver.number_of_frames(header, notices)
            pixel = resolver.image_pixel(header, notices)
            rows.count = rows.found_frames = max(rows.claimed_frames, 1)
            if rows.count > self._limits.frames_per_file:
                raise HeaderError(
                    f"{rows.count} frames are more than Limits.frames_per_file = {self._limits.frames_per_file}"
                )
            resolved = resolver.resolve(header, pixel, rows.count)
            notices.extend(resolved.notices)
            numbers = np.arange(rows.count)
            rows.lookups = resolved.lookups
            rows.columns = resolved.columns | {
                "frame": numbers,
                "offset": numbers,  # what is asked for
                "length": 0 if pixel.is_encapsulated else -(-pixel.native_bits // 8),
                "fragments": 0,
                "bit_offset": 0,
                "true_length": -1,
                "span_rule": SPAN_RULES.index("single_frame"),
            }
        sop_class = "".join(texts(header.elements.get(KEYWORDS["SOPClassUID"][0]))[:1])
        if KINDS.get(sop_class) == "rtstruct":
            self._read_contours(rows)
        else:
            rows.mask_object = mask_object(header, rows.count, self._limits)
        rows.notices = "; ".join(dict.fromkeys(notices))

    def _read_contours(self, rows: FileRows) -> None:
        """Takes segments, and the places of contours, from the file of an RTSTRUCT."""
        data = self._whole(rows.path)
        size, *_, version = identity_of_bytes(data)
        file = FileRows(rows.path, size, 0, 0, "not_dicom")
        read_dicom(lambda at, length: data[at : at + length], file, self._resolver, self._limits)
        if not file.mask_object:
            raise StorageError(f"the server gave no RTSTRUCT where one is ({file.reason})")
        rows.size, rows.version = size, version
        rows.deflated, rows.mask_object = file.deflated, file.mask_object


def _checksum(header: Mapping[str, Any]) -> str:
    """What tells this header of an instance from another one: a server says of no instance that it was changed."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    return f"header {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _available(header: Mapping[str, Any]) -> str:
    """The transfer syntax that the server says it has the instance in, "" if it does not, or several."""
    value = header.get(_AVAILABLE, {})
    values = value.get("Value", []) if isinstance(value, Mapping) else []
    return values[0] if len(values) == 1 and isinstance(values[0], str) else ""
