"""What compiled kernels paint: the same bits as without them, and whatever they cannot do goes the other way."""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import random

import numpy as np
import pytest

from dicomtorch import scan
from dicomtorch.errors import DicomTorchError, PixelValueError, StaleIndexError
from dicomtorch.masks import contour_painter, layers, plane_painter, polygons
from dicomtorch.masks.compiled import PLANE, painting
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.masks.polygons import Runs, fill
from tests.masks.test_mask_index import masks_of, volume
from tests.support.archives import pack
from tests.support.http_server import http_server
from tests.support.mask_phantoms import segmentation, series, square, structures
from tests.support.mask_planes import expected, make_planes
from tests.support.requirements import require


@pytest.fixture
def module():
    require("dicomtorch_kernels")
    if os.environ.get("DICOMTORCH_KERNELS") == "0":
        pytest.skip("DICOMTORCH_KERNELS=0 leaves them out")
    found = painting()
    assert found is not None, (
        "dicomtorch_kernels is there and of another version: pip install ./kernels"
    )
    return found


@pytest.fixture
def without(monkeypatch):
    """Calls something without compiled kernels."""

    def call(work):
        with monkeypatch.context() as context:
            for each in (plane_painter, polygons, contour_painter, layers):
                context.setattr(each, "painting", lambda: None)
            return work()

    return call


def write_files(folder, rng):
    paths = []
    for k, size in enumerate((40, 5000, 300_000)):
        path = folder / f"{k}.bin"
        share = rng.choice([0.02, 0.5, 1.0])
        bits = np.random.default_rng(k).random(8 * size) < share
        path.write_bytes(np.packbits(bits).tobytes())
        paths.append(os.fsencode(path))
    return paths


