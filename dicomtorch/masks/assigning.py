"""From mask objects and images to one table: which planes make which label of which image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import GeometryError, OptionError, format_count, have
from dicomtorch.masks.coded_names import LabelMap
from dicomtorch.masks.objects import Source, is_background
from dicomtorch.masks.placing import Flags, Images, Ints, Links, Place, Placed, place
from dicomtorch.model.mask_object import MaskObject
from dicomtorch.series.geometry import is_orientation, slice_normal

Choose = Literal["raise", "latest", "all"] | Callable[[list[dict[str, Any]]], Any]
Between = Literal["raise", "nearest", "drop"]

_MANY = -1  # the label of a plane of a labelmap: it has many


class Assigned(NamedTuple):
    """Planes on images, ordered by image.

    Attributes:
        row: Position of the image.
        label: Position of the label, -1 of a plane with many.
        source: Number of the object.
        plane: Frame or contour of the object.
        down: Rows from the image's first pixel to the plane's.
        right: Columns.
    """

    row: Ints
    label: Ints
    source: Ints
    plane: Ints
    down: Ints
    right: Ints


@dataclass
class Assignment:
    """What `assign` finds.

    Attributes:
        planes: All planes on images.
        known: (series, K): whether an object of that series has the label; by code of the series.
        reasons: (object, segment) -> why it makes no pixel anywhere.
        counts: (object, segment) -> planes, and those of them that lie on images.
        notices: What was odd.
        left_out: (object, code of the series) -> labels of a labelmap that another object was chosen for.
        resampled: Code of a series -> objects that lie on another grid and are sampled at its pixels.
    """

    planes: Assigned
    known: npt.NDArray[np.bool_]
    reasons: dict[tuple[int, int], str] = field(default_factory=dict)
    counts: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    left_out: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    resampled: dict[int, list[int]] = field(default_factory=dict)


class OnImages(NamedTuple):
    """Planes of objects, and which of them lie on which image.

    Attributes:
        images: What masks are made for.
        sources: The objects; of one scan.
        planes: Which plane makes which label of which image.
        first: (images + 1,), where the planes of each image begin.
    """

    images: Images
    sources: Sequence[Source]
    planes: Assigned
    first: Ints

    @classmethod
    def of(cls, images: Images, sources: Sequence[Source], planes: Assigned) -> OnImages:
        """The same, with where the planes of each image begin."""
        first = np.searchsorted(planes.row, np.arange(len(images.index) + 1))
        return cls(images, list(sources), planes, first)

    def on(self, row: int) -> slice:
        """Those of one image."""
        return slice(int(self.first[row]), int(self.first[row + 1]))


@dataclass(frozen=True)
class PlacingOptions:
    """How planes find their images; see `MaskIndex`."""

    place: Place = "auto"
    between: Between = "raise"
    choose: Choose = "raise"
    resamples: bool = False


def assign(
    images: Images, found: Sequence[Source], labels: LabelMap, options: PlacingOptions
) -> Assignment:
    """Places the planes of every wanted segment.

    Raises:
        GeometryError: Planes lie on another grid, or contours between slices, and the options do not say what then.
        OptionError: Several objects give one label for one series and `choose="raise"`.
        PixelValueError: An object is damaged.
    """
    result = Assignment(
        Assigned(*(np.empty(0, np.int64) for _ in range(6))),
        np.zeros((len(images.series.values), len(labels)), np.bool_),
    )
    parts: list[Assigned] = []
    gives: dict[tuple[int, int], list[int]] = {}  # (series, label) -> objects
    for source in found:
        rows, reason = rows_meant(images, source)
        wanted = {
            k: labels.position(segment)
            for k, segment in enumerate(source.found.segments)
            if not is_background(source.found, segment)
        }
        for k in wanted:
            result.reasons[source.number, k] = reason or source.why_no_pixels(k)
        wanted = {k: label for k, label in wanted.items() if label >= 0}
        if reason or not wanted:
            continue
        source.check()
        part, series = _placed(images, rows, source, wanted, options, result)
        parts.append(part)
        for code in series:
            for label in set(wanted.values()):
                result.known[code, label] = True
                gives.setdefault((code, label), []).append(source.number)
    whole = Assigned(*(np.concatenate(v) for v in zip(result.planes, *parts, strict=True)))
    whole = _chosen(images, found, labels, whole, gives, options.choose, result.left_out)
    order = np.lexsort((whole.plane, whole.source, whole.label, whole.row))
    result.planes = Assigned(*(values[order] for values in whole))
    return result


def _named_series(images: Images, found: MaskObject) -> Ints:
    """Codes of the series that an object names, of those that there are."""
    codes = [images.code("series", uid) for uid in found.referenced_series]
    return np.array([code for code in codes if code >= 0], np.int64)


def rows_meant(images: Images, source: Source) -> tuple[Ints, str]:
    """(images that an object may mean, why there are none)."""
    found = source.found
    rows = images.rows_of_study(found.study_uid)
    if not len(rows):
        return rows, "no image of its study"
    rows = rows[images.patient.codes[rows] == images.code("patient", found.patient_id)]
    if not len(rows):
        return rows, "its PatientID is not that of the images of its study"
    named = _named_series(images, found)
    if not len(named):
        instances = images.instances(rows, found.references)
        hit = np.isin(images.instance.codes[rows], instances[instances >= 0])
        named = np.unique(images.series.codes[rows[hit]]).astype(np.int64)
        if not len(named) and len(found.referenced_series):
            return rows[:0], "the series that it names is not among the images"
    if len(named):
        rows = rows[np.isin(images.series.codes[rows], named)]
    if source.only:
        codes = [images.code("series", uid) for uid in source.only]
        rows = rows[np.isin(images.series.codes[rows], codes)]
        if not len(rows):
            return (
                rows,
                "the images that it names are of another series than the one that it is given for",
            )
    return rows, ""


def _placed(
    images: Images,
    rows: Ints,
    source: Source,
    wanted: dict[int, int],
    options: PlacingOptions,
    result: Assignment,
) -> tuple[Assigned, set[int]]:
    """(the planes of one object on images, codes of the series that it is about)."""
    chosen = source.planes_of(list(wanted))
    planes = source.planes(chosen, images, rows)
    placed = place(images, rows, planes, options.place)
    found = source.found
    if source.is_contours:
        links = placed.links
        if options.place != "reference":
            links = _with_those_between(images, rows, source, chosen, placed, options.between)
        _tell_wide_spacing(images, rows, source, chosen, placed, result)
        label = np.array([wanted[k] for k in found.contour_segment[chosen].tolist()], np.int64)
        segment = found.contour_segment[chosen]
    else:
        links = placed.links
        if not options.resamples:
            _check_grid(images, rows, source, placed)
        elif not len(links.plane) and placed.off_grid.any():
            for code in np.unique(images.series.codes[rows]).tolist():
                result.resampled.setdefault(code, []).append(source.number)
        by_number = {found.segments[k].number: k for k in wanted}
        if found.kind == "labelmap":
            segment = np.full(len(chosen), _MANY)
            label = segment
        else:
            segment = np.array(
                [by_number[n] for n in source.frame_segment[chosen].tolist()], np.int64
            )
            label = np.array([wanted[k] for k in segment.tolist()], np.int64)
    for notice in placed.notices:
        result.notices.append(f"masks: {source.name}: {notice}")
    lies = np.zeros(len(chosen), np.bool_)
    lies[links.plane] = True
    for k in wanted:
        mine = (segment == k) | (segment == _MANY)
        result.counts[source.number, k] = int(mine.sum()), int((mine & lies).sum())
        if mine.any() and not (mine & lies).any() and not result.reasons[source.number, k]:
            result.reasons[source.number, k] = _why_nowhere(placed, mine)
    about = _series_meant(images, rows, source, links)
    about |= {code for code, numbers in result.resampled.items() if source.number in numbers}
    number = np.full(len(links.plane), source.number)
    plane = chosen[links.plane]
    return Assigned(links.row, label[links.plane], number, plane, links.down, links.right), about


def _series_meant(images: Images, rows: Ints, source: Source, links: Links) -> set[int]:
    found = set(images.series.codes[links.row].tolist())
    if source.found.referenced_series:
        named = _named_series(images, source.found)
        found |= set(images.series.codes[rows].tolist()) & set(named.tolist())
    return found


def _why_nowhere(placed: Placed, mine: Flags) -> str:
    if placed.wrong_size:
        return (
            "Rows and Columns are not those of the image named, and there is no FrameOfReferenceUID"
        )
    nearest = float(placed.distance[mine].min())
    if not np.isfinite(nearest):
        return "no image of its FrameOfReferenceUID and orientation, and none is named that lies in its plane"
    if placed.off_grid[mine].max() > 0:
        return f"another grid: corners are {placed.off_grid[mine].max():.2g} pixels off"
    return f"no image in its planes; the nearest is {nearest:.3g} mm away"


def _check_grid(images: Images, rows: Ints, source: Source, placed: Placed) -> None:
    if placed.wrong_size:
        raise GeometryError(
            f"masks: {source.name}: {have(placed.wrong_size, 'frame')} other Rows and Columns than the image named "
            f"there, and no FrameOfReferenceUID says where they are"
        )
    lies = np.zeros(len(placed.distance), np.bool_)
    lies[placed.links.plane] = True
    off = ~lies & (placed.off_grid > 0)
    if off.any():
        row, frame = int(rows[0]), source.positions[:1]
        spacing = images.spacing[row].tolist()
        own = np.asarray(source.index.values("PixelSpacing", frame))[0].tolist()
        turned = np.asarray(source.index.values("ImageOrientationPatient", frame))[0].tolist()
        raise GeometryError(
            f"masks: {source.name}: {format_count(int(off.sum()), 'frame')} on another grid than the images: corners "
            f"are up to {placed.off_grid[off].max():.3g} pixels off (spacing {own}, images {spacing}; orientation "
            f"{turned}, images {images.orientation[row].tolist()}); "
            f'resample="nearest" samples labels at the image\'s pixels'
        )


def _with_those_between(
    images: Images, rows: Ints, source: Source, chosen: Ints, placed: Placed, between: Between
) -> Links:
    """The links of contours, with those that lie between slices as `between` has it."""
    lies = np.zeros(len(chosen), np.bool_)
    lies[placed.links.plane] = True
    near = ~lies & (placed.distance <= 0.5 * placed.spacing + 1e-6)
    if not near.any() or between == "drop":
        return placed.links
    if between == "raise":
        rois = source.found.contour_segment[chosen[near]]
        raise GeometryError(
            f"masks: {source.name}: {format_count(int(near.sum()), 'contour')} of "
            f"{format_count(len(np.unique(rois)), 'ROI')} {'lies' if near.sum() == 1 else 'lie'} between slices, up "
            f"to {placed.distance[near].max():.3g} mm from the nearest (slices are {placed.spacing[near].min():.3g} mm "
            f'apart); between="nearest" takes the nearest slice, "drop" leaves them out'
        )
    planes = source.planes(chosen[near], images, rows)
    snapped = _snapped(images, rows, planes.origin)
    some = snapped >= 0
    zeros = np.zeros(int(some.sum()), np.int64)
    added = Links(np.flatnonzero(near)[some], snapped[some], zeros, zeros)
    return Links.joined([placed.links, added])


def _snapped(images: Images, rows: Ints, points: npt.NDArray[np.float64]) -> Ints:
    """The image whose plane is nearest to each point, -1 for none."""
    best, row = np.full(len(points), np.inf), np.full(len(points), -1)
    for group in images.groups(rows):
        orientation = images.orientation[group[0]]
        if is_orientation(orientation):
            normal = slice_normal(orientation)
            away = np.abs((points @ normal)[:, None] - (images.origin[group] @ normal)[None, :])
            nearest = away.argmin(1)
            closer = away.min(1) < best
            best = np.where(closer, away.min(1), best)
            row = np.where(closer, group[nearest], row)
    return row


def _tell_wide_spacing(
    images: Images, rows: Ints, source: Source, chosen: Ints, placed: Placed, result: Assignment
) -> None:
    """A notice where contours are farther apart than slices: those between stay empty."""
    finite = np.isfinite(placed.spacing)
    if not finite.any() or not is_orientation(images.orientation[rows[0]]):
        return
    slices = float(np.median(placed.spacing[finite]))
    heights = source.found.contour_first[chosen] @ slice_normal(images.orientation[rows[0]])
    segments = source.found.contour_segment[chosen]
    wide = []
    for k in np.unique(segments).tolist():
        gaps = np.diff(np.unique(np.round(heights[segments == k], 2)))
        if len(gaps) and float(np.median(gaps)) > 1.5 * slices:
            wide.append((source.found.segments[k].number, float(np.median(gaps))))
    if wide:
        number, gap = wide[0]
        result.notices.append(
            f"masks: {source.name}: contours of {len(wide)} ROIs are farther apart than the slices ({gap:.3g} mm, "
            f"slices {slices:.3g} mm; ROI {number} for one); slices between them stay empty"
        )


def _chosen(
    images: Images,
    found: Sequence[Source],
    labels: LabelMap,
    planes: Assigned,
    gives: dict[tuple[int, int], list[int]],
    choose: Choose,
    left_out: dict[tuple[int, int], set[int]],
) -> Assigned:
    """The planes without those of objects that are not chosen."""
    several = {key: numbers for key, numbers in gives.items() if len(numbers) > 1}
    if not several or choose == "all":
        return planes
    if choose == "raise":
        (_, label), numbers = next(iter(several.items()))
        listed = ", ".join(found[n].name for n in numbers[:4])
        raise OptionError(
            f"masks: several objects give the label {labels.numbers[label]} for one series: {listed}; "
            f'choose="latest", "all" (their union) or a function says which'
        )
    series = images.series.codes[planes.row]
    kept = np.ones(len(planes.row), np.bool_)
    for (code, label), numbers in several.items():
        wanted = _choice([found[n] for n in numbers], choose)
        here = (series == code) & np.isin(planes.source, numbers)
        here &= planes.label == label
        for number in set(numbers) - set(wanted):
            left_out.setdefault((number, code), set()).add(label)
        kept &= ~here | np.isin(planes.source, wanted)
    return Assigned(*(values[kept] for values in planes))


def _choice(candidates: list[Source], choose: Choose) -> list[int]:
    if callable(choose):
        rows = [
            {"object": s.number, "kind": s.found.kind, "time": s.found.time, "file": s.path}
            for s in candidates
        ]
        picked = choose(rows)
        picked = [picked] if isinstance(picked, dict) else list(picked)
        numbers = [row["object"] for row in picked]
        if not set(numbers) <= {s.number for s in candidates}:
            raise OptionError("choose must return rows that it was given")
        return numbers
    latest = max(candidates, key=lambda s: (s.found.time, s.found.sop_instance_uid))
    return [latest.number]
