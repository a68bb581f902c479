"""`DicomFrames`, from a folder to a batch."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    SequentialSampler,
    Subset,
    random_split,
)
from torch.utils.data.distributed import DistributedSampler

from dicomtorch import DicomFrames, FrameIndex, FrameReader, FrameSample, scan
from dicomtorch.batches.collate import collate_meta
from dicomtorch.errors import (
    DecodeError,
    FrameIndexError,
    IndexFileError,
    OptionError,
    SourceError,
    StaleIndexError,
)
from tests.support.phantoms import ct, ct_pixels, encapsulated, write, write_series

collate: Any = torch.utils.data.default_collate
SAMPLES = os.environ.get("DICOMTORCH_SAMPLES", "")
SEED = "fo-dicom__fo-dicom/Tests/FO-DICOM.Tests/Test_Data/HasFragmentSequence.dcm"


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_series(tmp_path / "series", 10)
    return tmp_path / "series"


def display(pixels: np.ndarray, center: float = 40, width: float = 400) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1."""
    y = (pixels - (center - 0.5)) / (width - 1) + 0.5
    return np.clip(y, 0, 1)


def test_a_sample_is_an_image_and_a_dict(series: Path) -> None:
    frames = DicomFrames(series)
    assert len(frames) == 10
    image, meta = frames[3]
    assert (image.shape, image.dtype) == ((1, 24, 32), torch.float32)
    np.testing.assert_allclose(image[0].numpy(), display(ct_pixels(3)), atol=1e-6)
    assert meta["index"] == meta["requested_index"] == 3
    assert meta["InstanceNumber"] == 4
    assert meta["ImagePositionPatient"] == (0.0, 0.0, 7.5)
    assert meta["PixelSpacing"] == (0.7, 0.8)
    assert (meta["voi"], meta["WindowCenter"], meta["WindowWidth"]) == ("file", 40.0, 400.0)
    assert math.isnan(meta["FrameTime"])
    assert type(meta) is not dict
    assert isinstance(meta, dict)
    assert "PatientSex" not in meta
    assert "PatientID" not in meta


def test_values(series: Path) -> None:
    stored = DicomFrames(series, values="stored")
    assert stored[2][0].dtype == torch.int16
    np.testing.assert_array_equal(stored[2][0][0].numpy(), ct_pixels(2))
    modality = DicomFrames(series, values="modality")
    assert modality[2][0].dtype == torch.float32
    np.testing.assert_array_equal(modality[2][0][0].numpy(), ct_pixels(2))
    lung = DicomFrames(series, window=[(-600, 1500), (40, 400)])
    image, _ = lung[1]
    assert image.shape == (2, 24, 32)
    np.testing.assert_allclose(image[0].numpy(), display(ct_pixels(1), -600, 1500), atol=1e-6)
    np.testing.assert_allclose(image[1].numpy(), display(ct_pixels(1), 40, 400), atol=1e-6)


def test_lists_slices_and_negative_positions(series: Path) -> None:
    frames = DicomFrames(series)
    images, meta = frames[[3, 5, 7]]
    assert images.shape == (3, 1, 24, 32)
    assert meta["index"].tolist() == [3, 5, 7]
    assert torch.equal(images[1], frames[5][0])
    images, meta = frames[8:]
    assert meta["index"].tolist() == [8, 9]
    assert frames[-1][1]["index"] == 9
    assert frames[np.int64(4)][1]["index"] == frames[torch.tensor(4)][1]["index"] == 4
    with pytest.raises(FrameIndexError, match="10 frames"):
        frames[10]
    with pytest.raises(OptionError, match="str"):
        frames["0"]  # type: ignore[index]
    assert [meta["index"] for _, meta in frames] == list(range(10))


