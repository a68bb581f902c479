"""What `PixelOptions` takes, what it refuses, and what the message says."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from dicomtorch.errors import OptionError
from dicomtorch.model.options import CT_PRESETS, PixelOptions, Windows


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        (2, 2),
        (np.int64(2), 2),
        ((40, 400), (40.0, 400.0)),
        (np.array([40, 400]).tolist(), Windows((40, 400))),
        ([(40, 400), "bone", None, 1], Windows(((40.0, 400.0), "bone", None, 1))),
        (((40, 400), (50, 100)), Windows(((40.0, 400.0), (50.0, 100.0)))),
        ([[40, 400]], Windows(((40.0, 400.0),))),
        ("Soft Tissue", "soft_tissue"),
        ("series", "series"),
    ],
)
def test_windows(given: Any, kept: Any) -> None:
    options = PixelOptions(window=given)
    assert options.window == kept
    assert isinstance(options.window, Windows) == isinstance(kept, Windows)
    assert options.windows == (tuple(kept) if isinstance(kept, Windows) else (kept,))
    assert dataclasses.replace(options) == options
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options) == hash(dataclasses.replace(options))


def test_one_window_and_two_channels_stay_apart() -> None:
    assert PixelOptions(window=(0, 1)) != PixelOptions(window=[0, 1])
    assert PixelOptions(window=[0, 1]).windows == (0, 1)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"size": [224, np.int64(112)]}, (224, 112)),
        ({"normalize": [0, 1], "values": "modality"}, (0.0, 1.0)),
        ({"padding": -1000}, -1000.0),
        ({"dtype": torch.float16}, "float16"),
        ({"dtype": np.float32}, "float32"),
        ({"dtype": np.dtype("int16"), "values": "modality"}, "int16"),
    ],
)
def test_values_are_normalised(options: dict[str, Any], kept: Any) -> None:
    (name, *_) = options
    value = getattr(PixelOptions(**options), name)
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": "hounsfield"}, r"values='hounsfield' is not one of 'stored', 'modality'"),
        ({"values": None}, "values=None"),
        ({"color": "grey"}, r"color='grey' is not one of 'auto', 'rgb', 'gray'"),
        ({"window": "brains"}, r"'brains' is no preset; choose 'series' or one of 'brain'"),
        ({"window": -1}, "window=-1 is negative"),
        ({"window": True}, "window=True is not understood"),
        ({"window": (40, 0)}, "width above 0"),
        ({"window": (40, float("nan"))}, "width above 0"),
        ({"window": []}, "no channel at all"),
        ({"window": [[40, 400], 1.5]}, "window=1.5 is not understood"),
        ({"window": (40, 400, 1.5)}, r"window=1.5 is not understood"),
        ({"padding": "zero"}, "padding='zero' is not 'keep', 'fill' or a number"),
        ({"padding": True}, "padding=True"),
        ({"padding": None}, "padding=None"),
        ({"normalize": "max", "values": "modality"}, "normalize='max' is not one of 'minmax'"),
        ({"normalize": (0, 0), "values": "modality"}, "deviation above 0"),
        ({"normalize": (0, 1, 2), "values": "modality"}, r"\(mean, standard deviation\)"),
        ({"size": 224}, r"size=224 is not \(rows, columns\)"),
        ({"size": (0, 10)}, "size="),
        ({"size": (1.5, 10)}, "size="),
        ({"dtype": "uint16"}, "dtype='uint16' is not one of 'uint8'"),
        ({"dtype": "complex64"}, "dtype='complex64'"),
        ({"window": 0, "values": "modality"}, "window=0 has no meaning with values='modality'"),
        ({"window": "brain", "values": "stored"}, "window='brain' has no meaning"),
        ({"normalize": "zscore", "values": "stored"}, "acts on modality values"),
        ({"normalize": "zscore"}, "use values='modality'"),
        ({"color": "gray", "values": "stored"}, "color='gray' has no meaning"),
        ({"color": "rgb", "window": [0, 1]}, "2 windows both decide"),
        ({"dtype": "int16"}, r"dtype='int16' cannot hold the fractions of values='display'"),
        ({"dtype": "uint8", "values": "modality", "normalize": "minmax"}, "after normalize"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        PixelOptions(**options)


def test_presets_are_windows() -> None:
    for name, (_, width) in CT_PRESETS.items():
        assert PixelOptions(window=name).window == name
        assert width > 0
