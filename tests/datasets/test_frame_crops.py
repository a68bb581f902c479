"""`DicomCrops` in two dimensions: parts of frames around boxes and points."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dicomtorch import BalancedSampler, DicomCrops, DicomFrames, FrameLoader, scan
from dicomtorch.backends.base import get_backend
from dicomtorch.datasets.parts import Window
from dicomtorch.errors import DecodeError, GeometryError, OptionError
from dicomtorch.model.syntaxes import RLE_LOSSLESS
from tests.support import mask_phantoms
from tests.support import streams_by_encoders as encoders
from tests.support.http_server import counts, http_server
from tests.support.meta_types import misfits, misfits_in_batch
from tests.support.phantoms import encapsulated, image, write
from tests.support.requirements import require

SHAPE = (60, 80)
Array = np.ndarray[Any, Any]


def pixels_of(k: int, shape: tuple[int, int] = SHAPE) -> Array:
    return np.random.default_rng(k).integers(0, 4096, shape).astype(np.uint16)


def frames_in(
    folder: Path,
    count: int = 3,
    *,
    compressed: bool = False,
    shape: tuple[int, int] = SHAPE,
    **attributes: Any,
) -> Path:
    for k in range(count):
        attributes = {"WindowCenter": 2048, "WindowWidth": 4096, **attributes}
        dataset = image(pixels_of(k, shape), BitsStored=12, SOPInstanceUID=f"1.2.{k}", **attributes)
        if compressed:
            stream = encoders.LOSSLESS[RLE_LOSSLESS](pixels_of(k), 12)
            dataset = encapsulated(dataset, [stream], RLE_LOSSLESS)
        write(dataset, folder / f"image{k}.dcm")
    return folder


def boxes(*corners: tuple[int, float, float, float, float], **labels: Any) -> dict[str, Any]:
    """(frame, left, top, right, bottom)."""
    frame, *sides = zip(*corners, strict=True)
    names = ("xmin", "ymin", "xmax", "ymax")
    uids = [f"1.2.{k}" for k in frame]
    return {"SOPInstanceUID": uids, **dict(zip(names, sides, strict=True)), **labels}


class Counting:
    """A backend that counts what it decodes."""

    name = "counting"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._inner = get_backend("imagecodecs")

    def supports(self, pixel: Any) -> bool:
        return self._inner.supports(pixel)

    def decode(self, data: Any, pixel: Any, out: Any = None) -> Any:
        self.shapes.append(pixel.shape)
        return self._inner.decode(data, pixel, out)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_crop_is_what_the_frame_is_there(tmp_path: Path, compressed: bool) -> None:
    frames_in(tmp_path, compressed=compressed)
    table = boxes((1, 20, 10, 30, 20), (2, 30.4, 12, 35, 13), label=[1, 0], kind=["mass", None])
    crops = DicomCrops(tmp_path, table, (16, 24))
    frames = DicomFrames(tmp_path)
    assert len(crops) == 2
    assert repr(crops) == "DicomCrops(2 crops of 16 x 24 from 2 frames)"
    image, meta = crops[0]
    assert tuple(image.shape) == (1, 16, 24)
    assert crops.shape(0) == (1, 16, 24)
    whole, of_frame = frames[frames.find(SOPInstanceUID="1.2.1")]
    # The middle of the box, (25, 15), is pixel number size // 2.
    assert torch.equal(image, whole[:, 7:23, 13:37])
    assert meta["window"] == (7, 13, 16, 24)
    assert meta["window_valid"] == (0, 16, 0, 24)
    assert meta["box"] == (7.0, 3.0, 17.0, 13.0)
    assert (meta["candidate"], meta["label"], meta["kind"]) == (0, 1, "mass")
    assert meta["SOPInstanceUID"] == "1.2.1"
    assert crops.index.column("SOPInstanceUID")[meta["frames"][0]] == "1.2.1"
    for key in ("Rows", "Columns", "voi", "WindowCenter"):
        assert meta[key] == of_frame[key]
    assert misfits(meta) == ["label", "kind"]
    _, meta = crops[1]
    assert meta["window"] == (12 - 8, 32 - 12, 16, 24)
    assert (meta["label"], meta["kind"]) == (0, "")


def test_points_are_pixels(tmp_path: Path) -> None:
    frames_in(tmp_path, 1)
    table = {"SOPInstanceUID": ["1.2.0"] * 2, "x": [40, 41.2], "y": [20, 20.9]}
    crops = DicomCrops(tmp_path, table, (1, 1), values="stored")
    assert [crops[k][0].item() for k in (0, 1)] == [pixels_of(0)[20, 40], pixels_of(0)[20, 41]]
    assert crops[0][1]["box"] == (0.0, 0.0, 0.0, 0.0)
    assert crops[1][1]["box"] == pytest.approx((0.2, 0.9, 0.2, 0.9))
    with pytest.raises(OptionError, match="points x, y have no size"):
        DicomCrops(tmp_path, table, None)


def test_boxes_as_they_are(tmp_path: Path) -> None:
    frames_in(tmp_path, 1)
    table = boxes((0, 3.2, 4.7, 9.5, 8.1), (0, 5, 6, 5, 6), (0, 70, 50, 90, 70))
    crops = DicomCrops(tmp_path, table, None, values="stored", border="clip")
    assert [tuple(crops.shape(k)) for k in range(3)] == [(1, 5, 7), (1, 1, 1), (1, 10, 10)]
    np.testing.assert_array_equal(crops[0][0][0].numpy(), pixels_of(0)[4:9, 3:10])
    np.testing.assert_array_equal(crops[2][0][0].numpy(), pixels_of(0)[50:, 70:])
    assert crops[0][1]["box"] == pytest.approx((0.2, 0.7, 6.5, 4.1))
    assert repr(crops) == "DicomCrops(3 crops of boxes from 1 frame)"


@given(
    window=st.tuples(st.integers(-30, 79), st.integers(-30, 79), *[st.integers(1, 40)] * 2),
    border=st.sampled_from(["pad", "shift", "clip"]),
)
def test_borders(window: tuple[int, int, int, int], border: Any, shared: DicomFrames) -> None:
    top, left, rows, columns = window
    table = boxes((0, left, top, left + columns, top + rows))
    inside = (top < SHAPE[0], left < SHAPE[1], top + rows > 0, left + columns > 0)
    size: Any = (rows, columns)
    if not all(inside):
        with pytest.raises(GeometryError, match="row 0 of the table are outside of their frame"):
            DicomCrops(shared, table, size, border=border)
        return
    crops = DicomCrops(shared, table, size, border=border, values="modality")
    image, meta = crops[0]
    padded = np.pad(pixels_of(0).astype(np.float32), 40, constant_values=-1)
    at = meta["window"]
    expected = padded[40 + at[0] : 40 + at[0] + at[2], 40 + at[1] : 40 + at[1] + at[3]]
    lowest = expected[expected >= 0].min()
    np.testing.assert_array_equal(image[0].numpy(), np.where(expected < 0, lowest, expected))
    first, end, start, stop = meta["window_valid"]
    there = np.zeros(expected.shape, bool)
    there[first:end, start:stop] = True
    np.testing.assert_array_equal(there, expected >= 0)
    if border == "pad":
        assert at == window
    elif border == "shift":
        assert at[2:] == (rows, columns)
        assert there.all()
    else:
        assert at == (max(top, 0), max(left, 0), *expected.shape)
        assert there.all()
    back = crops.to_grid(0, image)
    assert back.shape == (1, *SHAPE)
    np.testing.assert_array_equal(
        back[0].numpy() != 0,
        np.pad(there, 200)[
            200 - at[0] : 200 - at[0] + SHAPE[0], 200 - at[1] : 200 - at[1] + SHAPE[1]
        ]
        & (pixels_of(0) != 0),
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> DicomFrames:
    return DicomFrames(frames_in(tmp_path_factory.mktemp("frames"), 1))


def test_what_lies_beyond_the_frame(tmp_path: Path) -> None:
    frames_in(tmp_path, 1)
    table = boxes((0, -2, -2, 2, 2))
    for options, expected in (
        ({}, 0.0),
        ({"values": "modality", "normalize": (0.0, 1.0)}, 0.0),
        ({"values": "modality", "padding": -7.0}, -7.0),
        ({"values": "stored"}, pixels_of(0)[:2, :2].min()),
    ):
        image, _ = DicomCrops(tmp_path, table, (4, 4), **options)[0]
        assert (image[0, :2] == float(expected)).all()
        assert (image[0, :, :2] == float(expected)).all()


class Recorded:
    """What is read of files: (offset, length)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from dicomtorch.storage.local import LocalFile

        self.ranges: list[tuple[int, int]] = []
        plain = LocalFile.read_exactly

        def read_exactly(file: Any, offset: int, length: int, scratch: Any) -> memoryview:
            self.ranges.append((offset, length))
            return plain(file, offset, length, scratch)

        monkeypatch.setattr(LocalFile, "read_exactly", read_exactly)


