"""Tiles of slides as a dataset: where they are, what they hold, and that they go through loaders and samplers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from dicomtorch import (
    BalancedSampler,
    DicomFrames,
    DicomSlides,
    DicomTiles,
    FrameLoader,
    GroupSampler,
    LocalShuffleSampler,
)
from dicomtorch.datasets.places import sampling
from dicomtorch.errors import DicomTorchError, GeometryError, OptionError, SourceError
from dicomtorch.series.levels import SlideLevel
from tests.support.meta_types import misfits, misfits_in_batch
from tests.support.phantoms import write, write_series
from tests.support.slide_phantoms import JPEG, halved, level, tissue, write_slide

ROWS, COLUMNS, TILE = 100, 76, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of three levels."""
    root = tmp_path_factory.mktemp("slides")
    for k in range(2):
        write_slide(root / f"{k}", ROWS, COLUMNS, TILE, name=f"s{k}", **slide_names(k))
    return root


def slide_names(k: int) -> dict[str, Any]:
    return {
        "SeriesInstanceUID": f"1.3.{k}",
        "StudyInstanceUID": f"1.5.{k}",
        "FrameOfReferenceUID": f"1.4.{k}",
        "PatientID": f"patient-{k}",
    }


def matrix(k: int) -> Any:
    import zlib

    return tissue(ROWS, COLUMNS, zlib.crc32(str(k).encode()))


def tiles(source: Any, *args: Any, **options: Any) -> DicomTiles[Any, Any]:
    return DicomTiles(source, *args, duplicates="keep", **options)


def expected(pixels: Any, row: int, column: int, rows: int, columns: int) -> Any:
    """(3, rows, columns), white beyond the picture."""
    image = np.full((rows, columns, 3), 255, np.uint8)
    part = pixels[row : row + rows, column : column + columns]
    image[: part.shape[0], : part.shape[1]] = part
    return np.moveaxis(image, -1, 0)


def check(found: DicomTiles[Any, Any], size: tuple[int, int]) -> None:
    """Every tile, alone and in a batch, is the part of the matrix that its metadata name."""
    images, batch = found[:]
    for k, (image, meta) in enumerate(found):
        pixels = halved(matrix(meta["slide"]), meta["level"])
        where = expected(pixels, meta["row"], meta["column"], *size)
        assert np.array_equal(image.numpy(), where)
        assert np.array_equal(images[k].numpy(), where)
        inside = pixels[meta["row"] :, meta["column"] :].shape[:2]
        assert meta["inside"] == tuple(np.minimum(inside, size))
        assert meta["coverage"] == pytest.approx(np.prod(meta["inside"]) / np.prod(size))
        assert meta["index"] == meta["requested_index"] == k == batch["index"][k]
        assert not misfits(meta)
        for key, value in meta.items():
            held = batch[key][k]
            held = held.tolist() if isinstance(held, torch.Tensor) else held
            np.testing.assert_equal(held, list(value) if isinstance(value, tuple) else value)
    assert not misfits_in_batch(batch)


def test_stored_tiles(folder: Path) -> None:
    found = tiles(folder, TILE)
    assert len(found) == 2 * 7 * 5
    assert found[0][0].dtype == torch.uint8
    check(found, (TILE, TILE))
    assert repr(found) == "DicomTiles(70 tiles of 16 x 16 from 2 slides)"


