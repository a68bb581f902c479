"""Calls of imagecodecs: its errors become ours, and what it does not notice is noticed."""

from __future__ import annotations

from functools import cache
from typing import Any

from dicomtorch.backends.base import Array, Buffer, decoding
from dicomtorch.backends.jpeg2000 import J2KStream
from dicomtorch.errors import DecodeError, import_optional

_LARGE = 1 << 20
"""Pixels from which on a second thread gains more than it takes to start it."""


@cache
def library() -> Any:
    """Imagecodecs."""
    return import_optional("imagecodecs", "all")


def call(codec: str, data: Buffer, **arguments: Any) -> Array:
    """Runs a decoder; whatever it says is wrong becomes a `DecodeError`."""
    try:
        decoded: Array = getattr(library(), codec)(data, **arguments)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise DecodeError(f"the code stream is damaged: imagecodecs.{codec}: {error}") from error
    return decoded


def decode_jpeg2k(
    codestream: memoryview, target: Array, stream: J2KStream, **arguments: Any
) -> Array:
    """Decodes with OpenJPEG, a large frame with all threads that are allowed: its code blocks are independent."""
    is_large = stream.rows * stream.columns >= _LARGE
    threads = decoding.threads if is_large else 1
    return call("jpeg2k_decode", codestream, numthreads=threads, out=target, **arguments)


def decode_htj2k(codestream: memoryview, target: Array, **arguments: Any) -> Array:
    """Decodes with OpenJPH, and makes sure that it came to the last row.

    imagecodecs loses what OpenJPH throws while it hands out rows (it shows up as an unraisable exception) and returns
    as if all were well. Rows come in order: if the last one keeps two different fillings, it was never written.
    """
    last = target[-1] if target.ndim == 2 else target[-1, :, -1]
    for filling in (0x55, 0x2A):
        last[...] = filling
        result = call("htj2k_decode", codestream, out=target, **arguments)
        # Nearly always the first one tells, in a tenth of the time.
        if last.item(0) != filling or (last != filling).any():
            return result
    raise DecodeError(
        "the code stream is damaged: imagecodecs.htj2k_decode: stopped before the last row"
    )
