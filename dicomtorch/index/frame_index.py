"""`FrameIndex`: one row per frame, and everything that reading the frame needs.

An index is the tables of one scan (`generation.Generation`) and, if it was selected from, row numbers. Nothing copies
the tables, so that worker processes share one mapping.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.errors import FrameNotFoundError, OptionError, have, import_optional, printable
from dicomtorch.index import exports, images, joins, selection, splits
from dicomtorch.index import generation as generations
from dicomtorch.index.builder import FileRows, Part, build_part
from dicomtorch.index.concat import concatenated
from dicomtorch.index.files import Stored
from dicomtorch.index.generation import frame_columns
from dicomtorch.index.integrated import Integrated
from dicomtorch.index.overview import overview, report
from dicomtorch.index.storable import Storable
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.report import ScanReport
from dicomtorch.model.schema import Kind
from dicomtorch.pictures import html as notebook

Duplicates = Literal["keep", "first", "raise"]


class FrameIndex(Storable, Integrated):
    """Frames of a scan, in the order of their rows.

    Made by `scan`, `load`, or by selecting from another one. `len(index)` counts frames; position `i` is what
    `DicomFrames` calls `i`.

    `generation` is the table that all indexes of one scan share, `rows` those of it, `joined` further columns,
    one value each.

    Example:
        >>> from dicomtorch import scan                                 # doctest: +SKIP
        >>> index, report = scan("studies/")                            # doctest: +SKIP
        >>> ct = index.filter(Modality="CT")                            # doctest: +SKIP
    """

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
        """An index of `files` below `root`, in memory, ordered by path, with columns of `tags` and `limits`."""
        tags = dict(tags or {})
        part = files if isinstance(files, Part) else build_part(files, frame_columns(tags))
        return cls(
            generations.finish(
                root, tags, dict(part.frames), dict(part.files), part.lookups, limits
            )
        )

    @classmethod
    def concat(cls, indexes: Iterable[FrameIndex]) -> FrameIndex:
        """The files of several indexes as one, ordered by path: the shards of a job array, or sites.

        A file that several have is there once, as the first that could open it has it. Selections stay selections.

        Args:
            indexes: Scanned with the same tags and limits, and with the same joined columns; their roots may differ.

        Raises:
            OptionError: Tags, limits, joined columns or labels of a frame differ, or a file changed between two scans.
        """
        parts = [Stored(one._generation, one._rows, one._joined) for one in indexes]
        return cls(*concatenated(parts))

    def updated(self, keep: npt.NDArray[np.bool_], new: Iterable[FileRows] | Part) -> FrameIndex:
        """This index without some files and with new ones, ordered by path.

        Args:
            keep: (files,) bool, false for those that are left out.
            new: Files that are added.
        """
        old = self._generation
        part = new if isinstance(new, Part) else build_part(new, frame_columns(old.tags))
        return FrameIndex(generations.updated(old, np.flatnonzero(keep), part))

    # What it holds

    def __repr__(self) -> str:
        overview = self.overview()
        modalities = f", {overview['Modalities']}" if len(self) else ""
        return f"FrameIndex({overview['Frames']} frames in {overview['Files']} files{modalities})"

    def _repr_html_(self) -> str:
        return notebook.table("FrameIndex", self.overview())

    def overview(self) -> dict[str, str]:
        """What there is, in words without identifiers: how many frames, patients, modalities, ..."""
        return overview(self, self.image_pixels(), self.joined)

    def report(self) -> ScanReport:
        """What the scan met, file by file."""
        whole = self.whole()
        repeated = np.unique(np.asarray(whole.column("file"))[whole.repeated()])
        return report(self._generation.files, len(repeated))

    def whole(self) -> FrameIndex:
        """All frames of the scan that this index comes from, in their order, without joined columns."""
        return FrameIndex(self._generation) if self._joined or self._rows is not None else self

    def whole_file(self, i: int) -> FrameIndex:
        """All frames of the file of frame `i`, also those that were not selected."""
        file = int(self._generation.frames["file"][self.row(i)])
        first, count = (int(self._generation.files[name][file]) for name in ("first_row", "frames"))
        return FrameIndex(self._generation, np.arange(first, first + count))

    # Selecting

    def select(self, rows: Sequence[int] | npt.NDArray[Any]) -> FrameIndex:
        """The positions asked for, in that order.

        Args:
            rows: (n,) integers, from -frames to frames - 1; or (frames,) bool, true for what is kept.
        """
        chosen = selection.positions(rows, len(self))
        rows = chosen if self._rows is None else self._rows[chosen]
        return FrameIndex(self._generation, rows, [part.select(chosen) for part in self._joined])

    def where(self, **equals: Any) -> npt.NDArray[np.bool_]:
        """(frames,) bool: whether every column named equals the value given, or one of a list of values.

        Raises:
            OptionError: There is no such column, or it holds several numbers.
        """
        return selection.equal(self, equals)

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
        if callable(expression):
            mask &= selection.truth(expression(self), len(self))
        elif expression is not None:
            names = [column.name for column in self.columns]
            mask &= selection.truth(exports.evaluate(expression, self._arrow, names), len(self))
        return self.select(mask)

    def images(self, *, duplicates: Duplicates = "keep") -> FrameIndex:
        """The frames that are images to train on.

        Left out are segmentations, dose grids, localizers, screen captures, and labels, overviews and thumbnails of
        slides; `images.is_image` has the rule.

        Sources: PS3.3 C.7.6.1.1.2 and C.8.12.4.1.1 (Image Type).

        Args:
            duplicates: See `deduplicate`.
        """
        return self.select(self.image_mask()).deduplicate(duplicates)

    def image_mask(self) -> npt.NDArray[np.bool_]:
        """(frames,) bool: whether `images` keeps a frame."""
        names = ("SOPClassUID", "Modality", "ImageType")
        return images.image_mask(*(self.column(name) for name in names))

    def repeated(self) -> npt.NDArray[np.bool_]:
        """(frames,) bool: whether a frame's file repeats the SOPInstanceUID of an earlier one."""
        return selection.repeated(self)

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
                f"{have(count, 'file')} the SOPInstanceUID of an earlier one, {path} for example; "
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

    def join(self, table: Any, on: joins.On = "SOPInstanceUID") -> FrameIndex:
        """This index with the columns of a table beside its own.

        Joined columns can be asked for and filtered by as any other, and are keys of `meta`: numbers and truth values
        are int64 (missing -1) or float64 (missing nan), text and times are text (missing ""). Order and length stay. A
        warning says how many frames and how many rows of the table have no match.

        Args:
            table: A pandas DataFrame, an Arrow table, a dict of lists, or the path of a CSV file.
            on: The key, a column of both: "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
                "SOPInstanceUID", ["SOPInstanceUID", "frame"] (frames count from 0), or any other column of the
                index that is text or whole numbers. Or what a file is called: its "path" (absolute, or below the root
                of the index), its "name", or its "stem", the name without suffix. A dict says what columns of the
                table are in the index.

        Raises:
            OptionError: A key is in the table more than once, no row matches, several files of different folders are
                called as a row says, or names clash.

        Example:
            >>> index.join("labels.csv", on="PatientID").column("label")           # doctest: +SKIP
            >>> index.join("train.csv", on={"image_id": "stem"})                   # doctest: +SKIP
        """
        joined = joins.join(self, table, on, [column.name for column in self.columns])
        return self.beside(joined)

    def beside(self, joined: joins.Joined) -> FrameIndex:
        """This index with further columns, one row for each position."""
        return FrameIndex(self._generation, self._rows, [*self._joined, joined])

    # Splitting

    def split(
        self,
        fractions: float | Sequence[float],
        *,
        by: str | Sequence[str] = "PatientID",
        seed: int = 0,
    ) -> list[FrameIndex]:
        """Parts that have no patient in common.

        The part of a patient is a hash of the PatientID and the seed: sizes come near the fractions where there are
        many patients (`kfold` deals few out evenly), and patients that come later move none of those that are there.
        Frames without PatientID go by study, with a warning.

        Args:
            fractions: Of each part; they sum to 1. One number stands for two parts: 0.8 for [0.8, 0.2].
            by: What must not be in two parts: a column, or several.
            seed: 0 to 2**64 - 1; another one gives other parts.

        Raises:
            OptionError: Fractions do not sum to 1.

        Example:
            >>> train, validation, test = index.split([0.7, 0.15, 0.15])            # doctest: +SKIP
        """
        part = splits.split(self, fractions, by, seed)
        return [self.select(one) for one in part]

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
        fold = splits.kfold(self, k, by, stratify, seed)
        return [(self.select(fold != n), self.select(fold == n)) for n in range(k)]

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

        Source: PS3.15 table E.1-1.

        Args:
            path: The file, replaced if there is one; only its owner may read it.
            deidentified: Without PatientID, paths, times, tags and joined columns, and with a hash in place of each
                UID: `patient` and the hashes still tell what belongs together. Of a coded value that is not of the
                standard, VR and length are written (`model.shown`). `False` writes everything.
            salt: Of the hashes. The same salt gives the same hashes, so keep it secret; `None`: a random one.
            keep: Further columns to be written, of which you know that they identify nobody.

        Raises:
            OptionError: The suffix is none of these, there is no column of `keep`, or `salt` is for nothing.
            SourceError: There is no such folder.
            OSError: It could not be written; what was there stays.
        """
        if salt is not None and not deidentified:
            raise OptionError("salt is for hashes: it goes with deidentified=True")
        names = [column.name for column in self.columns]
        names = exports.shared_names(names, keep) if deidentified else names
        hashed_uid = exports.UIDHash(salt)

        def rows(part: FrameIndex) -> pa.Table:
            table = part._arrow(names)
            if deidentified:
                return exports.deidentified(table, keep, hashed_uid)
            return part._with_paths(table)

        exports.write_table(lambda most: map(rows, self._in_parts(most)), Path(path))

    def _in_parts(self, most: int) -> Iterator[FrameIndex]:
        """The rows, so many at a time; one part at least."""
        if len(self) <= most:
            yield self
            return
        for first in range(0, len(self), most):
            yield self.select(np.arange(first, min(first + most, len(self))))

    def _arrow(self, names: Sequence[str]) -> pa.Table:
        columns = [column for column in self.columns if column.name in names]
        return exports.arrow_table({c.name: self.column(c.name) for c in columns}, columns)

    def _with_paths(self, table: pa.Table) -> pa.Table:
        return exports.with_paths(table, np.asarray(self.column("file")), self.file_path)
