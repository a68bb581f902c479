"""`DicomFrames`: every frame of a tree of DICOM files as a `torch.utils.data.Dataset`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dicomtorch.backends import capability
from dicomtorch.backends.base import Backend
from dicomtorch.batches.collate import FrameSample, FrameSamples, collate_frames, collate_meta
from dicomtorch.batches.metadata import FrameMeta, MetaColumns, MetadataReader, metas_of
from dicomtorch.datasets.options import Failure
from dicomtorch.errors import (
    DicomTorchError,
    FrameIndexError,
    MissingDependencyError,
    OptionError,
    SourceError,
    StaleIndexError,
    StorageError,
    UnsupportedError,
    printable,
)
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.options import PixelOptions, Values
from dicomtorch.model.report import ScanReport
from dicomtorch.model.shown import shown
from dicomtorch.pictures import html as notebook
from dicomtorch.pictures.plot import contact_sheet, show_frames
from dicomtorch.pixels.batch import convert
from dicomtorch.pixels.memory import new_batch
from dicomtorch.pixels.resize import resized
from dicomtorch.reader.cache import DEFAULT_BYTES, FrameCache
from dicomtorch.reader.context import ContextReader
from dicomtorch.reader.reader import Frame, FrameReader
from dicomtorch.scanner.open import open_index
from dicomtorch.scanner.tree import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DicomFrames(Dataset[FrameSample]):
    """Every frame of every DICOM file below a folder, decoded when asked for.

    `frames[i]` is `(image, meta)`: a tensor (C, H, W) and a dict. `frames[[3, 5]]` and `frames[10:20]` are a batch,
    decoded together. A plain `DataLoader(frames, batch_size=32, num_workers=4)` gives batches with no further argument.

    Args:
        source: A folder, a file, a list of either, or a `FrameIndex`. Folders and files are scanned once; the index is
            kept in `cache_dir` and only what changed is read again.
        backend: "auto" (the fastest that can), "imagecodecs", "pydicom", "simpleitk", or an object that is a `Backend`.
        values: "display": VOI applied, bright is high, float32 in [0, 1]. "modality": rescaled (Hounsfield for CT),
            float32. "stored": the file's integers, one type for the whole dataset. "real_world": by the Real World
            Value Map. "suvbw": PET in SUV by body weight.
        window: For display: `None` takes the file's VOI, k its k-th window, (center, width) or a preset's name that,
            "series" one for the whole series, a list of these one channel each.
        padding: "keep", "fill", or a number for the pixels that the file says are padding.
        normalize: `None`, "minmax", "zscore", "percentile" or (mean, standard deviation); acts on modality values.
        color: "auto" as the file is (1 or 3 channels), "rgb", or "gray".
        size: `None` or (H, W): resized with the aspect kept, antialiased, the rest padded; geometry in `meta` stays
            that of the file, and `meta["resized"]` has what was done: (scale, top, left, rows, columns).
        dtype: `None` for float32, or in "stored" the smallest type for all frames; a cast that loses values raises.
        tags: DICOM keywords that `meta` shall have too, as in `["PatientSex", "KVP"]`.
        context: k frames before and k after each as further channels, (2k + 1) C in all, with one mapping to display:
            the neighbouring slices of a stack by position, of a cine loop by time. `meta` is that of the middle frame.
        context_edge: Beyond the ends of a stack or loop: "repeat" the last frame, or "reflect" at it.
        transform: Called with the image tensor.
        on_error: "raise", or "replace": the next readable frame, `meta["index"]` differing from `requested_index`.
        refresh: Compare the tree with the index first.
        cache_dir: Where indexes are kept; `None`: the user's cache folder.
        cache: A folder for decoded frames of the syntaxes that are expensive to decode (JPEG lossless, JPEG-LS, JPEG
            2000, HTJ2K, JPEG XL, deflated): later epochs, runs and processes read them from there. `None`: none.
        cache_bytes: What they may take; see `FrameCache`.
        duplicates: "keep" files that repeat the SOPInstanceUID of an earlier one, take the "first" only, or "raise".

    Raises:
        SourceError: There is nothing at `source`, or no image below it.
        OptionError: An option means nothing, alone or with another.
        UnsupportedError: The backend does not decode some of the frames and `on_error="raise"`, or decodes none.

    Example:
        >>> frames = DicomFrames("studies/", tags=["PatientSex"])          # doctest: +SKIP
        >>> image, meta = frames[0]                                        # doctest: +SKIP
        >>> for images, meta in DataLoader(frames, batch_size=32): ...     # doctest: +SKIP
    """

    def __init__(
        self,
        source: Source | FrameIndex,
        *,
        backend: str | Backend = "auto",
        values: Values = "display",
        window: Any = None,
        padding: Literal["keep", "fill"] | float = "keep",
        normalize: str | tuple[float, float] | None = None,
        color: Literal["auto", "rgb", "gray"] = "auto",
        size: tuple[int, int] | None = None,
        dtype: torch.dtype | str | None = None,
        tags: Sequence[str] = (),
        context: int = 0,
        context_edge: Literal["repeat", "reflect"] = "repeat",
        transform: Callable[[Tensor], Any] | None = None,
        on_error: Literal["raise", "replace"] = "raise",
        refresh: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        duplicates: Literal["keep", "first", "raise"] = "keep",
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int = DEFAULT_BYTES,
    ) -> None:
        if on_error not in ("raise", "replace"):
            raise OptionError(f'on_error must be "raise" or "replace"; got {on_error!r}')
        if isinstance(tags, str):
            raise OptionError(f"tags must be a list of keywords, as in tags=[{tags!r}]")
        if context < 0 or context_edge not in ("repeat", "reflect"):
            raise OptionError(
                f'context must be 0 or more and context_edge "repeat" or "reflect"; got {context} and {context_edge!r}'
            )
        options = PixelOptions(
            values=values,
            window=window,
            padding=padding,
            normalize=normalize,
            color=color,
            size=size,
            dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        )
        self.transform = transform
        self.on_error = on_error
        self._tags = tuple(tags)
        kept = None if cache is None else FrameCache(cache, cache_bytes)
        index = (
            _check_index(source, self._tags)
            if isinstance(source, FrameIndex)
            else open_index(source, tags=self._tags, refresh=refresh, cache_dir=cache_dir)
        ).deduplicate(duplicates)
        if not len(index):
            raise _no_frames(source, index.report())
        reader = self._able(FrameReader(index, backend, options, kept))
        self._reader: FrameReader | ContextReader = (
            ContextReader(reader, context, context_edge) if context else reader
        )
        self._metadata = MetadataReader(self._reader.index, self._tags)
        self._failures: list[Failure] = []
        self._late: dict[PixelOptions, FrameReader] = {}

    # What it holds

    @property
    def index(self) -> FrameIndex:
        """The index; its positions are those of this dataset."""
        return self._reader.index

    @property
    def report(self) -> ScanReport:
        """What the scan met, file by file, also those without frames."""
        return self.index.report()

    @property
    def failures(self) -> list[Failure]:
        """With `on_error="replace"`: what could not be read in this process so far.

        A `DataLoader` with workers reads in theirs; there `meta["index"] != meta["requested_index"]` tells.
        """
        return list(self._failures)

    def find(self, **equals: Any) -> int:
        """The position of the one frame whose columns equal the values given; see `FrameIndex.find`."""
        return self.index.find(**equals)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"DicomFrames({self.index!r}, values={self._reader.options.values!r})"

    def _repr_html_(self) -> str:
        rows = self.index.overview() | {"Values": self._reader.options.values}
        picture, note = self._thumbnails()
        return notebook.table("DicomFrames", rows, picture=picture, note=note)

    def _thumbnails(self, most: int = 6) -> tuple[str, str]:
        """(a picture of some frames as HTML, what to say); none of frames that may have a name in their pixels."""
        index = self.index
        silent = (index.column("BurnedInAnnotation") != "NO") & index.where(
            Modality=notebook.OFTEN_BURNED_IN
        )
        seen = index.where(BurnedInAnnotation="YES") | index.where(RecognizableVisualFeatures="YES")
        shown = np.flatnonzero(~(silent | seen) & index.image_mask())
        if not len(shown):
            return "", "No thumbnails, because the pixels may show who it is; show() draws frames."
        chosen = shown[np.unique(np.linspace(0, len(shown) - 1, most).astype(int))].tolist()
        frames = [frame for frame in self._reader.read_many(chosen) if isinstance(frame, Frame)]
        if not frames:
            return "", "No thumbnails, because none of the frames that were tried can be read."
        images = [frame.image.float().numpy() for frame in frames]
        try:
            sheet = contact_sheet(
                [image[:1] if len(image) != 3 else image for image in images], tile=96
            )
        except MissingDependencyError as error:
            return "", str(error)
        return notebook.png(sheet, f"{len(frames)} frames"), ""

    # Samples

    def __getitem__(self, i: Any) -> Any:
        """One sample for an integer, a collated batch for a list, slice, array or tensor of positions."""
        if isinstance(i, slice):
            return self._batch(range(*i.indices(len(self))))
        if isinstance(i, list | tuple | np.ndarray) or (isinstance(i, Tensor) and i.ndim):
            positions = np.asarray(i)
            if positions.dtype == np.bool_:
                raise OptionError("a boolean mask selects frames by frames.index.select(mask)")
            return self._batch(positions.tolist())
        position = self._position(i)
        (sample,) = self._samples([position], None)
        return sample

    def __getitems__(self, indices: Sequence[int]) -> FrameSamples:
        """Several samples, read and decoded together; `DataLoader` calls this."""
        positions = [self._position(i) for i in indices]
        shapes = self._reader.shapes(positions)
        batch = None
        if len(shapes) == 1:
            batch = new_batch((len(positions), *shapes.pop()), self._reader.dtype)
        return self._samples(positions, batch)

    def to_values(
        self,
        images: Tensor,
        meta: FrameMeta,
        *,
        values: Values = "display",
        window: Any = None,
        padding: Literal["keep", "fill"] | float = "keep",
        normalize: str | tuple[float, float] | None = None,
        color: Literal["auto", "rgb", "gray"] = "auto",
    ) -> tuple[Tensor, FrameMeta]:
        """Stored values of this dataset -> other values, on the device where they are.

        For datasets with `values="stored"`: workers, pinned memory and the way to the device carry the integers of the
        files, the device does the arithmetic. The result is what a dataset with these options gives, within float32
        rounding. Frames with lookup tables are looked up on the device too; wide integers, floats and `normalize` go
        through the CPU.

        Args:
            images: A batch (B, C, H, W) or an image (C, H, W) of this dataset, as it came.
            meta: Of the same; `index` says which frames these are.
            values: As in the constructor; `window`, `padding`, `normalize` and `color` too.
            window: See `values`.
            padding: See `values`.
            normalize: See `values`.
            color: See `values`.

        Returns:
            float32 images of the same size, and `meta` with `voi`, `WindowCenter` and `WindowWidth` as applied.

        Raises:
            OptionError: This dataset does not give stored values as the files have them, or has context, or the options
                mean nothing.
            PixelValueError: The values cannot be made of a frame.
        """
        reader = self._reader
        own = reader.options
        if isinstance(reader, ContextReader):
            raise OptionError("to_values needs a dataset with context=0")
        if own.values != "stored" or own.size is not None or own.padding != "keep":
            raise OptionError(
                f'to_values needs a dataset with values="stored", size=None and padding="keep"; this one has '
                f"values={own.values!r}, size={own.size}, padding={own.padding!r}"
            )
        options = PixelOptions(values, window, padding, normalize, color)
        late = self._late.get(options)
        if late is None:
            late = self._late[options] = reader.with_options(options)
        positions = np.atleast_1d(np.asarray(meta["index"])).tolist()
        single = images.ndim == 3
        batch = images[None] if single else images
        if len(batch) != len(positions):
            raise OptionError(f"meta is of {len(positions)} frames, images are {len(batch)}")
        result, applied = convert(batch, late.conversions(positions))
        voi = ("voi", "WindowCenter", "WindowWidth")
        made = [
            dict(zip(voi, (a.voi, a.window_center, a.window_width), strict=True)) for a in applied
        ]
        if single:
            return result[0], FrameMeta({**meta, **made[0]})
        return result, FrameMeta({**meta, **collate_meta(made)})

    def will_need(self, indices: Sequence[int]) -> None:
        """Says which frames are asked for soon, so that the system reads them into its cache; `FrameLoader` does."""
        self._reader.will_need([self._position(i) for i in indices])

    def __iter__(self) -> Iterator[FrameSample]:
        for i in range(len(self)):
            yield self[i]

    def _position(self, i: Any) -> int:
        try:
            position = i.__index__()
        except AttributeError:
            raise OptionError(
                f"frames[i] takes an integer, a slice, or a list of integers; got {type(i).__name__}"
            ) from None
        count = len(self)
        if not -count <= position < count:
            raise FrameIndexError(
                f"frame {position} is outside the dataset, which has {count} frames (0 to {count - 1})"
            )
        return int(position + count if position < 0 else position)

    def _batch(self, positions: Sequence[int]) -> Any:
        if not positions:
            raise OptionError("an empty list or slice of positions has no batch")
        return collate_frames(self.__getitems__(positions))

    def _samples(self, requested: list[int], batch: Tensor | None) -> FrameSamples:
        results = self._reader.read_many(requested, batch)
        positions = list(requested)
        for k, result in enumerate(results):
            if isinstance(result, DicomTorchError):
                positions[k], results[k] = self._replace(requested[k], result, batch, k)
        frames = cast(list[Frame], results)
        columns = self._columns(positions, [frame.voi for frame in frames], requested)
        if batch is not None and self.transform is None and _fit(frames, batch):
            return FrameSamples.of(batch, columns)
        return FrameSamples(
            FrameSample((self._transformed(frame.image), meta))
            for frame, meta in zip(frames, metas_of(columns), strict=True)
        )

    def _columns(
        self, positions: Sequence[int], applied: Sequence[AppliedVOI], requested: Sequence[int]
    ) -> MetaColumns:
        columns = self._metadata.of(positions, applied, requested)
        size = self._reader.options.size
        if size is not None:
            sizes = zip(columns["Rows"], columns["Columns"], strict=True)
            where = [resized(int(rows), int(many), size) for rows, many in sizes]
            columns["resized"] = np.array(where, np.float64)
        return columns

    def _metas(
        self, positions: Sequence[int], applied: Sequence[AppliedVOI], requested: Sequence[int]
    ) -> list[FrameMeta]:
        return metas_of(self._columns(positions, applied, requested))

    def _transformed(self, image: Tensor) -> Any:
        return image if self.transform is None else self.transform(image)

    def _replace(
        self, position: int, error: DicomTorchError, batch: Tensor | None, k: int
    ) -> tuple[int, Frame]:
        """The next readable frame; its own tensor where it does not fit into the batch."""
        if self.on_error == "raise":
            raise _with_way_out(error)
        for step in range(1, len(self)):
            other = (position + step) % len(self)
            fits = batch is not None and self._reader.shape(other) == batch.shape[1:]
            (found,) = self._reader.read_many([other], batch[k : k + 1] if fits else None)  # type: ignore[index]
            if isinstance(found, Frame):
                self._failures.append(Failure(position, str(error), other))
                if len(self._failures) == 1:
                    warnings.warn(
                        f"{error}. It was replaced by frame {other}; further ones are replaced without a "
                        f"warning and listed in frames.failures",
                        stacklevel=4,
                    )
                return other, found
        raise _with_way_out(error)

    # Looking

    def show(self, i: int | slice | Sequence[int] | None = None) -> Figure:
        """Draws a frame, or several with a slider and the mouse wheel, and returns the matplotlib figure.

        Args:
            i: A position, or a range of them; `None` for all.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        if isinstance(i, slice) or i is None:
            positions: Sequence[int] = range(*(i or slice(None)).indices(len(self)))
        elif isinstance(i, Sequence | np.ndarray):
            positions = [self._position(k) for k in i]
        else:
            positions = [self._position(i)]

        def get(k: int) -> tuple[np.ndarray[Any, Any], str]:
            (sample,) = self._samples([positions[k]], None)
            image, meta = sample
            if not isinstance(image, Tensor) or image.ndim != 3:
                raise OptionError(
                    "show draws images (C, H, W); this transform gives something else"
                )
            pixels = image.detach().cpu().numpy()
            picture = pixels[0] if len(pixels) != 3 else np.moveaxis(pixels, 0, -1)
            return (
                picture,
                f"frame {meta['index']} of {len(self)}  {shown('Modality', meta['Modality'])}",
            )

        return show_frames(get, len(positions))

    # Construction

    def _able(self, reader: FrameReader) -> FrameReader:
        """The reader without the frames that nothing decodes."""
        if not reader.unsupported:
            return reader
        able = reader.decodable()
        count, error = int((~able).sum()), str(next(iter(reader.unsupported.values())))
        kinds = capability.table((pixel, 1) for pixel in reader.unsupported)
        advice = dict.fromkeys(
            f"{kind.syntax_name}: {kind.advice}" for kind in kinds if kind.advice
        )
        error = "; ".join((error, *advice))
        if self.on_error == "raise" or count == len(able):
            bad = sorted({pixel.transfer_syntax_uid for pixel in reader.unsupported})
            raise UnsupportedError(
                f"{count} of {len(able)} frames cannot be decoded: {error}. To train on the others, use "
                f'on_error="replace", or DicomFrames(index.select(mask)) with an index whose '
                f"TransferSyntaxUID is not {' or '.join(bad)}"
            )
        warnings.warn(
            f"{count} of {len(able)} frames are left out because they cannot be decoded: {error}",
            stacklevel=3,
        )
        return reader.restricted(np.flatnonzero(able))


