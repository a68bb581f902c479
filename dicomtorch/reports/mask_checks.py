"""What `doctor` says of mask objects: which match no image and why, what is odd, names written in two ways."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from dicomtorch.errors import DicomTorchError, GeometryError, format_count, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.model.mask_object import KINDS
from dicomtorch.reports.checks import Remark

_LOOKED_AT = 64  # frames whose masks are read for pixels of several labels
_LISTED = 8


def of_masks(index: FrameIndex) -> list[Remark]:
    """What there is to say of SEG and RTSTRUCT; the masks of some frames are read, images are not.

    Args:
        index: All frames.
    """
    packed: Any = index.files["mask_object"]
    if not np.diff(packed.offsets).any():
        return []
    classes = index.column("SOPClassUID")
    images = index.select(~np.isin(classes.codes, classes.codes_of(KINDS)))
    if not len(images):
        return []
    return [_naming_files(remark, index) for remark in _remarks(images, index)]


def _remarks(images: FrameIndex, index: FrameIndex) -> list[Remark]:
    remarks = []
    try:
        MaskIndex(images, index, choose="all")
    except GeometryError as error:
        remarks.append(
            _remark("masks_off", "warning", str(error), "see between= and resample= of masks")
        )
    except DicomTorchError as error:
        return [
            _remark(
                "masks_damaged",
                "problem",
                str(error),
                "masks= with the other files, or an index without its frames",
            )
        ]
    masks = MaskIndex(images, index, choose="all", between="drop", resample="nearest")
    return [*remarks, *_nowhere(masks), *_odd(masks), *_overlaps(masks), *_names(masks)]


def _naming_files(remark: Remark, index: FrameIndex) -> Remark:
    """The remark with the files that its text names beside it, so that they can be left out."""
    packed: Any = index.files["mask_object"]
    text, files = remark.text, []
    for file in np.flatnonzero(np.diff(packed.offsets)).tolist():
        path = printable(index.file_path(file))
        if path in text:
            text = text.replace(f" ({path})", "").replace(path, f"file {file}")
            files.append(file)
    return replace(remark, text=text, files=tuple(files)) if files else remark


def _remark(check: str, level: Any, text: str, advice: str, frames: int = 0) -> Remark:
    return Remark(check, level, text, advice, frames)


def _nowhere(masks: MaskIndex) -> list[Remark]:
    rows = masks.table().select(["object", "number", "reason"]).to_pylist()
    reasons = Counter(row["reason"] for row in rows if row["reason"])
    if not reasons:
        return []
    listed = "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common(_LISTED))
    some = [
        f"{row['object']}/{row['number']}" for row in rows if row["reason"] and row["object"] >= 0
    ]
    count = sum(reasons.values())
    verb = "makes" if count == 1 else "make"
    text = f"{format_count(count, 'segment')} of masks {verb} no pixel ({listed})"
    if some:  # objects that nothing is made of have no number
        text += (
            f"; object/number {', '.join(some[:_LISTED])}{' ...' if len(some) > _LISTED else ''}"
        )
    return [_remark("masks_nowhere", "warning", text, "MaskIndex(...).table() lists them")]


def _odd(masks: MaskIndex) -> list[Remark]:
    return [
        _remark("masks_odd", "note", notice, "look at some with show()")
        for notice in masks.notices[:_LISTED]
    ]


def _overlaps(masks: MaskIndex) -> list[Remark]:
    covered = np.flatnonzero(masks.covered())
    if not len(covered):
        return []
    chosen = covered[np.unique(np.linspace(0, len(covered) - 1, _LOOKED_AT).astype(int))]
    several = 0
    for position in chosen.tolist():
        try:
            layers = masks.layers(position)
        except DicomTorchError as error:
            advice = "masks= with the other files, or an index without its frames"
            return [_remark("masks_damaged", "problem", str(error), advice)]
        seen = np.zeros(int(np.prod(masks.shape(position))), np.int64)
        for layer in layers:
            seen[layer.flat(masks.shape(position)[1])] += 1
        several += bool((seen > 1).any())
    if not several:
        return []
    text = f"{several} of {len(chosen)} frames looked at have pixels of several labels"
    advice = 'mask_output="channels" keeps all; overlap="first" or "last" decides'
    return [_remark("masks_overlap", "note", text, advice, several)]


def _names(masks: MaskIndex) -> list[Remark]:
    """Names that are one but for capitals and blanks; said by object and number, because names are free text."""
    groups: dict[str, set[str]] = defaultdict(set)
    where: dict[str, str] = {}
    for row in masks.table().select(["object", "number", "name"]).to_pylist():
        key = "".join(row["name"].split()).casefold()
        groups[key].add(row["name"])
        where.setdefault(row["name"], f"{row['object']}/{row['number']}")
    differing = [names for names in groups.values() if len(names) > 1]
    if not differing:
        return []
    listed = "; ".join(
        " and ".join(sorted(where[n] for n in names)) for names in differing[:_LISTED]
    )
    text = (
        f"{format_count(len(differing), 'name')} of segments written in several ways, which differ in capitals and "
        f"blanks only: object/number {listed}"
    )
    advice = 'labels= takes patterns and ignores case: labels={"left ?lung": 1}'
    return [_remark("masks_names", "note", text, advice)]
