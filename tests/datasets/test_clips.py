"""Clips: which frames, in which order, with which times, and nothing decoded besides."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomClips, DicomFrames, FrameLoader
from dicomtorch.backends.imagecodecs import BACKEND
from dicomtorch.errors import DecodeError, FrameIndexError, OptionError, SourceError
from dicomtorch.storage.remote import RemoteStorage
from tests.support.http_server import counts, http_server
from tests.support.phantoms import ct, encapsulated, write
from tests.support.requirements import require

LENGTHS = [10, 6, 3]


def cine(number: int, count: int, **attributes: Any) -> Any:
    """Frame k of file n is all 10 n + k."""
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 6, 8))
    dataset = ct(
        np.ascontiguousarray(pixels + 10 * number).astype(np.uint8),
        number,
        FrameTime=20.0,
        **attributes,
    )
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
    return dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cines")
    for number, count in enumerate(LENGTHS):
        write(cine(number, count), root / f"{number}.dcm")
    return root


def stored(folder: Path, length: int, *args: Any, **options: Any) -> DicomClips:
    return DicomClips(folder, length, *args, values="stored", **options)


def values(clip: torch.Tensor) -> list[int]:
    """One number for each frame."""
    assert clip.shape[1:] == (1, 6, 8)
    assert bool((clip == clip[:, :, :1, :1]).all())
    return clip[:, 0, 0, 0].tolist()


def test_every_clip(folder):
    clips = stored(folder, 4, policy="drop")
    assert len(clips) == 7 + 3
    assert [values(clips[i][0])[0] for i in range(10)] == [0, 1, 2, 3, 4, 5, 6, 10, 11, 12]
    for i in range(10):
        clip, meta = clips[i]
        frames = values(clip)
        assert frames == list(range(frames[0], frames[0] + 4))
        assert meta["index"] == meta["requested_index"] == i
        assert meta["start"] == meta["frame"] == frames[0] % 10
        assert meta["times"] == tuple(20.0 * (f % 10) for f in frames)
        assert [clips.index.gather("frame", np.array([k]))[0] for k in meta["frames"]] == [
            f % 10 for f in frames
        ]


def test_stride_and_step(folder):
    clips = stored(folder, 3, 2, policy="drop", step=2)
    assert [values(clips[i][0]) for i in range(len(clips))] == [
        [0, 2, 4], [2, 4, 6], [4, 6, 8], [10, 12, 14]
    ]  # fmt: skip
    assert clips[1][1]["times"] == (40.0, 80.0, 120.0)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("repeat", {0: [0, 2, 4, 6, 8], 1: [10, 12, 14, 15, 15], 2: [20, 22, 22, 22, 22]}),
        ("wrap", {0: [0, 2, 4, 6, 8], 1: [10, 12, 14, 10, 12], 2: [20, 22, 21, 20, 22]}),
        ("drop", {0: [0, 2, 4, 6, 8]}),
    ],
)
def test_sequences_shorter_than_a_clip(folder, policy, expected):
    clips = stored(folder, 5, 2, policy=policy, step=100)
    found = [values(clips[i][0]) for i in range(len(clips))]
    assert found == [*expected.values()]
    assert values(clips[0:1][0][0]) == expected[0]


def test_short_sequences_are_an_error_unless_something_is_said(folder):
    with pytest.raises(
        OptionError, match=r'2 of 3 sequences .* the 9 frames .*1\.dcm: 6\); policy="drop"'
    ):
        stored(folder, 5, 2)
    with pytest.raises(SourceError, match="the longest of 3 has 10"):
        stored(folder, 11, policy="drop")


@pytest.mark.parametrize(
    ("number", "starts"), [(1, [3, 1]), (2, [0, 6, 0, 2]), (3, [0, 3, 6, 0, 1, 2])]
)
def test_uniform_clips(folder, number, starts):
    clips = stored(folder, 4, clips="uniform", num_clips=number, policy="drop")
    found = [clips[i][1]["start"] for i in range(len(clips))]
    assert found == starts


def test_uniform_clips_are_not_given_twice(folder):
    assert len(stored(folder, 9, clips="uniform", num_clips=5, policy="drop")) == 2


def test_random_clips_come_from_the_sampler(folder):
    clips = stored(folder, 3, clips="random", num_clips=2)
    with pytest.raises(OptionError, match=r"clips\.sampler"):
        clips[0]
    sampler = clips.sampler(seed=4)
    assert len(clips) == len(sampler) == 6
    seen: Counter[tuple[int, int]] = Counter()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        loader = DataLoader(clips, batch_size=3, sampler=sampler)
        metas = [meta for _, meta in loader]
        drawn = [
            (s, t)
            for m in metas
            for s, t in zip(m["index"].tolist(), m["start"].tolist(), strict=True)
        ]
        assert Counter(s for s, _ in drawn) == {0: 2, 1: 2, 2: 2}
        seen.update(drawn)
    assert {*seen} == {(s, t) for s, n in enumerate(LENGTHS) for t in range(n - 2)}
    assert seen[2, 0] == 120
    assert max(seen[0, t] for t in range(8)) < 3 * min(seen[0, t] for t in range(8))


def test_the_same_seed_and_epoch_give_the_same_clips(folder):
    def clips_of(seed: int, epoch: int) -> list[Any]:
        clips = stored(folder, 3, clips="random", num_clips=4)
        sampler = clips.sampler(seed=seed)
        sampler.set_epoch(epoch)
        return [m["start"].tolist() for _, m in FrameLoader(clips, 4, sampler=sampler)]

    assert clips_of(1, 3) == clips_of(1, 3)
    assert clips_of(1, 3) != clips_of(1, 4)
    assert clips_of(1, 3) != clips_of(2, 3)


def test_only_the_frames_of_the_clip_are_decoded(tmp_path):
    decoded = []

    class Counting:
        name = "counting"

        def supports(self, pixel: Any) -> bool:
            return BACKEND.supports(pixel)

        def decode(self, data: Any, pixel: Any, out: Any = None) -> Any:
            decoded.append(bytes(data[:1]))
            return BACKEND.decode(data, pixel, out)

    write(cine(0, 10), tmp_path / "0.dcm")
    clips = DicomClips(tmp_path, 3, 2, backend=Counting())
    clips[2]
    assert sorted(decoded) == [b"\x02", b"\x04", b"\x06"]
    decoded.clear()
    short = DicomClips(tmp_path, 8, 2, backend=Counting(), policy="wrap")
    short[0]
    assert sorted(decoded) == [b"\x00", b"\x02", b"\x04", b"\x06", b"\x08"]


def test_one_mapping_for_all_frames(tmp_path):
    dataset = cine(0, 4)
    del dataset.WindowCenter, dataset.WindowWidth
    dataset.RescaleSlope = 2
    write(dataset, tmp_path / "0.dcm")
    clip, meta = DicomClips(tmp_path, 4)[0]
    np.testing.assert_allclose(clip[:, 0, 0, 0].numpy(), [0, 1 / 3, 2 / 3, 1], atol=1e-6)
    assert meta["voi"] == "sample"


@pytest.mark.parametrize("workers", [0, 2])
def test_batches(folder, workers):
    clips = stored(folder, 3)
    loader = DataLoader(clips, batch_size=5, num_workers=workers)
    found = list(loader)
    assert [len(batch) for batch, _ in found] == [5, 5, 3]
    batch, meta = found[1]
    assert batch.shape == (5, 3, 1, 6, 8)
    assert [values(clip) for clip in batch] == [values(clips[i][0]) for i in range(5, 10)]
    assert meta["index"].tolist() == [5, 6, 7, 8, 9]
    assert (meta["frames"].shape, meta["frames"].dtype) == ((5, 3), torch.int64)
    assert (meta["times"].shape, meta["times"].dtype) == ((5, 3), torch.float64)
    again, _ = clips[[5, 6, 7, 8, 9]]
    assert torch.equal(again, batch)


def test_a_time_series_of_files(tmp_path):
    for k, t in enumerate([3, 1, 2, 0]):
        pixels = np.full((6, 8), t, np.uint8)
        write(
            ct(pixels, k, AcquisitionTime=f"10000{t}", ImagePositionPatient=[0, 0, 1]),
            tmp_path / f"{k}.dcm",
        )
    clips = stored(tmp_path, 3)
    assert [values(clips[i][0]) for i in range(2)] == [[0, 1, 2], [1, 2, 3]]
    assert clips[1][1]["times"] == (1000.0, 2000.0, 3000.0)
    assert clips[1][1]["frames"] == (1, 2, 0)


def test_transform_gets_the_clip(folder):
    clips = stored(folder, 3, transform=lambda clip: clip.float().mean((1, 2, 3)))
    assert clips[0][0].tolist() == [0, 1, 2]
    assert clips[[0, 1]][0].shape == (2, 3)


def test_pickles(folder):
    clips = stored(folder, 3)
    assert torch.equal(pickle.loads(pickle.dumps(clips))[4][0], clips[4][0])


def test_sequence_and_start(folder):
    clips = stored(folder, 3, clips="random")
    assert values(clips[1, 2][0]) == [12, 13, 14]
    with pytest.raises(FrameIndexError, match="sequence 1 has 4 starts; got 4"):
        clips[1, 4]
    with pytest.raises(FrameIndexError, match="sequence 3 is outside"):
        clips[3, 0]


def test_positions_outside(folder):
    clips = stored(folder, 3)
    assert values(clips[-1][0]) == [20, 21, 22]
    with pytest.raises(FrameIndexError, match="clip 13 is outside"):
        clips[13]
    with pytest.raises(OptionError, match="asked for by an integer"):
        clips["1"]
    with pytest.raises(OptionError, match="an empty list"):
        clips[5:5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be 1 or more"),
        ({"length": 3, "stride": 0}, "stride must be 1 or more"),
        ({"length": 3, "clips": "some"}, 'clips must be "all"'),
        ({"length": 3, "policy": "pad"}, "policy must be"),
        ({"length": 3, "clips": "random", "step": 2}, "step goes with"),
        ({"length": 3, "num_clips": 2}, "num_clips goes with"),
    ],
)
def test_options_that_mean_nothing(folder, options, message):
    with pytest.raises(OptionError, match=message):
        DicomClips(folder, **options)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    imagecodecs = pytest.importorskip("imagecodecs")
    for number in range(2):
        dataset = cine(number, 4)
        streams = [
            imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True)
            for frame in np.frombuffer(dataset.PixelData, np.uint8).reshape(4, 6, 8)
        ]
        if number == 0:
            streams[2] = streams[2][: len(streams[2]) // 3]
        write(encapsulated(dataset, streams), tmp_path / "damaged" / f"{number}.dcm")
    return tmp_path / "damaged"


def test_a_damaged_frame_raises(damaged):
    clips = stored(damaged, 2)
    assert values(clips[0][0]) == [0, 1]
    with pytest.raises(DecodeError, match=r"0\.dcm, frame 2"):
        clips[1]


def test_a_damaged_frame_is_replaced_in_the_open(damaged):
    clips = stored(damaged, 2, on_error="replace")
    with pytest.warns(UserWarning, match=r"0\.dcm, frame 2.*Clip 1 was replaced by clip 3"):
        batch, meta = clips[0:4]
    assert meta["index"].tolist() == [0, 3, 3, 3]
    assert meta["requested_index"].tolist() == [0, 1, 2, 3]
    assert [values(clip) for clip in batch] == [[0, 1], [10, 11], [10, 11], [10, 11]]
    assert [(f.index, f.replaced_by) for f in clips.failures] == [(1, 3), (2, 3)]
    drawn = stored(damaged, 2, clips="random", on_error="replace")
    with pytest.warns(UserWarning, match="was replaced"):
        clip, meta = drawn[0, 2]
    assert values(clip) == [12, 13]
    assert (meta["index"], meta["requested_index"], meta["start"]) == (1, 0, 2)


def test_single_frames_of_the_clip_are_those_of_the_dataset(folder):
    frames = DicomFrames(folder, values="modality")
    clip, meta = DicomClips(folder, 3, values="modality")[4]
    assert torch.equal(clip, torch.stack([frames[i][0] for i in meta["frames"]]))


def test_frames_of_overlapping_clips_are_asked_for_once(tmp_path: Path) -> None:
    require("obstore")
    require("fsspec")
    stored = np.random.default_rng(0).integers(0, 2000, (70, 16, 16), np.int16)
    write(ct(stored), tmp_path / "cine.dcm")
    with http_server(tmp_path) as address:
        clips = DicomClips(address, 16, values="stored")
        assert len(clips) == 55
        counts(address)
        for images, meta in FrameLoader(clips, 4, shuffle=True):
            for clip, start in zip(images, meta["start"], strict=True):
                assert (clip[:, 0].numpy() == stored[start : start + 16]).all()
        assert counts(address)["GET"] <= 6  # 880 frames are read, of 70
        clips[[5, 6, 7, 20]]
        assert counts(address)["GET"] <= 2
        storage = clips._source.reader.fetcher.storage
        assert isinstance(storage, RemoteStorage)
        assert (storage._ahead._held, storage._ahead._kept_bytes) == (0, 0)
