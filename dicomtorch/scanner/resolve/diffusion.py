"""b-value and gradient direction of diffusion images: standard attributes, and private ones where these are absent.

MR Diffusion Macro (PS3.3 C.8.13.5.9). The private elements are as their vendors' conformance statements name them.
Directions are in patient coordinates (LPS). GE, UIH and Canon give components along axes of the image instead; those of
GE and Canon depend on the direction of phase encoding. Canon writes them into Image Comments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dicomtorch.dicom.elements import Element, Group
from dicomtorch.dicom.tags import private_tags
from dicomtorch.model.schema import FRAME_COLUMNS
from dicomtorch.scanner.resolve.conversions import TAGS, Context, keywords, tags_of
from dicomtorch.scanner.resolve.csa import csa_numbers
from dicomtorch.scanner.resolve.groups import Frames
from dicomtorch.scanner.resolve.private import CSA_HEADER, Private

DIFFUSION_TAGS: Final = tags_of(
    keywords(
        "DiffusionGradientDirectionSequence InPlanePhaseEncodingDirection Manufacturer ImageComments"
    )
)
"""What this module reads beyond single attributes and private ones."""

PRIVATE_DIFFUSION_TAGS: Final = (
    private_tags()
    | private_tags(large=True)
    | tags_of(
        keywords(
            """
            DiffusionBValue DiffusionGradientOrientation ImageOrientationPatient InPlanePhaseEncodingDirection
            ImageComments
            """
        )
    )
)
"""What `private_diffusion` looks at, besides Manufacturer."""

_B: Final = "DiffusionBValue"
_ORIENTATION: Final = "DiffusionGradientOrientation"
_COMMENTS: Final = TAGS["ImageComments"]
_MANUFACTURER: Final = TAGS["Manufacturer"]
_CANON: Final = re.compile(
    rb"\[?b=([0-9.]{1,16})\((-?[0-9.]{1,16}),(-?[0-9.]{1,16}),(-?[0-9.]{1,16})\)\]?\s*"
)
_NONE: Final[Element] = ("", b"")
_GE_OFFSET: Final = (
    10_000  # GE adds multiples of 10^5 or 10^9 to b-values, none of which is as high as this
)

Found = tuple[float | None, Sequence[float] | None]
_Reader = Callable[[Private], Found]


def resolve_diffusion(frames: Frames) -> None:
    """Sets DiffusionGradientOrientation of functional groups, and what private elements add."""
    macro = frames.macro("MRDiffusionSequence")
    if isinstance(macro, dict):
        frames.put(_ORIENTATION, _direction_of(frames, macro))
    elif macro is not None:
        missing = FRAME_COLUMNS[_ORIENTATION].missing
        found = [None if group is None else _direction_of(frames, group) for group in macro]
        frames.spread(_ORIENTATION, [missing if one is None else one for one in found])
    elif frames.columns.get("Modality") == "MR":
        frames.columns.update(private_diffusion(frames.top, frames.context, frames.notices))


def _direction_of(frames: Frames, group: Group) -> tuple[float, ...] | None:
    items = frames.items("DiffusionGradientDirectionSequence", group)
    if not items:
        return None
    direction: tuple[float, ...] | None = frames.get(_ORIENTATION, "float64[3]", items[0])
    return direction if direction and any(direction) else None


def private_diffusion(elements: Group, context: Context, notices: list[str]) -> dict[str, Any]:
    """The columns that private elements of an MR image give, where the standard attributes are absent."""
    private = Private(elements, context, notices)
    if not (private.blocks or _COMMENTS in elements or CSA_HEADER in elements):
        return {}
    wanted = [name for name in (_B, _ORIENTATION) if not _has(elements, TAGS[name])]
    if not wanted:
        return {}
    for vendor, (writes, reader) in _READERS.items():
        if not writes(private):
            continue
        found = dict(zip((_B, _ORIENTATION), reader(private), strict=True))
        columns: dict[str, Any] = {name: found[name] for name in wanted if found[name] is not None}
        direction = columns.pop(_ORIENTATION, None)
        if direction is not None and any(direction) and all(map(math.isfinite, direction)):
            columns[_ORIENTATION] = tuple(direction)
        if columns:
            return {**columns, "diffusion_source": vendor}
    return {}


def _has(elements: Group, tag: int) -> bool:
    element = elements.get(tag)
    return element is not None and bool(element[1])


def _siemens(private: Private) -> Found:
    b = private.value("SiemensBValue", "float64")
    if b is not None:
        name = "SiemensDiffusionGradientDirection"
        return b, private.value(name, "float64[3]")
    data = private.csa_header()
    value = csa_numbers(data, "B_value", 1)
    return (
        (None, None)
        if value is None
        else (value[0], csa_numbers(data, "DiffusionGradientDirection", 3))
    )


def _ge(private: Private) -> Found:
    numbers = private.value("GEBValue", "list")
    if not numbers or not math.isfinite(numbers[0]) or numbers[0] < 0:
        return None, None
    b = numbers[0] % 100_000 if numbers[0] > _GE_OFFSET else numbers[0]
    parts = [private.value(f"GEDiffusionDirection{axis}", "float64") for axis in "XYZ"]
    if None in parts or not any(parts):
        return b, None
    return b, _ge_direction(private, parts)


def _ge_direction(private: Private, parts: Sequence[float]) -> Sequence[float] | None:
    """Patient coordinates of GE's components; `None` where the convention is not known."""
    axes, along = _axes(private), _encoding(private)
    if axes is None or along not in ("COL", "ROW"):
        return None
    if np.argmax(np.abs(axes[2])) == 1:  # coronal: converters disagree
        return None
    x, y, z = parts
    return _turned((-x, -y, z) if along == "COL" else (-y, x, z), axes)


