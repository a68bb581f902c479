"""Columns for the attributes that a user names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from dicomtorch.errors import OptionError
from dicomtorch.model.schema import FRAME_COLUMNS, Kind
from dicomtorch.scanner.resolve import resolver

Tag = str | int | tuple[int, int]
"""A keyword, or a tag as a number or as group and element."""

_WRITTEN_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),? ?([0-9A-Fa-f]{4})\)?")
_INTEGER_VRS = frozenset(("IS", "US", "SS", "UL", "SL", "UV", "SV"))
_FLOAT_VRS = frozenset(("DS", "FL", "FD"))
_REFUSED_VRS = frozenset(("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "OB or OW", "US or OW"))


def named_tags(tags: Iterable[Any]) -> list[str]:
    """Keywords of attributes that are named by keyword or by tag.

    Args:
        tags: Each as in "PatientSex", 0x00100040, (0x0010, 0x0040) or "0010,0040"; a keyword is not looked up.

    Raises:
        OptionError: It is not a list, or a tag is none of the DICOM dictionary.
    """
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise OptionError(
            f'tags must be a list of keywords or tags, as in ["PatientSex"]; got {tags!r}'
        )
    return [_keyword(tag) for tag in tags]


def _keyword(tag: Any) -> str:
    number = tag
    if isinstance(tag, str):
        written = _WRITTEN_TAG.fullmatch(tag.strip())
        if not written:
            return tag
        number = int(written[1] + written[2], 16)
    elif isinstance(tag, tuple) and len(tag) == 2 and all(isinstance(part, int) for part in tag):
        number = tag[0] << 16 | tag[1]
    if isinstance(number, bool) or not isinstance(number, int):
        raise OptionError(
            f"tags: {type(tag).__name__} names no attribute; use a keyword or a tag, as in 'PatientSex' or 0x00100040"
        )
    from pydicom.datadict import keyword_for_tag

    keyword = keyword_for_tag(number) if 0 <= number < 1 << 32 else ""
    if not keyword:
        raise OptionError(
            f"tags: {tag if isinstance(tag, str) else hex(number)} is no tag of the DICOM dictionary; private "
            f"attributes have no column"
        )
    return keyword


def is_keyword(name: str) -> bool:
    """Whether the DICOM dictionary has it."""
    from pydicom.datadict import tag_for_keyword

    return tag_for_keyword(name) is not None


def tag_columns(keywords: Iterable[str]) -> dict[str, resolver.Tag]:
    """The columns that `keywords` ask for, without those that every index has.

    Raises:
        OptionError: A keyword does not exist, or is that of a sequence or of bulk data.
    """
    from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_dict, tag_for_keyword

    result = {}
    for keyword in keywords:
        if keyword in FRAME_COLUMNS:
            continue
        number = tag_for_keyword(keyword)
        if number is None:
            close = difflib.get_close_matches(keyword, keyword_dict, 3, 0.7)
            hint = f"; did you mean {' or '.join(close)}?" if close else "."
            raise OptionError(
                f"tags: {keyword!r} is no keyword of the DICOM dictionary{hint} Keywords look like "
                f"'PatientSex'"
            )
        vr = dictionary_VR(number)
        if vr in _REFUSED_VRS:
            raise OptionError(
                f"tags: {keyword} has VR {vr}, which cannot be a column; name an attribute with a "
                f"text or number value"
            )
        single = dictionary_VM(number) == "1"
        vr = vr[:2]  # "US or SS" is read as US where the file does not say
        kind: Kind = "text"
        if single and vr in _FLOAT_VRS:
            kind = "float64"
        elif single and vr in _INTEGER_VRS:
            kind = "int64"
        result[keyword] = resolver.Tag(number, vr, kind)
    return result
