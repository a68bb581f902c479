"""The filter box: terms over the columns of an index, such as `Modality=CT SliceThickness<=2 label=1`."""

from __future__ import annotations

import math
import operator
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError
from dicomtorch.index.columns import Packed, Texts
from dicomtorch.index.frame_index import FrameIndex

_TERM = re.compile(r'\s*([A-Za-z_][\w .-]*?)\s*(!=|<=|>=|=|<|>|~)\s*("[^"]*"|[^\s"]+)(?=\s|$)')
_COMPARED = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LONGEST = 1000


def matching(index: FrameIndex, text: str) -> npt.NDArray[np.bool_]:
    """For each frame whether all terms hold.

    Args:
        index: Whose columns.
        text: Terms with blanks between them: a column, one of = != < <= > >= and ~ (contains), a value, in quotes
            where it has blanks.

    Raises:
        OptionError: It is no such text, there is no such column, or its values cannot be compared so.
    """
    if len(text) > _LONGEST:
        raise OptionError(f"the filter has {len(text)} characters; {_LONGEST} is the most")
    mask = np.ones(len(index), np.bool_)
    at = 0
    text = text.strip()
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None:
            raise OptionError(
                "a filter is made of terms such as Modality=CT, Rows>=512, label!=0 or KernelName~B30, with blanks "
                "between them"
            )
        name, sign, value = found.groups()
        mask &= _holds(index, _column(index, name.strip()), sign, value.strip('"'))
        at = found.end()
    return mask


def _column(index: FrameIndex, name: str) -> str:
    known = {column.name.lower(): column.name for column in index.columns}
    if name.lower() not in known:
        raise OptionError(f"the index has no column {name!r}; Modality, Rows and KVP are some")
    return known[name.lower()]


def _holds(index: FrameIndex, name: str, sign: str, value: str) -> Any:
    data = index.column(name)
    if isinstance(data, Texts):
        return _text_holds(data, name, sign, value)
    if isinstance(data, Packed) or data.ndim > 1:
        raise OptionError(f"{name} holds several numbers a frame and cannot be compared")
    try:
        wanted = float(value)
    except ValueError:
        wanted = math.nan
    if sign == "~" or math.isnan(wanted):
        raise OptionError(f"{name} holds numbers: compare it with one, as in {name}>=1")
    return _COMPARED[sign](data, wanted)


def _text_holds(data: Texts, name: str, sign: str, value: str) -> Any:
    """Each distinct value is looked at once."""
    used = np.unique(data.codes).tolist()
    if sign == "~":
        wanted = [code for code in used if value.casefold() in data.value(code).casefold()]
    elif sign in ("=", "!="):
        wanted = [code for code in used if (data.value(code) == value) == (sign == "=")]
    else:
        raise OptionError(f"{name} holds text: compare it with =, != or ~ (contains)")
    return np.isin(data.codes, wanted)
