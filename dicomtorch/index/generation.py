"""One scan as three immutable tables: ordered, numbered, taken over from an earlier one."""

from __future__ import annotations

import os
import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from dicomtorch.errors import SourceError, printable
from dicomtorch.index import columns as tables
from dicomtorch.index.builder import Part
from dicomtorch.index.codes import by_appearance, numbered
from dicomtorch.index.columns import Packed, Table, Texts, large_binaries
from dicomtorch.index.members import object_lengths
from dicomtorch.index.merging import Picked, concatenate_tables, is_repeated, none_of, shrunk
from dicomtorch.index.suv import set_suv_factors
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.schema import FRAME_VALUES, FRAMES, IMAGE_PIXEL, LUT_COLUMNS, Column, Kind

Rows = npt.NDArray[np.int64]

_LOOKED_FOR = 16  # files


@dataclass(frozen=True, eq=False)
class Generation:
    """The tables of one scan; never changed once made.

    Attributes:
        uuid: Names it.
        root: What the paths of the files table are below, absolute.
        tags: Further columns, by keyword, that were asked for.
        frames: Columns of `schema.FRAMES` and `tags`.
        files: Columns of `schema.FILES`.
        lookups: Columns of `schema.LOOKUPS`.
        folder: Where it is stored; `None` if it is in memory only.
        mapped: Whether the tables are views of the mapped files in `folder`.
        limits: What the scan admitted; reading and decoding admit the same.
        seen: Size, time and inode that the files in `folder` had when all of them were checked.
        moved_from: What is stored, if the files are elsewhere by now; it stays open as long as this does.
    """

    uuid: str
    root: bytes
    tags: Mapping[str, Kind]
    frames: Table
    files: Table
    lookups: Table
    folder: Path | None = None
    mapped: bool = False
    limits: Limits = LIMITS
    moved_from: Generation | None = None
    seen: Mapping[str, tuple[int, int, int]] | None = None

    def __len__(self) -> int:
        return len(self.frames["frame"])


def frame_columns(tags: Mapping[str, Kind]) -> tuple[Column, ...]:
    """The columns of a frames table that also holds `tags`."""
    return FRAMES + tuple(Column(name, kind) for name, kind in tags.items())


def shift(table: Table, name: str, by: int) -> None:
    """Adds `by` to the row numbers in a column, where there are any."""
    column = np.asarray(table[name])
    if is_repeated(column) and column[0] < 0:
        return
    table[name] = np.where(column < 0, column, column + by).astype(column.dtype)


def take_files(generation: Generation, chosen: Rows) -> tuple[Table, Table]:
    """The files `chosen`, in that order, and their frames."""
    files, frames = generation.files, generation.frames
    return _pick((files, none_of(files)), (frames, none_of(frames)), chosen)


def _pick(
    files: tuple[Table, Table], frames: tuple[Table, Table], chosen: Rows
) -> tuple[Table, Table]:
    """(frames, files) of two scans: the files `chosen`, those of the second counted on from the end of the first."""
    lengths = [len(table["size"]) for table in files], [len(table["frame"]) for table in frames]
    found = Picked(lengths[0][0], chosen).of(*files)
    counts = np.asarray(found["frames"])
    ends = np.cumsum(counts)
    starts = np.asarray(found["first_row"]) + np.where(chosen < lengths[0][0], 0, lengths[1][0])
    rows = np.arange(int(ends[-1]) if len(ends) else 0)
    rows += np.repeat(starts - (ends - counts), counts)
    picked = Picked(lengths[1][0], rows).of(*frames)
    picked["file"] = np.repeat(np.arange(len(chosen), dtype=np.int32), counts)
    found["first_row"] = np.where(counts > 0, ends - counts, -1)
    return picked, found


def take_lookups(frames: Table, lookups: Table) -> Table:
    """The lookups that some frame refers to; `frames` get their new numbers."""
    used = np.zeros(len(lookups["bits"]), np.bool_)
    counts: dict[str, Any] = {"palette": 3, "voi_lut": frames["voi_lut_count"]}
    columns = {name: np.asarray(frames[name]) for name in LUT_COLUMNS}
    for name, first in columns.items():
        count = counts.get(name, 1)
        for k in range(int(np.max(count, initial=1))):
            used[first[(first >= 0) & (k < count)] + k] = True
    if used.all():
        return lookups
    number = np.cumsum(used, dtype=np.int32) - np.int32(1)
    for name, first in columns.items():
        frames[name] = np.where(first < 0, first, number[first])
    return tables.take(lookups, np.flatnonzero(used))


