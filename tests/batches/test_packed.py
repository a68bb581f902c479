"""Metadata of a batch that is packed until it is used: always what an ordinary dict would be."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.batches.packed import PackedMeta, packed, unpacked
from dicomtorch.errors import MetaKeyError

COLUMNS: dict[str, Any] = {
    "index": np.array([4, 2, 7]),
    "small": np.array([1, -2, 3], np.int16),
    "flag": np.array([True, False, True]),
    "spacing": np.array([[0.5, 0.25], [1, 2], [np.nan, 4]], np.float32),
    "uid": ["1.2", "", "1.2"],
    "odd": ["with a \0 inside", "b", "\u00e4"],
    "several": [("a", "b"), ("c",), ()],
    "frame": np.array([0, 0, 9], np.uint8),
}


def plain() -> FrameMeta:
    """What the columns are as an ordinary dict."""
    meta = FrameMeta()
    for key, values in COLUMNS.items():
        if isinstance(values, list):
            meta[key] = list(values)
        else:
            kind = np.float64 if values.dtype.kind == "f" else np.int64
            meta[key] = torch.from_numpy(values.astype(kind))
    return meta


def same(one: Any, other: Any) -> None:
    assert list(one) == list(other)
    for key in other:
        a, b = one[key], other[key]
        assert type(a) is type(b)
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        else:
            assert a == b


def sent(meta: Any) -> Any:
    return pickle.loads(bytes(ForkingPickler.dumps(meta)))


def two_names(**named: Any) -> dict[str, Any]:
    return named


USES: dict[str, Callable[[Any], Any]] = {
    "len": len,
    "iter": list,
    "bool": bool,
    "get": lambda meta: meta.get("uid"),
    "get, missing": lambda meta: meta.get("nothing", 5),
    "in": lambda meta: ("uid" in meta, "nothing" in meta),
    "dict": dict,
    "stars": lambda meta: {**meta},
    "arguments": lambda meta: two_names(**meta),
    "update of another": lambda meta: FrameMeta({"x": 1}).update(meta),
    "keys": lambda meta: list(meta.keys()),
    "values": lambda meta: list(meta.values()),
    "items": lambda meta: list(meta.items()),
    "reversed": lambda meta: list(reversed(meta)),
    "or": lambda meta: {"x": 1} | meta | {"y": 2},
    "repr": repr,
    "pop": lambda meta: meta.pop("uid"),
    "popitem": lambda meta: meta.popitem(),
    "setdefault": lambda meta: (meta.setdefault("uid", 1), meta.setdefault("new", 1)),
    "set": lambda meta: meta.__setitem__("uid", 1),
    "delete": lambda meta: meta.__delitem__("uid"),
    "update": lambda meta: meta.update(uid=3),
    "update in place": lambda meta: meta.__ior__({"uid": 3}) and None,
    "clear": lambda meta: meta.clear(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda meta: pickle.loads(pickle.dumps(meta)),
    "fork pickle": sent,
    "twice": lambda meta: sent(sent(meta)),
    "pin": lambda meta: pin_memory(meta) if torch.cuda.is_available() else dict(meta),
}


@pytest.mark.parametrize("arrived", [False, True])
@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_every_use_is_that_of_a_dict(use: Callable[[Any], Any], arrived: bool) -> None:
    mine: Any = PackedMeta.of(dict(COLUMNS))
    mine, ordinary = sent(mine) if arrived else mine, plain()
    assert type(mine) is PackedMeta
    got, expected = use(mine), use(ordinary)
    if isinstance(expected, dict):
        same(got, expected)
    else:
        assert repr(got) == repr(expected)
    same(mine, ordinary)
    assert type(mine) is FrameMeta
    assert not vars(mine)


def test_a_key_that_is_not_there_says_which_was_meant() -> None:
    with pytest.raises(MetaKeyError, match="did you mean 'spacing'"):
        PackedMeta.of(dict(COLUMNS))["spacin"]


def test_it_is_a_dict_and_equals_one() -> None:
    small: dict[str, Any] = {"uid": ["a", "b"]}
    assert isinstance(PackedMeta.of(small), dict)
    assert PackedMeta.of(small) == {"uid": ["a", "b"]}
    assert dict.__eq__({"uid": ["a", "b"]}, dict(PackedMeta.of(small)))
    assert [{"uid": ["a", "b"]}].index(PackedMeta.of(small)) == 0
    assert PackedMeta.of(small) != {"uid": ["a", "c"]}


def test_tensors_may_be_written_to_and_are_apart() -> None:
    mine = sent(PackedMeta.of(dict(COLUMNS)))
    mine["index"] += 1
    assert mine["index"].tolist() == [5, 3, 8]
    assert mine["small"].tolist() == [1, -2, 3]
    assert COLUMNS["index"].tolist() == [4, 2, 7]
    assert mine["index"].untyped_storage().nbytes() == 24


@pytest.mark.parametrize("rows", [1, 3])
def test_a_block_has_all_columns(rows: int) -> None:
    columns = {key: values[:rows] for key, values in COLUMNS.items()}
    again = unpacked(packed(columns))
    assert list(again) == list(columns)
    for key, values in columns.items():
        if isinstance(values, list):
            assert again[key] == values
        else:
            np.testing.assert_array_equal(again[key], values, strict=True)


def test_the_message_is_one_block() -> None:
    one = ForkingPickler.dumps(PackedMeta.of(dict(COLUMNS)))
    assert len(one) < len(ForkingPickler.dumps(plain()))
    assert b"numpy" not in bytes(one)


def test_frameworks_copy_a_batch_by_its_class() -> None:
    """As Lightning and DDP do: the class is asked for before the values are."""
    mine = PackedMeta.of(dict(COLUMNS))
    kind: Any = type(mine)
    for given in (dict(mine), list(mine.items()), tuple(mine.items())):
        again = kind(given)
        assert type(again) is FrameMeta
        assert list(again) == list(COLUMNS)
        assert again["index"] is mine["index"]
