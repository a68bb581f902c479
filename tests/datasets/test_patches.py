"""`DicomPatches`: random parts of frames."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import (
    BalancedSampler,
    DicomFrames,
    DicomPatches,
    FrameLoader,
    LocalShuffleSampler,
    ShuffleSampler,
    scan,
)
from dicomtorch.errors import FrameNotFoundError, OptionError
from dicomtorch.model.syntaxes import RLE_LOSSLESS
from tests.datasets.test_frame_crops import Counting, Recorded
from tests.support import mask_phantoms
from tests.support import streams_by_encoders as encoders
from tests.support.meta_types import misfits, misfits_in_batch
from tests.support.phantoms import encapsulated, image, write

SHAPE = (90, 120)
Array = np.ndarray[Any, Any]


def breast(k: int, shape: tuple[int, int] = SHAPE) -> Array:
    """A bright half disc at the left edge, on black, with noise."""
    chance = np.random.default_rng(k)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    inside = np.hypot(y - shape[0] / 2, x) < shape[0] / 3
    pixels: Array = (np.where(inside, 3000, 100) + chance.integers(0, 90, shape)).astype(np.uint16)
    return pixels


def mammograms(folder: Path, count: int = 3, *, compressed: bool = False, **more: Any) -> Path:
    for k in range(count):
        pixels = breast(k)
        attributes = {"WindowCenter": 2048, "WindowWidth": 4096, **more}
        attributes = {name: value for name, value in attributes.items() if value is not None}
        if attributes.get("PhotometricInterpretation") == "MONOCHROME1":
            pixels = 4095 - pixels
        dataset = image(pixels, BitsStored=12, SOPInstanceUID=f"1.2.{k}", **attributes)
        if compressed:
            stream = encoders.LOSSLESS[RLE_LOSSLESS](pixels, 12)
            dataset = encapsulated(dataset, [stream], RLE_LOSSLESS)
        write(dataset, folder / f"{k}.dcm")
    return folder


def windows(patches: DicomPatches[Any, Any]) -> list[tuple[int, ...]]:
    return [patches[k][1]["window"] for k in range(len(patches))]


def test_a_patch_is_a_part_of_its_frame(tmp_path: Path) -> None:
    patches = DicomPatches(mammograms(tmp_path), (16, 24), per_frame=4)
    assert len(patches) == 12
    assert repr(patches) == "DicomPatches(12 patches of 16 x 24, 4 of each of 3 frames)"
    frames = DicomFrames(tmp_path)
    for k in range(12):
        patch, meta = patches[k]
        top, left, rows, columns = meta["window"]
        whole, of_frame = frames[k // 4]
        assert patch.shape == (1, rows, columns)
        assert torch.equal(patch, whole[:, top : top + rows, left : left + columns])
        assert (meta["index"], meta["patch"], meta["frames"]) == (k, k % 4, (k // 4,))
        assert meta["foreground"] == 0
        assert meta["SOPInstanceUID"] == of_frame["SOPInstanceUID"]
        assert misfits(meta) == []
    assert patches.shape(5) == (1, 16, 24)
    assert len(set(windows(patches))) > 8
    assert misfits_in_batch(patches[:3][1]) == []


def test_places_depend_on_seed_epoch_and_position_alone(tmp_path: Path) -> None:
    mammograms(tmp_path)

    def made(**options: Any) -> DicomPatches[Any, Any]:
        return DicomPatches(tmp_path, (16, 24), per_frame=4, foreground=0.5, **options)

    patches = made(seed=3)
    first = windows(patches)
    assert windows(made(seed=3)) == first
    assert windows(pickle.loads(pickle.dumps(patches))) == first
    assert windows(made(seed=4)) != first
    assert windows(made()) != first
    assert [patches[k][1]["window"] for k in (7, 2, 7)] == [first[7], first[2], first[7]]
    images = patches[:][0]
    patches.set_epoch(1)
    assert windows(patches) != first
    patches.set_epoch(0)
    for workers in (0, 1):
        loader = DataLoader(patches, batch_size=5, num_workers=workers)
        assert torch.equal(torch.cat([batch for batch, _ in loader]), images)
    for threads in (1, 3):
        loaded = FrameLoader(patches, 5, num_threads=threads)
        assert torch.equal(torch.cat([batch for batch, _ in loaded]), images)
    # A transform that draws random numbers does not change where patches are.
    assert windows(made(seed=3, transform=lambda patch: patch * torch.rand(1))) == first
    with pytest.raises(OptionError, match="count from 0"):
        patches.set_epoch(-1)


def test_another_epoch_reaches_workers_that_live_on(tmp_path: Path) -> None:
    patches = DicomPatches(mammograms(tmp_path), (16, 24), per_frame=2)
    loader = DataLoader(patches, batch_size=6, num_workers=1, persistent_workers=True)
    ((_, first),) = loader
    patches.set_epoch(1)
    ((_, second),) = loader
    assert second["window"].tolist() == [list(one) for one in windows(patches)]
    assert first["window"].tolist() != second["window"].tolist()
    del loader
    loaded = FrameLoader(patches, 6)
    seen = [[meta["window"].tolist() for _, meta in loaded] for _ in range(2)]
    assert seen[0] != seen[1]


def share_of_tissue(patches: DicomPatches[Any, Any]) -> tuple[float, float]:
    """(share of patches around foreground, share of those whose middle is tissue)."""
    metas = [patches[k][1] for k in range(len(patches))]
    around = [meta for meta in metas if meta["foreground"]]
    hits = [
        breast(0)[meta["window"][0] + 8, meta["window"][1] + 8] > 1500
        for meta in around
        if 0 < meta["window"][0] < SHAPE[0] - 16 and 0 < meta["window"][1] < SHAPE[1] - 16
    ]
    return len(around) / len(metas), float(np.mean(hits))


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param({}, id="bright"),
        pytest.param({"PhotometricInterpretation": "MONOCHROME1"}, id="inverted"),
        pytest.param({"WindowWidth": None}, id="no window"),
    ],
)
def test_foreground_is_what_stands_out(tmp_path: Path, attributes: dict[str, Any]) -> None:
    mammograms(tmp_path, 1, **attributes)
    patches = DicomPatches(
        tmp_path, (16, 16), per_frame=200, foreground=0.6, values="modality", seed=1
    )
    share, hits = share_of_tissue(patches)
    assert abs(share - 0.6) < 0.12
    assert hits > 0.95
    anywhere = DicomPatches(tmp_path, (16, 16), per_frame=200)
    rows = np.array(windows(anywhere))
    assert rows[:, 0].min() == 0
    assert rows[:, 0].max() == SHAPE[0] - 16
    assert rows[:, 1].max() > 0.9 * (SHAPE[1] - 16)


def test_colour_stands_out_by_its_saturation(tmp_path: Path) -> None:
    pixels = np.full((*SHAPE, 3), 240, np.uint8)
    pixels[30:60, 60:90] = (200, 80, 160)
    pixels[:10] = 10  # a pen is dark, and no tissue
    dataset = image(pixels, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    dataset.PlanarConfiguration, dataset.Rows, dataset.Columns = 0, *SHAPE
    del dataset.NumberOfFrames
    write(dataset, tmp_path / "a.dcm")
    patches = DicomPatches(tmp_path, (8, 8), per_frame=60, foreground=1.0, values="stored")
    for top, left, _, _ in windows(patches):
        assert 30 <= top + 4 < 60
        assert 60 <= left + 4 < 90


def test_foreground_is_labels_where_there_are_masks(tmp_path: Path) -> None:
    slices = mask_phantoms.series(tmp_path, 3, SHAPE)
    large, small = np.zeros((2, *SHAPE), np.uint8)
    large[20:70, 50:100], small[80:83, 4:7] = 1, 1
    planes = [(1, 1, large), (2, 1, small)]
    mask_phantoms.segmentation(tmp_path / "seg.dcm", slices, planes, names=["first", "second"])
    patches = DicomPatches(
        tmp_path, (9, 9), per_frame=100, foreground=1.0, masks=True, unlabelled="zero"
    )
    middle = {"large": 0, "small": 0}
    for k in range(100, 200):
        patch, mask, meta = patches[k]
        assert patch.shape == mask.shape == (1, 9, 9)
        row, column = meta["window"][0] + 4, meta["window"][1] + 4
        assert meta["foreground"] == 1
        assert meta["mask_area"][0] + meta["mask_area"][1] == np.count_nonzero(mask)
        assert mask.any()
        if large[row, column]:
            middle["large"] += 1
        elif small[row, column]:
            middle["small"] += 1
    # Each label is as likely as the other, however small it is.
    assert 30 < middle["large"] < 70
    assert middle["large"] + middle["small"] == 100
    # A frame without labels has patches anywhere.
    assert [patches[k][2]["foreground"] for k in (0, 50, 299)] == [0, 0, 0]
    images, masks, _ = patches[95:105]
    assert images.shape == masks.shape == (10, 1, 9, 9)


def test_frames_that_are_smaller_are_padded(tmp_path: Path) -> None:
    patches = DicomPatches(mammograms(tmp_path, 1), (100, 60), per_frame=2, foreground=1.0)
    patch, meta = patches[0]
    assert patch.shape == (1, 100, 60)
    assert meta["window"][0] == 0
    assert meta["window_valid"] == (0, 90, 0, 60)
    assert (patch[:, 90:] == 0).all()


def test_only_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = DicomPatches(mammograms(tmp_path, 1), (16, 24), per_frame=8, foreground=1.0)
    window: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}
    tiled = image(np.tile(breast(0), (4, 4)), SOPInstanceUID="1.2.9", **window)
    large = DicomPatches(write(tiled, tmp_path / "large" / "a"), (16, 24), foreground=1.0)
    seen = Recorded(monkeypatch)
    patches[0]
    looked = [length for _, length in seen.ranges]
    assert looked.count(16 * 120 * 2) == 1
    assert set(looked) == {16 * 120 * 2, 120 * 2}
    seen.ranges.clear()
    patches[1]
    assert [length for _, length in seen.ranges] == [16 * 120 * 2]
    seen.ranges.clear()
    large[0]
    # Of 480 columns 128 cells are looked at, one row of each.
    assert [length for _, length in seen.ranges].count(480 * 2) == 90


def test_frames_that_have_to_be_decoded_are_decoded_once_for_a_batch(tmp_path: Path) -> None:
    backend = Counting()
    mammograms(tmp_path, 3, compressed=True)
    patches = DicomPatches(tmp_path, (16, 16), per_frame=4, backend=backend)
    for batch in DataLoader(patches, batch_size=4, sampler=patches.sampler(seed=1)):
        assert len(set(batch[1]["SOPInstanceUID"])) == 1
    assert backend.shapes == [SHAPE] * 3


def test_samplers(tmp_path: Path) -> None:
    mammograms(tmp_path, 3)
    index, _ = scan(tmp_path)
    index = index.join({"SOPInstanceUID": ["1.2.0", "1.2.1", "1.2.2"], "label": [0, 1, 1]})
    patches = DicomPatches(index, (16, 16), per_frame=4)
    assert patches.column("label").tolist() == [0] * 4 + [1] * 8
    assert list(patches.column("SOPInstanceUID"))[3:5] == ["1.2.0", "1.2.1"]
    drawn = list(BalancedSampler(patches, by="label", num_samples=8, replacement=False))
    assert sorted(patches.column("label")[drawn].tolist()) == [0] * 4 + [1] * 4
    sampler = patches.sampler(seed=2)
    order = list(sampler)
    assert sorted(order) == list(range(12))
    assert [k % 4 for k in order] == [0, 1, 2, 3] * 3
    parts = [list(patches.sampler(seed=2, num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert parts[0] + parts[1] == order
    assert int(patches._epoch) == 0
    sampler.set_epoch(5)
    next(iter(sampler))
    assert int(patches._epoch) == 5
    assert sorted(ShuffleSampler(patches)) == list(range(12))
    with pytest.raises(OptionError, match="takes a FrameIndex or a dataset of frames"):
        LocalShuffleSampler(patches)


def test_finding_and_looking(tmp_path: Path) -> None:
    patches = DicomPatches(mammograms(tmp_path, 2), (16, 24), per_frame=3)
    assert patches.find(SOPInstanceUID="1.2.1", patch=2) == 5
    with pytest.raises(FrameNotFoundError, match="3 patches of 6 match"):
        patches.find(SOPInstanceUID="1.2.1")
    patches.will_need([0, 1, 5])
    assert sum(patches.report.counts.values()) == 2
    assert patches.to_grid(0, torch.ones(1, 16, 24)).sum() == 16 * 24
    pytest.importorskip("matplotlib")
    assert "frame" in patches.show(3).axes[0].get_title()
    assert patches.show_batch([0, 1]).size[0] >= 128
    assert "Patches" in patches._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (16,)}, "two numbers"),
        ({"size": (16, 0)}, "two numbers"),
        ({"per_frame": 0}, "per_frame"),
        ({"foreground": 1.5}, "foreground must be a chance"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DicomPatches(tmp_path, **{"size": (16, 16), **options})
