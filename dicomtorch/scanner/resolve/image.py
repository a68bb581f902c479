"""The Image Pixel Module of a header, checked (PS3.3 C.7.6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dicomtorch.dicom.elements import Header, integers, texts
from dicomtorch.dicom.tags import KEYWORDS, VRS, describe
from dicomtorch.errors import HeaderError
from dicomtorch.model.image import ImagePixel, PixelDataVR
from dicomtorch.model.limits import LIMITS, Limits

IMAGE_PIXEL_TAGS: Final = tuple(
    KEYWORDS[keyword][0]
    for keyword in (
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PlanarConfiguration",
    )
)
"""What `read_image_pixel` reads, besides where the pixel data are."""

_COLORED = ("RGB", "YBR", "HSV", "ARGB", "CMYK")


def read_image_pixel(header: Header, notices: list[str], limits: Limits = LIMITS) -> ImagePixel:
    """How the bytes of a header's pixel data become stored values.

    What is missing and has only one sensible meaning is filled in with a notice: Pixel Representation 0, Bits Stored as
    allocated, High Bit below Bits Stored, and 1 sample or 3 by the Photometric Interpretation.

    Args:
        header: Has pixel data.
        notices: Gets a line for what was odd.
        limits: What a frame may cost.

    Raises:
        HeaderError: Something is missing, has several values, is contradictory, or is beyond a limit.
    """
    module = _Module(header, notices)
    vr = _pixel_data_vr(header)
    rows = module.required("Rows", range(1, 1 << 16))
    columns = module.required("Columns", range(1, 1 << 16))
    photometric = module.photometric_interpretation()
    colored = photometric.startswith(_COLORED)
    samples = module.default("SamplesPerPixel", 3 if colored else 1, (1, 3, 4), tell=True)
    if not photometric:
        photometric = "MONOCHROME2" if samples == 1 else "RGB"
        tag = KEYWORDS["PhotometricInterpretation"][0]
        notices.append(f"{describe(tag)} is missing; taken as {photometric}")
    if vr in ("OF", "OD"):
        bits = 32 if vr == "OF" else 64
        allocated = stored = module.default("BitsAllocated", bits, (bits,), tell=True)
        high, signed = stored - 1, 0
    else:
        allocated = module.required("BitsAllocated", (1, 8, 12, 16, 32, 64))
        stored = module.default("BitsStored", allocated, range(1, allocated + 1), tell=True)
        high = module.high_bit(allocated, stored)
        signed = module.default("PixelRepresentation", 0, (0, 1), tell=True)
    planar = module.default("PlanarConfiguration", 0, (0, 1), tell=False)
    pixel = ImagePixel(
        transfer_syntax_uid=header.transfer_syntax_uid,
        rows=rows,
        columns=columns,
        samples_per_pixel=samples,
        photometric_interpretation=photometric,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        pixel_representation=signed,
        planar_configuration=planar if samples > 1 else 0,
        pixel_data_vr=vr,
    )
    _check_limits(pixel, limits)
    return pixel


def read_number_of_frames(header: Header, notices: list[str], limits: Limits = LIMITS) -> int:
    """(0028,0008) Number of Frames as stated, -1 if it is absent, empty or 0.

    Raises:
        HeaderError: It is no integer, negative, or beyond a limit.
    """
    tag = KEYWORDS["NumberOfFrames"][0]
    element = header.elements.get(tag)
    values = texts(element)
    if not values:
        return -1
    numbers = integers(element, header.big_endian)
    number = numbers[0] if len(numbers) == 1 else None
    if number is None or number < 0:
        assert element is not None
        vr, value = element
        what = (
            f"has VR {vr or 'unknown'} and length {len(value)}"
            if number is None
            else f"is {number}"
        )
        raise HeaderError(f"{describe(tag)} {what}; expected one integer, 1 or more")
    if number == 0:
        notices.append(f"{describe(tag)} is 0; taken as absent")
        return -1
    if number > limits.frames_per_file:
        raise HeaderError(
            f"{describe(tag)} is {number}, more than Limits.frames_per_file = "
            f"{limits.frames_per_file}"
        )
    return number


class _Module:
    """Reads integers of one Image Pixel Module."""

    def __init__(self, header: Header, notices: list[str]) -> None:
        self.header = header
        self.notices = notices

    def photometric_interpretation(self) -> str:
        element = self.header.elements.get(KEYWORDS["PhotometricInterpretation"][0])
        return "\\".join(texts(element)).upper()

    def integer(self, keyword: str) -> int | None:
        tag = KEYWORDS[keyword][0]
        element = self.header.elements.get(tag)
        if element is None or not element[1]:
            return None
        vr, value = element
        numbers = integers(element, self.header.big_endian)
        if len(numbers) == 1 and numbers[0] is not None:
            return numbers[0]
        what = f"VR {vr or 'unknown'} and length {len(value)}"
        if len(numbers) > 1:
            what = f"{len(numbers)} values"
        raise HeaderError(f"{describe(tag)} has {what}; expected one integer")

    def required(self, keyword: str, allowed: Sequence[int]) -> int:
        value = self.integer(keyword)
        if value is None:
            tag = KEYWORDS[keyword][0]
            raise HeaderError(f"{describe(tag)} is missing, so no frame can be read")
        return _checked(keyword, value, allowed)

    def default(self, keyword: str, value: int, allowed: Sequence[int], *, tell: bool) -> int:
        found = self.integer(keyword)
        if found is not None:
            return _checked(keyword, found, allowed)
        if tell:
            tag = KEYWORDS[keyword][0]
            self.notices.append(f"{describe(tag)} is missing; taken as {value}")
        return value

    def high_bit(self, allocated: int, stored: int) -> int:
        tag = KEYWORDS["HighBit"][0]
        found = self.integer("HighBit")
        if found is not None and stored - 1 <= found < allocated:
            return found
        what = "missing" if found is None else f"{found} with {stored} of {allocated} bits stored"
        self.notices.append(f"{describe(tag)} is {what}; taken as {stored - 1}")
        return stored - 1


def _checked(keyword: str, value: int, allowed: Sequence[int]) -> int:
    if value in allowed:
        return value
    expected = ", ".join(map(str, allowed))
    if isinstance(allowed, range):
        expected = f"{allowed[0]} to {allowed[-1]}"
    raise HeaderError(f"{describe(KEYWORDS[keyword][0])} is {value}; expected {expected}")


def _pixel_data_vr(header: Header) -> PixelDataVR:
    element = header.pixel_data
    assert element is not None
    if VRS[element.tag] == "OF":
        return "OF"
    if VRS[element.tag] == "OD":
        return "OD"
    return "OW" if element.vr == "OW" else "OB"


def _check_limits(pixel: ImagePixel, limits: Limits) -> None:
    rows, columns, samples = (
        describe(KEYWORDS[k][0]) for k in ("Rows", "Columns", "SamplesPerPixel")
    )
    size = f"{rows} {pixel.rows} x {columns} {pixel.columns}"
    pixels = pixel.rows * pixel.columns
    if pixels > limits.pixels_per_frame:
        raise HeaderError(
            f"{size} are more than Limits.pixels_per_frame = {limits.pixels_per_frame}"
        )
    if pixel.samples_per_pixel > limits.samples_per_pixel:
        raise HeaderError(
            f"{samples} is {pixel.samples_per_pixel}, more than Limits.samples_per_pixel = "
            f"{limits.samples_per_pixel}"
        )
    decoded = pixels * pixel.samples_per_pixel * pixel.stored_dtype.itemsize
    if decoded > limits.decoded_bytes_per_frame:
        raise HeaderError(
            f"{size} with {samples} {pixel.samples_per_pixel} are {decoded} bytes, more than "
            f"Limits.decoded_bytes_per_frame = {limits.decoded_bytes_per_frame}"
        )
