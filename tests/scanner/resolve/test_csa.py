"""The private image header of Siemens scanners."""

from __future__ import annotations

import pytest

from dicomtorch.scanner.resolve.csa import csa_numbers, csa_values
from tests.support.csa import csa_header

HEADER = csa_header(
    B_value=[1000], SliceNormalVector=[0, 0.1, -0.99], Label=["B_value", "x"], None_=[]
)


def test_entries_are_found_by_name() -> None:
    assert csa_numbers(HEADER, "B_value", 1) == (1000,)
    assert csa_numbers(HEADER, "SliceNormalVector", 3) == (0, 0.1, -0.99)
    assert csa_values(HEADER, "Label") == ["B_value", "x"]
    assert csa_values(HEADER, "None_") == []


def test_what_is_not_there_or_has_other_values() -> None:
    assert csa_values(HEADER, "Nothing") == []
    assert csa_numbers(HEADER, "SliceNormalVector", 1) is None
    assert csa_numbers(HEADER, "Label", 2) is None


@pytest.mark.parametrize("keep", range(0, len(HEADER), 7))
def test_a_header_cut_off_anywhere(keep: int) -> None:
    assert csa_numbers(HEADER[:keep], "B_value", 1) in ((1000,), None)
    assert csa_numbers(HEADER[:keep], "SliceNormalVector", 3) in ((0, 0.1, -0.99), None)


def test_the_name_as_a_value_is_passed_over() -> None:
    header = csa_header(Other=["B_value"], B_value=[5])
    assert csa_numbers(header, "B_value", 1) == (5,)