def test_find_and_tags(series: Path) -> None:
    frames = DicomFrames(series, tags=["PatientSex"])
    uid = pydicom.dcmread(series / "006.dcm").SOPInstanceUID
    assert frames.find(SOPInstanceUID=uid) == 6
    assert frames[6][1]["PatientSex"] == "F"
    # Without the tag the same index serves; the key is not in meta.
    assert "PatientSex" not in DicomFrames(series)[0][1]
    index, _ = scan(series)
    assert DicomFrames(index, tags=["PatientSex"])[6][1]["PatientSex"] == "F"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_data_loader(series: Path, num_workers: int) -> None:
    frames = DicomFrames(series)
    torch.manual_seed(3)
    seen = []
    loader = DataLoader(frames, batch_size=4, shuffle=True, num_workers=num_workers)
    for images, meta in loader:
        assert images.dtype == torch.float32
        assert isinstance(meta["SOPInstanceUID"], list)
        assert meta["ImagePositionPatient"].shape == (len(images), 3)
        for image, k in zip(images, meta["index"].tolist(), strict=True):
            np.testing.assert_allclose(image[0].numpy(), display(ct_pixels(k)), atol=1e-6)
            seen.append(k)
    assert sorted(seen) == list(range(10))


def test_the_batch_is_not_copied_by_collate(series: Path) -> None:
    frames = DicomFrames(series)
    samples = frames.__getitems__([1, 2])
    images, _ = collate(samples)
    assert samples.images is not None
    assert images.data_ptr() == samples.images.data_ptr()
    # Replaced samples are not in that memory, so the batch is made anew.
    samples[1] = frames[7]
    images, meta = collate(samples)
    assert torch.equal(images[1], frames[7][0])
    assert meta["index"].tolist() == [1, 7]


@pytest.mark.parametrize("size", [None, (12, 10)])
def test_a_batch_has_what_its_samples_have(series: Path, size: tuple[int, int] | None) -> None:
    index, _ = scan(series, tags=["PatientSex", "AcquisitionNumber", "RepetitionTime"])
    uids = index.column("SOPInstanceUID").tolist()
    table = {"SOPInstanceUID": uids, "label": range(10), "note": list("abcdefghij")}
    index = index.join({**table, "dose": [k / 4 for k in range(10)]}, on="SOPInstanceUID")
    frames = DicomFrames(index, size=size, tags=["PatientSex", "RepetitionTime"])
    batch, meta = frames[[7, 2, 2]]
    images, metas = zip(*(frames[k] for k in (7, 2, 2)), strict=True)
    assert torch.equal(batch, torch.stack(images))
    expected = collate_meta(metas)
    assert list(meta) == list(expected) == list(metas[0])
    for key, values in expected.items():
        if isinstance(values, torch.Tensor):
            assert meta[key].dtype == values.dtype
            assert torch.equal(meta[key].nan_to_num(-9), values.nan_to_num(-9))
        else:
            assert meta[key] == values
    assert meta["dose"].tolist() == [1.75, 0.5, 0.5]
    # The same from samples that somebody looked at, and from those that came through a wrapper.
    samples = frames.__getitems__([7, 2, 2])
    assert [sample[1]["index"] for sample in samples] == [7, 2, 2]
    assert samples[-1][1]["label"] == samples[1:][0][1]["label"] == 2
    for each in (samples, list(samples)):
        images, meta = collate(each)
        assert torch.equal(images, batch)
        assert meta["note"] == ["h", "c", "c"]


def test_a_batch_has_what_was_done_to_its_samples(series: Path) -> None:
    frames = DicomFrames(series)
    samples = frames.__getitems__([4, 5])
    samples[1][1]["index"] = 77
    samples[0][0].zero_()  # a slice of the batch
    images, meta = collate(samples)
    assert meta["index"].tolist() == [4, 77]
    assert not images[0].any()
    assert images[1].any()
    samples = frames.__getitems__([4, 5])
    for _, meta in samples:
        meta["label"] = 1
    assert collate(samples)[1]["label"].tolist() == [1, 1]
    samples = frames.__getitems__([4, 5])
    for _, meta in samples:
        meta["PixelSpacing"] = np.array(meta["PixelSpacing"])
    assert collate(samples)[1]["PixelSpacing"].tolist() == [[0.7, 0.8], [0.7, 0.8]]


def test_views_of_the_batch_that_are_not_its_slices_are_stacked(tmp_path: Path) -> None:
    write(ct(ct_pixels(0, 8, 8)), tmp_path / "square.dcm")
    samples = DicomFrames(tmp_path).__getitems__([0])
    image, meta = samples[0]
    samples[0] = FrameSample((image.transpose(1, 2), meta))  # begins where the batch does
    images, _ = collate(samples)
    assert torch.equal(images[0], image.transpose(1, 2))
    assert not torch.equal(images[0], image)


