"""The rooms of the package: what each is for, and which others it may import. CONTRIBUTING.md shows this table.

`python -m tests.support.rooms` writes the table into CONTRIBUTING.md and draws `docs/rooms.svg`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "CONTRIBUTING.md"
PICTURE = REPOSITORY / "docs" / "rooms.svg"


class Room(NamedTuple):
    """One folder of the package; `may_import` besides `errors` and `_version`, which every room may."""

    sentence: str
    may_import: frozenset[str]


def _room(sentence: str, may_import: str = "") -> Room:
    return Room(sentence, frozenset(may_import.split()))


ROOMS: dict[str, Room] = {
    "errors": _room("the exception tree, optional imports, names of files that are safe to print"),
    "storage": _room("bytes of files, wherever they are; knows no DICOM"),
    "pictures": _room("arrays and tables to figures and HTML"),
    "model": _room(
        "frozen values that rooms hand to each other: syntaxes, limits, image, frame, options, report, schema"
    ),
    "dicom": _room("bytes of one file to elements, and to where its frames are", "model"),
    "backends": _room("the code stream of one frame to stored values", "model"),
    "pixels": _room(
        "stored values to tensors, one frame or a batch on its device, and the memory they lie in",
        "model",
    ),
    "index": _room(
        "the table with one row a frame: build, select, join, split, keep", "model pictures"
    ),
    "series": _room("which frames belong together in space and time", "index"),
    "scanner": _room(
        "files to rows of an index; `resolve/` says which value of a header holds for which frame",
        "model dicom storage index",
    ),
    "reader": _room(
        "rows to stored values and tensors; the way of a frame, written once",
        "model storage dicom backends pixels index series",
    ),
    "masks": _room(
        "objects that say which pixels are what: SEG, RTSTRUCT, tables; polygons, placing, reading",
        "model storage dicom index series reader",
    ),
    "batches": _room(
        "which samples in which order, samples to batches, the threads that make them",
        "model pixels index reader",
    ),
    "viewer": _room(
        "frames, samples and batches in a browser or a notebook",
        "model pixels index series reader masks batches",
    ),
    "datasets": _room(
        "what a user holds: frames, clips, volumes, crops",
        "model backends pixels index series scanner reader batches pictures masks viewer",
    ),
    "integrations": _room(
        "other libraries' shapes of samples, loaders, executors",
        "model index reader batches datasets",
    ),
    "reports": _room(
        "what to know about an index before training on it",
        "model backends pictures index series reader batches datasets masks",
    ),
    "cli": _room(
        "arguments, printing, exit codes",
        "model pictures index scanner datasets reports viewer",
    ),
}
"""From the ground up: a room imports only from rooms above it in this table, and of these only what is named."""

_MARK = "<!-- rooms: written by `python -m tests.support.rooms` -->"


def table() -> str:
    """The rooms as a table in Markdown."""
    lines = ["| Room | What it is for | May import (besides `errors`) |", "|---|---|---|"]
    for name, room in ROOMS.items():
        names = ", ".join(f"`{other}`" for other in ROOMS if other in room.may_import)
        lines.append(f"| `{name}` | {room.sentence} | {names or '-'} |")
    return "\n".join(lines)


def page_with_table(page: str) -> str:
    """The text of `page` with the table between its marks made anew."""
    return re.sub(
        rf"({re.escape(_MARK)}\n).*?(\n{re.escape(_MARK)})",
        lambda found: found.group(1) + table() + found.group(2),
        page,
        flags=re.DOTALL,
    )


def levels() -> dict[str, int]:
    """How far above the ground each room lies: one more than the highest that it may import."""
    found: dict[str, int] = {}
    for name, room in ROOMS.items():
        found[name] = 1 + max((found[other] for other in room.may_import), default=-1)
    return found


def picture() -> str:
    """The rooms as boxes, floor by floor, with a line to each room that they may import (SVG)."""
    floors: dict[int, list[str]] = {}
    for name, level in levels().items():
        floors.setdefault(level, []).append(name)
    width, height, across, up = 96, 34, 124, 84
    top, widest = max(floors), max(map(len, floors.values()))
    place = {
        name: (
            20 + (widest - len(names)) * across / 2 + number * across,
            20 + (top - level) * up,
        )
        for level, names in floors.items()
        for number, name in enumerate(names)
    }
    lines, boxes = [], []
    for name, room in ROOMS.items():
        x, y = place[name]
        for other in sorted(room.may_import):
            a, b = place[other]
            lines.append(
                f'<path d="M{x + width / 2:g} {y + height} C{x + width / 2:g} {(y + b) / 2 + height:g} '
                f'{a + width / 2:g} {(y + b) / 2:g} {a + width / 2:g} {b:g}"/>'
            )
        boxes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{height}" rx="5"/>'
            f'<text x="{x + width / 2:g}" y="{y + 22:g}">{name}</text>'
        )
    size = f"{40 + widest * across - (across - width)} {40 + top * up + height}".split()
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" '
        f'font-family="sans-serif" font-size="14" text-anchor="middle">\n'
        f"<title>Rooms of dicomtorch: each imports only from rooms below it</title>\n"
        f'<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<g fill="none" stroke="#7a8ba3" stroke-opacity=".55">\n{body}\n</g>\n'
        f'<g fill="#eef3fa" stroke="#33506f">\n'
        + "\n".join(boxes).replace("<text", '<text fill="#14253a" stroke="none"')
        + "\n</g>\n</svg>\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
