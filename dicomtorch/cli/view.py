"""The command `view`: frames and samples in a browser."""

from __future__ import annotations

import argparse
import contextlib
import signal
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from dicomtorch.cli.options import (
    EXIT_OK,
    Commands,
    add_root,
    add_window,
    new_command,
    open_frames,
    positive_number,
    whole_number,
)

if TYPE_CHECKING:
    from dicomtorch.viewer.server import Viewing


def add_view(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `view`."""
    parser = new_command(
        commands,
        "view",
        "Show frames in a browser: what the files have, and beside it what training gets.",
        "  dicomtorch view studies/\n"
        "  dicomtorch view ct/ --window 40 400 --size 224 224\n"
        "  dicomtorch view studies/ --masks --labels liver kidney\n"
        "  dicomtorch view studies/ --port 8123     # over SSH, on your machine: ssh -L 8123:127.0.0.1:8123 HOST\n",
    )
    add_root(parser)
    add_window(parser)
    parser.add_argument(
        "--size",
        nargs=2,
        type=positive_number,
        metavar=("H", "W"),
        help="what training resizes images to, as in DicomFrames(size=...)",
    )
    parser.add_argument(
        "--values",
        choices=("display", "modality", "stored"),
        default="display",
        help="what training gets, as in DicomFrames(values=...); default: %(default)s",
    )
    parser.add_argument(
        "--masks", action="store_true", help="masks from the SEG and RTSTRUCT files below the roots"
    )
    parser.add_argument(
        "--labels", nargs="+", metavar="NAME", help="labels of the masks; default: all"
    )
    parser.add_argument(
        "--tags", nargs="+", default=[], metavar="KEYWORD", help="DICOM keywords to show as well"
    )
    parser.add_argument(
        "--show-paths", action="store_true", help="name the files (folder names hold names)"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.add_argument(
        "--port", type=whole_number, default=0, metavar="N", help="default: one that is free"
    )
    parser.add_argument(
        "--public-port",
        type=positive_number,
        metavar="N",
        help="the port that browsers ask for, where an SSH tunnel has another one",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="default: %(default)s"
    )
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        help="let --host be reached over the network: whoever has the address reads the images, unencrypted",
    )
    parser.set_defaults(run=_view)


def _view(arguments: argparse.Namespace) -> int:
    from dicomtorch.viewer.server import view

    dataset, more = _dataset(arguments)
    if arguments.allow_remote:
        warnings.warn(
            "images are sent unencrypted to whoever has the address; an SSH tunnel to 127.0.0.1 is safer",
            stacklevel=2,
        )
    viewing = view(
        dataset,
        host=arguments.host,
        port=arguments.port,
        public_port=arguments.public_port,
        allow_remote=arguments.allow_remote,
        show_paths=arguments.show_paths,
        browser=False if arguments.no_browser else None,
        **more,
    )
    with viewing:
        print(
            f"{viewing.url}\nCtrl-C ends it; whoever has the address sees the images.", flush=True
        )
        _wait(viewing)
    return EXIT_OK


def _wait(viewing: Viewing) -> None:
    """Until somebody wants it to end: Ctrl-C, or the system."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        viewing.wait()


def _dataset(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The dataset, and where its frames are in the index if nothing decodes some of them."""
    from dicomtorch.datasets.frames import DicomFrames
    from dicomtorch.scanner.scan import with_tags
    from dicomtorch.viewer.looked import decodable

    options: dict[str, Any] = {
        "window": arguments.window and tuple(arguments.window),
        "size": arguments.size and tuple(arguments.size),
        "values": arguments.values,
        "tags": arguments.tags,
    }
    index = with_tags(open_frames(arguments, arguments.root), arguments.tags)
    if arguments.masks:
        options |= {"masks": True, "unlabelled": "zero"}
        if arguments.labels:
            options["labels"] = arguments.labels
        return DicomFrames(index, **options), {}
    able = decodable(index)
    if able.all() or not able.any():
        return DicomFrames(index, **options), {}
    positions = np.flatnonzero(able)
    return DicomFrames(index.select(positions), **options), {"index": index, "positions": positions}
