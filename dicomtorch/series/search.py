"""Finds the stacks of an index."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import GeometryError, OptionError, printable
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.geometry import (
    SAME_PLACE,
    Floats,
    Ints,
    SliceGeometry,
    affine_lps,
    arrange,
    is_orientation,
    projections,
)
from dicomtorch.series.stacks import (
    REPEATED,
    LeftOut,
    OnGap,
    Stack,
    StackGap,
    StackList,
    StackReport,
    _listed,
)

_ALIKE = (
    "patient",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "SOPClassUID",
    "Modality",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "ImageType",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "KVP",
    "ComplexImageComponent",
    "StackID",
    "SegmentNumber",
    "OpticalPathIdentifier",
)
"""What all slices of a stack have in common, besides orientation and pixel spacing.

Patient and study, because careless de-identification leaves several series with one UID, or none.
"""

_SEPARATING = (
    "AcquisitionNumber",
    "TemporalPositionIndex",
    "EchoTime",
    "DiffusionBValue",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
)
"""What tells slices at one place apart, in the order in which it is tried."""

_TOLERANCE = 1e-4  # of direction cosines, and of millimetres between pixels
_CINE = frozenset({"US", "IVUS", "XA", "RF"})
# Reconstructions by machines whose other images are projections or planes held by hand.
_VOLUME_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("6.2", "13.1.1", "13.1.2", "13.1.3")
)


def stacks(
    index: FrameIndex, *, split_by: str | Sequence[str] | None = None, on_gap: OnGap = "raise"
) -> StackList:
    """Groups the frames of an index into volumes, and orders each along its normal; file names play no part.

    Slices belong together where patient, series, frame of reference, kind of image, size, spacing, orientation and the
    like agree. Where several are at one place, the first that tells them apart of acquisition, temporal position, echo,
    b-value, cardiac phase and trigger time splits the stack. Frames of ultrasound, angiography and fluoroscopy,
    localizers, frames without position, orientation or pixel spacing, and what shows a single place are in no stack:
    see `StackList.left_out`.

    Args:
        index: Of the frames.
        split_by: Columns of the index whose values shall not be mixed in a stack.
        on_gap: For missing slices, unequal spacing and repeats that nothing tells apart: "raise", "warn" once, or
            "keep" in silence. With the last two copies of a slice are left out, and a stack with other repeats too.

    Raises:
        GeometryError: `on_gap="raise"`, and a stack is irregular; the message lists the files.
        OptionError: There is no such column, or `on_gap` is none of these.
    """
    if on_gap not in ("raise", "warn", "keep"):
        raise OptionError(f'on_gap must be "raise", "warn" or "keep"; got {on_gap!r}')
    keys = [split_by] if isinstance(split_by, str) else list(split_by or ())
    return _Search(index, keys, on_gap).run()


@dataclass
class _Search:
    index: FrameIndex
    split_by: list[str]
    on_gap: OnGap
    found: StackList = field(default_factory=StackList)
    left_out: list[LeftOut] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    kept: dict[str, Ints] = field(default_factory=dict)

    def run(self) -> StackList:
        names = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        self.place, self.orientation, self.pixel = (
            np.asarray(self.index.column(name), np.float64) for name in names
        )
        self.files = np.asarray(self.index.files["rows"])
        usable = self._usable()
        localizers = np.flatnonzero(self.is_localizer)
        series = self._codes("SeriesInstanceUID")[localizers]
        self.localizers = {
            int(piece[0]): rows
            for rows, piece in zip(
                _pieces(localizers, series), _pieces(series, series), strict=True
            )
        }
        for group in self._groups(np.flatnonzero(usable)):
            self._group(group)
        self.found.sort(key=lambda stack: int(stack.positions.min()))
        self.found.left_out = tuple(self.left_out)
        if self.problems:
            self._say()
        return self.found

    def _usable(self) -> npt.NDArray[np.bool_]:
        """Frames that can be slices; notes why the others cannot."""
        index = self.index
        usable = np.ones(len(index), np.bool_)
        self.is_localizer = _has_value(index.column("ImageType"), {"LOCALIZER", "SCOUT"})
        cine = _among(index.column("Modality"), _CINE)
        cine &= ~_among(index.column("SOPClassUID"), _VOLUME_CLASSES)
        geometry = np.concatenate([self.place, self.orientation, self.pixel], axis=1)
        absent = ~(np.isfinite(geometry).all(axis=1) & (self.pixel > 0).all(axis=1))
        skewed = np.zeros(len(index), np.bool_)
        known, inverse = np.unique(self.orientation[~absent], axis=0, return_inverse=True)
        skewed[~absent] = ~np.array([is_orientation(one) for one in known], np.bool_)[
            inverse.ravel()
        ]
        for mask, reason in (
            (self.is_localizer, "localizers"),
            (cine, "ultrasound, angiography or fluoroscopy, which are no volumes"),
            (absent, "no position, orientation or pixel spacing in the file"),
            (skewed, "the orientation is not two unit vectors at a right angle"),
        ):
            if (usable & mask).any():
                self.left_out.append(LeftOut(np.flatnonzero(usable & mask), reason))
            usable &= ~mask
        return usable

    def _groups(self, rows: Ints) -> list[Ints]:
        codes = np.zeros(len(rows), np.int64)
        for name in (*_ALIKE, *self.split_by):
            codes = _combined(codes, self._codes(name)[rows])
        groups = []
        for group in _pieces(rows, codes):
            geometry = np.concatenate([self.orientation[group], self.pixel[group]], axis=1)
            groups += _pieces(group, _clusters(geometry, _TOLERANCE))
        return groups

    def _group(self, group: Ints) -> None:
        parts = self._separated(group, _SEPARATING)
        copies: Ints = np.empty(0, np.int64)
        if parts is None and self.on_gap != "raise":
            first = self._first_of_copies(group)
            copies, kept = group[~first], group[first]
            parts = self._separated(kept, _SEPARATING) if len(copies) else None
        if parts is None:
            self._repeated(group)
            return
        for part in parts:
            if self._places_of(part).max() == 0:
                self.left_out.append(LeftOut(part, "a single place, which is no volume"))
            else:
                uids = self._codes("SOPInstanceUID")
                self._add(part, copies[np.isin(uids[copies], uids[part])])

    def _separated(self, group: Ints, keys: Sequence[str]) -> list[Ints] | None:
        """Parts of a group that have one slice at each place; `None` if nothing tells its repeats apart."""
        places = self._places_of(group)
        counts = np.bincount(places)
        if counts.max() == 1 or len(counts) == 1:
            return [group]
        for key in keys:
            values = self._codes(key)[group]
            if np.unique(_combined(places, values)).size == len(counts):
                continue  # the same for all slices at each place
            others = [other for other in keys if other != key]
            found = self._by_time(group, places, counts) if key == "TriggerTime" else None
            pieces = found or _pieces(group, values)
            if not found and not self._are_stacks(pieces, _pieces(places, values), counts):
                continue
            parts = [self._separated(piece, others) for piece in pieces]
            if all(part is not None for part in parts):
                return [one for part in parts for one in part or ()]
        return None

    def _are_stacks(self, pieces: Sequence[Ints], places: Sequence[Ints], counts: Ints) -> bool:
        """Whether the values of a column may be what tells several stacks apart.

        A number that changes from slice to slice, or with every package of interleaved slices, says nothing of stacks.
        """
        distinct = [np.unique(one) for one in places]
        if min(map(len, distinct)) < 2:
            return False
        whole = all(np.ptp(one) == len(one) - 1 for one in distinct)
        return whole or len(pieces) == counts.max()

    def _by_time(self, group: Ints, places: Ints, counts: Ints) -> list[Ints] | None:
        """Phases of a gated series, whose trigger times differ from slice to slice: the k-th of each place."""
        times = np.array(self.index.gather("TriggerTime", group))
        distinct = np.unique(np.stack([places, times], axis=1), axis=0)
        if (counts != counts[0]).any() or len(distinct) < len(group) or np.isnan(times).any():
            return None
        order = np.lexsort((times, places)).reshape(len(counts), -1)
        return [group[order[:, k]] for k in range(order.shape[1])]

    def _places_of(self, group: Ints) -> Ints:
        """A number for each place along the normal, from 0."""
        along = projections(self.place[group], self.orientation[group[0]])
        order = np.argsort(along, kind="stable")
        places = np.empty(len(group), np.int64)
        new = np.diff(along[order], prepend=along[order[0]]) >= SAME_PLACE
        places[order] = np.cumsum(new)
        return places

    def _first_of_copies(self, group: Ints) -> npt.NDArray[np.bool_]:
        uids, frames = self._codes("SOPInstanceUID")[group], self._codes("frame")[group]
        _, first = np.unique(_combined(uids, frames), return_index=True)
        # Images without a UID are not copies of each other.
        mask = np.array([uid == "" for uid in self.index.gather("SOPInstanceUID", group)], np.bool_)
        mask[first] = True
        return mask

    def _repeated(self, group: Ints) -> None:
        places = self._places_of(group)
        repeats = group[np.bincount(places)[places] > 1]
        several = np.argsort(places[np.isin(group, repeats)], kind="stable")
        files = [self._name(i) for i in repeats[several].tolist()]
        self.problems.append(
            f"{len(files)} slices are at the place of another one, and nothing known tells them apart: "
            f"{_listed(files)}. Leave copies out with index.deduplicate(), or name what tells them apart with "
            f"split_by="
        )
        self.left_out.append(LeftOut(group, REPEATED))

    def _add(self, group: Ints, copies: Ints) -> None:
        first = group[0]
        geometry = arrange(self.place[group], self.orientation[first], self.pixel[first])
        positions = group[geometry.order]
        start = positions[0]
        sizes = [self.index.gather(name, positions[:1])[0] for name in ("Rows", "Columns")]
        between_rows, between_columns = self.pixel[start].tolist()
        stack = Stack(
            positions=positions,
            affine=affine_lps(
                self.place[start], self.orientation[start], self.pixel[start], geometry.step
            ),
            spacing=(geometry.spacing, between_rows, between_columns),
            shape=(len(positions), sizes[0], sizes[1]),
            origins=self.place[positions],
            orientation=self.orientation[start],
            report=self._report(positions, geometry, copies),
        )
        self.found.append(stack)
        if not stack.report.is_regular:
            self.problems.append(f"a stack of {len(stack)} slices: {stack.report.problems}")

    def _report(self, positions: Ints, geometry: SliceGeometry, copies: Ints) -> StackReport:
        series = int(self._codes("SeriesInstanceUID")[positions[0]])
        return StackReport(
            gaps=tuple(
                StackGap(
                    self._name(int(positions[gap.after])),
                    self._name(int(positions[gap.after + 1])),
                    gap.missing,
                    gap.millimetres,
                )
                for gap in geometry.gaps
            ),
            unequal=tuple(self._name(int(positions[k])) for k in geometry.unequal),
            duplicates=tuple(self._name(i) for i in copies.tolist()),
            localizers=tuple(self._name(int(i)) for i in self.localizers.get(series, ())),
            position_error=geometry.error,
            tilt=geometry.tilt,
        )

    def _codes(self, name: str) -> Ints:
        """Numbers for the frames of the index that are equal where the values of a column are."""
        if name not in self.kept:
            column = self.index.column(name)
            if isinstance(column, Texts):
                self.kept[name] = column.codes.astype(np.int64)
            else:
                _, inverse = np.unique(np.asarray(column), return_inverse=True)
                self.kept[name] = inverse.astype(np.int64)
        return self.kept[name]

    def _name(self, position: int) -> str:
        path = printable(self.index.path(position))
        file, frame = (
            self.index.gather(name, np.array([position]))[0] for name in ("file", "frame")
        )
        return path if self.files[file] == 1 else f"{path}, frame {frame}"

    def _say(self) -> None:
        others = len(self.problems) - 1
        more = f" ({others} more such {'stack' if others == 1 else 'stacks'})" if others else ""
        if self.on_gap == "raise":
            raise GeometryError(
                f'{self.problems[0]}{more}. on_gap="warn" goes on without them where it must, and lists them in '
                f"stack.report and left_out"
            )
        if self.on_gap == "warn":
            warnings.warn(f"{self.problems[0]}{more}", stacklevel=4)


def _combined(a: Ints, b: Ints) -> Ints:
    _, b = np.unique(b, return_inverse=True)
    _, codes = np.unique(a * (b.max(initial=0) + 1) + b, return_inverse=True)
    return codes.astype(np.int64)


def _pieces(rows: Ints, codes: Ints) -> list[Ints]:
    """`rows` by their codes, each in the order that it had."""
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    return [piece for piece in np.split(rows[order], ends) if len(piece)]


def _clusters(values: Floats, tolerance: float) -> Ints:
    """Numbers for rows that are within `tolerance` of the first one of their cluster."""
    known, inverse = np.unique(values, axis=0, return_inverse=True)
    codes = np.full(len(known), -1, np.int64)
    for k in range(len(known)):
        if codes[k] < 0:
            near = (np.abs(known - known[k]) <= tolerance).all(axis=1)
            codes[near & (codes < 0)] = k
    return codes[inverse.ravel()]


def _among(column: Texts, wanted: frozenset[str]) -> npt.NDArray[np.bool_]:
    codes = [code for code in (column.code(value) for value in wanted) if code >= 0]
    return np.isin(column.codes, codes)


def _has_value(column: Texts, wanted: set[str]) -> npt.NDArray[np.bool_]:
    """Where one of the values, which are joined with a backslash, is wanted."""
    used = np.unique(column.codes).tolist()
    codes = [
        code
        for code in used
        if wanted & {part.strip().upper() for part in column.value(code).split("\\")}
    ]
    return np.isin(column.codes, codes)
