"""What is printed, and how wide: reports on stdout, one line on stderr for what went wrong."""

from __future__ import annotations

import os
import shutil
import sys

from dicomtorch.reports.page import Page, harmless


def page() -> Page:
    """The terminal that stdout is, with its width; into a pipe or a file lines are as long as they are.

    `COLUMNS` sets the width of either, `NO_COLOR` keeps a terminal plain.
    """
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if on_terminal or "COLUMNS" in os.environ else None
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") in ("dumb", "")
    return Page(width, styled=on_terminal and not plain)


def say(message: str) -> None:
    """One line on stderr, whatever a file may have brought into it."""
    if sys.stderr is None:  # closed by whoever started this; `print` would take stdout
        return
    print("dicomtorch:", harmless(" ".join(message.split())), file=sys.stderr)
