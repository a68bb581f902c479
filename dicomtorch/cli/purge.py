"""`dicomtorch purge`: removes what is kept of a folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dicomtorch.cli.options import EXIT_OK, Commands, new_command, source_path


def add_purge(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = new_command(
        commands,
        "purge",
        "Remove what is kept of folders: indexes, unfinished scans, and frames if their cache is named.",
        "  dicomtorch purge studies/ --dry-run\n"
        "  dicomtorch purge studies/ --cache /scratch/decoded\n",
    )
    parser.add_argument(
        "root",
        nargs="+",
        type=source_path,
        help="folders, files or addresses; indexes of folders in them and around them go too",
    )
    parser.add_argument(
        "--cache",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="folders given as cache= or as range_cache: all frames in them go, of whatever files",
    )
    parser.add_argument(
        "--cache-dir", type=Path, metavar="FOLDER", help="as DicomFrames(cache_dir=) has it"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and keep it")
    parser.set_defaults(run=_purge)


def _purge(arguments: argparse.Namespace) -> int:
    from dicomtorch.errors import printable
    from dicomtorch.index.purge import kept_frames, kept_of, remove
    from dicomtorch.scanner.place import split_query

    kept = []
    for root in arguments.root:
        name = os.fsdecode(split_query(os.fsencode(root))[0])
        kept += kept_of(name, arguments.cache_dir)
    for folder in arguments.cache:
        kept += kept_frames(folder)
    found = {each.folder: each for each in kept}
    if not arguments.dry_run:
        remove(found.values())
    for each in found.values():
        print(f"{each.kind}: {printable(each.folder)} ({each.size:,} bytes)")
    if not found:
        print("nothing is kept")
    elif arguments.dry_run:
        print("nothing was removed; without --dry-run it is")
    return EXIT_OK
