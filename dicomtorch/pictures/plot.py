"""Pictures of arrays: one frame, a slider over frames, a contact sheet, a histogram.

matplotlib and Pillow are optional. Images are (H, W), (1, H, W) or (3, H, W); (H, W, 1) and (H, W, 3) are taken too.
Floating point images within [0, 1] are shown as they are, and so is uint8 colour; others from their lowest to their
highest value. What is not finite is black.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import DicomTorchError, OptionError, import_optional, paths_kept_out

if TYPE_CHECKING:
    from matplotlib.backend_bases import Event
    from matplotlib.figure import Figure
    from PIL.Image import Image

Array = npt.NDArray[Any]

MARGIN = 4
CAPTION_SIZE = 10
CAPTION_HEIGHT = 14
STEPS = {"left": -1, "up": -1, "right": 1, "down": 1, "pageup": -10, "pagedown": 10}


def show_frames(
    get: Callable[[int], tuple[Array, str]],
    count: int,
    start: int = 0,
    *,
    controls: bool | None = None,
) -> Figure:
    """Draws one of several frames, with a slider, the mouse wheel and the arrow keys to go to the others.

    Args:
        get: Gives the picture and the title of frame k; called when it is shown.
        count: Number of frames.
        start: The first to be shown.
        controls: Whether there are controls; `None`: where matplotlib's backend is interactive.

    Returns:
        The figure; `matplotlib.pyplot.show()` opens its window. It keeps `get` alive until it is closed.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OptionError: There is no frame `start`, or the image is neither gray nor colour.
        DicomTorchError: The first frame cannot be read; of a later one the error is shown in place of the picture.
    """
    if not 0 <= start < count:
        raise OptionError(f"there is no frame {start} among {count}")
    pyplot = import_optional("matplotlib.pyplot", "view")
    image, title = get(start)
    picture = _picture(image)
    figure: Figure = pyplot.figure(layout=None)
    browser = _Browser(figure, get, count, start, picture, title)
    if count > 1 and (is_interactive(figure) if controls is None else controls):
        browser.add_controls()
    return figure


def contact_sheet(
    images: Iterable[Array],
    captions: Sequence[str] = (),
    columns: int = 8,
    tile: int = 128,
    path: str | os.PathLike[str] | None = None,
) -> Image:
    """Draws many frames side by side, each in a square, its aspect kept.

    Args:
        images: The frames; taken one after the other, so a generator need not hold them all.
        captions: Below each, cut to the width of a square; fewer than images, or none, will do.
        columns: Squares in a row.
        tile: Edge of a square in pixels.
        path: Where to write the picture to, if anywhere; its suffix decides the format.

    Returns:
        The picture, RGB.

    Raises:
        MissingDependencyError: Pillow is not installed.
        OptionError: There is no image, one is neither gray nor colour, or the suffix of `path` is unknown.
    """
    if columns < 1 or tile < 8:
        raise OptionError(
            f"columns={columns} and tile={tile}: expected at least 1 column and 8 pixels"
        )
    tiles = [_tile(image, tile) for image in images]
    if not tiles:
        raise OptionError("there is no image to draw")
    pillow = import_optional("PIL.Image", "view")
    drawing = import_optional("PIL.ImageDraw", "view")
    font = import_optional("PIL.ImageFont", "view").load_default(CAPTION_SIZE)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    caption_height = CAPTION_HEIGHT if captions else 0
    step_x, step_y = tile + MARGIN, tile + caption_height + MARGIN
    sheet: Image = pillow.new(
        "RGB", (columns * step_x + MARGIN, rows * step_y + MARGIN), (32, 32, 32)
    )
    draw = drawing.Draw(sheet)
    for k, picture in enumerate(tiles):
        x, y = MARGIN + k % columns * step_x, MARGIN + k // columns * step_y
        sheet.paste(picture, (x + (tile - picture.width) // 2, y + (tile - picture.height) // 2))
        if k < len(captions):
            text = _fitting(captions[k], tile, lambda line: draw.textlength(line, font=font))
            draw.text((x, y + tile), text, fill=(224, 224, 224), font=font)
    if path is not None:
        write(path, lambda file, kind: sheet.save(file, format=kind))
    return sheet


def histogram(
    values: Array,
    *,
    bins: int = 256,
    title: str = "",
    units: str = "",
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draws how often each value occurs; what is not finite is left out and counted in the title.

    Args:
        values: Any shape.
        bins: Number of bars.
        title: Above it.
        units: Of the values.
        path: Where to write the picture to, if anywhere.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OptionError: There is no finite value, or less than one bin.
    """
    if bins < 1:
        raise OptionError(f"bins={bins}: expected at least 1")
    pyplot = import_optional("matplotlib.pyplot", "view")
    numbers = np.asarray(values).reshape(-1)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        raise OptionError("there is no finite value to draw")
    if len(finite) < len(numbers):
        title = f"{title} ({len(numbers) - len(finite)} not finite)".lstrip()
    counts, edges = np.histogram(finite, bins)
    figure: Figure = pyplot.figure(layout="constrained")
    axes = figure.add_subplot()
    axes.stairs(counts, edges, fill=True)
    axes.set(title=title, xlabel=units, ylabel="pixels")
    if path is not None:
        write(path, lambda file, kind: figure.savefig(file, format=kind))
    return figure


