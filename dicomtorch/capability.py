"""Which backend decodes what is in an index, and what to install for the rest.

```python
>>> rows = capability.table(frames.index)
>>> print(capability.to_text(rows))
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dicomtorch import attributes
from dicomtorch.attributes import VIDEO, ImagePixel
from dicomtorch.backends.base import BACKENDS, Backend, get_backend
from dicomtorch.backends.values import unsupported_reason
from dicomtorch.index import FrameIndex

_NAMES = {
    attributes.IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
    attributes.EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    attributes.EXPLICIT_VR_BIG_ENDIAN: "Explicit VR Big Endian",
    attributes.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "Deflated Explicit VR Little Endian",
    attributes.ENCAPSULATED_UNCOMPRESSED: "Encapsulated Uncompressed",
    attributes.DEFLATED_IMAGE_FRAME: "Deflated Image Frame",
    attributes.RLE_LOSSLESS: "RLE Lossless",
    attributes.JPEG_BASELINE: "JPEG Baseline",
    attributes.JPEG_EXTENDED: "JPEG Extended",
    attributes.JPEG_SPECTRAL_SELECTION: "JPEG Spectral Selection",
    attributes.JPEG_FULL_PROGRESSION: "JPEG Full Progression",
    attributes.JPEG_LOSSLESS: "JPEG Lossless",
    attributes.JPEG_LOSSLESS_SV1: "JPEG Lossless SV1",
    attributes.JPEG_LS_LOSSLESS: "JPEG-LS Lossless",
    attributes.JPEG_LS_NEAR_LOSSLESS: "JPEG-LS Near-lossless",
    attributes.JPEG_2000_LOSSLESS: "JPEG 2000 Lossless",
    attributes.JPEG_2000: "JPEG 2000",
    attributes.JPEG_XL_LOSSLESS: "JPEG XL Lossless",
    attributes.JPEG_XL_RECOMPRESSION: "JPEG XL JPEG Recompression",
    attributes.JPEG_XL: "JPEG XL",
    attributes.HTJ2K_LOSSLESS: "HTJ2K Lossless",
    attributes.HTJ2K_LOSSLESS_RPCL: "HTJ2K Lossless RPCL",
    attributes.HTJ2K: "HTJ2K",
}


@dataclass(frozen=True, slots=True)
class Capability:
    """What can be done with the frames of one kind.

    Attributes:
        pixel: What they have in common; its rows and columns are those of the largest.
        frames: How many frames there are.
        backends: The names of the backends that decode them here and now, the one that "auto" takes first.
        advice: Empty if `backends` is not; else what to install, or why nothing would help.
    """

    pixel: ImagePixel
    frames: int
    backends: tuple[str, ...]
    advice: str

    @property
    def syntax_name(self) -> str:
        """A short name of the transfer syntax, or its UID."""
        return _NAMES.get(self.pixel.transfer_syntax_uid, self.pixel.transfer_syntax_uid)


def table(
    source: FrameIndex | Iterable[tuple[ImagePixel, int]],
    backends: Iterable[str | Backend] = tuple(BACKENDS),
) -> list[Capability]:
    """What decodes the frames of an index, the most frequent kind first.

    Args:
        source: An index, or distinct `ImagePixel` and their numbers of frames as `index.image_pixels()` gives them.
        backends: The backends to ask, in order of preference.

    Raises:
        OptionError: A backend is not known.
    """
    candidates = [get_backend(backend) for backend in backends]
    counts: Counter[ImagePixel] = Counter()
    largest: dict[ImagePixel, ImagePixel] = {}
    for pixel, frames in source.image_pixels() if isinstance(source, FrameIndex) else source:
        kind = replace(pixel, rows=0, columns=0)
        counts[kind] += frames
        largest[kind] = max(pixel, largest.get(kind, kind), key=lambda one: one.rows * one.columns)
    rows = []
    for kind, frames in counts.most_common():
        pixel = largest[kind]
        able = tuple(backend.name for backend in candidates if backend.supports(pixel))
        rows.append(Capability(pixel, frames, able, "" if able else _advice(pixel, candidates)))
    return rows


def _advice(pixel: ImagePixel, candidates: list[Backend]) -> str:
    if pixel.transfer_syntax_uid in VIDEO:
        return "video is indexed and not decoded; convert it to single frames"
    if reason := unsupported_reason(pixel):
        return f"the header contradicts itself: {reason}"
    missing = [
        (backend.name, getattr(backend, "missing", lambda _: "")(pixel)) for backend in candidates
    ]
    ways = [f"{install} (backend {name!r})" for name, install in missing if install]
    return " or ".join(ways) or "no backend decodes this"


def to_text(rows: list[Capability]) -> str:
    """The table as plain text, one line a kind."""
    heads = ("frames", "transfer syntax", "photometric", "samples", "bits", "decoded by")
    lines = [
        (
            str(row.frames),
            row.syntax_name,
            row.pixel.photometric_interpretation,
            str(row.pixel.samples_per_pixel),
            f"{row.pixel.bits_stored} of {row.pixel.bits_allocated}",
            ", ".join(row.backends) or f"nothing: {row.advice}",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (heads, *lines)
    )
