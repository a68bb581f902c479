"""Errors that name the frame whose mask was being made."""

from __future__ import annotations

from typing import Any

import numpy as np

from dicomtorch.errors import DicomTorchError, printable
from dicomtorch.index.frame_index import FrameIndex


class OfFrame:
    """Errors in it name the frame whose mask was being made."""

    def __init__(self, images: FrameIndex, position: int) -> None:
        self._images = images
        self._position = position

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if not isinstance(error, DicomTorchError):
            return
        images, position = self._images, self._position
        frame = images.gather("frame", np.array([position]))[0]
        place = images.gather("ImagePositionPatient", np.array([position]))[0]
        at = f" at {', '.join(f'{x:g}' for x in place)} mm" if all(x == x for x in place) else ""
        named = type(error)(
            f"mask of {printable(images.path(position))}, frame {frame} (index {position}){at}: {error}"
        )
        raise named from error
