"""The mask objects of an index, and their planes in the form that placing needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dicomtorch._forks import lazy
from dicomtorch.errors import PixelValueError, format_count, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.placing import Images, Ints, Planes
from dicomtorch.model.mask_object import GEOMETRIC_TYPES, MaskObject, Segment
from dicomtorch.reader.open_files import place_of
from dicomtorch.storage.base import Identity, StoredObject
from dicomtorch.storage.choose import storage_for
from dicomtorch.storage.instances import open_instance
from dicomtorch.storage.members import open_member
from dicomtorch.storage.web import is_web

CLOSED = frozenset(GEOMETRIC_TYPES.index(kind) for kind in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"))
"""Contours that have an inside."""

EXCLUSIVE = GEOMETRIC_TYPES.index("CLOSEDPLANAR_XOR")


@dataclass(frozen=True, eq=False)
class Source:
    """One mask object and where it is.

    Attributes:
        number: Of it among the objects of its `MaskIndex`; what messages and tables call it.
        found: What the scan kept of it.
        index: All frames of its scan.
        file: Row of the files table.
        positions: (n,), of the frames of a SEG in `index`.
        frame_segment: (n,), Segment Number of each frame; -1 in a labelmap.
        only: SeriesInstanceUIDs that it is taken for alone; () for no limit.
    """

    number: int
    found: MaskObject
    index: FrameIndex
    file: int
    positions: Ints
    frame_segment: Ints
    only: tuple[str, ...] = ()

    @property
    def path(self) -> bytes:
        """Its file, absolute."""
        return self.index.file_path(self.file)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"object {self.number} ({printable(self.path)})"

    @property
    def is_contours(self) -> bool:
        """Whether it is an RTSTRUCT."""
        return self.found.kind == "rtstruct"

    @lazy
    def identity(self) -> Identity:
        """What its file was when it was indexed."""
        files: Any = self.index.files
        return Identity.of_row(files, self.file)

    @property
    def is_given(self) -> bool:
        """Whether a server gives it, so that looking at it is a request."""
        return is_web(self.index.root)

    def open(self) -> StoredObject:
        """Its file as an object that begins with the first byte of the DICOM file, also where it is in an archive.

        Raises:
            StaleIndexError: It is not the one that was indexed.
            StorageError: It cannot be opened.
        """
        if self.is_given:
            paths: Any = self.index.files["path"]
            return open_instance(self.index.root, paths[self.file], self.identity)
        name = self.index.object_path(self.file)
        place = place_of(self.index.member(self.file))
        return open_member(storage_for(self.index.root), name, self.identity, place)

    @property
    def is_deflated(self) -> bool:
        """Whether its data set is deflated, so that offsets count in the inflated bytes."""
        files: Any = self.index.files
        return bool(files["deflated"][self.file])

    def planes_of(self, segments: Sequence[int]) -> Ints:
        """Numbers of the frames or closed contours of `segments`, which are positions in `found.segments`."""
        found = self.found
        if self.is_contours:
            closed = np.isin(found.contour_type, list(CLOSED)) & (found.contour_points >= 3)
            return np.flatnonzero(closed & np.isin(found.contour_segment, list(segments)))
        if found.kind == "labelmap":
            return np.arange(len(self.positions))
        numbers = [found.segments[k].number for k in segments]
        return np.flatnonzero(np.isin(self.frame_segment, numbers))

    def planes(self, chosen: Ints, images: Images, meant: Ints) -> Planes:
        """Those frames or contours as planes; `meant` are the images that the object may name."""
        found, at = self.found, self.positions
        uids = np.append(images.instances(meant, found.references), -1)
        if self.is_contours:
            count = len(chosen)
            segment = found.contour_segment[chosen]
            own = {found.segments[k].frame_of_reference for k in set(segment.tolist())}
            return Planes(
                frame_of_reference=next(iter(own - {""}), found.frame_of_reference),
                origin=found.contour_first[chosen],
                orientation=None,
                spacing=np.full((count, 2), np.nan),
                shape=(0, 0),
                reference=uids[found.contour_reference[chosen]],
                frame_number=found.contour_frame[chosen],
                preserved=np.ones(count, np.bool_),
                tile=np.full((count, 2), -1),
            )
        rows = at[chosen]
        values = {
            name: np.asarray(self.index.values(name, rows))
            for name in (
                *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
                *("tile_column", "tile_row", "Rows", "Columns"),
            )
        }
        return Planes(
            frame_of_reference=found.frame_of_reference,
            origin=values["ImagePositionPatient"],
            orientation=values["ImageOrientationPatient"],
            spacing=values["PixelSpacing"],
            shape=(int(values["Rows"].max(initial=0)), int(values["Columns"].max(initial=0))),
            reference=uids[found.frame_reference[chosen]],
            frame_number=found.frame_number[chosen],
            preserved=found.preserved[chosen] > 0,
            tile=np.stack([values["tile_column"], values["tile_row"]], 1).astype(np.int64),
        )

    def why_no_pixels(self, segment: int) -> str:
        """Why a segment of an RTSTRUCT has no pixels at all, "" if it may have some."""
        if not self.is_contours:
            return ""
        mine = self.found.contour_segment == segment
        if not mine.any():
            return "no contours"
        if len(self.planes_of([segment])):
            return ""
        kinds = {GEOMETRIC_TYPES[k] or "unknown" for k in self.found.contour_type[mine].tolist()}
        if kinds & {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}:
            return "fewer than three points"
        return f"{', '.join(sorted(kinds))} has no inside"

    def _without_place(self) -> str:
        """What is wrong with contours that begin with no point."""
        found = self.found
        closed = np.isin(found.contour_type, list(CLOSED)) & (found.contour_points >= 3)
        lost = np.flatnonzero(closed & ~np.isfinite(found.contour_first).all(axis=1))
        if not len(lost):
            return ""
        number = found.segments[int(found.contour_segment[lost[0]])].number
        return (
            f"(3006,0050) ContourData of {format_count(len(lost), 'contour')} does not begin with a point of three "
            f"numbers (ROI {number} for one)"
        )

    def _cut_off(self) -> str:
        """What is wrong with a SEG of which not all frames are there."""
        files: Any = self.index.files
        claimed = int(files["claimed_frames"][self.file])
        if claimed <= len(self.positions):
            return ""
        return (
            f"(0028,0008) NumberOfFrames is {claimed}, and {len(self.positions)} are there in whole"
        )

    def check(self) -> None:
        """Refuses an object that is damaged.

        Raises:
            PixelValueError: It is; the message names it and the attribute to blame.
        """
        problem = self.found.problem
        if not problem and self.found.kind == "seg":
            known = {segment.number for segment in self.found.segments}
            stray = sorted(set(self.frame_segment.tolist()) - known)
            if stray and len(known) != 1:
                problem = (
                    f"(0062,000B) ReferencedSegmentNumber of a frame is {stray[0]}, which no item of (0062,0002) "
                    f"SegmentSequence has"
                )
        if not problem:
            problem = self._without_place() if self.is_contours else self._cut_off()
        if not problem and not self.is_contours:
            kind = self.found.segmentation_type
            if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
                problem = f"(0062,0001) SegmentationType has {len(kind)} characters and is none of the standard's"
        if problem:
            raise PixelValueError(
                f"masks: {self.name}: {problem}; mend the file, or leave it out: masks= takes the other files, or an "
                "index without its frames"
            )


def sources(
    index: FrameIndex, kinds: frozenset[str], only: Mapping[bytes, Sequence[str]] | None = None
) -> list[Source]:
    """The mask objects of a scan, in the order of their files.

    Args:
        index: Of it. Of objects that have frames those count of which one is selected; all if none of any is. Objects
            without frames, as structure sets, always count.
        kinds: Those wanted, of `mask_object.Kind`.
        only: Absolute path -> SeriesInstanceUIDs that the object there is taken for alone.
    """
    whole = index.whole()
    files: Any = whole.files
    packed = files["mask_object"]
    result: list[Source] = []
    for file in _selected(index, np.flatnonzero(np.diff(packed.offsets))).tolist():
        found = MaskObject.from_bytes(packed[file])
        if found.kind not in kinds:
            continue
        first, count = int(files["first_row"][file]), int(files["frames"][file])
        positions = np.arange(first, first + count) if count else np.empty(0, np.int64)
        numbers = np.asarray(whole.values("SegmentNumber", positions), np.int64)
        if found.kind == "seg" and len(found.segments) == 1:
            numbers = np.full(count, found.segments[0].number)
        series = tuple((only or {}).get(whole.file_path(file), ()))
        result.append(Source(len(result), found, whole, file, positions, numbers, series))
    return result


def _selected(index: FrameIndex, files: Ints) -> Ints:
    """Those of the files of objects that the selection of frames leaves."""
    whole: Any = index.files
    first, counts = (np.asarray(whole[name])[files] for name in ("first_row", "frames"))
    rows = np.sort(index.rows)
    there = np.searchsorted(rows, first + counts) > np.searchsorted(rows, first)
    return files[there | (counts == 0)] if there.any() else files


def has_objects(index: FrameIndex, kinds: frozenset[str]) -> bool:
    """Whether a scan has mask objects of some kinds."""
    return bool(sources(index, kinds))


def all_segments(found: Sequence[Source]) -> list[Segment]:
    """The segments of all objects; the background of a labelmap is none."""
    return [
        segment
        for source in found
        for segment in source.found.segments
        if not is_background(source.found, segment)
    ]


def is_background(found: MaskObject, segment: Segment) -> bool:
    """Whether a segment describes the background of a labelmap."""
    return found.kind == "labelmap" and segment.number == found.background
