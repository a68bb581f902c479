"""What decodes the frames of an index, and what is said where nothing does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicomtorch import DicomFrames, scan
from dicomtorch.backends import capability, imagecodecs, pydicom, simpleitk
from dicomtorch.backends.base import BACKENDS, get_backend
from dicomtorch.backends.isolated import can_isolate
from dicomtorch.errors import OptionError, UnsupportedError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000_LOSSLESS,
    JPEG_LS_FAMILY,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
)
from tests.support import streams_by_encoders as encoders
from tests.support.phantoms import ct, ct_pixels, encapsulated, write
from tests.support.requirements import require

GRAY = ImagePixel(EXPLICIT_VR_LITTLE_ENDIAN, 512, 512)
VIDEO = replace(GRAY, transfer_syntax_uid="1.2.840.10008.1.2.4.102")


def test_kinds_are_counted_whatever_their_size_most_frequent_first() -> None:
    pytest.importorskip("imagecodecs")
    jls = replace(GRAY, transfer_syntax_uid=JPEG_LS_LOSSLESS)
    rows = capability.table([(GRAY, 2), (jls, 5), (replace(GRAY, rows=256), 4)])
    assert [(row.pixel.transfer_syntax_uid, row.frames) for row in rows] == [
        (EXPLICIT_VR_LITTLE_ENDIAN, 6),
        (JPEG_LS_LOSSLESS, 5),
    ]
    assert rows[0].backends[0] == "imagecodecs"
    assert all(row.advice == "" for row in rows)


def test_every_syntax_that_is_decoded_has_a_name() -> None:
    kinds = [(replace(GRAY, transfer_syntax_uid=syntax), 1) for syntax in imagecodecs._CODECS]
    rows = capability.table(kinds)
    assert not any(row.syntax_name.startswith(("1.2", "(")) for row in rows)


def test_advice_says_why_nothing_helps() -> None:
    broken = replace(GRAY, bits_stored=12, high_bit=10)
    unknown = replace(GRAY, transfer_syntax_uid="1.2.3.4")
    video, header, nothing = capability.table([(VIDEO, 9), (broken, 8), (unknown, 7)])
    assert "video" in video.advice
    assert "(0028,0102) HighBit 10" in header.advice
    assert nothing.advice == "no backend decodes this"
    assert nothing.syntax_name == "(not a value of the standard: VR UI, length 7)"


def test_advice_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (imagecodecs, pydicom, simpleitk):
        monkeypatch.setattr(module, "_installed", lambda: False)
    (row,) = capability.table([(replace(GRAY, transfer_syntax_uid=RLE_LOSSLESS), 1)])
    assert row.backends == ()
    assert "pip install imagecodecs" in row.advice
    assert "pip install SimpleITK" in row.advice
    assert "pip install pydicom" in row.advice


def test_advice_names_the_plug_in_and_the_codec_that_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("imagecodecs")
    monkeypatch.setattr(pydicom, "_available", lambda _: ())
    monkeypatch.setattr(imagecodecs, "_missing_codecs", lambda _: ("JPEGLS",))
    jls = replace(GRAY, transfer_syntax_uid=JPEG_LS_LOSSLESS)
    (row,) = capability.table([(jls, 1)], backends=["imagecodecs", "pydicom"])
    assert "built with JPEGLS" in row.advice
    assert "pip install pyjpegls" in row.advice


def test_an_index_and_what_a_dataset_says_that_lacks_a_decoder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jls = encapsulated(ct(ct_pixels(1), 1), [b"\xff\xd8\xff\xd9"], JPEG_LS_LOSSLESS)
    write(jls, tmp_path / "jls.dcm")
    write(ct(ct_pixels(), 0), tmp_path / "native.dcm")
    index, _ = scan(tmp_path)
    assert {(row.syntax_name, row.frames) for row in capability.table(index.image_pixels())} == {
        ("JPEG-LS Lossless", 1),
        ("Explicit VR Little Endian", 1),
    }
    monkeypatch.setattr(
        imagecodecs, "_missing_codecs", lambda syntax: ("JPEGLS",) * (syntax in JPEG_LS_FAMILY)
    )
    monkeypatch.setattr(simpleitk, "_installed", lambda: False)
    monkeypatch.setattr(pydicom, "_available", lambda _: ())
    what = r"1 of 2 frames .*JPEG-LS Lossless: .*built with JPEGLS.* or pip install pyjpegls"
    with pytest.raises(UnsupportedError, match=what):
        DicomFrames(index)
    with pytest.warns(UserWarning, match=what):
        assert len(DicomFrames(index, on_error="replace")) == 1


def test_only_the_backends_asked_for() -> None:
    with pytest.raises(OptionError, match="known"):
        capability.table([(GRAY, 1)], backends=["gdcm"])
    (row,) = capability.table([(GRAY, 1)], backends=[imagecodecs.BACKEND])
    assert set(row.backends) <= {"imagecodecs"}


def test_other_backends_that_decode_a_refused_frame() -> None:
    require("imagecodecs")
    image = encoders.picture((24, 40), 8)
    data, pixel = encoders.encode(image, JPEG_2000_LOSSLESS, 8)
    for name in ("imagecodecs", "pydicom"):
        others = [other for other in BACKENDS if other != name]
        able = [
            other
            for other in others
            if get_backend(other).supports(pixel)
            and (can_isolate() or not getattr(get_backend(other), "can_abort", False))
        ]
        assert capability.others_that_decode(data, pixel, name) == tuple(able)
    assert capability.others_that_decode(data[:-100], pixel, "imagecodecs") == ()
