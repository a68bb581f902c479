"""Options of reading, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dicomtorch.errors import OptionError

Values = Literal["stored", "modality", "real_world", "suvbw", "display"]
Window = None | int | str | tuple[float, float]


class Windows(tuple[Window, ...]):
    """One window for each channel; a type of its own, since (40, 400) is one window and [0, 1] are two."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Windows) and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((Windows, *self))

    def __repr__(self) -> str:
        return repr(list(self))


CT_PRESETS: dict[str, tuple[float, float]] = {
    "brain": (40, 80),
    "subdural": (75, 215),
    "stroke": (40, 40),
    "temporal_bone": (600, 2800),
    "bone": (400, 1800),
    "neck": (40, 375),
    "angio": (300, 600),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft_tissue": (50, 400),
    "abdomen": (50, 400),
    "liver": (30, 150),
    "spine": (50, 250),
}
"""(center, width) in Hounsfield units, as commonly used for reading CT."""

VALUES: tuple[str, ...] = ("stored", "modality", "real_world", "suvbw", "display")
NORMALIZATIONS: tuple[str, ...] = ("minmax", "zscore", "percentile")
INTEGER_DTYPES: tuple[str, ...] = ("uint8", "int8", "int16", "int32", "int64")
FLOAT_DTYPES: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class PixelOptions:
    """What a user asks of the pixels; refuses combinations without a meaning.

    Sources: PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT, windows), C.7.5.1.1.2 (padding), C.7.6.3.1.2 (colour).

    Attributes:
        values: "stored", "modality", "real_world", "suvbw" or "display".
        window: `None` for the file's own, an int for its k-th window, (center, width) in modality values, the name of
            one of `CT_PRESETS`, "series", or a list of these for one channel each. Kept as `Windows` if it is a list.
            (center, width) is LINEAR where modality values are whole numbers, else LINEAR_EXACT.
        padding: "keep", "fill" or the number that padded pixels get. In display padded pixels are 0 and after
            `normalize` they are 0, unless a number is given; "fill" gives them the lowest value that is not padding.
        normalize: `None`, "minmax", "zscore", "percentile" or (mean, standard deviation), on modality values.
        color: "auto", "rgb" or "gray".
        size: `None` or (rows, columns).
        dtype: Name of the NumPy/torch type of the tensor, `None` for the default.
        decode: "exact", or "reduced": large frames that `size` makes small are decoded at a half, a quarter or an
            eighth of their resolution.

    Raises:
        OptionError: An option is not one of these, or two contradict each other.
    """

    values: Values = "display"
    window: Window | Sequence[Window] = None
    padding: Literal["keep", "fill"] | float = "keep"
    normalize: str | tuple[float, float] | None = None
    color: Literal["auto", "rgb", "gray"] = "auto"
    size: tuple[int, int] | None = None
    dtype: str | None = None
    decode: Literal["exact", "reduced"] = "exact"

    def __post_init__(self) -> None:
        _one_of("values", self.values, VALUES)
        _one_of("color", self.color, ("auto", "rgb", "gray"))
        _one_of("decode", self.decode, ("exact", "reduced"))
        for name, value in (
            ("window", _window_option(self.window)),
            ("padding", _padding_option(self.padding)),
            ("normalize", _normalize_option(self.normalize)),
            ("size", _size_option(self.size)),
            ("dtype", _dtype_option(self.dtype)),
        ):
            object.__setattr__(self, name, value)
        self._refuse_contradictions()

    @property
    def windows(self) -> tuple[Window, ...]:
        """One window for each channel of a grayscale image."""
        return tuple(self.window) if isinstance(self.window, Windows) else (self.window,)  # type: ignore[return-value]

    def _refuse_contradictions(self) -> None:
        if self.decode == "reduced" and self.size is None:
            raise OptionError(
                "decode='reduced' needs size=(rows, columns): only what is made small can be decoded small"
            )
        if self.window is not None and self.values != "display":
            raise OptionError(
                f"window={self.window!r} has no meaning with values={self.values!r}; windows apply to "
                "values='display' only"
            )
        if self.normalize is not None and self.values in ("stored", "display"):
            raise OptionError(
                f"normalize={self.normalize!r} acts on modality values, not on values={self.values!r}; "
                "use values='modality' (or 'real_world', 'suvbw') with it"
            )
        if self.color != "auto" and self.values == "stored":
            raise OptionError(
                f"color={self.color!r} has no meaning with values='stored', which are what the file holds; "
                "use values='display' or color='auto'"
            )
        if self.color == "rgb" and len(self.windows) > 1:
            raise OptionError(
                f"color='rgb' and {len(self.windows)} windows both decide the number of channels; give one of them"
            )
        computed = self.values == "display" or self.normalize is not None
        if self.dtype in INTEGER_DTYPES and computed:
            raise OptionError(
                f"dtype={self.dtype!r} cannot hold the fractions of values={self.values!r}"
                f"{'' if self.normalize is None else f' after normalize={self.normalize!r}'}; "
                f"expected one of {', '.join(map(repr, FLOAT_DTYPES))}"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise OptionError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")


def _window_option(window: object) -> Window | Windows:
    pair = isinstance(window, tuple) and len(window) == 2 and all(map(_is_number, window))
    if isinstance(window, Windows) or (isinstance(window, (list, tuple)) and not pair):
        if not window:
            raise OptionError("window=[] asks for no channel at all; give at least one window")
        return Windows(_one_window(one) for one in window)
    return _one_window(window)


def _one_window(window: object) -> Window:
    if window is None or window == "series":
        return window
    if isinstance(window, str):
        name = window.strip().lower().replace(" ", "_").replace("-", "_")
        if name not in CT_PRESETS:
            raise OptionError(
                f"window={window!r} is no preset; choose 'series' or one of {', '.join(map(repr, CT_PRESETS))}, "
                "or give (center, width)"
            )
        return name
    if isinstance(window, (int, np.integer)) and not isinstance(window, bool):
        if window < 0:
            raise OptionError(f"window={window} is negative; the file's windows count from 0")
        return int(window)
    if isinstance(window, (list, tuple)) and len(window) == 2 and all(map(_is_number, window)):
        center, width = float(window[0]), float(window[1])
        if not (math.isfinite(center) and math.isfinite(width) and width > 0):
            raise OptionError(f"window={window!r} needs a finite center and a width above 0")
        return (center, width)
    raise OptionError(
        f"window={window!r} is not understood; expected None, an int, (center, width), a preset's name, "
        "'series', or a list of these"
    )


def _padding_option(padding: object) -> Any:
    if padding in ("keep", "fill"):
        return padding
    if not _is_number(padding):
        raise OptionError(f"padding={padding!r} is not 'keep', 'fill' or a number")
    return float(padding)  # type: ignore[arg-type]


def _normalize_option(normalize: object) -> str | tuple[float, float] | None:
    if normalize is None or isinstance(normalize, str):
        if normalize is not None:
            _one_of("normalize", normalize, NORMALIZATIONS)
        return normalize
    if (
        not isinstance(normalize, (list, tuple))
        or len(normalize) != 2
        or not all(map(_is_number, normalize))
    ):
        raise OptionError(
            f"normalize={normalize!r} is not None, {', '.join(map(repr, NORMALIZATIONS))} or (mean, standard deviation)"
        )
    mean, deviation = map(float, normalize)
    if not (math.isfinite(mean) and math.isfinite(deviation) and deviation > 0):
        raise OptionError(f"normalize={normalize!r} needs a finite mean and a deviation above 0")
    return (mean, deviation)


def _size_option(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in size)
        or min(size) < 1
    ):
        raise OptionError(f"size={size!r} is not (rows, columns) in whole pixels above 0")
    return (int(size[0]), int(size[1]))


def _dtype_option(dtype: object) -> str | None:
    if dtype is None:
        return None
    name = dtype.__name__ if isinstance(dtype, type) else str(dtype).removeprefix("torch.")
    if name not in (*INTEGER_DTYPES, *FLOAT_DTYPES):
        raise OptionError(
            f"dtype={dtype!r} is not one of {', '.join(map(repr, (*INTEGER_DTYPES, *FLOAT_DTYPES)))}"
        )
    return name
