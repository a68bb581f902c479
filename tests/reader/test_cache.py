"""Decoded frames on disk: always equal to decoding again, whatever happens to the folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import hypothesis.extra.numpy as arrays
import imagecodecs
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameLoader
from dicomtorch.backends.imagecodecs import BACKEND
from dicomtorch.errors import OptionError, StaleIndexError
from dicomtorch.index.locks import FileLock
from dicomtorch.model.image import ImagePixel
from dicomtorch.reader import cache as cache_module
from dicomtorch.reader.cache import FrameCache, frame_key
from dicomtorch.storage.base import Scratch
from tests.support.hammer_cache import hammer, values
from tests.support.phantoms import ct, ct_pixels, encapsulated, write

POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
KEY = bytes(range(32))


def pixel_of(stored):
    samples = stored.shape[2] if stored.ndim == 3 else 1
    return ImagePixel(JPEG2000Lossless, *stored.shape[:2], samples)


def read(cache, key, stored, out=None):
    return cache.read(key, pixel_of(stored), Scratch(), out)


def entries(cache):
    return sorted(cache.folder.glob("??/*.frame"))


def entry_bytes(cache, stored, key=b"\xff" * 32):
    cache.write(key, stored)
    (path,) = entries(cache)
    size = path.stat().st_size
    path.unlink()
    (cache.folder / "used").unlink()
    return size


def write_tree(folder, count=6, frames=1):
    """JPEG 2000 files; frame f of file k has `ct_pixels(10 * k + f)`."""
    for k in range(count):
        pixels = np.stack([ct_pixels(10 * k + f) for f in range(frames)])
        streams = [imagecodecs.jpeg2k_encode(one, level=0, codecformat="j2k") for one in pixels]
        write(
            encapsulated(ct(pixels if frames > 1 else pixels[0], k), streams), folder / f"{k}.dcm"
        )
    return folder


class Counting:
    """Decodes as imagecodecs does, and counts."""

    name = "counting"

    def __init__(self):
        self.decoded = 0

    def supports(self, pixel):
        return BACKEND.supports(pixel)

    def decode(self, data, pixel, out=None):
        self.decoded += 1
        return BACKEND.decode(data, pixel, out)


@pytest.fixture
def cache(tmp_path):
    return FrameCache(tmp_path / "cache")


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree")


def numbers(draw_from):
    shapes = st.one_of(
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([3, 4])),
    )
    return arrays.arrays(draw_from, shapes)


@given(
    stored=st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]).flatmap(
        numbers
    ),
    smooth=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_what_is_read_is_what_was_written(tmp_path_factory, stored, smooth):
    cache = FrameCache(tmp_path_factory.mktemp("property"))
    if smooth:  # shrinks, so that it is packed
        stored = np.repeat(np.nan_to_num(stored), 50, 0)
    cache.write(KEY, stored)
    found = read(cache, KEY, stored)
    assert found is not None
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found, stored)


@pytest.mark.parametrize("columns", [1, 50, 100, 333, 512])
def test_frames_of_zeros_come_back(cache, columns):
    stored = np.zeros((7, columns), np.uint16)
    cache.write(KEY, stored)
    np.testing.assert_array_equal(read(cache, KEY, stored), stored)


def smooth():
    return np.repeat(np.arange(24, dtype=np.int16), 32).reshape(24, 32)


def test_is_written_into_the_array_given_if_that_fits(cache):
    stored = smooth()
    cache.write(KEY, stored)
    out = np.empty_like(stored)
    assert read(cache, KEY, stored, out) is out
    np.testing.assert_array_equal(out, stored)
    for other in (
        np.empty((9, 9), "i2"),
        np.empty(stored.shape, "u2"),
        np.empty((24, 64), "i2")[:, ::2],
    ):
        found = read(cache, KEY, stored, other)
        assert found is not other
        np.testing.assert_array_equal(found, stored)


def test_what_does_not_shrink_is_not_copied(cache):
    noise = np.random.default_rng(0).integers(0, 1 << 16, (64, 64), np.uint16)
    cache.write(KEY, noise)
    scratch, out = Scratch(), np.empty_like(noise)
    found = cache.read(KEY, pixel_of(noise), scratch, out)
    assert np.shares_memory(found, np.frombuffer(scratch.view(noise.nbytes), np.uint8))
    assert found.ctypes.data % 8 == 0
    np.testing.assert_array_equal(found, noise)


# What is kept


@pytest.mark.parametrize("num_workers", [0, 2])
def test_datasets_give_the_same_with_and_without(tree, tmp_path, num_workers):
    expected, _ = DicomFrames(tree, values="modality")[:]
    frames = DicomFrames(tree, values="modality", cache=tmp_path / "cache")
    for _ in range(3):
        for images, meta in DataLoader(frames, batch_size=4, shuffle=True, num_workers=num_workers):
            torch.testing.assert_close(images, expected[meta["index"]], rtol=0, atol=0)
    assert len(entries(frames._reader.fetcher.cache)) == len(frames)


def test_the_second_time_nothing_is_decoded(tree, tmp_path):
    backend = Counting()
    frames = DicomFrames(tree, backend=backend, cache=tmp_path / "cache")
    first = [frames[i][0] for i in range(len(frames))]
    assert backend.decoded == 6
    for other in (frames, DicomFrames(tree, backend=backend, cache=tmp_path / "cache")):
        for i in range(6):
            torch.testing.assert_close(other[i][0], first[i], rtol=0, atol=0)
    for images, meta in FrameLoader(frames, batch_size=3, num_threads=2):
        torch.testing.assert_close(images, torch.stack(first)[meta["index"]], rtol=0, atol=0)
    assert backend.decoded == 6
    assert "counting" not in str(entries(frames._reader.fetcher.cache))


def test_frames_of_one_file_have_an_entry_each(tmp_path):
    write_tree(tmp_path / "tree", count=2, frames=3)
    backend = Counting()
    frames = DicomFrames(tmp_path / "tree", values="stored", backend=backend, cache=tmp_path / "c")
    for _ in range(2):
        for i in range(6):
            expected = ct_pixels(10 * (i // 3) + i % 3)
            np.testing.assert_array_equal(frames[i][0][0].numpy(), expected)
    assert backend.decoded == 6


def test_entries_belong_to_an_index_not_to_a_position(tmp_path):
    """Ranges of a series are measured through another index, whose positions are others."""
    for k in range(6):
        pixels = ct_pixels(k)
        dataset = ct(pixels, k)
        dataset.SeriesInstanceUID = f"1.2.3.{k % 2}"
        del dataset.WindowCenter, dataset.WindowWidth
        stream = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k")
        write(encapsulated(dataset, [stream]), tmp_path / "tree" / f"{k}.dcm")
    expected, _ = DicomFrames(tmp_path / "tree", window="series")[:]
    backend = Counting()
    for _ in range(2):
        frames = DicomFrames(
            tmp_path / "tree", window="series", backend=backend, cache=tmp_path / "c"
        )
        for i in (5, 0, 3, 1, 4, 2):
            torch.testing.assert_close(frames[i][0], expected[i], rtol=0, atol=0)
    assert backend.decoded == 6


@pytest.mark.parametrize(
    ("syntax", "encode", "kept"),
    [
        (ExplicitVRLittleEndian, None, False),
        (DeflatedExplicitVRLittleEndian, None, True),
        (RLELossless, None, False),
        (JPEGBaseline8Bit, lambda a: imagecodecs.jpeg8_encode(a), False),
        (JPEGLSLossless, lambda a: imagecodecs.jpegls_encode(a), True),
    ],
)
def test_only_expensive_syntaxes_are_kept(tmp_path, syntax, encode, kept):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    dataset = ct(pixels)
    if encode is not None:
        dataset = encapsulated(dataset, [encode(pixels)], syntax)
    elif syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom")
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    write(dataset, tmp_path / "tree" / "a.dcm")
    plain = DicomFrames(tmp_path / "tree", values="stored")[0][0]
    frames = DicomFrames(tmp_path / "tree", values="stored", cache=tmp_path / "cache")
    for _ in range(2):
        torch.testing.assert_close(frames[0][0], plain, rtol=0, atol=0)
    assert len(entries(frames._reader.fetcher.cache)) == kept


# What an entry is for


def key(**changes):
    known = {
        **{"uid": "1.2", "path": b"a.dcm", "frame": 0, "size": 100, "mtime_ns": 5},
        **{"inode": 7, "first": 9},
        **{"span": (10, 20, 1, 0, -1), "pixel": ImagePixel(JPEG2000Lossless, 4, 4)},
        "backend": BACKEND,
    }
    return frame_key(**{**known, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"uid": "1.3"},
        {"path": b"b.dcm"},
        {"frame": 1},
        {"size": 101},
        {"mtime_ns": 6},
        {"inode": 8},
        {"first": 10},
        {"span": (10, 21, 1, 0, -1)},
        {"pixel": ImagePixel(JPEG2000Lossless, 4, 4, bits_stored=12)},
        {"backend": Counting()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_keys_differ_with(change):
    assert key() == key()
    assert key(**change) != key()


def test_keys_differ_with_the_version_that_decodes(monkeypatch):
    before = key()
    monkeypatch.setattr(cache_module, "_versions", lambda name: ("another",))
    cache_module._decoder_key.cache_clear()
    assert key() != before
    cache_module._decoder_key.cache_clear()


def test_a_file_that_changed_is_stale_and_then_decoded_again(tree, tmp_path):
    frames = DicomFrames(tree, values="stored", cache=tmp_path / "cache")
    frames[0]
    other = ct_pixels(77)
    stream = imagecodecs.jpeg2k_encode(other, level=0, codecformat="j2k")
    write(encapsulated(ct(other, 0), [stream]), tree / "0.dcm")
    with pytest.raises(StaleIndexError):
        frames[0]
    again = DicomFrames(tree, values="stored", cache=tmp_path / "cache")
    np.testing.assert_array_equal(again[0][0][0].numpy(), other)


def test_a_moved_tree_keeps_its_entries(tree, tmp_path):
    DicomFrames(tree, cache=tmp_path / "cache")[:]
    tree.rename(tmp_path / "moved")
    backend = BACKEND
    moved = DicomFrames(tmp_path / "moved", backend=backend, cache=tmp_path / "cache")
    moved[:]
    assert len(entries(moved._reader.fetcher.cache)) == 6


def test_two_roots_that_share_a_cache_read_their_own(tmp_path, monkeypatch):
    """Same UID, path below the root, size and time; inodes are not known."""
    monkeypatch.setattr("dicomtorch.storage.files.has_stable_inodes", lambda _: False)
    for k, name in enumerate("ab"):
        pixels = np.full((16, 16), 100 * k, np.int16)
        stream = imagecodecs.jpegls_encode(pixels.view("u2")).ljust(1000, b"\0")
        path = tmp_path / name / "0.dcm"
        write(encapsulated(ct(pixels), [stream], JPEGLSLossless), path)
        os.utime(path, ns=(10**18, 10**18))
    for k, name in enumerate("ab"):
        frames = DicomFrames(tmp_path / name, values="stored", cache=tmp_path / "cache")
        assert frames.index.files["inode"][0] == 0
        assert int(frames[0][0][0, 0, 0]) == 100 * k


def test_a_file_replaced_by_one_of_equal_size_and_time_is_not_read_from_the_cache(tree, tmp_path):
    frames = DicomFrames(tree, values="stored", cache=tmp_path / "cache")
    frames[0]
    old, other = (tree / "0.dcm").stat(), ct_pixels(77)
    stream = imagecodecs.jpeg2k_encode(other, level=0, codecformat="j2k")
    path = write(encapsulated(ct(other, 0), [stream]), tmp_path / "new.dcm")
    with open(path, "r+b") as file:
        file.truncate(old.st_size)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    os.replace(path, tree / "0.dcm")
    with pytest.raises(StaleIndexError, match="another file took its place"):
        frames[0]


def test_files_without_identity_are_told_apart_by_their_place(tmp_path):
    """Same name, size, time and no UID, in two trees: only the folder differs."""
    frames = []
    for k, name in enumerate("ab"):
        pixels = np.full((16, 16), 100 * k, np.int16)
        stream = imagecodecs.jpegls_encode(pixels.view("u2")).ljust(1000, b"\0")
        dataset = encapsulated(ct(pixels), [stream], JPEGLSLossless)
        dataset.SOPInstanceUID = ""
        dataset.preamble = bytes(128)
        (tmp_path / name).mkdir()
        path = tmp_path / name / "0.dcm"
        dataset.save_as(path)
        os.utime(path, ns=(10**18, 10**18))
        frames.append(DicomFrames(tmp_path / name, values="stored", cache=tmp_path / "cache"))
    assert (tmp_path / "a/0.dcm").stat().st_size == (tmp_path / "b/0.dcm").stat().st_size
    assert [int(one[0][0].max()) for one in frames] == [0, 100]


# Damage


def damages(content):
    yield "empty", b""
    yield "truncated head", content[:40]
    yield "truncated", content[:-1]
    yield "longer", content + b"\0"
    yield "zeros", bytes(len(content))
    yield "huge", bytes(10**6)
    for at in (0, 5, 9, 12, 14, 20, 40, 100, 128, 140, len(content) - 1):
        yield f"byte {at}", content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


@pytest.mark.parametrize("packed", [True, False])
def test_damaged_entries_are_removed_and_decoded_again(cache, packed, caplog):
    stored = smooth() if packed else ct_pixels()
    cache.write(KEY, stored)
    (path,) = entries(cache)
    content = path.read_bytes()
    assert (len(content) < stored.nbytes) == packed
    for what, damaged in damages(content):
        path.write_bytes(damaged)
        assert read(cache, KEY, stored) is None, what
        assert not path.exists(), what
        cache.write(KEY, stored)
        np.testing.assert_array_equal(read(cache, KEY, stored), stored)
    assert [record.message.count("damaged") for record in caplog.records] == [1]


def test_an_entry_under_another_name_is_not_taken(cache):
    stored = ct_pixels()
    cache.write(KEY, stored)
    (path,) = entries(cache)
    other = bytes(reversed(KEY))
    cache.write(other, stored + np.int16(1))
    os.replace(path, cache._path(other))
    assert read(cache, other, stored) is None


def test_an_entry_of_another_shape_is_not_taken(cache):
    cache.write(KEY, ct_pixels())
    assert read(cache, KEY, ct_pixels().T) is None


def test_a_dataset_reads_past_a_damaged_cache(tree, tmp_path, caplog):
    frames = DicomFrames(tree, values="stored", cache=tmp_path / "cache")
    expected = frames[:][0].clone()
    for path in entries(frames._reader.fetcher.cache):
        path.write_bytes(path.read_bytes()[:-3] + b"abc")
    torch.testing.assert_close(frames[:][0], expected, rtol=0, atol=0)
    torch.testing.assert_close(frames[:][0], expected, rtol=0, atol=0)
    assert len(caplog.records) == 1


# Bounds


def test_it_never_takes_more_than_it_may(tmp_path):
    stored = ct_pixels()
    size = entry_bytes(FrameCache(tmp_path), stored)
    for k in range(60):
        if k % 7 == 0:  # as later runs do
            cache = FrameCache(tmp_path, 10 * size)
        os.utime(cache.folder)
        cache.write(bytes([k]) * 32, stored)
        assert sum(path.stat().st_size for path in entries(cache)) <= 10 * size
    assert len(entries(cache)) >= 8


def test_what_was_unused_longest_goes_first(tmp_path):
    stored = ct_pixels()
    cache = FrameCache(tmp_path)
    size = entry_bytes(cache, stored)
    keys = [bytes([k]) * 32 for k in range(10)]
    for k, one in enumerate(keys):
        cache.write(one, stored)
        os.utime(cache._path(one), (1000 + k, 1000 + k))
    later = FrameCache(tmp_path, 10 * size)
    assert read(later, keys[0], stored) is not None  # is used now
    later.write(b"n" * 32, stored)
    left = [read(later, one, stored) is not None for one in keys]
    assert left == [True, False, *[True] * 8]
    assert read(later, b"n" * 32, stored) is not None


def test_what_is_in_use_stays_when_all_is_in_use(tmp_path, caplog):
    stored = ct_pixels()
    size = entry_bytes(FrameCache(tmp_path), stored)
    cache = FrameCache(tmp_path, 3 * size)
    cache._since -= 1  # clocks of file systems are coarse
    for k in range(9):
        cache.write(bytes([k]) * 32, stored)
    assert [read(cache, bytes([k]) * 32, stored) is not None for k in range(9)] == [
        *[True] * 3,
        *[False] * 6,
    ]
    (record,) = caplog.records
    assert "is full" in record.message
    assert "cache_bytes=" in record.message


def test_a_frame_larger_than_the_cache_is_not_kept(tmp_path):
    cache = FrameCache(tmp_path, 500)
    cache.write(KEY, ct_pixels())
    assert not entries(cache)


def test_a_wrong_total_is_counted_again(tmp_path):
    stored = ct_pixels()
    size = entry_bytes(FrameCache(tmp_path), stored)
    for content in (b"%020d" % 10**15, b"", b"abc"):
        cache = FrameCache(tmp_path, 3 * size)
        (cache.folder / "used").write_bytes(content)
        cache.write(os.urandom(32), stored)
        total = sum(path.stat().st_size for path in entries(cache))
        assert int((cache.folder / "used").read_bytes()) == total


@pytest.mark.parametrize("bytes_", [0, -1])
def test_a_bound_must_be_positive(tmp_path, tree, bytes_):
    with pytest.raises(OptionError, match="cache_bytes"):
        DicomFrames(tree, cache=tmp_path / "cache", cache_bytes=bytes_)


# The file system


@POSIX
def test_nobody_else_may_read_it(tmp_path):
    old = os.umask(0)
    try:
        cache = FrameCache(tmp_path / "cache")
        cache.write(KEY, ct_pixels())
    finally:
        os.umask(old)
    found = [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]
    assert {path.name for path in found} >= {"frames", "used", "lock"}
    for path in found:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert len(entries(cache)) == 1


def test_a_folder_that_cannot_be_made_is_said_at_once(tmp_path, tree):
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot be made"):
        DicomFrames(tree, cache=tmp_path / "file")


def test_disk_full_is_said_once_and_reading_goes_on(tree, tmp_path, monkeypatch, caplog):
    frames = DicomFrames(tree, values="stored", cache=tmp_path / "cache")
    expected = DicomFrames(tree, values="stored")[:][0]
    frames[0]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "replace", full)
    for _ in range(2):
        for i in range(6):
            torch.testing.assert_close(frames[i][0], expected[i], rtol=0, atol=0)
    (record,) = caplog.records
    assert "No space left" in record.message
    assert record.levelno == logging.WARNING
    assert not list((tmp_path / "cache/frames/drafts").iterdir())
    monkeypatch.undo()
    assert read(frames._reader.fetcher.cache, KEY, ct_pixels()) is None


def test_a_real_full_disk(tmp_path, tree):
    """A limit on the size of files is what comes nearest to a full disk without being root."""
    resource = pytest.importorskip("resource", reason="a limit of POSIX systems")
    if not hasattr(os, "fork"):
        pytest.skip("a limit would stay with this process")
    frames = DicomFrames(tree, values="stored", cache=tmp_path / "cache")
    expected = DicomFrames(tree, values="stored")[:][0]
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
        same = all(torch.equal(frames[i][0], expected[i]) for i in range(6))
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not list((tmp_path / "cache/frames/drafts").iterdir())
    assert not entries(frames._reader.fetcher.cache)


def test_drafts_of_killed_processes_go(tmp_path):
    old, new = (FrameCache(tmp_path)._drafts / name for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(bytes(100))
    os.utime(old, (1000, 1000))
    FrameCache(tmp_path)
    assert not old.exists()
    assert new.exists()


def test_deleting_the_folder_while_it_is_used_costs_only_time(tree, tmp_path):
    import shutil

    frames = DicomFrames(tree, values="stored", cache=tmp_path / "cache")
    expected = frames[:][0].clone()
    shutil.rmtree(tmp_path / "cache")
    for _ in range(2):
        torch.testing.assert_close(frames[:][0], expected, rtol=0, atol=0)


def test_a_lock_that_nobody_gives_back_costs_time_once(cache, monkeypatch, caplog):
    monkeypatch.setattr(cache_module, "_LOCK_SECONDS", 0.05)
    waits = []
    wait = FileLock._wait
    monkeypatch.setattr(FileLock, "_wait", lambda *args: (waits.append(1), wait(*args))[1])
    with FileLock(cache.folder / "lock"):
        waits.clear()
        with caplog.at_level("WARNING", "dicomtorch"):
            for k in range(5):
                cache.write(bytes([k]) * 32, ct_pixels())
    assert len(waits) == 1
    assert not entries(cache)
    (record,) = caplog.records
    assert "another process holds the lock of the cache" in record.getMessage()
    cache.write(KEY, ct_pixels())
    assert not entries(cache)
    cache._full_until = 0.0  # some minutes later
    cache.write(KEY, ct_pixels())
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_is_said(cache, monkeypatch, caplog, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with caplog.at_level("WARNING", "dicomtorch"):
        for k in range(3):
            cache.write(bytes([k]) * 32, ct_pixels())
    assert len(entries(cache)) == 3
    (record,) = caplog.records
    assert "file system without locks" in record.getMessage()
    assert "cache_bytes" in record.getMessage()


@POSIX
def test_what_another_user_planted_is_not_believed(cache, tmp_path, monkeypatch, caplog):
    cache.write(KEY, ct_pixels())
    assert read(cache, KEY, ct_pixels()) is not None
    (entry,) = entries(cache)
    real = os.fstat

    def planted(descriptor):
        info = real(descriptor)
        if info.st_ino != entry.stat().st_ino:
            return info
        fields = list(info)
        fields[4] = 12345
        return os.stat_result(fields)

    with monkeypatch.context() as patched, caplog.at_level("WARNING", "dicomtorch"):
        patched.setattr(os, "fstat", planted)
        found = [read(cache, KEY, ct_pixels()) for _ in range(2)]
    assert found == [None, None]
    assert entry.exists()
    (record,) = caplog.records
    assert "belongs to another user" in record.getMessage()
    entry.unlink()
    os.mkfifo(entry)
    assert read(cache, KEY, ct_pixels()) is None
    monkeypatch.setattr(cache_module, "is_ours", lambda _: False)
    with pytest.raises(OptionError, match="belongs to another user; name one of your own"):
        FrameCache(tmp_path / "cache")


@POSIX
def test_a_link_in_the_place_of_the_total_is_not_followed(cache, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (cache.folder / "used").symlink_to(tmp_path / "precious")
    cache.write(KEY, ct_pixels())
    assert (tmp_path / "precious").read_text() == "precious"


# Processes and threads


def start(*arguments):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.support.hammer_cache", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def test_several_processes_and_threads_share_it(tmp_path, caplog):
    size = entry_bytes(FrameCache(tmp_path), values(0))
    processes = [start(tmp_path, 12 * size, k, 200) for k in range(2)]
    failures = []

    def run(seed):
        try:
            hammer(tmp_path, 12 * size, seed, 100)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(10 + k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [process.wait(60) for process in processes] == [0, 0]
    assert not failures
    assert not caplog.records
    found = entries(FrameCache(tmp_path))
    assert 8 <= len(found) <= 12
    assert not list((tmp_path / "frames/drafts").iterdir())
    total = sum(path.stat().st_size for path in found)
    assert int((tmp_path / "frames/used").read_bytes()) >= total


def test_a_killed_process_leaves_nothing_broken(tmp_path, caplog):
    size = entry_bytes(FrameCache(tmp_path), values(0))
    for seed in range(4):
        process = start(tmp_path, 12 * size, seed, 0)
        time.sleep(0.3 + 0.07 * seed)
        assert process.poll() is None
        process.kill()
        process.wait()
        hammer(tmp_path, 12 * size, seed, 30)
        assert len(list((tmp_path / "frames/drafts").iterdir())) <= seed + 1
        total = sum(path.stat().st_size for path in entries(FrameCache(tmp_path)))
        assert total <= 12 * size
    assert total
    assert not caplog.records


def test_pickles_without_what_it_found_out(cache):
    cache._writes, cache._full_until = False, math.inf
    cache._said.add("x")
    other = pickle.loads(pickle.dumps(cache))
    assert (other.folder, other.max_bytes, other._since) == (
        cache.folder,
        cache.max_bytes,
        cache._since,
    )
    other.write(KEY, ct_pixels())
    assert len(entries(other)) == 1


def test_values_are_those_of_pydicom(tree, tmp_path):
    frames = DicomFrames(tree, values="stored", cache=tmp_path / "cache")
    for _ in range(2):
        for i in range(6):
            expected = pydicom.dcmread(tree / f"{i}.dcm").pixel_array
            np.testing.assert_array_equal(frames[i][0][0].numpy(), expected)
