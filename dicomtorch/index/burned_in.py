"""Which frames may show names or faces in their pixels: the one rule for reports, pictures, notebooks and the viewer.

PS3.3 C.7.6.1 (Burned In Annotation, Recognizable Visual Features), C.8.12.4.1.1 (labels and overviews of slides).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dicomtorch.index.columns import HasColumns

Mask = npt.NDArray[np.bool_]

OFTEN_BURNED_IN = ("US", "SC", "ES", "OT", "XC")
"""Modalities whose pixels often show names while Burned In Annotation is silent."""

SECONDARY_CAPTURE = (
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.1",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
)
_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


class HasRows(HasColumns, Protocol):
    """A table that says where its columns have a value."""

    def where(self, **equals: Any) -> Mask:
        """For each frame whether every column named has one of the values given."""


class BurnedIn(NamedTuple):
    """For each frame, (len,) of bool, why its pixels may say who it is.

    Attributes:
        stated: BurnedInAnnotation is YES.
        unstated: Of a kind that often has burned-in text, BurnedInAnnotation neither YES nor NO.
        recognizable: RecognizableVisualFeatures is YES.
        slide_labels: Labels and overviews of slides.
    """

    stated: Mask
    unstated: Mask
    recognizable: Mask
    slide_labels: Mask


def burned_in(index: HasRows) -> BurnedIn:
    """Why the pixels of frames may say who it is."""
    often = index.where(Modality=OFTEN_BURNED_IN) | index.where(SOPClassUID=SECONDARY_CAPTURE)
    flavors = index.column("ImageType")
    named = [
        code
        for code in np.unique(flavors.codes).tolist()
        if {"LABEL", "OVERVIEW"} & set(flavors.value(code).upper().split("\\"))
    ]
    return BurnedIn(
        index.where(BurnedInAnnotation="YES"),
        ~index.where(BurnedInAnnotation=["YES", "NO"]) & often,
        index.where(RecognizableVisualFeatures="YES"),
        index.where(SOPClassUID=_SLIDE) & np.isin(flavors.codes, named),
    )
