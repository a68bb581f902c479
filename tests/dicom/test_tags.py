"""The table of attributes against pydicom's dictionary."""

from __future__ import annotations

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from dicomtorch.dicom.tags import KEYWORDS, LARGE, PRIVATE, describe, private_tags, vr_of
from dicomtorch.model.schema import FRAMES


def test_table_agrees_with_the_dictionary():
    for keyword, (tag, vr) in KEYWORDS.items():
        assert keyword_for_tag(tag) == keyword
        assert vr in dictionary_VR(tag).split(" or ")


def test_every_column_of_the_standard_has_a_tag():
    keywords = {column.name for column in FRAMES if column.name[0].isupper()}
    assert keywords
    assert keywords <= set(KEYWORDS)


@pytest.mark.parametrize(
    ("keyword", "tag", "vr"),
    [
        ("Rows", 0x00280010, "US"),
        ("PatientBirthDate", 0x00100030, "DA"),  # beyond the table
        ("SmallestImagePixelValue", 0x00280106, "US"),  # US or SS
        ("OverlayData", 0x60003000, "OW"),  # OB or OW
    ],
)
def test_look_up(keyword, tag, vr):
    assert tag_for_keyword(keyword) in (tag, None)  # a repeating group has no one tag
    assert vr_of(tag) == vr


def test_unknown():
    assert vr_of(0x00081FFF) == ""
    assert vr_of(0x00091001) == ""


def test_private():
    assert vr_of(0x70530010) == "LO"  # a private creator
    assert vr_of(0x7053FF00) == "DS"
    wanted = private_tags()
    large = private_tags(large=True)
    for name, (group, _, element, _) in PRIVATE.items():
        of_name = large if name in LARGE else wanted
        assert {group << 16 | 0x10, group << 16 | 0x1000 | element} <= of_name
        assert (group << 16 | 0x1000 | element in wanted) == (name not in LARGE)


def test_describe():
    assert describe(0x00280010) == "(0028,0010) Rows"
    assert describe(0x00091001) == "(0009,1001)"
