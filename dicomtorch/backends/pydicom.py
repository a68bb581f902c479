"""Decoding with pydicom's pixel decoders and whichever of their plug-ins are installed.

pydicom is told what the code stream is, not what the header makes of it, and gives the samples as they are; what
follows is the same for every backend. GDCM is never used: in process, damaged files make it abort.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

from dicomtorch.backends import color, guard, stored
from dicomtorch.backends.base import Array, Buffer
from dicomtorch.backends.jpeg import JPEGStream
from dicomtorch.backends.jpeg2000 import J2KStream
from dicomtorch.errors import DecodeError, import_optional
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.shown import named_uid
from dicomtorch.model.syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    HTJ2K_FAMILY,
    JPEG_2000_FAMILY,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
    NATIVE,
    RLE_LOSSLESS,
)

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import Decoder

_PLUGINS: dict[str, tuple[str, ...]] = {
    # In order of speed. Only these: the list is what keeps GDCM out.
    RLE_LOSSLESS: ("pylibjpeg", "pydicom"),
    **dict.fromkeys((JPEG_BASELINE, JPEG_EXTENDED), ("pillow", "pylibjpeg")),
    **dict.fromkeys(JPEG_LOSSLESS_FAMILY, ("pylibjpeg",)),
    **dict.fromkeys(JPEG_LS_FAMILY, ("pyjpegls", "pylibjpeg")),
    **dict.fromkeys(JPEG_2000_FAMILY, ("pylibjpeg", "pillow")),
    **dict.fromkeys(HTJ2K_FAMILY, ("pylibjpeg",)),
}

_PACKAGES: dict[str, str] = {
    RLE_LOSSLESS: "pylibjpeg pylibjpeg-rle",
    **dict.fromkeys(
        {JPEG_BASELINE, JPEG_EXTENDED} | JPEG_LOSSLESS_FAMILY, "pylibjpeg pylibjpeg-libjpeg (GPL)"
    ),
    **dict.fromkeys(JPEG_LS_FAMILY, "pyjpegls"),
    **dict.fromkeys(JPEG_2000_FAMILY | HTJ2K_FAMILY, "pylibjpeg pylibjpeg-openjpeg"),
}

_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0"
"""Says that the components are RGB; without it pydicom asks Pillow for YCbCr, which libjpeg cannot make of them."""


@cache
def _installed() -> bool:
    return importlib.util.find_spec("pydicom") is not None


@cache
def _decoder(syntax: str) -> Decoder:
    decoder: Decoder = import_optional("pydicom.pixels", "pydicom").get_decoder(syntax)
    return decoder


@cache
def _available(syntax: str) -> tuple[str, ...]:
    available = _decoder(syntax).available_plugins
    return tuple(name for name in _PLUGINS[syntax] if name in available)


def _plugin(pixel: ImagePixel) -> str:
    """The plug-in for frames described so, "" if none is installed."""
    bits, several = pixel.bits_stored, pixel.samples_per_pixel > 1
    for name in _available(pixel.transfer_syntax_uid):
        if name == "pillow":
            # Its JPEG has 8 bits, its JPEG 2000 16, and 8 for more than one sample.
            j2k = pixel.transfer_syntax_uid in JPEG_2000_FAMILY
            if bits > (16 if j2k and not several else 8):
                continue
        return name
    return ""


def _knows(pixel: ImagePixel) -> bool:
    """Whether pydicom with all its plug-ins decodes frames described so."""
    syntax = pixel.transfer_syntax_uid
    if stored.unsupported_reason(pixel) or pixel.samples_per_pixel not in (1, 3):
        return False
    if syntax in NATIVE:
        return pixel.bits_allocated != 12
    if pixel.bits_allocated == 32:
        return syntax == RLE_LOSSLESS
    return syntax in _PLUGINS and pixel.bits_allocated in (8, 16)


class PydicomBackend:
    """Decodes with pydicom. Has no state: safe in threads and in pickles."""

    name = "pydicom"

    def prepare(self) -> None:
        """Imports pydicom's decoders with their plug-ins."""
        for syntax in _PLUGINS:
            _available(syntax)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def supports(self, pixel: ImagePixel) -> bool:
        """Whether frames described so can be decoded here and now, with the plug-ins that are installed."""
        if not _installed() or not _knows(pixel):
            return False
        return pixel.transfer_syntax_uid in NATIVE or _plugin(pixel) != ""

    def missing(self, pixel: ImagePixel) -> str:
        """What to install so that frames described so can be decoded; "" if nothing is missing or would help."""
        if not _knows(pixel) or self.supports(pixel):
            return ""
        if not _installed():
            return "pip install pydicom"
        return f"pip install {_PACKAGES[pixel.transfer_syntax_uid]}"

    def decode(self, data: Buffer, pixel: ImagePixel, out: Array | None = None) -> Array:
        """Decodes one frame.

        Raises:
            DecodeError: The stream is damaged, disagrees with `pixel`, or the plug-in cannot read it.
        """
        stream = guard.check(data, pixel)
        if stream is None and pixel.transfer_syntax_uid in NATIVE:
            return stored.finish_flat(_decode_native(data, pixel), pixel, out)
        if stream is None and pixel.transfer_syntax_uid == RLE_LOSSLESS:
            return stored.finish_flat(_decode_rle(data, pixel), pixel, out)
        if stream is not None:
            pixel = guard.as_streamed(pixel, stream, self)
        if isinstance(stream, JPEGStream):
            return _decode_jpeg(memoryview(data)[stream.start :], pixel, stream, out)
        if isinstance(stream, J2KStream):
            return _decode_j2k(data, pixel, stream, out)
        raise DecodeError(
            f"transfer syntax {named_uid(pixel.transfer_syntax_uid)} is none that pydicom decodes"
        )


