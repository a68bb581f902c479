"""Calls functions in a process of its own: `python -m dicomtorch.scanner.child`, started and fed by `pool`.

Nothing of the program that scans is imported here, so that a script needs no guard. The process ends when its standard
input does, in the middle of a call too, so that it outlives nobody.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import sys
import threading
from typing import IO, Any

_LENGTH = struct.Struct("<Q")
_GREETING = b"dicomtorch scan worker\n"


def packed(message: Any) -> bytes:
    """A message as bytes."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def send(pipe: IO[bytes], data: bytes) -> None:
    """Writes a message that is packed."""
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message.

    Raises:
        EOFError: The other side is gone.
    """
    return pickle.loads(_message(pipe))


def _message(pipe: IO[bytes]) -> bytes:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _fetch(pipe: IO[bytes], messages: queue.SimpleQueue[bytes]) -> None:
    """Takes messages off a pipe as they come, so that who writes them never waits for who reads what is answered."""
    with contextlib.suppress(Exception):
        while True:
            messages.put(_message(pipe))
    os._exit(0)  # the parent is gone: nothing to tidy up, and nobody reads what is answered


def greeted(pipe: IO[bytes]) -> None:
    """Passes over whatever the interpreter of a child printed before `main`, as a `sitecustomize` may.

    Raises:
        EOFError: The other side is gone.
    """
    for line in pipe:
        if line.endswith(_GREETING):
            return
    raise EOFError


def main() -> None:
    """Answers each call, a function with its arguments, with what it returns or raises, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and closes the pipe
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get into the answers
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    try:
        answers.write(_GREETING)
        answers.flush()
        threading.Thread(target=_fetch, args=(requests, messages), daemon=True).start()
        while True:
            function, arguments = pickle.loads(messages.get())
            try:
                answer = True, function(*arguments)
            except Exception as error:
                answer = False, error
            send(answers, packed(answer))
    finally:  # the parent makes what is not answered; an interpreter that tidied up would wait for `_fetch`, and abort
        os._exit(0)


if __name__ == "__main__":
    main()
