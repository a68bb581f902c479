"""Values of elements: text, numbers, and what real files write instead of them."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import decode_bytes, python_encoding

from dicomtorch.dicom.elements import array, floats, integers, texts


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        (None, []),
        (("LO", b""), []),
        (("LO", b"  \0"), []),
        (("SQ", []), []),
        (("CS", b"ORIGINAL\\PRIMARY "), ["ORIGINAL", "PRIMARY"]),
        (("UI", b"1.2.3\0"), ["1.2.3"]),
        (("LO", b" a \\\\b"), ["a", "", "b"]),
        (("LT", b"a\\b"), ["a\\b"]),
        (("CS", b"caf\xe9"), ["caf\\xe9"]),
    ],
)
def test_texts(element, expected):
    assert texts(element) == expected


@pytest.mark.parametrize("number", [100, 101, 109, 110, 126, 138, 144, 148, 192])
def test_character_sets_like_pydicom(number):
    term = f"ISO_IR {number}"
    for code in range(0xA0, 0x100):
        text = bytes([code]).decode(python_encoding[term], "ignore")
        if text and text == text.strip():
            assert texts(("LO", text.encode(python_encoding[term]) + b" "), term) == [text]


def test_backslash_inside_a_character():
    assert texts(("LO", "表\\x".encode("gb18030")), "GB18030") == ["表", "x"]
    # 0x5C is the second byte of this character
    assert texts(("LO", "乗\\x".encode("gbk")), "GBK") == ["乗", "x"]


def test_code_extensions_like_pydicom():
    raw = b"\x1b$B;3ED\x1b(B"
    expected = decode_bytes(raw, ["ascii", "iso2022_jp"], set())
    assert texts(("LO", raw), "\\ISO 2022 IR 87") == [expected]
    assert expected == "山田"


def test_unknown_character_set():
    assert texts(("LO", b"a\xe9\\b"), "ISO_IR 999") == ["a\\xe9", "b"]


def test_bytes_beyond_the_character_set_stay_apart():
    assert texts(("LO", b"M\xfcller")) != texts(("LO", b"M\xe4ller"))


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("DS", b"1.5\\-2e3 ", [1.5, -2000.0]),
        ("DS", b" 1.5 \\ 2\0", [1.5, 2.0]),
        ("DS", b"1,5", [1.5]),
        ("DS", b"1\\\\3", [1.0, math.nan, 3.0]),
        ("DS", b"1_0", [math.nan]),
        ("DS", b"", []),
        ("DS", b"  ", []),
        ("IS", b"1A", [math.nan]),
        ("FD", struct.pack("<2d", 0.1, -2.0), [0.1, -2.0]),
        ("SS", struct.pack("<2h", -5, 6), [-5.0, 6.0]),
        ("LO", b"12", []),
        ("FD", b"123", []),
    ],
)
def test_floats(vr, value, expected):
    np.testing.assert_array_equal(floats((vr, value)), expected)


def test_absent_numbers():
    assert floats(None) == []
    assert integers(None) == []
    assert array(None).size == 0
    assert array(("SQ", [])).size == 0


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("IS", b"1\\ -2 ", [1, -2]),
        ("IS", b"1A", [None]),
        ("IS", b"1\\\\3", [1, None, 3]),
        ("IS", b"12.0", [12]),
        ("IS", b"12.5", [None]),
        ("IS", b"1_2", [None]),
        ("IS", b"", []),
        ("DS", b"3.0\\4.5", [3, None]),
        ("US", struct.pack("<2H", 65535, 1), [65535, 1]),
        ("US", struct.pack("<H", 7) + b"\0", [7]),
        ("AT", struct.pack("<4H", 0x18, 0x1063, 0x18, 0x1065), [0x00181063, 0x00181065]),
        ("FL", struct.pack("<3f", 2.0, 2.5, math.nan), [2, None, None]),
        ("OB", b"\1\2", [1, 2]),
        ("OV", struct.pack("<Q", 2**63), [2**63]),
    ],
)
def test_integers(vr, value, expected):
    assert integers((vr, value)) == expected


BINARY = {"FL": "f", "FD": "d", "SS": "h", "US": "H", "SL": "i", "UL": "I", "SV": "q", "UV": "Q"}


@given(st.data(), st.sampled_from(sorted(BINARY)), st.booleans())
def test_binary_values_survive(data, vr, big_endian):
    code = BINARY[vr]
    size = struct.calcsize(code) * 8
    if code in "fd":
        numbers = st.floats(allow_nan=False, width=32 if code == "f" else 64)
    elif code.isupper():
        numbers = st.integers(0, 2**size - 1)
    else:
        numbers = st.integers(-(2 ** (size - 1)), 2 ** (size - 1) - 1)
    values = data.draw(st.lists(numbers, max_size=4))
    raw = struct.pack(f"{'>' if big_endian else '<'}{len(values)}{code}", *values)
    found = array((vr, raw), big_endian)
    assert found.tolist() == values
    assert found.dtype.isnative
    assert floats((vr, raw), big_endian) == [float(value) for value in values]
    if code not in "fd":
        assert integers((vr, raw), big_endian) == values


def test_tags_of_a_big_endian_file():
    assert integers(("AT", struct.pack(">2H", 0x18, 0x1063)), True) == [0x00181063]
