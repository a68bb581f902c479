"""What every parser of code streams needs: its error, and the marker that ends a stream."""

from __future__ import annotations

from dicomtorch.errors import DecodeError

END_MARKER = b"\xff\xd9"
HEAD = 4096
"""Bytes at the start of a frame that its header is looked for in first."""


def damaged(what: str, offset: int, received: object, expected: object) -> DecodeError:
    """A `DecodeError` about the byte at `offset` of the frame."""
    return DecodeError(
        f"{what} at byte {offset} of the frame: found {received}, expected {expected}"
    )
