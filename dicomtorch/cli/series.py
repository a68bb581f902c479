"""`dicomtorch series`: the volumes of each series as a table."""

from __future__ import annotations

import argparse
import json

from dicomtorch.cli.console import page
from dicomtorch.cli.options import (
    Commands,
    add_redact_paths,
    add_root,
    new_command,
    open_source,
    report_code,
)


def add_series(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = new_command(
        commands,
        "series",
        "Say what each series is: its volumes, what tells them apart, what differs, what is missing.",
        "  dicomtorch series studies/\n"
        "  dicomtorch series studies/ --json --redact-paths > series.json\n",
        found="slices are missing in a volume, or lie unevenly",
    )
    add_root(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with every volume")
    add_redact_paths(parser)
    parser.set_defaults(run=_series)


def _series(arguments: argparse.Namespace) -> int:
    from dicomtorch.reports.series import describe_series, format_series, to_json

    index, report = open_source(arguments, arguments.root)
    found = describe_series(index)
    if arguments.json:
        print(json.dumps(to_json(found, index, redact_paths=arguments.redact_paths), indent=2))
    elif found:
        print(format_series(found, index, redact_paths=arguments.redact_paths, page=page()))
    lost = any(one.missing or one.uneven for one in found)
    return report_code(index, report, lost)
