"""Sheets: frames in which a scanner laid all slices of one volume beside each other.

Siemens (Image Type MOSAIC) says how many slices there are in (0019,xx0A), and in its CSA header which way they go; UIH
(Image Type VFRAME) has the position of each in a sequence. Neither is in the standard. Tiles run along rows, as many in
a row as in the smallest square that holds them all.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dicomtorch.dicom.tags import describe
from dicomtorch.scanner.resolve.conversions import TAGS
from dicomtorch.scanner.resolve.csa import csa_numbers
from dicomtorch.scanner.resolve.groups import Frames
from dicomtorch.scanner.resolve.private import Private

SHEETS: Final = ("MOSAIC", "VFRAME")
"""Values of Image Type that sheets have."""

_MOST_SLICES: Final = 4096


def resolve_mosaic(frames: Frames) -> None:
    """Sets `mosaic` of a sheet, which then has no position of its own."""
    kinds = str(frames.columns.get("ImageType", "")).split("\\")
    if frames.count != 1 or not any(kind in kinds for kind in SHEETS):
        return
    places = _siemens(frames) if "MOSAIC" in kinds else _uih(frames)
    if places is None:
        frames.notices.append(
            f"{describe(TAGS['ImageType'])} says that slices lie beside each other in this frame, but not how many or "
            f"where; they are not told apart"
        )
        return
    rows, columns, positions = places
    numbers = [repr(number) for number in positions.ravel().tolist()]
    frames.columns["mosaic"] = "\\".join((str(rows), str(columns), *numbers))
    frames.columns.pop("ImagePositionPatient", None)


_Places = tuple[int, int, npt.NDArray[np.float64]]  # rows and columns of a tile, (slices, 3)


def _siemens(frames: Frames) -> _Places | None:
    private = Private(frames.top, frames.context, frames.notices)
    data = private.csa_header()
    count = private.value("SiemensNumberOfImagesInMosaic", "int32")
    if count is None:
        found = csa_numbers(data, "NumberOfImagesInMosaic", 1)
        count = None if found is None else int(found[0])
    plane = _plane(frames)
    position = frames.columns.get("ImagePositionPatient")
    step = frames.columns.get("SpacingBetweenSlices") or frames.columns.get("SliceThickness")
    if count is None or not 1 <= count <= _MOST_SLICES or plane is None or not (position and step):
        return None
    across = math.ceil(math.sqrt(count))
    pixel = frames.pixel
    if pixel.rows % across or pixel.columns % across:
        return None
    rows, columns = pixel.rows // across, pixel.columns // across
    row, column, normal, spacing = plane
    stated = csa_numbers(data, "SliceNormalVector", 3)
    if stated is not None and np.dot(stated, normal) < 0:
        normal = -normal
    # The position is that of a slice as large as the sheet, with the same centre.
    first = (
        np.asarray(position)
        + (pixel.columns - columns) / 2 * spacing[1] * row
        + (pixel.rows - rows) / 2 * spacing[0] * column
    )
    return rows, columns, first + np.outer(np.arange(count) * step, normal)


def _uih(frames: Frames) -> _Places | None:
    private = Private(frames.top, frames.context, frames.notices)
    count = private.value("UIHNumberOfSlices", "float64")
    sequence = private.element("UIHSliceSequence")
    if count is None or sequence is None or sequence[0] != "SQ":
        return None
    items = sequence[1]
    positions = [frames.get("ImagePositionPatient", "float64[3]", item) for item in items]
    if not items or len(items) != count or None in positions:
        return None
    across = math.ceil(math.sqrt(len(items)))
    down = -(-len(items) // across)
    pixel = frames.pixel
    if pixel.rows % down or pixel.columns % across:
        return None
    if "AcquisitionTime" not in frames.columns:
        frames.put("AcquisitionTime", frames.get("AcquisitionTime", "seconds", items[0]))
    return pixel.rows // down, pixel.columns // across, np.array(positions)


def _plane(frames: Frames) -> tuple[Any, Any, Any, tuple[float, float]] | None:
    """Directions of rows, columns and the normal, and the distances between pixels."""
    orientation = frames.columns.get("ImageOrientationPatient")
    spacing = frames.columns.get("PixelSpacing")
    if not (isinstance(orientation, tuple) and isinstance(spacing, tuple)):
        return None
    row, column = np.array(orientation).reshape(2, 3)
    normal = np.cross(row, column)
    length = np.linalg.norm(normal)
    return None if length == 0 else (row, column, normal / length, spacing)
