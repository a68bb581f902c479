"""What ends or blocks a decoder costs one frame: it is a `DecodeError`, and the next frame is decoded."""

from __future__ import annotations

import ctypes
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch import DicomFrames, ImagePixel, Limits, scan
from dicomtorch.backends import base, isolated
from dicomtorch.backends.base import decoding, get_backend
from dicomtorch.backends.child import _Decoder
from dicomtorch.backends.children import children
from dicomtorch.errors import DecodeError, OptionError, UnsupportedError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, JPEG_2000
from dicomtorch.reader.choice import ChosenBackends
from dicomtorch.reader.reader import FrameReader
from tests.support import misbehaving
from tests.support.misbehaving import Misbehaving
from tests.support.phantoms import ct, ct_pixels, encapsulated, write
from tests.support.requirements import require

PIXEL = ImagePixel(JPEG_2000, 6, 5, bits_stored=12, high_bit=11)
BACKEND = isolated.isolated(Misbehaving(), PIXEL, always=True)


@contextmanager
def limited(**limits: Any) -> Iterator[None]:
    decoding.limits = Limits(**limits)
    try:
        yield
    finally:
        decoding.limits = Limits()


def frame(what: int, value: int = 7) -> bytes:
    return bytes((what, value))


def still_decodes() -> None:
    np.testing.assert_array_equal(
        BACKEND.decode(frame(misbehaving.FINE, 9), PIXEL), np.full((6, 5), 9, np.uint16)
    )


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (misbehaving.CRASH, "misbehaving ended its process.*SIGSEGV"),
        (misbehaving.ABORT, "misbehaving ended its process.*SIGABRT"),
        (misbehaving.LEAVE, "misbehaving ended its process.*exit code 3"),
        (misbehaving.PANIC, "PanicError: index out of bounds"),
        (misbehaving.BROKEN, "^marker FFC4: counts 300, expected at most 256"),
        (misbehaving.WIDE, "for a frame of"),
    ],
)
def test_whatever_a_decoder_does_is_an_error_of_its_frame(what: int, said: str) -> None:
    for _ in range(2):
        with pytest.raises(DecodeError, match=said):
            BACKEND.decode(frame(what), PIXEL)
        still_decodes()


def test_a_frame_that_hangs_ends_after_its_limit() -> None:
    still_decodes()
    began = time.monotonic()
    with (
        limited(decode_seconds=0.2),
        pytest.raises(DecodeError, match=r"0\.2 s \(Limits\.decode_seconds\)"),
    ):
        BACKEND.decode(frame(misbehaving.HANG), PIXEL)
    assert 0.2 <= time.monotonic() - began < 60  # it sleeps for 600
    still_decodes()


def test_a_frame_that_wants_too_much_memory() -> None:
    with (
        limited(decode_memory_bytes=64 << 20),
        pytest.raises(DecodeError, match=r"67108864 bytes of memory \(Limits\.decode_memory_bytes"),
    ):
        BACKEND.decode(frame(misbehaving.HUNGRY), PIXEL)
    still_decodes()


def test_the_array_is_that_of_the_backend() -> None:
    signed = BACKEND.decode(frame(misbehaving.SIGNED, 3), PIXEL)
    assert signed.dtype == np.int16
    assert (signed.shape, int(signed.max())) == ((6, 5), 3)
    out = np.zeros(PIXEL.shape, np.uint16)
    assert BACKEND.decode(frame(misbehaving.FINE, 5), PIXEL, out) is out
    assert (out == 5).all()
    first = BACKEND.decode(frame(misbehaving.FINE, 1), PIXEL)
    BACKEND.decode(frame(misbehaving.FINE, 2), PIXEL)
    assert (first == 1).all()


def test_larger_frames_get_larger_memory() -> None:
    for side in (3, 300, 30, 900):
        pixel = replace(PIXEL, rows=side, columns=side)
        data = frame(misbehaving.FINE, side % 251) + b"\0" * (side * side)
        assert (BACKEND.decode(data, pixel) == side % 251).all()


def test_code_streams_longer_than_the_one_before() -> None:
    for length in (3, 5000, 4, 200_000, 100_000):
        data = frame(misbehaving.LENGTH) + b"\0" * length
        assert (BACKEND.decode(data, PIXEL) == (length + 2) % 251).all()


def test_a_child_that_comes_back_when_all_were_closed_is_not_asked_again() -> None:
    still_decodes()
    taken = children.take(b"")
    children.close()
    children.give_back(taken)
    still_decodes()
    assert taken not in children._all


def test_memory_that_cannot_be_shared_ends_the_child() -> None:
    decoder = _Decoder()
    question = [pickle.dumps(Misbehaving()), pickle.dumps((PIXEL, Limits(), 0))]
    read, write = os.pipe()  # which no memory can be
    try:
        with pytest.raises(OSError, match="Errno"):
            decoder.prepare(question, 64, 1 << 20, read)
    finally:
        os.close(write)
        os.close(read)
        decoder._limit.lift()
        decoding.notices = None


