"""The options of a `MaskIndex`, checked."""

from __future__ import annotations

from typing import Any

from dicomtorch.errors import OptionError

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
