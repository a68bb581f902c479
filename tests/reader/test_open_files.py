"""Files that stay open between calls: always those that were indexed, and never many."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dicomtorch import FrameReader, scan
from dicomtorch.errors import DicomTorchError, StaleIndexError
from dicomtorch.reader.open_files import MOST_KEPT, KeptFiles
from tests.support import spoil
from tests.support.phantoms import ct_pixels, write_series

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere no file stays open")


def read(reader: FrameReader, position: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """A frame, as those who keep files open read it."""
    (where,) = reader.index.locate([position])
    pixel = reader.index.image_pixel(position)
    with KeptFiles(reader.index, reader.fetcher.storage) as files:
        data = reader.fetcher.read_encoded(where, files, pixel)
        return np.frombuffer(bytes(data), np.int16).reshape(pixel.shape)


def is_open(path: Path) -> bool:
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return str(path) in links


@pytest.mark.parametrize("spoiled", [spoil.replace, spoil.truncate, spoil.remove])
def test_what_is_another_file_now_is_noticed(
    tmp_path: Path, spoiled: Callable[[Path], None]
) -> None:
    (path,) = write_series(tmp_path, 1)
    index, _ = scan(path)
    reader = FrameReader(index)
    for _ in range(2):
        np.testing.assert_array_equal(read(reader, 0), ct_pixels(0))
    spoiled(path)
    for _ in range(2):
        with pytest.raises(StaleIndexError) as kept:
            read(reader, 0)
        with pytest.raises(DicomTorchError) as plain:
            reader.read_stored(0)
        assert str(plain.value).endswith(str(kept.value))


def test_files_of_two_indexes_that_have_the_same_number(tmp_path: Path) -> None:
    readers = [FrameReader(scan(path)[0]) for path in write_series(tmp_path, 2)]
    for k in (0, 1, 1, 0, 0, 1):
        np.testing.assert_array_equal(read(readers[k], 0), ct_pixels(k))


def test_a_file_that_was_touched_is_looked_for_again(tmp_path: Path) -> None:
    paths = write_series(tmp_path, 2)
    reader = FrameReader(scan(tmp_path)[0])
    read(reader, 0)
    paths[0].chmod(0o600)  # changes nothing of what was indexed
    np.testing.assert_array_equal(read(reader, 0), ct_pixels(0))
    paths[0].rename(tmp_path / "elsewhere")
    paths[1].rename(paths[0])
    with pytest.raises(StaleIndexError):
        read(reader, 0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_few_files_stay_open_and_none_of_a_thread_that_ended(tmp_path: Path) -> None:
    paths = write_series(tmp_path, 2 * MOST_KEPT)
    index, _ = scan(tmp_path)
    reader = FrameReader(index)
    seen: list[list[bool]] = []

    def run() -> None:
        for position in (*range(len(index)), *range(len(index))):
            np.testing.assert_array_equal(read(reader, position), ct_pixels(position))
        seen.append([is_open(path) for path in paths])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [[False] * MOST_KEPT + [True] * MOST_KEPT]
    assert not any(map(is_open, paths))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_reads_on(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    index, _ = scan(tmp_path)
    reader = FrameReader(index)
    read(reader, 0)
    child = os.fork()
    if not child:
        try:
            same = all((read(reader, k) == ct_pixels(k)).all() for k in (0, 1, 0))
            os._exit(0 if same else 1)
        finally:  # a child that goes on would run the other tests
            os._exit(2)
    np.testing.assert_array_equal(read(reader, 1), ct_pixels(1))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
