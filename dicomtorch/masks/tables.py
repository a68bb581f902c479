"""The columns of the tables that a `MaskIndex` gives."""

from __future__ import annotations

import pyarrow as pa

SEGMENTS = pa.schema(
    [
        ("object", pa.int64()),
        ("kind", pa.string()),
        ("number", pa.int64()),
        ("name", pa.string()),
        ("type", pa.string()),
        ("code", pa.string()),
        ("label", pa.int64()),
        ("planes", pa.int64()),
        ("on_images", pa.int64()),
        ("reason", pa.string()),
        ("series", pa.string()),
        ("SOPInstanceUID", pa.string()),
        ("time", pa.string()),
    ]
)
CENTERS = pa.schema(
    [
        ("SeriesInstanceUID", pa.string()),
        *[(name, pa.float64()) for name in "xyz"],
        ("area", pa.int64()),
    ]
)
POINTS = pa.schema(
    [
        *[(name, pa.int64()) for name in ("object", "number", "label")],
        *[(name, pa.float64()) for name in "xyz"],
    ]
)
ANNOTATIONS = pa.schema(
    [
        ("object", pa.int64()),
        ("kind", pa.string()),
        ("object_uid", pa.string()),
        ("group", pa.int64()),
        ("name", pa.string()),
        ("code", pa.string()),
        ("site", pa.string()),
        ("site_code", pa.string()),
        ("tracking_id", pa.string()),
        ("tracking_uid", pa.string()),
        ("graphic_type", pa.string()),
        ("purpose", pa.string()),
        ("space", pa.string()),
        ("frame_of_reference", pa.string()),
        ("SOPInstanceUID", pa.string()),
        ("frame", pa.int64()),
        ("points", pa.list_(pa.float64())),
        ("segmentation", pa.string()),
        ("segment", pa.int64()),
        (
            "measurements",
            pa.list_(
                pa.struct(
                    [(name, pa.string()) for name in ("name", "code")]
                    + [("value", pa.float64()), ("unit", pa.string())]
                )
            ),
        ),
    ]
)
