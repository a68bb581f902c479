"""The columns that say where and when a frame is, for the kinds of files that do not say it in a macro.

RT Dose (PS3.3 C.8.8.3), Nuclear Medicine (C.8.4), tiled images (C.7.6.17.3), cine (C.7.6.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np

from dicomtorch.dicom.tags import describe
from dicomtorch.model.schema import FRAME_COLUMNS
from dicomtorch.scanner.resolve.conversions import TAGS, keywords, tags_of
from dicomtorch.scanner.resolve.groups import NO_GROUP, Frames, elements_of

GEOMETRY_TAGS: Final = tags_of(
    keywords("""
        GridFrameOffsetVector SliceVector DetectorInformationSequence ImagePositionPatient
        ImageOrientationPatient TotalPixelMatrixFocalPlanes TotalPixelMatrixOriginSequence
        XOffsetInSlideCoordinateSystem YOffsetInSlideCoordinateSystem SegmentSequence SegmentNumber
        OpticalPathSequence OpticalPathIdentifier FrameIncrementPointer FrameTimeVector
        FrameAcquisitionDateTime AcquisitionDateTime
        PlanePositionVolumeSequence PlaneOrientationVolumeSequence ImagePositionVolume
        ImageOrientationVolume DimensionIndexSequence DimensionIndexPointer
        TimeSlotVector RRIntervalVector PhaseVector EnergyWindowVector DetectorVector
    """)
)
"""What `resolve_geometry` reads beyond single attributes."""

_NOWHERE: Final = FRAME_COLUMNS["ImagePositionPatient"].missing
_RECONSTRUCTIONS: Final = ("RECON TOMO", "RECON GATED TOMO")  # value 3 of Image Type
_FRAME_TIME: Final = f"{TAGS['FrameTime']:08X}"

_VECTORS: Final = (
    *("TimeSlotVector", "RRIntervalVector", "PhaseVector"),
    *("EnergyWindowVector", "DetectorVector"),
)
_POSITIONS: Final = frozenset(
    f"{TAGS[keyword]:08X}"
    for keyword in (
        *("InStackPositionNumber", "ImagePositionPatient", "ImagePositionVolume", "SliceLocation"),
        *("PlanePositionSequence", "PlanePositionVolumeSequence"),
    )
)
"""Dimension Index Pointers of dimensions that are the position."""

Point = tuple[float, ...]


def resolve_geometry(frames: Frames) -> None:
    """Sets the columns of this module, over what the main data set and the functional groups gave."""
    modality = frames.columns.get("Modality")
    if modality == "NM":
        _nuclear_medicine(frames)
        _vectors(frames)
    elif modality == "RTDOSE" or TAGS["GridFrameOffsetVector"] in frames.top:
        _dose_planes(frames)
    _origin(frames)
    if frames.columns.get("DimensionOrganizationType") == "TILED_FULL":
        _tiles(frames)
    _ultrasound_volume(frames)
    _dimension(frames)
    _times(frames)


# Positions


def _nuclear_medicine(frames: Frames) -> None:
    """Position and orientation are the detector's; only the slices of a reconstruction have places of their own."""
    columns = frames.columns
    detectors = frames.items("DetectorInformationSequence")
    if len(detectors) == 1:
        for name in ("ImagePositionPatient", "ImageOrientationPatient"):
            if name not in columns:
                frames.put(name, frames.get(name, FRAME_COLUMNS[name].kind, detectors[0]))
    slices = frames.get("SliceVector", "list")
    if isinstance(columns.get("ImagePositionPatient"), list) or (frames.count == 1 and not slices):
        return
    position = columns.pop("ImagePositionPatient", None)
    spacing = columns.get("SpacingBetweenSlices")
    kind = str(columns.get("ImageType", "")).split("\\")[2:3]
    if isinstance(spacing, list):  # no detector has one for each frame
        return
    if kind and kind[0] in _RECONSTRUCTIONS and slices and position and spacing:
        offsets = [(number - 1) * spacing for number in slices]
        _along_normal(frames, position, offsets, "SliceVector")


