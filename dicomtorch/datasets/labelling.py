"""From what a user gives as masks, boxes or points to what says which pixels of which frame are what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from dicomtorch.datasets.options import MaskOptions, ReadPolicy
from dicomtorch.errors import OptionError, SourceError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.joins import read_table
from dicomtorch.masks.annotations import annotation_table
from dicomtorch.masks.grids import is_grid
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.masks.mask_options import KINDS as KINDS_OF_MASKS
from dicomtorch.masks.mask_options import SHAPE_KINDS
from dicomtorch.masks.objects import has_objects
from dicomtorch.masks.placing import Images
from dicomtorch.masks.shape_index import ShapeIndex
from dicomtorch.model.mask_object import KINDS
from dicomtorch.reader.cache import FrameCache
from dicomtorch.scanner.given import paths_of
from dicomtorch.scanner.open import open_source
from dicomtorch.scanner.place import is_address, options_beside, split_query

_COCO = ".json"
_OWN = ("masks", "mask_output", "unlabelled")


def without_masks(index: FrameIndex) -> FrameIndex:
    """The frames that are no masks themselves."""
    classes = index.column("SOPClassUID")
    is_mask = np.isin(classes.codes, classes.codes_of(KINDS))
    return index.select(~is_mask) if is_mask.any() else index


def open_masks(images: FrameIndex, policy: ReadPolicy, options: MaskOptions) -> MaskIndex:
    """The masks that the options ask for.

    Raises:
        OptionError: An option means nothing.
    """
    given = options["masks"]
    more: dict[str, Any] = {k: v for k, v in options.items() if k not in _OWN}
    if isinstance(given, MaskIndex):
        if (
            more
            or given.images.uuid != images.uuid
            or not np.array_equal(given.images.rows, images.rows)
        ):
            raise OptionError(
                "a MaskIndex as masks= must be of the same frames, and has its labels and options already"
            )
        return given
    if policy.cache is not None:
        more["cache"] = FrameCache(policy.cache, policy.cache_bytes)
    more["isolation"] = policy.isolation
    if given is True or (isinstance(given, str) and given in KINDS_OF_MASKS):
        kind: Any = "all" if given is True else given
        return MaskIndex(images, images.whole(), kind=kind, **more)
    if isinstance(given, Mapping) and all(_is_path(value) for value in given.values()):
        return _of_files(images, policy, given, more)
    table = _table_of(given)
    if table is not None:
        names = {name.lower() for name in table.column_names}
        is_of_files = "path" in names and names & {"series", "seriesinstanceuid"}
        return MaskIndex(images, **{"files" if is_of_files else "shapes": table}, **more)
    if _is_path(given) and os.fspath(given).lower().endswith(_COCO):
        return MaskIndex(images, shapes=given, **more)
    if isinstance(given, FrameIndex):
        return MaskIndex(images, given, **more)
    if _is_path(given) or isinstance(given, list | tuple):
        found = _opened(given, images, policy)
        if not has_objects(found, KINDS_OF_MASKS["all"]) and has_objects(found, SHAPE_KINDS):
            return MaskIndex(images, shapes=annotation_table(found), **more)
        return MaskIndex(images, found, **more)
    raise OptionError(
        f'masks must be True, "seg", "rtstruct", "sr", "ann", a folder, files, an index, a dict from SeriesInstanceUID '
        f"to file, or a table; got {type(given).__name__}"
    )


def _opened(given: Any, images: FrameIndex, policy: ReadPolicy) -> FrameIndex:
    """The index of what holds masks or shapes of images, found as these are."""
    sources = paths_of(given)
    options = options_beside(sources, images.root, policy.storage_options)
    return open_source(
        sources, storage_options=options, refresh=policy.refresh, cache_dir=policy.cache_dir
    )[0]


def _is_path(value: Any) -> bool:
    return isinstance(value, str) or hasattr(value, "__fspath__")


def _table_of(given: Any) -> pa.Table | None:
    """A table, also that of a CSV file; `None` of anything else."""
    is_csv = _is_path(given) and os.fspath(given).lower().endswith((".csv", ".tsv"))
    is_table = hasattr(given, "column_names") or hasattr(given, "iloc")
    if not (is_csv or is_table or isinstance(given, Mapping)) or isinstance(given, FrameIndex):
        return None
    if is_csv and not os.path.isfile(given):
        raise SourceError(f"masks: there is no file {printable(os.fsencode(given))}")
    return read_table(given, ())


def _of_files(
    images: FrameIndex, policy: ReadPolicy, files: Mapping[str, Any], more: dict[str, Any]
) -> MaskIndex:
    """Masks from one file for each series: NIfTI and NRRD, or DICOM, also of both kinds.

    Raises:
        OptionError: A DICOM object is not about the series that it is given for.
    """
    dicom = {uid: path for uid, path in files.items() if not is_grid(os.fspath(path))}
    grids: Any = {uid: path for uid, path in files.items() if uid not in dicom}
    if not dicom:
        return MaskIndex(images, files=grids, **more)
    only: dict[bytes, list[str]] = {}  # by names that indexes have, which are without signatures
    sources: list[bytes] = []
    for uid, path in dicom.items():
        name = os.fsencode(path)
        sources.append(name if is_address(name) else os.path.abspath(name))
        only.setdefault(split_query(sources[-1])[0], []).append(uid)
    found = _opened(list(map(os.fsdecode, dict.fromkeys(sources))), images, policy)
    masks = MaskIndex(images, found, files=grids or None, only=only, **more)
    labelled = set(images.gather("SeriesInstanceUID", np.flatnonzero(masks.labelled())))
    there = set(images.column("SeriesInstanceUID").tolist())
    stray = [uid for uid in dicom if uid in there and uid not in labelled]
    if stray:
        raise OptionError(
            f"masks: {len(stray)} of {len(dicom)} DICOM files give no label for the series that they are given for; "
            f"{masks.reasons()}MaskIndex(...).table() lists what is in them"
        )
    return masks


def open_shapes(
    images: FrameIndex, policy: ReadPolicy, options: MaskOptions, kind: Literal["boxes", "points"]
) -> ShapeIndex:
    """The boxes or points that the options ask for.

    Raises:
        OptionError: An option means nothing.
    """
    given, labels = options[kind], options.get("labels")
    others = sorted(options.keys() - {kind, "labels"})
    if others:
        raise OptionError(f"{kind}= goes with labels= alone; got {', '.join(others)} too")
    if isinstance(given, str) and given in ("sr", "ann"):
        given = annotation_table(images.whole(), frozenset({given}))
    elif isinstance(given, FrameIndex):
        given = annotation_table(given)
    elif _is_path(given) and not os.fspath(given).lower().endswith((".csv", ".tsv", _COCO)):
        found = _opened(given, images, policy)
        given = annotation_table(found)
    try:
        return ShapeIndex(Images(images), given, labels)
    except (OptionError, SourceError) as error:
        raise type(error)(f"{kind}: {error}") from error


def read_annotations(source: Any, *, storage_options: Mapping[str, Any] | None = None) -> pa.Table:
    """What structured reports (TID 1500) and Microscopy Bulk Simple Annotations hold, as a table.

    A row for each region, and one for each measurement group without any: object, kind ("sr" or "ann"), object_uid,
    group, name and code of what was found, site, tracking_id and tracking_uid, graphic_type, purpose, space ("image",
    "matrix": total pixel matrix, "patient"), frame_of_reference, SOPInstanceUID and frame (from 0, -1 for all) of the
    image, points (x, y in pixels from the corner of the first one, or x, y, z in millimetres), segmentation and segment
    of a group that names one, and measurements with units (of reports). `DicomFrames(boxes=...)`, `points=` and
    `masks=` take it.

    Sources: PS3.16 TID 1500, PS3.3 C.37.1.2.

    Args:
        source: A folder, files, addresses, an index or a dataset.
        storage_options: For addresses; see `scan`.

    Raises:
        SourceError: There is nothing at `source`.
        PixelValueError: An object is damaged, or a report of another template.
    """
    index = source if isinstance(source, FrameIndex) else getattr(source, "index", None)
    if not isinstance(index, FrameIndex):
        index, _ = open_source(source, storage_options=storage_options)
    return annotation_table(index)