@pytest.mark.parametrize(
    ("size", "stride", "number"),
    [((16, 16), (8, 16), 0), ((20, 30), None, 0), ((7, 5), (9, 11), 1), ((64, 64), None, 2)],
)
def test_other_sizes_and_strides(folder: Path, size: Any, stride: Any, number: int) -> None:
    found = tiles(folder, size, stride=stride, level=number)
    check(found, size)
    rows, columns = halved(matrix(0), number).shape[:2]
    down, across = stride or size
    wanted = [
        1 + max(0, -(-(n - s) // d))
        for n, s, d in zip((rows, columns), size, (down, across), strict=True)
    ]
    assert len(found) == 2 * wanted[0] * wanted[1]


def test_the_level_of_a_resolution_is_read_as_it_is(folder: Path) -> None:
    found = tiles(folder, TILE, mpp=1.02)
    assert found[0][1]["level"] == 1
    assert found[0][1]["mpp"] == pytest.approx(1.0)
    check(found, (TILE, TILE))


def test_between_levels_the_finer_one_is_made_smaller(folder: Path) -> None:
    found = tiles(folder, 16, mpp=0.75)
    assert {(meta["level"], round(meta["mpp"], 6)) for _, meta in found} == {(0, 0.75)}
    image, meta = found[7]
    part = expected(matrix(0), meta["row"], meta["column"], 24, 24)
    whole = torch.from_numpy(part)[None].double()
    wanted = functional.interpolate(whole, (16, 16), mode="bilinear", antialias=True)[0]
    assert (image - wanted).abs().max() <= 1
    assert [meta["column"] for _, meta in found][:4] == [0, 24, 48, 72]


def test_tiles_say_where_on_the_glass_they_are(folder: Path) -> None:
    found = tiles(folder, TILE, level=1)
    slide = found.slides[1]
    for k in (12, len(found) - 1):
        _, meta = found[k]
        x, y = slide.to_slide(meta["level"], meta["row"] + 7.5, meta["column"] + 7.5)
        assert (meta["x_mm"], meta["y_mm"]) == pytest.approx((float(x), float(y)))


def sparse(folder: Path, **options: Any) -> Any:
    pixels = tissue(48, 48)
    write(level(pixels, places=[(0, 0), (16, 16), (32, 0)], **options), folder / "level.dcm")
    return pixels


def test_absent_tiles_are_dropped_or_kept(tmp_path: Path) -> None:
    pixels = sparse(tmp_path)
    dropped = DicomTiles(tmp_path, TILE)
    assert [(meta["row"], meta["column"]) for _, meta in dropped] == [(0, 0), (16, 16), (32, 0)]
    kept = DicomTiles(tmp_path, TILE, absent="keep")
    assert len(kept) == 9
    there = {(0, 0), (16, 16), (32, 0)}
    for image, meta in kept:
        place = meta["row"], meta["column"]
        wanted = expected(pixels, *place, TILE, TILE) if place in there else 255
        assert (image.numpy() == wanted).all()
        assert meta["coverage"] == (place in there)
    assert np.array_equal(kept[:][0][4].numpy(), expected(pixels, 16, 16, TILE, TILE))


def test_parts_that_are_absent_are_filled_and_told(tmp_path: Path) -> None:
    pixels = sparse(tmp_path, RecommendedAbsentPixelCIELabValue=[0, 0x8080, 0x8080])
    found = DicomTiles(tmp_path, 32, level=0)
    assert [meta["coverage"] for _, meta in found] == [0.5, 0.25]  # two have nothing
    image = found[0][0].numpy()
    assert np.array_equal(image[:, :16, :16], expected(pixels, 0, 0, 16, 16))
    assert (image[:, :16, 16:] == 0).all()


def test_unaligned_tiles(tmp_path: Path) -> None:
    pixels = tissue(48, 48)
    write(level(pixels, places=[(0, 0), (10, 5), (20, 30)]), tmp_path / "level.dcm")
    slide = DicomSlides(tmp_path)[0]
    found = DicomTiles(tmp_path, TILE)
    for image, meta in found:
        region = slide.region(0, meta["row"], meta["column"], TILE, TILE)
        assert torch.equal(image, region.image)
        assert meta["coverage"] >= region.mask.double().mean() - 1e-12
    assert len(found) == sum(
        bool(slide.region(0, r, c, TILE, TILE).mask.any()) for r in (0, 16, 32) for c in (0, 16, 32)
    )


@pytest.mark.parametrize("aligned", [True, False])
def test_coverage_is_what_a_mask_counts(aligned: bool) -> None:
    rng = np.random.default_rng(3)
    if aligned:
        places = [(16 * r, 16 * c) for r in range(4) for c in range(5) if rng.random() < 0.6]
    else:
        places = [(16 * k, 17 * k) for k in range(4)]  # without an overlap
    found = SlideLevel(
        0, 60, 70, (16, 16), (1.0, 1.0), (0.0, 0.0), (), np.arange(len(places)), None  # type: ignore[arg-type]
    )  # fmt: skip
    found.__dict__["corners"] = np.array(places)
    there = np.zeros((200, 200))
    for row, column in places:
        there[row : row + 16, column : column + 16] = 1
    there[60:] = there[:, 70:] = 0
    part = sampling(found, (11, 13), (7, 9), 1.5)
    corners = part.corners()
    wanted = [there[r : r + part.rows, c : c + part.columns].mean() for r, c in corners]
    assert part.coverage(corners) == pytest.approx(wanted)
    assert (corners.max(0) + np.array([part.rows, part.columns]) >= (60, 70)).all()


def test_through_loaders_in_workers_and_threads(folder: Path) -> None:
    found = tiles(folder, (20, 20), stride=13)
    images, batch = found[:]
    plain = DataLoader(found, batch_size=7, num_workers=2, multiprocessing_context="fork")
    loader = FrameLoader(found, 7, num_threads=2)
    for each in (plain, loader):
        got = list(each)
        assert torch.equal(torch.cat([part[0] for part in got]), images)
        for key in ("slide", "level", "row", "column", "x_mm", "tissue", "index", "inside"):
            whole = torch.cat([part[1][key] for part in got])
            assert torch.equal(whole.nan_to_num(-1), batch[key].nan_to_num(-1))
    other = pickle.loads(pickle.dumps(found))
    assert torch.equal(other[3][0], images[3])
    found.will_need([0, 5])


def test_samplers_take_tiles(folder: Path) -> None:
    found = tiles(folder, TILE)
    for sampler in (
        LocalShuffleSampler(found, window=8),
        GroupSampler(found, "slide", 4),
        BalancedSampler(found, by="slide"),
    ):
        chosen = list(sampler)
        assert chosen
        assert max(chosen) < len(found)
    balanced = list(GroupSampler(found, "slide", 4))
    assert sorted(found[k][1]["slide"] for k in balanced) == [0] * 4 + [1] * 4
    assert found.find(slide=1, row=16, column=32) == 35 + 5 + 2
    assert found.index.column("column")[:6].tolist() == [0, 16, 32, 48, 64, 0]


def test_split_by_patient_and_labels(folder: Path) -> None:
    slides = DicomSlides(folder, duplicates="keep")
    labels = {"PatientID": ["patient-0", "patient-1"], "tumour": [0, 1]}
    index = slides.index.join(labels, on="PatientID")
    train, validation = index.kfold(2, seed=0)[0]
    parts = [tiles(part, TILE, tags=["PatientID"]) for part in (train, validation)]
    assert [len(part) for part in parts] == [35, 35]
    patients = [{meta["PatientID"] for _, meta in part} for part in parts]
    assert not patients[0] & patients[1]
    whole = tiles(index, TILE, target="tumour")
    assert whole[0][1] == 0
    assert whole[40][1] == 1
    assert len(list(BalancedSampler(whole, by="tumour"))) == 70


def test_a_target_that_no_tile_has_is_called_so(folder: Path) -> None:
    with pytest.raises(OptionError, match="target='tumour' is no key of meta"):
        tiles(folder, TILE, target="tumour")


def test_an_epoch_is_that_of_the_same_frames(folder: Path) -> None:
    found = tiles(folder, TILE)
    frames = DicomFrames(found.index, values="stored")
    whole = np.flatnonzero(np.asarray(found.index.column("coverage")) == 1)
    assert torch.equal(found[whole][0], frames[whole][0])


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Four JPEG tiles, of which the second is none."""
    write_slide(tmp_path, 64, 64, 32, levels=1, **JPEG)
    path = tmp_path / "level1.dcm"
    data = bytearray(path.read_bytes())
    second = data.index(b"\xff\xd8\xff", data.index(b"\xff\xd8\xff") + 3)
    data[second : second + 3] = b"\0\0\0"
    path.write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("size", [32, 16])
def test_damaged_tiles_are_named_or_replaced(damaged: Path, size: int) -> None:
    found = DicomTiles(damaged, size)
    bad = found.find(row=0, column=32)
    with pytest.raises(DicomTorchError, match=r"level1\.dcm, frame 1 .*on_error=\"replace\""):
        found[bad]
    with pytest.raises(DicomTorchError, match=r"level1\.dcm, frame 1"):
        found[[0, bad]]
    replacing = DicomTiles(damaged, size, on_error="replace")
    with pytest.warns(UserWarning, match=f"Tile {bad} was replaced by tile"):
        images, meta = replacing[[0, bad]]
    assert meta["requested_index"].tolist() == [0, bad]
    good = int(meta["index"][1])
    assert good != bad
    assert torch.equal(images[1], replacing[good][0])


def test_transforms_and_shown_tiles(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt

    found = tiles(folder, TILE, transform=lambda image: image.float() / 255, seed=1)
    image, meta = found[0]
    assert image.dtype == torch.float32
    assert "seed" in meta
    assert found.show(3).axes[0].get_title().startswith("tile 3 of 70")
    plt.close("all")
    assert found.show_batch(range(3)).size[0] > 100
    assert "Tiles" in found._repr_html_()


def test_normalized_display_values(folder: Path) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
    plain = tiles(folder, (20, 20), values="display")
    found = tiles(folder, (20, 20), normalize=(mean, std))
    wanted = (plain[:][0] - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(found[:][0], wanted, atol=1e-5)


def segmented(folder: Path, number: int, mask: Any) -> None:
    """A SEG of a level by highdicom."""
    import highdicom as hd
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    source = dcmread(folder / f"level{3 - number}.dcm")
    algorithm = hd.AlgorithmIdentificationSequence("a", codes.DCM.ArtificialIntelligence, "1")
    described = hd.seg.SegmentDescription(
        1, "tumour", codes.SCT.Tissue, codes.SCT.Tumor, hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm
    )  # fmt: skip
    made = hd.seg.Segmentation(
        [source], mask, "BINARY", [described], "1.9.1", 9, f"1.9.2.{number}", 1, "m", "m", "1", "1",
        tile_pixel_array=True, tile_size=(16, 16),
    )  # fmt: skip
    made.save_as(folder / "mask.dcm")


@pytest.mark.parametrize("size", [(16, 16), (20, 24)])
def test_masks_of_segmentations(tmp_path: Path, size: tuple[int, int]) -> None:
    write_slide(tmp_path, 64, 48)
    mask = np.random.default_rng(0).integers(0, 2, (64, 48)).astype(np.uint8)
    segmented(tmp_path, 0, mask)
    found = DicomTiles(tmp_path, size, masks=True)
    assert found.labels.names == ("tumour",)
    wide = np.zeros((100, 100), np.uint8)
    wide[:64, :48] = mask
    for _, drawn, meta in found:
        row, column = meta["row"], meta["column"]
        part = wide[row : row + size[0], column : column + size[1]]
        assert np.array_equal(drawn[0].numpy(), part)
        assert meta["mask_area"] == (part.sum(),)
    images, masks, _ = found[:]
    assert images.shape[0] == masks.shape[0] == len(found)
    with pytest.raises(
        OptionError, match="masks of slide 0 are of level 0, and tiles are read from level 1"
    ):
        DicomTiles(tmp_path, size, level=1, masks=True)


def test_masks_of_tiles_that_are_made_smaller_stay_labels(tmp_path: Path) -> None:
    write_slide(tmp_path, 64, 48)
    mask = np.zeros((64, 48), np.uint8)
    mask[:24, :24] = 1
    segmented(tmp_path, 0, mask)
    found = DicomTiles(tmp_path, 16, mpp=0.75, masks=True)
    assert found[0][1].min() == 1
    assert {int(value) for _, drawn, _ in found for value in drawn.unique()} == {0, 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tile": 0}, "tile must be one or two numbers of pixels, above 0; got 0"),
        ({"tile": (3, 4, 5)}, "tile must be one or two numbers"),
        ({"tile": 2.5}, "tile must be a whole number; got 2.5"),
        ({"stride": -1}, "stride must be one or two numbers"),
        ({"mpp": 1, "level": 0}, "mpp= or level=, not both"),
        ({"mpp": -1}, "above 0; got -1"),
        ({"absent": "maybe"}, 'absent must be "drop" or "keep"'),
        ({"tissue": 2}, "tissue must be a share from 0 to 1"),
        ({"tissue": True}, "tissue must be a share from 0 to 1"),
        ({"tissue": 0.5, "tissue_mask": 3}, "masks must be"),
        ({"normalize": "minmax"}, "would not fit together"),
    ],
)
def test_options_that_mean_nothing(folder: Path, options: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        tiles(folder, **options)


def test_levels_that_are_not_there(folder: Path) -> None:
    with pytest.raises(IndexError, match=r"level 3 is outside .* 3 levels"):
        tiles(folder, TILE, level=3)
    with pytest.raises(
        GeometryError, match=r"slide 0 has no level as fine as 0.1 .* it has 0.5, 1, 2"
    ):
        tiles(folder, TILE, mpp=0.1)


def test_names_of_joined_columns(folder: Path) -> None:
    index = DicomSlides(folder, duplicates="keep").index
    joined = index.join({"PatientID": ["patient-0", "patient-1"], "row": [1, 2]}, on="PatientID")
    with pytest.raises(OptionError, match="joined columns row have names that tiles use"):
        tiles(joined, TILE)


def test_images_that_are_no_slides(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    with pytest.raises(SourceError, match="none of 2 frames is a tile of a slide"):
        DicomTiles(tmp_path)
