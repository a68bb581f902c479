"""What structured reports (TID 1500) and bulk annotations hold, as a table with a row for each shape.

PS3.16 TID 1500 (Measurement Report), PS3.3 C.18.6 (Spatial Coordinates), C.18.9 (3D Spatial Coordinates), C.37.1.2
(Microscopy Bulk Simple Annotations).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from dicomtorch.errors import DicomTorchError, PixelValueError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.objects import Source, sources
from dicomtorch.masks.tables import ANNOTATIONS
from dicomtorch.storage.base import Scratch


def annotation_table(
    index: FrameIndex, kinds: frozenset[str] = frozenset({"sr", "ann"})
) -> pa.Table:
    """A row for each shape of the structured reports and bulk annotations of a scan, and for each group without one.

    Args:
        index: Of it.
        kinds: "sr", "ann" or both.

    Raises:
        PixelValueError: An object is damaged.
        StaleIndexError: A file is not the one that was indexed.
        StorageError: It cannot be read.
    """
    return annotations_of([s for s in sources(index, kinds) if s.found.kind in kinds])


def annotations_of(found: Sequence[Source]) -> pa.Table:
    """The same of objects."""
    parts = [ANNOTATIONS.empty_table()]
    for source in found:
        try:
            groups = _groups(source)
        except DicomTorchError as error:
            raise type(error)(f"{printable(source.path)}: {error}") from error
        except Exception as error:  # whatever another library makes of damage
            raise PixelValueError(
                f"{printable(source.path)}: its content cannot be read ({type(error).__name__}); the file is damaged, "
                f"leave it out"
            ) from error
        about = {
            "object": source.number,
            "kind": source.found.kind,
            "object_uid": source.found.sop_instance_uid,
        }
        parts += [_table(columns, about) for columns in groups]
    return pa.concat_tables(parts)


def _table(columns: dict[str, Any], about: dict[str, Any]) -> pa.Table:
    """Of the schema; a value that is no array is that of all rows."""
    count = len(columns["points"])
    arrays = []
    for each in ANNOTATIONS:
        value = columns.get(each.name, about.get(each.name))
        if isinstance(value, pa.Array | list):
            arrays.append(pa.array(value, each.type) if isinstance(value, list) else value)
        else:
            arrays.append(pa.repeat(pa.scalar(value, each.type), count))
    return pa.Table.from_arrays(arrays, schema=ANNOTATIONS)


def _groups(source: Source) -> list[dict[str, Any]]:
    # pydicom takes longer to import than most datasets to be made, and few have such objects.
    import pydicom

    from dicomtorch.masks.bulk_annotations import annotation_groups
    from dicomtorch.masks.measurements import measurement_groups

    with closing(source.open()) as file:
        data = bytes(file.read_exactly(0, file.identity.size, Scratch()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are none of the standard's
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        return (annotation_groups if source.found.kind == "ann" else measurement_groups)(dataset)