def test_batch_sampler_without_batch_size(series: Path) -> None:
    frames = DicomFrames(series)
    sampler = BatchSampler(SequentialSampler(frames), 4, drop_last=False)
    sizes = [len(images) for images, _ in DataLoader(frames, sampler=sampler, batch_size=None)]
    assert sizes == [4, 4, 2]


def test_torch_wrappers(series: Path) -> None:
    frames = DicomFrames(series)
    half, _ = random_split(frames, [0.5, 0.5], torch.Generator().manual_seed(1))
    wrappers: list[tuple[Dataset[Any], list[int]]] = [
        (Subset(frames, [7, 2]), [7, 2]),
        (ConcatDataset([Subset(frames, [1]), Subset(frames, [0, 4])]), [1, 0, 4]),
        (half, list(half.indices)),
    ]
    for dataset, expected in wrappers:
        found = [k for _, meta in DataLoader(dataset, batch_size=2) for k in meta["index"].tolist()]
        assert found == expected
    shards: list[DistributedSampler[Any]] = [
        DistributedSampler(frames, 2, rank, shuffle=False) for rank in range(2)
    ]
    both = [
        k
        for sampler in shards
        for _, meta in DataLoader(frames, batch_size=2, sampler=sampler)
        for k in meta["index"].tolist()
    ]
    assert sorted(both) == list(range(10))


def test_transform(series: Path) -> None:
    frames = DicomFrames(series, transform=lambda image: image.flip(-1).repeat(3, 1, 1))
    image, _ = frames[0]
    assert image.shape == (3, 24, 32)
    images, _ = frames[[0, 1]]
    assert torch.equal(images[0], image)


def test_pickles_are_small_and_hold_no_file(series: Path) -> None:
    frames = DicomFrames(series)
    frames[0]
    data = pickle.dumps(frames)
    assert len(data) < 10_000
    copy = pickle.loads(data)
    assert torch.equal(copy[4][0], frames[4][0])
    opened = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert not [name for name in opened if name.startswith(str(series))]


def test_refresh_notices_every_change(series: Path) -> None:
    first = DicomFrames(series).index
    assert DicomFrames(series).index.uuid == first.uuid
    write(ct(ct_pixels(77), 77), series / "new.dcm")
    (series / "000.dcm").unlink()
    (series / "001.dcm").rename(series / "renamed.dcm")
    write(ct(ct_pixels(78), 78), series / "002.dcm")

    def names(frames: DicomFrames) -> list[str]:
        paths = {frames.index.path(i) for i in range(len(frames))}
        return sorted(os.path.basename(path) for path in paths)

    frames = DicomFrames(series)
    assert frames.index.uuid != first.uuid
    assert names(frames)[0] == "002.dcm"
    assert names(frames)[-2:] == ["new.dcm", "renamed.dcm"]
    found = frames.find(InstanceNumber=79)
    np.testing.assert_allclose(frames[found][0][0].numpy(), display(ct_pixels(78)), atol=1e-6)
    assert DicomFrames(series, refresh=False).index.uuid == frames.index.uuid


def test_a_running_job_keeps_its_generation(series: Path) -> None:
    frames = DicomFrames(series)
    data = pickle.dumps(frames)
    expected = frames[5][0]
    (series / "000.dcm").unlink()
    DicomFrames(series)
    assert torch.equal(pickle.loads(data)[5][0], expected)


def test_a_changed_file_is_stale_never_another_image(series: Path) -> None:
    frames = DicomFrames(series)
    write(ct(ct_pixels(50), 50), series / "005.dcm")
    with pytest.raises(StaleIndexError, match=r"005\.dcm, frame 0 .*changed since it was indexed"):
        frames[5]
    os.truncate(series / "006.dcm", 900)
    with pytest.raises(StaleIndexError, match=r"006\.dcm"):
        frames[6]
    (series / "007.dcm").unlink()
    with pytest.raises(StaleIndexError, match="gone since it was indexed"):
        frames[7]


