"""Arguments and exit codes that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicomtorch.cli.addresses import add_storage_options
from dicomtorch.cli.console import say
from dicomtorch.errors import SourceError

if TYPE_CHECKING:
    from dicomtorch.index.frame_index import FrameIndex
    from dicomtorch.model.report import ScanReport

EXIT_OK = 0
EXIT_FOUND_PROBLEMS = 1
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
LOST = "some files are damaged, or hold images that nothing installed decodes"
PRIVATE = "a message may name paths; see it without --redact-paths"
Commands = argparse._SubParsersAction  # argparse has no public name for it


def exit_codes(found: str) -> str:
    """The last lines of a help text; `found` says what 1 means, "" that it does not occur."""
    codes = [(0, "all is well"), (1, found), (2, "wrong usage, or an error (one line on stderr)")]
    lines = [
        f"  {code}  {meaning}\n" for code, meaning in (*codes, (130, "interrupted")) if meaning
    ]
    return f"exit codes:\n{''.join(lines)}"


def new_command(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    summary: str,
    examples: str,
    found: str = "",
) -> argparse.ArgumentParser:
    """A command; `found` says when it exits with 1."""
    return commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=summary,
        epilog=f"examples:\n{examples}\n{exit_codes(found)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_root(parser: argparse.ArgumentParser) -> None:
    """Adds what a command reads."""
    parser.add_argument(
        "root", nargs="+", type=source_path, help="folders, files, addresses, or one saved index"
    )
    add_storage_options(parser)


def add_redact_paths(parser: argparse.ArgumentParser) -> None:
    """Adds `--redact-paths`."""
    parser.add_argument(
        "--redact-paths",
        action="store_true",
        help="number the files instead of naming them (folder names hold names)",
    )


def add_window(parser: argparse.ArgumentParser) -> None:
    """Adds `--window CENTER WIDTH`."""
    parser.add_argument(
        "--window",
        nargs=2,
        type=float,
        metavar=("CENTER", "WIDTH"),
        help="instead of the file's own window",
    )


def load_saved(path: str) -> FrameIndex | None:
    """The index that `FrameIndex.save` wrote to `path`, if that is one."""
    from dicomtorch.index.frame_index import FrameIndex

    # Folders of images may have a manifest of their own.
    saved = all(Path(path, name).is_file() for name in ("manifest.json", "frames.arrow"))
    return FrameIndex.load(path) if saved else None


def open_source(
    arguments: argparse.Namespace,
    roots: Sequence[str],
    *,
    tags: Sequence[str] = (),
    workers: int | None = None,
) -> tuple[FrameIndex, ScanReport]:
    """A saved index, or the index of folders and files, which is kept and refreshed as `DicomFrames` does.

    Args:
        arguments: Of the command, which say how addresses are asked.
        roots: What to read.
        tags: Further keywords.
        workers: Processes that read headers.
    """
    from dicomtorch.scanner import open as opening
    from dicomtorch.scanner.scan import with_tags

    options: Mapping[str, Any] | None = arguments.storage_options
    index = load_saved(roots[0]) if len(roots) == 1 else None
    if index is not None:
        if options is not None:
            index = with_tags(index, (), storage_options=options)
        return index, index.report()
    source = roots[0] if len(roots) == 1 else list(roots)
    return opening.open_source(source, tags=tags, num_workers=workers, storage_options=options)


def open_frames(arguments: argparse.Namespace, roots: Sequence[str]) -> FrameIndex:
    """As `open_source`, for what needs a frame.

    Raises:
        SourceError: There is none.
    """
    from dicomtorch.reports.text import nothing_found

    index, report = open_source(arguments, roots)
    if not len(index):
        raise SourceError(f"{nothing_found(report)}; `dicomtorch scan` gives the reason for each")
    return index


def report_code(index: FrameIndex, report: ScanReport, found_problems: bool) -> int:
    """The exit code of a report; one of nothing says so."""
    if not len(index):
        from dicomtorch.reports.text import nothing_found

        say(nothing_found(report))
        return EXIT_FOUND_PROBLEMS
    return EXIT_FOUND_PROBLEMS if found_problems else EXIT_OK


def source_path(text: str) -> str:
    """A type of arguments: a path as it was written; an empty one, as of a variable that is not set, is refused."""
    if not text:
        raise argparse.ArgumentTypeError(
            "the path is empty; name a folder or a file, or . for this folder"
        )
    return text


def whole_number(text: str, lowest: int = 0) -> int:
    """A type of arguments: a whole number from `lowest` upwards."""
    if not text.isdecimal() or int(text) < lowest:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {lowest} upwards")
    return int(text)


def positive_number(text: str) -> int:
    """A type of arguments: a whole number from 1 upwards."""
    return whole_number(text, 1)
