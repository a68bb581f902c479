"""The contract of a decoder, and the list of those there are."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy.typing as npt

from dicomtorch.errors import OptionError, UnsupportedError
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.shown import named_uid, shown

if TYPE_CHECKING:
    from dicomtorch.model.image import ImagePixel

_logger = logging.getLogger("dicomtorch")

Buffer = bytes | bytearray | memoryview
Array = npt.NDArray[Any]


@runtime_checkable
class Backend(Protocol):
    """Decodes the bytes of one frame by value.

    Sources: PS3.5 8.2 and A.4.

    Contract:
        - `data` is the whole code stream of one frame, item headers dropped, fragments joined; for native data the
          bytes of the frame (for 1-bit frames already shifted, so that pixel 0 is bit 0).
        - The result has shape `pixel.shape`, is C contiguous, in native byte order, and holds stored values: unused
          bits removed, sign extended, interleaved samples. YBR comes out as RGB; palette indices stay indices. No
          LUT, no rescale, no window, no inversion.
        - Its type is `pixel.stored_dtype`, except that the code stream wins where it says more: a signed stream in an
          unsigned header comes out signed.
        - `out`, if given, has `pixel.shape`; a backend writes into it where its library can and its type is the
          result's; the returned array is what counts, and may be `out`.
        - Of native data the result may be a view of `data`, read-only if `data` is: `data` stays as it is while the
          result is in use.
        - A backend may have `missing(pixel) -> str`: what to install so that it would decode `pixel`, or "";
          `prepare()`, which imports what decoding takes; and `can_abort = True` if damaged streams may end the process
          in it: then it is run in processes of its own (`isolated`).
        - Raises `DecodeError` only. Never resizes, crops or fills. Thread-safe and picklable.
    """

    name: str

    def supports(self, pixel: ImagePixel) -> bool:
        """Whether frames described so can be decoded here and now (its library is installed)."""
        ...

    def decode(self, data: Buffer, pixel: ImagePixel, out: Array | None = None) -> Array:
        """Decodes one frame; see the contract above.

        Args:
            data: Its code stream, or its bytes where it is not compressed.
            pixel: What the header of its file says.
            out: An array that may be written into, of shape `pixel.shape`; `None`: a new one.

        Raises:
            DecodeError: The stream is damaged, or disagrees with `pixel` in size, components or kind.
        """
        ...


class _Decoding(threading.local):
    """What the calling thread decodes just now.

    Attributes:
        where: Names the file, for a notice; set by the layer that knows it, for as long as it decodes.
        limits: What the scan of the file admitted; set likewise.
        notices: What takes notices in place of the log, in a process that decodes for another one.
        threads: How many a codec may use for one frame; more than 1 where too few frames are decoded at once to keep
            all threads busy.
    """

    where: Callable[[], str] | None = None
    limits: Limits = LIMITS
    notices: list[str] | None = None
    threads: int = 1


decoding = _Decoding()


@cache
def say_once(text: str) -> None:
    """Warns of something odd in a frame that is decoded all the same, once for each text."""
    if decoding.notices is not None:
        decoding.notices.append(text)
    elif decoding.where is None:
        _logger.warning("%s (said once)", text)
    else:
        _logger.warning("%s (first seen in %s; said once)", text, decoding.where())


STORED_VALUES_VERSION = 2
"""Counts the changes of what backends make of the same bytes; values that are kept on disk are kept for one of them."""

BACKENDS: dict[str, str] = {
    # In the order in which "auto" prefers them; each module has a `BACKEND`.
    "imagecodecs": "dicomtorch.backends.imagecodecs",
    "pydicom": "dicomtorch.backends.pydicom",
    "simpleitk": "dicomtorch.backends.simpleitk",
}


def get_backend(name: str | Backend) -> Backend:
    """The backend called `name`; a `Backend` is returned as it is.

    Raises:
        OptionError: There is none of that name.
    """
    if not isinstance(name, str):
        if isinstance(name, Backend):
            return name
        raise OptionError(
            f"backend must be one of {', '.join(map(repr, ('auto', *BACKENDS)))} or an object with `name`, "
            f"`supports` and `decode`; got {type(name).__name__}"
        )
    if name not in BACKENDS:
        raise OptionError(
            f"backend {name!r} is not known; choose one of {', '.join(map(repr, ('auto', *BACKENDS)))}"
        )
    backend: Backend = importlib.import_module(BACKENDS[name]).BACKEND
    return backend


def choose_backend(name: str | Backend, pixel: ImagePixel) -> Backend:
    """The backend that decodes `pixel`; with "auto" the first in `BACKENDS` that can.

    Raises:
        OptionError: There is no backend of that name.
        UnsupportedError: It does not decode this; the message says which would.
    """
    candidates = list(BACKENDS) if name == "auto" else [name]
    for candidate in candidates:
        backend = get_backend(candidate)
        if backend.supports(pixel):
            return backend
    able = [other for other in BACKENDS if get_backend(other).supports(pixel)]
    hint = f"backend={able[0]!r} can" if able else "no installed backend can"
    label = name if isinstance(name, str) else name.name
    photometric = shown("PhotometricInterpretation", pixel.photometric_interpretation)
    raise UnsupportedError(
        f"backend {label!r} does not decode {named_uid(pixel.transfer_syntax_uid)} with "
        f"BitsAllocated {pixel.bits_allocated}, BitsStored {pixel.bits_stored}, SamplesPerPixel "
        f"{pixel.samples_per_pixel}, PhotometricInterpretation {photometric!r}; {hint}"
    )