def _vectors(frames: Frames) -> None:
    """Which time slot, interval, phase, energy window and detector each frame is of."""
    for name in _VECTORS:
        numbers = frames.get(name, "list")
        if not numbers or not all(map(math.isfinite, numbers)):
            continue
        if len(numbers) != frames.count:
            frames.tell_count(name, len(numbers))
            continue
        frames.spread(name, list(map(int, numbers)))


def _ultrasound_volume(frames: Frames) -> None:
    """Position and orientation in the Volume Frame of Reference (C.7.6.16.2.21 and C.7.6.16.2.22), if no others."""
    if "ImagePositionPatient" in frames.columns:
        return
    position = frames.macro("PlanePositionVolumeSequence")
    orientation = frames.macro("PlaneOrientationVolumeSequence")
    if position is None or orientation is None:
        return
    for name, keyword, macro in (
        ("ImagePositionPatient", "ImagePositionVolume", position),
        ("ImageOrientationPatient", "ImageOrientationVolume", orientation),
    ):
        frames.fill(name, TAGS[keyword], FRAME_COLUMNS[name].kind, macro)
    frames.columns["coordinates"] = "VOLUME"


def _dimension(frames: Frames) -> None:
    """`dimension`: the dimension indices that do not count positions (C.7.6.17)."""
    values = frames.columns.get("DimensionIndexValues")
    items = frames.items("DimensionIndexSequence")
    if values is None or not items:
        return
    pointers = [frames.get("DimensionIndexPointer", "text", item) for item in items]
    kept = [k for k, pointer in enumerate(pointers) if pointer not in _POSITIONS]
    if not kept:
        return
    texts = values if isinstance(values, list) else [values]
    known = {text: _of_indices(text, kept, len(pointers)) for text in set(texts)}
    frames.spread("dimension", [known[text] for text in texts])


def _of_indices(text: str, kept: Sequence[int], count: int) -> str:
    numbers = text.split("\\")
    return "\\".join(numbers[k] for k in kept) if len(numbers) == count else ""


def _dose_planes(frames: Frames) -> None:
    """Grid Frame Offset Vector: relative if it begins with 0, else the z of each plane."""
    first = frames.columns.get("ImagePositionPatient")
    offsets = frames.get("GridFrameOffsetVector", "list")
    if not isinstance(first, tuple):
        return
    frames.columns["ImagePositionPatient"] = [first] + [_NOWHERE] * (frames.count - 1)
    orientation = frames.columns.get("ImageOrientationPatient")
    if not offsets or not isinstance(orientation, tuple):
        return
    axes = zip(orientation, (1, 0, 0, 0, 1, 0), strict=True)
    if offsets[0] == 0:
        _along_normal(frames, first, offsets, "GridFrameOffsetVector")
    elif abs(offsets[0] - first[2]) < 1e-2 and all(abs(abs(v) - e) < 1e-4 for v, e in axes):
        _place(frames, [(first[0], first[1], z) for z in offsets], "GridFrameOffsetVector")
    else:
        frames.notices.append(
            f"{describe(TAGS['GridFrameOffsetVector'])} begins neither with 0 nor with the z of "
            f"transverse planes; only the first plane has a position"
        )


def _along_normal(frames: Frames, first: Point, offsets: Sequence[float], keyword: str) -> None:
    """Places planes along the cross product of row and column direction."""
    orientation = frames.columns.get("ImageOrientationPatient")
    if not isinstance(orientation, tuple):  # none, or one for each frame: no common normal
        return
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length > 0:
        planes = np.asarray(first) + np.outer(offsets, normal / length)
        _place(frames, list(map(tuple, planes.tolist())), keyword)


def _place(frames: Frames, planes: list[Point], keyword: str) -> None:
    if len(planes) != frames.count:
        frames.tell_count(keyword, len(planes))
    planes = [p if all(map(math.isfinite, p)) else _NOWHERE for p in planes[: frames.count]]
    frames.columns["ImagePositionPatient"] = planes + [_NOWHERE] * (frames.count - len(planes))


# Tiles


def _origin(frames: Frames) -> None:
    """Where on the slide the total pixel matrix begins."""
    for item in frames.items("TotalPixelMatrixOriginSequence")[:1]:
        x, y = (
            frames.get(f"{axis}OffsetInSlideCoordinateSystem", "float64", item) for axis in "XY"
        )
        if x is not None and y is not None:
            frames.columns["total_pixel_matrix_origin"] = (x, y)


