"""Decoders in processes of their own: what ends or blocks a process costs one frame, not the run.

The code stream goes to a long-lived child process and pixels come back in memory that both share; `Limits` has the
time and the memory that a frame may take. A child that dies or hangs makes a `DecodeError` of its frame and is
replaced. This is no sandbox: a stream that takes over the child may do what this user may.
"""

from __future__ import annotations

import pickle
import sys
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from dicomtorch.backends.base import Array, Backend, Buffer, decoding, say_once
from dicomtorch.backends.guard import check_claim
from dicomtorch.errors import DecodeError, OptionError
from dicomtorch.model.frame import Reduced
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import Limits

if TYPE_CHECKING:
    from dicomtorch.backends.children import Child, Question

_OWN = "dicomtorch.backends."


def can_isolate() -> bool:
    """Whether this system has what it takes: forks, and sockets that hand over descriptors."""
    return sys.platform != "win32"


def isolated(backend: Backend, pixel: ImagePixel, *, always: bool) -> Backend:
    """A backend in processes of its own, where that is asked for or needed; else the backend.

    Native pixels are read by NumPy and need none, but with backends that are not of this package.

    Args:
        backend: What decodes.
        pixel: Frames that it decodes.
        always: Whether every decoder is to be isolated, not only those that are known to end processes.

    Raises:
        OptionError: It was asked for, and cannot be done here.
    """
    if always and not can_isolate():
        raise OptionError('isolation="process" needs Linux or macOS')
    if isinstance(backend, IsolatedBackend) or not can_isolate():
        return backend
    if not pixel.is_encapsulated and _is_own(backend):
        return backend
    return IsolatedBackend(backend) if always or getattr(backend, "can_abort", False) else backend


def inner(backend: Backend) -> Backend:
    """The backend that decodes, wherever it does."""
    return backend.inner if isinstance(backend, IsolatedBackend) else backend


def _is_own(backend: Backend) -> bool:
    return type(backend).__module__.startswith(_OWN)


class IsolatedBackend:
    """A backend whose decoding happens in child processes. Safe in threads, in pickles and in forked processes.

    Args:
        inner: What decodes there.

    Raises:
        OptionError: `inner` cannot be sent to another process.
    """

    def __init__(self, inner: Backend) -> None:
        from dicomtorch.backends.children import children  # not on Windows

        self.inner = inner
        self.name = inner.name
        self._children = children
        if type(inner).__module__ == "__main__":
            raise OptionError(
                f"isolation: {type(inner).__name__} is defined in the script that runs; put it into a module, which "
                "another process can import"
            )
        try:
            self._pickled = pickle.dumps(inner)
        except Exception as error:
            raise OptionError(
                f"isolation: backend {self.name!r} cannot be sent to another process ({type(error).__name__})"
            ) from error
        self._first = self._pickled if _is_own(inner) else b""
        self._last: Any = (None, None, 0), None

    def __reduce__(self) -> tuple[type[IsolatedBackend], tuple[Backend]]:
        return IsolatedBackend, (self.inner,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    def supports(self, pixel: ImagePixel) -> bool:
        """Whether frames described so can be decoded here and now."""
        return self.inner.supports(pixel)

    def missing(self, pixel: ImagePixel) -> str:
        """What to install so that frames described so can be decoded; "" if nothing is missing or would help."""
        missing: str = getattr(self.inner, "missing", lambda _: "")(pixel)
        return missing

    def decode(self, data: Buffer, pixel: ImagePixel, out: Array | None = None) -> Array:
        """Decodes one frame.

        Raises:
            DecodeError: As `inner` does, or its process died, hung, or wanted more memory than `Limits` has.
            StorageError: No process can be started.
        """
        array, _ = self._ask(data, pixel, 0, out)
        assert array is not None
        return array

    def decode_reduced(self, data: Buffer, pixel: ImagePixel, levels: int) -> Reduced | None:
        """Decodes a frame at 1 / 2^levels of its resolution, `None` where `inner` cannot.

        Raises:
            DecodeError: As in `decode`.
        """
        array, reply = self._ask(data, pixel, levels, None)
        return None if array is None else Reduced(array, reply["factor"], reply["offset"])

    def _ask(
        self, data: Buffer, pixel: ImagePixel, levels: int, out: Array | None
    ) -> tuple[Array | None, dict[str, Any]]:
        limits, children = decoding.limits, self._children
        last, question = self._last
        if last[0] is not pixel or last[1] is not limits or last[2] != levels:
            question = _question(self._pickled, pixel, limits, levels)
            self._last = (pixel, limits, levels), question
        child = children.take(self._first)
        try:
            reply = child.ask(question, memoryview(data).cast("B"), limits.decode_seconds)
            array = None if "error" in reply else _taken(reply, child, out)
        except (EOFError, OSError) as error:
            raise children.lost(error, child, self.name, limits.decode_seconds) from error
        except BaseException:
            children.end(child)  # whatever it still says is not the answer to the next question
            raise
        if not reply:
            children.give_back(child)
            return array, reply
        if reply.get("error") == "MemoryError":
            children.end(child)  # what it took may be with it still
        else:
            children.give_back(child)
        if "error" in reply:
            raise _error_of(reply, self.name, limits)
        for notice in reply.get("notices", ()):
            say_once(notice)
        return array, reply


@lru_cache(maxsize=1024)
def _question(backend: bytes, pixel: ImagePixel, limits: Limits, levels: int) -> Question:
    """What is asked of frames.

    Raises:
        DecodeError: They are beyond a limit.
    """
    from dicomtorch.backends.children import Question

    check_claim(pixel, limits)  # before there is memory for it
    shape, dtype = pixel.shape, pixel.stored_dtype
    room = prod(shape) * max(4, dtype.itemsize)
    job = pickle.dumps((pixel, limits, levels))
    return Question(backend, job, shape, dtype, room, limits.decode_memory_bytes)


def _taken(reply: dict[str, Any], child: Child, out: Array | None) -> Array | None:
    """What lies in the shared memory, in `out` if it fits."""
    found: Array = child.pixels
    if "shape" in reply:
        if reply["shape"] is None:
            return None
        shape, dtype = tuple(reply["shape"]), np.dtype(reply["dtype"])
        if dtype.kind not in "iuf" or prod(shape) * dtype.itemsize > len(child.space):
            raise EOFError
        found = np.ndarray(shape, dtype, child.space)
    if out is None or out.shape != found.shape or out.dtype != found.dtype:
        return found.copy()
    out[...] = found
    return out


def _error_of(reply: dict[str, Any], name: str, limits: Limits) -> DecodeError:
    if reply["error"] == "MemoryError":
        return DecodeError(
            f"{name} wanted more than {limits.decode_memory_bytes} bytes of memory (Limits.decode_memory_bytes)"
        )
    if reply["error"] == "DecodeError":
        return DecodeError(reply["text"])
    return DecodeError(f"the code stream is damaged: {name}: {reply['error']}: {reply['text']}")