def test_a_copy_of_a_backend_decodes() -> None:
    still_decodes()  # which remembers what it asked
    copy = pickle.loads(pickle.dumps(BACKEND))
    assert (copy.decode(frame(misbehaving.FINE, 4), PIXEL) == 4).all()


def test_a_child_that_is_asked_other_things_in_turn_answers_each() -> None:
    other = isolated.isolated(Misbehaving(), PIXEL, always=True)
    wide = replace(PIXEL, rows=2, columns=9)
    for k in range(3):
        with limited(decode_memory_bytes=64 << 20):  # other limits are another question
            assert (BACKEND.decode(frame(misbehaving.FINE, 8), PIXEL) == 8).all()
        for backend, pixel in ((BACKEND, PIXEL), (BACKEND, wide), (other, wide), (other, wide)):
            found = backend.decode(frame(misbehaving.FINE, k + 1), pixel)
            assert (found.shape, set(found.ravel().tolist())) == (pixel.shape, {k + 1})


def test_a_backend_that_cannot_be_loaded_is_not_taken_for_the_one_before() -> None:
    unloadable = isolated.isolated(misbehaving.Unloadable(), PIXEL, always=True)
    for _ in range(3):
        still_decodes()
        for _ in range(2):
            with pytest.raises(DecodeError, match="its library is gone"):
                unloadable.decode(frame(misbehaving.FINE), PIXEL)
    wide = replace(PIXEL, rows=2, columns=9)
    with pytest.raises(DecodeError, match="its library is gone"):
        unloadable.decode(frame(misbehaving.FINE), wide)
    assert BACKEND.decode(frame(misbehaving.FINE), wide).shape == (2, 9)


def test_a_backend_that_cannot_be_prepared_ends_nothing() -> None:
    still_decodes()
    with children._lock:
        idle, children._idle = children._idle, []
    for child in idle:
        children.end(child)
    process = children._control
    children.give_back(children.take(pickle.dumps(misbehaving.Unloadable())))
    still_decodes()
    assert children._control is process


def test_what_loading_a_backend_takes_is_not_that_of_a_frame() -> None:
    children.close()
    with limited(decode_memory_bytes=32 << 20):
        still_decodes()
        needy = isolated.isolated(misbehaving.Needy(), PIXEL, always=True)
        assert (needy.decode(frame(misbehaving.FINE), PIXEL) == 7).all()


def test_memory_that_frames_before_have_freed_is_not_allowed_once_more() -> None:
    if not hasattr(ctypes.CDLL(None), "mallinfo"):
        pytest.skip("only glibc keeps what was freed")
    for first in (misbehaving.FINE, misbehaving.FREE):
        children.close()
        with limited(decode_memory_bytes=96 << 20):
            BACKEND.decode(frame(first), PIXEL)
            with pytest.raises(DecodeError, match=r"Limits\.decode_memory_bytes"):
                BACKEND.decode(frame(misbehaving.ALLOCATE, 129), PIXEL)
            BACKEND.decode(frame(first), PIXEL)
            assert (BACKEND.decode(frame(misbehaving.ALLOCATE, 63), PIXEL) == 63).all()


def test_memory_is_limited_for_every_frame_and_freed_by_every_error() -> None:
    still_decodes()
    with limited(decode_memory_bytes=64 << 20):
        for _ in range(3):
            still_decodes()
            with pytest.raises(DecodeError, match=r"Limits\.decode_memory_bytes"):
                BACKEND.decode(frame(misbehaving.HUNGRY), PIXEL)
            side = 3000  # shares more memory than the limit, which is on what decoding takes
            large = replace(PIXEL, rows=side, columns=side)
            data = frame(misbehaving.FINE, 3) + bytes(80 << 20)
            assert (BACKEND.decode(data, large) == 3).all()


def test_notices_are_said_here(caplog: pytest.LogCaptureFixture) -> None:
    base.say_once.cache_clear()
    BACKEND.decode(frame(misbehaving.SPEAK), PIXEL)
    assert "a table is longer than it should be" in caplog.text


def test_threads_have_children_of_their_own() -> None:
    barrier = threading.Barrier(4)

    def work(value: int) -> bool:
        barrier.wait()
        for k in range(20):
            what = misbehaving.CRASH if k % 7 == value else misbehaving.FINE
            try:
                if (BACKEND.decode(frame(what, value), PIXEL) != value).any():
                    return False
            except DecodeError:
                if what == misbehaving.FINE:
                    return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_a_forked_process_has_children_of_its_own() -> None:
    still_decodes()
    process = os.fork()
    if not process:
        try:
            still_decodes()
            children.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    still_decodes()


def test_no_process_outlives_its_use() -> None:
    still_decodes()
    with children._lock:
        found = [child.process for child in children._all]
    assert found
    children.close()
    for process in found:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    still_decodes()


