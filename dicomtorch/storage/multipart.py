"""The parts of a `multipart/related` answer (RFC 2387), each with its media type; nothing is copied."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dicomtorch.errors import StorageError

_LONGEST_HEAD: Final = 8 << 10  # bytes of the headers of a part
_PARAMETER: Final = re.compile(r';\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*)')


class Part(NamedTuple):
    """One part.

    Attributes:
        content_type: As sent, "" if absent.
        data: Its bytes.
    """

    content_type: str
    data: memoryview


def parameter(content_type: str, name: str) -> str:
    """A parameter of a media type, "" if it has none of this name."""
    for key, value in _PARAMETER.findall(content_type):
        if key.lower() == name:
            return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    return ""


def split(content_type: str, body: bytes) -> list[Part]:
    """The parts of an answer, in order.

    Where a part says how long it is, nothing is searched in it; where not, it ends at the next boundary.

    Args:
        content_type: Of the answer.
        body: Of it.

    Raises:
        StorageError: It is not multipart, or is cut off or contradicts itself.
    """
    boundary = parameter(content_type, "boundary")
    if not content_type.lower().lstrip().startswith("multipart/") or not boundary:
        kind = content_type.partition(";")[0].strip()
        is_name = re.fullmatch(r"[\w.+/-]{0,60}", kind) is not None
        named = kind if is_name else "something else"
        raise StorageError(
            f"the server answered with {named or 'no media type'} and not multipart/related"
        )
    mark = b"--" + boundary.encode("latin-1", "replace")
    at = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    if at < 2 and not body.startswith(mark):
        raise _damaged("has no boundary")
    parts: list[Part] = []
    view = memoryview(body)
    while True:
        at += len(mark)
        if body[at : at + 2] == b"--":
            return parts
        if body[at : at + 2] != b"\r\n":
            raise _damaged("is cut off at a boundary")
        kind, start, length = _head(body, at)
        end = start + length if length >= 0 else body.find(b"\r\n" + mark, start)
        if end < start or body[end : end + 2 + len(mark)] != b"\r\n" + mark:
            raise _damaged(f"is cut off in part {len(parts) + 1}, or its length is wrong")
        parts.append(Part(kind, view[start:end]))
        at = end + 2


def _head(body: bytes, at: int) -> tuple[str, int, int]:
    """(media type, where the data begin, their length or -1) of the part whose boundary ends at `at`."""
    end = body.find(b"\r\n\r\n", at, at + _LONGEST_HEAD)
    if end < 0:
        raise _damaged("has a part without an end of its headers")
    kind, length = "", -1
    for line in body[at:end].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            kind = value.strip().decode("latin-1")
        elif name.strip().lower() == b"content-length":
            if not re.fullmatch(rb"[0-9]{1,18}", value.strip()):
                raise _damaged("has a part whose length is no number")
            length = int(value)
    return kind, end + 4, length


def _damaged(what: str) -> StorageError:
    return StorageError(f"the answer of the server {what}")
