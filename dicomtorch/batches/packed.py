"""Metadata of a batch whose tensors are made when the first of them is asked for, and which is sent as one block.

A loop that looks at none pays for none: neither where the batch is made, nor in the queue of a worker, where a message
for each key would cost more than the reading of a frame.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dicomtorch.batches.metadata import FrameMeta, MetaColumns

_BETWEEN = "\0"
_INLINE = 1 << 16  # bytes of a tensor up to which it travels with the message


Part = tuple[str, str, tuple[int, ...]]
"""How a column lies in a block: its key, the type code of its numbers (`_TEXTS`, `_OTHER`), the shape of a row."""
_TEXTS, _OTHER = "texts", "other"


class Block(NamedTuple):
    """The columns of a batch, as they are sent.

    Attributes:
        layout: The pickled `Part`s; the same for all batches of a dataset, so that they are pickled once.
        rows: Frames.
        numbers: Bytes of all numbers, column after column.
        texts: All texts, column after column.
        others: Columns that are neither, by key.
    """

    layout: bytes
    rows: int
    numbers: bytes
    texts: str
    others: dict[str, Any]


class PackedMeta(FrameMeta):
    """A `FrameMeta` of a batch that becomes an ordinary one as soon as it is used in any way.

    Called as a class it makes a `FrameMeta`, because frameworks copy a batch by `type(meta)(...)`.
    """

    _columns: MetaColumns | Block

    def __new__(cls, *args: Any, **more: Any) -> Any:
        """A `FrameMeta` of what `dict` takes."""
        return FrameMeta(*args, **more)

    @classmethod
    def of(cls, columns: MetaColumns | Block) -> PackedMeta:
        """That of some columns.

        Args:
            columns: Of the batch, or the block that they were sent as.
        """
        made = dict.__new__(cls)
        made._columns = columns
        return made

    def _opened(self) -> FrameMeta:
        columns = self.__dict__.get("_columns")
        if columns is not None:
            if isinstance(columns, Block):
                columns = unpacked(columns)
            dict.update(self, {key: tensor_of(values) for key, values in columns.items()})
            self.__class__ = FrameMeta  # type: ignore[assignment]
            self.__dict__.pop("_columns", None)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._opened().__reduce_ex__(protocol)


def _opening(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    def call(self: PackedMeta, *args: Any, **kwargs: Any) -> Any:
        return getattr(type(self._opened()), name, method)(self, *args, **kwargs)

    call.__name__ = name
    return call


for _name in (
    *("__getitem__", "__setitem__", "__delitem__", "__contains__", "__len__", "__iter__"),
    *("__reversed__", "__eq__", "__ne__", "__or__", "__ror__", "__ior__", "__repr__"),
    *("keys", "values", "items", "get", "pop", "popitem", "setdefault", "update", "clear", "copy"),
):
    setattr(PackedMeta, _name, _opening(_name))


def tensor_of(values: Any) -> Any:
    """int64 or float64 of an array; a list as it is."""
    if isinstance(values, list):
        return values
    return torch.from_numpy(values.astype(np.float64 if values.dtype.kind == "f" else np.int64))


# --- As one block -------------------------------------------------------------------------------------


def packed(columns: MetaColumns) -> Block:
    """Columns as one block."""
    parts: list[Part] = []
    numbers, texts, others = [], [], dict[str, Any]()
    rows = 0
    for key, values in columns.items():
        rows = len(values)
        if not isinstance(values, list):
            parts.append((key, values.dtype.char, values.shape[1:]))
            numbers.append(values.tobytes())
        elif (text := _joined(values)) is not None:
            parts.append((key, _TEXTS, ()))
            texts.append(text)
        else:
            parts.append((key, _OTHER, ()))
            others[key] = values
    return Block(_layout(tuple(parts)), rows, b"".join(numbers), _BETWEEN.join(texts), others)


def unpacked(block: Block) -> MetaColumns:
    """The columns of a block."""
    rows, at, columns = block.rows, 0, dict[str, Any]()
    texts = iter(block.texts.split(_BETWEEN))
    for key, kind, shape in pickle.loads(block.layout):
        if kind == _OTHER:
            columns[key] = block.others[key]
        elif kind == _TEXTS:
            columns[key] = list(islice(texts, rows))
        else:
            dtype, count = np.dtype(kind), rows * math.prod(shape)
            values = np.frombuffer(block.numbers, dtype, count, at)
            columns[key] = values.reshape(rows, *shape)
            at += values.nbytes
    return columns


def _joined(texts: list[Any]) -> str | None:
    """Texts as one; `None` if they are none, or have what stands between them."""
    try:
        joined = _BETWEEN.join(texts)
    except TypeError:
        return None
    return joined if joined.count(_BETWEEN) == len(texts) - 1 else None


@lru_cache(maxsize=64)
def _layout(parts: tuple[Part, ...]) -> bytes:
    return pickle.dumps(parts)


def _restore(*block: Any) -> PackedMeta:
    return PackedMeta.of(Block(*block))


def _reduce_packed(meta: PackedMeta) -> tuple[Any, ...]:
    columns = meta.__dict__.get("_columns")
    if columns is None:  # another thread has just used it
        return _reduce_meta(meta)
    return _restore, tuple(columns if isinstance(columns, Block) else packed(columns))


def _reduce_meta(meta: FrameMeta) -> tuple[Any, ...]:
    """Numbers go with the message: torch would make a shared segment, with a descriptor, for each key of each batch."""
    inline = [key for key, value in meta.items() if _is_small(value)]
    return _restore_meta, ({**meta, **{key: meta[key].numpy() for key in inline}}, inline)


def _is_small(value: Any) -> bool:
    return (
        type(value) is Tensor
        and value.device.type == "cpu"
        and value.layout == torch.strided
        and not value.requires_grad
        and value.dtype != torch.bfloat16
        and value.nbytes <= _INLINE
    )


def _restore_meta(items: dict[str, Any], inline: list[str]) -> FrameMeta:
    for key in inline:
        items[key] = torch.from_numpy(items[key])
    return FrameMeta(items)


ForkingPickler.register(PackedMeta, _reduce_packed)
ForkingPickler.register(FrameMeta, _reduce_meta)
