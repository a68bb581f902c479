"""Text of reports on a terminal, or in a pipe: tables and lines that fit, made with rich."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.measure import Measurement
    from rich.text import Text

Block: TypeAlias = "RenderableType"
"""What a report is made of: a line, a table, or anything else that rich draws."""

Row = Sequence[object]

_MOST_LISTED = 20
_HINT = "; --json lists them all"
_UNLIMITED = 100_000
_LEAST = 12  # characters that are left of what is shortened
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True, slots=True)
class Page:
    """Where a report is printed.

    Attributes:
        width: Columns of the terminal; `None`: as long as lines are, nothing is shortened (files, pipes).
        styled: Whether headings are bold and coloured.
    """

    width: int | None = None
    styled: bool = False

    def render(self, blocks: Iterable[Block]) -> str:
        """The blocks as text, with an empty line between two."""
        from rich.console import Console

        console = Console(
            file=io.StringIO(),
            width=self.width or _UNLIMITED,
            force_terminal=self.styled,
            color_system="standard" if self.styled else None,
            markup=False,
            highlight=False,
            emoji=False,
            legacy_windows=False,
        )
        texts = []
        for block in blocks:
            with console.capture() as captured:
                console.print(block)
            lines = captured.get().rstrip("\n").split("\n")
            texts.append("\n".join(line.rstrip() for line in lines))
        return "\n\n".join(texts)


PLAIN = Page()


def harmless(text: str) -> str:
    """Without the control characters that a value of a file may bring to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def middle(text: str, width: int) -> str:
    """The text, shortened in the middle if it is longer than `width`: what files differ in is often at the end."""
    if len(text) <= width:
        return text
    end = (width - 1) * 2 // 3
    return f"{text[: width - 1 - end]}{_ELLIPSIS}{text[len(text) - end :]}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line about something.

    Attributes:
        about: What, shortened in the middle where the line is too long.
        said: What is said of it, cut at the end.
        indent: Spaces in front.
        where: Stands behind `about` and is never cut.
    """

    about: str
    said: str
    indent: int = 2
    where: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width - self.indent
        about, said = harmless(self.about), harmless(self.said)
        said = f": {said}" if about and said else said
        room = max(width - len(said), width // 2) - len(self.where)
        text = f"{middle(about, max(room, _LEAST))}{self.where}{said}"
        yield _plain(" " * self.indent + _cut(text, width))


@dataclass(frozen=True, slots=True)
class Sentence:
    """Text that goes on in the next line, indented, where one is too short."""

    text: str
    indent: int = 2
    first: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        indent = self.indent + len(self.first)
        lines = Text(harmless(self.text)).wrap(console, max(options.max_width - indent, _LEAST))
        for number, line in enumerate(lines):
            start = " " * self.indent + self.first if number == 0 else " " * indent
            yield _plain(f"{start}{line.plain.rstrip()}")


@dataclass(frozen=True, slots=True)
class Heading:
    """A line above others."""

    text: str
    style: str = "bold"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(_cut(harmless(self.text), options.max_width), self.style, no_wrap=True)


@dataclass(frozen=True, slots=True)
class _Cell:
    """Text of a table, shortened in the middle where the table is too wide."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _plain(middle(self.text, options.max_width))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(min(len(self.text), _LEAST), len(self.text))


def table(header: Row, rows: Sequence[Row], most: int = _MOST_LISTED, hint: str = _HINT) -> Block:
    """Columns, text to the left and numbers to the right; long tables end with what was left out, and `hint`."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(header))
    for number, name in enumerate(header):
        numeric = bool(rows) and isinstance(rows[0][number], int)
        drawn.add_column(
            Text(str(name), "bold"), justify="right" if numeric else "left", no_wrap=numeric
        )
    for row in rows[:most]:
        drawn.add_row(
            *(Text(f"{c:,}") if isinstance(c, int) else _Cell(harmless(str(c))) for c in row)
        )
    return group([drawn, *_more(len(rows), most, hint)])


def listed(heading: str, lines: Sequence[Block], *, style: str = "bold") -> Block:
    """A heading with lines below it; of many lines the first, and how many more there are."""
    return group(
        [
            Heading(heading, style),
            *lines[:_MOST_LISTED],
            *_more(len(lines), _MOST_LISTED, _HINT, indent=2),
        ]
    )


def _more(count: int, most: int, hint: str, indent: int = 0) -> list[Block]:
    """A line that says how many were left out, if any were."""
    return [Sentence(f"and {count - most:,} more{hint}", indent)] if count > most else []


def group(blocks: Sequence[Block]) -> Block:
    """Blocks without an empty line between them."""
    from rich.console import Group

    return Group(*blocks)


def _plain(text: str) -> Text:
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ignore", end="\n")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}{_ELLIPSIS}"
