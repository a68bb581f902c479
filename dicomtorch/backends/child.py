"""Decodes frames for another process: `python -m dicomtorch.backends.child DESCRIPTOR`, started and fed by `children`.

The process that is started decodes nothing: it imports what decoding takes and forks on demand, so that a child that
died is replaced in milliseconds. Each fork has a socket to the process that asks and memory that both have mapped, in
which lie the request, the code stream and the pixels. All end when the process that asks does.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from dicomtorch.backends.base import Array, Backend, decoding
from dicomtorch.backends.memory_limit import MemoryLimit
from dicomtorch.backends.reduced import ReducingBackend
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import Limits

ORDER: Final = struct.Struct("<cq")
"""To the process that forks: b"P", bytes of a pickled backend that follow; b"F", a socket that comes with it; b"E", a
process to end. It answers each with a number: 0, the new process, or how it ended (`os.waitstatus_to_exitcode`)."""
ANSWER: Final = struct.Struct("<q")
REQUEST: Final = struct.Struct("<q")
"""To a child: bytes of the code stream in the memory, of a frame like the one before; -1: a `QUESTION` comes first."""
QUESTION: Final = struct.Struct("<5Q")
"""To a child: bytes of the pickled backend and of the pickled `Job`, which follow; where in the memory code streams
are (pixels are at 0); how much memory decoding may take; and whether one byte with a descriptor follows, that of new
memory."""
REPLY: Final = struct.Struct("<I")
"""From a child: bytes of JSON that follow; 0: there is an array of the shape and type that the `Job` has."""
DONE: Final = REPLY.pack(0)


class Job(NamedTuple):
    """What is asked of a frame, but for its bytes: `levels` is 0, or those of `decode_reduced`."""

    pixel: ImagePixel
    limits: Limits
    levels: int


def receive(connection: socket.socket, length: int) -> bytes:
    """Some bytes of a stream, all of them.

    Raises:
        EOFError: The other side has gone.
    """
    found = connection.recv(length) if length else b""
    while len(found) < length:
        part = connection.recv(length - len(found)) if found else b""
        if not part:
            raise EOFError
        found += part
    return found


def _receive_with_descriptor(connection: socket.socket, length: int) -> tuple[bytes, int | None]:
    head, descriptors, _, _ = socket.recv_fds(connection, length, 1)
    if not head:
        raise EOFError
    rest = receive(connection, length - len(head)) if len(head) < length else b""
    return head + rest, descriptors[0] if descriptors else None


def fork_on_demand(control: socket.socket) -> None:
    """Carries out orders until there are no more; then ends what it made."""
    children: set[int] = set()
    prepared: set[bytes] = set()
    control.sendall(ANSWER.pack(0))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            head, descriptor = _receive_with_descriptor(control, ORDER.size)
            order, number = ORDER.unpack(head)
            if order == b"P":
                content = receive(control, number)
                if content not in prepared:
                    prepared.add(content)
                    with contextlib.suppress(Exception):  # the child says it of its frame
                        pickle.loads(content).prepare()
                answer = 0
            elif order == b"F" and descriptor is not None:
                answer = _forked(control, descriptor)
                children.add(answer)
            else:
                answer = _ended(number) if number in children else 0
                children.discard(number)
            control.sendall(ANSWER.pack(answer))
    for child in children:
        _ended(child)


def _ended(process: int) -> int:
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _forked(control: socket.socket, descriptor: int) -> int:
    process = os.fork()
    if process:
        os.close(descriptor)
        return process
    try:
        control.close()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold pixels of a patient
        with socket.socket(fileno=descriptor) as connection, contextlib.suppress(OSError, EOFError):
            _decode_on_demand(connection)
    finally:
        os._exit(0)


def _decode_on_demand(connection: socket.socket) -> None:
    decoder = _Decoder()
    while True:
        (length,) = REQUEST.unpack(receive(connection, REQUEST.size))
        if length >= 0:
            connection.sendall(decoder.answer(length))
            decoder.limit()
            continue
        *lengths, at, most, has_memory = QUESTION.unpack(receive(connection, QUESTION.size))
        parts = [receive(connection, each) for each in lengths]
        descriptor = _receive_with_descriptor(connection, 1)[1] if has_memory else None
        decoder.prepare(parts, at, most, descriptor)


class _Decoder:
    """What a child keeps from one frame to the next: the memory, and what it was asked.

    What does not have to be done between a request and its reply is done before or after: after some milliseconds of a
    codec the caches of a core have forgotten the interpreter, and each of its steps takes several times as long.
    """

    def __init__(self) -> None:
        self._memory = memoryview(b"")
        self._pixels = self._streams = self._memory
        self._limit = MemoryLimit()
        self._most = 0
        self._backend: Any = None
        self._job: Any = None
        self._out: Array | None = None
        self._failure = b""
        decoding.notices = []

    def prepare(self, parts: list[bytes], at: int, most: int, descriptor: int | None) -> None:
        """Makes everything ready for frames of another kind; what fails is said of the next frame."""
        self._limit.lift()
        self._failure, self._out = b"", None
        # Ends this process if it fails: pixels would go where nobody looks for them.
        if descriptor is not None:
            self._memory = memoryview(mmap.mmap(descriptor, 0))
            os.close(descriptor)
        try:
            self._pixels = self._memory[:at]
            self._streams = self._memory[at:].toreadonly()
            self._backend = _loaded(parts[0])
            self._job = job = Job(*_loaded(parts[1]))
            decoding.limits = job.limits
            if job.pixel.is_encapsulated and not job.levels:
                self._out = np.ndarray(job.pixel.shape, job.pixel.stored_dtype, self._pixels)
        except BaseException as error:  # also those of libraries that derive theirs from it
            self._failure = _failed(error)
        self._most = most
        self.limit()

    def limit(self) -> None:
        """Limits the memory that the next frame may take."""
        self._limit.set(self._most)

    def answer(self, length: int) -> bytes:
        """Decodes a frame; what is to be said of it."""
        if self._failure:
            return self._failure
        data = self._streams[:length]
        try:
            found = None
            if self._out is None:
                found = _decoded(self._backend, data, self._job, self._pixels)
            else:
                result = self._backend.decode(data, self._job.pixel, self._out)
                if result is not self._out:
                    found = _laid(result, self._job.pixel, self._pixels)
        except BaseException as error:
            self._limit.lift()
            return _failed(error)
        if found is None and not decoding.notices:
            return DONE
        notices, decoding.notices = decoding.notices, []
        return _said({**(found or {}), "notices": notices})


def _failed(error: BaseException) -> bytes:
    decoding.notices = []
    if isinstance(error, MemoryError):
        return _said({"error": "MemoryError", "text": ""})
    return _said({"error": type(error).__name__, "text": str(error)})


def _said(reply: dict[str, Any]) -> bytes:
    content = json.dumps(reply).encode()
    return REPLY.pack(len(content)) + content


@lru_cache(maxsize=256)
def _loaded(content: bytes) -> Any:
    return pickle.loads(content)


def _decoded(backend: Backend, data: memoryview, job: Job, space: memoryview) -> dict[str, Any]:
    """Decodes what a codec does not write into `space`, and says what lies there then."""
    if not job.levels:
        return _laid(backend.decode(data, job.pixel), job.pixel, space)
    if not isinstance(backend, ReducingBackend):
        return {"shape": None}
    reduced = backend.decode_reduced(data, job.pixel, job.levels)
    if reduced is None:
        return {"shape": None}
    said = {"factor": reduced.factor, "offset": reduced.offset}
    return said | _laid(reduced.samples, job.pixel, space)


def _laid(result: Array, pixel: ImagePixel, space: memoryview) -> dict[str, Any]:
    """Has an array in `space`, and says which."""
    result = np.ascontiguousarray(result)
    if result.nbytes > len(space):
        raise ValueError(f"{result.shape} of {result.dtype} for a frame of {pixel.shape}")
    target = np.ndarray(result.shape, result.dtype, space)
    if target.ctypes.data != result.ctypes.data:
        target[...] = result
    return {"dtype": result.dtype.str, "shape": result.shape}


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        fork_on_demand(_control)
