"""The command line: arguments and printing, no logic of its own.

Exit codes: 0, all is well; 1, it ran and found something that somebody should look at (each command's help says what);
2, it could not do what was asked (wrong usage, or an error, in one line on stderr); 130, interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import NoReturn

from dicomtorch._version import __version__
from dicomtorch.cli.commands import add_commands
from dicomtorch.cli.console import say
from dicomtorch.cli.interrupts import interrupts
from dicomtorch.cli.options import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_OK, PRIVATE, exit_codes
from dicomtorch.errors import DicomTorchError, redacting


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments without the program's name; `None` for those of the process.

    Returns:
        The exit code.
    """
    _occupy_closed_descriptors()
    arguments = make_parser().parse_args(argv)
    _tell_of_crashes()
    if hasattr(sys.stdout, "reconfigure"):
        # A name that the terminal cannot show must not end a scan.
        sys.stdout.reconfigure(errors="backslashreplace")
    with interrupts() as found:
        try:
            return _run(arguments)
        except KeyboardInterrupt:
            return _fail("interrupted", EXIT_INTERRUPTED)
        except Exception:
            if found.came:  # what it fell into made another error of it
                return _fail("interrupted", EXIT_INTERRUPTED)
            raise


def _occupy_closed_descriptors() -> None:
    """Has no file get the number of a standard stream that is closed: libraries print to that number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _tell_of_crashes() -> None:
    """Has a native decoder that ends this process leave the lines of Python that called it, on stderr."""
    if not faulthandler.is_enabled():
        with contextlib.suppress(
            AttributeError, OSError, RuntimeError, ValueError
        ):  # no stderr, or one without a descriptor
            faulthandler.enable()


def _run(arguments: argparse.Namespace) -> int:
    redact = arguments.redact_paths = getattr(arguments, "redact_paths", False) or redacting()
    try:
        with _redacted(redact), _one_line_each(redact):
            code: int = arguments.run(arguments)
        if sys.stdout is not None:  # closed by whoever started this
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except (DicomTorchError, OSError) as error:
        ours = isinstance(error, DicomTorchError)  # has no path in it then
        return _fail(str(error) if ours or not redact else f"{type(error).__name__} ({PRIVATE})")
    return code


class _Parser(argparse.ArgumentParser):
    """One whose messages do not repeat what may be a key: the value of an option that was misspelt."""

    def error(self, message: str) -> NoReturn:
        if not message.startswith("argument --storage-option"):  # says no value itself
            message = re.sub(r"=.*", "=...", message, flags=re.DOTALL)
        super().error(message)


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser: argparse.ArgumentParser = _Parser(
        prog="dicomtorch",
        description="Frames of DICOM files for PyTorch: look at what a folder holds before training on it.",
        epilog="examples:\n  dicomtorch scan studies/\n  dicomtorch doctor studies/\n"
        f"  dicomtorch show studies/ 17\n\n{exit_codes('something was found; COMMAND --help says what')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dicomtorch {__version__}")
    add_commands(parser.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    return parser


@contextlib.contextmanager
def _redacted(redact: bool) -> Iterator[None]:
    """Makes `--redact-paths` the rule for all that is said meanwhile, here and in child processes."""
    before = os.environ.get("DICOMTORCH_REDACT")
    if redact:
        os.environ["DICOMTORCH_REDACT"] = "1"
    try:
        yield
    finally:
        if redact and before is None:
            del os.environ["DICOMTORCH_REDACT"]
        elif before is not None:
            os.environ["DICOMTORCH_REDACT"] = before


@contextlib.contextmanager
def _one_line_each(redact: bool) -> Iterator[None]:
    """Shows warnings and log messages as errors are shown, each once, without the place in the source."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        text = PRIVATE if redact else str(message)
        if text not in said:
            said.add(text)
            say(f"warning: {text}")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show(record.getMessage())

    handler, logger = Handler(), logging.getLogger("dicomtorch")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    finally:
        logger.removeHandler(handler)


def _fail(message: str, code: int = EXIT_ERROR) -> int:
    say(message)
    return code
