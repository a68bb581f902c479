"""`FrameIndex`: one row per frame, and everything that reading the frame needs.

An index is the tables of one scan (`generation.Generation`) and, if it was selected from, row numbers. Nothing copies
the tables, so that worker processes share one mapping.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from dicomtorch import columns as tables
from dicomtorch import generation as generations
from dicomtorch.attributes import (
    FILE_CLASSES,
    FileFinding,
    FrameSpan,
    FrameValues,
    ImagePixel,
    LookupTable,
    RealWorldValueMap,
    ScanReport,
)
from dicomtorch.columns import ColumnData, Packed, Table, Texts
from dicomtorch.errors import FrameIndexError, FrameNotFoundError, IndexFileError, OptionError
from dicomtorch.generation import LUT_COLUMNS, FileRows, Generation, Rows, frame_columns
from dicomtorch.schema import IMAGE_PIXEL, Column, Kind

__all__ = ["FileRows", "FrameIndex", "FrameLocation", "printable"]

_SPAN = ("offset", "length", "fragments", "bit_offset", "true_length")
_MOST_KEPT = 4096  # value objects kept per index; each is some 500 bytes


class FrameLocation(NamedTuple):
    """Where the bytes of a frame are, and what they mean: the numbers of a row that reading needs.

    Attributes:
        position: In the index that was asked.
        file: Row of the files table.
        size: Bytes that the file must have.
        mtime_ns: Time of its last change.
        deflated: Whether offsets count in the inflated data set.
        values: Equal for frames that share their `FrameValues`, of the whole scan.
        span: The fields of its `FrameSpan`.
    """

    position: int
    file: int
    size: int
    mtime_ns: int
    deflated: bool
    values: int
    span: tuple[int, int, int, int, int]


class FrameIndex:
    """Frames of a scan, in the order of their rows.

    Made by `scan`, `load`, or by selecting from another one. `len(index)` counts frames; position `i` is what
    `DicomFrames` calls `i`.

    Example:
        >>> from dicomtorch import scan                                 # doctest: +SKIP
        >>> index, report = scan("studies/")                            # doctest: +SKIP
        >>> ct = index.filter(Modality="CT")                            # doctest: +SKIP
    """

    def __init__(self, generation: Generation, rows: Rows | None = None) -> None:
        self._generation = generation
        self._rows = rows
        self._image_pixels: dict[int, ImagePixel] = {}
        self._frame_values: dict[int, FrameValues] = {}

    # Construction

    @classmethod
    def build(
        cls, files: Iterable[FileRows], *, root: bytes, tags: Mapping[str, Kind] | None = None
    ) -> FrameIndex:
        """An index of `files`, in memory, ordered by path."""
        tags = dict(tags or {})
        parts = generations.build_tables(files, frame_columns(tags))
        return cls(generations.finish(root, tags, *parts))

    def updated(self, keep: npt.NDArray[np.bool_], new: Iterable[FileRows]) -> FrameIndex:
        """This index without the files where `keep` is false, and with `new` ones, ordered by path."""
        old = self._generation
        kept_frames, kept_files = generations.take_files(old, np.flatnonzero(keep))
        frames, files, lookups = generations.build_tables(new, frame_columns(old.tags))
        generations.shift(files, "first_row", len(kept_frames["frame"]))
        generations.shift(frames, "file", len(kept_files["size"]))
        for name in LUT_COLUMNS:
            generations.shift(frames, name, len(old.lookups["bits"]))
        both = (
            tables.concatenate([{name: kept_frames[name] for name in frames}, frames]),
            tables.concatenate([kept_files, files]),
            tables.concatenate([old.lookups, lookups]),
        )
        return FrameIndex(generations.finish(old.root, old.tags, *both))

    # What it holds

    def __len__(self) -> int:
        return len(self._generation.frames["frame"]) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        files = len(np.unique(self.column("file")))
        modalities = sorted(set(self.column("Modality")) - {""})
        listed = f", {'/'.join(modalities[:8])}" if modalities else ""
        return f"FrameIndex({len(self):,} frames in {files:,} files{listed})"

    @property
    def root(self) -> bytes:
        """What the paths are below, absolute."""
        return self._generation.root

    @property
    def tags(self) -> Mapping[str, Kind]:
        """Keywords beyond the fixed columns that were read, and their kinds."""
        return self._generation.tags

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
        """The columns that there are."""
        return frame_columns(self.tags)

    def column(self, name: str) -> Any:
        """One column over the rows of this index.

        Returns:
            An array, (len,) or (len, width), or a `Texts` sequence of `str`.

        Raises:
            OptionError: There is no such column.
        """
        data = self._column(name)
        if self._rows is None:
            return data
        return data.take(self._rows) if isinstance(data, Texts | Packed) else data[self._rows]

    def gather(self, name: str, positions: npt.NDArray[np.int64]) -> list[Any]:
        """The values of one column at `positions` as `int`, `float`, `str`, or tuples of `float`."""
        data: Any = self._column(name)
        rows = positions if self._rows is None else self._rows[positions]
        if isinstance(data, Texts):
            return [data.value(code) for code in data.codes[rows].tolist()]
        values: list[Any] = data[rows].tolist()
        return [tuple(value) for value in values] if data.ndim > 1 else values

    def report(self) -> ScanReport:
        """What the scan met, file by file."""
        files: Any = self._generation.files
        classes: Any = FILE_CLASSES
        findings = tuple(
            FileFinding(path, classes[int(number)], "; ".join(filter(None, (reason, notices))))
            for path, number, reason, notices in zip(
                files["path"], files["file_class"], files["reason"], files["notices"], strict=True
            )
        )
        return ScanReport(findings=findings, reused=len(findings))

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
        return os.path.join(self._generation.root, path)

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
        of_file = (files[name][numbers].tolist() for name in ("size", "mtime_ns", "deflated"))
        spans = zip(*(frames[name][rows].tolist() for name in _SPAN), strict=True)
        values = frames["frame_values"][rows].tolist()
        parts = (at.tolist(), numbers.tolist(), *of_file, values, spans)
        return [FrameLocation(*row) for row in zip(*parts, strict=True)]

    def whole_file(self, i: int) -> FrameIndex:
        """All frames of the file of frame `i`, also those that were not selected."""
        file = int(self._generation.frames["file"][self.row(i)])
        first, count = (int(self._generation.files[name][file]) for name in ("first_row", "rows"))
        return FrameIndex(self._generation, np.arange(first, first + count))

    def span(self, i: int) -> FrameSpan:
        """Where the bytes of frame `i` are."""
        frames, row = self._generation.frames, self.row(i)
        return FrameSpan(
            offset=int(frames["offset"][row]),
            length=int(frames["length"][row]),
            fragments=int(frames["fragments"][row]),
            bit_offset=int(frames["bit_offset"][row]),
            true_length=int(frames["true_length"][row]),
        )

    def image_pixel(self, i: int) -> ImagePixel:
        """How the bytes of frame `i` become stored values."""
        return self._image_pixel(self.row(i))

    def frame_values(self, i: int) -> FrameValues:
        """What turns the stored values of frame `i` into others; frames that share all of it share the object."""
        row = self.row(i)
        number = int(self._generation.frames["frame_values"][row])
        values = self._frame_values.get(number)
        if values is None:
            values = self._make_frame_values(row)
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
        chosen = chosen.astype(np.int64)
        if chosen.ndim != 1:
            raise OptionError(f"select takes a list of positions; got shape {chosen.shape}")
        if len(chosen) and not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise FrameIndexError(
                f"positions {chosen.min()} to {chosen.max()} are not all inside the index, which has "
                f"{len(self)} frames"
            )
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        return FrameIndex(self._generation, chosen if self._rows is None else self._rows[chosen])

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
                codes = [data.code(str(value)) for value in values]
                mask &= np.isin(data.codes, [code for code in codes if code >= 0])
            elif data.ndim == 1:
                mask &= np.isin(data, values)
            else:
                raise OptionError(
                    f"{name} holds {data.shape[1]} numbers a frame and cannot be compared with one "
                    f"value; make a boolean array from index.column({name!r}) and use select"
                )
        return mask

    def filter(self, **equals: Any) -> FrameIndex:
        """The frames whose columns equal the values given; a list means any of its values.

        Example:
            >>> index.filter(Modality=["CT", "MR"], Rows=512)              # doctest: +SKIP
        """
        return self.select(self.where(**equals))

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

    # Storing

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the scan to a new folder: `frames.arrow`, `files.arrow`, `lookups.arrow`, `manifest.json`.

        The folder appears whole or not at all, readable by its owner only, because it holds identifiers. A selection is
        written as the whole scan that it came from with its row numbers (`rows`).

        Raises:
            IndexFileError: There is something at `path` already.
            OSError: It could not be written; nothing is left behind.
        """
        generations.write(self._generation, Path(path), self._rows)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FrameIndex:
        """Opens an index that `save` wrote; it is read into memory and checked.

        Raises:
            IndexFileError: It is missing, damaged, or of another version.
        """
        generation, rows = generations.read(Path(path))
        return cls(generation, rows)

    def __getstate__(self) -> dict[str, Any]:
        generation = self._generation
        state: dict[str, Any] = {"rows": self._rows, "uuid": generation.uuid}
        if generation.folder is not None:
            return state | {"folder": generation.folder, "mapped": generation.mapped}
        tables_ = generations.serialize(generation)
        return state | {"tables": tables_, "root": generation.root, "tags": dict(generation.tags)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rows, uuid = state["rows"], state["uuid"]
        if "folder" in state:
            generation = open_generation(state["folder"], uuid, mapped=state["mapped"])
        else:
            generation = generations.deserialize(
                state["tables"], uuid=uuid, root=state["root"], tags=state["tags"]
            )
        self.__init__(generation, rows)  # type: ignore[misc]

    def _image_pixel(self, row: int) -> ImagePixel:
        frames = self._generation.frames
        number = int(frames["image_pixel"][row])
        pixel = self._image_pixels.get(number)
        if pixel is None:
            fields: list[Any] = [frames[name][row] for name in IMAGE_PIXEL]
            fields = [value if isinstance(value, str) else int(value) for value in fields]
            pixel = ImagePixel(*fields)
            _keep(self._image_pixels, number, pixel)
        return pixel

    def _make_frame_values(self, row: int) -> FrameValues:
        frames = self._generation.frames

        def number(name: str) -> float:
            return float(frames[name][row])

        def text(name: str) -> str:
            return str(frames[name][row])

        def lookups(name: str, count: int) -> tuple[LookupTable, ...]:
            first = int(frames[name][row])
            found = [self._lookup(first + k) for k in range(count)] if first >= 0 else []
            return tuple(table for table in found if isinstance(table, LookupTable))

        world = int(frames["real_world_value_map"][row])
        world_map = self._lookup(world) if world >= 0 else None
        return FrameValues(
            pixel=self._image_pixel(row),
            modality=text("Modality"),
            sop_class_uid=text("SOPClassUID"),
            rescale_slope=number("RescaleSlope"),
            rescale_intercept=number("RescaleIntercept"),
            rescale_type=text("RescaleType"),
            modality_lut=next(iter(lookups("modality_lut", 1)), None),
            windows=_windows(text("windows"), number("WindowCenter"), number("WindowWidth")),
            voi_lut_function=text("VOILUTFunction"),
            voi_luts=lookups("voi_lut", int(frames["voi_lut_count"][row])),
            presentation_lut_shape=text("PresentationLUTShape"),
            palette=lookups("palette", 3),
            pixel_presentation=text("PixelPresentation"),
            padding=_padding(number("PixelPaddingValue"), number("PixelPaddingRangeLimit")),
            real_world_value_map=world_map if isinstance(world_map, RealWorldValueMap) else None,
            segmentation_type=text("SegmentationType"),
            maximum_fractional_value=int(frames["MaximumFractionalValue"][row]),
            dose_grid_scaling=number("DoseGridScaling"),
            suv_factor=number("suv_factor"),
        )

    def _lookup(self, row: int) -> LookupTable | RealWorldValueMap:
        table = self._generation.lookups
        data: bytes = table["data"][row]
        first = float(table["first_mapped"][row])
        if table["kind"][row] == "lut":
            return LookupTable(int(first), int(table["bits"][row]), np.frombuffer(data, "<u2"))
        return RealWorldValueMap(
            first=first,
            last=float(table["last_mapped"][row]),
            slope=float(table["slope"][row]),
            intercept=float(table["intercept"][row]),
            units=table["units"][row],
            data=np.frombuffer(data, "<f8") if data else None,
        )

    def _column(self, name: str) -> ColumnData:
        data = self._generation.frames.get(name)
        if data is None:
            close = [c.name for c in self.columns if c.name.lower() == name.lower()]
            hint = f"; did you mean {close[0]}?" if close else ""
            raise OptionError(
                f"the index has no column {name!r}{hint} Scan with tags=[{name!r}] if it is a DICOM "
                f"keyword; index.columns lists what there is"
            )
        return data


def printable(path: bytes) -> str:
    """A path for a message: control characters and what is not UTF-8 escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _keep(kept: dict[int, Any], number: int, value: Any) -> None:
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    kept[number] = value


def _windows(several: str, center: float, width: float) -> tuple[tuple[float, float], ...]:
    if several:
        numbers = [float(part) for part in several.split("\\")]
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))
    return () if math.isnan(center) or math.isnan(width) else ((center, width),)


def _padding(value: float, limit: float) -> tuple[float, float] | None:
    if math.isnan(value):
        return None
    return (value, value) if math.isnan(limit) else (min(value, limit), max(value, limit))


_open: WeakValueDictionary[str, Generation] = WeakValueDictionary()


def open_generation(folder: Path, uuid: str, *, mapped: bool) -> Generation:
    """The stored generation `uuid`, opened once per process.

    Raises:
        IndexFileError: It is gone or damaged, or another one is there.
    """
    generation = _open.get(uuid)
    if generation is None:
        generation, _ = generations.read(folder, mapped=mapped)
        if generation.uuid != uuid:
            raise IndexFileError(
                f"{folder} holds another scan than the one that this index was made from; scan again"
            )
        _open[uuid] = generation
    return generation