def _fit(frames: Sequence[Frame], batch: Tensor) -> bool:
    """Whether all lie in the batch: one that replaces another may have another size."""
    return all(frame.image.shape == batch.shape[1:] for frame in frames)


def _with_way_out(error: DicomTorchError) -> DicomTorchError:
    """The error as it is raised: where a frame can be left out, saying how."""
    if isinstance(error, StaleIndexError | StorageError):
        return error
    named = type(error)(
        f'{error}. Leave it out with frames.index.select(...), or use on_error="replace"'
    )
    named.__cause__ = error
    return named


def _check_index(index: FrameIndex, tags: Sequence[str]) -> FrameIndex:
    known = {column.name for column in index.columns}
    absent = [tag for tag in tags if tag not in known]
    if absent:
        raise OptionError(
            f"the index does not hold {', '.join(absent)}; make one that does: scan(source, tags={absent!r})"
        )
    return index


def _no_frames(source: Any, report: ScanReport) -> SourceError:
    names = {
        "not_dicom": "are not DICOM",
        "no_pixels": "are DICOM without an image",
        "unreadable": "are damaged",
        "unsupported": "hold images that are not decoded",
    }
    counts = [f"{report.counts[key]} {text}" for key, text in names.items() if report.counts[key]]
    found = "; ".join(counts) if counts else "there are no files"
    first = next((f for f in report.findings if f.reason), None)
    example = f" ({printable(first.path)}: {first.reason})" if first else ""
    where = "the index" if isinstance(source, FrameIndex) else f"source {source!r}"
    return SourceError(
        f"{where} has no frame: {found}{example}. Give a folder that holds DICOM images; "
        f"`dicomtorch scan FOLDER` lists what is in one"
    )
