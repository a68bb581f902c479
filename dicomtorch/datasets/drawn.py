"""`DrawnDataset`: datasets that show what they hold, in figures, grids and notebooks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from torch import Tensor

from dicomtorch.batches.collate import FrameSample
from dicomtorch.datasets import looking
from dicomtorch.datasets.base import Asked, SampleDataset
from dicomtorch.datasets.failures import plural
from dicomtorch.datasets.kinds import Batch_co, Sample_co
from dicomtorch.datasets.overlays import overlaid
from dicomtorch.datasets.positions import several_positions
from dicomtorch.errors import OptionError
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.pictures.plot import contact_sheet, show_frames
from dicomtorch.reader.reader import FrameReader
from dicomtorch.series.geometry import Ints
from dicomtorch.viewer.notebook import NotebookView

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

_MOST_COVERS = 32


class DrawnDataset(SampleDataset[Asked, Sample_co, Batch_co]):
    """A dataset whose samples can be drawn."""

    def _planes(self, image: Tensor) -> Tensor:
        """The pictures (N, C, H, W) that a sample is drawn as, one for each of its frames."""
        return image

    def widget(self, *, embed: bool = True, show_paths: bool = False) -> NotebookView:
        """The viewer in a cell of a notebook: what files have, and beside it what training gets; see `dicomtorch.view`.

        Pixels are not saved with the notebook. Without anywidget a contact sheet is shown, which is saved.

        Args:
            embed: Whether such a contact sheet may be.
            show_paths: Whether files are named, by their path below the root.
        """
        return NotebookView(self, embed=embed, show_paths=show_paths)

    # For the viewer

    @property
    def frame_reader(self) -> FrameReader:
        """Reads the frames of `index`, with the options of this dataset."""
        return self._source.reader

    @property
    def mask_index(self) -> MaskIndex | None:
        """As `masks`, `None` where there are none."""
        return None if self._masks is None else self._masks.masks

    @property
    def legend(self) -> list[tuple[int, str]]:
        """Number and name of each label of masks, boxes or points; names that the files gave are left out."""
        if self._targets is not None:
            shapes = self._targets.shapes.labels
            return list(zip(shapes.numbers, shapes.names, strict=True))
        if self._masks is None:
            return []
        labels = self._masks.masks.labels
        names = labels.names if self._source.names_labels else ("",) * len(labels)
        return list(zip(labels.numbers, names, strict=True))

    @property
    def label_names(self) -> list[str]:
        """Keys of `meta` that the user brought or asked for."""
        return self._label_names()

    @property
    def drawn_epoch(self) -> int | None:
        """With `seed=` the epoch that transforms draw random numbers for, else `None`."""
        return self._finish.epoch

    def frames_of(self, i: int) -> Sequence[int]:
        """The frames that sample `i` is read from, by position in `index`."""
        return self._positions(self._looked(i))

    def whole_sample(self, i: int) -> tuple[Any, Any, Mapping[str, Any]]:
        """Image, mask (or boxes, or `None`) and metadata of sample `i` as training gets it, whatever `target=` says."""
        return self._drawn(self._looked(i))

    def apart(self) -> Self:
        """A copy for looking at: its epoch and its failures are its own."""
        other = copy.copy(self)
        other._finish = self._finish.apart()
        other._failures = list(self._failures)
        return other

    def _looked(self, i: int) -> Asked:
        """What stands for sample `i` where it is only looked at."""
        return self._asked(i)

    # Looking

    def show(self, i: Any = None) -> Figure:
        """Draws the slices or frames of one sample with a slider, and returns the matplotlib figure.

        The title says which slice it is, of which file, and how it was made display values.

        Args:
            i: As in `dataset[i]`; `None`: the first.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        asked = self._asked(self._first if i is None else i)
        image, mask, meta = self._drawn(asked)
        if isinstance(image, Tensor) and image.ndim == 3:  # a part of one frame
            image, mask = image[None], None if mask is None else mask[None]
        if not isinstance(image, Tensor) or image.ndim != 4:
            raise OptionError(
                f"show draws {plural(self.sample_name)}; this transform gives something else"
            )
        planes, positions = self._planes(image), meta.get("frames", ())
        masks = self._planes(mask) if isinstance(mask, Tensor) else None
        titles = looking.Titles(self.index, self._reader.options)

        def get(k: int) -> tuple[Any, str]:
            picture, note = looking.picture_of(planes[k], self._reader)
            picture = picture if masks is None else overlaid(picture, masks[k])
            number = meta.get("index", self._number(asked))
            what = f"{self.sample_name} {number} of {len(self)}, {k + 1} of {len(planes)}"
            known = len(positions) == len(planes) and positions[k] >= 0 and "resampled" not in meta
            return picture, titles.of(what, positions[k], meta, note) if known else what

        return show_frames(get, len(planes), len(planes) // 2)

    def show_batch(self, i: Any = None, *, columns: int = 8, tile: int = 128) -> Image:
        """Draws several samples as a grid, as training gets them: after `transform`, with their labels below.

        Of volumes, clips and crops the frame in the middle is drawn. Labels are the columns joined to the index and the
        tags asked for. `contact_sheet` says how values become gray.

        Args:
            i: Positions, as in `dataset[i]`; `None`: the first 16.
            columns: Pictures in a row.
            tile: Edge of a picture in pixels.

        Returns:
            The picture, RGB; notebooks show it, `.show()` and `.save("batch.png")` do it elsewhere.

        Raises:
            MissingDependencyError: Pillow is not installed.
        """
        chosen = range(min(16, len(self))) if i is None else i
        several = several_positions(chosen, len(self), self.sample_name)
        pictures, captions = [], []
        for one in [i] if several is None else several:
            asked = self._asked(one)
            image, _, meta = self._drawn(asked)
            if isinstance(image, Tensor) and image.ndim == 4:
                planes = self._planes(image)
                image = planes[len(planes) // 2]
            pictures.append(looking.picture_of(image, self._reader)[0])
            labels = [meta[name] for name in self._label_names() if name in meta]
            if callable(self._finish.target):
                labels.append(self._finish.label(meta))
            captions.append(looking.caption(self._number(asked), labels))
        return contact_sheet(pictures, captions, columns=columns, tile=tile)

    def draw_batch(self, batch: Any, *, columns: int = 8, tile: int = 128) -> Image:
        """Draws a batch of this dataset as a grid; `FrameLoader.show_batch` calls it.

        Args:
            batch: Images first, and metadata last where there is any, as `collate_frames` makes it.
            columns: Pictures in a row.
            tile: Edge of a picture in pixels.

        Raises:
            MissingDependencyError: Pillow is not installed.
            OptionError: The batch does not begin with images.
        """
        images, meta = (batch[0], batch[-1]) if isinstance(batch, tuple | list) else (batch, None)
        if not isinstance(images, Tensor) or images.ndim < 4:
            raise OptionError(
                "batches that begin with images (B, C, H, W) can be drawn; collate_fn or batch_transform gives "
                "something else"
            )
        pictures, captions = [], []
        for k, image in enumerate(images):
            if image.ndim == 4:
                planes = self._planes(image)
                image = planes[len(planes) // 2]
            pictures.append(looking.picture_of(image, self._reader)[0])
            captions.append(looking.batch_caption(meta, k, self._label_names()))
        return contact_sheet(pictures, captions, columns=columns, tile=tile)

    def _drawn(self, asked: Asked) -> tuple[Any, Any, Mapping[str, Any]]:
        """Image, mask (or `None`) and metadata of a sample, after its transforms."""
        sample = self._sample(asked, finish=self._finish.without_target())
        if not isinstance(sample, FrameSample):
            raise OptionError(
                f"samples that end in meta can be drawn; sample_transform returned {type(sample).__name__}"
            )
        image, *mask, meta = sample
        return image, mask[0] if mask else None, meta

    def _label_names(self) -> list[str]:
        """Keys of `meta` that the user brought or asked for."""
        return [*self.index.joined, *self._source.keywords]

    @property
    def _first(self) -> Any:
        """What `show` draws where nothing is said."""
        return 0

    def _overview(self) -> dict[str, str]:
        """Rows of what notebooks show."""
        counted = {plural(self.sample_name).capitalize(): f"{len(self):,}"}
        return counted | self.index.overview() | self._reading()

    def _reading(self) -> dict[str, str]:
        """What is made of frames."""
        options = self._reader.options
        if options.decode == "exact":
            return {"Values": options.values}
        parts = [
            f"{frames:,} whole" if factor == 1 else f"{frames:,} at 1/{factor}"
            for factor, frames in self.factors().items()
        ]
        return {"Values": options.values, "Decoded": ", ".join(parts)}

    def factors(self) -> dict[int, int]:
        """With `decode="reduced"`: how many frames are decoded at which part of their resolution.

        Returns:
            Pixels of the file, in each direction, for one that is decoded (1, 2, 4, 8) -> frames; frames of one sample
            count as if each were alone.
        """
        return self._source.factors()

    def _covers(self) -> Ints:
        """Frames that may be thumbnails: of some samples the one in the middle."""
        chosen = np.unique(np.linspace(0, len(self) - 1, _MOST_COVERS).astype(int)).tolist()
        several = (self._positions(self._asked(k)) for k in chosen)
        return np.array([frames[len(frames) // 2] for frames in several], np.int64)

    def _repr_html_(self) -> str:
        return looking.overview_html(
            type(self).__name__, self._overview(), self._reader, self._covers()
        )
