"""What datasets draw, and what the titles say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomtorch import DicomClips, DicomFrames, DicomVolumes, scan
from dicomtorch.errors import OptionError
from dicomtorch.pictures import plot
from tests.support.phantoms import ct, ct_pixels, write, write_series

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("PIL.Image")
matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_series(tmp_path / "series", 10)
    return tmp_path / "series"


def drawn(figure: Any) -> tuple[np.ndarray[Any, Any], str]:
    axes = figure.axes[0]
    return np.asarray(axes.images[0].get_array()), axes.get_title()


def test_the_title_says_which_frame_it_is_and_how_it_was_made(series: Path) -> None:
    frames = DicomFrames(series)
    picture, title = drawn(frames.show(4))
    np.testing.assert_array_equal(picture, frames[4][0][0].numpy())
    first, second, third = title.splitlines()
    assert first == "frame 4 of 10, CT, 5 of 10 in its series"
    assert second == "values='display', window 40 / 400 (file)"
    assert third.endswith("004.dcm, frame 0")
    assert len(third) <= 90
    _, title = drawn(DicomFrames(series, values="stored").show(4))
    assert title.splitlines()[1] == "values='stored'"


def test_the_place_in_the_series_is_that_of_the_slice(tmp_path: Path) -> None:
    for number, k in enumerate((2, 0, 1)):
        write(ct(ct_pixels(k), k), tmp_path / f"{number}.dcm")
    titles = [drawn(DicomFrames(tmp_path).show(k))[1] for k in range(3)]
    assert [title.splitlines()[0].split(", ")[2] for title in titles] == [
        "3 of 3 in its series",
        "1 of 3 in its series",
        "2 of 3 in its series",
    ]


def test_copies_of_a_slice_can_be_drawn_though_their_order_is_unknown(tmp_path: Path) -> None:
    for number in range(2):
        write(ct(ct_pixels(), 0), tmp_path / f"{number}.dcm")
    assert "2 of 2 in its series" in drawn(DicomFrames(tmp_path).show(1))[1]


@pytest.mark.parametrize("context", [1, 2])
def test_of_frames_with_context_the_middle_one_is_drawn(series: Path, context: int) -> None:
    frames = DicomFrames(series, context=context)
    picture, title = drawn(frames.show(4))
    np.testing.assert_array_equal(picture, frames[4][0][context].numpy())
    assert title.startswith("frame 4 of 10")
    assert f"the middle one of {2 * context + 1} frames" in title


def test_windows_are_drawn_side_by_side_and_never_as_colour(series: Path) -> None:
    for windows in ([(40, 400), "lung"], ["bone", "lung", (40, 80)]):
        frames = DicomFrames(series, window=windows)
        picture, title = drawn(frames.show(4))
        np.testing.assert_array_equal(picture, np.concatenate(list(frames[4][0].numpy()), axis=1))
        assert picture.shape == (24, 32 * len(windows))
        assert "windows " in title
        assert "lung" in title
    frames = DicomFrames(series, window=[(40, 400), "lung"], context=1)
    picture, title = drawn(frames.show(4))
    np.testing.assert_array_equal(picture, np.concatenate(list(frames[4][0][2:4].numpy()), axis=1))
    assert "middle one of 3" in title
    assert "40 / 400 | lung" in title


def test_colour_is_drawn_as_colour_and_other_channels_side_by_side(series: Path) -> None:
    frames = DicomFrames(series, color="rgb")
    assert drawn(frames.show(0))[0].shape == (24, 32, 3)
    frames = DicomFrames(series, transform=lambda image: image.repeat(5, 1, 1))
    picture, title = drawn(frames.show(0))
    assert picture.shape == (24, 160)
    assert "5 channels side by side" in title
    with pytest.raises(OptionError, match="this transform gives something else"):
        DicomFrames(series, transform=lambda image: image.mean()).show(0)


def test_several_frames(series: Path) -> None:
    frames = DicomFrames(series)
    for chosen in (None, [4, 5], slice(4, 6), range(4, 6), torch.tensor([4, 5])):
        figure = frames.show(chosen)
        first = 0 if chosen is None else 4
        assert drawn(figure)[1].startswith(f"frame {first} of 10")
    with pytest.raises(OptionError, match="asked for by"):
        frames.show("4")


def test_a_long_path_is_cut_in_the_middle(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 5)
    write(ct(ct_pixels()), deep / "image.dcm")
    line = drawn(DicomFrames(tmp_path).show(0))[1].splitlines()[2]
    assert line.startswith("/")
    assert line.endswith(".../image.dcm, frame 0")
    assert len(line) <= 80


def test_slices_of_a_volume_and_frames_of_a_clip(series: Path) -> None:
    volumes = DicomVolumes(series)
    picture, title = drawn(volumes.show())
    np.testing.assert_array_equal(picture, volumes[0][0][0, 5].numpy())
    assert title.startswith("volume 0 of 1, 6 of 10, CT, 6 of 10 in its series")
    assert "005.dcm" in title
    two = DicomVolumes(series, window=["bone", "lung"])
    assert drawn(two.show(0))[0].shape == (24, 64)


def test_frames_of_a_clip(tmp_path: Path) -> None:
    write(ct(np.stack([ct_pixels(k) for k in range(6)])), tmp_path / "a.dcm")
    for clips in (DicomClips(tmp_path, 4), DicomClips(tmp_path, 4, clips="random")):
        picture, title = drawn(clips.show((0, 1)))
        np.testing.assert_array_equal(picture, clips[0, 1][0][2, 0].numpy())
        assert title.startswith("clip 0 of 1, 3 of 4" if clips.clips == "random" else "clip 0 of 3")
        assert title.endswith("a.dcm, frame 3")
        assert drawn(clips.show())[1].endswith("frame 2")


def test_thumbnails_of_context_are_of_the_middle_frame(series: Path) -> None:
    plain, wide = (DicomFrames(series, context=c)._repr_html_() for c in (0, 2))
    assert plain == wide


def test_a_batch_is_drawn_after_its_transform_with_labels(series: Path, monkeypatch: Any) -> None:
    captions: list[str] = []
    original = plot.contact_sheet

    def sheet(images: Any, given: Any, **options: Any) -> Any:
        captions.extend(given)
        return original(images, given, **options)

    monkeypatch.setattr("dicomtorch.datasets.drawn.contact_sheet", sheet)
    index, _ = scan(series, tags=["PatientSex"])
    table = {"InstanceNumber": list(range(1, 11)), "grade": [k / 2 for k in range(10)]}
    frames = DicomFrames(
        index.join(table, on="InstanceNumber"),
        tags=["PatientSex"],
        transform=lambda image: 1 - image,
    )
    picture = frames.show_batch([4, -1])
    assert captions == ["4: 2 F", "9: 4.5 F"]
    tiles = np.asarray(picture)
    expected = plot.contact_sheet(
        [(1 - DicomFrames(series)[k][0]).numpy() for k in (4, 9)], captions
    )
    np.testing.assert_array_equal(tiles, np.asarray(expected))
    captions.clear()
    assert DicomFrames(series).show_batch().size[0] == 8 * (128 + plot.MARGIN) + plot.MARGIN
    assert captions == [str(k) for k in range(10)]
    assert DicomFrames(series).show_batch(3).size == (128 + 2 * plot.MARGIN, 150)


def test_a_batch_of_volumes_and_clips_shows_their_middle(series: Path) -> None:
    volumes = DicomVolumes(series, window=["bone", "lung"])
    assert volumes.show_batch().size == (128 + 2 * plot.MARGIN, 150)
    clips = DicomClips(series, 1)
    assert clips.show_batch(range(3)).size == (3 * (128 + plot.MARGIN) + plot.MARGIN, 150)
    with pytest.raises(OptionError, match="asked for by"):
        volumes.show_batch("0")
