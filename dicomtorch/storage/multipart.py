"""The parts of a `multipart/related` answer (RFC 2387), each with its media type; nothing is copied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from dicomtorch.errors import StorageError

_LONGEST_HEAD: Final = 8 << 10  # bytes of the headers of a part
_FRAME: Final = re.compile(r"/frames/([0-9]{1,9})/*$")
_MOST_BLANKS: Final = 64  # behind a boundary (RFC 2046 section 5.1.1)
_PARAMETER: Final = re.compile(r';\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*)')


class DamagedAnswerError(StorageError):
    """An answer is not whole or contradicts itself: it is asked for again. It does not leave the package."""


class Part(NamedTuple):
    """One part.

    Attributes:
        content_type: As sent, "" if absent.
        data: Its bytes.
        frame: The number of the one frame that its Content-Location ends with, 0 if it does not.
    """

    content_type: str
    data: memoryview
    frame: int = 0


def parameter(content_type: str, name: str) -> str:
    """A parameter of a media type, "" if it has none of this name."""
    for key, value in _PARAMETER.findall(content_type):
        if key.lower() == name:
            return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    return ""


def media_type(content_type: str) -> str:
    """Without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def shown_type(content_type: str) -> str:
    """The media type for a message, whatever a server sent."""
    kind = content_type.partition(";")[0].strip()
    if not re.fullmatch(r"[\w.+/-]{0,60}", kind):
        return "something else"
    return kind or "no media type"


def split(content_type: str, body: bytes) -> list[Part]:
    """The parts of an answer, in order.

    Where a part says how long it is, nothing is searched in it; where not, it ends at the next boundary.

    Args:
        content_type: Of the answer.
        body: Of it.

    Raises:
        DamagedAnswerError: It is cut off or contradicts itself.
        StorageError: It is not multipart.
    """
    boundary = parameter(content_type, "boundary")
    if not content_type.lower().lstrip().startswith("multipart/") or not boundary:
        raise StorageError(
            f"the server answered with {shown_type(content_type)} and not multipart/related"
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
        at += len(body[at : at + _MOST_BLANKS]) - len(body[at : at + _MOST_BLANKS].lstrip(b" \t"))
        if body[at : at + 2] != b"\r\n":
            raise _damaged("is cut off at a boundary")
        kind, start, length, frame = _head(body, at)
        end = start + length if length >= 0 else body.find(b"\r\n" + mark, start)
        if end < start or body[end : end + 2 + len(mark)] != b"\r\n" + mark:
            raise _damaged(f"is cut off in part {len(parts) + 1}, or its length is wrong")
        parts.append(Part(kind, view[start:end], frame))
        at = end + 2


def in_order(parts: Sequence[Part], frames: Sequence[int]) -> list[Part]:
    """The parts in the order in which frames were asked for: each says which frame it is of, else as they came.

    Args:
        parts: Of an answer.
        frames: Numbers of the frames that were asked for.

    Raises:
        DamagedAnswerError: They are more or fewer, or other frames.
    """
    if len(parts) != len(frames):
        raise DamagedAnswerError(f"the server gave {len(parts)} frames of {len(frames)}")
    if not all(part.frame for part in parts):
        return list(parts)
    of_frame = {part.frame: part for part in parts}
    if of_frame.keys() != set(frames):
        raise DamagedAnswerError("the server gave other frames than those that were asked for")
    return [of_frame[frame] for frame in frames]


def _head(body: bytes, at: int) -> tuple[str, int, int, int]:
    """(media type, where the data begin, their length or -1, frame or 0) of the part whose boundary ends at `at`."""
    end = body.find(b"\r\n\r\n", at, at + _LONGEST_HEAD)
    if end < 0:
        raise _damaged("has a part without an end of its headers")
    kind, length, frame = "", -1, 0
    for line in body[at:end].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            kind = value.strip().decode("latin-1")
        elif name.strip().lower() == b"content-length":
            if not re.fullmatch(rb"[0-9]{1,18}", value.strip()):
                raise _damaged("has a part whose length is no number")
            length = int(value)
        elif name.strip().lower() == b"content-location":
            found = _FRAME.search(value.strip().decode("latin-1"))
            frame = int(found[1]) if found else 0
    return kind, end + 4, length, frame


def _damaged(what: str) -> DamagedAnswerError:
    return DamagedAnswerError(f"the answer of the server {what}")
