"""`dicomtorch scan` and `dicomtorch merge`: folders, inventories and parts of them to an index."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dicomtorch.cli.addresses import add_storage_options
from dicomtorch.cli.console import page
from dicomtorch.cli.options import (
    LOST,
    Commands,
    add_redact_paths,
    load_saved,
    new_command,
    open_source,
    report_code,
    source_path,
    whole_number,
)
from dicomtorch.errors import OptionError, SourceError, printable

if TYPE_CHECKING:
    from dicomtorch.index.frame_index import FrameIndex
    from dicomtorch.model.report import ScanReport


def add_scan(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = new_command(
        commands,
        "scan",
        "Read the headers below a folder and report what is there.",
        "  dicomtorch scan studies/\n"
        "  dicomtorch scan a/ b/ image.dcm --tags PatientSex BodyPartExamined\n"
        "  dicomtorch scan studies/ -o studies.index\n"
        "  dicomtorch scan s3://bucket/prefix --storage-option skip_signature=true\n"
        "  dicomtorch scan --inventory files.parquet --part 3/16 -o part-3.index\n"
        "  dicomtorch scan studies/ --json --redact-paths > report.json\n",
        found=LOST,
    )
    parser.add_argument(
        "root", nargs="*", type=source_path, help="folders, files, addresses, or one saved index"
    )
    add_storage_options(parser)
    parser.add_argument(
        "--inventory",
        type=Path,
        metavar="TABLE",
        help="read the files that a Parquet or CSV table names (path; size, mtime where known) and list nothing",
    )
    parser.add_argument(
        "--part",
        type=_part,
        metavar="K/N",
        help="read only the K-th of N parts, for a job array; `dicomtorch merge` puts them together",
    )
    _add_output(parser, needed=False)
    parser.add_argument(
        "--workers",
        type=whole_number,
        metavar="N",
        help="processes that read headers; default: one for each core if there are thousands of files",
    )
    parser.add_argument(
        "--tags",
        nargs="+",
        default=[],
        metavar="KEYWORD",
        help="DICOM keywords to read as well; reported is how many frames have a value, never the value",
    )
    _add_report(parser)
    parser.set_defaults(run=_scan, refuse=parser.error)


def add_merge(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = new_command(
        commands,
        "merge",
        "Make one index of several, as `dicomtorch scan --part` saved them.",
        "  dicomtorch merge part-*.index -o studies.index\n",
        found=LOST,
    )
    parser.add_argument("indexes", nargs="+", type=source_path, help="saved indexes")
    _add_output(parser, needed=True)
    _add_report(parser)
    parser.set_defaults(run=_merge, tags=[])


def _add_output(parser: argparse.ArgumentParser, *, needed: bool) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=needed,
        metavar="INDEX",
        help="save the index there, for DicomFrames(FrameIndex.load(INDEX)) and for every command",
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print JSON, with every file that is not a plain image"
    )
    add_redact_paths(parser)


def _part(text: str) -> tuple[int, int]:
    """A type of arguments: K/N."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no part; 1/16 is the first of sixteen")
    return int(found[1]), int(found[2])


def _scan(arguments: argparse.Namespace) -> int:
    if not arguments.root and arguments.inventory is None:
        arguments.refuse("name a folder, a file or a saved index, or an --inventory")
    if arguments.inventory is not None or arguments.part is not None:
        index, report = _scan_some(arguments)
    else:
        index, report = open_source(
            arguments, arguments.root, tags=arguments.tags, workers=arguments.workers
        )
        if arguments.output is not None:
            index.save(arguments.output)
    return _report(index, report, arguments)


def _scan_some(arguments: argparse.Namespace) -> tuple[FrameIndex, ScanReport]:
    """What is no whole folder is not kept in the cache, but where it is told."""
    from dicomtorch.scanner.open import scan_to

    if arguments.output is None:
        raise OptionError("--inventory and --part need -o INDEX, where the index is saved")
    roots = arguments.root
    return scan_to(
        arguments.output,
        (roots[0] if len(roots) == 1 else roots) or None,
        inventory=arguments.inventory,
        part=arguments.part,
        storage_options=arguments.storage_options,
        tags=arguments.tags,
        num_workers=arguments.workers,
    )


def _merge(arguments: argparse.Namespace) -> int:
    from dicomtorch.index.frame_index import FrameIndex

    indexes = []
    for path in arguments.indexes:
        index = load_saved(path)
        if index is None:
            raise SourceError(
                f"{printable(path)} is no saved index; `dicomtorch scan -o` saves one"
            )
        indexes.append(index)
    merged = FrameIndex.concat(indexes)
    merged.save(arguments.output)
    return _report(merged, merged.report(), arguments)


def _report(index: FrameIndex, report: ScanReport, arguments: argparse.Namespace) -> int:
    from dicomtorch.reports.summary import format_summary, has_problems, summarize

    summary = summarize(index, report, tags=arguments.tags, redact_paths=arguments.redact_paths)
    print(json.dumps(summary, indent=2) if arguments.json else format_summary(summary, page()))
    return report_code(index, report, has_problems(summary))
