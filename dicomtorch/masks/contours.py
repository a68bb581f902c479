"""Contour Data of an RTSTRUCT as points, read when asked for (PS3.3 C.8.8.6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt

from dicomtorch.dicom.deflate import inflate
from dicomtorch.dicom.tags import KEYWORDS, describe
from dicomtorch.errors import DicomTorchError, HeaderError, PixelValueError, StorageError
from dicomtorch.masks.objects import Source
from dicomtorch.storage.base import Scratch

Floats = npt.NDArray[np.float64]

_OF_NUMBERS = b"0123456789+-.eE\\ "
_DATA = describe(KEYWORDS["ContourData"][0])


def read_points(source: Source, contours: Sequence[int]) -> list[Floats]:
    """The points of contours.

    Args:
        source: The RTSTRUCT.
        contours: Which.

    Returns:
        For each (n, 3), millimetres in LPS.

    Raises:
        PixelValueError: Contour Data is no list of as many numbers as Number of Contour Points says.
        StaleIndexError: The file is not the one that was indexed.
        StorageError: It cannot be read.
    """
    found = source.found
    parts = _texts(source, contours)
    expected = [3 * int(found.contour_points[k]) for k in contours]
    values = _numbers(b"\\".join(part for part in parts if part))
    if values is None or len(values) != sum(expected) or not np.isfinite(values).all():
        for k, part, count in zip(contours, parts, expected, strict=True):
            _check(source, k, part, count)
        raise _damaged(source, contours[0], "holds more numbers than it says")
    points = values.reshape(-1, 3)
    ends = np.cumsum(expected) // 3
    return [
        points[end - count // 3 : end] for end, count in zip(ends.tolist(), expected, strict=True)
    ]


def _texts(source: Source, contours: Sequence[int]) -> list[bytes]:
    found = source.found
    spans = [(int(found.contour_offset[k]), int(found.contour_length[k])) for k in contours]
    try:
        with closing(source.open()) as file:
            if source.is_deflated:
                end = max(offset + length for offset, length in spans)
                data = inflate(file.read, file.identity.size, end)
                parts = [data[offset : offset + length] for offset, length in spans]
            else:
                scratch = Scratch()
                parts = [bytes(file.read_exactly(*span, scratch)) for span in spans]
    except DicomTorchError as error:
        raise _named(source, error) from error
    return [part.strip(b" \0") for part in parts]


def check_unchanged(source: Source) -> None:
    """Refuses an object whose file is not the one that was indexed.

    Raises:
        StaleIndexError: It is not.
        StorageError: It cannot be opened.
    """
    if source.is_given:  # what has its SOP Instance UID does not change
        return
    try:
        source.open().close()
    except DicomTorchError as error:
        raise _named(source, error) from error


def _named(source: Source, error: DicomTorchError) -> DicomTorchError:
    kind = StorageError if isinstance(error, HeaderError) else type(error)
    return kind(f"masks: {source.name}: {error}")


def _numbers(text: bytes) -> Floats | None:
    """The numbers of a text, `None` if it is something else to its end."""
    if not text:
        return np.empty(0)
    if text.translate(None, _OF_NUMBERS):
        return None
    try:
        return np.fromstring(text, np.float64, sep="\\")
    except (DeprecationWarning, ValueError):  # the warning, where warnings are errors
        return None


def _check(source: Source, contour: int, text: bytes, count: int) -> None:
    values = _numbers(text)
    if values is None:
        raise _damaged(source, contour, "holds something else than numbers")
    if len(values) != count:
        raise _damaged(
            source,
            contour,
            f"holds {len(values)} numbers, and Number of Contour Points says {count // 3} points",
        )
    if not np.isfinite(values).all():
        raise _damaged(source, contour, "holds a number that is not finite")


def _damaged(source: Source, contour: int, problem: str) -> PixelValueError:
    found = source.found
    number = found.segments[int(found.contour_segment[contour])].number
    length = int(found.contour_length[contour])
    return PixelValueError(
        f"masks: {source.name}: {_DATA} of contour {contour} (ROI {number}, {length} bytes) "
        f"{problem}; the file is damaged, leave it out of masks="
    )
