"""Which fixed key of metadata has which type, of one sample; type checkers and tests read it."""

from __future__ import annotations

from typing import Literal

Integers = Literal[
    "index",
    "requested_index",
    "frame",
    "patient",
    "InstanceNumber",
    "Rows",
    "Columns",
    "mosaic",
    "seed",
    "sequence",
    "series_index",
    "volume_index",
    "volume_count",
    "candidate",
    "patch",
    "foreground",
    "mask_present",
    "slide",
    "level",
    "row",
    "column",
]
Numbers = Literal[
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "FrameTime",
    "WindowCenter",
    "WindowWidth",
    "position_error",
    "tilt",
    "mpp",
    "x_mm",
    "y_mm",
    "coverage",
    "tissue",
]
Strings = Literal[
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "Modality",
    "PhotometricInterpretation",
    "Units",
    "BurnedInAnnotation",
    "voi",
    "path",
    "separated_by",
    "frame_of_reference",
    "DoseUnits",
]
Pairs = Literal["PixelSpacing"]
IntegerPairs = Literal["inside"]
Triples = Literal["ImagePositionPatient", "spacing", "center", "point"]
Sixes = Literal["ImageOrientationPatient"]
Fours = Literal["box"]
IntegerFours = Literal["window", "window_valid"]
IntegerSixes = Literal["valid", "dose_valid"]
ManyIntegers = Literal["frames", "mask_known", "mask_area"]
ManyNumbers = Literal["times", "b_values", "echo_times", "resized"]
ManyStrings = Literal["SOPInstanceUIDs"]
Tensors = Literal["affine", "affine_ras", "gradient_directions", "dose"]
Starts = Literal["start"]
"""An integer in clips, three in crops of volumes."""
