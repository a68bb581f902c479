"""Which places of the DICOM standard a text names, as "PS3.3 C.7.6.3.1.2", "PS3.5 sections 7.1 and 7.5", "C.11.1.1"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_PART = re.compile(r"\bPS\s?3(?:\.(\d+)\b)?|\b(T\.\d{2,3}|ISO(?:/IEC)? \d+)\b")
_KIND = r"(?:(?P<kind>sections?|annex(?:es)?|tables?|TID|CID)\s+)?"
_LETTERED = r"[A-Z](?:\.\d{1,2})+[a-z]?(?:-\d+)?(?![\w-])"
_LABEL = rf"(?P<label>{_LETTERED}|[A-Z]-\d+|[A-Z](?![\w.])|\d+(?:\.\d+)*(?:-\d+)?(?![\w-]))"
_FIRST = re.compile(rf"\s+{_KIND}{_LABEL}")
_NEXT = re.compile(rf"(?:\s*\([^()]*\))?(?:,\s+|;\s+|,?\s+(?:and|to|or)\s+){_KIND}{_LABEL}")
_ALONE = re.compile(rf"(?<![\w.]){_LETTERED}")
_PARAGRAPHS = re.compile(r"\n(?:[ \t]*(?:#:?|//|\*)?[ \t]*\n)+")
_LINE_STARTS = re.compile(r"\n[ \t]*(?:#:?|//|\*)?[ \t]*")
_KINDS = {
    "annexes": "annex",
    "tables": "table",
    "TID": "TID",
    "CID": "CID",
    "annex": "annex",
    "table": "table",
}


class Citation(NamedTuple):
    """Of PS3.`part` a section "C.11.1", or "annex A", "table A-1", "TID 1500", or "" for the whole part."""

    part: int
    place: str

    def __str__(self) -> str:
        return f"PS3.{self.part} {self.place}".rstrip()


def citations(text: str) -> Iterator[Citation]:
    """The places that `text` names, in its order; a section alone is one of the part named last in its paragraph.

    Raises:
        ValueError: "PS 3" is written otherwise than "PS3.N".
    """
    for paragraph in _PARAGRAPHS.split(text):
        yield from _of_paragraph(_LINE_STARTS.sub(" ", paragraph))


def _of_paragraph(text: str) -> Iterator[Citation]:
    """Those of a text without line ends; PS3.3 where no part is named, and none of other standards."""
    standard: int | None = 3
    position = 0
    while True:
        part, alone = _PART.search(text, position), _ALONE.search(text, position)
        if part and (not alone or part.start() <= alone.start()):
            standard = _part(part, text)
            position = part.end()
            if standard is not None:
                chain, position = _chain(text, position)
                yield from (Citation(standard, place) for place in chain or [""])
        elif alone:
            position = alone.end()
            if standard is not None:
                yield Citation(standard, alone[0])
        else:
            return


def _part(match: re.Match[str], text: str) -> int | None:
    """The part of DICOM, None for another standard."""
    if match[2]:
        return None
    if not match[1] or match[0][2] == " ":
        raise ValueError(f"write PS3.N: {text[match.start() : match.end() + 40]!r}")
    return int(match[1])


def _chain(text: str, position: int) -> tuple[list[str], int]:
    """What follows the number of a part, "sections 7.1, 7.5 and 8", and where that ends."""
    places: list[str] = []
    kind, numeric = "", False
    while match := (_NEXT if places else _FIRST).match(text, position):
        kind = match["kind"] or kind
        label = match["label"]
        if places and label[0].isdigit() and not (numeric or match["kind"]):
            break  # a number that is no section
        numeric = label[0].isdigit()
        if len(label) == 1 and label.isalpha() and not kind.startswith("annex"):
            break
        place = _KINDS.get(kind, "")
        if place == "annex" and len(label) > 1:
            place = ""  # "annex A.4" is a section
        places.append(f"{place} {label}".strip())
        position = match.end()
    return places, position
