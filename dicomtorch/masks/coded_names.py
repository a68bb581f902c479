"""Which label a segment gets: by its name, or by the code of what it shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dicomtorch.errors import OptionError, format_count
from dicomtorch.model.mask_object import Code, Segment

LabelOption = Mapping[str | Code, int] | Sequence[str] | None

# SNOMED RT identifiers of organs and tissues -> SNOMED CT, of the codes that PS3.16 annex L lists for segments.
_SRT_TO_SCT = {
    "T-62000": "10200004",  # liver
    "T-71000": "64033007",  # kidney
    "T-C3000": "78961009",  # spleen
    "T-65000": "15776009",  # pancreas
    "T-28000": "39607008",  # lung
    "T-32000": "80891009",  # heart
    "T-A0100": "12738006",  # brain
    "T-42000": "15825003",  # aorta
    "T-92000": "41216001",  # prostate
    "T-74000": "89837001",  # bladder
    "T-57000": "69695003",  # stomach
    "T-56000": "32849002",  # oesophagus
    "T-11000": "272673000",  # bone
    "T-63000": "28231008",  # gallbladder
    "T-B3000": "23451007",  # adrenal gland
    "T-B6000": "69748006",  # thyroid
    "T-A7010": "2748008",  # spinal cord
    "T-D0050": "85756007",  # tissue
    "M-01000": "49755003",  # morphologically altered structure
    "M-03000": "4147007",  # mass
    "M-80003": "108369006",  # neoplasm
    "M-80010": "86049000",  # neoplasm, primary
}


@dataclass(frozen=True)
class LabelMap:
    """The labels of a dataset.

    Attributes:
        names: (K,), what each is called: the text of its key, the meaning or value of a code.
        numbers: (K,), what stands for it in a label map.
        keys: (K,), what segments are compared with; of several that give one number the first names it.
        numbers_of_keys: Number of each of `keys`.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    keys: tuple[str | Code, ...]
    numbers_of_keys: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of a label map: uint8 where the numbers fit, else int32."""
        return np.dtype(np.uint8 if max(self.numbers, default=0) < 256 else np.int32)

    def position(self, segment: Segment) -> int:
        """Which label a segment has, -1 for none: that of the first key that matches."""
        found = self.key(segment)
        return -1 if found < 0 else self.numbers.index(self.numbers_of_keys[found])

    def key(self, segment: Segment) -> int:
        """The first key that matches a segment, -1 for none."""
        name = segment.name.strip()
        for k, key in enumerate(self.keys):
            if isinstance(key, Code):
                if _shows(segment, key):
                    return k
            elif key == name or re.fullmatch(key, name, re.IGNORECASE):
                return k
        return -1


def grid_labels(labels: LabelOption, segments: Sequence[Segment]) -> LabelMap:
    """What `labels=` means where files of numbers without names have some of them.

    Raises:
        OptionError: It does not say the number of each, or means nothing.
    """
    if not isinstance(labels, Mapping) or not all(isinstance(key, str) for key in labels):
        raise OptionError(
            "masks in NIfTI or NRRD files hold numbers without names; say what they are: "
            'labels={"liver": 1, "tumour": 2}'
        )
    if not segments and len(set(labels.values())) < len(labels):
        raise OptionError("labels of NIfTI or NRRD files must have different numbers")
    return label_map(labels, segments, all_match=False)


def label_map(
    labels: LabelOption, segments: Sequence[Segment], *, all_match: bool = True
) -> LabelMap:
    """What `labels=` means for the segments that there are.

    Args:
        labels: {name, pattern or Code: number}, a list of them numbered from 1, or `None` for all names, sorted.
        segments: All that may be asked for.
        all_match: Whether each key must match something.

    Raises:
        OptionError: A number is no positive integer, a pattern no regular expression, or a key matches nothing.
    """
    if labels is None:
        names = sorted({segment.name.strip() for segment in segments if segment.name.strip()})
        escaped = [re.escape(name) for name in names]
        # Names that differ by case only are one key, as they are one pattern.
        unique = {
            key.casefold(): (name, key)
            for name, key in zip(reversed(names), reversed(escaped), strict=True)
        }
        pairs = sorted(unique.values())
        numbers = tuple(range(1, len(pairs) + 1))
        return LabelMap(tuple(n for n, _ in pairs), numbers, tuple(k for _, k in pairs), numbers)
    if isinstance(labels, str) or not isinstance(labels, Mapping | Sequence):
        raise OptionError(
            f"labels must be a dict of pattern or Code to number, or a list of names; got {type(labels).__name__}"
        )
    given: Mapping[str | Code, int]
    if isinstance(labels, Mapping):
        given = labels
    else:
        given = {name: number for number, name in enumerate(labels, 1)}
        if len(given) < len(labels):
            raise OptionError("labels names something twice")
    keys = tuple(_checked_key(key) for key in given)
    numbers = tuple(_checked_number(number) for number in given.values())
    if not keys:
        raise OptionError("labels is empty; give at least one, or None for all names")
    first = {number: keys[numbers.index(number)] for number in numbers}
    result = LabelMap(tuple(map(_name, first.values())), tuple(first), keys, numbers)
    matched = {result.key(segment) for segment in segments}
    missed = [k for k in range(len(keys)) if all_match and k not in matched]
    if missed:
        raise OptionError(
            f"labels: {keys[missed[0]]!r} matches none of "
            f"{format_count(len({s.name for s in segments}), 'name')} of "
            f"{format_count(len(segments), 'segment')}; the table of the masks lists them"
        )
    return result


def _name(key: str | Code) -> str:
    return key if isinstance(key, str) else key.meaning or f"{key.scheme} {key.value}"


def _checked_key(key: str | Code) -> str | Code:
    if isinstance(key, Code):
        return key
    if not isinstance(key, str):
        raise OptionError(f"labels: a key must be a pattern or a Code; got {type(key).__name__}")
    try:
        re.compile(key)
    except re.error as error:
        raise OptionError(f"labels: {key!r} is no regular expression ({error})") from error
    return key


def _checked_number(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 1 << 31:
        raise OptionError(
            f"labels: a number must be 1 or more, 0 is the background; got {number!r}"
        )
    return int(number)


def _shows(segment: Segment, code: Code) -> bool:
    if segment.type is None or _concept(segment.type) != _concept(code):
        return False
    return not code.modifier or code.modifier in {each.value for each in segment.modifiers}


def _concept(code: Code) -> tuple[str, str]:
    if code.scheme in ("SRT", "SNM3"):
        value = _SRT_TO_SCT.get(code.value)
        return ("SRT", code.value) if value is None else ("SCT", value)
    return code.scheme, code.value