def test_planes_are_what_numpy_makes_of_them(module, tmp_path):
    rng = random.Random(4)
    paths, right, narrowed = write_files(tmp_path, rng), 0, 0
    for pixels in [*([1, 7, 64, 100, 511, 512, 513, 4096, 9999] * 12), *([1 << 20, 1_300_003] * 4)]:
        channels = rng.randrange(1, 4)
        planes = make_planes(rng, paths, pixels, channels)
        needed = (planes["bit"] + pixels + 7) // 8 + planes["offset"]
        out = np.zeros(channels * pixels, np.uint8)
        if (needed > planes["size"]).any():
            with pytest.raises(ValueError, match="offset is out of range"):
                module.paint_planes(planes, b"", b"".join(paths), out, pixels)
            assert not out.any()
            continue
        assert module.paint_planes(planes, b"", b"".join(paths), out, pixels) == 0
        image, areas = expected(planes, paths, pixels, channels)
        np.testing.assert_array_equal(out, image)
        assert planes["area"].tolist() == areas
        right += 1
        # What was found about them is enough to find them again.
        planes["low"], planes["high"] = planes["first_set"], planes["end_set"]
        again = np.zeros_like(out)
        assert module.paint_planes(planes, b"", b"".join(paths), again, pixels) == 0
        np.testing.assert_array_equal(again, image)
        assert planes["area"].tolist() == areas
        assert (planes["low"] == planes["first_set"]).all()
        assert (planes["high"] == planes["end_set"]).all()
        if len(planes) == 1 and not planes["bit"][0]:
            (set_,) = np.nonzero(image[planes["out"][0] :][:pixels])
            low, high = (int(planes[name][0]) for name in ("low", "high"))
            assert low == (set_[0] // 64 * 64 if len(set_) else pixels)
            assert high == (min(pixels, set_[-1] // 64 * 64 + 64) if len(set_) else 0)
            narrowed += 1
    assert right > 60
    assert narrowed > 3


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("bit", 8, "bit"),
        ("bit", -1, "bit"),
        ("value", 0, "value"),
        ("value", 256, "value"),
        ("joins", 2, "joins"),
        ("low", -64, "low"),
        ("low", 3, "low"),
        ("low", 128, "low"),
        ("high", 63, "high"),
        ("high", -1, "high"),
        ("high", 1 << 40, "high"),
        ("out", 1, "out"),
        ("out", -1, "out"),
        ("path", 1 << 40, "path"),
        ("path_length", 0, "path"),
        ("offset", 4, "offset"),
        ("size", -1, "offset"),
    ],
)
def test_a_record_outside_its_buffers_is_refused(module, tmp_path, name, value, problem):
    path = tmp_path / "file"
    path.write_bytes(bytes(11))
    (tmp_path / "next").write_bytes(b"")
    planes = np.zeros(1, PLANE)
    info = path.stat()
    planes["path_length"], planes["size"] = len(os.fsencode(path)), info.st_size
    planes["mtime_ns"], planes["value"] = info.st_mtime_ns, 1
    out = np.zeros(64, np.uint8)
    assert module.paint_planes(planes, b"", os.fsencode(path), out, 64) == 0
    planes[name] = value
    with pytest.raises(ValueError, match=f"plane 0: {problem} is out of range"):
        module.paint_planes(planes, b"", os.fsencode(path), out, 64)
    planes[name], planes["joins"] = 1, 1
    with pytest.raises(ValueError, match="plane 0: "):
        module.paint_planes(planes, b"", os.fsencode(path), out, 64)


def test_a_plane_joins_only_its_own_channel_and_value(module, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(8))
    planes = np.zeros(2, PLANE)
    info = path.stat()
    planes["path_length"], planes["size"] = len(os.fsencode(path)), info.st_size
    planes["mtime_ns"], planes["value"] = info.st_mtime_ns, (1, 2)
    planes["joins"][1] = 1
    with pytest.raises(ValueError, match="plane 1: joins"):
        module.paint_planes(planes, b"", os.fsencode(path), np.zeros(64, np.uint8), 64)


@pytest.mark.parametrize("pixels", [64, 3 << 20])
def test_the_first_plane_that_fails_is_the_last_that_is_read(module, tmp_path, pixels):
    there, gone = (os.fsencode(tmp_path / name) for name in ("there", "gone"))
    (tmp_path / "there").write_bytes(b"\xff" * (pixels // 8))
    info = (tmp_path / "there").stat()
    planes = np.zeros(4, PLANE)
    planes["path"], planes["path_length"] = [0, len(there), len(there), 0], len(there)
    planes["path_length"][1:3] = len(gone)
    planes["size"], planes["mtime_ns"], planes["value"] = info.st_size, info.st_mtime_ns, 1
    planes["number"], planes["high"] = 7, pixels
    out = np.zeros(pixels, np.uint8)
    for _ in range(2):
        assert module.paint_planes(planes, b"", there + gone, out, pixels) == 1
        assert (planes["error"] != 0).tolist() == [False, True, False, False]
        assert planes["number"].tolist() == [0, errno.ENOENT, 0, 0]
        assert planes["area"][2:].tolist() == [0, 0]
    assert module.paint_planes(planes[[0, 3]], b"", there + gone, out, pixels) == 0
    assert out.all()


def test_runs(module):
    rng = np.random.default_rng(3)
    for _ in range(50):
        rows, columns = rng.integers(1, 40, 2).tolist()
        line = rng.integers(0, rows, 9)
        first = rng.integers(0, columns + 1, 9)
        end = np.minimum(first + rng.integers(0, 9, 9), columns)
        out = np.full((rows, columns), 7, np.uint8)
        right = out.copy()
        Runs(line, first, end).paint(right, 200)
        module.paint_runs(line, first, end, columns, 200, out)
        np.testing.assert_array_equal(out, right)
        for part, value in itertools.product(range(3), (-1, 1 << 40, -(1 << 63))):
            wrong = [line.copy(), first.copy(), end.copy()]
            wrong[part][4] = value
            with pytest.raises(ValueError, match="a run is outside the image"):
                module.paint_runs(*wrong, columns, 1, out)
    with pytest.raises(ValueError, match="aligned buffer"):
        module.paint_runs(b"1234", b"1234", b"1234", 4, 1, bytearray(16))
    with pytest.raises(ValueError, match="outside"):
        module.paint_runs(line, first[:-1], end, columns, 1, out)


def shapes_and_frames(folder, shape, count=4):
    """A series, and two SEGs of three segments that overlap, with some frames missing."""
    slices = series(folder, count, shape)
    rng = np.random.default_rng(shape[0])
    for name in "ab":
        frames = [
            (segment, k, rng.random(shape) < (0.2, 0.8, 1.1)[segment - 1])
            for segment in (3, 1, 2)
            for k in range(count)
            if rng.random() < 0.8
        ]
        names = [f"{name} {n}" for n in ("one", "two", "three")]
        segmentation(folder / f"{name}.dcm", slices, frames, names=names)
    return slices


@pytest.mark.parametrize("shape", [(8, 8), (23, 38), (1, 3), (70, 129)])
def test_masks_are_those_that_are_made_without(module, tmp_path, without, monkeypatch, shape):
    shapes_and_frames(tmp_path, shape)
    seen = []
    paint = plane_painter.PlanePainter.paint

    def spied(*arguments):
        seen.append(paint(*arguments) is not None)
        return paint(*arguments)

    monkeypatch.setattr(plane_painter.PlanePainter, "paint", spied)
    united = {".* one": 3, ".* two": 1, "a three": 200}
    for labels, overlap in itertools.product((None, united, {"b .*": 7}), ("first", "last")):
        masks = masks_of(tmp_path, labels=labels, overlap=overlap, choose="all")
        for output, k in itertools.product(("labels", "channels"), range(4)):
            seen.clear()
            got, areas = masks.mask(k, output)
            assert seen == [True]
            right, counted = without(lambda k=k, o=output, m=masks: m.mask(k, o))
            np.testing.assert_array_equal(got, right)
            assert areas.tolist() == counted.tolist()
            assert masks.areas()[k].tolist() == counted.tolist()
            volume_of = np.full((len(got), 3, *got.shape[1:]), 9, np.uint8)
            again, areas = masks.mask(k, output, volume_of[:, 1])
            assert (volume_of[:, ::2] == 9).all()
            np.testing.assert_array_equal(again, right)
            assert areas.tolist() == counted.tolist()
        assert pickle.loads(pickle.dumps(masks)).mask(0)[1].tolist() == masks.mask(0)[1].tolist()


def test_what_they_cannot_do_is_done_all_the_same(module, tmp_path, without):
    slices = series(tmp_path, 2, (12, 16))
    frames = [(k, 0, np.eye(12, 16, k, np.uint8)) for k in (1, 2)]
    segmentation(tmp_path / "seg.dcm", slices, frames)
    wide = masks_of(tmp_path, labels={"first": 1, "second": 300})
    assert np.unique(wide.mask(0)[0]).tolist() == [0, 1, 300]
    assert wide.mask(0, "fraction")[0].dtype == np.float32
    shared = masks_of(tmp_path, labels={"first": 1, "second": 2})
    assert shared.mask(1)[0].sum() == 0
    moved = [(1, list(slices[0].ImagePositionPatient), np.ones((6, 8), np.uint8))]
    segmentation(tmp_path / "seg.dcm", slices, moved)
    assert masks_of(tmp_path).mask(0)[0].sum() == 48


@pytest.fixture
def painted(module, monkeypatch):
    """For each call whether planes were read by compiled kernels."""
    found = []
    paint = module.paint_planes

    class Spied:
        def __getattr__(self, name):
            return getattr(module, name)

        def paint_planes(self, *arguments):
            found.append(paint(*arguments) == 0)
            return not found[-1]

    monkeypatch.setattr(plane_painter, "painting", Spied)
    return found


@pytest.mark.parametrize(
    ("kind", "times"), [("stored.zip", 4), ("plain.tar", 4), ("deflated.zip", 0)]
)
def test_members_of_archives_are_read_in_their_place_if_they_are_stored(
    tmp_path, painted, kind, times
):
    shapes_and_frames(tmp_path / "files", (23, 38))
    expected = [volume(masks_of(tmp_path / "files", overlap="first"))]
    painted.clear()
    packed = pack(tmp_path / "files", tmp_path / kind)
    np.testing.assert_array_equal(volume(masks_of(packed, overlap="first")), expected[0])
    assert painted == [True] * times


def test_remote_objects_are_not_looked_for_among_the_files(tmp_path, painted):
    require("obstore")
    shapes_and_frames(tmp_path, (8, 8))
    expected = volume(masks_of(tmp_path, overlap="first"))
    painted.clear()
    with http_server(tmp_path) as address:
        names = [f"{address}/{path.name}" for path in sorted(tmp_path.glob("*.dcm"))]
        index, _ = scan(names)
        chosen = index.select(index.column("Modality") == "CT")
        masks = MaskIndex(chosen, index, overlap="first")
        np.testing.assert_array_equal(volume(masks), expected)
    assert painted == []


def test_frames_beyond_the_end_of_a_file_are_an_error_of_their_own(tmp_path, painted):
    slices = series(tmp_path, 2, (64, 64))
    path = segmentation(tmp_path / "seg.dcm", slices, [(1, k, np.ones((64, 64))) for k in range(2)])
    index, _ = scan(tmp_path)
    frames = index._generation.frames
    with_masks = index.column("Modality") == "SEG"
    frames["offset"] = np.where(with_masks, path.stat().st_size - 511, frames["offset"])
    masks = MaskIndex(index.select(~with_masks), index)
    for output in ("labels", "channels"):
        with pytest.raises(DicomTorchError, match=r"masks: object 0 .*seg"):
            masks.mask(0, output)
    assert painted == []
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(PixelValueError, match="NumberOfFrames is 2, and 1 are there in whole"):
        masks_of(tmp_path)


def test_pixels_of_two_labels_and_changed_files_are_refused_as_without(module, tmp_path):
    slices = series(tmp_path, 2, (12, 16))
    frames = [(1, 0, np.ones((12, 16))), (2, 0, np.eye(12, 16)), (1, 1, np.ones((12, 16)))]
    path = segmentation(tmp_path / "seg.dcm", slices, frames)
    masks = masks_of(tmp_path)
    with pytest.raises(PixelValueError, match="12 pixels belong to several of the labels 1, 2"):
        masks.mask(0)
    masks.mask(1)
    os.utime(path, ns=(1, 1))
    with pytest.raises(StaleIndexError, match=r"seg\.dcm.*changed since it was indexed"):
        masks.mask(1)


def test_contours_are_painted_as_without(module, tmp_path, without):
    slices = series(tmp_path, 2, (21, 30))
    one = [(0, square(2, 9)), (0, square(4, 7)), (1, square(1, 3))]
    structures(tmp_path / "rs.dcm", slices, [("one", one), ("two", [(0, square(5, 19.5))])])
    for output in ("labels", "channels", "fraction"):
        got = volume(masks_of(tmp_path, overlap="first"), output)
        right = without(lambda o=output: volume(masks_of(tmp_path, overlap="first"), o))
        np.testing.assert_array_equal(got, right)
        assert got.any()


def contours_of(rng):
    """Points, counts and planes of some contours; vertices anywhere, on centres, or on parts of them."""
    counts = rng.integers(1, 12, rng.integers(0, 7))
    step = rng.choice([0.0, 1.0, 0.5, 0.25, 0.01])
    points = rng.uniform(-6, 30, (int(counts.sum()), 2))
    points = points if not step else np.round(points / step) * step
    return points, counts, rng.integers(0, 3, len(counts))


def test_polygons_are_filled_as_without(module, without):
    rng, pixels = np.random.default_rng(11), 0
    for _ in range(1500):
        shape = tuple(rng.integers(1, 30, 2).tolist())
        spacing = tuple(rng.choice([1.0, 0.7, 0.02, 1e-4, 3.0], 2).tolist())
        path = str(rng.choice(["in", "half-open"]))
        given = (*contours_of(rng), shape)
        got = fill(*given, spacing=spacing, path=path)
        right = without(lambda g=given, s=spacing, p=path: fill(*g, spacing=s, path=p))
        for one, other in zip(got, right, strict=True):
            assert one.tolist() == other.tolist(), (given, spacing, path)
        pixels += got.area
    assert pixels > 50_000


def test_large_and_small_edges_are_filled_as_without(module, without):
    rng = np.random.default_rng(12)
    for scale in (1e8, 1e4, 300.0, 1e-3, 1e-9):
        for _ in range(20):
            points = 20 + scale * rng.normal(size=(40, 2)).clip(-3, 3)
            given = (points, np.array([25, 15]), np.array([1, 0]), (64, 48))
            got, right = fill(*given), without(lambda g=given: fill(*g))
            for one, other in zip(got, right, strict=True):
                assert one.tolist() == other.tolist()


def test_what_is_no_polygon_is_refused(module):
    points, counts, planes = np.ones((3, 2)), np.array([3]), np.array([0])
    rest = (8, 8, (1.0, 1.0), 0.01, 1e-4, 1000)
    assert len(module.fill_polygons(points, counts, planes, *rest)) == 24
    assert module.fill_polygons(points * [[1], [9], [1]], counts, planes, *rest[:-1], 3) is None
    wrong = [
        (points, counts + 1, planes, *rest),
        (points[:2], counts - 1, planes, *rest),
        (points, counts, planes - 1, *rest),
        (points, counts, planes + (1 << 40), *rest),
        (points, counts, np.array([0, 0]), *rest),
        (points * np.nan, counts, planes, *rest),
        (points * 1e10, counts, planes, *rest),
        (points, counts, planes, 0, *rest[1:]),
        (points, counts, planes, 8, 1 << 40, *rest[2:]),
        (points, counts, planes, 8, 8, (0.0, 1.0), *rest[3:]),
        (points, counts, planes, 8, 8, (1.0, np.nan), *rest[3:]),
        (points, counts, planes, 8, 8, (1.0, 1.0), np.inf, *rest[4:]),
    ]
    for given in wrong:
        with pytest.raises(ValueError, match="no polygons on pixels"):
            module.fill_polygons(*given)


def test_another_version_is_not_used(module, monkeypatch):
    monkeypatch.setattr(module, "MASKS_ABI", 0)
    painting.cache_clear()
    try:
        assert painting() is None
    finally:
        painting.cache_clear()