BACKEND = PydicomBackend()


def _run(data: Buffer, pixel: ImagePixel, plugin: str, **options: Any) -> Array:
    """One frame through pydicom, with every value of the frame given and no correction asked for."""
    arguments: dict[str, Any] = {
        "rows": pixel.rows,
        "columns": pixel.columns,
        "number_of_frames": 1,
        "samples_per_pixel": pixel.samples_per_pixel,
        "photometric_interpretation": "MONOCHROME2" if pixel.samples_per_pixel == 1 else "RGB",
        "bits_allocated": pixel.bits_allocated,
        "bits_stored": pixel.bits_allocated,
        "pixel_representation": 0,
        "planar_configuration": 0,
        "pixel_keyword": "PixelData",
        "correct_unused_bits": False,
        **options,
    }
    if arguments["samples_per_pixel"] == 1:
        del arguments["planar_configuration"]
    try:
        array, _ = _decoder(pixel.transfer_syntax_uid).as_array(
            data, index=0, raw=True, validate=False, decoding_plugin=plugin, **arguments
        )
    except MemoryError:
        raise
    except Exception as error:
        raise DecodeError(
            f"the code stream is damaged: pydicom ({plugin or 'native'}): {error}"
        ) from error
    except BaseException as error:
        # A panic of the Rust code in pylibjpeg-rle derives from BaseException.
        if type(error).__name__ != "PanicException":
            raise
        raise DecodeError(f"the code stream is damaged: pydicom ({plugin}): {error}") from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _decode_native(data: Buffer, pixel: ImagePixel) -> Array:
    """Words of BitsAllocated bits, interleaved."""
    size = (pixel.native_bits + 7) // 8
    swap = pixel.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    options: dict[str, Any] = {"planar_configuration": pixel.planar_configuration}
    if pixel.is_float:
        options["pixel_keyword"] = (
            "FloatPixelData" if pixel.pixel_data_vr == "OF" else "DoubleFloatPixelData"
        )
    elif swap and (
        pixel.bits_allocated > 16 or (pixel.bits_allocated == 1 and pixel.pixel_data_vr == "OW")
    ):
        # pydicom reads the words of these as big endian numbers; OW has only 16-bit words (PS3.5 6.2).
        data = stored.little_endian_words(data, pixel)
        pixel = stored.as_little_endian(pixel)
    elif swap:
        options["pixel_vr"] = pixel.pixel_data_vr
        size += size % 2
    if pixel.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        options["photometric_interpretation"] = "YBR_FULL_422"
    return _run(bytes(memoryview(data)[:size]), pixel, "", **options)


def _decode_rle(data: Buffer, pixel: ImagePixel) -> Array:
    guard.check_rle(data, pixel, last=True)  # or the plug-ins decode all that is there first
    return _run(_encapsulate(data), pixel, _plugin(pixel))


def _decode_jpeg(data: Buffer, pixel: ImagePixel, stream: JPEGStream, out: Array | None) -> Array:
    plugin = _plugin(pixel)
    ybr = not stream.lossless and pixel.samples_per_pixel == 3 and color.dct_is_ybr(stream, pixel)
    photometric = "MONOCHROME2"
    if pixel.samples_per_pixel == 3:
        # pydicom warns where this does not fit the marks of the stream; with raw=True it converts nothing.
        dct = stream.process not in (0xC3, 0xF7)
        photometric = "YBR_FULL" if stream.jfif or (dct and stream.ids != b"RGB") else "RGB"
    if plugin == "pillow" and stream.ids == b"RGB" and not stream.jfif and stream.adobe < 0:
        data = b"".join((memoryview(data)[:2], _ADOBE_RGB, memoryview(data)[2:]))
    result = _run(
        _encapsulate(data),
        pixel,
        plugin,
        bits_allocated=8 if stream.precision <= 8 else 16,
        bits_stored=stream.precision,
        photometric_interpretation=photometric,
        **({"apply_jls_sign_correction": False} if stream.process == 0xF7 else {}),
    )
    if stream.lossless or stream.process == 0xF7:
        stored.bounded(result, stream.precision, signed=False, lossless=True)
        if pixel.samples_per_pixel == 3:
            result = color.lossless_to_rgb(result, stream, pixel)
    elif ybr and not (
        plugin == "pillow" and stream.adobe >= 0
    ):  # Pillow has converted it by the Adobe segment
        result = color.ybr_to_rgb(result, stream.precision)
    return stored.finish(
        result, pixel, precision=stream.precision, signed=False, lossless=stream.lossless, out=out
    )


def _decode_j2k(data: Buffer, pixel: ImagePixel, stream: J2KStream, out: Array | None) -> Array:
    result = _run(
        _encapsulate(memoryview(data)[stream.start : stream.stop]),
        pixel,
        _plugin(pixel),
        bits_allocated=8 if stream.precision <= 8 else 16 if stream.precision <= 16 else 32,
        bits_stored=stream.precision,
        pixel_representation=int(stream.signed),
        apply_j2k_sign_correction=False,
    )
    return stored.finish(
        color.j2k_to_rgb(result, stream, pixel),
        pixel,
        precision=stream.precision,
        signed=stream.signed,
        lossless=stream.reversible,
        out=out,
    )


def _encapsulate(data: Buffer) -> bytes:
    """The frame as the one item after an empty Basic Offset Table, as pydicom expects it (PS3.5 A.4)."""
    encapsulate = import_optional("pydicom.encaps", "pydicom").encapsulate
    item: bytes = encapsulate([bytes(data)], has_bot=False)
    return item
