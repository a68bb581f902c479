"""Which backend decodes what is in an index, and what to install for the rest."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dicomtorch.backends.base import BACKENDS, Backend, Buffer, get_backend
from dicomtorch.backends.isolated import can_isolate, isolated
from dicomtorch.backends.stored import unsupported_reason
from dicomtorch.errors import DecodeError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.shown import named_uid
from dicomtorch.model.syntaxes import VIDEO


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
        """The name of the transfer syntax."""
        return named_uid(self.pixel.transfer_syntax_uid)


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


def others_that_decode(data: Buffer, pixel: ImagePixel, refused_by: str) -> tuple[str, ...]:
    """Names of the installed backends that decode a frame which one of them refused.

    For reports on single frames: "auto" chooses by the header, so that it does not find these by itself. All are asked
    in processes of their own, or those that damaged frames cannot end, where there are no such processes.

    Args:
        data: The code stream of the frame.
        pixel: What the header of its file says.
        refused_by: Name of the backend that refused it.
    """
    found = []
    for name in BACKENDS:
        backend = get_backend(name)
        if name == refused_by or not backend.supports(pixel):
            continue
        if can_isolate():
            backend = isolated(backend, pixel, always=True)
        elif getattr(backend, "can_abort", False):
            continue
        with contextlib.suppress(DecodeError):
            backend.decode(data, pixel)
            found.append(name)
    return tuple(found)


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