class _Browser:
    """A figure that shows one of several frames; the figure alone keeps it alive."""

    def __init__(
        self,
        figure: Figure,
        get: Callable[[int], tuple[Array, str]],
        count: int,
        position: int,
        picture: Array,
        title: str,
    ) -> None:
        self.figure = figure
        self.get = get
        self.count = count
        self.position = position
        self.slider: Any = None
        self.axes = figure.add_axes((0.02, 0.02, 0.96, 0.86))
        self.axes.set_axis_off()
        self.axes.set_title(title, fontsize="small")
        low, high = _limits(picture)
        self.artist = self.axes.imshow(picture, cmap="gray", vmin=low, vmax=high)

    def add_controls(self) -> None:
        """Connects the slider, the wheel and the keys."""
        widgets = import_optional("matplotlib.widgets", "view")
        self.axes.set_position((0.02, 0.10, 0.96, 0.78))
        self.slider = widgets.Slider(
            self.figure.add_axes((0.15, 0.02, 0.65, 0.04)),
            "frame",
            0,
            self.count - 1,
            valinit=self.position,
            valstep=1,
            valfmt="%d",
        )
        self.slider.on_changed(self.go_to)
        canvas = self.figure.canvas
        canvas.mpl_connect("scroll_event", self._on_scroll)
        canvas.mpl_connect("key_press_event", self._on_key)
        manager = canvas.manager
        handler = None if manager is None else manager.key_press_handler_id
        if handler is not None:
            # By default the arrow keys go through the history of zooms.
            canvas.mpl_disconnect(handler)
        # matplotlib refers to callbacks weakly.
        self.figure._dicomtorch_browser = self  # type: ignore[attr-defined]

    def go_to(self, position: float) -> None:
        """Shows another frame."""
        position = int(min(max(position, 0), self.count - 1))
        if position == self.position:
            return
        self.position = position
        try:
            image, title = self.get(position)
            picture = _picture(image)
        except DicomTorchError as error:
            self.artist.set_visible(False)
            self.axes.set_title(f"frame {position}: {error}", fontsize="small", wrap=True)
        else:
            self._draw(picture, title)
        self.figure.canvas.draw_idle()

    def _draw(self, picture: Array, title: str) -> None:
        rows, columns = picture.shape[:2]
        if (rows, columns) != self.artist.get_size():
            self.artist.set_extent((-0.5, columns - 0.5, rows - 0.5, -0.5))
            self.axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        self.artist.set_data(picture)
        self.artist.set_clim(*_limits(picture))
        self.artist.set_visible(True)
        self.axes.set_title(title, fontsize="small")

    def _step(self, step: int) -> None:
        # The slider calls `go_to`, so that both always agree.
        self.slider.set_val(min(max(self.position + step, 0), self.count - 1))

    def _on_scroll(self, event: Event) -> None:
        step: float = event.step  # type: ignore[attr-defined]
        if step:
            self._step(-1 if step > 0 else 1)

    def _on_key(self, event: Event) -> None:
        key: str | None = event.key  # type: ignore[attr-defined]
        if key in STEPS:
            self._step(STEPS[key])
        elif key in ("home", "end"):
            self._step(-self.count if key == "home" else self.count)
        else:
            bases = import_optional("matplotlib.backend_bases", "view")
            bases.key_press_handler(event)


def is_interactive(figure: Figure) -> bool:
    """Whether matplotlib's backend shows a figure to somebody, in a window or in a browser."""
    name = import_optional("matplotlib", "view").get_backend().lower()
    # Backends in a browser need no event loop of their own, so they name no framework.
    in_browser = any(part in name for part in ("nbagg", "webagg", "ipympl", "widget"))
    return in_browser or figure.canvas.required_interactive_framework is not None


def _picture(image: Array) -> Array:
    """(H, W) or (H, W, 3), what is not finite 0."""
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[0] in (1, 3):
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or not image.size:
        raise OptionError(
            f"an image of shape {image.shape} is neither gray nor colour; expected (H, W), (1, H, W) or (3, H, W)"
        )
    if image.dtype.kind == "f":
        image = np.where(np.isfinite(image), image, 0).astype(np.float32)
    if image.ndim == 3 and image.dtype != np.uint8:
        low, high = _limits(image)
        image = (image.astype(np.float32) - low) / (high - low)
    return image


def _limits(picture: Array) -> tuple[float, float]:
    """The values that are black and white."""
    low, high = float(picture.min()), float(picture.max())
    if picture.dtype.kind == "f" and low >= 0 and high <= 1:
        return (0.0, 1.0)
    if picture.dtype == np.uint8 and picture.ndim == 3:
        return (0.0, 255.0)
    return (low, high if high > low else low + 1)


def _tile(image: Array, size: int) -> Image:
    """The image as RGB, shrunk or enlarged to fit a square."""
    picture = _picture(image)
    low, high = _limits(picture)
    levels = np.rint((picture.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
    pillow = import_optional("PIL.Image", "view")
    scale = size / max(levels.shape[:2])
    width, height = (max(1, round(n * scale)) for n in (levels.shape[1], levels.shape[0]))
    tile: Image = pillow.fromarray(levels).convert("RGB")
    return tile.resize((width, height), pillow.Resampling.BILINEAR)


def _fitting(text: str, width: int, length: Callable[[str], float]) -> str:
    """The text, cut so that it fits, without characters that would not be seen."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    if length(text) <= width:
        return text
    while text and length(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


@paths_kept_out()
def write(path: str | os.PathLike[str], save: Callable[[BinaryIO, str], object]) -> None:
    """Writes a picture whole or not at all; its folder is made if it is missing, as for an index."""
    target = Path(path)
    kind = target.suffix.removeprefix(".").lower().replace("jpg", "jpeg")
    draft = target.with_name(f".{target.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with draft.open("xb") as file:
            save(file, kind)
        draft.replace(target)
    except (KeyError, ValueError) as error:
        raise OptionError(
            f"a picture cannot be written as {target.suffix!r} ({error}); use a name that ends in .png"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
