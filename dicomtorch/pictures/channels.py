"""From the channels of a tensor to a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError

Array = npt.NDArray[Any]


def drawable(image: Any, frames: int = 1, windows: Sequence[str] = ()) -> tuple[Array, str]:
    """What is drawn of the channels of an image, and what to say of it.

    Of several frames the middle one, of several windows all side by side, one or three channels as gray or colour, and
    any other number of channels side by side.

    Args:
        image: An array (C, H, W).
        frames: How many frames the channels are of, an odd number, each with as many channels.
        windows: What the windows are called that the channels of a frame were made with, if there are several.

    Returns:
        (H, W) or (H, W, 3), and words.

    Raises:
        OptionError: It is no image.
    """
    image = np.asarray(image)
    if image.ndim != 3 or not image.size:
        raise OptionError(f"images (C, H, W) can be drawn; got shape {image.shape}")
    said = []
    if frames > 1 and len(image) % frames == 0:
        each = len(image) // frames
        said.append(f"the middle one of {frames} frames in {len(image)} channels")
        image = image[each * (frames // 2) : each * (frames // 2 + 1)]
    if len(image) == len(windows) > 1:
        said.append(f"windows {' | '.join(windows)}")
    elif len(image) == 3:
        return np.moveaxis(image, 0, -1), ", ".join(said)
    elif len(image) > 1:
        said.append(f"{len(image)} channels side by side")
    return np.concatenate(image, axis=1), ", ".join(said)
