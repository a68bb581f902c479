"""Pictures, under the Agg backend: events are fired as matplotlib fires them."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import numpy as np
import pytest

from dicomtorch.errors import DecodeError, MissingDependencyError, OptionError
from dicomtorch.pictures import plot

matplotlib = pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")
matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.backend_bases import KeyEvent, MouseButton, MouseEvent  # noqa: E402


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def frames(k: int) -> tuple[Any, str]:
    return np.full((4, 6), k / 10, np.float32), f"frame {k}"


def one_frame(image: Any, title: str = "") -> Any:
    return plot.show_frames(lambda _: (image, title), 1)


def shown(figure: Any) -> Any:
    return figure.axes[0].images[0]


def scroll(figure: Any, step: int) -> None:
    event = MouseEvent("scroll_event", figure.canvas, 5, 5, step=step)
    figure.canvas.callbacks.process("scroll_event", event)


def press(figure: Any, key: str) -> None:
    figure.canvas.callbacks.process(
        "key_press_event", KeyEvent("key_press_event", figure.canvas, key)
    )


def test_one_frame():
    figure = one_frame(np.eye(3, dtype=np.float32), "title")
    assert figure.axes[0].get_title() == "title"
    np.testing.assert_array_equal(shown(figure).get_array(), np.eye(3))
    assert shown(figure).get_clim() == (0, 1)
    assert len(figure.axes) == 1


@pytest.mark.parametrize(
    ("image", "shape", "limits"),
    [
        (np.zeros((1, 4, 5), np.float32), (4, 5), (0, 1)),
        (np.array([[-1000, 2000]], np.int16), (1, 2), (-1000, 2000)),
        (np.array([[7, 7]], np.int16), (1, 2), (7, 8)),
        (np.array([[0.0, np.nan, np.inf]]), (1, 3), (0, 1)),
        (np.zeros((3, 4, 5), np.float32), (4, 5, 3), (0, 1)),
        (np.zeros((4, 5, 3), np.uint8), (4, 5, 3), (0, 255)),
        (np.full((3, 4, 5), 4095, np.uint16), (4, 5, 3), (0, 1)),
    ],
)
def test_kinds_of_images(image, shape, limits):
    figure = one_frame(image)
    assert shown(figure).get_array().shape == shape
    assert shown(figure).get_clim() == limits
    figure.canvas.draw()


@pytest.mark.parametrize("shape", [(4,), (2, 4, 5), (4, 5, 6, 7), (0, 5)])
def test_shapes_that_are_no_image(shape):
    with pytest.raises(OptionError, match="neither gray nor colour"):
        one_frame(np.zeros(shape))


def test_wheel_keys_and_slider_go_through_the_frames():
    figure: Any = plot.show_frames(frames, 5, start=1, controls=True)

    def position() -> int:
        return round(float(shown(figure).get_array()[0, 0]) * 10)

    assert position() == 1
    scroll(figure, -1)
    assert (position(), figure.axes[0].get_title()) == (2, "frame 2")
    scroll(figure, 1)
    scroll(figure, 1)
    scroll(figure, 1)
    assert position() == 0
    for key, expected in [("right", 1), ("down", 2), ("left", 1), ("up", 0), ("end", 4), ("right", 4),
                          ("pageup", 0), ("pagedown", 4), ("home", 0), ("l", 0), ("f12", 0)]:  # fmt: skip
        press(figure, key)
        assert position() == expected, key
    slider = figure._dicomtorch_browser.slider
    x = slider.ax.transData.transform((3, 0.5))
    for name in ("button_press_event", "button_release_event"):
        event = MouseEvent(name, figure.canvas, x[0], x[1], MouseButton.LEFT)
        figure.canvas.callbacks.process(name, event)
    assert (position(), slider.val) == (3, 3)
    figure.canvas.draw()


def test_each_frame_is_asked_for_once_and_only_when_shown():
    asked = []

    def get(k: int) -> tuple[Any, str]:
        asked.append(k)
        return frames(k)

    figure = plot.show_frames(get, 1000, controls=True)
    scroll(figure, -1)
    press(figure, "end")
    press(figure, "end")
    assert asked == [0, 1, 999]


def test_frames_of_other_sizes_kinds_and_errors():
    def get(k: int) -> tuple[Any, str]:
        if k == 2:
            raise DecodeError("stream is damaged")
        return [np.zeros((4, 6)), np.full((3, 10, 8), 0.5), None, np.full((2, 2), 100.0)][k], ""

    figure = plot.show_frames(get, 4, controls=True)
    axes = figure.axes[0]
    scroll(figure, -1)
    assert shown(figure).get_array().shape == (10, 8, 3)
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 7.5), (9.5, -0.5))
    scroll(figure, -1)
    assert "stream is damaged" in axes.get_title()
    assert not shown(figure).get_visible()
    scroll(figure, -1)
    assert shown(figure).get_visible()
    assert shown(figure).get_clim() == (100, 101)
    figure.canvas.draw()


def test_without_an_interactive_backend_the_figure_is_plain():
    figure = plot.show_frames(frames, 5)
    assert len(figure.axes) == 1


def test_interactive_backends_get_controls(monkeypatch):
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "module://ipympl.backend_nbagg")
    assert len(plot.show_frames(frames, 5).axes) == 2
    assert len(plot.show_frames(frames, 1).axes) == 1


@pytest.mark.parametrize(("count", "start"), [(0, 0), (3, 3), (3, -1)])
def test_no_such_frame(count, start):
    with pytest.raises(OptionError, match=f"no frame {start} among {count}"):
        plot.show_frames(frames, count, start)


def test_a_closed_figure_leaves_nothing_behind():
    class Source:
        def __call__(self, k: int) -> tuple[Any, str]:
            return frames(k)

    source: Any = Source()
    figure: Any = plot.show_frames(source, 5, controls=True)
    scroll(figure, -1)
    alive = [weakref.ref(figure), weakref.ref(source), weakref.ref(figure._dicomtorch_browser)]
    pyplot.close(figure)
    del figure, source
    gc.collect()
    assert [reference() for reference in alive] == [None] * 3


def test_contact_sheet(tmp_path):
    images: list[Any] = [
        np.ones((10, 20), np.float32),
        np.stack([np.ones((20, 10)), np.zeros((20, 10)), np.zeros((20, 10))]).astype(np.float32),
        np.arange(256, dtype=np.uint8).reshape(16, 16),
    ]
    path = tmp_path / "sheet.png"
    sheet = plot.contact_sheet(
        iter(images), ["CT", "a caption far too long for it", "\x1b[2J"], 2, 64, path
    )
    assert (sheet.mode, sheet.size) == ("RGB", (2 * 68 + 4, 2 * (64 + 14 + 4) + 4))
    pixels = np.asarray(sheet)
    white, red = pixels[4 : 4 + 64, 4 : 4 + 64], pixels[4 : 4 + 64, 72 : 72 + 64]
    # Aspect kept: 64 x 32 in the middle, the rest is the sheet's.
    assert (white[16:48] == 255).all()
    assert (white[:16] == 32).all()
    assert (white[48:] == 32).all()
    assert (red[:, 16:48] == (255, 0, 0)).all()
    assert (red[:, :16] == 32).all()
    assert (pixels[70:80, 4:68] > 100).any(), "no caption"
    assert (pixels[70:80, 136:] == 32).all(), "the caption runs beyond its square"
    with Image.open(path) as written:
        np.testing.assert_array_equal(np.asarray(written), pixels)
    assert list(tmp_path.iterdir()) == [path]


def test_contact_sheet_without_captions():
    assert plot.contact_sheet([np.zeros((3, 3))], columns=8, tile=32).size == (40, 40)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "no image"),
        ([np.zeros((2, 3, 4))], {}, "neither gray nor colour"),
        ([np.zeros((3, 3))], {"columns": 0}, "columns=0"),
        ([np.zeros((3, 3))], {"tile": 0}, "tile=0"),
    ],
)
def test_contact_sheets_that_cannot_be(images, options, message):
    with pytest.raises(OptionError, match=message):
        plot.contact_sheet(images, **options)


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "sheet.xyz"
    path.write_bytes(b"old")
    with pytest.raises(OptionError, match=r"\.xyz.*\.png"):
        plot.contact_sheet([np.zeros((3, 3))], path=path)
    with pytest.raises(OptionError, match=r"\.xyz.*\.png"):
        plot.histogram(np.zeros((3, 3)), path=path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_histogram(tmp_path):
    values = np.array([[-1000, 0, 0], [40, 40, 3000]], np.int16)
    figure: Any = plot.histogram(values, bins=4, title="CT", units="HU", path=tmp_path / "h.png")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_title()) == ("HU", "CT")
    (bars,) = axes.patches
    assert bars.get_data().values.tolist() == [1, 4, 0, 1]
    with Image.open(tmp_path / "h.png") as written:
        assert written.size == (640, 480)
    assert plot.histogram(np.array([1.0, np.nan])).axes[0].get_title() == "(1 not finite)"


@pytest.mark.parametrize("values", [np.empty(0), np.array([np.nan])])
def test_histogram_of_nothing(values):
    with pytest.raises(OptionError, match="no finite value"):
        plot.histogram(values)
    with pytest.raises(OptionError, match="bins=0"):
        plot.histogram(np.ones(3), bins=0)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("matplotlib", lambda: one_frame(np.zeros((3, 3)))),
        ("matplotlib", lambda: plot.histogram(np.zeros((3, 3)))),
        ("PIL", lambda: plot.contact_sheet([np.zeros((3, 3))])),
    ],
)
def test_missing_packages_are_named(monkeypatch, package, call):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*dicomtorch\[view\]"):
        call()
