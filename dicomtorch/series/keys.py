"""The attributes that tell slices apart: which, in which order they are tried, and what each may do."""

from __future__ import annotations

from dicomtorch.series.slices import VECTORS

ALIKE = (
    "patient",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPClassUID",
    "Modality",
    "Rows",
    "Columns",
    "window",
    "SamplesPerPixel",
    "StackID",
    "SegmentNumber",
    "OpticalPathIdentifier",
    "coordinates",
)
"""Rule 1: what all slices of a volume have in common, besides where they lie.

Patient and study, because careless de-identification leaves several series with one UID, or none.
"""

ORIENTATION = "orientation"
"""A key: fine orientation and pixel spacing."""
ASIDE = "aside"
"""A key: the place beside the normal."""

DIRECTION = "DiffusionGradientOrientation"
"""A key: directions are alike within the rounding of files."""

KEYS = (
    "SOPInstanceUID",
    ORIENTATION,
    ASIDE,
    "ImageType",
    "ComplexImageComponent",
    "EchoTime",
    "EchoNumbers",
    "DiffusionBValue",
    DIRECTION,
    "InversionTime",
    "vectors",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "NominalPercentageOfRespiratoryPhase",
    "dimension",
    "TemporalPositionIndex",
    "AcquisitionNumber",
    "FlipAngle",
    "SliceThickness",
    "ConvolutionKernel",
    "KVP",
    "ContrastBolusAgent",
    "FrameOfReferenceUID",
    "DataType",
)
"""Rule 4b: what tells slices at one place apart, in the order in which ties are decided."""

TIMES = ("FrameReferenceTime", "AcquisitionTime", "ContentTime")
"""Rule 4c: tried after `KEYS`, by equal values, then by the k-th of each place."""

LAST = "InstanceNumber"
"""Rule 4c: tried last, by the k-th of each place."""

RANKED = frozenset(("TriggerTime", *TIMES, LAST))
"""Whose k-th value of each place may make the k-th volume."""

UNCOUNTED = frozenset(("SOPInstanceUID", "TriggerTime"))
"""Keys of which a volume may have several values."""

OF_ONE_ACQUISITION = frozenset(
    (
        "TemporalPositionIndex",
        "EchoTime",
        "EchoNumbers",
        "DiffusionBValue",
        DIRECTION,
        "NominalPercentageOfCardiacPhase",
        "NominalPercentageOfRespiratoryPhase",
        "vectors",
        "InversionTime",
        "FlipAngle",
        "ComplexImageComponent",
        *RANKED,
    )
)
"""Rule 4e: what tells volumes apart that have the same slices."""

PARTING = tuple(key for key in KEYS if key not in UNCOUNTED)
"""Rule 3a: what may part an irregular stack."""

CONTENT = (
    "ImageType",
    "ComplexImageComponent",
    "EchoTime",
    "DiffusionBValue",
    "ConvolutionKernel",
    "TemporalPositionIndex",
    "AcquisitionNumber",
)
"""Rule 3b: what may part a regular stack."""

UNMIXED = CONTENT[:5]
"""Rule 4c: what Instance Number may not mix."""

MONITORING = ("ImageType", "AcquisitionNumber", "ConvolutionKernel")
"""Rule 5: what tells slices at one place that are no part of a volume, without an error."""

DIFFERING = (
    "FrameOfReferenceUID",
    *("ImageType", "ContrastBolusAgent", "KVP", "ConvolutionKernel", "AcquisitionNumber"),
    *("EchoTime", "DiffusionBValue", DIRECTION, "ComplexImageComponent"),
    *("InversionTime", "FlipAngle", "TemporalPositionIndex", "SliceThickness", "DataType"),
    *("PixelSpacing", "ImageOrientationPatient"),
)
"""What `Stack.differing` names where it is not the same in all slices."""

ORDER = (
    *("TemporalPositionIndex", "AcquisitionNumber", *TIMES, LAST, "frame"),
    # Where nothing tells which came first, so that file names play no part either.
    *("EchoTime", "EchoNumbers", "DiffusionBValue", "InversionTime", "TriggerTime", "FlipAngle"),
    *("NominalPercentageOfCardiacPhase", "NominalPercentageOfRespiratoryPhase", *VECTORS),
    *("SliceThickness", "KVP"),
)
"""Rule 6: what orders the volumes of a series."""

_NAMES = {ORIENTATION: "ImageOrientationPatient", ASIDE: "ImagePositionPatient"}


def shown(key: str) -> tuple[str, ...]:
    """The columns that a key stands for."""
    return VECTORS if key == "vectors" else (_NAMES.get(key, key),)
