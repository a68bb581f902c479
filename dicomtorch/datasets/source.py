"""From what a user gives a dataset to frames that can be read: an index, its reader, and metadata of frames."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import fields, replace
from typing import Any, Literal, Protocol, Unpack

import numpy as np
from torch.utils.data import Dataset, Subset

from dicomtorch.backends import capability
from dicomtorch.batches.metadata import (
    DEFAULT_KEYS,
    FrameMeta,
    MetaColumns,
    MetadataReader,
    metas_of,
)
from dicomtorch.datasets.identity import Identity
from dicomtorch.datasets.labelling import open_masks, open_shapes, without_masks
from dicomtorch.datasets.masked import BoxSource, MaskSource
from dicomtorch.datasets.options import FrameOptions, MaskOptions, ReadPolicy
from dicomtorch.datasets.standardize import standardization
from dicomtorch.errors import (
    DicomTorchError,
    OptionError,
    PixelValueError,
    SourceError,
    UnsupportedError,
    format_count,
    printable,
)
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.quarantine import without_quarantined
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.options import PixelOptions
from dicomtorch.model.report import ScanReport
from dicomtorch.pixels.resize import resized
from dicomtorch.reader.cache import FrameCache
from dicomtorch.reader.reader import FrameReader
from dicomtorch.scanner.keywords import is_keyword
from dicomtorch.scanner.open import open_source
from dicomtorch.scanner.scan import with_tags
from dicomtorch.scanner.tree import Source


class HasIndex(Protocol):
    """A dataset of this package."""

    @property
    def index(self) -> FrameIndex:
        """Of its frames."""
        ...


class HasDataset(Protocol):
    """A loader of one, or a part of one."""

    @property
    def dataset(self) -> Any:
        """What it is of."""
        ...


Given = Source | FrameIndex | Sequence[FrameIndex] | HasIndex | HasDataset
"""What datasets are made of."""

_MET = ("read", "reused", "removed", "seconds", "requests", "bytes_read")
_PIXELS = frozenset(field.name for field in fields(PixelOptions))
_MASKS = frozenset(MaskOptions.__annotations__)
_NO_FRAMES = {
    "not_dicom": ("is", "are", "not DICOM"),
    "no_pixels": ("is", "are", "DICOM without an image"),
    "unreadable": ("is", "are", "damaged"),
    "unsupported": ("holds", "hold", "images that are not decoded"),
}


class FrameSource:
    """The frames that a dataset is made of.

    Args:
        source: As in `DicomFrames`.
        within: Says which frames of the index are wanted.
        columns: Tags that the index needs, beside those that samples shall have.
        **options: Those of `DicomFrames`; each is checked before anything is opened.

    Attributes:
        policy: What is asked but of the pixels.
        keywords: Of the tags that samples shall have.
        standardization: Mean and deviation of channels that samples are freed of, beyond what the reader does.
        identity: What samples say about whom they are of.
        reader: Reads the frames; its index has those that can be decoded.
        names_labels: Whether labels of masks have the names that the user gave them.

    Raises:
        SourceError: There is nothing at `source`, or no image.
        OptionError: An option means nothing, alone or with another.
        UnsupportedError: The backend does not decode some of the frames and `on_error="raise"`, or decodes none.
    """

    def __init__(
        self,
        source: Given,
        *,
        within: Callable[[FrameIndex], FrameIndex] | None = None,
        columns: Sequence[str] = (),
        **options: Unpack[FrameOptions],
    ) -> None:
        given: dict[str, Any] = dict(options)
        masks: Any = {name: given.pop(name) for name in _MASKS & given.keys()}
        self.standardization = standardization(
            given.get("normalize"), given.get("values", "display"), given.get("dtype")
        )
        if self.standardization is not None:
            given["normalize"] = None
        pixels = PixelOptions(**{name: given.pop(name) for name in _PIXELS & given.keys()})
        executor = given.pop("executor", None)  # of the scan only: it cannot go to workers
        policy = self.policy = ReadPolicy(**given)
        cache = None if policy.cache is None else FrameCache(policy.cache, policy.cache_bytes)
        self.keywords = policy.keywords
        if isinstance(policy.target, str) and is_keyword(policy.target):
            self.keywords = tuple(dict.fromkeys((*self.keywords, policy.target)))
        source = _as_one(source)
        opened = index_of(source)
        shown = (*self.keywords, *(() if opened is None else opened.joined))
        self._unshown = tuple(name for name in columns if name not in shown)
        index, report = open_frames(source, policy, (*self.keywords, *columns), executor)
        self._met = {name: getattr(report, name) for name in _MET}
        if within is not None:
            index = within(index)
        index = _without_excluded(index, policy.exclude).deduplicate(policy.duplicates)
        has_masks = masks.get("masks") is not None and masks["masks"] is not False
        self.names_labels = masks.get("labels") is not None
        if has_masks:
            index = _images_of(index)
        elif masks.get("boxes") is masks.get("points") is None and masks.keys() - {"masks"}:
            raise OptionError(f"{', '.join(sorted(masks.keys() - {'masks'}))} need masks=")
        if not len(index):
            raise _no_frames(source, index)
        self.reader = self._decodable(
            FrameReader(index, policy.backend, pixels, cache, policy.isolation)
        )
        self.boxes = self._with_boxes(masks, pixels.size)
        self.masks = self._with_masks(masks, pixels.size) if has_masks else None
        self._metadata = MetadataReader(self.index, self.keywords)
        shown = (*DEFAULT_KEYS, *self.keywords, *self.index.joined)
        self.identity = Identity(shown, policy.uids, policy.salt)
        if self.standardization is not None:
            with contextlib.suppress(PixelValueError):  # said where the frame is read
                self.standardization.check(self.reader.shape(0)[0])

    def _with_boxes(self, options: Any, size: tuple[int, int] | None) -> BoxSource | None:
        """Boxes or points of the frames, where they are asked for."""
        kinds: tuple[Literal["boxes"], Literal["points"]] = ("boxes", "points")
        for kind in kinds:
            if options.get(kind) is not None:
                return BoxSource(open_shapes(self.index, self.policy, options, kind), kind, size)
        return None

    def _with_masks(self, options: Any, size: tuple[int, int] | None) -> MaskSource:
        """Masks of the frames; without those of series that have none where that is asked for."""
        output, unlabelled = (
            options.get("mask_output", "labels"),
            options.get("unlabelled", "raise"),
        )
        if output not in ("labels", "channels", "fraction"):
            raise OptionError(
                f'mask_output must be "labels", "channels" or "fraction"; got {output!r}'
            )
        if unlabelled not in ("raise", "zero", "drop"):
            raise OptionError(f'unlabelled must be "raise", "zero" or "drop"; got {unlabelled!r}')
        if output == "fraction" and options.get("resample") is not None:
            raise OptionError(
                'resample="nearest" samples labels; it does not go with mask_output="fraction"'
            )
        masks = open_masks(self.index, self.policy, options)
        there = masks.labelled()
        if not there.all():
            series = self.index.column("SeriesInstanceUID").codes
            count, most = len(np.unique(series[~there])), len(np.unique(series))
            if not there.any():
                raise OptionError(
                    f"no series of {most} has an object that gives one of the labels; {masks.reasons()}"
                    f"MaskIndex(index).table() lists objects and segments; leave out masks= to go without"
                )
            if unlabelled == "raise":
                raise OptionError(
                    f"{count} of {most} series have no object that gives one of the labels; {masks.reasons()}"
                    f'unlabelled="drop" leaves their frames out, "zero" gives them empty masks'
                )
            if unlabelled == "drop":
                self.reader = self.reader.restricted(np.flatnonzero(there))
                masks = open_masks(self.index, self.policy, options)
        return MaskSource(masks, output, size)

    @property
    def index(self) -> FrameIndex:
        """What is read from."""
        return self.reader.index

    @property
    def report(self) -> ScanReport:
        """What the scan met, file by file, also those without frames, and what it had to read."""
        # Put together when asked for: findings would travel to every worker.
        return replace(self.index.report(), **self._met)

    def columns(
        self,
        positions: Sequence[int],
        applied: Sequence[AppliedVOI],
        requested: Sequence[int],
        together: Sequence[int] = (),
        *,
        listed: bool = False,
    ) -> MetaColumns:
        """Metadata of several frames; see `MetadataReader.of`.

        Args:
            positions: In the index.
            applied: How each was made display values.
            requested: What was asked for in the place of each.
            together: Frames of the one sample that they belong to, if they do.
            listed: Numbers as lists of Python's, for `metas_of`.
        """
        columns = self._metadata.of(positions, applied, requested, listed=listed)
        self.identity.hide(columns)
        for name in self._unshown:
            columns.pop(name, None)
        if self.policy.paths:
            columns["path"] = [os.fsdecode(self.index.path(position)) for position in positions]
        size = self.reader.options.size
        if size is not None:
            sizes = zip(columns["Rows"], columns["Columns"], strict=True)
            factors = self.reader.factors(positions, together)
            where = [
                resized(int(rows), int(many), size)._replace(reduced=factor)
                for (rows, many), factor in zip(sizes, factors, strict=True)
            ]
            columns["resized"] = np.array(where, np.float64)
        return columns

    def metas(
        self,
        positions: Sequence[int],
        applied: Sequence[AppliedVOI],
        requested: Sequence[int],
        together: Sequence[int] = (),
    ) -> list[FrameMeta]:
        """The same as one mapping for each frame."""
        return metas_of(self.columns(positions, applied, requested, together, listed=True))

    def factors(self) -> dict[int, int]:
        """How many frames are decoded at a half, a quarter, an eighth of their resolution, and at all of it.

        Returns:
            Pixels of the file, in each direction, for one that is decoded -> frames; those that cannot be made are left
            out, and frames of one sample count as if each were alone.
        """
        counts: dict[int, int] = {}
        kinds = np.asarray(self.index.column("frame_values"))
        _, first, number = np.unique(kinds, return_index=True, return_counts=True)
        for position, frames in zip(first.tolist(), number.tolist(), strict=True):
            with contextlib.suppress(DicomTorchError):
                (factor,) = self.reader.factors([position])
                counts[factor] = counts.get(factor, 0) + frames
        return dict(sorted(counts.items()))

    def _decodable(self, reader: FrameReader) -> FrameReader:
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
        if self.policy.on_error == "raise" or count == len(able):
            bad = sorted({pixel.transfer_syntax_uid for pixel in reader.unsupported})
            raise UnsupportedError(
                f"{count} of {len(able)} frames cannot be decoded: {error}. To train on the others, use "
                f'on_error="replace", or DicomFrames(index.select(mask)) with an index whose '
                f"TransferSyntaxUID is not {' or '.join(bad)}"
            )
        warnings.warn(
            f"{count:,} of {format_count(len(able), 'frame')} {'is' if count == 1 else 'are'} left out because nothing "
            f"decodes {'it' if count == 1 else 'them'}: {error}",
            stacklevel=4,
        )
        return reader.restricted(np.flatnonzero(able))


def _as_one(source: Given) -> Given:
    """Several indexes as the one of all; anything else as it is."""
    if isinstance(source, list | tuple) and any(isinstance(one, FrameIndex) for one in source):
        if not all(isinstance(one, FrameIndex) for one in source):
            raise OptionError(
                "the source has indexes and other things; give indexes alone, as scan() and FrameIndex.load() "
                "make them, or folders and files alone"
            )
        return FrameIndex.concat(source)
    return source


def open_frames(
    source: Given, policy: ReadPolicy, keywords: Sequence[str], executor: Executor | None = None
) -> tuple[FrameIndex, ScanReport]:
    """The index of what a user gave, and what finding it took.

    Raises:
        SourceError: There is nothing at `source`.
        OptionError: A tag can be no column, or it is a dataset of other things than DICOM.
        StaleIndexError: It is an index that lacks tags, and a file of it has changed.
    """
    index = index_of(source)
    if index is not None:
        options = policy.storage_options
        index = with_tags(index, keywords, storage_options=options, executor=executor)
        return index, index.report()
    paths: Any = source
    return open_source(
        paths,
        storage_options=policy.storage_options,
        tags=keywords,
        refresh=policy.refresh,
        cache_dir=policy.cache_dir,
        executor=executor,
    )


def index_of(source: Any) -> FrameIndex | None:
    """The index of an index, a dataset, a part of one or a loader of one; `None` of anything else.

    Raises:
        OptionError: It is a dataset, or a loader of one, that has no index.
    """
    if isinstance(source, FrameIndex):
        return source
    index = getattr(source, "index", None)
    if isinstance(index, FrameIndex):
        return index
    if isinstance(source, Subset):
        index = index_of(source.dataset)
        assert index is not None
        if len(index) != len(source.dataset):  # type: ignore[arg-type]
            raise OptionError(
                f"the source is a part of {type(source.dataset).__name__}, whose samples are not frames; select from "
                "its index, as in dataset.index.filter(...)"
            )
        return index.select(source.indices)
    if isinstance(source, Dataset) or hasattr(source, "batch_sampler"):
        inner = getattr(source, "dataset", None)
        if inner is not None:
            return index_of(inner)
        raise OptionError(
            f"the source is {type(source).__name__}, which is no dataset of DICOM frames; name a folder, a file, "
            "or give a FrameIndex or a dataset of this package"
        )
    return None


def _without_excluded(index: FrameIndex, path: str | os.PathLike[str] | None) -> FrameIndex:
    """The index without the frames that a list excludes."""
    if path is None:
        return index
    index, missing = without_quarantined(index, path)
    if missing:
        warnings.warn(
            f"{missing} of the frames that exclude= lists are not in the index: their files have changed, moved, or "
            "are of another folder; `dicomtorch verify ROOT --quarantine FILE` makes the list anew",
            stacklevel=4,
        )
    return index


def _images_of(index: FrameIndex) -> FrameIndex:
    """The frames that masks may be of.

    Raises:
        SourceError: All are masks themselves.
    """
    images = without_masks(index)
    if len(index) and not len(images):
        raise SourceError(
            f"all {len(index)} frames are those of masks; masks= needs the images that they are of: give a "
            f"folder that holds both, or the images as the source and the folder of the masks as masks="
        )
    return images


def _no_frames(source: Any, index: FrameIndex) -> SourceError:
    scanned = len(index.whole())
    if scanned:
        return SourceError(
            f"the selection (filter, select, split or images) left none of {scanned} frames of the index"
        )
    report = index.report()
    counts = [
        f"{format_count(count, 'file')} {one if count == 1 else many} {what}"
        for key, (one, many, what) in _NO_FRAMES.items()
        if (count := report.counts[key])
    ]
    found = "; ".join(counts) if counts else "there are no files"
    first = next((f for k in report.findings.told() if (f := report.findings[k]).reason), None)
    example = f" ({printable(first.path)}: {first.reason})" if first else ""
    where = "the index" if index_of(source) is not None else "the list of sources"
    if isinstance(source, str | bytes | os.PathLike):
        where = f"source {printable(os.fsencode(source))}"
    return SourceError(
        f"{where} has no frame: {found}{example}. Give a folder that holds DICOM images; "
        f"`dicomtorch scan FOLDER` lists what is in one"
    )