def _canon(private: Private) -> Found:
    found = _CANON.fullmatch(private.elements[_COMMENTS][1])
    axes, along = _axes(private), _encoding(private)
    if found is None or axes is None:
        return None, None
    try:
        b, x, y, z = map(float, found.groups())
    except ValueError:  # several points
        return None, None
    if along not in ("COL", "ROW") or np.argmax(np.abs(axes[2])) == 1:
        return b, None
    return b, _turned((-y, -x, z) if along == "COL" else (-x, y, z), axes)


def _by_canon(private: Private) -> bool:
    manufacturer, comments = (
        private.elements.get(tag, _NONE)[1] for tag in (_MANUFACTURER, _COMMENTS)
    )
    return (
        isinstance(manufacturer, bytes)
        and isinstance(comments, bytes)
        and manufacturer.startswith(b"CANON")
    )


def _encoding(private: Private) -> str | None:
    """In-plane Phase Encoding Direction."""
    element = private.elements.get(TAGS["InPlanePhaseEncodingDirection"])
    return None if element is None else private.context.text(element)


def _axes(private: Private) -> npt.NDArray[np.float64] | None:
    """(3, 3): the directions of rows, columns and the normal."""
    tag = TAGS["ImageOrientationPatient"]
    element = private.elements.get(tag)
    if element is None:
        return None
    found = private.context.convert(tag, "float64[6]", element, private.notices)
    if found is None:
        return None
    row, column = np.array(found).reshape(2, 3)
    return np.stack([row, column, np.cross(row, column)])


def _turned(parts: Sequence[float], axes: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple((np.array(parts) @ axes).tolist())


def _philips(private: Private) -> Found:
    b = private.value("PhilipsBValue", "float64")
    if b is None:
        return None, None
    parts = [
        private.value(f"PhilipsDiffusionDirection{axis}", "float64") for axis in ("RL", "AP", "FH")
    ]
    return b, None if None in parts else parts


def _uih(private: Private) -> Found:
    b = private.value("UIHBValue", "float64")
    if b is None:
        return None, None
    name = "UIHDiffusionGradientDirection"
    parts = private.value(name, "float64[3]")
    axes = _axes(private)
    return b, None if parts is None or axes is None else _turned(parts, axes)


def _reserved(*creators: tuple[int, str]) -> Callable[[Private], bool]:
    """Whether a data set has a block of some creators."""
    return lambda private: any(creator in private.blocks for creator in creators)


_has_siemens_block = _reserved((0x0019, "SIEMENS MR HEADER"), (0x0029, "SIEMENS CSA HEADER"))


def _by_siemens(private: Private) -> bool:
    return _has_siemens_block(private) or bool(private.csa_header())


_READERS: Final[dict[str, tuple[Callable[[Private], bool], _Reader]]] = {
    "SIEMENS": (_by_siemens, _siemens),
    "GE": (_reserved((0x0043, "GEMS_PARM_01")), _ge),
    "Philips": (_reserved((0x2001, "Philips Imaging DD 001")), _philips),
    "UIH": (_reserved((0x0065, "Image Private Header")), _uih),
    "Canon": (_by_canon, _canon),
}
"""Whose elements they are -> whether a data set has some, and what reads them."""
