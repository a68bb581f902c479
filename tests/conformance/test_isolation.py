"""`isolation="process"` holds for whatever decodes: a frame that ends its decoder is an error of that frame alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import UID
from torch.utils.data import DataLoader

from dicomtorch import (
    DicomClips,
    DicomCrops,
    DicomFrames,
    DicomPatches,
    DicomTiles,
    DicomVolumes,
    FrameLoader,
    Limits,
    MaskIndex,
    scan,
)
from dicomtorch.backends.base import choose_backend
from dicomtorch.errors import DecodeError
from dicomtorch.integrations.shards import ReadSample, samples
from dicomtorch.masks.dose import RT_DOSE
from dicomtorch.model.syntaxes import JPEG_2000_LOSSLESS
from dicomtorch.viewer.content import Content
from dicomtorch.viewer.looked import Opened
from tests.support import mask_phantoms, misbehaving, slide_phantoms
from tests.support.archives import KINDS, pack
from tests.support.dicomweb_server import dicomweb_server
from tests.support.http_server import http_server
from tests.support.misbehaving import Misbehaving
from tests.support.phantoms import ct, ct_pixels, encapsulated, image, write
from tests.support.requirements import require

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")

ENDED = r"misbehaving ended its process.*SIGSEGV"
LATE = r"Limits\.decode_seconds"
# Frames take no time here, but a busy machine may be slow to wake up the process that decodes them.
LIMITS = Limits(decode_seconds=1.5)
WAYS = (misbehaving.FINE, misbehaving.CRASH, misbehaving.HANG, misbehaving.FINE)
SAID = ("", ENDED, LATE, "")


@pytest.fixture(autouse=True)
def misbehaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encapsulated frames are decoded by what does to its process as their first byte says."""

    def chosen(backend: Any, pixel: Any) -> Any:
        return Misbehaving() if pixel.is_encapsulated else choose_backend(backend, pixel)

    monkeypatch.setattr("dicomtorch.reader.choice.choose_backend", chosen)


def stream(what: int, value: int = 1) -> bytes:
    return bytes((what, value))


def slices(folder: Path, rows: int = 24, columns: int = 32) -> Path:
    """Slices of which the second ends and the third hangs whatever decodes it."""
    for k, what in enumerate(WAYS):
        dataset = ct(ct_pixels(k, rows, columns), k)
        write(encapsulated(dataset, [stream(what, k + 1)]), folder / f"{k}.dcm")
    return folder


def as_said(data: Any, said: tuple[str, ...] = SAID) -> None:
    """Each sample is read or fails as it should, good ones also after bad ones."""
    for i, expected in enumerate(said):
        if expected:
            with pytest.raises(DecodeError, match=expected):
                data[i]
        else:
            data[i]


