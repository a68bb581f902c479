"""Verifying: what is decoded, what fails, what differs between two decoders, and going on after an interruption."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import JPEGBaseline8Bit

from dicomtorch import scan
from dicomtorch.backends import imagecodecs
from dicomtorch.errors import DecodeError, OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.reports.verify import Verification
from dicomtorch.reports.verify_result import Result, format_result, to_json
from tests.support.phantoms import ct, ct_pixels, encapsulated, write, write_series


def verified(folder: Path, **options: object) -> tuple[Result, FrameIndex]:
    index, _ = scan(folder)
    return Verification(index, **options).run(), index  # type: ignore[arg-type]


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Three slices, five frames in one file, and one encoded frame of nothing."""
    write_series(tmp_path, 3)
    write(ct(np.stack([ct_pixels(k) for k in range(5)]), 7), tmp_path / "five.dcm")
    write(encapsulated(ct(ct_pixels(), 9), [b"\0" * 64]), tmp_path / "nothing.dcm")
    return tmp_path


def test_every_frame_is_decoded_and_the_failure_is_named(damaged: Path) -> None:
    result, index = verified(damaged)
    assert (result.frames, result.decoded, result.compared) == (9, 8, 0)
    (finding,) = result.findings
    assert (finding.kind, finding.frame, finding.backend) == ("failure", 0, "imagecodecs")
    assert index.files["path"][finding.file] == b"nothing.dcm"
    assert str(damaged) not in finding.text
    assert not result.ok
    text = format_result(result, index)
    assert text.startswith("8 of 9 frames decoded")
    assert "nothing.dcm, frame 0 (imagecodecs): " in text
    assert "nothing.dcm" not in format_result(result, index, redact_paths=True)
    assert "nothing.dcm" not in json.dumps(to_json(result, index, redact_paths=True))


def test_a_damaged_file_is_not_all_right(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, 1)
    assert verified(tmp_path)[0].ok
    (tmp_path / "cut.dcm").write_bytes(path.read_bytes()[:600])
    result, index = verified(tmp_path)
    assert (result.damaged, result.ok, result.findings) == (1, False, [])
    assert "1 damaged file without frames" in format_result(result, index)


def test_two_decoders_agree_on_what_is_whole(damaged: Path) -> None:
    result, _ = verified(damaged, backend="imagecodecs", against="pydicom")
    assert (result.decoded, result.compared, result.largest_accepted) == (8, 8, 0)
    assert {(one.kind, one.backend) for one in result.findings} == {
        ("failure", "imagecodecs"),
        ("failure", "pydicom"),
    }


def test_a_stream_that_both_decoders_refuse_is_one_line(damaged: Path) -> None:
    result, index = verified(damaged, backend="imagecodecs", against="pydicom")
    text = format_result(result, index)
    assert text.count("nothing.dcm") == 1
    assert "Failed (1 frame):" in text
    assert "nothing.dcm, frame 0 (imagecodecs, pydicom): " in text


def test_no_frames_are_nothing_to_verify(tmp_path: Path) -> None:
    result, _ = verified(tmp_path)
    assert (result.frames, result.ok) == (0, True)


def test_a_frame_that_another_backend_decodes_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path, 1)

    def refuse(*_: object) -> None:
        raise DecodeError("no")

    monkeypatch.setattr(type(imagecodecs.BACKEND), "decode", refuse)
    (finding,) = verified(tmp_path)[0].findings
    assert finding.text == "no; backend='pydicom' decodes it"


def one_off(monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    """Lets imagecodecs be wrong in one value."""
    backend = type(imagecodecs.BACKEND)
    decode = backend.decode

    def wrong(self: object, *arguments: object) -> np.ndarray[Any, Any]:
        values = np.array(decode(self, *arguments))  # type: ignore[arg-type]
        values.reshape(-1)[3] ^= by
        return values

    monkeypatch.setattr(backend, "decode", wrong)


def test_a_lossless_difference_of_one_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path, 1)
    one_off(monkeypatch, 1)
    result, _ = verified(tmp_path, backend="imagecodecs", against="pydicom", tolerance=9)
    (finding,) = result.findings
    assert finding.kind == "difference"
    assert finding.text == "1 of 768 values differ, by up to 1"
    assert finding.backend == "imagecodecs, pydicom"


