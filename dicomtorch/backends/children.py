"""The child processes of this process that decode, and what becomes of those that die or hang."""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from dicomtorch._forks import ForkedLock
from dicomtorch.backends.base import Buffer
from dicomtorch.backends.child import ANSWER, DONE, ORDER, QUESTION, REPLY, REQUEST, receive
from dicomtorch.errors import DecodeError, StorageError

_LONGEST_REPLY: Final = 1 << 20
_START_SECONDS: Final = 60
_ALIGNMENT: Final = 64
_KEPT: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
"""For glibc: memory of a decoder stays in its process for the next frame, whose pages else were new ones each time."""


class Question(NamedTuple):
    """What is asked of frames that are alike; of the same object twice, the second time is cheaper.

    Attributes:
        backend: Pickled.
        job: Pickled `Job`.
        shape: Of the pixels, where the backend gives what `job` has.
        dtype: Of these.
        room: Bytes that the pixels may take at most.
        most: Bytes of memory that decoding may take.
    """

    backend: bytes
    job: bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    room: int
    most: int


class Child:
    """A process that decodes one frame at a time, and the memory that it shares with this one.

    Attributes:
        process: Its number.
        connection: To it.
        idle: Where it waits for work.
        space: Memory for the pixels.
        pixels: These, where the backend gives what the job has.
    """

    def __init__(self, process: int, connection: socket.socket, idle: list[Child]) -> None:
        self.process = process
        self.connection = connection
        self.idle = idle
        self.space = self._streams = memoryview(b"")
        self.pixels: Any = None
        self._memory: Any = b""
        self._question: Question | None = None
        self._seconds: float | None = None

    def ask(self, question: Question, data: Buffer, seconds: float) -> dict[str, Any]:
        """Has a frame decoded.

        Args:
            question: What is asked.
            data: The code stream.
            seconds: How long it may take.

        Returns:
            The reply, empty if the pixels are there.

        Raises:
            EOFError: The process has died, or sent what is no reply.
            TimeoutError: It is not done yet.
        """
        length = len(data)
        if seconds != self._seconds:
            self.connection.settimeout(seconds)
            self._seconds = seconds
        if question is not self._question or length > len(self._streams):
            self._prepare(question, length)
        self._streams[:length] = data
        self.connection.sendall(REQUEST.pack(length))
        try:
            said = receive(self.connection, REPLY.size)
            if said == DONE:
                return {}
            (length,) = REPLY.unpack(said)
            if length > _LONGEST_REPLY:
                raise EOFError
            reply: dict[str, Any] = json.loads(receive(self.connection, length))
        except (ConnectionError, ValueError) as error:
            raise EOFError from error
        if "error" in reply:
            self._question = None  # it may have failed to load it
        return reply

    def _prepare(self, question: Question, length: int) -> None:
        """Says what will be asked, and makes room for pixels and for code streams of `length` bytes."""
        self._question = None
        at = -(-question.room // _ALIGNMENT) * _ALIGNMENT
        descriptor = self._make_room(at + length)
        lengths = len(question.backend), len(question.job)
        head = QUESTION.pack(*lengths, at, question.most, descriptor is not None)
        try:
            self.connection.sendall(REQUEST.pack(-1) + head + question.backend + question.job)
            if descriptor is not None:
                socket.send_fds(self.connection, [b"M"], [descriptor])
        finally:
            if descriptor is not None:
                os.close(descriptor)
        view = memoryview(self._memory)
        self.space, self._streams = view[:at], view[at:]
        self.pixels = np.ndarray(question.shape, question.dtype, self.space)
        self._question = question

    def _make_room(self, length: int) -> int | None:
        """A descriptor of new memory, if what there is does not suffice."""
        if len(self._memory) >= length:
            return None
        length = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("dicomtorch-pixels", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(descriptor, length)
            self._memory = mmap.mmap(descriptor, length)
        except (OSError, ValueError) as error:
            os.close(descriptor)
            raise MemoryError(f"{length} bytes to share with a process that decodes") from error
        return descriptor


class Children:
    """Children that are at hand, made when they are needed: one for each thread that decodes at the same time."""

    def __init__(self) -> None:
        self._lock = ForkedLock()
        self._forget()

    def _forget(self) -> None:
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._control: socket.socket | None = None
        self._mother: subprocess.Popen[bytes] | None = None

    def take(self, backend: bytes) -> Child:
        """A child that waits for work, a new one if none does; `backend` is what it will be asked first, or empty.

        Raises:
            StorageError: None can be started.
        """
        try:
            return self._idle.pop()
        except IndexError:
            return self._take_new(backend)

    def _take_new(self, backend: bytes) -> Child:
        with self._lock:
            for again in (True, False):
                try:
                    return self._new_child(backend)
                except (OSError, EOFError) as error:
                    self._close()
                    if not again:
                        raise StorageError(
                            f"no process that decodes could be started ({type(error).__name__}: {error})"
                        ) from error
        raise AssertionError

    def give_back(self, child: Child) -> None:
        """Takes a child that has replied."""
        child.idle.append(child)  # which is nobody's if all were closed meanwhile

    def end(self, child: Child) -> int:
        """Ends a child, if it has not ended by itself.

        Returns:
            Its exit code, negative for a signal.
        """
        with self._lock:
            child.connection.close()
            if child not in self._all:  # all were closed
                return 0
            self._all.discard(child)
            try:
                return self._order(b"E", child.process)
            except (OSError, EOFError):
                return 0

    def lost(self, error: BaseException, child: Child, name: str, seconds: float) -> DecodeError:
        """What is to be said of a frame whose child died or hangs; the child is ended."""
        code = self.end(child)
        if isinstance(error, TimeoutError):
            return DecodeError(
                f"{name} was not done after {seconds:g} s (Limits.decode_seconds); its process was ended. The code "
                "stream is damaged or hostile, or the machine is too busy"
            )
        return DecodeError(
            f"{name} ended its process ({ended_by(code)}); the code stream is damaged or hostile"
        )

    def _new_child(self, backend: bytes) -> Child:
        if self._control is None:
            self._control, self._mother = _started()
            receive(self._control, ANSWER.size)
        if backend:
            self._order(b"P", len(backend), content=backend)
        ours, theirs = socket.socketpair()
        with theirs:
            process = self._order(b"F", 0, theirs.fileno())
        child = Child(process, ours, self._idle)
        self._all.add(child)
        return child

    def _order(
        self, order: bytes, number: int, descriptor: int | None = None, content: bytes = b""
    ) -> int:
        assert self._control is not None
        head = ORDER.pack(order, number)
        try:
            if descriptor is None:
                self._control.sendall(head + content)
            else:
                socket.send_fds(self._control, [head], [descriptor])
            answer: int = ANSWER.unpack(receive(self._control, ANSWER.size))[0]
        except BaseException:  # an interrupt, too: the next answer would be that of this order
            self._close()
            raise
        return answer

    def close(self) -> None:
        """Ends all children."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        mother = self._mother
        self.forget()
        if mother is not None:
            try:
                mother.wait(2)
            except subprocess.TimeoutExpired:
                mother.kill()
                mother.wait()

    def forget(self) -> None:
        """Closes what this process has of them; those of a parent go on working for it."""
        for child in self._all:
            child.connection.close()
        if self._control is not None:
            self._control.close()
        mother = self._mother
        self._forget()
        if mother is not None and mother.returncode is None and _made_in != os.getpid():
            mother.returncode = 0  # not a child of this process: nothing to wait for


def _started() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    if not sys.executable:
        raise OSError("this interpreter has no program of its own")
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            mother = subprocess.Popen(
                # -P: a module in the current folder must not stand in for one of Python's.
                [sys.executable, "-P", "-m", "dicomtorch.backends.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what dying libraries say there helps nobody
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except BaseException:
            ours.close()
            raise
    ours.settimeout(_START_SECONDS)
    return ours, mother


def _environment() -> dict[str, str]:
    """This process's, with the folders where it finds modules, and one thread for each child."""
    folders = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return _KEPT | os.environ | one | {"PYTHONPATH": os.pathsep.join(folders)}


_made_in = os.getpid()
children = Children()
atexit.register(children.close)


def _forget_those_of_the_parent() -> None:
    children.forget()
    global _made_in
    _made_in = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_those_of_the_parent)


def ended_by(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
