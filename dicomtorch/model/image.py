"""Frozen value types, named after the modules and macros of PS3.3 that they come from.

Nothing here reads, decodes or computes: these are the values that the layers hand to each other.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dicomtorch.errors import OptionError
from dicomtorch.model.syntaxes import NATIVE

PixelDataVR = Literal["OB", "OW", "OF", "OD"]


@dataclass(frozen=True, slots=True)
class ImagePixel:
    """How the bytes of a frame become stored values: Image Pixel Module (PS3.3 C.7.6.3) and Transfer Syntax.

    Attributes:
        transfer_syntax_uid: The transfer syntax that the pixel data are really in.
        rows: Height in pixels.
        columns: Width in pixels.
        samples_per_pixel: 1, 3 or 4.
        photometric_interpretation: As in the file, stripped.
        bits_allocated: 1, 8, 12, 16, 32 or 64.
        bits_stored: Bits that carry the value.
        high_bit: Position of the value's highest bit.
        pixel_representation: 0 for unsigned, 1 for two's complement.
        planar_configuration: 0 for R1G1B1R2..., 1 for R1R2...G1...
        pixel_data_vr: OB or OW for Pixel Data, OF for Float, OD for Double Float Pixel Data. It decides how Explicit
            Big Endian bytes are ordered (PS3.5 section 8.1.1).
    """

    transfer_syntax_uid: str
    rows: int
    columns: int
    samples_per_pixel: int = 1
    photometric_interpretation: str = "MONOCHROME2"
    bits_allocated: int = 16
    bits_stored: int = 16
    high_bit: int = 15
    pixel_representation: int = 0
    planar_configuration: int = 0
    pixel_data_vr: PixelDataVR = "OW"

    @property
    def is_float(self) -> bool:
        """Whether the element is Float or Double Float Pixel Data."""
        return self.pixel_data_vr in ("OF", "OD")

    @property
    def is_palette(self) -> bool:
        """Whether stored values are indices into a palette."""
        return self.photometric_interpretation == "PALETTE COLOR"

    @property
    def is_encapsulated(self) -> bool:
        """Whether Pixel Data is a sequence of items."""
        return self.transfer_syntax_uid not in NATIVE

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stored values: (rows, columns), or (rows, columns, samples) if samples > 1."""
        if self.samples_per_pixel == 1:
            return (self.rows, self.columns)
        return (self.rows, self.columns, self.samples_per_pixel)

    @property
    def stored_dtype(self) -> np.dtype[np.generic]:
        """The smallest NumPy type that holds every stored value that the header admits.

        Source: PS3.5 8.1.1.

        Raises:
            OptionError: Bits Stored is more than 64.
        """
        return _stored_dtype(self.pixel_data_vr, self.bits_stored, bool(self.pixel_representation))

    @property
    def native_bits(self) -> int:
        """Bits of one frame in a native (not encapsulated) element, without padding.

        YBR_FULL_422 and YBR_PARTIAL_422 carry two samples a pixel (PS3.3 C.7.6.3.1.2).
        """
        samples = self.samples_per_pixel
        if samples == 3 and self.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422"):
            samples = 2
        return self.rows * self.columns * samples * self.bits_allocated


@functools.cache
def _stored_dtype(vr: PixelDataVR, bits_stored: int, signed: bool) -> np.dtype[np.generic]:
    if vr in ("OF", "OD"):
        return np.dtype(np.float32 if vr == "OF" else np.float64)
    for bits in (8, 16, 32, 64):
        if bits_stored <= bits:
            return np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    raise OptionError(f"(0028,0101) BitsStored is {bits_stored}; at most 64 are possible")
