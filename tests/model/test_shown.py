"""What of a header may be shown: what the standard names, and VR and length of anything else."""

from __future__ import annotations

import re

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from dicomtorch.index import exports
from dicomtorch.model.schema import FRAME_COLUMNS
from dicomtorch.model.shown import CODED, named_uid, shown, shown_uid
from dicomtorch.model.syntaxes import KNOWN_SYNTAXES, VIDEO, uid_name


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Modality", "CT"),
        ("PhotometricInterpretation", "PALETTE COLOR"),
        ("BurnedInAnnotation", "NO"),
        ("RescaleType", "HU"),
        ("Units", "BQML"),
        ("SegmentationType", "LABELMAP"),
        ("ImageType", "ORIGINAL\\PRIMARY\\AXIAL"),
        ("ImageType", "DERIVED\\SECONDARY\\\\MPR"),
        ("VOILUTFunction", ""),
    ],
)
def test_what_the_standard_names_is_shown(keyword: str, value: str) -> None:
    assert shown(keyword, value) == value


@pytest.mark.parametrize("keyword", sorted(CODED))
@pytest.mark.parametrize("value", ["DOE^JANE", "19600101", "ct", "CT ", "YES\\DOE"])
def test_of_anything_else_only_vr_and_length(keyword: str, value: str) -> None:
    found = shown(keyword, value)
    assert "DOE" not in found
    assert "1960" not in found
    assert re.search(r"length \d+\)", found)


def test_of_several_values_each_is_judged_for_itself() -> None:
    assert shown("ImageType", "ORIGINAL\\DOE^JANE\\AXIAL") == (
        "ORIGINAL\\(not a value of the standard: VR CS, length 8)\\AXIAL"
    )


def test_coded_attributes_are_columns() -> None:
    assert FRAME_COLUMNS.keys() >= CODED


def test_uids_of_the_standard_are_shown_and_no_other() -> None:
    assert shown_uid("1.2.840.10008.5.1.4.1.1.2") == "1.2.840.10008.5.1.4.1.1.2"
    assert named_uid("1.2.840.10008.5.1.4.1.1.2") == "CT Image Storage"
    assert shown_uid("") == named_uid("") == ""
    for uid in ("1.2.840.10008.1.2.3.19600101", "19600101", "DOE^JANE", "2.25.12345"):
        for found in (shown_uid(uid), named_uid(uid)):
            assert found == f"(not a value of the standard: VR UI, length {len(uid)})"


def test_every_uid_has_a_name_of_its_own() -> None:
    uids = {*UID_dictionary, *KNOWN_SYNTAXES, *VIDEO, "1.2.840.10008.5.1.4.1.1.66.7"}
    kinds = ("SOP Class", "Transfer Syntax", "")
    named = {uid: uid_name(uid) for uid in uids if UID_dictionary.get(uid, ["", ""])[1] in kinds}
    names = [name for name in named.values() if name]
    assert len(set(names)) == len(names)
    assert not [uid for uid in (*KNOWN_SYNTAXES, *VIDEO) if not named[uid]]
    assert named["1.2.840.10008.5.1.4.1.1.66.7"] == "Label Map Segmentation Storage"
    assert named["1.2.840.10008.5.1.4.1.1.6"] == "Ultrasound Image Storage (Retired)"
    assert named["1.2.840.10008.5.1.4.1.1.6.1"] == UID("1.2.840.10008.5.1.4.1.1.6.1").name


def test_no_text_is_exported_that_may_be_anything() -> None:
    """Text of the table that identifies nobody is hashed, judged value by value, or made by the package."""
    text = {name for name, column in FRAME_COLUMNS.items() if column.kind == "text"}
    judged = {*CODED, "SOPClassUID", "TransferSyntaxUID"}
    assert (exports.SHARED & text) - judged - {"windows"} == set()
