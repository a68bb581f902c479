"""Lookup tables against worked numbers of the standard and against pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.filereader import dcmread
from pydicom.pixels.processing import apply_color_lut

from dicomtorch.errors import HeaderError
from dicomtorch.model.frame import LookupTable
from dicomtorch.scanner.resolve.lookup import expand_segmented_palette, lookup_table

PALETTES = Path(pydicom.data.__file__).parent / "palettes"


def table(*args: object, **kwargs: object) -> LookupTable:
    result = lookup_table(*args, **kwargs)  # type: ignore[arg-type]
    assert result is not None
    return result


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("vr", ["OW", "US", "OB"])
def test_8_bit_entries_packed_or_one_a_word(big_endian: bool, vr: str) -> None:
    packed, words = bytes([0x00, 0x40, 0x80, 0xFF]), np.array([0, 64, 128, 255], "<u2")
    if big_endian:
        words = words.astype(">u2")
        if vr != "OB":
            packed = bytes([0x40, 0x00, 0xFF, 0x80])
    for data in (packed, words.tobytes()):
        lut = table((4, 10, 8), data, big_endian=big_endian, vr=vr)
        assert lut.data.tolist() == [0, 64, 128, 255]
        assert lut.data.dtype == np.uint16
        assert (lut.first_mapped, lut.bits, lut.maximum) == (10, 8, 255)


def test_odd_number_of_packed_entries_is_padded() -> None:
    assert table((3, 0, 8), bytes([1, 2, 3, 0])).data.tolist() == [1, 2, 3]


def test_16_bit_descriptor_over_8_bit_data() -> None:
    lut = table((4, 0, 16), bytes([0, 1, 2, 255]))
    assert (lut.data.tolist(), lut.maximum) == ([0, 1, 2, 255], 255)


def test_no_entries_means_65536() -> None:
    data = np.arange(65536, dtype="<u2")
    lut = table((0, 0, 16), data.tobytes())
    np.testing.assert_array_equal(lut.data, data)


@pytest.mark.parametrize(
    ("first", "signed", "expected"),
    [
        (65534, True, -2),
        (65534, False, 65534),
        (-2, True, -2),
        (-2, False, 65534),
        (63488, True, -2048),
    ],
)
def test_sign_of_the_first_value(first: int, signed: bool, expected: int) -> None:
    assert table((1, first, 16), b"\1\0", signed_first=signed).first_mapped == expected


def test_too_few_bits_go_by_the_largest_entry() -> None:
    data = np.array([0, 1000, 2000, 4095], "<u2").tobytes()
    assert table((4, 0, 8), data).maximum == 4095
    assert table((4, 0, 255), data).maximum == 4095
    assert table((4, 0, 0), data).maximum == 4095


@pytest.mark.parametrize(("descriptor", "data"), [((), b"\0\0"), ((2, 0, 16), b""), ((), b"")])
def test_empty_is_absent(descriptor: tuple[int, ...], data: bytes) -> None:
    assert lookup_table(descriptor, data) is None


def test_descriptor_and_data_that_disagree() -> None:
    with pytest.raises(HeaderError, match=r"\(0028,3006\).*7 bytes.*10 entries.*10 or 20"):
        lookup_table((10, 0, 16), bytes(7), name="(0028,3006) LUTData")
    with pytest.raises(HeaderError, match="15 bytes"):
        lookup_table((10, 0, 16), bytes(15))
    with pytest.raises(HeaderError, match="2 values"):
        lookup_table((10, 0), bytes(20))
    assert table((2, 0, 16), bytes(9)).data.tolist() == [0, 0]


def test_unknown_vr_is_little_endian_everywhere() -> None:
    assert table((1, 0, 16), b"\1\0", big_endian=True, vr="UN").data.tolist() == [1]


def test_segments_of_the_standard() -> None:
    words = np.array([0, 1, 0, 1, 4, 65280], np.uint16)
    assert expand_segmented_palette(words).tolist() == [0, 16320, 32640, 48960, 65280]
    lut = table((5, 0, 16), words.astype("<u2").tobytes(), segmented=True)
    assert lut.data.tolist() == [0, 16320, 32640, 48960, 65280]


def test_8_bit_segments() -> None:
    data = bytes([0, 2, 5, 9, 1, 3, 0])
    assert table((5, 0, 8), data, segmented=True).data.tolist() == [5, 9, 6, 3, 0]
    swapped = bytes([2, 0, 9, 5, 3, 1, 0, 0])
    lut = table((5, 0, 8), swapped, segmented=True, big_endian=True)
    assert lut.data.tolist() == [5, 9, 6, 3, 0]


def test_indirect_segments_count_bytes() -> None:
    # Discrete 10, 20; linear to 40 over 2; then both again; then one more value.
    head = [0, 2, 10, 20, 1, 2, 40]
    words = np.array([*head, 2, 2, 0, 0, 0, 1, 7], np.uint16)
    assert expand_segmented_palette(words).tolist() == [10, 20, 30, 40, 10, 20, 30, 40, 7]
    only_linear = np.array([*head, 2, 1, 8, 0], np.uint16)
    assert expand_segmented_palette(only_linear).tolist() == [10, 20, 30, 40, 40, 40]
    narrow = np.array([*head, 2, 1, 4, 0, 0, 0], np.uint8)
    assert expand_segmented_palette(narrow).tolist() == [10, 20, 30, 40, 40, 40]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([1, 3, 9], "first segment is linear"),
        ([0, 5, 1, 2], "has only 2"),
        ([7, 1, 1], "type 7"),
        ([0, 1, 5, 2, 1, 100, 0], "not before itself"),
        ([0, 1, 5, 2, 1, 1, 0], "not before itself"),
        ([0, 1, 5, 2, 1, 0, 0, 2, 1, 6, 0], "refers to an indirect"),
        ([0, 1, 5, 2, 9, 0, 0], "refers to an indirect"),
        ([0, 1, 5, 1, 65535, 0, 1, 65535, 1], "more than the 65536"),
    ],
)
def test_damaged_segments(words: list[int], message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        expand_segmented_palette(np.array(words, np.uint16))


def test_segments_of_the_wrong_number() -> None:
    words = np.array([0, 1, 0, 1, 4, 65280], "<u2").tobytes()
    with pytest.raises(HeaderError, match="5 entries; the descriptor says 6"):
        lookup_table((6, 0, 16), words, segmented=True)


def test_empty_segments_are_not_repeated_for_ever() -> None:
    empty = [0, 0] * 1000
    words = np.array([0, 1, 5, *empty, *([2, 1000, 6, 0] * 1000), 0], np.uint16)
    with pytest.raises(HeaderError, match="more than the 65536"):
        expand_segmented_palette(words)


@given(st.lists(st.integers(0, 65535), max_size=40))
def test_any_segments_end_in_a_table_or_an_error(words: list[int]) -> None:
    try:
        entries = expand_segmented_palette(np.array(words, np.uint16))
    except HeaderError:
        return
    assert len(entries) <= 65536


def oracle(path: Path) -> None:
    ds = dcmread(path)
    count, first, bits = ds.RedPaletteColorLookupTableDescriptor
    segmented = "RedPaletteColorLookupTableData" not in ds
    prefix = "Segmented" if segmented else ""
    index = np.arange(count or 65536)
    expected = apply_color_lut(index + first, ds)
    big = not ds.original_encoding[1]
    for channel, color in enumerate(("Red", "Green", "Blue")):
        data = ds[f"{prefix}{color}PaletteColorLookupTableData"]
        lut = table(
            (count, first, bits), data.value, segmented=segmented, big_endian=big, vr=data.VR
        )
        np.testing.assert_array_equal(lut.data, expected[:, channel])


def test_a_palette_of_a_file_against_pydicom() -> None:
    oracle(Path(get_testdata_file("examples_palette.dcm", download=False) or ""))


@pytest.mark.parametrize("name", ["hotiron", "pet20step", "fall", "spring", "summer", "winter"])
def test_well_known_palettes_against_pydicom(name: str) -> None:
    oracle(PALETTES / f"{name}.dcm")
