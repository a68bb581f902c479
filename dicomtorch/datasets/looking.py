"""What datasets draw: frames with a title that says which, and the table with thumbnails of a notebook."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dicomtorch.errors import GeometryError, MissingDependencyError, OptionError, printable
from dicomtorch.index.burned_in import burned_in
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.options import PixelOptions
from dicomtorch.model.shown import shown
from dicomtorch.pictures import html
from dicomtorch.pictures.channels import drawable
from dicomtorch.pictures.plot import contact_sheet
from dicomtorch.reader.context import ContextReader
from dicomtorch.reader.reader import Frame, FrameReader
from dicomtorch.series.geometry import Ints
from dicomtorch.series.neighbours import frame_order

Array = npt.NDArray[Any]
Reader = FrameReader | ContextReader

_THUMBNAILS = 6
_LONGEST = 70  # characters of a path in a title


def picture_of(image: Any, reader: Reader) -> tuple[Array, str]:
    """What is drawn of an image (C, H, W), and what to say of it; see `drawable`.

    Args:
        image: What a dataset gave, perhaps after a transform.
        reader: Says what its channels are.

    Raises:
        OptionError: It is no image.
    """
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        raise OptionError("images (C, H, W) can be drawn; this transform gives something else")
    frames = 2 * reader.context + 1 if isinstance(reader, ContextReader) else 1
    return drawable(image, frames, [_window(window) for window in reader.options.windows])


class Titles:
    """Says of frames which they are: in the dataset, in their series, in which file, and how they were made.

    Args:
        index: What the frames are of.
        options: What was asked of the pixels.
    """

    def __init__(self, index: FrameIndex, options: PixelOptions) -> None:
        self._index = index
        self._options = options
        self._series: dict[str, dict[int, int]] = {}

    def of(self, what: str, position: int, meta: Mapping[str, Any], note: str) -> str:
        """Three lines.

        Args:
            what: As in "frame 3 of 120".
            position: In the index.
            meta: Of the sample.
            note: Of the channels; see `picture_of`.
        """
        series = self._index.gather("SeriesInstanceUID", np.array([position]))[0]
        places = self._series.get(series)
        if places is None:
            places = self._series[series] = _places(self._index, series)
        (frame,) = self._index.gather("frame", np.array([position]))
        modality = shown("Modality", meta.get("Modality") or "")
        place = f"{places[position] + 1} of {len(places)} in its series" if series else ""
        made = [f"values={self._options.values!r}", *_voi(self._options, meta), note]
        return "\n".join(
            (
                ", ".join(filter(None, (what, modality, place))),
                ", ".join(filter(None, made)),
                f"{_shortened(printable(self._index.path(position)))}, frame {frame}",
            )
        )


def _places(index: FrameIndex, series: str) -> dict[int, int]:
    """Where in their series its frames are: by position, by time, or as the files come."""
    positions = np.flatnonzero(index.where(SeriesInstanceUID=series))
    try:
        order = frame_order(index.select(positions)).order
    except GeometryError:
        order = np.arange(len(positions))
    return {int(position): k for k, position in enumerate(positions[order])}


def _voi(options: PixelOptions, meta: Mapping[str, Any]) -> list[str]:
    if options.values != "display" or len(options.windows) > 1 or not meta.get("voi"):
        return []
    center, width = (meta.get(name, math.nan) for name in ("WindowCenter", "WindowWidth"))
    if math.isnan(center):
        return [f"VOI {meta['voi']!r}"]
    return [f"window {center:g} / {width:g} ({meta['voi']})"]


def _window(window: object) -> str:
    if isinstance(window, tuple):
        return " / ".join(f"{number:g}" for number in window)
    return "of the file" if window is None else str(window)


def _shortened(path: str) -> str:
    """Cut in the middle: the ends of a path say most."""
    if len(path) <= _LONGEST:
        return path
    name = os.path.basename(path)[-(_LONGEST - 20) :]
    return f"{path[: _LONGEST - len(name) - 4]}.../{name}"


def caption(number: int, labels: Sequence[Any]) -> str:
    """The position of a sample and its labels, for below a picture."""
    values = [f"{label:g}" if isinstance(label, float) else str(label) for label in labels]
    return " ".join((f"{number}:", *values)) if values else str(number)


def batch_caption(meta: Any, k: int, names: Sequence[str]) -> str:
    """The caption of sample k of a batch.

    Args:
        meta: Metadata of the batch; or what stands in its place, as targets do.
        k: Which sample.
        names: Of labels in metadata.
    """
    if not isinstance(meta, Mapping) or "index" not in meta:
        return caption(k, [_number(meta[k])] if isinstance(meta, Tensor | list) else [])
    labels = [_number(meta[name][k]) for name in names if name in meta]
    return caption(int(meta["index"][k]), labels)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def overview_html(
    title: str, rows: Mapping[str, str], reader: Reader, covers: Sequence[int] | Ints
) -> str:
    """A table, and thumbnails of frames that cannot have a name in their pixels."""
    picture, note = _thumbnails(reader, np.asarray(covers, np.int64))
    return html.table(title, rows, picture=picture, note=note)


def _thumbnails(reader: Reader, covers: Ints) -> tuple[str, str]:
    """(a picture of some frames as HTML, what to say)."""
    index = reader.index
    fit = ~np.logical_or.reduce(burned_in(index)) & index.image_mask()
    shown = covers[fit[covers]]
    if not len(shown):
        return "", "No thumbnails, because the pixels may show who it is; show() draws frames."
    chosen = shown[np.unique(np.linspace(0, len(shown) - 1, _THUMBNAILS).astype(int))].tolist()
    frames = [frame for frame in reader.read_many(chosen) if isinstance(frame, Frame)]
    if not frames:
        return "", "No thumbnails, because none of the frames that were tried can be read."
    try:
        sheet = contact_sheet([picture_of(frame.image, reader)[0] for frame in frames], tile=96)
    except MissingDependencyError as error:
        return "", str(error)
    return html.png(sheet, f"{len(frames)} frames"), ""
