"""Frames of a Pixel Data element: every case of the standard, of real files, and of damage."""

from __future__ import annotations

import contextlib
import csv
import os
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended, fragment_frame, generate_frames

from dicomtorch.dicom.elements import Header, PixelDataElement, array, integers, texts
from dicomtorch.dicom.fragments import align, join
from dicomtorch.dicom.header import read_header
from dicomtorch.dicom.spans import locate_frames
from dicomtorch.dicom.tags import VRS
from dicomtorch.errors import EncapsulationError, HeaderError
from dicomtorch.model.frame import FrameSpan, FrameSpans
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS
from dicomtorch.model.syntaxes import (
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_XL,
    RLE_LOSSLESS,
)
from tests.support.tags import tag_of

PREFIX = b"header" * 7  # what lies before the element
PIXEL_DATA = tag_of("PixelData")

SOI, EOI = b"\xff\xd8\xff\xe0", b"\xff\xd9"
JPEG = SOI + b"pixels" + EOI


def item(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<II", 0xE000FFFE, len(value) if length is None else length) + value


END = struct.pack("<II", 0xE0DDFFFE, 0)


def element(*fragments: bytes, table: Sequence[int] = (), end: bytes = END) -> bytes:
    """The value of an encapsulated element."""
    first = struct.pack(f"<{len(table)}I", *table)
    return item(first) + b"".join(item(fragment) for fragment in fragments) + end


class Reader:
    """A file in memory that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.count = 0
        self.bytes = 0

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length >= 0
        self.count += 1
        self.bytes += length
        return self.data[offset : offset + length]


def locate(
    value: bytes, frames: int | None, syntax: str = JPEG_BASELINE, stated: int = -1, **options: Any
) -> tuple[FrameSpans, list[bytes]]:
    """The spans of an encapsulated element, and the encoded frames that they lead to."""
    data = PREFIX + value
    pixel = ImagePixel(syntax, 8, 8, pixel_data_vr="OB", bits_allocated=8, bits_stored=8)
    where = PixelDataElement(PIXEL_DATA, "OB", len(PREFIX), stated)
    spans = locate_frames(Reader(data), len(data), where, pixel, frames, **options)
    found = map(spans.span, range(len(spans)))
    return spans, [bytes(join(data[s.offset : s.offset + s.length], s)) for s in found]


# --- the cases, by their numbers --------------------------------------------------------------------------------------


def test_x1_frames_in_several_fragments():
    spans, frames = locate(element(JPEG[:7], JPEG[7:] + b"\0", JPEG), 2)
    assert spans.rule == "markers"
    assert spans.fragments.tolist() == [2, 1]
    assert frames == [JPEG + b"\0", JPEG]
    assert spans.found == 2


def test_x2_junk_after_the_end():
    junk = JPEG + bytes.fromhex("0000A28A28A2")
    spans, frames = locate(element(junk[:9], junk[9:], junk, junk), 3)
    assert spans.rule == "markers"
    assert frames == [junk] * 3
    with pytest.raises(EncapsulationError):  # the end marker must be within the last 16 bytes
        locate(element(JPEG + bytes(15), b"x", JPEG), 2)


def test_x3_fill_bytes():
    filled = b"\xff\xff" + SOI[1:] + b"pixels\xff" + EOI
    spans, frames = locate(element(filled[:8], filled[8:], filled), 2)
    assert spans.fragments.tolist() == [2, 1]
    assert frames == [filled, filled]


def test_x4_break_after_the_end_of_a_thumbnail():
    head = b"\xff\xd8\xff\xe1" + JPEG
    spans, frames = locate(element(head, b"\xff\xdb..." + EOI, JPEG), 2)
    assert spans.fragments.tolist() == [2, 1]
    assert frames[1] == JPEG
    assert locate(element(head, b"\xff\xdb..." + EOI), 1)[0].found == 1


def test_x5_break_before_the_start_of_a_thumbnail():
    spans, _ = locate(element(b"\xff\xd8\xff\xe1...", JPEG + b"\xff\xdb..." + EOI, JPEG), 2)
    assert spans.fragments.tolist() == [2, 1]


@pytest.mark.parametrize("end", [END, b"", b"\0\0\0\0"], ids=["delimiter", "none", "padding"])
@pytest.mark.parametrize("behind", [b"", b"\xfc\xff\xfc\xff padding"])
@pytest.mark.parametrize("table", [(), (0, 8 + len(JPEG))])
def test_items_under_a_stated_length(end, behind, table):
    value = element(JPEG, JPEG, table=table, end=end)
    spans, frames = locate(value + behind, 2, stated=len(value))
    assert frames == [JPEG, JPEG]
    (notice,) = spans.notices
    assert f"states {len(value)} bytes" in notice
    assert locate(value + behind, 1, stated=len(value))[1] == [JPEG]


def test_items_under_a_length_that_the_file_does_not_have():
    value = element(JPEG, JPEG, JPEG, end=b"")
    spans, frames = locate(value[:-4], 3, stated=len(value))
    assert frames == [JPEG, JPEG]
    assert "3 frames claimed, 2 found" in "; ".join(spans.notices)


def test_items_that_reach_beyond_the_stated_length_are_not_taken():
    value = element(JPEG, JPEG, JPEG)
    spans, frames = locate(value, 3, stated=len(value) - len(END) - 4)
    assert frames == [JPEG, JPEG]
    assert "3 frames claimed, 2 found" in "; ".join(spans.notices)
    with pytest.raises(EncapsulationError, match="needs undefined length"):
        locate(b"native pixels here", 1, stated=18)


@pytest.mark.parametrize("frames", [3, 4])
def test_a_first_fragment_without_a_start_marker_where_the_last_one_is_cut(frames):
    value = element(b"no marker " * 3, JPEG, end=b"")[:-4]
    spans, found = locate(value, frames)
    assert (len(spans), found) == (0, [])
    assert f"{frames:,} frames claimed, 0 found" in "; ".join(spans.notices)


def test_markers_of_jpeg_2000():
    raw = b"\xff\x4f\xff\x51stream" + EOI
    boxed = b"\0\0\0\x0cjP  \r\n\x87\n...." + raw
    spans, frames = locate(element(raw[:8], raw[8:], boxed), 2, JPEG_2000)
    assert spans.rule == "markers"
    assert frames == [raw, boxed]
    with pytest.raises(EncapsulationError):
        locate(element(raw[:8], raw[8:], boxed), 2, JPEG_BASELINE)


@pytest.mark.parametrize("syntax", [RLE_LOSSLESS, JPEG_XL, ENCAPSULATED_UNCOMPRESSED])
def test_x6_syntaxes_without_markers(syntax):
    with pytest.raises(EncapsulationError, match=r"NumberOfFrames is 2.*3 fragments"):
        locate(element(JPEG, JPEG, JPEG), 2, syntax)
    # One frame in several fragments is allowed all the same.
    spans, frames = locate(element(b"ab", b"cd"), 1, syntax)
    assert (spans.rule, frames) == ("single_frame", [b"abcd"])


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ([0, 10], "expected an item"),
        ([0, 4], "expected an item"),
        ([30, 0], "first entry is 30"),
        ([20, 40], "first entry is 20"),
        ([0, 0], "do not ascend"),
        ([0], "4 bytes for 2 frames"),
        ([0, 20, 40], "12 bytes for 2 frames"),
        ([0, 100_000], "beyond the element"),
        ([0, 40], "is no item"),  # the sequence delimiter
    ],
)
def test_x7_tables_that_are_rejected(table, reason):
    spans, frames = locate(element(JPEG, JPEG, table=table), 2)
    assert spans.rule == "one_fragment_per_frame"
    assert frames == [JPEG, JPEG]
    (notice,) = spans.notices
    assert "Basic Offset Table rejected" in notice
    assert reason in notice


def test_valid_table():
    data = element(JPEG[:5], JPEG[5:], JPEG, JPEG[:3], JPEG[3:], table=[0, 28, 48])
    spans, frames = locate(data, 3, RLE_LOSSLESS)
    assert spans.rule == "basic_offset_table"
    assert frames == [JPEG] * 3
    assert spans.fragments.tolist() == [2, -1, 2]
    assert not spans.notices


@pytest.mark.parametrize("frames", [None, 1])
def test_x8_one_frame_claimed_several_there(frames):
    spans, found = locate(element(JPEG, JPEG + b"\0\0", JPEG), frames)
    assert found == [JPEG]
    assert spans.found == 3
    assert "1 frame claimed, 3 found" in spans.notices[0]


def test_x9_more_images_than_frames():
    with pytest.raises(EncapsulationError, match=r"NumberOfFrames is 3.* 4 frames"):
        locate(element(JPEG, JPEG, JPEG, JPEG), 3)


def test_x10_extended_offset_table_with_odd_lengths():
    value = element(b"elevenbytes\0", b"twelve bytes")
    spans, frames = locate(
        value, 2, extended_offsets=[0, 20], extended_lengths=np.array([11, 12], np.uint64)
    )
    assert spans.rule == "extended_offset_table"
    first = len(PREFIX) + 8
    assert spans.offset.tolist() == [first, first + 20]
    assert spans.length.tolist() == [20, 20]
    assert spans.true_length.tolist() == [11, 12]
    assert frames == [b"elevenbytes", b"twelve bytes"]


@pytest.mark.parametrize(
    ("offsets", "lengths", "reason"),
    [
        ([0, 20], [13, 12], "beyond its frame"),
        ([0, 20], [11], "1 entries for 2 frames"),
        ([0, 2**63], [11, 12], "beyond the element"),
        ([], [], "0 entries"),
    ],
)
def test_extended_tables_that_are_rejected(offsets, lengths, reason):
    value = element(b"elevenbytes\0", b"twelve bytes", table=[0, 20])
    spans, _ = locate(
        value,
        2,
        extended_offsets=np.array(offsets, np.uint64),
        extended_lengths=np.array(lengths, np.uint64),
    )
    assert spans.rule == "basic_offset_table"
    assert reason in spans.notices[0]


def test_x11_no_sequence_delimiter():
    spans, frames = locate(element(JPEG, JPEG, end=b""), 2)
    assert frames == [JPEG, JPEG]
    assert "the file ends inside" in spans.notices[0]


@pytest.mark.parametrize("table", [(), (0, 20, 40)])
@pytest.mark.parametrize("syntax", [JPEG_BASELINE, RLE_LOSSLESS])
@pytest.mark.parametrize(
    ("missing", "count"), [(1, 2), (13, 2), (20, 2), (21, 1), (40, 1), (41, 0)]
)
def test_x11_truncated(table, syntax, missing, count):
    value = element(JPEG, JPEG, JPEG, table=table, end=b"")
    spans, frames = locate(value[: len(value) - missing], 3, syntax)
    assert frames == [JPEG] * count
    assert spans.found == count
    assert f"3 frames claimed, {count} found" in "; ".join(spans.notices)


def test_a_single_frame_that_is_cut_off_is_none():
    spans, frames = locate(element(JPEG)[:-10], 1)
    assert frames == []
    assert "1 frame claimed, 0 found" in spans.notices[-1]
    assert locate(element(end=b""), 1)[1] == []


SPAN = FrameSpan(100, 24, 2)
TILED = item(b"abcd") + item(b"efgh")


def test_join():
    assert join(TILED, SPAN) == b"abcdefgh"
    assert join(TILED, SPAN._replace(fragments=-1, true_length=7)) == b"abcdefg"
    one = join(item(b"abcd"), FrameSpan(0, 12, 1))
    assert isinstance(one, memoryview)
    assert bytes(one) == b"abcd"


def test_join_leaves_native_data_alone():
    data = bytes(range(10))
    view = join(data, FrameSpan(0, 10))
    assert isinstance(view, memoryview)
    assert view.obj is data


@pytest.mark.parametrize(
    ("data", "span"),
    [
        (TILED[:-1], SPAN),
        (TILED[:-1], SPAN._replace(length=23)),
        (TILED + b"\0", SPAN._replace(length=25)),
        (item(b"abcd") + END + item(b""), SPAN._replace(length=28)),
        (item(b"abcd", 3) + item(b"efgh"), SPAN),
        (item(b"abcd", 0xFFFFFFFF) + item(b"efgh"), SPAN),
        (b"\0" * 24, SPAN),
        (TILED, SPAN._replace(fragments=3)),
        (TILED, SPAN._replace(true_length=9)),
    ],
)
def test_x12_spans_that_are_not_tiled(data, span):
    with pytest.raises(EncapsulationError):
        join(data, span)


# --- contradictions and limits ----------------------------------------------------------------------------------------


def native_pixel(**kwargs: Any) -> ImagePixel:
    values = {"bits_allocated": 16, "bits_stored": 16, **kwargs}
    return ImagePixel(**{"transfer_syntax_uid": EXPLICIT_VR_LITTLE_ENDIAN, **values})


def native(
    length: int, frames: int | None, size: int | None = None, limits: Any = LIMITS, **kwargs: Any
) -> FrameSpans:
    where = PixelDataElement(PIXEL_DATA, "OW", 100, length)
    size = 100 + length if size is None else size
    return locate_frames(Reader(b""), size, where, native_pixel(**kwargs), frames, limits=limits)


def test_length_and_syntax_that_contradict_each_other():
    where = PixelDataElement(PIXEL_DATA, "OB", 0, 100)
    pixel = ImagePixel(JPEG_BASELINE, 8, 8)
    with pytest.raises(EncapsulationError, match=r"\(7FE0,0010\).*100 bytes.*undefined length"):
        locate_frames(Reader(b""), 100, where, pixel, 1)
    with pytest.raises(EncapsulationError, match=r"undefined length.*native"):
        native(-1, 1, rows=8, columns=8)


@pytest.mark.parametrize("value", [b"", b"abc", b"\xff\xd8" * 20, item(b"", 10_000)])
def test_no_basic_offset_table(value):
    with pytest.raises(EncapsulationError, match="Basic Offset Table"):
        locate(value, 1)


def test_damage_between_fragments():
    with pytest.raises(EncapsulationError, match=r"expected an item \(FFFE,E000\) at offset 70"):
        locate(element(JPEG)[:-8] + b"garbage!", 1)


def test_limits():
    few = replace(LIMITS, frames_per_file=2)
    with pytest.raises(EncapsulationError, match=r"Limits\.frames_per_file = 2"):
        locate(element(JPEG, JPEG, JPEG), 3, limits=few)
    with pytest.raises(EncapsulationError, match=r"Limits\.frames_per_file = 2"):
        native(6, 3, limits=few, rows=1, columns=1)
    with pytest.raises(EncapsulationError, match=r"Limits\.fragments"):
        locate(element(*[b""] * 5000), 1)


@pytest.mark.parametrize("frames", [0, -3])
def test_impossible_number_of_frames(frames):
    spans, found = locate(element(JPEG), frames)
    assert found == [JPEG]
    assert f"NumberOfFrames is {frames}" in spans.notices[0]


def test_empty_fragments():
    spans, frames = locate(element(JPEG, b"", JPEG, b""), 2)
    assert frames == [JPEG, JPEG]
    assert spans.fragments.tolist() == [2, 2]


# --- native -----------------------------------------------------------------------------------------------------------


def test_native_frames():
    spans = native(3 * 12, 3, rows=2, columns=3)
    assert spans.rule == "native"
    assert spans.offset.tolist() == [100, 112, 124]
    assert spans.length.tolist() == [12, 12, 12]
    assert spans.fragments.tolist() == [0, 0, 0]
    assert spans.found == 3
    assert not spans.notices


def test_one_bit_frames_share_bytes():
    spans = native(4, 3, rows=3, columns=3, bits_allocated=1, bits_stored=1)
    assert spans.offset.tolist() == [100, 101, 102]
    assert spans.bit_offset.tolist() == [0, 1, 2]
    assert spans.length.tolist() == [2, 2, 2]
    # B8 of the bit order: two frames in 55 FF 03 00
    bits = np.unpackbits(np.frombuffer(bytes.fromhex("55FF0300"), np.uint8), bitorder="little")
    assert bits[spans.bit_offset[1] + 8 :][:9].tolist() == [1] * 9


@pytest.mark.parametrize(
    ("pixel", "bytes_per_frame"),
    [
        ({"bits_allocated": 8, "rows": 3, "columns": 5}, 15),
        ({"bits_allocated": 12, "rows": 2, "columns": 2}, 6),
        ({"bits_allocated": 32, "pixel_data_vr": "OF", "rows": 2, "columns": 2}, 16),
        ({"bits_allocated": 64, "pixel_data_vr": "OD", "rows": 2, "columns": 2}, 32),
        ({"bits_allocated": 8, "samples_per_pixel": 3, "rows": 3, "columns": 3}, 27),
        (
            {
                "bits_allocated": 8,
                "samples_per_pixel": 3,
                "rows": 2,
                "columns": 4,
                "photometric_interpretation": "YBR_FULL_422",
            },
            16,
        ),
    ],
)
def test_native_sizes(pixel, bytes_per_frame):
    total = 3 * bytes_per_frame
    spans = native(total + total % 2, 3, **pixel)
    assert spans.offset.tolist() == [100 + i * bytes_per_frame for i in range(3)]
    assert spans.length.tolist() == [bytes_per_frame] * 3
    assert not spans.notices


def test_ybr_full_422_that_is_not_subsampled():
    pixel: Any = {"bits_allocated": 8, "samples_per_pixel": 3, "rows": 2, "columns": 4}
    spans = native(48, 2, photometric_interpretation="YBR_FULL_422", **pixel)
    assert spans.photometric_interpretation == "YBR_FULL"
    assert spans.length.tolist() == [24, 24]
    assert "YBR_FULL_422" in spans.notices[0]
    spans = native(32, 2, photometric_interpretation="YBR_FULL_422", **pixel)
    assert spans.photometric_interpretation == "YBR_FULL_422"


@pytest.mark.parametrize(
    ("length", "frames", "size", "count", "found", "notice"),
    [
        (24, 5, None, 2, 2, "5 frames claimed, 2 found"),
        (23, 2, None, 1, 1, "2 frames claimed, 1 found"),
        (24, 2, 123, 1, 1, "states 24 bytes, the file has 23"),
        (3 << 30, 1, 111, 0, 0, "1 frame claimed, 0 found"),
        (12, 1, 50, 0, 0, "1 frame claimed, 0 found"),
        (36, 1, None, 1, 3, "1 frame claimed, 3 found"),
        (36, None, None, 1, 3, "1 frame claimed, 3 found"),
        (20, 1, None, 1, 1, "8 bytes follow the last frame"),
    ],
)
def test_native_lengths_that_do_not_fit(length, frames, size, count, found, notice):
    spans = native(length, frames, size, rows=2, columns=3)
    assert len(spans) == count
    assert spans.found == found
    assert notice in "; ".join(spans.notices)


def test_native_size_of_zero():
    with pytest.raises(EncapsulationError, match=r"\(0028,0010\) Rows is 0"):
        native(10, 1, rows=0, columns=5)


def test_big_endian_words_of_8_bit_pixels_keep_their_padding():
    pixel: Any = {"transfer_syntax_uid": EXPLICIT_VR_BIG_ENDIAN, "rows": 3, "columns": 3}
    spans = native(10, 1, bits_allocated=8, bits_stored=8, **pixel)
    assert spans.length.tolist() == [10]
    spans = native(18, 2, bits_allocated=8, bits_stored=8, **pixel)
    assert (spans.offset - spans.offset[0]).tolist() == [0, 8]
    assert spans.bit_offset.tolist() == [0, 8]
    assert spans.length.tolist() == [10, 10]
    # Of the first pixel of a word its second byte is needed.
    assert native(17, 2, bits_allocated=8, bits_stored=8, **pixel).length.tolist() == [10]
    spans = native(18, 2, bits_allocated=8, bits_stored=8, pixel_data_vr="OB", **pixel)
    assert spans.length.tolist() == [9, 9]


@given(
    st.sampled_from([1, 8, 12]),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 4),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_frames_that_share_bytes_and_words(bits, shape, count, big, random):
    """PS3.5 8.1.1: pixels are packed from the lowest bit of each byte or word on, over the borders of frames."""
    cells = [random.getrandbits(bits) for _ in range(shape[0] * shape[1] * count)]
    unit = 2 if big else 1
    whole = sum(cell << bits * k for k, cell in enumerate(cells))
    size = -(-len(cells) * bits // 16) * 2
    data = whole.to_bytes(size, "little")
    if big:
        data = b"".join(data[k : k + 2][::-1] for k in range(0, size, 2))
    syntax = EXPLICIT_VR_BIG_ENDIAN if big else EXPLICIT_VR_LITTLE_ENDIAN
    pixel = ImagePixel(syntax, *shape, bits_allocated=bits, bits_stored=bits, high_bit=bits - 1)
    where = PixelDataElement(PIXEL_DATA, "OW", 0, size)
    spans = locate_frames(lambda offset, n: data[offset : offset + n], size, where, pixel, count)
    assert len(spans) == count
    each = shape[0] * shape[1]
    for frame in range(count):
        span = spans.span(frame)
        moved = align(data[span.offset :][: span.length], span.bit_offset, pixel)
        assert span.offset % unit == len(moved) % unit == 0
        octets = bytearray(moved)
        if big:
            octets[::2], octets[1::2] = octets[1::2], octets[::2]
        number = int.from_bytes(octets, "little")
        expected = cells[frame * each : (frame + 1) * each]
        assert [number >> bits * k & (1 << bits) - 1 for k in range(each)] == expected


# --- properties -------------------------------------------------------------------------------------------------------

CONTENT = st.binary(max_size=60).filter(lambda data: b"\xff" not in data)


@given(st.data(), st.lists(CONTENT, min_size=1, max_size=6), st.booleans())
def test_any_fragmenting_is_found_again(data, contents, has_table):
    frames = [SOI + content + EOI + b"\0" * (len(content) % 2) for content in contents]
    counts = [data.draw(st.integers(1, len(frame) // 2)) for frame in frames]
    parts = [list(fragment_frame(frame, n)) for frame, n in zip(frames, counts, strict=True)]
    table = np.cumsum([0] + [sum(len(part) + 8 for part in split) for split in parts])[:-1]
    fragments = [fragment for split in parts for fragment in split]
    value = element(*fragments, table=table.tolist() if has_table else ())
    spans, found = locate(value, len(frames))
    assert found == frames
    if spans.rule == "markers":
        assert spans.fragments.tolist() == [len(split) for split in parts]
    assert spans.found == len(frames)
    assert not spans.notices


@given(
    st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=6),
    st.sampled_from(["basic", "none", "extended"]),
)
def test_like_pydicom(frames, table):
    options: dict[str, Any] = {}
    if table == "extended":
        value, offsets, lengths = encapsulate_extended(frames)
        options = {
            "extended_offsets": np.frombuffer(offsets, "<u8"),
            "extended_lengths": np.frombuffer(lengths, "<u8"),
        }
    else:
        value = encapsulate(frames, has_bot=table == "basic")
    spans, found = locate(value + END, len(frames), RLE_LOSSLESS, **options)
    expected = list(generate_frames(value + END, number_of_frames=len(frames)))
    assert found == expected
    assert not spans.notices


@given(st.binary(max_size=80), st.integers(1, 4), st.sampled_from([JPEG_BASELINE, RLE_LOSSLESS]))
def test_damage_raises_encapsulation_errors_only(noise, frames, syntax):
    value = bytearray(element(JPEG, JPEG, JPEG, table=[0, 20, 40]))
    assume(len(noise) <= len(value))
    for where, byte in enumerate(noise):
        value[where * 7 % len(value)] ^= byte
    with contextlib.suppress(EncapsulationError):
        locate(bytes(value), frames, syntax)


def test_a_valid_table_spares_reading_the_items():
    frames = [bytes(100_000)] * 50
    value = encapsulate(frames, has_bot=True) + END
    where = PixelDataElement(PIXEL_DATA, "OB", 0, -1)
    reader = Reader(value)
    spans = locate_frames(reader, len(value), where, ImagePixel(RLE_LOSSLESS, 8, 8), 50)
    assert (len(spans), spans.rule) == (50, "basic_offset_table")
    assert reader.count < 10
    value = encapsulate(frames, has_bot=False) + END
    reader = Reader(value)
    spans = locate_frames(reader, len(value), where, ImagePixel(RLE_LOSSLESS, 8, 8), 50)
    assert len(spans) == 50
    assert reader.bytes < 100_000


# --- real files -------------------------------------------------------------------------------------------------------


def first_integer(header: Header, keyword: str, default: Any) -> Any:
    values = integers(header.elements.get(tag_of(keyword)), header.big_endian)
    return values[0] if values and values[0] is not None else default


def image_pixel(header: Header, vr: Any) -> ImagePixel:
    photometric = texts(header.elements.get(tag_of("PhotometricInterpretation")))
    return ImagePixel(
        header.transfer_syntax_uid,
        first_integer(header, "Rows", 0),
        first_integer(header, "Columns", 0),
        first_integer(header, "SamplesPerPixel", 1),
        photometric[0] if photometric else "",
        first_integer(header, "BitsAllocated", 8),
        pixel_data_vr=vr,
    )


# Their right answer is no frame: shorter than one, or without an image at all.
WITHOUT_FRAMES = {
    "3gb-bulk-data-truncated",
    "2026-05-26-oob-monochrome-65535.dcm",
    "MR_truncated.dcm",
    "meta_missing_tsyntax.dcm",
    "nested_priv_SQ.dcm",
}


def test_samples_like_their_manifest():
    root = os.environ.get("DICOMTORCH_SAMPLES")
    if not root:
        pytest.skip("DICOMTORCH_SAMPLES names no folder of samples")
    checked = 0
    with open(Path(root) / "manifest.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        data = (Path(root) / row["file"]).read_bytes()
        try:
            header = read_header(Reader(data), len(data), frozenset(VRS))
        except HeaderError:
            continue
        if header.pixel_data is None or Path(row["file"]).name in WITHOUT_FRAMES:
            continue
        data = header.inflated or data
        offsets, lengths = (header.elements.get(tag) for tag in (0x7FE00001, 0x7FE00002))
        spans = locate_frames(
            Reader(data),
            len(data),
            header.pixel_data,
            image_pixel(header, header.pixel_data.vr),
            first_integer(header, "NumberOfFrames", None),
            extended_offsets=array(offsets) if offsets else None,
            extended_lengths=array(lengths) if lengths else None,
        )
        claimed = int(row["frames"]) if row["frames"].isdigit() else 1
        assert len(spans) == claimed, row["file"]
        fragments = 0
        for frame in range(len(spans)):
            span = spans.span(frame)
            encoded = data[span.offset : span.offset + span.length]
            join(encoded, span)
            while span.fragments and encoded:
                encoded = encoded[8 + int.from_bytes(encoded[4:8], "little") :]
                fragments += 1
        if row["fragments"] or not spans.fragments.any():
            assert fragments == int(row["fragments"] or 0), row["file"]
        checked += 1
    assert checked > 200
