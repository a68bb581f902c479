"""Which backend decodes what is in an index, and what to install for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dicomtorch.backends.base import BACKENDS, Backend, get_backend
from dicomtorch.backends.stored import unsupported_reason
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_IMAGE_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_FULL_PROGRESSION,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    JPEG_SPECTRAL_SELECTION,
    JPEG_XL,
    JPEG_XL_LOSSLESS,
    JPEG_XL_RECOMPRESSION,
    RLE_LOSSLESS,
    VIDEO,
)

_NAMES = {
    IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
    EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    EXPLICIT_VR_BIG_ENDIAN: "Explicit VR Big Endian",
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "Deflated Explicit VR Little Endian",
    ENCAPSULATED_UNCOMPRESSED: "Encapsulated Uncompressed",
    DEFLATED_IMAGE_FRAME: "Deflated Image Frame",
    RLE_LOSSLESS: "RLE Lossless",
    JPEG_BASELINE: "JPEG Baseline",
    JPEG_EXTENDED: "JPEG Extended",
    JPEG_SPECTRAL_SELECTION: "JPEG Spectral Selection",
    JPEG_FULL_PROGRESSION: "JPEG Full Progression",
    JPEG_LOSSLESS: "JPEG Lossless",
    JPEG_LOSSLESS_SV1: "JPEG Lossless SV1",
    JPEG_LS_LOSSLESS: "JPEG-LS Lossless",
    JPEG_LS_NEAR_LOSSLESS: "JPEG-LS Near-lossless",
    JPEG_2000_LOSSLESS: "JPEG 2000 Lossless",
    JPEG_2000: "JPEG 2000",
    JPEG_XL_LOSSLESS: "JPEG XL Lossless",
    JPEG_XL_RECOMPRESSION: "JPEG XL JPEG Recompression",
    JPEG_XL: "JPEG XL",
    HTJ2K_LOSSLESS: "HTJ2K Lossless",
    HTJ2K_LOSSLESS_RPCL: "HTJ2K Lossless RPCL",
    HTJ2K: "HTJ2K",
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
    source: Iterable[tuple[ImagePixel, int]],
    backends: Iterable[str | Backend] = tuple(BACKENDS),
) -> list[Capability]:
    """What decodes the frames of an index, the most frequent kind first.

    Args:
        source: Distinct `ImagePixel` and their numbers of frames, as `index.image_pixels()` gives them.
        backends: The backends to ask, in order of preference.

    Raises:
        OptionError: A backend is not known.
    """
    candidates = [get_backend(backend) for backend in backends]
    counts: Counter[ImagePixel] = Counter()
    largest: dict[ImagePixel, ImagePixel] = {}
    for pixel, frames in source:
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