def finish(
    root: bytes,
    tags: Mapping[str, Kind],
    frames: Table,
    files: Table,
    lookups: Table,
    limits: Limits = LIMITS,
) -> Generation:
    """Orders by path and numbers what is distinct."""
    draft = Generation(str(uuids.uuid4()), root, tags, frames, files, lookups)
    order = by_path(files["path"])
    if order is not None:
        frames, files = take_files(draft, order)
    frames = dict(frames)  # those given stay as they are: a scan goes on with them
    set_suv_factors(frames)
    frames["patient"] = _number_patients(frames)
    for number, names in (("image_pixel", IMAGE_PIXEL), ("frame_values", FRAME_VALUES)):
        codes = numbered([frames[name] for name in names], len(draft))
        frames[number] = shrunk(by_appearance(codes).astype(np.int32))
    frames = {column.name: frames[column.name] for column in frame_columns(tags)}
    return Generation(draft.uuid, root, tags, frames, files, lookups, limits=limits)


def updated(old: Generation, kept: npt.NDArray[np.intp], part: Part) -> Generation:
    """A generation of the files `kept` of an earlier one, and of new ones.

    Args:
        old: The earlier one.
        kept: Rows of its files table.
        part: The new files, with the columns of `old`.
    """
    frames, files = dict(part.frames), dict(part.files)
    for name in LUT_COLUMNS:
        shift(frames, name, len(old.lookups["bits"]))
    before = {name: old.frames[name] for name in frames}
    paths, new = old.files["path"], files["path"]
    assert isinstance(paths, Packed)
    assert isinstance(new, Packed)
    chosen = np.concatenate([kept, len(paths) + np.arange(len(new))])
    order = by_path(Packed.concatenate([paths.take(kept), new]))
    if order is not None:
        chosen = chosen[order]
    frames, files = _pick((old.files, files), (before, frames), chosen)
    lookups = take_lookups(frames, concatenate_tables([old.lookups, part.lookups]))
    return finish(old.root, old.tags, frames, files, lookups, old.limits)


def by_path(paths: Any) -> Rows | None:
    """The order of paths, `None` if they are in order; equal ones stay as they are."""
    given = large_binaries(paths)
    if pc.all(
        pc.less_equal(given[:-1], given[1:])
    ).as_py():  # nearly always, and far faster than sorting
        return None
    return np.asarray(pc.sort_indices(given)).astype(np.int64)


def moved(generation: Generation, root: bytes) -> Generation:
    """The same scan of files that are below another folder by now; their inodes are not known.

    Raises:
        SourceError: None of them is there.
    """
    _check_moved(generation, root)
    files = dict(generation.files)
    files["inode"] = np.broadcast_to(np.int64(0), (len(files["size"]),))
    stored = generation.moved_from or generation
    return replace(generation, root=root, files=files, moved_from=stored)


def _check_moved(generation: Generation, folder: bytes) -> None:
    """At a wrong folder every read would fail: look for some of the files first."""
    paths: Any = generation.files["path"]
    some = np.linspace(0, len(paths) - 1, min(_LOOKED_FOR, len(paths))).astype(np.intp)
    lengths = object_lengths(generation.files, some).tolist()
    looked_for = [
        os.path.join(folder, paths[k][:length])
        for k, length in zip(some.tolist(), lengths, strict=True)
    ]
    if looked_for and not any(map(os.path.exists, looked_for)):
        raise SourceError(
            f"{printable(folder)} has none of the files of the index that were looked for, {printable(looked_for[0])} "
            f"for example; name the folder that stands for {printable(generation.root)}"
        )


def _number_patients(frames: Table) -> npt.NDArray[np.int32]:
    patients, issuers, studies = (
        frames[name] for name in ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
    )
    assert isinstance(patients, Texts)
    assert isinstance(issuers, Texts)
    assert isinstance(studies, Texts)
    key = patients.codes.astype(np.int64) * (len(issuers.values) + 1) + issuers.codes
    # Without an ID, the study is the smallest group that surely is one person.
    nobody = patients.codes == patients.code("")
    return by_appearance(np.where(nobody, -1 - studies.codes.astype(np.int64), key)).astype(
        np.int32
    )
