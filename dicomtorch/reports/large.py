"""What `doctor` says of large frames: what would let `decode="reduced"` decode less of them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from dicomtorch.backends.low_pass import has_scaled_dct, skips_resolutions
from dicomtorch.errors import format_count
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.syntaxes import JPEG_2000_FAMILY, JPEG_BASELINE, JPEG_EXTENDED
from dicomtorch.reports.checks import Remark

_LARGE = 1 << 20  # pixels

NEWER = "Python 3.12 takes imagecodecs 2026.10.10, which decodes a quarter of their resolution 10 times as fast"
SCALED = 'pip install "dicomtorch[reduced]" lets libjpeg scale them while it decodes'


def of_large_frames(index: FrameIndex) -> list[Remark]:
    """Frames of a megapixel or more that are decoded whole though their code streams need not be."""
    lacking: list[tuple[str, Collection[str], str, Callable[[], bool]]] = [
        ("JPEG 2000", JPEG_2000_FAMILY, NEWER, skips_resolutions),
        ("JPEG", {JPEG_BASELINE, JPEG_EXTENDED}, SCALED, has_scaled_dct),
    ]
    remarks = []
    pixels = np.asarray(index.column("Rows")) * np.asarray(index.column("Columns"), np.int64)
    syntaxes = index.column("TransferSyntaxUID")
    for name, family, install, is_there in lacking:
        codes = syntaxes.codes_of(sorted(family))
        found = np.flatnonzero((pixels >= _LARGE) & np.isin(syntaxes.codes, codes[codes >= 0]))
        if len(found) and not is_there():
            files = np.unique(np.asarray(index.column("file"))[found])
            text = (
                f"{format_count(len(found), 'frame')} of {name} of a megapixel or more: decode='reduced' decodes them "
                "whole here"
            )
            remarks.append(
                Remark("large", "note", text, install, len(found), tuple(files.tolist()))
            )
    return remarks
