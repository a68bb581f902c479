"""The options of a `MaskIndex`, checked."""

from __future__ import annotations

from operator import index
from typing import Any

from dicomtorch.errors import FrameIndexError, OptionError

KINDS = {
    "seg": frozenset({"seg", "labelmap"}),
    "rtstruct": frozenset({"rtstruct"}),
    "all": frozenset({"seg", "labelmap", "rtstruct"}),
    "sr": frozenset({"sr"}),
    "ann": frozenset({"ann"}),
}
"""`kind` -> kinds of objects."""

SHAPE_KINDS = frozenset({"sr", "ann"})
"""Objects that hold points and outlines."""

OUTPUTS = ("labels", "channels", "fraction")
"""What a mask may be, see `MaskIndex.mask`."""


def check_options(
    kind: Any,
    place: Any,
    between: Any,
    choose: Any,
    resample: Any,
    overlap: Any,
    path: Any,
    threshold: Any,
) -> None:
    """Refuses what means nothing.

    Raises:
        OptionError: An option has a value that it cannot have; see `MaskIndex`.
    """
    allowed = {
        "kind": (kind, tuple(KINDS)),
        "place": (place, ("auto", "reference", "position")),
        "between": (between, ("raise", "nearest", "drop")),
        "choose": ("all" if callable(choose) else choose, ("raise", "latest", "all")),
        "resample": (resample, (None, "nearest")),
        "overlap": (overlap, ("raise", "first", "last")),
        "path": (path, ("in", "half-open")),
    }
    for name, (value, values) in allowed.items():
        if value not in values:
            raise OptionError(
                f"{name} must be one of {', '.join(map(repr, values))}; got {value!r}"
            )
    if not 0 < threshold <= 1:
        raise OptionError(f"threshold must be above 0 and at most 1; got {threshold!r}")


def checked_position(position: Any, count: int) -> int:
    """The position of a frame of an index that has `count`, from 0.

    Raises:
        OptionError: It is no whole number.
        FrameIndexError: There is no such frame.
    """
    try:
        number = index(position)
    except TypeError as error:
        raise OptionError(f"a frame is named by a whole number; got {position!r}") from error
    if not 0 <= number < count:
        raise FrameIndexError(f"frame {number} is outside the index, which has {count}")
    return number


def check_target(out: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Refuses an array that a mask cannot be written to.

    Raises:
        OptionError: It has another shape or type, is read-only, or has channels that are not C-contiguous.
    """
    found = (getattr(out, "shape", None), getattr(out, "dtype", None))
    if found != (shape, dtype):
        raise OptionError(f"out must be {shape} of {dtype}; got {found[0]} of {found[1]}")
    if not out.flags.writeable or (len(out) and not out[0].flags.c_contiguous):
        raise OptionError("out must be writable, and each of its channels C-contiguous")
