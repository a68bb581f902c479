"""What an index holds, in words and counts: for people, without identifiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dicomtorch.index.codes import plain
from dicomtorch.index.columns import HasColumns, Table
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.report import Findings, ScanReport
from dicomtorch.model.shown import shown
from dicomtorch.pictures.html import counted

_COUNTED = {
    "Files": "file",
    "Patients": "patient",
    "Studies": "StudyInstanceUID",
    "Series": "SeriesInstanceUID",
}


def overview(
    index: HasColumns, pixels: Sequence[tuple[ImagePixel, int]], joined: Sequence[str]
) -> dict[str, str]:
    """How many frames, files, patients, studies and series there are, of which modalities and sizes.

    Args:
        index: The frames.
        pixels: Their `ImagePixel`s and how many have each.
        joined: Names of joined columns.
    """
    result = {"Frames": f"{len(index):,}"}
    for label, name in _COUNTED.items():
        result[label] = f"{np.count_nonzero(np.bincount(plain(index.column(name)))):,}"
    modalities = index.column("Modality")
    frames = np.bincount(modalities.codes)
    result["Modalities"] = counted(
        [
            (shown("Modality", modalities.value(k)), int(frames[k]))
            for k in np.flatnonzero(frames).tolist()
        ]
    )
    shapes: Counter[str] = Counter()
    for pixel, count in pixels:
        shapes[f"{pixel.rows} x {pixel.columns}"] += count
    result["Rows x columns"] = counted(list(shapes.items()))
    if joined:
        result["Joined"] = ", ".join(joined)
    return result


def report(files: Table, duplicates: int) -> ScanReport:
    """What a scan met, from its files table.

    Args:
        files: Of the whole scan.
        duplicates: Files whose SOPInstanceUID an earlier one has.
    """
    table: Any = files
    texts = (table["reason"], table["notices"])
    said = (texts[0] != "") | (texts[1] != "")
    findings = Findings(table["path"], np.asarray(table["file_class"]), *texts, said)
    return ScanReport(findings=findings, reused=len(findings), duplicates=duplicates)
