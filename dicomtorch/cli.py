"""The command line: arguments and printing, no logic of its own.

Exit codes: 0, all is well; 1, it ran and found something that somebody should look at (damaged files, images that
nothing decodes); 2, it could not do what was asked (wrong usage, or an error, in one line on stderr); 130, interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dicomtorch import __version__
from dicomtorch.errors import DicomTorchError, OptionError

EXIT_OK = 0
EXIT_FOUND_PROBLEMS = 1
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

_EXIT_CODES = """\
exit codes:
  0  all is well
  1  some files are damaged, or hold images that nothing installed decodes
  2  wrong usage, or an error (one line on stderr)
  130  interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments without the program's name; `None` for those of the process.

    Returns:
        The exit code.
    """
    arguments = make_parser().parse_args(argv)
    if hasattr(
        sys.stdout, "reconfigure"
    ):  # a name that the terminal cannot show must not end a scan
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except (DicomTorchError, OSError) as error:
        if getattr(arguments, "redact_paths", False):
            return _fail(
                f"{type(error).__name__} (its message may name paths; see it without --redact-paths)"
            )
        return _fail(" ".join(str(error).split()))
    return code


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="dicomtorch",
        description="Frames of DICOM files for PyTorch: look at what a folder holds before training on it.",
        epilog=f"examples:\n  dicomtorch scan studies/\n  dicomtorch show studies/ 17\n  dicomtorch demo\n\n"
        f"{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dicomtorch {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_scan, _add_show, _add_demo):
        add(commands)
    return parser


Commands = argparse._SubParsersAction  # argparse has no public name for it


def _command(
    commands: Commands[argparse.ArgumentParser], name: str, summary: str, examples: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=summary,
        epilog=f"examples:\n{examples}\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_scan(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "scan",
        "Read the headers below a folder and report what is there.",
        "  dicomtorch scan studies/\n"
        "  dicomtorch scan a/ b/ image.dcm --tags PatientSex BodyPartExamined\n"
        "  dicomtorch scan studies/ --json --redact-paths > report.json\n",
    )
    parser.add_argument("root", nargs="+", type=Path, help="a folder or a file")
    parser.add_argument(
        "--json", action="store_true", help="print JSON, with every file that is not a plain image"
    )
    parser.add_argument(
        "--tags",
        nargs="+",
        default=[],
        metavar="KEYWORD",
        help="DICOM keywords to read as well; reported is how many frames have a value, never the value",
    )
    parser.add_argument(
        "--redact-paths",
        action="store_true",
        help="number the files instead of naming them (folder names hold names)",
    )
    parser.set_defaults(run=_scan)


def _scan(arguments: argparse.Namespace) -> int:
    from dicomtorch.scanner import scan
    from dicomtorch.summary import format_summary, has_problems, summarize

    index, report = scan(arguments.root, tags=arguments.tags)
    summary = summarize(index, report, tags=arguments.tags, redact_paths=arguments.redact_paths)
    print(json.dumps(summary, indent=2) if arguments.json else format_summary(summary))
    return EXIT_FOUND_PROBLEMS if has_problems(summary) else EXIT_OK


def _add_show(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "show",
        "Show frames as training sees them: a slider and the mouse wheel go through them.",
        "  dicomtorch show studies/                          # all frames\n"
        "  dicomtorch show image.dcm 17                      # one frame\n"
        "  dicomtorch show ct/ --window 40 400 --output ct.png\n",
    )
    parser.add_argument("path", type=Path, help="a folder or a file")
    parser.add_argument(
        "frame", nargs="?", type=int, help="position in the index; all frames if left out"
    )
    parser.add_argument(
        "--window",
        nargs=2,
        type=float,
        metavar=("CENTER", "WIDTH"),
        help="instead of the file's own window",
    )
    parser.add_argument(
        "--output", type=Path, metavar="PNG", help="write a picture instead of opening a window"
    )
    parser.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> int:
    from dicomtorch.datasets import DicomFrames
    from dicomtorch.errors import import_optional

    pyplot = import_optional("matplotlib.pyplot", "view")
    frames = DicomFrames(arguments.path, window=arguments.window and tuple(arguments.window))
    figure = frames.show(arguments.frame)
    if arguments.output is not None:
        figure.savefig(arguments.output)
    elif figure.canvas.required_interactive_framework is None:
        raise OptionError(
            f"matplotlib's backend {pyplot.get_backend()!r} opens no window here; write a picture with "
            f"--output FILE.png, or name another backend in MPLBACKEND"
        )
    else:
        pyplot.show()
    return EXIT_OK


def _add_demo(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "demo",
        "Index the files that come with pydicom, load one epoch, write a contact sheet.",
        "  dicomtorch demo\n  dicomtorch demo --output /tmp/demo --workers 4\n",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=2,
        metavar="N",
        help="DataLoader workers; default: %(default)s",
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from dicomtorch.demo import run

    for line in run(arguments.output, num_workers=arguments.workers):
        print(line, flush=True)
    return EXIT_OK


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _fail(message: str, code: int = EXIT_ERROR) -> int:
    print(f"dicomtorch: {message}", file=sys.stderr)
    return code
