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
REQUEST: Final = struct.Struct("<6Q")
"""To a child: bytes of the pickled backend and of the pickled `Job` (0: those of the frame before), and of the code
stream, which lie one after the other in the shared memory; where the pixels go; how much memory decoding may take; and
whether one byte with a descriptor follows, that of new memory."""
REPLY: Final = struct.Struct("<I")
"""From a child: bytes of JSON that follow; 0: there is an array of the shape and type that the `Job` has."""


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
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


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
        *request, has_memory = REQUEST.unpack(receive(connection, REQUEST.size))
        if has_memory:
            decoder.share(_receive_with_descriptor(connection, 1)[1])
        reply = decoder.answer(*request)
        content = json.dumps(reply).encode() if reply else b""
        connection.sendall(REPLY.pack(len(content)) + content)


class _Decoder:
    """What a child keeps from one frame to the next: the memory, and what it was asked last."""

    def __init__(self) -> None:
        self._memory = memoryview(b"")
        self._limit = MemoryLimit()
        self._backend: Any = None
        self._job: Any = None

    def share(self, descriptor: int | None) -> None:
        """Takes other memory."""
        assert descriptor is not None
        self._limit.lift()
        self._memory = memoryview(mmap.mmap(descriptor, 0))
        os.close(descriptor)

    def answer(
        self, backend_bytes: int, job_bytes: int, data_bytes: int, at: int, most: int
    ) -> dict[str, Any]:
        """What is to be said of a frame; nothing if it lies there as the job has it."""
        decoding.notices = []
        try:
            data_at = backend_bytes + job_bytes
            if data_at:
                self._backend = self._job = (
                    None  # one that cannot be loaded must not leave those before
                )
                self._limit.lift()
                self._backend = _loaded(bytes(self._memory[:backend_bytes]))
                self._job = Job(*_loaded(bytes(self._memory[backend_bytes:data_at])))
            data = self._memory[data_at : data_at + data_bytes].toreadonly()
            decoding.limits = self._job.limits
            self._limit.set(most)
            found = _decoded(self._backend, data, self._job, self._memory[at:])
        except MemoryError:
            self._limit.lift()
            return {"error": "MemoryError", "text": ""}
        except BaseException as error:  # also those of libraries that derive theirs from it
            self._limit.lift()
            return {"error": type(error).__name__, "text": str(error)}
        return {**found, "notices": decoding.notices} if found or decoding.notices else {}


@lru_cache(maxsize=256)
def _loaded(content: bytes) -> Any:
    return pickle.loads(content)


def _decoded(backend: Backend, data: memoryview, job: Job, space: memoryview) -> dict[str, Any]:
    """Decodes into `space`, and says what lies there; nothing if it is what `job` has."""
    said: dict[str, Any] = {}
    pixel = job.pixel
    if job.levels:
        reduced = (
            backend.decode_reduced(data, pixel, job.levels)
            if isinstance(backend, ReducingBackend)
            else None
        )
        if reduced is None:
            return {"shape": None}
        said = {"factor": reduced.factor, "offset": reduced.offset}
        result = np.ascontiguousarray(reduced.samples)
    else:
        out: Array | None = None
        if pixel.is_encapsulated:
            out = np.ndarray(pixel.shape, pixel.stored_dtype, space)
        result = backend.decode(data, pixel, out)
        if result is out:
            return said
        result = np.ascontiguousarray(result)
    if result.nbytes > len(space):
        raise ValueError(f"{result.shape} of {result.dtype} for a frame of {pixel.shape}")
    target = np.ndarray(result.shape, result.dtype, space)
    if target.ctypes.data != result.ctypes.data:
        target[...] = result
    return {"dtype": result.dtype.str, "shape": result.shape, **said}


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        fork_on_demand(_control)
