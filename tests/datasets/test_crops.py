"""`DicomCrops`: parts of volumes around candidates."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dicomtorch import (
    BalancedSampler,
    DicomCrops,
    DicomVolumes,
    FrameLoader,
    GroupSampler,
    scan,
    voxel_to_patient,
)
from dicomtorch.backends.base import get_backend
from dicomtorch.errors import DecodeError, GeometryError, OptionError
from tests.support.phantoms import ct, ct_pixels, write

COUNT = 20


def series(folder: Path, count: int = COUNT, uid: str = "1.2.3", **attributes: Any) -> Path:
    for k in range(count):
        dataset = ct(
            ct_pixels(k), k, SeriesInstanceUID=uid, SOPInstanceUID=f"{uid}.{k}", **attributes
        )
        dataset.ImagePositionPatient = [-100, -50, 30 + 2.5 * k]
        write(dataset, folder / f"{count - k:03d}.dcm")
    return folder


def place(d: float, h: float, w: float) -> tuple[float, float, float]:
    """Millimetres of a voxel of `series`."""
    return (-100 + 0.8 * w, -50 + 0.7 * h, 30 + 2.5 * d)


def table(*places: tuple[float, float, float], uid: str = "1.2.3", **labels: Any) -> dict[str, Any]:
    x, y, z = zip(*places, strict=True)
    return {"SeriesInstanceUID": [uid] * len(places), "x": x, "y": y, "z": z, **labels}


def volume(count: int = COUNT) -> np.ndarray[Any, Any]:
    return np.stack([ct_pixels(k) for k in range(count)]).astype(np.float32)


class Counting:
    """A backend that counts what it decodes."""

    name = "counting"

    def __init__(self) -> None:
        self.count = 0
        self._inner = get_backend("imagecodecs")

    def supports(self, pixel: Any) -> bool:
        return self._inner.supports(pixel)

    def decode(self, data: Any, pixel: Any, out: Any = None) -> Any:
        self.count += 1
        return self._inner.decode(data, pixel, out)


def test_a_crop_and_what_is_said_of_it(tmp_path: Path) -> None:
    candidates = table(
        place(10, 12, 20), place(10.4, 11.6, 19.6), label=[1, 0], kind=["solid", None]
    )
    crops = DicomCrops(series(tmp_path), candidates, size=(4, 6, 8), values="modality")
    assert len(crops) == 2
    for image, meta in (crops[0], crops[1]):
        assert image.shape == crops.shape(0) == (1, 4, 6, 8)
        # The voxel of the point is voxel size // 2 of the crop.
        np.testing.assert_array_equal(image[0].numpy(), volume()[8:12, 9:15, 16:24])
        assert meta["start"] == (8, 9, 16)
        assert meta["valid"] == (0, 4, 0, 6, 0, 8)
        assert meta["SOPInstanceUIDs"] == tuple(f"1.2.3.{k}" for k in range(8, 12))
        centre = voxel_to_patient(meta["center"], meta["affine"])
        np.testing.assert_allclose(centre, meta["point"])
        np.testing.assert_allclose(voxel_to_patient((0, 0, 0), meta["affine"]), place(8, 9, 16))
        assert meta["spacing"] == pytest.approx((2.5, 0.7, 0.8))
    assert crops[0][1]["center"] == pytest.approx((2, 3, 4))
    assert crops[1][1]["point"] == pytest.approx(place(10.4, 11.6, 19.6))
    assert [(meta["label"], meta["kind"]) for _, meta in (crops[0], crops[1])] == [
        (1, "solid"),
        (0, ""),
    ]
    assert repr(crops) == "DicomCrops(2 crops of 4 x 6 x 8 from 1 volume)"


def test_only_the_slices_touched_are_decoded(tmp_path: Path) -> None:
    backend = Counting()
    series(tmp_path, 40)
    crops = DicomCrops(
        tmp_path, table(place(20, 12, 16)), size=(32, 8, 8), backend=backend, values="modality"
    )
    assert backend.count == 0
    crops[0]
    assert backend.count == 32


@pytest.mark.parametrize("read", ["pandas", "arrow", "csv", "dict"])
def test_what_a_table_may_be(tmp_path: Path, read: str) -> None:
    rows = table(place(3, 12, 16), place(9, 4, 4), label=[1, 2], weight=[0.5, 1.5])
    given_: Any = rows
    if read == "pandas":
        given_ = pytest.importorskip("pandas").DataFrame(rows)
    elif read == "arrow":
        given_ = pa.table(rows)
    elif read == "csv":
        given_ = tmp_path / "candidates.csv"
        lines = ["seriesuid,coordX,coordY,coordZ,label,weight"]
        lines += [",".join(map(str, row)) for row in zip(*rows.values(), strict=True)]
        given_.write_text("\n".join(lines) + "\n")
    names = {"SeriesInstanceUID": "seriesuid", "x": "coordX", "y": "coordY", "z": "coordZ"}
    columns = names if read == "csv" else None
    crops = DicomCrops(series(tmp_path / "ct"), given_, (2, 4, 4), columns=columns, values="stored")
    _, meta = crops[[0, 1]]
    assert meta["label"].tolist() == [1, 2]
    assert meta["weight"].tolist() == [0.5, 1.5]
    np.testing.assert_allclose(meta["point"].numpy(), [place(3, 12, 16), place(9, 4, 4)])


def test_voxel_coordinates_are_column_row_slice(tmp_path: Path) -> None:
    series(tmp_path)
    by_voxel = DicomCrops(tmp_path, table((20, 12, 10)), (4, 6, 8), coordinates="voxel")
    by_place = DicomCrops(tmp_path, table(place(10, 12, 20)), (4, 6, 8))
    assert by_voxel[0][1]["start"] == by_place[0][1]["start"]
    assert by_voxel[0][1]["point"] == pytest.approx(place(10, 12, 20))
    assert torch.equal(by_voxel[0][0], by_place[0][0])


@pytest.mark.parametrize(
    ("options", "fill"),
    [
        ({"values": "modality"}, None),
        ({"values": "stored"}, None),
        ({}, 0.0),
        ({"values": "modality", "padding": -3000.0}, -3000.0),
        ({"values": "modality", "normalize": (0.0, 1000.0)}, 0.0),
    ],
)
def test_padded_at_the_border(tmp_path: Path, options: dict[str, Any], fill: float | None) -> None:
    crops = DicomCrops(series(tmp_path), table(place(1, 22, 0)), (6, 6, 6), **options)
    image, meta = crops[0]
    whole, _ = DicomVolumes(tmp_path, **options)[0]
    assert meta["start"] == (-2, 19, -3)
    assert meta["valid"] == (2, 6, 0, 5, 3, 6)
    inside = image[:, 2:6, 0:5, 3:6]
    torch.testing.assert_close(inside, whole[:, 0:4, 19:24, 0:3])
    outside = torch.ones_like(image, dtype=torch.bool)
    outside[:, 2:6, 0:5, 3:6] = False
    expected = float(inside.min()) if fill is None else fill
    assert image[outside].unique().tolist() == [expected]
    assert meta["frames"][:2] == (-1, -1)
    assert meta["SOPInstanceUIDs"] == ("", "", *(f"1.2.3.{k}" for k in range(4)))
    np.testing.assert_allclose(
        voxel_to_patient((2, 0, 3), meta["affine"]), place(0, 19, 0), atol=1e-9
    )


@pytest.mark.parametrize("border", ["pad", "shift", "clip"])
@pytest.mark.parametrize("voxel", [(40, 12, 16), (10, -500, 16), (10, 12, 34)])
def test_a_candidate_far_outside_is_refused(
    tmp_path: Path, border: Any, voxel: tuple[int, int, int]
) -> None:
    """As one in RAS is; a shifted crop would lie inside wherever the point is."""
    with pytest.raises(GeometryError, match="row 0 of the table are outside"):
        DicomCrops(series(tmp_path), table(place(*voxel)), (4, 4, 4), border=border)


def test_shifted_or_clipped_at_the_border(tmp_path: Path) -> None:
    series(tmp_path)
    candidates = table(place(1, 22, 0), place(10, 12, 16))
    shifted = DicomCrops(tmp_path, candidates, (6, 6, 6), border="shift", values="modality")
    image, meta = shifted[0]
    np.testing.assert_array_equal(image[0].numpy(), volume()[0:6, 18:24, 0:6])
    assert (meta["start"], meta["valid"]) == ((0, 18, 0), (0, 6, 0, 6, 0, 6))
    assert meta["center"] == pytest.approx((1, 4, 0))
    large = DicomCrops(tmp_path, candidates, (24, 6, 6), border="shift", values="modality")
    image, meta = large[1]
    assert meta["valid"][:2] == (0, 20)
    np.testing.assert_array_equal(image[0, :20].numpy(), volume()[:, 9:15, 13:19])
    clipped = DicomCrops(tmp_path, candidates, (6, 6, 6), border="clip", values="modality")
    assert clipped.shape(0) == (1, 4, 5, 3)
    image, meta = clipped[0]
    np.testing.assert_array_equal(image[0].numpy(), volume()[0:4, 19:24, 0:3])
    assert (meta["start"], meta["valid"]) == ((0, 19, 0), (0, 4, 0, 5, 0, 3))
    with pytest.raises(OptionError, match="shape"):
        clipped[:]


@given(
    st.tuples(st.integers(0, 9), st.integers(0, 23), st.integers(0, 31)),
    st.tuples(st.integers(1, 14), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(["pad", "shift", "clip"]),
)
def test_every_crop_is_a_part_of_the_volume(
    crops_of: Callable[..., DicomCrops],
    voxel: tuple[int, int, int],
    size: tuple[int, int, int],
    border: str,
) -> None:
    image, meta = crops_of(table(place(*voxel)), size, border=border)[0]
    a, b, c, d, e, f = meta["valid"]
    d0, h0, w0 = meta["start"]
    whole = volume(10)[d0 + a : d0 + b, h0 + c : h0 + d, w0 + e : w0 + f]
    np.testing.assert_array_equal(image[0, a:b, c:d, e:f].numpy(), whole)
    if border != "clip":
        assert image.shape == (1, *size)
    # The point's own voxel is in the crop, where the affine and `center` put it.
    at = tuple(round(n) for n in meta["center"])
    assert image[(0, *at)] == volume(10)[voxel]
    np.testing.assert_allclose(voxel_to_patient(at, meta["affine"]), place(*voxel), atol=1e-9)


@pytest.fixture(scope="module")
def crops_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DicomCrops]:
    index, _ = scan(series(tmp_path_factory.mktemp("series"), 10))
    return lambda *args, **options: DicomCrops(index, *args, values="modality", **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches(tmp_path: Path, workers: int) -> None:
    series(tmp_path / "a", uid="1.2.1")
    series(tmp_path / "b", uid="1.2.2")
    candidates = {
        key: [*a, *b]
        for (key, a), b in zip(
            table(place(3, 12, 16), place(8, 5, 5), uid="1.2.1", label=[0, 1]).items(),
            table(place(4, 10, 12), place(0, 0, 0), uid="1.2.2", label=[1, 0]).values(),
            strict=True,
        )
    }
    crops = DicomCrops(tmp_path, candidates, (4, 8, 8), values="modality")
    (first, a), (second, b) = DataLoader(crops, batch_size=2, num_workers=workers)
    assert first.shape == second.shape == (2, 1, 4, 8, 8)
    assert a["label"].tolist() + b["label"].tolist() == [0, 1, 1, 0]
    assert a["frames"].shape == (2, 4)
    assert b["SOPInstanceUIDs"][1][:2] == ("", "")
    for k, image in enumerate((*first, *second)):
        assert torch.equal(image, crops[k][0])
    again = pickle.loads(pickle.dumps(crops))
    assert torch.equal(again[3][0], second[1])


def test_a_point_is_found_among_the_slices_that_are_there(tmp_path: Path) -> None:
    series(tmp_path)
    index, _ = scan(tmp_path)
    kept = [k for k in range(COUNT) if k not in (4, 5)]
    index = index.select(np.isin(np.asarray(index.column("InstanceNumber")) - 1, kept))
    with pytest.raises(GeometryError, match="2 missing"):
        DicomCrops(index, table(place(10, 12, 16)), (2, 4, 4))
    crops = DicomCrops(index, table(place(10, 12, 16)), (2, 4, 4), values="modality", on_gap="keep")
    image, meta = crops[0]
    np.testing.assert_array_equal(image[0].numpy(), volume()[9:11, 10:14, 14:18])
    np.testing.assert_allclose(voxel_to_patient((1, 2, 2), meta["affine"]), place(10, 12, 16))
    np.testing.assert_allclose(voxel_to_patient(meta["center"], meta["affine"]), meta["point"])


def test_the_volume_of_a_series_that_holds_the_point(tmp_path: Path) -> None:
    series(tmp_path / "low", 6)
    for k in range(6):
        other = ct(ct_pixels(k + 50), k, SeriesInstanceUID="1.2.3", SOPInstanceUID=f"9.{k}", KVP=80)
        other.ImagePositionPatient = [-100, -50, 200 + 2.5 * k]
        write(other, tmp_path / "high" / f"{k}.dcm")
    high = (-100 + 0.8 * 16, -50 + 0.7 * 12, 207.5)
    crops = DicomCrops(tmp_path, table(place(3, 12, 16), high), (2, 4, 4), values="modality")
    np.testing.assert_array_equal(crops[1][0][0, 1].numpy(), ct_pixels(53)[10:14, 14:18])
    np.testing.assert_array_equal(crops[0][0][0, 1].numpy(), ct_pixels(3)[10:14, 14:18])
    with pytest.raises(GeometryError, match=r"row 0 .* outside"):
        DicomCrops(tmp_path, table((0, 0, 100)), (2, 4, 4))
    with pytest.raises(GeometryError, match="2 volumes"):
        DicomCrops(tmp_path, table((1, 1, 1)), (2, 4, 4), coordinates="voxel")


def test_what_is_refused(tmp_path: Path) -> None:
    series(tmp_path)
    index, _ = scan(tmp_path)
    good = table(place(3, 12, 16))

    def made(candidates: Any = good, size: Any = (2, 4, 4), **options: Any) -> DicomCrops:
        return DicomCrops(index, candidates, size, **options)

    with pytest.raises(GeometryError, match=r"row 0 of the table are outside .*millimetres"):
        made(table((1000, 0, 0)))
    with pytest.raises(GeometryError, match=r"rows 0, 1 of the table is not in the index"):
        made(table((0, 0, 0), (0, 0, 0), uid="9.9"))
    with pytest.raises(OptionError, match=r"no column y; it has .*columns="):
        made({key: value for key, value in good.items() if key != "y"})
    with pytest.raises(OptionError, match=r"row 0 of the table lack one of x, y, z"):
        made(table((float("nan"), 0, 0)))
    with pytest.raises(OptionError, match="'x' holds string"):
        made(good | {"x": ["left"]})
    with pytest.raises(OptionError, match=r"Modality, point have names"):
        made(good | {"Modality": ["CT"], "point": [1]})
    with pytest.raises(OptionError, match="no row"):
        made({key: [] for key in good})
    with pytest.raises(OptionError, match="got seriesuid"):
        made(columns={"seriesuid": "SeriesInstanceUID"})
    for size in ((2, 4), (0, 4, 4), (2.5, 4, 4)):
        with pytest.raises(OptionError, match=r"\(d, h, w\)"):
            made(size=size)
    twice = pa.table([["1.2.3"], [0.0], [0.0], [0.0], [1.0]], ["SeriesInstanceUID", *"xyzz"])
    with pytest.raises(OptionError, match="several columns 'z'"):
        DicomCrops(tmp_path, twice, (4, 4, 4))
    with pytest.raises(OptionError, match="border"):
        made(border="mirror")
    with pytest.raises(OptionError, match="coordinates"):
        made(coordinates="ras")


def test_candidates_of_other_series(tmp_path: Path) -> None:
    """A split index with the table of all."""
    series(tmp_path / "a", uid="1.2.1")
    series(tmp_path / "b", uid="1.2.2")
    rows = table(
        place(3, 12, 16), place(4, 12, 16), place(5, 12, 16), label=[0, 1, 2], kind=list("abc")
    )
    rows["SeriesInstanceUID"] = ["1.2.2", "1.2.1", "1.2.2"]
    index = scan(tmp_path)[0].filter(SeriesInstanceUID="1.2.2")
    with pytest.raises(GeometryError, match=r"row 1 of the table is not in the index"):
        DicomCrops(index, rows, (2, 4, 4))
    assert not len(DicomCrops(scan(tmp_path)[0], rows, (2, 4, 4)).dropped)
    crops = DicomCrops(index, rows, (2, 4, 4), absent="drop")
    assert crops.dropped.tolist() == [1]
    assert repr(crops) == "DicomCrops(2 crops of 2 x 4 x 4 from 1 volume, 1 row dropped)"
    _, meta = crops[:]
    assert meta["candidate"].tolist() == [0, 2]
    assert meta["label"].tolist() == [0, 2]
    assert meta["kind"] == ["a", "c"]
    assert meta["start"][:, 0].tolist() == [2, 4]
    with pytest.raises(GeometryError, match="rows 0, 1, 2"):
        DicomCrops(index, rows | {"SeriesInstanceUID": ["9"] * 3}, (2, 4, 4), absent="drop")
    with pytest.raises(OptionError, match="absent"):
        DicomCrops(index, rows, (2, 4, 4), absent="ignore")  # type: ignore[call-overload]


def test_a_series_that_makes_no_volume(tmp_path: Path) -> None:
    write(ct(ct_pixels(), 0, SeriesInstanceUID="1.2.3"), tmp_path / "single.dcm")
    with pytest.raises(GeometryError, match=r"row 0 .* makes no volume \(1: a single place"):
        DicomCrops(tmp_path, table((0, 0, 0)), (2, 4, 4))


def test_a_crop_that_cannot_be_read(tmp_path: Path) -> None:
    class Broken(Counting):
        def decode(self, data: Any, pixel: Any, out: Any = None) -> Any:
            if bytes(data) == ct_pixels(2).tobytes():
                raise DecodeError("broken")
            return super().decode(data, pixel, out)

    series(tmp_path)
    candidates = table(place(2, 12, 16), place(9, 12, 16))
    with pytest.raises(DecodeError, match=r"018\.dcm, frame 0"):
        DicomCrops(tmp_path, candidates, (2, 4, 4), backend=Broken())[0]
    crops = DicomCrops(tmp_path, candidates, (2, 4, 4), backend=Broken(), on_error="replace")
    with pytest.warns(UserWarning, match="Crop 0 was replaced by crop 1"):
        image, meta = crops[0]
    assert (meta["index"], meta["requested_index"]) == (1, 0)
    assert torch.equal(image, crops[1][0])


def test_candidates_are_drawn_with_an_equal_chance_per_class(tmp_path: Path) -> None:
    """Also where there are as many candidates as slices, and of a table that a split left rows out of."""
    series(tmp_path / "a", uid="1.2.1")
    series(tmp_path / "b", uid="1.2.2")
    rows = table(
        *[place(k, 12, 16) for k in range(COUNT)] * 2,
        uid="1.2.1",
        nodule=[k % 10 == 3 for k in range(2 * COUNT)],
        kind=["solid" if k % 10 == 3 else "none" for k in range(2 * COUNT)],
        grade=[None, *[1] * (2 * COUNT - 1)],
    )
    rows["SeriesInstanceUID"] = ["1.2.2"] * COUNT + ["1.2.1"] * COUNT
    index = scan(tmp_path)[0].filter(SeriesInstanceUID="1.2.1")
    crops = DicomCrops(index, rows, (2, 4, 4), absent="drop")
    assert len(crops) == len(crops.index) == COUNT
    for by in ("nodule", "kind"):
        sampler = BalancedSampler(crops, by=by, num_samples=1000)
        drawn = np.bincount(list(sampler), minlength=COUNT)
        assert abs(drawn[[3, 13]].sum() - 500) < 4.5 * np.sqrt(1000 / 4)
    exact = BalancedSampler(crops, by="nodule", replacement=False)
    _, meta = next(iter(FrameLoader(crops, 4, sampler=exact)))
    assert sorted(meta["kind"]) == ["none", "none", "solid", "solid"]
    assert set(BalancedSampler(crops, weights=np.arange(COUNT) == 7)) == {7}
    every = DicomCrops(tmp_path, rows, (2, 4, 4))
    with pytest.raises(OptionError, match="1 of 40 candidates has no grade; leave them out of"):
        BalancedSampler(every, by="grade")
    with pytest.raises(OptionError, match="no further column 'label'; it has nodule, kind, grade"):
        BalancedSampler(crops, by="label")
    with pytest.raises(OptionError, match="one value per candidate"):
        BalancedSampler(crops, by=[0, 1])
    with pytest.raises(OptionError, match="got DicomCrops"):
        GroupSampler(crops, "SeriesInstanceUID", 1)  # draws frames, not candidates
