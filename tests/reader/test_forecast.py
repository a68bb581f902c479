"""What an epoch is said to ask a server for is what it asks for, counted by the server."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import RLELossless
from torch.utils.data import DataLoader, Dataset, Subset

from dicomtorch import DicomClips, DicomFrames, FrameLoader, FrameReader, PixelOptions, scan
from dicomtorch.errors import OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.reader.forecast import Forecast, forecast
from dicomtorch.reports.info import describe, format_info
from tests.support.http_server import counts, http_server
from tests.support.phantoms import ct, write
from tests.support.requirements import require

require("obstore")
require("fsspec")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FrameIndex]]:
    """Objects of one frame, one of many small frames, one of large ones, and one of compressed frames."""
    folder: Path = tmp_path_factory.mktemp("served")
    random = np.random.default_rng(0)
    for k in range(20):
        write(ct(random.integers(0, 2000, (48, 40), np.int16)), folder / f"{k:02}.dcm")
    write(ct(random.integers(0, 2000, (50, 32, 32), np.int16)), folder / "small.dcm")
    write(ct(random.integers(0, 2000, (24, 600, 600), np.int16)), folder / "large.dcm")
    compressed = ct(random.integers(0, 2000, (30, 64, 64), np.int16))
    compressed.compress(RLELossless)
    write(compressed, folder / "rle.dcm")
    with http_server(folder) as address:
        yield address, scan(address)[0]


def whole(index: FrameIndex) -> DicomFrames:
    return DicomFrames(index, values="stored")


def clips(index: FrameIndex) -> DicomClips:
    return DicomClips(index.filter(Rows=32), length=10, step=10, values="stored")


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (whole, {"batch_size": 1, "shuffle": True}),
        (whole, {"batch_size": 16, "shuffle": True}),
        (whole, {"batch_size": 16}),
        (lambda index: Subset(whole(index), range(20, 100)), {"batch_size": 7, "shuffle": True}),
        (clips, {"batch_size": 2, "shuffle": True}),
    ],
)
def test_an_epoch_asks_for_what_was_said(
    served: tuple[str, FrameIndex], make: Callable[[FrameIndex], Any], options: dict[str, Any]
) -> None:
    address, index = served
    dataset = make(index)
    make_loader: Any = FrameLoader
    loader = make_loader(dataset, collate_fn=list, seed=3, **options)
    said = loader.forecast()
    counts(address)
    assert len(list(loader)) == len(loader)
    seen = counts(address)
    assert (seen["GET"], seen["bytes"], said.unsized) == (said.requests, said.bytes, 0)


def test_frames_that_samples_share_are_asked_for_again_at_most(
    served: tuple[str, FrameIndex],
) -> None:
    address, index = served
    frames = DicomFrames(index.filter(Rows=32), values="stored", context=1)
    loader = FrameLoader(frames, 8)
    said = loader.forecast()
    shared = 2 * (len(loader) - 1)  # of each two batches, on their own where they are not asked for
    counts(address)
    assert len(list(loader)) == len(loader)
    seen = counts(address)
    assert said.requests <= seen["GET"] <= said.requests + shared
    assert seen["bytes"] <= said.bytes


def test_workers_of_torch_ask_for_the_same(served: tuple[str, FrameIndex]) -> None:
    address, index = served
    frames = whole(index)
    order = np.random.default_rng(1).permutation(len(frames))
    batches = np.array_split(order, 10)
    said = forecast(index, [some.tolist() for some in batches])
    counts(address)
    data: Dataset[Any] = frames
    for _ in DataLoader(data, batch_sampler=[some.tolist() for some in batches], collate_fn=list):
        pass
    seen = counts(address)
    assert (seen["GET"], seen["bytes"]) == said[:2]


def test_info_says_what_an_epoch_at_random_and_in_order_asks_for(
    served: tuple[str, FrameIndex], tmp_path: Path
) -> None:
    address, index = served
    found = describe(index, index.report())
    frames = whole(index)
    counts(address)
    for k in range(len(frames)):
        frames[k]
    seen = counts(address)
    assert found["epoch"]["random"] == {
        "requests": seen["GET"],
        "bytes": seen["bytes"],
        "unsized": 0,
    }
    assert seen["GET"] == len(frames) == 124
    for first in range(0, len(frames), 32):
        frames.__getitems__(list(range(first, min(first + 32, len(frames)))))
    seen = counts(address)
    assert found["epoch"]["grouped"]["requests"] == seen["GET"] < 40
    assert found["epoch"]["grouped"]["bytes"] == seen["bytes"]
    text = format_info(found)
    assert f"Epoch in order, batches of 32  {seen['GET']} requests, " in text
    assert "Epoch at random" in text
    file = write(ct(np.zeros((8, 8), np.int16)), tmp_path / "a.dcm")
    here, report = scan(file)
    assert describe(here, report)["epoch"] is None
    assert "Epoch" not in format_info(describe(here, report))
    assert FrameLoader(DicomFrames(here), 2).forecast() == Forecast(0, 0)


def test_other_datasets_have_none() -> None:
    with pytest.raises(OptionError, match="list"):
        FrameLoader([1, 2], 1).forecast()


def test_deflated_data_sets_in_stored_members_have_a_request_each() -> None:
    import fsspec

    content, data = io.BytesIO(), Path(str(get_testdata_file("image_dfl.dcm"))).read_bytes()
    with zipfile.ZipFile(content, "w") as archive:
        for k in range(6):
            archive.writestr(f"{k}.dcm", data)
    fsspec.filesystem("memory").pipe("/forecast/a.zip", content.getvalue())
    index, _ = scan("memory://forecast/a.zip")
    reader = FrameReader(index, options=PixelOptions(values="stored"))
    storage: Any = reader.fetcher.storage
    before = storage.requests
    reader.read_many(list(range(6)))
    assert storage.requests - before == 6
    assert forecast(index, [range(6)]).requests == 6
