"""Which frames are images to train on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dicomtorch.index.codes import firsts, numbered
from dicomtorch.index.columns import Texts

_STORAGE = "1.2.840.10008.5.1.4.1.1."
NOT_IMAGES = frozenset(
    _STORAGE + end
    for end in (
        "66.4",  # Segmentation
        "66.5",  # Surface Segmentation
        "66.7",  # Label Map Segmentation
        "66.8",  # Height Map Segmentation
        "481.2",  # RT Dose
    )
)
SECONDARY_CAPTURE = frozenset(_STORAGE + end for end in ("7", "7.1", "7.2", "7.3", "7.4"))
SCANNERS = frozenset({"CT", "MR", "PT", "NM", "SC"})
"""Modalities whose images have a storage class of their own: a secondary capture is a picture of a screen."""

_SCREENS = frozenset({"SCREENSAVE", "SCREENSHOT", "SCREENCAPTURE", "DOSEINFO"})
_TYPES = frozenset({"LOCALIZER", "SCOUT", "LABEL", "OVERVIEW", "THUMBNAIL"})


def is_image(sop_class_uid: str, modality: str, image_type: str) -> bool:
    """Whether a frame is one of what its modality is for.

    Not so are segmentations, dose grids, localizers (PS3.3 C.8.2.1.1.1), labels, overviews and thumbnails of slides
    (C.8.12.4.1.1), and screen captures: what its Image Type calls so, and secondary captures of a `SCANNERS` modality
    that do not say PRIMARY.

    Args:
        sop_class_uid: (0008,0016).
        modality: (0008,0060).
        image_type: (0008,0008), values joined with a backslash.
    """
    if sop_class_uid in NOT_IMAGES or modality in ("SEG", "RTDOSE"):
        return False
    values = [value.strip().upper() for value in image_type.split("\\")]
    plain = {value.translate({ord(c): None for c in " _-"}) for value in values}
    if plain & _SCREENS or set(values) & _TYPES:
        return False
    captured = sop_class_uid in SECONDARY_CAPTURE and modality in SCANNERS
    return not captured or values[1:2] == ["PRIMARY"]


def image_mask(
    sop_class_uids: Texts, modalities: Texts, image_types: Texts
) -> npt.NDArray[np.bool_]:
    """`is_image` of many frames, asked once for each combination."""
    columns = (sop_class_uids, modalities, image_types)
    codes = numbered(columns, len(sop_class_uids))
    answers = [is_image(*(column[k] for column in columns)) for k in firsts(codes).tolist()]
    return np.array(answers, np.bool_)[codes]