def _tiles(frames: Frames) -> None:
    """TILED_FULL: frames run along columns, rows, focal planes, then optical paths or segments."""
    if isinstance(frames.columns.get("tile_column"), list):
        return  # the frames say it themselves
    width = frames.columns.get("TotalPixelMatrixColumns")
    height = frames.columns.get("TotalPixelMatrixRows")
    planes = frames.get("TotalPixelMatrixFocalPlanes", "int32") or 1
    name, channels = _channels(frames)
    first = frames.columns.get("ConcatenationFrameOffsetNumber") or 0
    number = np.arange(first, first + frames.count)
    pixel = frames.pixel
    across = -(-(width or 0) // pixel.columns)
    tiles = across * -(-(height or 0) // pixel.rows)
    if number[-1] >= tiles * planes * len(channels):
        frames.notices.append(
            f"{describe(TAGS['DimensionOrganizationType'])} is TILED_FULL, but frames {first} to "
            f"{number[-1]} do not fit into {tiles} tiles, {planes} focal planes and {len(channels)} "
            f"channels; they have no place"
        )
        return
    columns = frames.columns
    tile, outer = number % tiles, number // tiles
    columns["tile_column"] = (tile % across * pixel.columns + 1).tolist()
    columns["tile_row"] = (tile // across * pixel.rows + 1).tolist()
    if planes > 1:  # focal planes are told apart like the planes of a stack
        columns["InStackPositionNumber"] = (outer % planes + 1).tolist()
    frames.spread(name, [channels[k] for k in outer // planes])


def _channels(frames: Frames) -> tuple[str, list[Any]]:
    """What the tiles are repeated for: the segments of a segmentation, else the optical paths."""
    if frames.columns.get("SegmentationType") in ("BINARY", "FRACTIONAL"):
        items = frames.items("SegmentSequence")
        numbers = [frames.get("SegmentNumber", "int32", item) for item in items]
        return "SegmentNumber", [-1 if n is None else n for n in numbers] or [-1]
    items = frames.items("OpticalPathSequence")
    paths = [frames.get("OpticalPathIdentifier", "text", item) for item in items]
    return "OpticalPathIdentifier", [path or "" for path in paths] or [""]


# Times


def _times(frames: Frames) -> None:
    """AcquisitionTime and `time`: by the frames' own date and time, Frame Time Vector, or Frame Time."""
    columns = frames.columns
    if "AcquisitionTime" not in columns:
        moment = frames.get("AcquisitionDateTime", "moment")
        frames.put("AcquisitionTime", None if moment is None else _seconds_of_day(moment))
    _acquisition_times(frames)
    nominal = columns.get("FrameTime")
    if nominal is not None and nominal <= 0:
        columns.pop("FrameTime")
        nominal = None
    if "time" in columns:
        return
    vector = frames.get("FrameTimeVector", "list")
    pointer = frames.get("FrameIncrementPointer", "text") or ""
    if vector and not (nominal is not None and _FRAME_TIME in pointer):
        if len(vector) != frames.count:
            frames.tell_count("FrameTimeVector", len(vector))
        times = (np.cumsum(vector) - vector[0])[: frames.count].tolist()
        columns["time"] = times + [math.nan] * (frames.count - len(times))
    elif nominal is not None:
        columns["time"] = (np.arange(frames.count) * nominal).tolist()


def _acquisition_times(frames: Frames) -> None:
    macro = frames.macro("FrameContentSequence")
    if not isinstance(macro, list):
        return
    tag = TAGS["FrameAcquisitionDateTime"]
    elements, different = elements_of(macro, tag)
    convert, notices = frames.context.convert, frames.notices
    moments: dict[Any, datetime | None] = {
        element: None if element in (None, NO_GROUP) else convert(tag, "moment", element, notices)
        for element in different
    }
    found = [moments[element] for element in elements]
    if not any(found):
        return
    frames.spread("AcquisitionTime", [math.nan if m is None else _seconds_of_day(m) for m in found])
    first = found[0]
    if first is not None:
        frames.columns["time"] = [
            math.nan if m is None else (m - first).total_seconds() * 1000 for m in found
        ]


def _seconds_of_day(moment: datetime) -> float:
    return moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6
