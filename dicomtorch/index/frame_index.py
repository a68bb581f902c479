"""`FrameIndex`: one row per frame, and everything that reading the frame needs.

An index is the tables of one scan (`generation.Generation`) and, if it was selected from, row numbers. Nothing copies
the tables, so that worker processes share one mapping.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.errors import (
    FrameIndexError,
    FrameNotFoundError,
    OptionError,
    import_optional,
    printable,
)
from dicomtorch.index import columns as tables
from dicomtorch.index import exports, joins, splits
from dicomtorch.index import files as index_file
from dicomtorch.index import generation as generations
from dicomtorch.index import images as selection
from dicomtorch.index import values as objects
from dicomtorch.index.builder import FileRows, Part, build_part
from dicomtorch.index.codes import plain
from dicomtorch.index.columns import ColumnData, Packed, Table, Texts, as_list
from dicomtorch.index.files import open_generation
from dicomtorch.index.generation import Generation, Rows, frame_columns
from dicomtorch.index.joins import Joined
from dicomtorch.model.frame import FrameSpan, FrameValues
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.report import FILE_CLASSES, FileFinding, ScanReport
from dicomtorch.model.schema import LUT_COLUMNS, Column, Kind
from dicomtorch.model.shown import shown
from dicomtorch.pictures import html as notebook

Duplicates = Literal["keep", "first", "raise"]

_OF_FILE = ("size", "mtime_ns", "inode", "deflated")
_MOST_KEPT = 4096  # value objects kept per index; each is some 500 bytes


class FrameLocation(NamedTuple):
    """Where the bytes of a frame are, and what they mean: the numbers of a row that reading needs.

    Attributes:
        position: In the index that was asked.
        file: Row of the files table.
        size: Bytes that the file must have.
        mtime_ns: Time of its last change.
        inode: Its number on its device; 0: not known.
        deflated: Whether offsets count in the inflated data set.
        value_group: Equal for frames that share their `FrameValues`, of the whole scan.
        span: Where its bytes are in the file.
    """

    position: int
    file: int
    size: int
    mtime_ns: int
    inode: int
    deflated: bool
    value_group: int
    span: FrameSpan


class FrameIndex:
    """Frames of a scan, in the order of their rows.

    Made by `scan`, `load`, or by selecting from another one. `len(index)` counts frames; position `i` is what
    `DicomFrames` calls `i`.

    Example:
        >>> from dicomtorch import scan                                 # doctest: +SKIP
        >>> index, report = scan("studies/")                            # doctest: +SKIP
        >>> ct = index.filter(Modality="CT")                            # doctest: +SKIP
    """

    def __init__(
        self, generation: Generation, rows: Rows | None = None, joined: Sequence[Joined] = ()
    ) -> None:
        self._generation = generation
        self._prefix = os.path.join(generation.root, b"")
        self._rows = rows
        self._joined = tuple(joined)
        self._joined_names = {c.name: part for part in self._joined for c in part.columns}
        self._image_pixels: dict[int, ImagePixel] = {}
        self._frame_values: dict[int, FrameValues] = {}

    # Construction

    @classmethod
    def build(
        cls,
        files: Iterable[FileRows] | Part,
        *,
        root: bytes,
        tags: Mapping[str, Kind] | None = None,
        limits: Limits = LIMITS,
    ) -> FrameIndex:
        """An index of `files`, in memory, ordered by path; `limits` are what they were admitted by."""
        tags = dict(tags or {})
        part = files if isinstance(files, Part) else build_part(files, frame_columns(tags))
        return cls(generations.finish(root, tags, part.frames, part.files, part.lookups, limits))

    def updated(self, keep: npt.NDArray[np.bool_], new: Iterable[FileRows] | Part) -> FrameIndex:
        """This index without the files where `keep` is false, and with `new` ones, ordered by path."""
        old = self._generation
        kept_frames, kept_files = generations.take_files(old, np.flatnonzero(keep))
        kept_lookups = generations.take_lookups(kept_frames, old.lookups)
        part = new if isinstance(new, Part) else build_part(new, frame_columns(old.tags))
        frames, files, lookups = dict(part.frames), dict(part.files), part.lookups
        generations.shift(files, "first_row", len(kept_frames["frame"]))
        generations.shift(frames, "file", len(kept_files["size"]))
        for name in LUT_COLUMNS:
            generations.shift(frames, name, len(kept_lookups["bits"]))
        both = (
            tables.concatenate([{name: kept_frames[name] for name in frames}, frames]),
            tables.concatenate([kept_files, files]),
            tables.concatenate([kept_lookups, lookups]),
        )
        return FrameIndex(generations.finish(old.root, old.tags, *both, old.limits))

    # What it holds

    def __len__(self) -> int:
        return len(self._generation.frames["frame"]) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        overview = self.overview()
        modalities = f", {overview['Modalities']}" if len(self) else ""
        return f"FrameIndex({overview['Frames']} frames in {overview['Files']} files{modalities})"

    def _repr_html_(self) -> str:
        return notebook.table("FrameIndex", self.overview())

    def overview(self) -> dict[str, str]:
        """What there is, in words without identifiers: how many frames, patients, modalities, ..."""
        names = {
            "Files": "file",
            "Patients": "patient",
            "Studies": "StudyInstanceUID",
            "Series": "SeriesInstanceUID",
        }
        result = {"Frames": f"{len(self):,}"}
        for label, name in names.items():
            result[label] = f"{np.count_nonzero(np.bincount(plain(self.column(name)))):,}"
        modalities = self.column("Modality")
        frames = np.bincount(modalities.codes)
        found = [
            (shown("Modality", modalities.value(k)), int(frames[k]))
            for k in np.flatnonzero(frames).tolist()
        ]
        result["Modalities"] = notebook.counted(found)
        shapes: Counter[str] = Counter()
        for pixel, count in self.image_pixels():
            shapes[f"{pixel.rows} x {pixel.columns}"] += count
        result["Rows x columns"] = notebook.counted(list(shapes.items()))
        if self._joined_names:
            result["Joined"] = ", ".join(self._joined_names)
        return result

    @property
    def root(self) -> bytes:
        """What the paths are below, absolute."""
        return self._generation.root

    @property
    def tags(self) -> Mapping[str, Kind]:
        """Keywords beyond the fixed columns that were read, and their kinds."""
        return self._generation.tags

    @property
    def limits(self) -> Limits:
        """What the scan admitted; reading and decoding admit the same."""
        return self._generation.limits

    @property
    def files(self) -> Table:
        """The files table of the whole scan: column name -> data, one row per file whether it has frames or not."""
        return self._generation.files

    @property
    def uuid(self) -> str:
        """Names the scan that this index comes from."""
        return self._generation.uuid

    @property
    def rows(self) -> Rows:
        """Row of the scan's frames table for each position."""
        return np.arange(len(self)) if self._rows is None else self._rows

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that there are, joined ones last."""
        joined = [column for part in self._joined for column in part.columns]
        return (*frame_columns(self.tags), *joined)

    @property
    def joined(self) -> tuple[str, ...]:
        """Names of the columns that `join` added; samples have them in `meta`."""
        return tuple(self._joined_names)

    def column(self, name: str) -> Any:
        """One column over the rows of this index.

        Returns:
            An array, (len,) or (len, width), or a `Texts` sequence of `str`.

        Raises:
            OptionError: There is no such column.
        """
        data, rows = self._column(name)
        if rows is None:
            return data
        return data.take(rows) if isinstance(data, Texts | Packed) else data[rows]

    def values(self, name: str, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any] | list[str]:
        """One column at `positions`: an array, or a list of `str`."""
        data: Any
        data, chosen = self._column(name)
        rows = positions if chosen is None else chosen[positions]
        if isinstance(data, Texts):
            return [data.value(code) for code in data.codes[rows].tolist()]
        values: npt.NDArray[Any] = data[rows]
        return values

    def gather(self, name: str, positions: npt.NDArray[np.int64]) -> list[Any]:
        """One column at `positions` as `int`, `float`, `str`, or tuples of `float`."""
        return as_list(self.values(name, positions))

    def report(self) -> ScanReport:
        """What the scan met, file by file."""
        files: Any = self._generation.files
        classes: Any = FILE_CLASSES
        findings = tuple(
            FileFinding(
                path,
                classes[number],
                f"{reason}; {notices}" if reason and notices else reason or notices,
            )
            for path, number, reason, notices in zip(
                files["path"],
                files["file_class"].tolist(),
                files["reason"],
                files["notices"],
                strict=True,
            )
        )
        whole = self.whole()
        repeated = np.unique(np.asarray(whole.column("file"))[whole.repeated()])
        return ScanReport(findings=findings, reused=len(findings), duplicates=len(repeated))

    # One frame

    def row(self, i: int) -> int:
        """The row of the frames table for position `i`.

        Raises:
            FrameIndexError: `i` is not within -len and len - 1.
        """
        count = len(self)
        if not -count <= i < count:
            raise FrameIndexError(
                f"frame {i} is outside the index, which has {count} frames "
                f"(positions 0 to {count - 1})"
                if count
                else f"frame {i} is outside the index, which is empty"
            )
        i = i + count if i < 0 else i
        return i if self._rows is None else int(self._rows[i])

    def path(self, i: int) -> bytes:
        """The file of frame `i`, absolute."""
        return self.file_path(int(self._generation.frames["file"][self.row(i)]))

    def file_path(self, file: int) -> bytes:
        """The path of a row of the files table, absolute."""
        path: bytes = self._generation.files["path"][file]
        return self._prefix + path

    def locate(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> list[FrameLocation]:
        """Where frames are; looked up together, which costs little more than one.

        Args:
            positions: Not negative.
        """
        at = np.asarray(positions, np.int64)
        rows = at if self._rows is None else self._rows[at]
        frames: dict[str, Any] = self._generation.frames
        files: dict[str, Any] = self._generation.files
        numbers = frames["file"][rows]
        of_file = (files[name][numbers].tolist() for name in _OF_FILE)
        fields = (frames[name][rows].tolist() for name in FrameSpan._fields)
        spans = map(FrameSpan._make, zip(*fields, strict=True))
        groups = frames["frame_values"][rows].tolist()
        parts = (at.tolist(), numbers.tolist(), *of_file, groups, spans)
        return list(map(FrameLocation._make, zip(*parts, strict=True)))

    def whole(self) -> FrameIndex:
        """All frames of the scan that this index comes from, in their order, without joined columns."""
        return FrameIndex(self._generation) if self._joined or self._rows is not None else self

    def whole_file(self, i: int) -> FrameIndex:
        """All frames of the file of frame `i`, also those that were not selected."""
        file = int(self._generation.frames["file"][self.row(i)])
        first, count = (int(self._generation.files[name][file]) for name in ("first_row", "rows"))
        return FrameIndex(self._generation, np.arange(first, first + count))

    def span(self, i: int) -> FrameSpan:
        """Where the bytes of frame `i` are."""
        frames: dict[str, Any] = self._generation.frames
        row = self.row(i)
        return FrameSpan._make(int(frames[name][row]) for name in FrameSpan._fields)

    def image_pixel(self, i: int) -> ImagePixel:
        """How the bytes of frame `i` become stored values."""
        return self._image_pixel(self.row(i))

    def frame_values(self, i: int) -> FrameValues:
        """What turns the stored values of frame `i` into others; frames that share all of it share the object."""
        row = self.row(i)
        number = int(self._generation.frames["frame_values"][row])
        values = self._frame_values.get(number)
        if values is None:
            values = objects.frame_values(self._generation, row, self._image_pixel(row))
            _keep(self._frame_values, number, values)
        return values

    def image_pixels(self) -> list[tuple[ImagePixel, int]]:
        """The distinct `ImagePixel`s of this index, each with the number of frames that have it."""
        numbers = np.asarray(self.column("image_pixel"))
        _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
        return [
            (self.image_pixel(int(position)), int(count))
            for position, count in zip(first, counts, strict=True)
        ]

    # Selecting

    def select(self, rows: Sequence[int] | npt.NDArray[Any]) -> FrameIndex:
        """The positions asked for, in that order; a boolean array keeps where it is true."""
        chosen = np.asarray(rows)
        if chosen.dtype == np.bool_:
            if chosen.shape != (len(self),):
                raise OptionError(
                    f"a boolean selection needs one value per frame: got shape {chosen.shape} for "
                    f"{len(self)} frames"
                )
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1:
            raise OptionError(f"select takes a list of positions; got shape {chosen.shape}")
        if len(chosen) and chosen.dtype.kind not in "iu":
            raise OptionError(
                f"select takes whole numbers, or a boolean array; got values of type {chosen.dtype}"
            )
        chosen = chosen.astype(np.int64)
        if len(chosen) and not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise FrameIndexError(
                f"positions {chosen.min()} to {chosen.max()} are not all inside the index, which has "
                f"{len(self)} frames"
            )
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        rows = chosen if self._rows is None else self._rows[chosen]
        return FrameIndex(self._generation, rows, [part.select(chosen) for part in self._joined])

    def where(self, **equals: Any) -> npt.NDArray[np.bool_]:
        """For each frame whether every column named equals the value given, or one of a list of values.

        Raises:
            OptionError: There is no such column, or it holds several numbers.
        """
        mask = np.ones(len(self), np.bool_)
        for name, wanted in equals.items():
            data = self.column(name)
            several = isinstance(wanted, list | tuple | set | frozenset | np.ndarray)
            values = list(wanted) if several else [wanted]
            if isinstance(data, Texts):
                codes = data.codes_of(map(str, values))
                mask &= np.isin(data.codes, codes[codes >= 0])
            elif data.ndim == 1:
                numbers = np.asarray(values)
                if len(values) and numbers.dtype.kind not in "biuf":
                    raise OptionError(
                        f"{name} holds numbers and cannot be compared with {type(values[0]).__name__}"
                    )
                mask &= np.isin(data, numbers)
            else:
                raise OptionError(
                    f"{name} holds {data.shape[1]} numbers a frame and cannot be compared with one "
                    f"value; make a boolean array from index.column({name!r}) and use select"
                )
        return mask

    def filter(
        self,
        expression: pc.Expression | Callable[[FrameIndex], Any] | None = None,
        /,
        **equals: Any,
    ) -> FrameIndex:
        """The frames for which all that is asked holds, in the order they have.

        Args:
            expression: A function of the index that gives a boolean array with one value per frame, or an expression of
                `pyarrow.compute` over the columns.
            equals: Values that columns shall have; a list means any of its values.

        Example:
            >>> index.filter(Modality=["CT", "MR"], Rows=512)                            # doctest: +SKIP
            >>> index.filter(lambda index: index.column("KVP") > 100, Modality="CT")     # doctest: +SKIP
            >>> index.filter(pc.field("SliceThickness") <= 2.5)                          # doctest: +SKIP

        Raises:
            OptionError: There is no such column, or the expression gives something else.
        """
        mask = self.where(**equals)
        if expression is not None:
            given = (
                np.asarray(expression(self))
                if callable(expression)
                else exports.evaluate(expression, self._arrow, [c.name for c in self.columns])
            )
            if given.dtype != np.bool_ or given.shape != mask.shape:
                raise OptionError(
                    f"the expression of filter must give a boolean array with one value per frame, ({len(self)},); "
                    f"got {given.dtype}, {given.shape}"
                )
            mask &= given
        return self.select(mask)

    def images(self, *, duplicates: Duplicates = "keep") -> FrameIndex:
        """The frames that are images to train on.

        Left out are segmentations, dose grids, localizers, screen captures, and labels and overviews of slides;
        `selection.is_image` has the rule.

        Args:
            duplicates: See `deduplicate`.
        """
        return self.select(self.image_mask()).deduplicate(duplicates)

    def image_mask(self) -> npt.NDArray[np.bool_]:
        """For each frame whether `images` keeps it."""
        names = ("SOPClassUID", "Modality", "ImageType")
        return selection.image_mask(*(self.column(name) for name in names))

    def repeated(self) -> npt.NDArray[np.bool_]:
        """For each frame whether its file repeats the SOPInstanceUID of an earlier one."""
        uids, file = self.column("SOPInstanceUID"), np.asarray(self.column("file"))
        _, first, inverse = np.unique(uids.codes, return_index=True, return_inverse=True)
        mask: npt.NDArray[np.bool_] = (file != file[first][inverse]) & (uids != "")
        return mask

    def deduplicate(self, duplicates: Duplicates = "first") -> FrameIndex:
        """Decides about files that have the SOPInstanceUID of an earlier file.

        Args:
            duplicates: "keep" them, keep the "first" of each, or "raise" if there are any.

        Raises:
            OptionError: There are some and `duplicates="raise"`.
        """
        if duplicates not in ("keep", "first", "raise"):
            raise OptionError(f'duplicates must be "keep", "first" or "raise"; got {duplicates!r}')
        if duplicates == "keep":
            return self
        mask = self.repeated()
        count = len(np.unique(np.asarray(self.column("file"))[mask]))
        if count and duplicates == "raise":
            path = printable(self.path(int(np.argmax(mask))))
            raise OptionError(
                f"{count} files have the SOPInstanceUID of an earlier one, {path} for example; "
                f'duplicates="first" leaves them out'
            )
        return self.select(~mask) if count else self

    def find(self, **equals: Any) -> int:
        """The position of the one frame whose columns equal the values given.

        Example:
            >>> index.find(SOPInstanceUID="1.2.840...", frame=0)           # doctest: +SKIP

        Raises:
            FrameNotFoundError: None or several are so.
        """
        found = np.flatnonzero(self.where(**equals))
        if len(found) != 1:
            asked = ", ".join(equals)
            if not len(found):
                raise FrameNotFoundError(f"no frame of {len(self)} matches the {asked} given")
            files = sorted({self.path(int(k)) for k in found[:100]})
            names = ", ".join(printable(path) for path in files[:3])
            raise FrameNotFoundError(
                f"{len(found)} frames match the {asked} given, in {names}{' ...' * (len(files) > 3)}; "
                f"add a column that tells them apart (frame=, file=), or use filter"
            )
        return int(found[0])

    # Labels

    def join(self, table: Any, on: str | Sequence[str] = "SOPInstanceUID") -> FrameIndex:
        """This index with the columns of a table beside its own.

        Joined columns can be asked for and filtered by as any other, and are keys of `meta`: numbers and truth values
        are int64 (missing -1) or float64 (missing nan), text and times are text (missing ""). Order and length stay. A
        warning says how many frames and how many rows of the table have no match.

        Args:
            table: A pandas DataFrame, an Arrow table, a dict of lists, or the path of a CSV file.
            on: The key, a column of both: "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
                "SOPInstanceUID", ["SOPInstanceUID", "frame"] (frames count from 0), or any other column of the
                index that is text or whole numbers.

        Raises:
            OptionError: A key is in the table more than once, no row matches, or names clash.

        Example:
            >>> index.join("labels.csv", on="PatientID").column("label")           # doctest: +SKIP
        """
        names = [on] if isinstance(on, str) else list(on)
        keys = {name: self._key(name) for name in names}
        if "PatientID" in names and "IssuerOfPatientID" not in names:
            self._refuse_ambiguous_patients()
        found = joins.match(keys, joins.read_table(table, names), [c.name for c in self.columns])
        said = [
            (found.frames, f"{found.frames} of {len(self)} frames have no row in the table"),
            (found.unused, f"{found.unused} rows of the table have no frame"),
            (found.keyless, f"{found.keyless} rows of the table have no key"),
        ]
        if any(count for count, _ in said):
            text = ", ".join(text for count, text in said if count)
            warnings.warn(f"join on {', '.join(names)}: {text}", stacklevel=2)
        return FrameIndex(self._generation, self._rows, [*self._joined, found.joined])

    def _key(self, name: str) -> Any:
        data = self.column(name)
        if not isinstance(data, Texts) and (data.ndim > 1 or data.dtype.kind != "i"):
            raise OptionError(f"{name} cannot be a key: it is neither text nor whole numbers")
        return data

    def _refuse_ambiguous_patients(self) -> None:
        patients, issuers = self.column("PatientID"), self.column("IssuerOfPatientID")
        pairs = np.unique(np.stack([patients.codes, issuers.codes]), axis=1)
        codes, counts = np.unique(pairs[0], return_counts=True)
        shared = codes[(counts > 1) & (codes != patients.code(""))]
        if len(shared):
            raise OptionError(
                f"{len(shared)} PatientIDs come from several issuers and may be different people; join on "
                f'["PatientID", "IssuerOfPatientID"]'
            )

    # Splitting

    def split(
        self, fractions: Sequence[float], *, by: str | Sequence[str] = "PatientID", seed: int = 0
    ) -> list[FrameIndex]:
        """Parts that have no patient in common.

        The part of a patient is a hash of the PatientID and the seed: fractions are met about, and patients that come
        later move none of those that are there. Frames without PatientID go by study, with a warning.

        Args:
            fractions: Of each part; they sum to 1.
            by: What must not be in two parts: a column, or several.
            seed: 0 to 2**64 - 1; another one gives other parts.

        Raises:
            OptionError: Fractions do not sum to 1.

        Example:
            >>> train, validation, test = index.split([0.7, 0.15, 0.15])            # doctest: +SKIP
        """
        groups = self._groups(by)
        part = splits.parts(groups.keys, fractions, seed)[groups.number]
        for k, fraction in enumerate(fractions):
            if fraction > 0 and len(self) and not (part == k).any():
                warnings.warn(
                    f"part {k} of the split is empty: there are only {len(groups.keys)} groups; try another seed",
                    stacklevel=2,
                )
        self._warn_if_studies_straddle(part)
        return [self.select(part == k) for k in range(len(fractions))]

    def kfold(
        self,
        k: int,
        *,
        by: str | Sequence[str] = "PatientID",
        stratify: str | None = None,
        seed: int = 0,
    ) -> list[tuple[FrameIndex, FrameIndex]]:
        """K pairs (training, validation); each frame is in one validation part, and no patient in both of a pair.

        Args:
            k: Number of folds.
            by: What must not be in two folds: a column, or several.
            stratify: A column, often a joined label, whose values shall be spread evenly: patients with equal sets of
                values are dealt out in the order of their hash. This costs the stability that `split` has: with new
                patients, old ones change their fold.
            seed: 0 to 2**64 - 1; another one gives other folds.

        Raises:
            OptionError: There are fewer groups than folds, or too many values to stratify by.
        """
        groups = self._groups(by)
        strata = None if stratify is None else splits.strata_of(groups, self._key(stratify))
        fold = splits.folds(groups.keys, k, seed, strata)[groups.number]
        empty = [n for n in range(k) if not (fold == n).any()]
        if empty:
            warnings.warn(
                f"{len(empty)} of {k} folds are empty: there are only {len(groups.keys)} groups; take a smaller k, "
                f"another seed, or stratify",
                stacklevel=2,
            )
        self._warn_if_studies_straddle(fold)
        return [(self.select(fold != n), self.select(fold == n)) for n in range(k)]

    def _groups(self, by: str | Sequence[str]) -> splits.Groups:
        names = [by] if isinstance(by, str) else list(by)
        if names != ["PatientID"]:
            return splits.group_by([self._key(name) for name in names])
        studies = self.column("StudyInstanceUID")
        groups, nobody = splits.by_patient(
            self.column("PatientID"), self.column("IssuerOfPatientID"), studies
        )
        if nobody.any():
            warnings.warn(
                f"{int(nobody.sum())} of {len(self)} frames have no PatientID and are grouped by study "
                f"({len(np.unique(studies.codes[nobody]))} studies)",
                stacklevel=3,
            )
        return groups

    def _warn_if_studies_straddle(self, part: npt.NDArray[np.int64]) -> None:
        studies = self.column("StudyInstanceUID")
        pairs = np.unique(np.stack([studies.codes, part]), axis=1)
        codes, counts = np.unique(pairs[0], return_counts=True)
        several = int(((counts > 1) & (codes != studies.code(""))).sum())
        if several:
            warnings.warn(
                f"{several} studies are in several parts, because what was split by differs within them; "
                f'by="StudyInstanceUID" keeps each together',
                stacklevel=3,
            )

    # As a table

    @property
    def table(self) -> pa.Table:
        """The frames as an Arrow table, joined columns last; over the same memory if nothing was selected."""
        return self._arrow([column.name for column in self.columns])

    def to_pandas(self) -> Any:
        """The frames as a `pandas.DataFrame`; text is categorical, `path` comes first.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        import_optional("pandas", "pandas")
        return self._with_paths(self.table).to_pandas()

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        deidentified: bool = True,
        salt: bytes | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        """Writes the frames as a table to share: `.csv`, `.parquet` or `.arrow` by the suffix of `path`.

        Args:
            path: The file, replaced if there is one; only its owner may read it.
            deidentified: Without PatientID, paths, times, tags and joined columns, and with a hash in place of each
                UID: `patient` and the hashes still tell what belongs together. Of a coded value that is not of the
                standard, VR and length are written (`model.shown`). `False` writes everything.
            salt: Of the hashes. The same salt gives the same hashes, so keep it secret; `None`: a random one.
            keep: Further columns to be written, of which you know that they identify nobody.

        Raises:
            OptionError: The suffix is none of these, or there is no column of `keep`.
            OSError: It could not be written; what was there stays.
        """
        names = [column.name for column in self.columns]
        if deidentified:
            absent = [name for name in keep if name not in names]
            if absent:
                raise OptionError(f"keep: there is no column {', '.join(absent)}")
            chosen = [n for n in names if n in exports.SHARED or n in exports.HASHED or n in keep]
            table = exports.hash_uids(exports.withhold(self._arrow(chosen), keep), salt)
        else:
            table = self._with_paths(self.table)
        exports.write_table(table, Path(path))

    def _arrow(self, names: Sequence[str]) -> pa.Table:
        columns = [column for column in self.columns if column.name in names]
        table = {column.name: self.column(column.name) for column in columns}
        # Who gets a table of some patients must not find the others among the values of its columns.
        table = {
            k: data.compact() if isinstance(data, Texts) else data for k, data in table.items()
        }
        return pa.Table.from_batches([tables.to_arrow(table, columns)])

    def _with_paths(self, table: pa.Table) -> pa.Table:
        files, inverse = np.unique(np.asarray(self.column("file")), return_inverse=True)
        paths = pa.array(
            [printable(self.file_path(int(file))) for file in files], pa.large_string()
        )
        return table.add_column(0, "path", paths.take(pa.array(inverse)))

    # Storing

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a new folder of Arrow files; see `index_file`.

        The folder appears whole or not at all, readable by its owner only, because it holds identifiers. A selection is
        written as the whole scan that it came from with its row numbers; joined columns are written too.

        Raises:
            IndexFileError: There is something at `path` already.
            OSError: It could not be written; nothing is left behind.
        """
        index_file.write(self._generation, Path(path), self._rows, self._joined)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FrameIndex:
        """Opens an index that `save` wrote; it is read into memory and checked.

        It is pickled as its path, so it has to stay there. Worker processes that are forked share the memory, those
        that are spawned read it anew. What `DicomFrames(root)` keeps in its cache is mapped, and shared by all.

        Raises:
            IndexFileError: It is missing, damaged, or of another version.
        """
        # Worker processes, which open it by its path, may be in another folder.
        return cls(*index_file.read(Path(path).absolute()))

    def __getstate__(self) -> dict[str, Any]:
        generation = self._generation
        state: dict[str, Any] = {"rows": self._rows, "uuid": generation.uuid}
        state["joined"] = [
            (part.rows, part.columns, index_file.to_bytes(part.table, part.columns))
            for part in self._joined
        ]
        if generation.folder is not None:
            return state | {"folder": generation.folder, "mapped": generation.mapped}
        tables_ = index_file.serialize(generation)
        return state | {
            "tables": tables_,
            "root": generation.root,
            "tags": dict(generation.tags),
            "limits": generation.limits,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        rows, uuid = state["rows"], state["uuid"]
        if "folder" in state:
            generation = open_generation(state["folder"], uuid, mapped=state["mapped"])
        else:
            generation = index_file.deserialize(
                state["tables"],
                uuid=uuid,
                root=state["root"],
                tags=state["tags"],
                limits=state["limits"],
            )
        joined = [
            Joined(
                rows,
                columns,
                tables.from_arrow(tables.read_batch(data, columns, "a join"), columns),
            )
            for rows, columns, data in state["joined"]
        ]
        self.__init__(generation, rows, joined)  # type: ignore[misc]

    def _image_pixel(self, row: int) -> ImagePixel:
        number = int(self._generation.frames["image_pixel"][row])
        pixel = self._image_pixels.get(number)
        if pixel is None:
            pixel = objects.image_pixel(self._generation, row)
            _keep(self._image_pixels, number, pixel)
        return pixel

    def _column(self, name: str) -> tuple[ColumnData, npt.NDArray[Any] | None]:
        """(a column of a table, the rows of it that the positions are; `None` for all)."""
        part = self._joined_names.get(name)
        if part is not None:
            return part.table[name], part.rows
        data = self._generation.frames.get(name)
        if data is None:
            close = [c.name for c in self.columns if c.name.lower() == name.lower()]
            hint = f"; did you mean {close[0]}?" if close else "."
            raise OptionError(
                f"the index has no column {name!r}{hint} Scan with tags=[{name!r}] if it is a DICOM "
                f"keyword; index.columns lists what there is"
            )
        return data, self._rows


def _keep(kept: dict[int, Any], number: int, value: Any) -> None:
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    kept[number] = value
