"""Which colours the components of a frame are, and their conversion to RGB (PS3.3 C.7.6.3.1.2, PS3.5 8.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dicomtorch.backends.base import Array, say_once
from dicomtorch.backends.jpeg import JPEGStream
from dicomtorch.backends.jpeg2000 import J2KStream
from dicomtorch.errors import DecodeError
from dicomtorch.model.image import ImagePixel

YBR_FULL = ("YBR_FULL", "YBR_FULL_422", "YBR_FULL_420")
YBR_PARTIAL = ("YBR_PARTIAL_422", "YBR_PARTIAL_420")


def upsample_422(samples: Array, pixel: ImagePixel) -> Array:
    """Y1 Y2 Cb Cr per two pixels (PS3.3 C.7.6.3.1.2) to Y Cb Cr per pixel; colours hold for both."""
    if pixel.columns % 2:
        raise DecodeError(
            f"(0028,0004) {pixel.photometric_interpretation} needs an even number of columns; (0028,0011) Columns is "
            f"{pixel.columns}"
        )
    groups = samples.reshape(pixel.rows, pixel.columns // 2, 4)
    full = np.empty((pixel.rows, pixel.columns // 2, 2, 3), samples.dtype)
    full[..., 0] = groups[..., :2]
    full[..., 1:] = groups[..., None, 2:]
    return full.reshape(pixel.shape)


def tag_to_rgb(samples: Array, pixel: ImagePixel) -> Array:
    """Converts to RGB if Photometric Interpretation says that the samples are luminance and chrominance."""
    photometric = pixel.photometric_interpretation
    if photometric in YBR_FULL:
        return ybr_to_rgb(samples, pixel.bits_stored)
    if photometric in YBR_PARTIAL:
        return ybr_to_rgb(samples, pixel.bits_stored, partial=True)
    return samples


def ybr_to_rgb(samples: Array, bits: int, *, partial: bool = False) -> Array:
    """Y, Cb and Cr to red, green and blue (PS3.3 C.7.6.3.1.2; ITU-R BT.601), to the nearest integer.

    Args:
        samples: (..., 3), unsigned.
        bits: Bits stored; black is 0 (16 of 256 if `partial`), white 2^bits - 1 (235 of 256).
        partial: Whether Y has 219 and Cb, Cr 224 of 256 steps.
    """
    top = (1 << bits) - 1
    real: Any = np.float32 if bits <= 8 else np.float64
    unit = 2.0 ** (bits - 8)
    scale_y, scale_c, black = (
        (top / (219 * unit), top / (224 * unit), 16 * unit) if partial else (1.0, 1.0, 0.0)
    )
    luma: Array = samples[..., 0].astype(real)
    luma -= real(black)
    luma *= real(scale_y)
    luma += real(0.5)  # rounding is then cutting off
    blue, red = (samples[..., k].astype(real) - real(128 * unit) for k in (1, 2))
    rgb = np.empty(samples.shape, samples.dtype)
    for channel, (from_blue, from_red) in enumerate(
        ((0.0, 1.402), (-0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587), (1.772, 0.0))
    ):
        value = luma
        if from_blue:
            value = value + blue * real(from_blue * scale_c)
        if from_red:
            value = value + red * real(from_red * scale_c)
        np.clip(value, real(0), real(top), out=value)
        rgb[..., channel] = value
    return rgb


def dct_is_ybr(stream: JPEGStream, pixel: ImagePixel) -> bool:
    """Whether the three components of a lossy JPEG stream are YCbCr; the first mark that says so decides.

    Adobe segment, JFIF segment, component identifiers, chroma subsampling, Photometric Interpretation.
    """
    if stream.adobe >= 0:
        return stream.adobe != 0
    if stream.jfif:
        return True
    if stream.ids == b"RGB":
        return False
    return stream.subsampled or pixel.photometric_interpretation.startswith("YBR")


def lossless_to_rgb(samples: Array, stream: JPEGStream, pixel: ImagePixel) -> Array:
    """RGB of a colour frame of JPEG Lossless or JPEG-LS: the tag decides, but for chroma that cannot be subsampled.

    No such stream has subsampled chroma, so a tag that says so is wrong; where the stream says that it is RGB, it is.
    """
    photometric = pixel.photometric_interpretation
    subsampled = photometric.startswith("YBR_") and photometric.endswith(("_422", "_420"))
    if subsampled and (stream.ids == b"RGB" or stream.adobe == 0):
        say_once(
            f"(0028,0004) PhotometricInterpretation is {photometric}, but a lossless JPEG stream, which has no "
            "subsampled chroma, says that it is RGB; its components are taken as RGB"
        )
        return samples
    return tag_to_rgb(samples, pixel)


def j2k_to_rgb(samples: Array, stream: J2KStream, pixel: ImagePixel) -> Array:
    """RGB of a JPEG 2000 frame: where its component transform was undone it is RGB, else the tag decides."""
    if pixel.samples_per_pixel != 3 or stream.component_transform:
        return samples
    if pixel.photometric_interpretation in ("YBR_RCT", "YBR_ICT"):
        say_once(
            f"(0028,0004) PhotometricInterpretation is {pixel.photometric_interpretation}, but a JPEG 2000 stream "
            "has no component transform; its components are taken as RGB"
        )
    return tag_to_rgb(samples, pixel)
