"""Tags by keyword, as pydicom's dictionary has them."""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword


def tag_of(keyword: str) -> int:
    """The tag of an attribute."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag
