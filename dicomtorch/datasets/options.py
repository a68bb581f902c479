"""Options that every dataset takes, and what a dataset says of samples that failed."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from dicomtorch.backends.base import Backend
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.errors import OptionError
from dicomtorch.model.options import Values
from dicomtorch.reader.cache import DEFAULT_BYTES
from dicomtorch.reader.choice import Isolation
from dicomtorch.scanner.keywords import Tag, named_tags
from dicomtorch.series.stacks import OnGap

Normalize = str | tuple[float, float] | tuple[Sequence[float], Sequence[float]] | None
Transform = Callable[[Tensor], Any]
SampleTransform = Callable[..., Any]
Target = str | Callable[[FrameMeta], Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that could not be read, with `on_error="replace"`.

    Attributes:
        index: Its position in the dataset.
        error: The message, which names file and frame.
        replaced_by: The position that was read instead.
    """

    index: int
    error: str
    replaced_by: int


class MaskGiven(TypedDict, total=False):
    """The options that say that samples have masks or boxes; see `MaskOptions`."""

    boxes: Any
    masks: Any
    points: Any


class MaskDetails(TypedDict, total=False):
    """The options that go with `masks`; see `MaskOptions`."""

    labels: Any
    mask_output: Literal["labels", "channels", "fraction"]
    overlap: Literal["raise", "first", "last"]
    choose: Any
    place: Literal["auto", "reference", "position"]
    between: Literal["raise", "nearest", "drop"]
    resample: Literal["nearest"] | None
    threshold: float
    path: Literal["in", "half-open"]
    unlabelled: Literal["raise", "zero", "drop"]


class MaskOptions(MaskGiven, MaskDetails, total=False):
    """The options that give samples a mask.

    `(image, mask, meta)` in place of `(image, meta)`; `meta` has `mask_known` (for each label whether an object of the
    series has it), `mask_area` (pixels of each label in the sample, -1 where not known) and `mask_present` (whether a
    plane lies on a frame of the sample).

    - `masks`: `True`, "seg", "rtstruct", "sr" or "ann": the objects of the same source; a folder or files: the objects
      there; a dict or table from SeriesInstanceUID to files, NIfTI, NRRD or DICOM; polygons of a table or COCO file.
    - `labels`, `place`, `between`, `choose`, `resample`, `overlap`, `path`, `threshold`: see `MaskIndex`.
    - `mask_output`: "labels": (1, ...) numbers, uint8 or int32; "channels": (K, ...) uint8, 0 and 1; "fraction":
      (K, ...) float32 in [0, 1].
    - `unlabelled`: series without any object: "raise", "zero", or "drop", which leaves their frames out.
    - `boxes` or `points`, of `DicomFrames` and in place of `masks`: a table, CSV or COCO file, "sr" or "ann" for the
      objects of the same source, or their files; see `ShapeIndex`. Samples are `(image, target, meta)`, the target a
      dict of `boxes` (n, 4) or `points` (n, 2), float32, and `labels` (n,), int64, and batches have a list of targets.
      `size=` moves them along.
    """


class TransformOptions(TypedDict, total=False):
    """The options of `DicomFrames` that make something else of samples."""

    transform: Transform | None
    sample_transform: SampleTransform | None
    target: Target | None


class SafetyOptions(TypedDict, total=False):
    """The options about damaged files and about privacy."""

    isolation: Isolation
    exclude: str | os.PathLike[str] | None
    uids: Literal["real", "hash"]
    salt: bytes | None


class ScanOptions(TypedDict, total=False):
    """The options about finding what there is."""

    executor: Executor | None
    storage_options: Mapping[str, Any] | None


class MoreOptions(MaskOptions, SafetyOptions, ScanOptions, total=False):
    """Options of `DicomFrames` that most users do without."""


class Reading(MaskDetails, SafetyOptions, ScanOptions, total=False):
    """The options of every dataset that change no type of its samples."""

    backend: str | Backend
    values: Values
    window: Any
    padding: Literal["keep", "fill"] | float
    normalize: Normalize
    color: Literal["auto", "rgb", "gray"]
    dtype: torch.dtype | str | None
    tags: Sequence[Tag]
    paths: bool
    seed: int | None
    on_error: Literal["raise", "replace"]
    refresh: bool
    cache_dir: str | os.PathLike[str] | None
    duplicates: Literal["keep", "first", "raise"]
    cache: str | os.PathLike[str] | None
    cache_bytes: int


class ReadOptions(MaskGiven, TransformOptions, Reading, total=False):
    """The options of `DicomFrames` but `size`, for datasets whose samples have a size of their own."""


class FrameOptions(ReadOptions, total=False):
    """The options of `DicomFrames` but `context`, for datasets that are made of frames."""

    size: tuple[int, int] | None
    decode: Literal["exact", "reduced"]


class ContextOptions(TypedDict, total=False):
    """The options that `DicomFrames` alone has."""

    context: int
    context_edge: Literal["repeat", "reflect"]
    on_gap: OnGap


class AllOptions(FrameOptions, ContextOptions, total=False):
    """All options of `DicomFrames`."""


class UntransformedReading(Reading, total=False):
    """`ReadOptions` without those that decide what a sample is, for the signatures that type checkers choose from."""

    transform: None
    sample_transform: None
    target: None
    boxes: None
    points: None


class UntransformedFrames(UntransformedReading, total=False):
    """The same of `FrameOptions`."""

    size: tuple[int, int] | None
    decode: Literal["exact", "reduced"]


class UntransformedAll(UntransformedFrames, ContextOptions, total=False):
    """The same of `AllOptions`."""


def check_names(dataset: type, options: Mapping[str, Any]) -> None:
    """Refuses options that a dataset does not have.

    Args:
        dataset: Its class, whose constructor names those of its own.
        options: What it was given beside these.

    Raises:
        OptionError: A name is not among them; the message has the nearest one, or all.
    """
    unknown = [name for name in options if name not in FrameOptions.__annotations__]
    if not unknown:
        return
    name = unknown[0]
    own = inspect.signature(dataset).parameters.values()
    named = {one.name for one in own if one.kind is not one.VAR_KEYWORD}
    known = sorted(named | FrameOptions.__annotations__.keys())
    close = difflib.get_close_matches(name, known, 1, 0.6)
    if name in ContextOptions.__annotations__:
        more = "DicomFrames has it"
    else:
        more = f"did you mean {close[0]}=?" if close else f"it has {', '.join(known)}"
    raise OptionError(f"{dataset.__name__} has no option {name}=; {more}")


def _check_path(name: str, given: Any, what: str) -> None:
    if not (given is None or isinstance(given, str | os.PathLike)):
        raise OptionError(f"{name} takes {what}; got {type(given).__name__}")


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """Everything asked of a dataset that is no question of pixels: where frames come from and what becomes of samples.

    Attributes are arguments of `DicomFrames`.

    Raises:
        OptionError: An option means nothing.
    """

    backend: str | Backend = "auto"
    tags: Sequence[Tag] = ()
    paths: bool = False
    transform: Transform | None = None
    sample_transform: SampleTransform | None = None
    target: Target | None = None
    seed: int | None = None
    on_error: Literal["raise", "replace"] = "raise"
    refresh: bool = True
    cache_dir: str | os.PathLike[str] | None = None
    duplicates: Literal["keep", "first", "raise"] = "keep"
    cache: str | os.PathLike[str] | None = None
    cache_bytes: int = DEFAULT_BYTES
    isolation: Isolation = None
    exclude: str | os.PathLike[str] | None = None
    uids: Literal["real", "hash"] = "real"
    salt: bytes | None = None
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "replace"):
            raise OptionError(f'on_error must be "raise" or "replace"; got {self.on_error!r}')
        for name, of in (
            ("transform", "the image"),
            ("sample_transform", "image, mask (if any) and meta"),
        ):
            given = getattr(self, name)
            if given is not None and not callable(given):
                raise OptionError(f"{name} must be a function of {of}; got {type(given).__name__}")
        if not (self.target is None or isinstance(self.target, str) or callable(self.target)):
            raise OptionError(
                f"target must be a key of meta or a function of it; got {type(self.target).__name__}"
            )
        if self.seed is not None and not (type(self.seed) is int and 0 <= self.seed < 1 << 64):
            raise OptionError(f"seed must be within 0 and 2**64 - 1; got {self.seed!r}")
        if isinstance(self.cache_bytes, bool) or not self.cache_bytes > 0:
            raise OptionError(f"cache_bytes must be positive; got {self.cache_bytes!r}")
        _check_path("cache", self.cache, "a folder for decoded frames")
        _check_path("cache_dir", self.cache_dir, "the folder where indexes are kept")
        _check_path(
            "exclude",
            self.exclude,
            "the list that `dicomtorch verify ROOT --quarantine FILE` writes (to leave out frames of your own choice, "
            "give index.select(mask) as the source)",
        )
        object.__setattr__(self, "tags", tuple(named_tags(self.tags)))

    @property
    def keywords(self) -> tuple[str, ...]:
        """What `tags` names."""
        return tuple(map(str, self.tags))
