"""What the viewer answers to one question, whatever carries it: HTTP, or messages of a notebook."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_NUMBER = re.compile(r"\d{1,10}", re.ASCII)


class Answer(NamedTuple):
    """One answer.

    Attributes:
        status: As of HTTP.
        info: What is said of the bytes; the answer itself where there are none.
        data: An array in C order, little endian; `None`: `info` is all.
    """

    status: int
    info: Mapping[str, Any]
    data: bytes | memoryview | None = None

    @property
    def plain(self) -> Any:
        """`info` as JSON can hold it."""
        return plain(self.info)

    @property
    def json(self) -> str:
        """`info` as JSON in ASCII."""
        return json.dumps(self.plain, separators=(",", ":"), allow_nan=False)


class NotThereError(LookupError):
    """There is nothing of that number or name."""


def of_array(array: npt.NDArray[Any], **info: Any) -> Answer:
    """An array with its shape and type."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    kind = {"b": "u1", "?": "u1"}.get(little.dtype.kind, little.dtype.str[1:])
    said = {"shape": list(little.shape), "dtype": kind, **info}
    return Answer(200, said, little.tobytes())


def number_of(text: str, count: int, what: str) -> int:
    """A number from 0 that a question names.

    Raises:
        NotThereError: It is none, or not below `count`.
    """
    # int() of thousands of digits raises, and other scripts have digits too.
    if not _NUMBER.fullmatch(text) or int(text) >= count:
        raise NotThereError(f"there is no such {what}; there are {count:,}")
    return int(text)


def asked(query: Mapping[str, str], name: str, default: int, count: int = 1 << 31) -> int:
    """A number among the parameters of a question."""
    return number_of(query[name], count, name) if name in query else default


def plain(value: Any) -> Any:
    """What JSON can hold: numbers that are none become `None`, arrays lists, and of large ones the shape is said."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        size = int(value.numel() if hasattr(value, "numel") else value.size)
        if size > 64:
            return f"{' x '.join(map(str, value.shape))} numbers"
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value)
