"""Tables of README and documentation, written from `results/*.json`: `python -m benchmarks.tables`.

A page has `<!-- results: NAME / TITLE -->` before and `<!-- end of results -->` after a table; what lies between is
written by this program from the table of that title in `results/NAME.json`, with the machine, the date and the versions
below it, unless `| no caption` stands after the title. `| columns: A; B` and `| rows: C; D` may stand there too, in the
order in which they are shown. With `--check` nothing is written, and a page that differs is named (exit code 1).
"""

from __future__ import annotations

import argparse
import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
CHART = ROOT / "docs" / "images" / "benchmark.svg"
OURS = "dicomtorch"
BLOCK = re.compile(r"(<!-- results: (.+?) -->\n)(.*?)(<!-- end of results -->)", re.DOTALL)
SHOWN = {
    "npy": "converted to `.npy` before",
    "png": "converted to 8-bit PNG before",
    "MONAI": "MONAI `LoadImage`",
}
"""Names of competitors as a reader knows them."""


@dataclass(frozen=True)
class Table:
    """Cells as they were printed; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def chosen(self, columns: list[str], rows: list[str]) -> Table:
        """Some columns and rows, in this order; none means all.

        Raises:
            KeyError: There is no such one.
        """
        names = columns or self.columns[1:]
        numbers = [0, *(self._at(self.columns, name) for name in names)]
        keys = [row[0] for row in self.rows]
        lines = [self.rows[self._at(keys, name)] for name in rows] if rows else self.rows
        return Table(
            self.title,
            [self.columns[k] for k in numbers],
            [[row[k] for k in numbers] for row in lines],
        )

    def _at(self, names: list[str], name: str) -> int:
        if name not in names:
            raise KeyError(f"{self.title!r} has no {name!r}, it has {names}")
        return names.index(name)


def parsed(text: str) -> list[Table]:
    """The Markdown tables of what a program printed, each with the heading or the line before it."""
    found, title, lines = [], "", text.splitlines()
    k = 0
    while k < len(lines):
        line = lines[k].strip()
        if line.startswith("|") and k + 1 < len(lines) and set(lines[k + 1]) <= set("|-: "):
            end = k + 2
            while end < len(lines) and lines[end].startswith("|"):
                end += 1
            rows = [_cells(one) for one in lines[k + 2 : end]]
            found.append(Table(title, _cells(line), rows))
            k = end
            continue
        if line:
            title = line.lstrip("# ").rstrip(":.")
        k += 1
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]


def load(name: str) -> dict[str, Any]:
    """One file of results.

    Raises:
        FileNotFoundError: There is none of that name.
    """
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def table_of(name: str, title: str) -> Table:
    """A table of a file.

    Raises:
        KeyError: The file has none of that title.
    """
    tables = {one["title"]: one for one in load(name)["tables"]}
    if title not in tables:
        raise KeyError(f"results/{name}.json has no table {title!r}, it has {sorted(tables)}")
    return Table(**tables[title])


def markdown(table: Table) -> str:
    """The table; rows of ours are bold."""
    lines = [f"| {' | '.join(table.columns)} |", "|" + "---|" * len(table.columns)]
    for row in table.rows:
        bold = row[0].startswith(OURS)
        cells = [SHOWN.get(row[0], row[0]), *row[1:]]
        lines.append(
            f"| {' | '.join(f'**{cell}**' if bold and cell else cell for cell in cells)} |"
        )
    return "\n".join(lines)


def caption(name: str) -> str:
    """Where and when it was measured."""
    found = load(name)
    machine, versions = found["machine"], found["versions"]
    used = ", ".join(f"{what} {number}" for what, number in versions.items() if number)
    return (
        f"<sub>[{found['date']}](/benchmarks/results/{name}.json), {machine['usable_cores']} cores, {machine['cpu']}, "
        f"{machine['system']}; {used}.</sub>"
    )


def written(page: str, folder: str = "") -> str:
    """A page with the tables that its marks ask for.

    Args:
        page: Its text.
        folder: What leads from the page to the top of the repository, as in `../../`.
    """

    def block(match: re.Match[str]) -> str:
        where, *options = [part.strip() for part in match[2].split("|")]
        name, _, title = (part.strip() for part in where.partition(" / "))
        asked = dict(option.split(": ", 1) for option in options if ": " in option)
        columns, rows = (_listed(asked.get(key, "")) for key in ("columns", "rows"))
        table = table_of(name, title).chosen(columns, rows)
        said = "" if "no caption" in options else "\n\n" + caption(name).replace("(/", f"({folder}")
        return f"{match[1]}{markdown(table)}{said}\n{match[4]}"

    return BLOCK.sub(block, page)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def chart(table: Table) -> str:
    """The main table as bars on a logarithmic scale, SVG: a group for each case, a bar for each row."""
    from math import log2

    cases, wide, bar, gap = table.columns[1:], 760, 15, 30
    high = sum(
        gap + bar * sum(_number(row[k]) > 0 for row in table.rows) for k in range(1, len(cases) + 1)
    )
    values = [_number(cell) for row in table.rows for cell in row[1:]]
    low, top = min(v for v in values if v) / 1.2, max(values)
    parts, y = [], 0
    for k, case in enumerate(cases, 1):
        parts.append(f'<text x="4" y="{y + 22}" font-weight="bold">{html.escape(case)}</text>')
        y += gap
        for row in sorted(table.rows, key=lambda row: -_number(row[k])):
            value = _number(row[k])
            if not value:
                continue
            long = (wide - 320) * log2(value / low) / log2(top / low)
            color = "#d9742b" if row[0].startswith(OURS) else "#8a96a3"
            label = html.escape(SHOWN.get(row[0], row[0]).replace("`", ""))
            parts.append(
                f'<text x="258" y="{y + 11}" text-anchor="end">{label}</text>'
                f'<rect x="264" y="{y + 1}" width="{long:.1f}" height="{bar - 3}" fill="{color}"/>'
                f'<text x="{268 + long:.1f}" y="{y + 11}">{row[k]}</text>'
            )
            y += bar
    title = f"{table.title}, logarithmic"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high + 34}" role="img" font-family="sans-serif" '
        f'font-size="11" fill="#1c2733"><title>{html.escape(title)}</title><rect width="{wide}" height="{high + 34}" '
        f'fill="#ffffff"/>{"".join(parts)}<text x="4" y="{high + 24}">{html.escape(title)}</text></svg>\n'
    )


def _number(cell: str) -> float:
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        return 0.0


def pages() -> list[Path]:
    """Pages that have marks."""
    found = [
        ROOT / "README.md",
        Path(__file__).parent / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    return [
        path
        for path in found
        if "generated" not in path.parts and BLOCK.search(path.read_text(encoding="utf-8"))
    ]


def wanted() -> dict[Path, str]:
    """Each file that comes of the results, with its text."""
    texts = {}
    for path in pages():
        folder = "../" * (len(path.relative_to(ROOT).parts) - 1)
        texts[path] = written(path.read_text(encoding="utf-8"), folder)
    return {**texts, CHART: chart(table_of(*MAIN))}


MAIN = ("loading", "Shuffled epochs, frames/s in multiples of plain pydicom at its best")


def main() -> int:
    """Writes what differs, or names it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    differing = [
        path
        for path, text in wanted().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    texts = wanted()
    for path in differing:
        print(path.relative_to(ROOT), "differs" if check else "is written")
        if not check:
            path.write_text(texts[path], encoding="utf-8")
    return int(check and bool(differing))


if __name__ == "__main__":
    raise SystemExit(main())
