"""What the images of a series have in common, resolved once: most of their headers differ in a few attributes only.

An image whose other elements are those of an earlier one gets that one's columns, and its own values of attributes that
are columns as they are. Whatever is odd about a value is left to `resolver.Resolver`, so that the rows are the same
whether an image came first or last.

An example: slice 1 of a CT is resolved in full, some hundred elements to some seventy columns. Its key is all elements
but those of `_OWN`, `_IDENTITY`, the window and what plain images do not use; under it are kept the columns Modality,
Rows, PixelSpacing, RescaleSlope, ... (`SharedColumns`). The header of slice 2 has the same key, so that only its
SOPInstanceUID, InstanceNumber, ImagePositionPatient and times are converted, and the rest is the same dictionary. Slice
3 has another KVP: its key is another one, and it is resolved in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dicomtorch.dicom.elements import Element, Group, Header
from dicomtorch.dicom.tags import private_tags
from dicomtorch.model.frame import LookupTable, RealWorldValueMap
from dicomtorch.model.image import ImagePixel
from dicomtorch.scanner.resolve.conversions import TAGS, Context, keywords, tags_of
from dicomtorch.scanner.resolve.diffusion import PRIVATE_DIFFUSION_TAGS, private_diffusion

_MOST_REMEMBERED: Final = 4096

# Of each image, in most series.
_OWN: Final = {
    TAGS["SOPInstanceUID"]: ("SOPInstanceUID", "text"),
    TAGS["InstanceNumber"]: ("InstanceNumber", "int32"),
    TAGS["ImagePositionPatient"]: ("ImagePositionPatient", "float64[3]"),
    TAGS["AcquisitionTime"]: ("AcquisitionTime", "seconds"),
    TAGS["AcquisitionNumber"]: ("AcquisitionNumber", "int32"),
    TAGS["ContentTime"]: ("ContentTime", "seconds"),
    TAGS["FrameReferenceTime"]: ("FrameReferenceTime", "float64"),
    TAGS["TriggerTime"]: ("TriggerTime", "float64"),
}
# Of each series or patient.
_IDENTITY: Final = keywords(
    "StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID PatientID IssuerOfPatientID"
)
_IDENTITY_TAGS: Final = tuple(TAGS[keyword] for keyword in _IDENTITY)
_WINDOW: Final = (TAGS["WindowCenter"], TAGS["WindowWidth"])
_WINDOW_COLUMNS: Final = ("WindowCenter", "WindowWidth", "windows")
_ACQUIRED: Final = TAGS["AcquisitionDateTime"]
_FUNCTION: Final = TAGS["VOILUTFunction"]
_VOI_LUTS: Final = TAGS["VOILUTSequence"]
_MODALITY: Final = TAGS["Modality"]
_IMAGE_TYPE: Final = TAGS["ImageType"]
_MANUFACTURER: Final = TAGS["Manufacturer"]
_NONE: Final[Element] = ("", b"")

# What only these, or only a few images, are resolved with.
_OTHER_MODALITIES: Final = frozenset((b"NM", b"PT", b"RTDOSE"))
_NEVER_SHARED: Final = tuple(
    tags_of(
        keywords("""
            SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence GridFrameOffsetVector
            DimensionOrganizationType
        """)
    )
)
_UNUSED_BY_PLAIN_IMAGES: Final = (
    tags_of(
        keywords("""
            DerivationImageSequence SourceImageSequence CorrectedImage DecayCorrection SUVType
            PatientWeight ActualFrameDuration SeriesDate SeriesTime AcquisitionDate
            RadiopharmaceuticalInformationSequence DetectorInformationSequence SliceVector
            ContentDate ContentTime ReferencedSeriesSequence AnatomicRegionSequence ImageComments
        """)
    )
    | private_tags()
    | private_tags(large=True)
    | {0x00080201}  # TimezoneOffsetFromUTC
)
_APART: Final = frozenset(_OWN) | frozenset(_IDENTITY_TAGS) | _UNUSED_BY_PLAIN_IMAGES | {_ACQUIRED}


@dataclass(slots=True)
class SharedColumns:
    """What images of one frame with the same key have in common.

    Attributes:
        columns: Name of a column -> value, but for what each file has of its own.
        lookups: What the `*_lut`, `palette` and `real_world_value_map` columns number.
        claimed_frames: NumberOfFrames, -1 if absent.
        found_frames: Frames that the pixel data hold.
        notices: What was odd.
        pixel: The Image Pixel Module of the header.
        offset: Of the frame, from the first byte of the pixel data; -1 if each file says itself where its frame is.
    """

    columns: dict[str, Any]
    lookups: list[LookupTable | RealWorldValueMap]
    claimed_frames: int
    found_frames: int
    notices: str
    pixel: ImagePixel
    offset: int = -1


class SeriesMemory:
    """The images of a scan.

    Args:
        tags: Further columns by keyword: tag, kind, and VR in the dictionary.
        fixed: Tags that `Resolver` reads for other columns too.
    """

    def __init__(self, tags: Mapping[str, tuple[int, str, str]], fixed: frozenset[int]) -> None:
        own = {tag: (name, kind, "") for tag, (name, kind) in _OWN.items()}
        self._user = {
            tag: (keyword, kind, vr)
            for keyword, (tag, kind, vr) in tags.items()
            if tag not in fixed
        }
        # A tag that is asked for and read for something else besides is no own one of an image.
        self._possible = not any(tag in fixed for tag, _, _ in tags.values())
        self._own = list((own | self._user).items())
        self._apart = _APART.union(self._user)
        self._apart_with_windows = self._apart.union(_WINDOW)
        self._known: dict[Any, SharedColumns] = {}
        self._identities: dict[Any, dict[str, Any]] = {}
        self._windows: dict[Any, dict[str, Any]] = {}
        self._diffusions: dict[Any, dict[str, Any]] = {}

    def find(self, header: Header) -> tuple[Any, SharedColumns | None]:
        """(key, what images with that key have in common if one was met).

        The key is equal for images that have everything in common but what `own_columns` gives; `None`: none does.
        """
        elements, pixels = header.elements, header.pixel_data
        if pixels is None or header.notices or header.deflated or not self._possible:
            return None, None
        for tag in _NEVER_SHARED:
            if tag in elements:
                return None, None
        modality = elements.get(_MODALITY)
        if modality is not None:
            if not isinstance(modality[1], bytes):
                return None, None
            kind = modality[1].strip(b" \0")
            if kind in _OTHER_MODALITIES or (kind == b"MR" and _is_sheet(header)):
                return None, None
        apart = self._apart if _VOI_LUTS in elements else self._apart_with_windows
        rest = tuple([item for item in elements.items() if item[0] not in apart])
        key: Any = (
            header.transfer_syntax_uid,
            header.big_endian,
            pixels.tag,
            pixels.vr,
            pixels.length,
            rest,
        )
        try:
            return key, self._known.get(key)
        except TypeError:  # a sequence is among them
            key = _frozen(key)
            return key, self._known.get(key)

    def own_columns(self, header: Header, context: Context) -> dict[str, Any] | None:
        """The columns of one image that others with its key may not share; `None` if one of them is odd."""
        elements = header.elements
        columns: dict[str, Any] = {}
        odd: list[str] = []
        for tag, (name, kind, vr) in self._own:
            element = elements.get(tag)
            if element is not None:
                quick = _QUICK.get((element[0], kind))
                value = None if quick is None else quick(element[1])
                if value is None:
                    known = (vr, element[1]) if vr and element[0] in ("", "UN") else element
                    value = context.convert(tag, kind, known, odd)
                if value is not None:
                    columns[name] = value
        if header.elements.get(_MODALITY, _NONE)[1].strip() == b"MR":
            columns.update(self._diffusion(elements, context, odd))
        if odd or (_ACQUIRED in elements and "AcquisitionTime" not in columns):
            return None
        identity = self._identity(header, context)
        windows = {} if _VOI_LUTS in elements else self._windows.get(_windows_key(header))
        if windows is None:
            windows = _plain_window(header)
        if identity is None or windows is None:
            return None
        columns.update(identity)
        columns.update(windows)
        return columns

    def remember(self, key: Any, header: Header, context: Context, common: SharedColumns) -> None:
        """Keeps what an image has in common with those to come.

        Args:
            key: Of the image.
            header: Its header.
            context: Its context.
            common: Has all its columns, and loses those that are its own.
        """
        columns = common.columns
        apart = {name for _, (name, _, _) in self._own}.union(_IDENTITY)
        if _VOI_LUTS not in header.elements:
            apart.update(_WINDOW_COLUMNS)
            windows: dict[str, Any] = {
                name: columns[name] for name in _WINDOW_COLUMNS if name in columns
            }
            if not common.notices:
                self._windows = _with_room(self._windows)
                self._windows[_windows_key(header)] = windows
        own = self.own_columns(header, context)
        if own is not None:
            apart.update(own)
        common.columns = {name: value for name, value in columns.items() if name not in apart}
        if own is not None and common.columns | own == columns:
            self._known = _with_room(self._known)
            self._known[key] = common

    def _diffusion(self, elements: Group, context: Context, odd: list[str]) -> dict[str, Any]:
        """What `private_diffusion` gives; the images of a series have few different ones."""
        there = PRIVATE_DIFFUSION_TAGS.intersection(elements)
        if not there:
            return {}
        maker = elements.get(_MANUFACTURER)
        key = (context, maker, *[(tag, elements[tag]) for tag in sorted(there)])
        try:
            found = self._diffusions.get(key)
        except TypeError:  # items where a value should be
            return private_diffusion(elements, context, odd)
        if found is None:
            found = private_diffusion(elements, context, odd)
            if not odd:
                self._diffusions = _with_room(self._diffusions)
                self._diffusions[key] = found
        return found

    def _identity(self, header: Header, context: Context) -> dict[str, Any] | None:
        elements = header.elements
        key = (context, *map(elements.get, _IDENTITY_TAGS))
        try:
            found = self._identities.get(key)
        except TypeError:  # items where a value should be
            return None
        if found is None:
            odd: list[str] = []
            found = {}
            for name, tag in zip(_IDENTITY, _IDENTITY_TAGS, strict=True):
                element = elements.get(tag)
                value = None if element is None else context.convert(tag, "text", element, odd)
                if value is not None:
                    found[name] = value
            if odd:
                return None
            self._identities = _with_room(self._identities)
            self._identities[key] = found
        return found


def _is_sheet(header: Header) -> bool:
    """Whether the frame may hold several slices, which its own private elements tell."""
    kind = header.elements.get(_IMAGE_TYPE, _NONE)[1]
    return isinstance(kind, bytes) and (b"MOSAIC" in kind or b"VFRAME" in kind)


def _with_room(remembered: dict[Any, Any]) -> dict[Any, Any]:
    return remembered if len(remembered) < _MOST_REMEMBERED else {}


def _frozen(value: Any) -> Any:
    """`value` with tuples for lists and dictionaries, all the way down; depth is bounded by that of the header."""
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return tuple(map(_frozen, value.items())) if isinstance(value, dict) else value


def _windows_key(header: Header) -> Any:
    elements = header.elements
    return (header.big_endian, *map(elements.get, (*_WINDOW, _FUNCTION)))


def _plain_window(header: Header) -> dict[str, Any] | None:
    """One window as it should be, `None` if it is not."""
    center, width = (header.elements.get(tag) for tag in _WINDOW)
    if center is None and width is None:
        return {}
    if center is None or width is None or center[0] != "DS" or width[0] != "DS":
        return None
    numbers = _one_float(center[1]), _one_float(width[1])
    if None in numbers or numbers[1] < 1:  # type: ignore[operator]
        return None
    return dict(zip(_WINDOW_COLUMNS, numbers, strict=False))


# Conversions of values as they should be; `None`: it may be otherwise, and `Context.convert` says what it is.


def _one_text(value: bytes) -> str | None:
    return (
        value.decode("ascii").strip(" \0") or None
        if value.isascii() and b"\\" not in value
        else None
    )


def _one_integer(value: bytes) -> int | None:
    try:
        number = int(value)
    except ValueError:
        return None
    return number if b"_" not in value and -(1 << 31) <= number < 1 << 31 else None


def _one_float(value: bytes) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if b"_" not in value and math.isfinite(number) else None


def _three_floats(value: bytes) -> tuple[float, ...] | None:
    try:
        x, y, z = map(float, value.split(b"\\"))
    except ValueError:
        return None
    return (x, y, z) if b"_" not in value and math.isfinite(x + y + z) else None


def _seconds(value: bytes) -> float | None:
    """HHMMSS or HHMMSS.F to HHMMSS.FFFFFF."""
    whole, point, fraction = value.strip(b" \0").partition(b".")
    if len(whole) != 6 or not whole.isdigit() or len(fraction) > 6:
        return None
    if point and not fraction.isdigit():
        return None
    hours, minutes, seconds = int(whole[:2]), int(whole[2:4]), int(whole[4:])
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    microseconds = int(fraction.ljust(6, b"0")) if point else 0
    return hours * 3600 + minutes * 60 + seconds + microseconds / 1e6


_QUICK: Final[dict[tuple[str, str], Callable[[bytes], Any]]] = {
    ("UI", "text"): _one_text,
    ("IS", "int32"): _one_integer,
    ("DS", "float64"): _one_float,
    ("DS", "float64[3]"): _three_floats,
    ("TM", "seconds"): _seconds,
}
