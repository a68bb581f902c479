"""Filled contours are kept: in memory, and on disk where there is a cache, until their object changes."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from dicomtorch import DicomFrames, MaskIndex, scan
from dicomtorch.errors import StaleIndexError
from dicomtorch.masks import contour_painter
from dicomtorch.reader.cache import FrameCache
from tests.support.mask_phantoms import series, square, structures

ROIS = [
    ("a", [(0, square(1.5, 9.5)), (0, square(3.5, 6.5)), (1, square(2, 5))]),
    ("b", [(0, square(8, 11)), (1, square(0.5, 3.5))]),
]


@pytest.fixture(params=[(12, 16), (13, 15)])  # whole words of 64 pixels, and not
def folder(request, tmp_path):
    slices = series(tmp_path / "ct", 2, request.param)
    structures(tmp_path / "ct" / "rs.dcm", slices, ROIS)
    return tmp_path / "ct"


@pytest.fixture
def read(monkeypatch):
    """Numbers of the contours that were read from files."""
    numbers = []
    plain = contour_painter.read_points

    def counted(source, contours):
        numbers.append(list(contours))
        return plain(source, contours)

    monkeypatch.setattr(contour_painter, "read_points", counted)
    return numbers


def volume(masks):
    return np.stack([masks.mask(k, "channels")[0] for k in range(len(masks))])


def masks_of(folder, **options):
    index, _ = scan(folder)
    return MaskIndex(index.filter(Modality="CT"), index, **options)


def test_the_second_epoch_only_paints(folder, read):
    masks = masks_of(folder)
    first = volume(masks)
    assert first.sum() == 64 - 9 + 16 + 16 + 9
    assert len(read) == 2
    np.testing.assert_array_equal(volume(masks), first)
    assert len(read) == 2
    np.testing.assert_array_equal(volume(pickle.loads(pickle.dumps(masks))), first)
    assert len(read) == 4


def test_memory_is_bounded(folder, read, monkeypatch):
    monkeypatch.setattr(contour_painter, "_MOST_KEPT", 1)
    masks = masks_of(folder)
    first = volume(masks)
    np.testing.assert_array_equal(volume(masks), first)
    assert len(read) == 4


def test_a_folder_keeps_them_for_further_processes(folder, read, tmp_path):
    plain = volume(masks_of(folder))
    read.clear()
    for times in (1, 2):
        masks = masks_of(folder, cache=FrameCache(tmp_path / "cache"))
        np.testing.assert_array_equal(volume(masks), plain)
        assert len(read) == 2, times
    frames = DicomFrames(folder, masks=True, mask_output="channels", cache=tmp_path / "cache")
    found = np.stack([frames[k][1].numpy() for k in range(2)])
    np.testing.assert_array_equal(found, plain)
    assert len(read) == 2
    # Other rules and other objects are kept apart.
    half = masks_of(folder, path="half-open", cache=FrameCache(tmp_path / "cache"))
    assert volume(half).sum() < plain.sum()
    assert len(read) == 4


def test_a_changed_object_is_never_answered_from_the_folder(folder, read, tmp_path):
    cache = FrameCache(tmp_path / "cache")
    plain = volume(masks_of(folder, cache=cache))
    index, _ = scan(folder)
    images = index.filter(Modality="CT")
    slices = series(tmp_path / "other", 2, tuple(plain.shape[2:]))
    path = structures(folder / "rs.dcm", slices, [("a", [(0, square(1.5, 4.5))]), ROIS[1]])
    os.utime(path, ns=(1, 1))
    with pytest.raises(StaleIndexError, match=r"object 0 \(.*rs\.dcm\)"):
        volume(MaskIndex(images, index, cache=cache))
    changed = volume(masks_of(folder, cache=cache))
    assert changed[0, 0].sum() == 9
    assert not np.array_equal(changed, plain)


def test_a_damaged_entry_is_made_anew(folder, read, tmp_path):
    plain = volume(masks_of(folder, cache=FrameCache(tmp_path / "cache")))
    for entry in (tmp_path / "cache").rglob("*.frame"):
        entry.write_bytes(entry.read_bytes()[:-3] + b"abc")
    np.testing.assert_array_equal(
        volume(masks_of(folder, cache=FrameCache(tmp_path / "cache"))), plain
    )
