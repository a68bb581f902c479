"""`DicomFrames`: every frame of a tree of DICOM files as a `torch.utils.data.Dataset`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar, Unpack, cast, overload

import numpy as np
import torch
from torch import Tensor

from dicomtorch.backends.base import Backend
from dicomtorch.batches.collate import collate_meta
from dicomtorch.batches.metadata import FrameMeta, MetaColumns
from dicomtorch.datasets.images import ImageDataset
from dicomtorch.datasets.kinds import Batch_co, Pair, PairBatch, Sample_co, Triple, TripleBatch
from dicomtorch.datasets.late import LateValues
from dicomtorch.datasets.masked import Mask
from dicomtorch.datasets.options import (
    AllOptions,
    MoreOptions,
    Normalize,
    SampleTransform,
    Target,
    Transform,
    UntransformedAll,
    check_names,
)
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.datasets.standardize import Statistics, measure, standardization
from dicomtorch.errors import DicomTorchError, OptionError, PixelValueError
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.options import PixelOptions, Values
from dicomtorch.reader.cache import DEFAULT_BYTES
from dicomtorch.reader.context import ContextReader
from dicomtorch.reader.reader import Frame
from dicomtorch.scanner.keywords import Tag
from dicomtorch.series.geometry import Ints
from dicomtorch.series.stacks import OnGap

Meta = TypeVar("Meta", bound=FrameMeta)


class DicomFrames(ImageDataset[Sample_co, Batch_co]):
    """Every frame of every DICOM file below a folder, decoded when asked for.

    `frames[i]` is `(image, meta)`: a tensor (C, H, W) and a dict. `frames[[3, 5]]` and `frames[10:20]` are a batch,
    decoded together. A plain `DataLoader(frames, batch_size=32, num_workers=4)` gives batches with no further argument.

    Sources: PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT, windows), C.7.6.3.1.2 (photometric interpretation),
    C.7.5.1.1.2 (padding), C.7.6.16.2.11 (real world values), C.8.9.1 (SUV).

    Args:
        source: A folder, a file, a list of either, a `FrameIndex` or several, which count as one (`FrameIndex.concat`),
            or a dataset or loader, of which it takes the index. Folders and files are scanned once; the index is
            kept in `cache_dir` and only what changed is read again.
        backend: "auto" (the fastest that can), "imagecodecs", "pydicom", "simpleitk", or an object that is a `Backend`.
        values: "display": VOI applied, bright is high, float32 in [0, 1]. "modality": rescaled (Hounsfield for CT),
            float32. "stored": the file's integers, one type for the whole dataset. "real_world": by the Real World
            Value Map. "suvbw": PET in SUV by body weight.
        window: For display. `None`: the VOI of the file. k: its k-th window. (center, width): this window, in modality
            values. A name: a preset in Hounsfield units, one of "brain", "subdural", "stroke", "temporal_bone",
            "bone", "neck", "angio", "lung", "mediastinum", "soft_tissue", "abdomen", "liver", "spine". "series":
            one window for each series, which covers those of all its frames. A list of these: one channel for each.
        padding: "keep", "fill", or a number for the pixels that the file says are padding.
        normalize: `None`, "minmax", "zscore", "percentile" or (mean, standard deviation) of modality values, padding
            becoming 0; or (means, deviations) with one number a channel, of display values too, as in
            `([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])` with `color="rgb"`. See `statistics`.
        color: "auto" as the file is (1 or 3 channels), "rgb", or "gray".
        size: `None` or (H, W): resized with the aspect kept, antialiased, the rest padded; geometry in `meta` stays
            that of the file, and `meta["resized"]` has what was done: (scale, top, left, rows, columns, reduced).
        decode: "exact", or "reduced", which needs `size`: large frames are decoded at a half, a quarter or an eighth of
            their resolution where their codec can (HTJ2K; JPEG 2000 on Python 3.12; JPEG with simplejpeg), else means
            of blocks are taken before they are converted. Values differ from "exact" by less than a level of 256 where
            pictures have no hard edges. Not for tables, palettes, padding, labels, ranges that the pixels decide and
            statistics: those frames are decoded whole. `meta["resized"]` ends with the factor, 1 for whole.
        dtype: `None` for float32, or in "stored" the smallest type for all frames; a cast that loses values raises.
        tags: DICOM keywords or tags that `meta` shall have too, as in `["PatientSex", 0x00180060]`.
        paths: Whether `meta["path"]` is the file of the frame, absolute, as `str`. Paths often name patients, therefore
            no sample has one unasked.
        context: k frames before and k after each as further channels, (2k + 1) C in all, with one mapping to display:
            the neighbouring slices of a stack by position, of a cine loop by time. `meta` is that of the middle frame.
        context_edge: Beyond the ends of a stack or loop: "repeat" the last frame, or "reflect" at it.
        on_gap: With `context`: for copies of a slice, and slices at one place that nothing tells apart: "raise", or
            "warn" or "keep", with which such a frame has no neighbours but itself.
        transform: Called with the image tensor.
        sample_transform: Called with image (after `transform`), mask if there are masks, and meta; returns what the
            sample becomes, mostly `(image, meta)`: for what depends on laterality, boxes or labels, and for image and
            mask together. Batches are made of what it returns.
        target: A key of `meta` (a joined column, a keyword, which need not be in `tags`), or a function of `meta`:
            samples are `(image, target)`, as loops of torchvision have them. What is missing is -1, nan or "".
        seed: Random transforms draw the same for the same (seed, epoch, position), whatever the number of workers;
            `set_epoch` says which epoch it is. Holds for the global generators of Python, NumPy and torch, and for
            transforms with `set_random_state` (MONAI) or `set_random_seed` (Albumentations); others may use
            `meta["seed"]`. In one process these transforms are then called one at a time, with `FrameLoader` in the
            thread of the loop.
        on_error: "raise", or "replace": the next readable frame, `meta["index"]` differing from `requested_index`.
        refresh: Compare the tree with the index first.
        cache_dir: Where indexes are kept; `None`: the user's cache folder.
        cache: A folder for decoded frames of the syntaxes that are expensive to decode (JPEG lossless, JPEG-LS, JPEG
            2000, HTJ2K, JPEG XL, deflated): later epochs, runs and processes read them from there. `None`: none.
        cache_bytes: What they may take; see `FrameCache`.
        **more: `storage_options={...}` for `s3://` and other addresses: how the place is asked (`Settings` of
            `storage.client`: `io_threads`, `prefetch_bytes`, `timeout`, `range_cache`) and the options of its client;
            they go to workers, and into no index and no message. `isolation="process"`: code streams are decoded in
            child processes, so that one that ends or hangs a decoder is a `DecodeError` of its frame (`Limits` of the
            index has time and memory); otherwise only where a backend is known to end its process. `exclude=FILE`:
            frames to leave out, as `dicomtorch verify --quarantine` lists them. `uids="hash"`: other UIDs in place of
            those that identify, the same ones that `index.export(salt=...)` gives for the same `salt=`; `None` takes a
            random one. `executor=`: what reads headers that are not in the index yet, as in `scan`. `masks=True,
            labels=["liver"]` makes samples `(image, mask, meta)`; see `MaskOptions`.
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

    sample_name = "frame"

    @overload
    def __init__(
        self: DicomFrames[Pair, PairBatch],
        source: Given,
        *,
        masks: Literal[False] | None = None,
        **options: Unpack[UntransformedAll],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomFrames[Triple, TripleBatch],
        source: Given,
        *,
        masks: Any,
        **options: Unpack[UntransformedAll],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomFrames[Any, Any],
        source: Given,
        **options: Unpack[AllOptions],
    ) -> None: ...
    def __init__(
        self,
        source: Given,
        *,
        backend: str | Backend = "auto",
        values: Values = "display",
        window: Any = None,
        padding: Literal["keep", "fill"] | float = "keep",
        normalize: Normalize = None,
        color: Literal["auto", "rgb", "gray"] = "auto",
        size: tuple[int, int] | None = None,
        decode: Literal["exact", "reduced"] = "exact",
        dtype: torch.dtype | str | None = None,
        tags: Sequence[Tag] = (),
        paths: bool = False,
        context: int = 0,
        context_edge: Literal["repeat", "reflect"] = "repeat",
        on_gap: OnGap = "raise",
        transform: Transform | None = None,
        sample_transform: SampleTransform | None = None,
        target: Target | None = None,
        seed: int | None = None,
        on_error: Literal["raise", "replace"] = "raise",
        refresh: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        duplicates: Literal["keep", "first", "raise"] = "keep",
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int = DEFAULT_BYTES,
        **more: Unpack[MoreOptions],
    ) -> None:
        _check(more, context, context_edge, decode)
        super().__init__(
            FrameSource(
                source,
                backend=backend,
                values=values,
                window=window,
                padding=padding,
                normalize=normalize,
                color=color,
                size=size,
                decode=decode,
                dtype=dtype,
                tags=tags,
                paths=paths,
                transform=transform,
                sample_transform=sample_transform,
                target=target,
                seed=seed,
                on_error=on_error,
                refresh=refresh,
                cache_dir=cache_dir,
                duplicates=duplicates,
                cache=cache,
                cache_bytes=cache_bytes,
                **more,
            )
        )
        self._late = LateValues()
        self._look_around(context, context_edge, on_gap)

    def _look_around(
        self, context: int, context_edge: Literal["repeat", "reflect"], on_gap: OnGap
    ) -> None:
        if context:
            self._reader = ContextReader(self._source.reader, context, context_edge, on_gap)
        self._check_target()

    # What it holds

    def find(self, **equals: Any) -> int:
        """The position of the one frame whose columns equal the values given; see `FrameIndex.find`."""
        return self.index.find(**equals)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"DicomFrames({self.index!r}, values={self._reader.options.values!r})"

    def _overview(self) -> dict[str, str]:
        return self.index.overview() | self._reading()

    def _covers(self) -> Ints:
        return np.arange(len(self))

    # Samples

    def to_values(
        self,
        images: Tensor,
        meta: Meta,
        *,
        values: Values = "display",
        window: Any = None,
        padding: Literal["keep", "fill"] | float = "keep",
        normalize: Normalize = None,
        color: Literal["auto", "rgb", "gray"] = "auto",
    ) -> tuple[Tensor, Meta]:
        """Stored values of this dataset -> other values, on the device where they are.

        For datasets with `values="stored"`: workers, pinned memory and the way to the device carry the integers of the
        files, the device does the arithmetic. The numbers are those of a dataset with these options. Frames with lookup
        tables are looked up on the device too; wide integers, floats and `normalize` go through the CPU.

        Sources: PS3.3 C.11.1 and C.11.2.

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
        standard = standardization(normalize, values, None)
        options = PixelOptions(values, window, padding, None if standard else normalize, color)  # type: ignore[arg-type]
        positions = np.atleast_1d(np.asarray(meta["index"])).tolist()
        single = images.ndim == 3
        batch = images[None] if single else images
        result, applied = self._late.of(self._reader, batch, positions, options, standard)
        voi = ("voi", "WindowCenter", "WindowWidth")
        made = [
            dict(zip(voi, (a.voi, a.window_center, a.window_width), strict=True)) for a in applied
        ]
        if single:
            return result[0], cast(Meta, FrameMeta({**meta, **made[0]}))
        return result, cast(Meta, FrameMeta({**meta, **collate_meta(made)}))

    def _all_asked(self, indices: Sequence[Any]) -> list[int]:
        count = len(self)
        return [i if type(i) is int and 0 <= i < count else self._asked(i) for i in indices]

    def _shape(self, asked: int) -> tuple[int, ...]:
        return self._reader.shape(asked)

    def _shapes(self, asked: Sequence[int]) -> set[tuple[int, ...]]:
        try:
            return {*self._reader.shapes(asked)}
        except PixelValueError:
            return super()._shapes(asked)

    def _positions(self, asked: int) -> Sequence[int]:
        return (asked,)

    def _needed(self, asked: Iterable[int]) -> list[int]:
        frames = list(dict.fromkeys(asked))
        if isinstance(self._reader, ContextReader):
            frames = np.unique(self._reader.neighbours(frames)).tolist()
        return frames

    def _reads(self, asked: Sequence[int]) -> list[int]:
        reader = self._reader
        return reader.reads(asked) if isinstance(reader, ContextReader) else self._needed(asked)

    def _matching(self, equals: dict[str, Any]) -> Ints:
        return np.flatnonzero(self.index.where(**equals))

    def _read_many(
        self, asked: Sequence[int], batch: Tensor | None
    ) -> list[Frame | DicomTorchError]:
        return self._reader.read_many(asked, batch)

    def _columns(
        self,
        read: Sequence[int],
        applied: Sequence[AppliedVOI],
        asked: Sequence[int],
        *,
        listed: bool = False,
    ) -> MetaColumns:
        return self._source.columns(read, applied, asked, listed=listed)

    def _mask(self, asked: int, out: Tensor) -> Mask:
        masks = self._masks
        assert masks is not None
        return masks.finished(out, [asked], masks.read([asked], out[None]))

    def _mask_shape(self, asked: int) -> tuple[int, ...]:
        assert self._masks is not None
        return self._masks.shape(asked)

    def statistics(self, fraction: float = 1.0, *, seed: int = 0) -> Statistics:
        """Mean and standard deviation of each channel over frames of this dataset, for `normalize=`.

        Of the values asked for (`values`, `window`, `color`), before `normalize`, `size`, `dtype` and transforms;
        padding and what is not finite are left out.

        Args:
            fraction: Of the frames, drawn at random; above 0 and at most 1.
            seed: Which ones.

        Returns:
            `mean` and `std`, one number for each channel, and `frames`, how many were read.

        Raises:
            OptionError: The fraction means nothing, or frames have different numbers of channels.
            DicomTorchError: A frame cannot be read and `on_error="raise"`, or none can.

        Example:
            >>> mean, std, _ = DicomFrames(train).statistics(fraction=0.1)     # doctest: +SKIP
            >>> frames = DicomFrames(train, normalize=(mean, std))             # doctest: +SKIP
        """
        return measure(self._source.reader, fraction, seed, self.on_error == "replace")


def _check(more: MoreOptions, context: Any, edge: Any, decode: str) -> None:
    check_names(DicomFrames, more)
    if type(context) is not int or context < 0 or edge not in ("repeat", "reflect"):
        raise OptionError(
            f'context must be 0 or more and context_edge "repeat" or "reflect"; got {context!r} and {edge!r}'
        )
    if context and decode == "reduced":
        raise OptionError("decode='reduced' has no meaning with context: use decode='exact'")
