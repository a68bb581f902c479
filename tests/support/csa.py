"""Siemens CSA headers that tests write."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def csa_header(**entries: Sequence[float | str]) -> bytes:
    """A CSA2 header; each entry gets its values as text, and one empty item more, as scanners write it."""
    body = b""
    for name, values in entries.items():
        texts = [str(value).encode() + b"\0" for value in values]
        body += struct.pack("<64si4siii", name.encode(), len(texts), b"FD", 4, len(texts) + 1, 77)
        for text in [*texts, b""]:
            length = len(text)
            body += struct.pack("<4i", length, length, 77, length)
            body += text + bytes(-length % 4)
    return b"SV10\4\3\2\1" + struct.pack("<2i", len(entries), 77) + body