def test_roots_without_images(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        DicomFrames(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="there are no files"):
        DicomFrames(tmp_path / "empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("hello")
    (tmp_path / "text" / "b.csv").write_text("a,b")
    with pytest.raises(SourceError, match="2 files are not DICOM"):
        DicomFrames(tmp_path / "text")


def test_a_read_only_root(series: Path) -> None:
    series.chmod(0o500)
    try:
        assert len(DicomFrames(series)) == 10
    finally:
        series.chmod(0o700)


def test_a_cache_folder_that_cannot_be_written(series: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(UserWarning, match="cannot be kept"):
        frames = DicomFrames(series, cache_dir=tmp_path / "file")
    assert len(frames) == 10
    assert torch.equal(pickle.loads(pickle.dumps(frames))[1][0], frames[1][0])


def test_a_damaged_index_is_rebuilt(series: Path, tmp_path: Path) -> None:
    frames = DicomFrames(series, cache_dir=tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("indexes/*/*/frames.arrow")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    del frames
    path.write_bytes(data)
    with pytest.raises(IndexFileError, match="damaged"):
        DicomFrames(series, cache_dir=tmp_path / "cache", refresh=False)
    with pytest.warns(UserWarning, match="made anew"):
        assert len(DicomFrames(series, cache_dir=tmp_path / "cache")) == 10
    assert len(DicomFrames(series, cache_dir=tmp_path / "cache", refresh=False)) == 10


@pytest.fixture
def with_damage(tmp_path: Path) -> Path:
    imagecodecs = pytest.importorskip("imagecodecs")
    for k in range(4):
        stream = imagecodecs.jpeg2k_encode(ct_pixels(k), codecformat="j2k", reversible=True)
        if k in (1, 2):
            stream = stream[: len(stream) // 3]
        write(encapsulated(ct(ct_pixels(k), k), [stream]), tmp_path / "damaged" / f"{k}.dcm")
    return tmp_path / "damaged"


def test_a_damaged_frame_raises_with_file_and_way_out(with_damage: Path) -> None:
    frames = DicomFrames(with_damage)
    assert frames[0][0].shape == (1, 24, 32)
    with pytest.raises(DecodeError, match=r'1\.dcm, frame 0 .*on_error="replace"'):
        frames[1]
    with pytest.raises(DecodeError, match=r"1\.dcm"):
        list(DataLoader(frames, batch_size=2, num_workers=1))


def test_a_damaged_frame_is_replaced_in_the_open(with_damage: Path) -> None:
    frames = DicomFrames(with_damage, on_error="replace", values="stored")
    with pytest.warns(UserWarning, match=r"1\.dcm.* replaced by frame 3"):
        images, meta = frames[0:4]
    assert meta["index"].tolist() == [0, 3, 3, 3]
    assert meta["requested_index"].tolist() == [0, 1, 2, 3]
    assert [(f.index, f.replaced_by) for f in frames.failures] == [(1, 3), (2, 3)]
    np.testing.assert_array_equal(images[1, 0].numpy(), ct_pixels(3))


def test_sizes_that_differ_are_explained(tmp_path: Path) -> None:
    write(ct(ct_pixels(0)), tmp_path / "a" / "0.dcm")
    write(ct(ct_pixels(1, 10, 12), 1), tmp_path / "a" / "1.dcm")
    frames = DicomFrames(tmp_path / "a")
    with pytest.raises(OptionError, match=r"1 of \(1, 24, 32\), 1 of \(1, 10, 12\).*size="):
        next(iter(DataLoader(frames, batch_size=2)))
    sized = DicomFrames(tmp_path / "a", size=(16, 16))
    images, _ = next(iter(DataLoader(sized, batch_size=2)))
    assert images.shape == (2, 1, 16, 16)


SCRIPT = """
import sys, torch
from torch.utils.data import DataLoader
from dicomtorch import DicomFrames

frames = DicomFrames(sys.argv[1], cache_dir=sys.argv[2], tags=["PatientSex"])
{guard}loader = DataLoader(frames, batch_size=4, num_workers=2, multiprocessing_context=sys.argv[3])
{guard}print(sorted(k for images, meta in loader for k in meta["index"].tolist()))
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_start_methods(series: Path, tmp_path: Path, method: str) -> None:
    # torch itself needs the guard for spawn and forkserver; scanning must not need it.
    guard = "" if method == "fork" else "if __name__ == '__main__': "
    script = tmp_path / "train.py"
    lines = SCRIPT.format(guard="").splitlines()
    if guard:
        lines[-2:] = ["if __name__ == '__main__':", "    " + lines[-2], "    " + lines[-1]]
    script.write_text("\n".join(lines))
    result = subprocess.run(
        [sys.executable, script, series, tmp_path / "cache", method],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[0] == str(list(range(10)))


KILLED = """
import os, signal, sys
from torch.utils.data import DataLoader
from dicomtorch import DicomFrames

frames = DicomFrames(sys.argv[1], cache_dir=sys.argv[2])
class Killer:
    def __call__(self, image):
        os.kill(os.getpid(), signal.SIGKILL)
frames.transform = Killer()
try:
    list(DataLoader(frames, batch_size=4, num_workers=1))
except RuntimeError as error:
    print(error)
frames.transform = None
print(len(DicomFrames(sys.argv[1], cache_dir=sys.argv[2], refresh=False)))
"""


def test_a_killed_worker_is_an_error_and_the_index_is_whole(series: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLED, series, tmp_path / "cache"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "exited unexpectedly" in result.stdout or "killed by signal" in result.stdout
    assert result.stdout.rstrip().endswith("10")


def test_every_bundled_file_decodes_or_says_why(tmp_path: Path) -> None:
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    frames = DicomFrames(root, on_error="replace", values="stored", cache_dir=tmp_path)
    reader = FrameReader(frames.index)
    good, reasons = 0, []
    for i in range(len(frames)):
        try:
            reader.read_stored(i)
            good += 1
        except DecodeError as error:
            reasons.append(str(error))
    assert good > 150
    assert all(", frame " in reason for reason in reasons)


@pytest.mark.skipif(not SAMPLES, reason="DICOMTORCH_SAMPLES names no folder of samples")
def test_the_seed_case(tmp_path: Path) -> None:
    path = Path(SAMPLES) / SEED
    stored = DicomFrames(path, values="stored", tags=["PatientSex"], cache_dir=tmp_path)
    assert len(stored) == 96
    expected = pydicom.dcmread(path).pixel_array
    for k in (0, 1, 47, 95):
        image, meta = stored[k]
        assert np.abs(image[0].numpy().astype(int) - expected[k]).max() <= 1
        assert "PatientSex" in meta
    frames = DicomFrames(path, cache_dir=tmp_path)
    seen: list[int] = []
    for images, meta in DataLoader(frames, batch_size=32, shuffle=True, num_workers=2):
        assert (images.shape[1:], images.dtype) == ((1, 512, 512), torch.float32)
        assert images.min() >= 0
        assert images.max() <= 1
        seen += meta["frame"].tolist()
    assert sorted(seen) == list(range(96))


def test_a_frame_index_as_source(series: Path) -> None:
    index, _ = scan(series)
    assert isinstance(index, FrameIndex)
    frames = DicomFrames(index.filter(InstanceNumber=[2, 9]))
    assert [meta["InstanceNumber"] for _, meta in frames] == [2, 9]


def test_resized_says_what_was_done(tmp_path: Path) -> None:
    write(ct(ct_pixels(0, 20, 40)), tmp_path / "a" / "0.dcm")
    frames = DicomFrames(tmp_path / "a", size=(30, 20))
    _, meta = frames[0]
    assert meta["resized"] == (0.5, 10.0, 0.0, 10.0, 20.0, 1.0)
    assert (meta["Rows"], meta["Columns"]) == (20, 40)
    assert frames[[0, 0]][1]["resized"].shape == (2, 6)


def test_an_odd_value_is_noted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path / "a", 3, WindowWidth=-5)
    frames = DicomFrames(tmp_path / "a")
    with caplog.at_level("WARNING", "dicomtorch"):
        for i in range(3):
            assert frames[i][1]["voi"] == "frame"
    (record,) = caplog.records
    assert "WindowWidth" in record.getMessage()


def test_mixed_numbers_of_a_wrapper_are_not_cut_off() -> None:
    batch = collate_meta([{"weight": 1, "k": 1}, {"weight": 0.5, "k": 2}])
    assert batch["weight"].tolist() == [1.0, 0.5]
    assert (batch["weight"].dtype, batch["k"].dtype) == (torch.float64, torch.int64)
