"""What notebooks show of an object: a small table and pictures, everything escaped."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST = 8


def counted(found: Sequence[tuple[str, int]]) -> str:
    """As in "CT (1,200), MR (30)": the most frequent first, and how many more there are; equal names are one."""
    together: Counter[str] = Counter()
    for name, count in found:
        together[name] += count
    ordered = sorted(together.items(), key=lambda one: (-one[1], one[0]))
    listed = [f"{name or 'none'} ({count:,})" for name, count in ordered[:_MOST]]
    more = len(ordered) - _MOST
    return ", ".join([*listed, *([f"and {more:,} more"] if more > 0 else [])])


def table(title: str, rows: Mapping[str, str], *, note: str = "", picture: str = "") -> str:
    """A title, a table of two columns, a line of text and a picture that is HTML already."""
    lines = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    said = f"<div>{html.escape(note)}</div>" if note else ""
    return f"<div><strong>{html.escape(title)}</strong><table>{lines}</table>{picture}{said}</div>"


def png(image: Image, description: str) -> str:
    """A picture as an element that needs no file beside it."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(description, quote=True)}" src="data:image/png;base64,{data}">'
