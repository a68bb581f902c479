"""Neighbouring frames as channels: which ones, in which order, what is beyond the ends, and one mapping."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, scan
from dicomtorch.backends.imagecodecs import BACKEND
from dicomtorch.datasets.options import FrameOptions, MoreOptions
from dicomtorch.errors import GeometryError, OptionError
from dicomtorch.series.neighbours import frame_order
from tests.support.phantoms import ct, write


def slices(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Slice k is all k; names say nothing about the order."""
    names = np.random.default_rng(3).permutation(len(rows))
    for k, attributes in enumerate(rows):
        dataset = ct(np.full((4, 5), k, np.uint8), k, **attributes)
        write(dataset, folder / f"{names[k]:03d}.dcm")
    return folder


def at(z: float, **more: Any) -> dict[str, Any]:
    return {"ImagePositionPatient": [0, 0, z], **more}


def rows_of(folder: Path, **options: Any) -> dict[int, list[int]]:
    """For each slice the numbers of the slices in its channels."""
    frames = DicomFrames(folder, values="stored", **options)
    found = {}
    for image, meta in frames:
        assert image.shape[1:] == (4, 5)
        channels = image[:, 0, 0].tolist()
        assert meta["InstanceNumber"] - 1 == channels[len(channels) // 2]
        found[channels[len(channels) // 2]] = channels
    return dict(sorted(found.items()))


def test_slices_by_position_not_by_name(tmp_path):
    folder = slices(tmp_path, [at(z) for z in (5, 0, 10, 2.5)])
    assert rows_of(folder, context=1) == {0: [3, 0, 2], 1: [1, 1, 3], 2: [0, 2, 2], 3: [1, 3, 0]}


@pytest.mark.parametrize(
    ("edge", "expected"),
    [("repeat", [0, 0, 0, 0, 1, 2, 3]), ("reflect", [3, 2, 1, 0, 1, 2, 3])],
)
def test_edges(tmp_path, edge, expected):
    folder = slices(tmp_path, [at(z) for z in range(4)])
    found = rows_of(folder, context=3, context_edge=edge)
    assert found[0] == expected
    assert found[3] == [3 - k for k in expected][::-1]


def test_reflection_goes_back_and_forth(tmp_path):
    assert rows_of(slices(tmp_path, [at(0), at(1)]), context=3, context_edge="reflect") == {
        0: [1, 0, 1, 0, 1, 0, 1], 1: [0, 1, 0, 1, 0, 1, 0]
    }  # fmt: skip


def test_a_frame_alone_is_repeated(tmp_path):
    for edge in ("repeat", "reflect"):
        assert rows_of(slices(tmp_path, [at(0)]), context=2, context_edge=edge) == {0: [0] * 5}


def test_oblique_slices_run_along_the_normal(tmp_path):
    direction = np.array([[0.6, 0, 0.8], [0, 1, 0]])
    normal = np.cross(*direction)
    rows = [
        {"ImagePositionPatient": (normal * d).round(6).tolist(), "ImageOrientationPatient": direction.ravel().tolist()}
        for d in (3.0, 1.0, 2.0)
    ]  # fmt: skip
    assert rows_of(slices(tmp_path, rows), context=1) == {0: [2, 0, 0], 1: [1, 1, 2], 2: [1, 2, 0]}


@pytest.mark.parametrize(
    "kinds",
    [
        [{"SeriesInstanceUID": f"1.2.{k}"} for k in (1, 2)],
        [{"ImageType": ["ORIGINAL", "PRIMARY", t]} for t in ("AXIAL", "OTHER")],
        [{"ImageOrientationPatient": o} for o in ([1, 0, 0, 0, 1, 0], [0.8, 0.6, 0, -0.6, 0.8, 0])],
        [{"PixelSpacing": [s, s]} for s in (0.5, 0.6)],
        [{"AcquisitionNumber": k} for k in (1, 2)],
        [{"TemporalPositionIdentifier": k} for k in (1, 2)],
        [{"EchoTime": k} for k in (10, 80)],
    ],
)
def test_two_stacks_stay_apart(tmp_path, kinds):
    rows = [at(z, **kind) for z in range(3) for kind in kinds]
    assert rows_of(slices(tmp_path, rows), context=1) == {
        0: [0, 0, 2], 2: [0, 2, 4], 4: [2, 4, 4], 1: [1, 1, 3], 3: [1, 3, 5], 5: [3, 5, 5]
    }  # fmt: skip


def test_times_of_slices_do_not_separate_them(tmp_path):
    rows = [at(z, AcquisitionTime=f"1000{z:02d}") for z in range(4)]
    assert rows_of(slices(tmp_path, rows), context=1)[1] == [0, 1, 2]


def test_repeated_slices_that_nothing_separates(tmp_path):
    rows = [at(z) for z in (0, 1, 2, 1)]
    folder = slices(tmp_path, rows)
    with pytest.raises(GeometryError, match=r"at one place.*\.dcm.*deduplicate"):
        DicomFrames(folder, context=1)
    index, _ = scan(folder)
    part = index.select(index.column("InstanceNumber") < 4)
    assert len(DicomFrames(part, context=1)) == 3


def test_one_place_over_time(tmp_path):
    rows = [at(0, AcquisitionTime=f"1000{t:02d}") for t in (2, 0, 1)]
    assert rows_of(slices(tmp_path, rows), context=1) == {0: [2, 0, 0], 1: [1, 1, 2], 2: [1, 2, 0]}


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    pixels = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None], (6, 4, 5))
    dataset = ct(np.ascontiguousarray(pixels), Modality="US", FrameTime=10)
    del dataset.ImagePositionPatient, dataset.WindowCenter, dataset.WindowWidth
    dataset.RescaleSlope = 2
    write(dataset, tmp_path / "cine" / "a.dcm")
    return tmp_path / "cine"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cine_loop_in_batches(cine, workers):
    frames = DicomFrames(cine, values="stored", context=1)
    images, meta = next(iter(DataLoader(frames, batch_size=6, num_workers=workers)))
    assert images[:, :, 0, 0].tolist() == [
        [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 5]
    ]  # fmt: skip
    assert meta["frame"].tolist() == list(range(6))
    assert torch.equal(frames[[4, 1]][0], images[[4, 1]])


def test_one_mapping_for_the_channels(cine):
    frames = DicomFrames(cine, context=1)
    images, meta = frames[:]
    np.testing.assert_allclose(images[2, :, 0, 0], [0, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(images[5, :, 0, 0], [0, 1, 1], atol=1e-6)
    assert meta["voi"] == ["sample"] * 6
    assert torch.equal(frames[2][0], images[2])
    fixed = DicomFrames(cine, context=1, window=(5, 11))
    np.testing.assert_allclose(fixed[2][0][:, 0, 0], [0.25, 0.45, 0.65], atol=1e-6)
    scores = DicomFrames(cine, context=1, values="modality", normalize="minmax")
    np.testing.assert_allclose(scores[3][0][:, 0, 0], [0, 0.5, 1], atol=1e-6)


def test_frames_that_samples_share_are_decoded_once(cine):
    class Counting:
        name = "counting"
        decoded = 0

        def supports(self, pixel: Any) -> bool:
            return BACKEND.supports(pixel)

        def decode(self, data: Any, pixel: Any, out: Any = None) -> Any:
            Counting.decoded += 1
            return BACKEND.decode(data, pixel, out)

    frames = DicomFrames(cine, values="modality", context=2, backend=Counting())
    frames[1:4]
    assert Counting.decoded == 6


def test_colours_keep_their_channels_together(tmp_path):
    pixels = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)
    dataset = ct(np.zeros((3, 4, 5), np.uint8), Modality="US", FrameTime=10)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0
    dataset.PixelData = pixels.tobytes()
    write(dataset, tmp_path / "a.dcm")
    images, _ = DicomFrames(tmp_path, values="stored", context=1)[:]
    assert images.shape == (3, 9, 4, 5)
    expected = pixels[[0, 1, 2]].transpose(0, 3, 1, 2).reshape(9, 4, 5)
    np.testing.assert_array_equal(images[1].numpy(), expected)


def test_several_windows_and_a_size(cine):
    images, meta = DicomFrames(cine, context=1, window=[(5, 11), (3, 5)], size=(8, 8))[:]
    assert images.shape == (6, 6, 8, 8)
    assert meta["resized"].shape == (6, 6)


def test_options(cine):
    with pytest.raises(OptionError, match="context must be 0 or more"):
        DicomFrames(cine, context=-1)
    with pytest.raises(OptionError, match="context must be 0 or more"):
        DicomFrames(cine, context=1, context_edge="wrap")
    frames = DicomFrames(cine, context=1, values="stored")
    with pytest.raises(OptionError, match="context=0"):
        frames.to_values(*frames[:])


def test_options_of_other_datasets_are_those_of_frames():
    parameters = inspect.signature(DicomFrames).parameters
    own = FrameOptions.__annotations__.keys() - MoreOptions.__annotations__.keys()
    assert own == {*parameters} - {"more", "source", "context", "context_edge", "on_gap"}


def test_every_frame_is_in_one_run(bundled):
    index, _ = scan(bundled)
    modalities = list(index.column("Modality"))
    seen = 0
    for series in sorted({*index.column("SeriesInstanceUID")}):
        part = index.filter(SeriesInstanceUID=series)
        try:
            runs = frame_order(part)
        except GeometryError:
            continue
        assert sorted(runs.order) == list(range(len(part)))
        seen += len(part)
    assert seen > len(modalities) / 2