def test_every_way_to_frames(tmp_path: Path) -> None:
    index = scan(slices(tmp_path), limits=LIMITS)[0]
    options: dict[str, Any] = {"values": "stored", "isolation": "process"}
    as_said(DicomFrames(index, **options))
    as_said(DicomFrames(index, size=(6, 8), decode="reduced", isolation="process"))
    as_said(DicomClips(index, 1, **options))
    boxes = {
        "SOPInstanceUID": index.gather("SOPInstanceUID", np.arange(4)),
        **{"xmin": [2] * 4, "ymin": [3] * 4, "xmax": [9] * 4, "ymax": [11] * 4},
    }
    as_said(DicomCrops(index, boxes, size=(8, 8), **options))
    as_said(DicomPatches(index, (8, 8), per_frame=1, **options))
    volumes = DicomVolumes(index, values="modality", isolation="process")
    with pytest.raises(DecodeError, match=f"{ENDED}|{LATE}"):
        volumes[0]
    good = DicomFrames(index.select([0, 3]), **options)
    assert [int(image.max()) for image, _ in good] == [1, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_go_on(tmp_path: Path, workers: int) -> None:
    index = scan(slices(tmp_path), limits=LIMITS)[0]
    frames = DicomFrames(index, values="stored", isolation="process", on_error="replace")
    with pytest.warns(UserWarning, match="replaced"):
        frames[1]
    loader = DataLoader(frames, 4, num_workers=1) if workers else FrameLoader(frames, 4)
    found = [value for images, _ in loader for value in images.flatten(1).amax(1).tolist()]
    assert set(found) <= {1, 4}
    assert len(found) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_archives(tmp_path: Path, kind: str) -> None:
    slices(tmp_path / "files")
    archive = pack(tmp_path / "files", tmp_path / kind)
    as_said(DicomFrames(scan(archive, limits=LIMITS)[0], values="stored", isolation="process"))


def test_servers(tmp_path: Path) -> None:
    with http_server(slices(tmp_path)) as address:
        index = scan(address, limits=LIMITS)[0]
        as_said(DicomFrames(index, values="stored", isolation="process"))
    datasets = [
        encapsulated(ct(ct_pixels(k), k), [stream(what, k + 1)]) for k, what in enumerate(WAYS)
    ]
    with dicomweb_server(datasets) as server:
        index = scan(server.address, limits=LIMITS)[0]
        order = np.argsort(index.gather("InstanceNumber", np.arange(4)))
        as_said(DicomFrames(index.select(order), values="stored", isolation="process"))


def test_tiles_of_slides(tmp_path: Path) -> None:
    ways = iter(WAYS)
    dataset = slide_phantoms.level(
        slide_phantoms.tissue(32, 32),
        encode=lambda _: stream(next(ways)),
        syntax="1.2.840.10008.1.2.4.50",
        PhotometricInterpretation="YBR_FULL_422",
    )
    write(dataset, tmp_path / "a.dcm")
    index = scan(tmp_path, limits=LIMITS)[0]
    as_said(DicomTiles(index, 16, tissue=None, isolation="process"))


def compressed(dataset: Any, ways: tuple[int, ...]) -> Any:
    return encapsulated(dataset, [stream(what) for what in ways], JPEG_2000_LOSSLESS)


@pytest.mark.parametrize("is_resampled", [False, True])
def test_masks(tmp_path: Path, is_resampled: bool) -> None:
    series = mask_phantoms.series(tmp_path, 4)
    ones = np.ones((12, 16), np.uint8)
    places: list[Any] = list(range(4))
    if is_resampled:
        places = [(0.5, 0.5, 2.0 * k) for k in range(4)]

    def encoded(dataset: Any) -> None:
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        compressed(dataset, WAYS)

    mask_phantoms.segmentation(
        tmp_path / "seg.dcm",
        series,
        [(1, place, ones) for place in places],
        names=["first"],
        edit=encoded,
    )
    index = scan(tmp_path, limits=LIMITS)[0]
    options: dict[str, Any] = {"resample": "nearest"} if is_resampled else {}
    frames = DicomFrames(index, masks=True, isolation="process", **options)
    if is_resampled:  # all frames of the object are one volume
        for _ in range(2):
            with pytest.raises(DecodeError, match=ENDED):
                frames[0]
        return
    as_said(frames)
    assert int(frames[3][1].sum()) == ones.size
    alone = MaskIndex(index.filter(Modality="CT"), index, isolation="process")
    with pytest.raises(DecodeError, match=ENDED):
        alone.mask(1)


def test_dose(tmp_path: Path) -> None:
    mask_phantoms.series(tmp_path, 2)
    dataset = image(
        np.ones((2, 6, 8), np.uint16),
        SOPClassUID=RT_DOSE,
        Modality="RTDOSE",
        FrameOfReferenceUID=mask_phantoms.SPACE,
        PixelSpacing=[2, 2],
        DoseGridScaling=0.5,
        DoseUnits="GY",
        GridFrameOffsetVector=[0.0, 2.0],
        FrameIncrementPointer=0x3004000C,
    )
    dataset.file_meta.MediaStorageSOPClassUID = UID(RT_DOSE)
    write(compressed(dataset, (misbehaving.FINE, misbehaving.CRASH)), tmp_path / "dose.dcm")
    index = scan(tmp_path, limits=LIMITS)[0]
    volumes = DicomVolumes(index, dose=True, isolation="process")
    with pytest.raises(DecodeError, match=ENDED):
        volumes[0]


def test_copies_of_frames(tmp_path: Path) -> None:
    index = scan(slices(tmp_path / "files"), limits=LIMITS)[0]
    written = index.write(
        tmp_path / "shards", frames="stored", on_error="skip", isolation="process"
    )
    assert written.frames == 2
    assert "ended its process" in written.skipped[0]
    kept = list(samples(index.select([0, 1])))
    read = ReadSample(values="stored", isolation="process")
    assert int(read.read(kept[0][1], kept[0][2])[0].max()) == 1
    with pytest.raises(DecodeError, match=ENDED):
        read.read(kept[1][1], kept[1][2])


def test_what_the_viewer_shows(tmp_path: Path) -> None:
    require("starlette")
    index = scan(slices(tmp_path), limits=LIMITS)[0]
    frames = DicomFrames(index.select([0, 3]), isolation="process")
    for opened in (
        Opened(DicomFrames(index, isolation="process", on_error="replace")),
        Opened(frames, index=index, positions=np.array([0, 3])),
    ):
        content = Content(opened)
        try:
            answers = [content.answer(f"frames/{k}/source", {}) for k in range(3)]
        finally:
            content.close()
        assert [answer.status for answer in answers] == [200, 422, 422]
        assert "SIGSEGV" in answers[1].info["error"]
        assert "Limits.decode_seconds" in answers[2].info["error"]