def test_values_that_are_no_numbers_and_large_integers_are_compared(tmp_path: Path) -> None:
    write_series(tmp_path, 1)
    index, _ = scan(tmp_path)
    verification, pixel = Verification(index, against="pydicom"), index.image_pixel(0)

    def difference(one: Any, other: Any) -> str:
        return verification._difference(pixel, np.array(one), np.array(other), Result())

    assert difference([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0]) == ""
    assert difference([np.nan, np.inf], [0.0, np.inf]) == "1 of 2 values differ, by up to inf"
    assert difference([2**60], [2**60 + 1]) == "1 of 1 values differ, by up to 0"  # beyond float64
    assert difference([[1]], [1]) == "shapes (1, 1) and (1,)"


@pytest.mark.parametrize(("tolerance", "findings"), [(2, 0), (1, 1)])
def test_a_lossy_difference_has_a_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tolerance: int, findings: int
) -> None:
    codecs = pytest.importorskip("imagecodecs")
    pixels = np.full((16, 16), 64, np.uint8)
    jpeg = codecs.jpeg8_encode(pixels, level=95)
    write(encapsulated(ct(pixels), [jpeg], JPEGBaseline8Bit), tmp_path / "a.dcm")
    one_off(monkeypatch, 2)
    options = {"backend": "imagecodecs", "against": "pydicom", "isolation": None}
    result, _ = verified(tmp_path, tolerance=tolerance, **options)
    assert result.compared == 1
    assert len(result.findings) == findings
    assert result.largest_accepted == (0 if findings else 2)


def test_what_the_second_decoder_does_not_do_is_counted_and_no_failure(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs")
    jxl = codecs.jpegxl_encode(ct_pixels().astype(np.uint16) & 4095, lossless=True)
    dataset = ct(ct_pixels().astype(np.uint16) & 4095)
    write(encapsulated(dataset, [jxl], "1.2.840.10008.1.2.4.110"), tmp_path / "a.dcm")
    result, index = verified(tmp_path, against="pydicom")
    assert (result.decoded, result.compared, result.single, result.ok) == (1, 0, 1, True)
    assert "1 frame not compared" in format_result(result, index)
    result, index = verified(tmp_path, backend="pydicom")
    assert [one.kind for one in result.findings] == ["unsupported"]
    assert "backend='imagecodecs' can" in format_result(result, index)
    result, _ = verified(tmp_path, against="imagecodecs")  # "auto" takes it, too
    assert (result.compared, result.single) == (0, 1)


def test_options_without_a_meaning_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, 1)
    for options in ({"against": "auto"}, {"tolerance": -1}, {"backend": "gdcm"}):
        with pytest.raises(OptionError):
            verified(tmp_path, **options)


