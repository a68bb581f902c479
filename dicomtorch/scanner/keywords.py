"""Columns for the attributes that a user names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from dicomtorch.errors import OptionError
from dicomtorch.model.schema import FRAME_COLUMNS, Kind
from dicomtorch.scanner.resolve.resolver import Tag

_INTEGER_VRS = frozenset(("IS", "US", "SS", "UL", "SL", "UV", "SV"))
_FLOAT_VRS = frozenset(("DS", "FL", "FD"))
_REFUSED_VRS = frozenset(("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "OB or OW", "US or OW"))


def tag_columns(keywords: Iterable[str]) -> dict[str, Tag]:
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
        result[keyword] = Tag(number, vr, kind)
    return result
