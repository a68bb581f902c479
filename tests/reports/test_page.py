"""Text that fits the terminal, and is whole where it is piped."""

from __future__ import annotations

import re

import pytest

from dicomtorch.reports.page import (
    PLAIN,
    Heading,
    Line,
    Page,
    Sentence,
    group,
    listed,
    middle,
    table,
)

LONG = "studies/patient-with-a-long-name/series-7/2026-11-26/IM-0001-0042.dcm"
NARROW = Page(60)


def widths(text: str) -> list[int]:
    return [len(line) for line in text.split("\n")]


@pytest.mark.parametrize("width", range(1, 80))
def test_the_middle_goes_first(width: int) -> None:
    short = middle(LONG, width)
    assert len(short) == min(width, len(LONG))
    if 10 < width < len(LONG):
        start, end = short.split("\N{HORIZONTAL ELLIPSIS}")
        assert LONG.startswith(start)
        assert LONG.endswith(end)
        assert len(end) > len(start)


def test_tables() -> None:
    rows = [("JPEG Baseline", 1234, "imagecodecs"), ("RLE Lossless", 5, "nothing")]
    assert PLAIN.render([table(("Transfer syntax", "frames", "decoded by"), rows)]) == (
        "Transfer syntax  frames  decoded by\n"
        "JPEG Baseline     1,234  imagecodecs\n"
        "RLE Lossless          5  nothing"
    )


def test_a_table_that_is_too_wide_keeps_its_numbers() -> None:
    rows = [(LONG, 123456789, LONG), ("short", 5, "short")]
    text = NARROW.render([table(("File", "frames", "Name"), rows)])
    assert max(widths(text)) <= 60
    assert "123,456,789" in text
    assert text.count("0042.dcm") == 2
    assert LONG in PLAIN.render([table(("File", "frames", "Name"), rows)])


def test_long_tables_and_lists_say_what_they_leave_out() -> None:
    rows = [(str(k), k) for k in range(25)]
    assert PLAIN.render([table(("a", "b"), rows)]).endswith("\nand 5 more; --json lists them all")
    assert PLAIN.render([table(("a", "b"), rows, most=24, hint="")]).endswith("\nand 1 more")
    text = PLAIN.render([listed("Damaged:", [Line(name, "x") for name, _ in rows])])
    assert text.startswith("Damaged:\n  0: x\n")
    assert text.endswith("\n  and 5 more; --json lists them all")


def test_a_finding_is_one_line() -> None:
    line = Line(LONG, "the file ends inside its header: the element at offset 2394 does not fit")
    text = NARROW.render([line])
    assert widths(text) == [60]
    assert re.match(r"  studies/\S*\N{HORIZONTAL ELLIPSIS}\S*0042\.dcm: the file ends", text)
    assert PLAIN.render([line]) == f"  {line.about}: {line.said}"
    assert NARROW.render([Line("a.dcm", "short")]) == "  a.dcm: short"
    text = NARROW.render([Line(LONG, "damaged " * 9, where=", frame 3 (imagecodecs)")])
    assert widths(text) == [60]
    assert ", frame 3 (imagecodecs): " in text
    assert NARROW.render([Line("a.dcm", "", 7, " and 3 more")]) == "       a.dcm and 3 more"


def test_sentences_go_on_in_the_next_line() -> None:
    text = NARROW.render([Sentence("use window=series, " * 8, 4, "-> ")])
    lines = text.split("\n")
    assert max(widths(text)) <= 60
    assert lines[0].startswith("    -> use")
    assert all(line.startswith("       ") for line in lines[1:])
    assert len(lines) > 2
    assert "\n" not in PLAIN.render([Sentence("use window=series, " * 80)])


def test_only_a_styled_page_has_colours() -> None:
    block = group([Heading("Problems", "bold red"), table(("a", ""), [("b", 1)])])
    assert "\x1b" not in PLAIN.render([block]) + NARROW.render([block])
    assert "\x1b[1;31mProblems\x1b[0m" in Page(60, styled=True).render([block])


def test_what_files_say_is_harmless_and_no_markup() -> None:
    text = Page(60, styled=True).render(
        [Line("\x1b[2J[red]a", "[bold]x[/bold]"), table(("n",), [("\x1b]0;",)]), Heading("\x1b[1m")]
    )
    assert "?[2J[red]a: [bold]x[/bold]" in text
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text