def test_frames_of_a_file_with_like_errors_are_one_line(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs")
    pixels = np.stack([np.full((16, 16), 64 + k, np.uint8) for k in range(7)])
    whole = [codecs.jpeg8_encode(frame) for frame in pixels]
    frames = [
        whole[0],
        *(codecs.jpeg8_encode(frame[: 4 + k]) for k, frame in enumerate(pixels[1:])),
    ]
    write(encapsulated(ct(pixels), frames, JPEGBaseline8Bit), tmp_path / "a.dcm")
    result, index = verified(tmp_path)
    assert len(result.findings) == 6
    assert "frames 1, 2, 3, 4, 5 and 1 more (imagecodecs)" in format_result(result, index)


# --- The state file ----------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each call of imagecodecs' decoder."""
    calls: list[int] = []
    backend = type(imagecodecs.BACKEND)
    decode = backend.decode

    def counted(self: object, *arguments: object) -> object:
        calls.append(1)
        return decode(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "decode", counted)
    return calls


def test_a_second_run_does_what_failed_and_what_changed(
    damaged: Path, tmp_path_factory: pytest.TempPathFactory, decoded: list[int]
) -> None:
    state = tmp_path_factory.mktemp("state") / "verify.state"
    options: dict[str, Any] = {"state": state, "isolation": None}
    first, _ = verified(damaged, **options)
    assert (first.resumed, len(decoded)) == (0, 9)
    again, _ = verified(damaged, **options)
    assert (again.resumed, len(decoded)) == (8, 10)
    assert again.findings == first.findings
    assert again.decoded == first.decoded
    write(ct(ct_pixels(3), 3, InstanceNumber=12345), damaged / "000.dcm")
    third, _ = verified(damaged, **options)
    assert (third.resumed, len(decoded)) == (7, 12)


def test_the_state_file_names_nothing_and_is_private(
    damaged: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = tmp_path_factory.mktemp("state") / "verify.state"
    verified(damaged, state=state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    text = state.read_text()
    for value in ("five", ".dcm", str(damaged), "patient-1", "1.2.826"):
        assert value not in text


def test_differences_are_remembered(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path, 2)
    one_off(monkeypatch, 1)
    options = {"against": "pydicom", "state": tmp_path_factory.mktemp("state") / "s"}
    first, _ = verified(tmp_path, **options)
    again, _ = verified(tmp_path, **options)
    assert len(again.findings) == 2
    assert again.findings == first.findings
    assert again.resumed == 2


def test_an_interrupted_run_goes_on(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, decoded: list[int]
) -> None:
    write_series(tmp_path, 40)
    state = tmp_path_factory.mktemp("state") / "verify.state"
    index, _ = scan(tmp_path)
    for _ in Verification(index, state=state, num_threads=1):
        break
    with state.open("ab") as file:
        file.write(b'{"key": "cut o')  # as a kill would leave it
    before = len(decoded)
    result = Verification(index, state=state, num_threads=1).run()
    assert 1 <= result.resumed < 40
    assert len(decoded) - before == 40 - result.resumed
    assert (result.frames, result.decoded) == (40, 40)
    assert Verification(index, state=state).run().resumed == 40


@pytest.mark.parametrize("content", [b"DICM not ours", b"{}\n", b'[1]\n{"a": 2}\n', b"\0\1\n"])
def test_another_file_is_no_state_file_and_stays_as_it_is(
    damaged: Path, tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    other = tmp_path_factory.mktemp("state") / "other"
    other.write_bytes(content)
    with pytest.raises(OptionError, match="is no state file of verify"):
        verified(damaged, state=other)
    assert other.read_bytes() == content


def test_a_state_of_other_settings_or_damaged_is_refused(
    damaged: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = tmp_path_factory.mktemp("state") / "verify.state"
    verified(damaged, state=state)
    with pytest.raises(OptionError, match="belongs to a run with backend 'auto', against ''"):
        verified(damaged, state=state, against="pydicom")
    lines = state.read_bytes().splitlines(keepends=True)
    state.write_bytes(lines[0] + b'{"key": 1}\n' + b"".join(lines[1:]))
    with pytest.raises(OptionError, match="damaged state file"):
        verified(damaged, state=state)
    os.truncate(state, 10)
    assert verified(damaged, state=state)[0].resumed == 0


# --- Real files --------------------------------------------------------------


def test_imagecodecs_and_pydicom_agree_on_the_bundled_files(bundled: Path) -> None:
    result, index = verified(bundled, backend="imagecodecs", against="pydicom")
    assert result.compared > 60
    assert [one for one in result.findings if one.kind == "difference"] == []
    failed = {
        index.files["path"][one.file] for one in result.findings if one.backend == "imagecodecs"
    }
    assert failed == {b"JPEG2000-embedded-sequence-delimiter.dcm"}


def test_a_copy_of_a_folder_is_other_files(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_series(tmp_path / "one", 2)
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # with times
    state = tmp_path_factory.mktemp("state") / "verify.state"
    assert verified(tmp_path / "one", state=state)[0].resumed == 0
    assert verified(tmp_path / "two", state=state)[0].resumed == 0
    assert verified(tmp_path / "one", state=state)[0].resumed == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_a_state_file_is_for_one_process_at_a_time(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_series(tmp_path, 3)
    state = tmp_path_factory.mktemp("state") / "verify.state"
    index, _ = scan(tmp_path)
    first = iter(Verification(index, state=state, num_threads=1))
    next(first)
    with pytest.raises(OptionError, match="is in use by another verify"):
        Verification(index, state=state).run()
    for _ in first:
        pass
    assert Verification(index, state=state).run().resumed == 3
