"""Parts of multipart answers: what was sent, and everything else as a typed error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomtorch.errors import StorageError
from dicomtorch.storage.multipart import parameter, split

# As Orthanc 1.10 with its DICOMweb plug-in 1.11 sent it, but for the address and the names.
RECORDED_TYPE = (
    'multipart/related; type="application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"; '
    "boundary=d0a2946a-951c-4d14-b4e7-1ee9ae5dc4b3-aa5de215"
)
RECORDED = (
    b"--d0a2946a-951c-4d14-b4e7-1ee9ae5dc4b3-aa5de215\r\n"
    b"Content-Location: http://127.0.0.1:18042/dicom-web/studies/1/series/2/instances/3/frames/1\r\n"
    b"Content-Type: application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1\r\n"
    b"Content-Length: 12\r\n"
    b"MIME-Version: 1.0\r\n\r\n"
    b"\x00\x01\r\n--d0\x00\x00\x00\x00\r\n"
    b"--d0a2946a-951c-4d14-b4e7-1ee9ae5dc4b3-aa5de215--\r\n"
)


def test_an_answer_of_a_real_server() -> None:
    (part,) = split(RECORDED_TYPE, RECORDED)
    assert bytes(part.data) == b"\x00\x01\r\n--d0\x00\x00\x00\x00"
    assert parameter(part.content_type, "transfer-syntax") == "1.2.840.10008.1.2.1"


def joined(parts: list[bytes], boundary: bytes, lengths: bool, preamble: bytes = b"") -> bytes:
    body = preamble
    for number, data in enumerate(parts):
        body += b"\r\n--" + boundary + b"\r\ncontent-type: image/x; transfer-syntax=1.2.%d" % number
        body += b"\r\nCONTENT-LENGTH: %d" % len(data) if lengths else b""
        body += b"\r\n\r\n" + data
    body += b"\r\n--" + boundary + b"--\r\n"
    return body if preamble else body[2:]


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=60), min_size=1, max_size=5),
    st.text("abc-_.+ ", min_size=1, max_size=20).filter(lambda text: text == text.strip()),
    st.booleans(),
    st.sampled_from([b"", b"for old readers"]),
)
def test_parts_come_back(parts: list[bytes], boundary: str, lengths: bool, preamble: bytes) -> None:
    mark = boundary.encode()
    if not lengths:
        parts = [part.replace(b"\r\n--" + mark, b"") for part in parts]
    found = split(
        f'Multipart/Related; boundary="{boundary}"', joined(parts, mark, lengths, preamble)
    )
    if lengths or not any(b"\r\n--" + mark in part + b"\r\n--" for part in parts):
        assert [bytes(part.data) for part in found] == parts
    assert [parameter(part.content_type, "transfer-syntax") for part in found] == [
        f"1.2.{number}" for number in range(len(found))
    ]


@settings(deadline=None)
@given(st.integers(0, len(RECORDED) - 1), st.integers(0, 255))
def test_damage_is_a_typed_error(at: int, value: int) -> None:
    for body in (RECORDED[:at], RECORDED[:at] + bytes([value]) + RECORDED[at + 1 :]):
        try:
            parts = split(RECORDED_TYPE, body)
        except StorageError:
            continue
        assert len(parts) <= 1
        assert all(len(part.data) <= len(body) for part in parts)


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("application/json", b"{}", "answered with application/json and not multipart"),
        ("", b"", "answered with no media type"),
        ("multipart/related", RECORDED, "not multipart/related"),
        ("x\r\n: y", b"", "answered with something else"),
        (RECORDED_TYPE, b"", "no boundary"),
        (RECORDED_TYPE, RECORDED[:-10], "its length is wrong|cut off"),
        (RECORDED_TYPE, RECORDED.replace(b": 12", b": 13"), "its length is wrong"),
        (RECORDED_TYPE, RECORDED.replace(b": 12", b": -1"), "length is no number"),
        (RECORDED_TYPE, RECORDED[:120], "without an end of its headers"),
    ],
)  # fmt: skip
def test_what_is_refused(content_type: str, body: bytes, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        split(content_type, body)


def test_parameters() -> None:
    assert parameter('a/b; X="q\\"; y=1"; z=2', "x") == 'q"; y=1'
    assert parameter('a/b; X="q\\"; y=1"; z=2', "z") == "2"
    assert parameter("a/b;charset = utf-8", "charset") == "utf-8"
    assert parameter("a/b", "z") == ""
