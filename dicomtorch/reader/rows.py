"""Rows of frames that may be read alone, and columns that are cut out of them."""

from __future__ import annotations

import numpy as np

from dicomtorch.index.location import FrameLocation
from dicomtorch.index.members import WEB
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import EXPLICIT_VR_BIG_ENDIAN


def reads_rows(where: FrameLocation, pixel: ImagePixel) -> bool:
    """Whether rows of a frame lie one after the other in its file, each on whole bytes (PS3.5 8.1 and 8.2).

    Not where they are compressed, in one plane for each sample, share samples of colour, or begin inside a byte; bytes
    in big endian words of 16 bits (OW) are another order than that of the pixels.
    """
    is_big = pixel.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    return not (
        pixel.is_encapsulated
        or where.deflated
        or where.container == WEB
        or where.span.fragments
        or where.span.bit_offset
        or pixel.bits_allocated % (16 if is_big else 8)
        or (pixel.samples_per_pixel > 1 and pixel.planar_configuration == 1)
        or pixel.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422")
    )


def rows_of(start: int, pixel: ImagePixel, rows: range) -> tuple[int, int]:
    """Offset and length of some rows of a frame that begins at `start`."""
    row = pixel.columns * pixel.samples_per_pixel * pixel.bits_allocated // 8
    return start + rows.start * row, len(rows) * row


def cut_columns(data: bytes | memoryview, pixel: ImagePixel, columns: range) -> bytes:
    """Some columns of rows that `reads_rows`, before anything is made of their samples."""
    size = pixel.samples_per_pixel * pixel.bits_allocated // 8
    lines = np.frombuffer(data, np.uint8).reshape(-1, pixel.columns * size)
    return lines[:, columns.start * size : columns.stop * size].tobytes()
