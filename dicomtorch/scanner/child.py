"""Calls functions in a process of its own: `python -m dicomtorch.scanner.child`, started and fed by `pool`.

Nothing of the program that scans is imported here, so that a script needs no guard. The process ends when its standard
input does, so that it outlives nobody.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
from typing import IO, Any

_LENGTH = struct.Struct("<Q")
_GREETING = b"dicomtorch scan worker\n"


def send(pipe: IO[bytes], message: Any) -> None:
    """Writes a message."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message.

    Raises:
        EOFError: The other side is gone.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


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
    try:
        answers.write(_GREETING)
        answers.flush()
        while True:
            function, arguments = receive(requests)
            try:
                answer = True, function(*arguments)
            except Exception as error:
                answer = False, error
            send(answers, answer)
    except (EOFError, BrokenPipeError):
        pass
    os._exit(0)  # nothing to tidy up, and nothing to flush into a pipe that nobody reads


if __name__ == "__main__":
    main()
