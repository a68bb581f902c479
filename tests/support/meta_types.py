"""The types that type checkers give to the keys of metadata, as something to hold values against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from torch import Tensor

from dicomtorch.batches import meta_keys


def _many(kind: type, count: int | None = None) -> Callable[[Any], bool]:
    return lambda value: (
        type(value) is tuple
        and count in (None, len(value))
        and all(type(each) is kind for each in value)
    )


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


_FITS = {
    "Integers": _is(int),
    "Numbers": _is(float),
    "Strings": _is(str),
    "Pairs": _many(float, 2),
    "Triples": _many(float, 3),
    "Sixes": _many(float, 6),
    "Fours": _many(float, 4),
    "IntegerFours": _many(int, 4),
    "IntegerPairs": _many(int, 2),
    "IntegerSixes": _many(int, 6),
    "ManyIntegers": _many(int),
    "ManyNumbers": _many(float),
    "ManyStrings": _many(str),
    "Tensors": _is(Tensor),
    "Starts": lambda value: type(value) is int or _many(int, 3)(value),
}
_TEXTS = {"Strings", "ManyStrings"}

GROUPS = {
    name: get_args(value)
    for name, value in vars(meta_keys).items()
    if not name.startswith("_") and name[0].isupper() and get_args(value)
}
"""Keys by the name of their type."""

TYPE_OF = {key: name for name, keys in GROUPS.items() for key in keys}


def misfits(meta: Mapping[str, Any]) -> list[str]:
    """Keys of the metadata of one sample that have no type, or a value of another."""
    return [
        key for key, value in meta.items() if key not in TYPE_OF or not _FITS[TYPE_OF[key]](value)
    ]


def misfits_in_batch(meta: Mapping[str, Any]) -> list[str]:
    """The same of the metadata of a batch."""
    return [
        key
        for key, value in meta.items()
        if key not in TYPE_OF or type(value) is not (list if TYPE_OF[key] in _TEXTS else Tensor)
    ]