def test_an_interrupt_leaves_no_answer_to_the_wrong_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    still_decodes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dicomtorch.backends.children.receive", interrupted)
        with pytest.raises((KeyboardInterrupt, DecodeError)):
            BACKEND.decode(frame(misbehaving.FINE, 1), PIXEL)
    still_decodes()


def test_backends_known_to_abort_are_isolated_by_force() -> None:
    require("simpleitk")
    native = replace(PIXEL, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN)
    chosen = ChosenBackends("simpleitk", [PIXEL, native])
    assert isinstance(chosen.of(PIXEL), isolated.IsolatedBackend)
    assert not isinstance(chosen.of(native), isolated.IsolatedBackend)
    others = ChosenBackends("imagecodecs", [PIXEL])
    assert not isinstance(others.of(PIXEL), isolated.IsolatedBackend)
    asked = ChosenBackends("imagecodecs", [PIXEL, native], "process")
    assert isinstance(asked.of(PIXEL), isolated.IsolatedBackend)
    assert asked.of(native) is get_backend("imagecodecs")


def test_a_backend_of_a_user_is_isolated_whole() -> None:
    native = replace(PIXEL, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN)
    chosen = ChosenBackends(Misbehaving(), [native], "process")
    assert isinstance(chosen.of(native), isolated.IsolatedBackend)
    assert (chosen.of(native).decode(frame(misbehaving.FINE, 4), native) == 4).all()
    again = pickle.loads(pickle.dumps(chosen.of(native)))
    assert (again.decode(frame(misbehaving.FINE, 4), native) == 4).all()


def test_what_cannot_be_sent_is_said_at_once() -> None:
    class Local(Misbehaving):
        pass

    with pytest.raises(OptionError, match="cannot be sent to another process"):
        ChosenBackends(Local(), [PIXEL], "process")
    with pytest.raises(OptionError, match='isolation must be None or "process"'):
        ChosenBackends("auto", [PIXEL], "thread")  # type: ignore[arg-type]


def test_where_there_are_no_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "can_isolate", lambda: False)
    with pytest.raises(OptionError, match="Linux or macOS"):
        isolated.isolated(Misbehaving(), PIXEL, always=True)
    assert not isinstance(
        isolated.isolated(get_backend("simpleitk"), PIXEL, always=False), isolated.IsolatedBackend
    )


@pytest.fixture
def archive(tmp_path: Path) -> FrameIndex:
    """Frames that are fine, crash, hang, and are fine."""
    ways = (misbehaving.FINE, misbehaving.CRASH, misbehaving.HANG, misbehaving.FINE)
    for k, what in enumerate(ways):
        dataset = encapsulated(ct(ct_pixels(k), k), [frame(what, k + 1)])
        write(dataset, tmp_path / f"{k}.dcm")
    return scan(tmp_path, limits=Limits(decode_seconds=0.3))[0]


def test_a_dataset_goes_on(archive: FrameIndex) -> None:
    frames = DicomFrames(archive, backend=Misbehaving(), values="stored", isolation="process")
    assert int(frames[0][0].max()) == 1
    with pytest.raises(DecodeError, match=r"1\.dcm, frame 0 .*SIGSEGV"):
        frames[1]
    with pytest.raises(DecodeError, match=r"2\.dcm, frame 0 .*Limits\.decode_seconds"):
        frames[2]
    assert int(frames[3][0].max()) == 4


def test_real_decoders_give_the_same_values(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs")
    pixels = ct_pixels()
    for k, level in enumerate((0, 40)):
        stream = codecs.jpeg2k_encode(pixels, level=level, codecformat="j2k")
        write(encapsulated(ct(pixels, k), [stream]), tmp_path / f"{k}.dcm")
    index = scan(tmp_path)[0]
    for backend in ("imagecodecs", "pydicom", "simpleitk"):
        try:
            plain, apart = (
                FrameReader(index, backend),
                FrameReader(index, backend, None, None, "process"),
            )
            expected = [plain.read_stored(i) for i in range(2)]
        except UnsupportedError:
            continue
        for i in range(2):
            found = apart.read_stored(i)
            assert found.dtype == expected[i].dtype
            np.testing.assert_array_equal(found, expected[i])


def test_frames_at_less_than_their_resolution(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs")
    pixels = ct_pixels(0, 256, 256)
    stream = codecs.htj2k_encode(pixels) if codecs.HTJ2K.available else b""
    if not stream:
        pytest.skip("imagecodecs has no HTJ2K")
    write(encapsulated(ct(pixels), [stream], "1.2.840.10008.1.2.4.201"), tmp_path / "a.dcm")
    options: dict[str, Any] = {"size": (60, 60), "decode": "reduced"}
    plain = DicomFrames(tmp_path, **options)
    apart = DicomFrames(tmp_path, isolation="process", **options)
    assert plain[0][1]["resized"][5] > 1
    assert plain[0][0].equal(apart[0][0])