KINDS = {
    "16 bits": np.uint16,
    "8 bits": np.uint8,
    "colour": (np.uint8, 3),
    "32 bits": np.uint32,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", [0, 2])
def test_of_uncompressed_frames_the_rows_are_read_and_no_more(
    tmp_path: Path, kind: str, frame: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype: Any = KINDS[kind]
    samples = 3 if kind == "colour" else 1
    dtype = dtype[0] if kind == "colour" else dtype
    shape = (3, *SHAPE, 3) if samples == 3 else (3, *SHAPE)
    pixels = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    more: dict[str, Any] = {"SOPInstanceUID": "1.2.0"}
    if samples == 3:
        more |= {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
        more |= {"PlanarConfiguration": 0, "Rows": SHAPE[0], "Columns": SHAPE[1]}
        more |= {"NumberOfFrames": 3}
    write(image(pixels, **more), tmp_path / "a.dcm")
    table = boxes((0, 10, 20, 18, 30)) | {"frame": [frame]}
    crops = DicomCrops(tmp_path, table, (10, 8), values="stored")
    expected = pixels[frame, 20:30, 10:18]
    seen = Recorded(monkeypatch)
    found = crops[0][0].movedim(0, -1).squeeze(-1).numpy()
    np.testing.assert_array_equal(found, expected)
    assert [length for _, length in seen.ranges] == [10 * pixels[0, 0].nbytes]


@pytest.mark.parametrize(
    ("attributes", "options"),
    [
        pytest.param({"WindowWidth": None}, {}, id="a range of the frame"),
        pytest.param({}, {"values": "modality", "normalize": "zscore"}, id="statistics"),
        pytest.param(
            {"PixelPaddingValue": 5}, {"values": "modality", "padding": "fill"}, id="fill"
        ),
        pytest.param({"PlanarConfiguration": 1}, {"values": "stored"}, id="planes"),
    ],
)
def test_what_depends_on_the_whole_frame_is_read_whole(
    tmp_path: Path, attributes: dict[str, Any], options: dict[str, Any]
) -> None:
    pixels = pixels_of(0)
    more = {"WindowCenter": 2048, "WindowWidth": 4096, "SOPInstanceUID": "1.2.0", **attributes}
    if "PlanarConfiguration" in attributes:
        pixels = np.random.default_rng(0).integers(0, 255, (3, *SHAPE)).astype(np.uint8)
        more |= {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
        more |= {"Rows": SHAPE[0], "Columns": SHAPE[1]}
    dataset = image(pixels, **{name: value for name, value in more.items() if value is not None})
    if "PlanarConfiguration" in attributes:
        del dataset.NumberOfFrames
    write(dataset, tmp_path / "a.dcm")
    crop, meta = DicomCrops(tmp_path, boxes((0, 10, 20, 18, 30)), (10, 8), **options)[0]
    whole, of_frame = DicomFrames(tmp_path, **options)[0]
    assert torch.equal(crop, whole[:, 20:30, 10:18])
    assert (meta["voi"], meta["WindowWidth"]) == pytest.approx(
        (of_frame["voi"], of_frame["WindowWidth"]), nan_ok=True
    )


def test_frames_that_have_to_be_decoded_are_decoded_once_for_a_batch(tmp_path: Path) -> None:
    frames_in(tmp_path, 2, compressed=True)
    backend = Counting()
    table = boxes(*[(k % 2, 10 + k, 10, 20 + k, 20) for k in range(6)])
    crops = DicomCrops(tmp_path, table, (16, 16), backend=backend)
    images, meta = crops[:]
    assert backend.shapes == [SHAPE] * 2
    assert meta["candidate"].tolist() == list(range(6))
    assert misfits_in_batch(meta) == []
    for k in range(6):
        assert torch.equal(images[k], crops[k][0])


def test_loaders_samplers_and_pickles(tmp_path: Path) -> None:
    frames_in(tmp_path, 3)
    table = boxes(*[(k % 3, 5 * k, 30, 5 * k + 9, 40) for k in range(9)], label=[0, 1, 0] * 3)
    crops = DicomCrops(tmp_path, table, (20, 20), border="shift")
    expected = torch.stack([crops[k][0] for k in range(9)])
    for workers in (0, 1):
        batches = [images for images, _ in DataLoader(crops, batch_size=4, num_workers=workers)]
        assert torch.equal(torch.cat(batches), expected)
    loader = FrameLoader(crops, 4, num_threads=2)
    assert torch.equal(torch.cat([images for images, _ in loader]), expected)
    assert torch.equal(pickle.loads(pickle.dumps(crops))[:][0], expected)
    drawn = list(BalancedSampler(crops, by="label", num_samples=6, replacement=False))
    assert sorted(crops.column("label")[drawn]) == [0, 0, 0, 1, 1, 1]
    assert crops.find(candidate=4) == 4
    assert crops.find(SOPInstanceUID="1.2.1", label=1, candidate=7) == 7
    crops.will_need([0, 1])
    assert sum(crops.report.counts.values()) == 3


def test_tables_of_files(tmp_path: Path) -> None:
    frames_in(tmp_path / "images", 2)
    text = "picture,x0,y0,x1,y1,label\nimage1,10,20,30,40,mass\n"
    (tmp_path / "boxes.csv").write_text(text)
    columns = {"image": "picture", "xmin": "x0", "ymin": "y0", "xmax": "x1", "ymax": "y1"}
    crops = DicomCrops(tmp_path / "images", tmp_path / "boxes.csv", None, columns=columns)
    assert crops[0][1]["label"] == "mass"
    assert crops[0][1]["SOPInstanceUID"] == "1.2.1"
    arrow = pa.table({"file": ["image0.dcm"], "x": [3], "y": [4], "width": [5], "height": [6]})
    assert DicomCrops(tmp_path / "images", arrow, None).shape(0) == (1, 6, 5)
    with pytest.raises(OptionError, match="no column x9"):
        DicomCrops(tmp_path / "images", arrow, None, columns={"xmin": "x9"})


def test_names_of_digits_are_texts(tmp_path: Path) -> None:
    write(image(pixels_of(0), SOPInstanceUID="1.2.0"), tmp_path / "images" / "0012")
    (tmp_path / "boxes.csv").write_text("file,x,y\n0012,3,4\n")
    assert len(DicomCrops(tmp_path / "images", tmp_path / "boxes.csv", (4, 4))) == 1


def test_candidates_without_a_frame(tmp_path: Path) -> None:
    frames_in(tmp_path, 2)
    table = boxes((0, 1, 1, 9, 9), (7, 1, 1, 9, 9), (1, 1, 1, 9, 9))
    with pytest.raises(GeometryError, match="the frame of row 1 of the table is not in the index"):
        DicomCrops(tmp_path, table, (8, 8))
    crops = DicomCrops(tmp_path, table, (8, 8), absent="drop")
    assert crops.dropped.tolist() == [1]
    assert [crops[k][1]["candidate"] for k in range(2)] == [0, 2]
    assert "1 row dropped" in repr(crops)
    # Frames of a multi-frame file count from 0.
    with pytest.raises(GeometryError, match="rows 0, 1 of the table"):
        DicomCrops(tmp_path, table | {"frame": [1, 0, 0]}, (8, 8))


def test_masks(tmp_path: Path) -> None:
    slices = mask_phantoms.series(tmp_path, 2, SHAPE)
    plane = np.zeros(SHAPE, np.uint8)
    plane[20:30, 40:60] = 1
    mask_phantoms.segmentation(tmp_path / "seg.dcm", slices, [(1, 1, plane)], names=["first"])
    table = {"SOPInstanceUID": [str(slices[1].SOPInstanceUID)] * 2, "x": [45, 2], "y": [25, 1]}
    crops = DicomCrops(tmp_path, table, (16, 16), masks=True, labels=["first"], unlabelled="zero")
    image, mask, meta = crops[0]
    assert image.shape == mask.shape == (1, 16, 16)
    np.testing.assert_array_equal(mask[0].numpy(), plane[17:33, 37:53])
    assert meta["mask_area"] == (int(mask.sum()),)
    assert (meta["mask_known"], meta["mask_present"]) == ((1,), 1)
    _, mask, meta = crops[1]
    assert not mask.any()
    assert meta["window"][:2] == (-7, -6)
    images, masks, meta = crops[:]
    assert images.shape == masks.shape == (2, 1, 16, 16)
    assert meta["mask_area"].shape == (2, 1)


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    crops = DicomCrops(frames_in(tmp_path, 2), boxes((1, 20, 10, 30, 20), label=[3]), (16, 24))
    assert "frame" in crops.show().axes[0].get_title()
    assert crops.show_batch([0]).size[0] >= 128
    assert "Crops" in crops._repr_html_()


def test_what_is_refused(tmp_path: Path) -> None:
    frames_in(tmp_path, 1)
    good = boxes((0, 1, 1, 9, 9))
    index, _ = scan(tmp_path)
    for table, options, message in (
        (good, {"coordinates": "mm"}, "go with crops of volumes"),
        (good, {"split_by": "EchoTime"}, "go with crops of volumes"),
        (good | {"Rows": [1]}, {}, "have names that meta uses already"),
        (good | {"window": [1]}, {}, "have names that meta uses already"),
        (good | {"frame": [0.5]}, {}, "else than whole numbers"),
        (good, {"columns": {"left": "xmin"}}, "columns names"),
        ({name: [] for name in good}, {}, "no row"),
        ({"SeriesInstanceUID": ["1"], "x": [1], "y": [1], "z": [1]}, {}, r"size=\(d, h, w\)"),
        (boxes((0, 1, 1, float("nan"), 9)), {}, "lack a number"),
        (boxes((0, 100, 1, 200, 9)), {}, "outside of their frame"),
    ):
        with pytest.raises((OptionError, GeometryError), match=message):
            DicomCrops(index, table, (8, 8), **options)
    with pytest.raises(OptionError, match="in no stack"):
        _ = DicomCrops(index, good, (8, 8)).stacks
    with pytest.raises(OptionError, match="the prediction is"):
        DicomCrops(index, good, (8, 8)).to_grid(0, torch.zeros(1, 7, 8))


def test_frames_that_cannot_be_read(tmp_path: Path) -> None:
    frames_in(tmp_path, 2, compressed=True)
    data = bytearray((tmp_path / "image0.dcm").read_bytes())
    at = data.rfind(b"\xfe\xff\x00\xe0") + 8
    data[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "image0.dcm").write_bytes(data)
    table = boxes((0, 1, 1, 9, 9), (1, 1, 1, 9, 9))
    crops = DicomCrops(tmp_path, table, (8, 8))
    with pytest.raises(DecodeError, match=r"image0\.dcm, frame 0 \(index 0\).*crops\.index"):
        crops[0]
    kept = DicomCrops(tmp_path, table, (8, 8), on_error="replace")
    with pytest.warns(UserWarning, match="Crop 0 was replaced by crop 1"):
        images, meta = kept[:]
    assert meta["candidate"].tolist() == [1, 1]
    assert torch.equal(images[0], images[1])


def test_windows() -> None:
    window = Window(0, -3, 5, 10, 10)
    part = window.inside((20, 12))
    assert part == (0, 0, 5, 7, 7)
    assert window.valid(part) == (3, 10, 0, 7)


@pytest.mark.parametrize("loads", ["slice", "loader"])
def test_of_frames_of_a_server_no_more_than_the_rows_of_crops_is_asked_for(
    tmp_path: Path, loads: str
) -> None:
    require("obstore")
    require("fsspec")
    folder = frames_in(tmp_path / "files", 4, shape=(600, 500))
    table = boxes(*[(k, 20, 100 * k, 60, 100 * k + 30) for k in range(4)])
    here = DicomCrops(folder, table, (30, 40))
    with http_server(folder) as address:
        crops = DicomCrops(scan(address)[0], table, (30, 40))
        counts(address)
        if loads == "slice":
            images, _ = crops[0:4]
        else:
            (images,) = (batch for batch, _ in FrameLoader(crops, 4))
        asked = counts(address)
    assert torch.equal(images, here[0:4][0])
    assert (asked["GET"], asked["bytes"]) == (4, 4 * 30 * 500 * 2)
