"""Writes the pages that say what can be counted: from the package, its command line and the files at the top.

They go to `docs/generated/` before Sphinx reads its sources.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import api
import meta_meanings
import pictures
import pydicom.datadict
import standard
from citations import Citation, citations
from sphinx.application import Sphinx

from dicomtorch.backends.base import BACKENDS, get_backend
from dicomtorch.batches import meta_keys
from dicomtorch.batches.metadata import DEFAULT_KEYS
from dicomtorch.cli.main import make_parser
from dicomtorch.model import schema
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import Limits
from dicomtorch.model.syntaxes import KNOWN_SYNTAXES, VIDEO

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
PROJECT = {
    "benchmarks/README.md": "benchmarks",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "CODE_OF_CONDUCT.md": "conduct",
    "SECURITY.md": "security",
    "PRIVACY.md": "what-is-stored",
}
NAMES = {  # newer than pydicom's dictionary
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
COMMANDS = """# Commands

What `dicomtorch COMMAND --help` prints. [What they are for](/reference/command-line.md).
"""
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("config-inited", lambda _app, _config: write(DOCS / "generated"), priority=100)
    app.connect("source-read", _links)
    app.connect("html-page-context", _accessible, priority=900)
    return {"parallel_read_safe": True}


def write(folder: Path) -> None:
    """All pages; one that stays as it was keeps its time, so that a second build is short."""
    pages = {
        "reference/command-line": command_line(),
        "reference/meta": meta(),
        "reference/columns": columns(),
        "reference/syntaxes": syntaxes(),
        "reference/limits": limits(),
        "reference/sources": sources(),
        **{f"reference/{name}": text for name, text in api.pages().items()},
        **{f"project/{name}": project(file) for file, name in PROJECT.items()},
    }
    pictures.write(folder / "images")
    for name, text in pages.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def project(file: str) -> str:
    """A page of the repository's top, whose links start from where the copy lies."""
    base = (ROOT / file).parent

    def moved(match: re.Match[str]) -> str:
        if "://" in match[2]:
            return match[0]
        target = Path(os.path.normpath(base / match[2])).relative_to(ROOT)
        return f"{match[1]}../../../{target.as_posix()}{match[3] or ''}{match[4]}"

    return LINK.sub(moved, (ROOT / file).read_text(encoding="utf-8"))


def _links(app: Sphinx, name: str, source: list[str]) -> None:
    """Links that leave `docs/`, as they work on a code host, become links to the pages that are made of them."""
    here = (DOCS / name).parent
    if name == "index":
        source[0] = with_all_pages(source[0])

    def changed(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(here / match[2]))
        if "://" in match[2] or not target.is_relative_to(ROOT):
            return match[0]
        inside = target.relative_to(ROOT).as_posix()
        anchor = match[3] or ""
        if inside in PROJECT:
            return f"](/generated/project/{PROJECT[inside]}.md{anchor})"
        if inside.startswith("docs/") and target.suffix == ".md":
            return f"](/{inside.removeprefix('docs/')}{anchor})"
        return match[0]

    source[0] = LINK.sub(changed, source[0])


def with_all_pages(text: str) -> str:
    """The front page, its list of how-tos with those that it does not name yet."""
    found = [path.relative_to(DOCS) for path in (*DOCS.glob("how-to/*.md"), *DOCS.glob("*.md"))]
    names = sorted(path.with_suffix("").as_posix() for path in found)
    new = [name for name in names if name != "index" and name not in text.splitlines()]
    return text.replace(
        "how-to/privacy\n", "".join(f"{name}\n" for name in ("how-to/privacy", *new))
    )


def _accessible(app: Sphinx, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """What the theme leaves out: the level of the captions of its list of pages, and a way by key into what is wide."""
    for part in ("furo_navigation_tree", "body"):
        html = context.get(part) or ""
        html = html.replace(' role="heading">', ' role="heading" aria-level="2">')
        html = html.replace('<table class="docutils', '<table tabindex="0" class="docutils')
        context[part] = html.replace("<pre>", '<pre tabindex="0">')


def command_line() -> str:
    """What `--help` of each command prints."""
    parser = make_parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    texts = [COMMANDS]
    os.environ["COLUMNS"] = "100"
    for name, command in commands.choices.items():
        texts.append(f"## {name}\n\n```text\n{command.format_help().rstrip()}\n```\n")
    return "\n".join(texts)


def meta() -> str:
    """Keys of `meta`, their types and what they are."""
    kinds = [
        (name, kind)
        for kind in vars(meta_keys)
        for name in get_args(getattr(meta_keys, kind))
        if kind[0].isupper() and kind != "Literal"
    ]
    always = {*DEFAULT_KEYS, "index", "requested_index", "voi", "WindowCenter", "WindowWidth"}
    rows = []
    for name, kind in kinds:
        where = "every sample" if name in always else meta_meanings.WHERE[name]
        rows.append((f"`{name}`", meta_meanings.TYPES[kind], where, meaning(name)))
    order = {"every sample": 0}
    rows.sort(key=lambda row: (order.get(row[2], 1), row[2]))
    text = """# Keys of `meta`

`meta` is a dict. Of a batch each number is a tensor with one more axis, each text a list. A missing integer is -1, a
missing float nan, a missing text "".
`tags=["KVP"]` adds any keyword, `index.join` any column; both have the type that all frames agree on.
"""
    return f"{text}\n{table(('Key', 'Type', 'In', 'What it is'), rows)}"


def meaning(name: str) -> str:
    """Of a key: of a DICOM keyword its name and tag, else what `meta_meanings` says."""
    if name in meta_meanings.MEANINGS:
        return meta_meanings.MEANINGS[name]
    if (found := tag_of(name)) is None:
        raise KeyError(f"meta_meanings.MEANINGS says nothing of {name}")
    return found


def tag_of(keyword: str) -> str | None:
    """Name and tag of a DICOM keyword."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    if tag is None:
        return None
    return f"{pydicom.datadict.dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def columns() -> str:
    """Columns of the index, with the comments of the schema."""
    lines = Path(schema.__file__).read_text(encoding="utf-8").splitlines()
    said, heading, inside = {}, "", False
    for line in lines:
        inside = line.startswith("FRAMES = ") or (inside and not line.startswith(")"))
        if inside and (found := re.match(r"\s+# (.+)", line)):
            heading = found[1].rstrip(".")
        if inside and (found := re.match(r'\s+(\w+)="[^"]+",(?:\s+# (.+))?', line)):
            said[found[1]] = (heading, found[2] or "")
    groups: dict[str, list[tuple[str, ...]]] = {}
    for column in schema.FRAMES:
        group, comment = said.get(column.name, ("Others", ""))
        what = comment or (tag_of(column.name) or "")
        row = (f"`{column.name}`", column.kind, shown(column.missing), what)
        groups.setdefault(group, []).append(row)
    heads = ("Column", "Kind", "Missing", "What it is")
    tables = "\n".join(f"{group}:\n\n{table(heads, rows)}" for group, rows in groups.items())
    text = f"""# Columns of the index

One row a frame, no nulls; version {schema.VERSION} of the schema. A name in CamelCase is the DICOM keyword whose value
it holds, resolved for the frame (per-frame, then shared functional group, then top level, PS3.3 C.7.6.16); a name in
snake_case is of this package. `index.column(name)` gives one, `index.table` all as an Arrow table. They may change with
the version; `index.columns` lists those of an index.
"""
    return f"{text}\n{tables}"


def shown(value: Any) -> str:
    """A value that stands for missing."""
    return f"`{value!r}`" if not isinstance(value, tuple) else f"`({value[0]!r}, ...)`"


def syntaxes() -> str:
    """Transfer syntaxes x backends, as the backends of this environment answer for usual images."""
    names = list(BACKENDS)
    rows = []
    for uid in sorted(KNOWN_SYNTAXES, key=lambda uid: [int(part) for part in uid.split(".")]):
        title = NAMES.get(uid) or pydicom.uid.UID(uid).name
        cells = [
            "yes" if any(get_backend(b).supports(p) for p in pixels(uid)) else "-" for b in names
        ]
        rows.append((title, f"`{uid}`", *cells))
    rows += [("MPEG-2, H.264, HEVC", "", *("found, not decoded" for _ in names))] if VIDEO else []
    text = """# Transfer syntaxes and backends

What each backend decodes with everything installed that `pip install "dicomtorch[all]"` brings: "yes" where it decodes
a usual image of that syntax (8 or 16 bits, gray or colour). `backend="auto"` takes the first that can, from left to
right; backend "pydicom" is as good as its plug-ins. What your environment decodes of your files says `dicomtorch doctor
studies/`.
"""
    return f"{text}\n{table(('Transfer syntax', 'UID', *names), rows)}"


def pixels(uid: str) -> list[ImagePixel]:
    """Images that a syntax is used for."""
    kinds = ((1, "MONOCHROME2", 16), (1, "MONOCHROME2", 8), (3, "RGB", 8), (3, "YBR_FULL_422", 8))
    return [
        ImagePixel(
            rows=64, columns=64, samples_per_pixel=samples, photometric_interpretation=name, bits_allocated=bits,
            bits_stored=bits, high_bit=bits - 1, pixel_representation=0, planar_configuration=0,
            transfer_syntax_uid=uid, pixel_data_vr="OB" if bits == 8 else "OW",
        )
        for samples, name, bits in kinds
    ]  # fmt: skip


def limits() -> str:
    """`Limits`, field by field."""
    said = dict(re.findall(r"^        (\w+): (.+)$", Limits.__doc__ or "", re.MULTILINE))
    rows = [(f"`{name}`", f"{getattr(Limits(), name):,}", said[name]) for name in Limits.__slots__]
    text = """# Limits

What damaged or hostile input may cost: `scan(folder, limits=dicomtorch.Limits(decode_seconds=5))`.
[What they are held against](/explain/promises.md#limits).
"""
    return f"{text}\n{table(('Field', 'Default', 'Of'), rows)}"


def sources() -> str:
    """Places of the DICOM standard, and the modules whose rules they are."""
    text = """# Sources

Which section of the DICOM standard a rule comes from, and the modules that follow it. Docstrings name the section of
theirs; a test holds every citation against this list.
"""
    users: dict[Citation, set[str]] = {}
    for path in sorted((ROOT / "dicomtorch").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT / "dicomtorch").with_suffix("").parts)
        for one in citations(path.read_text(encoding="utf-8")):
            users.setdefault(one, set()).add(f"`{module}`")
    for part, places in standard.PLACES.items():
        rows = [
            (place, title, ", ".join(sorted(found)))
            for place, title in places.items()
            if (found := users.get(Citation(part, place)))
        ]
        text += f"\n## {Citation(part, standard.PARTS[part])}\n\n"
        text += table(("Place", "Title", "Followed by"), rows)
    return text


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Markdown."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return (
        "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)
        + "\n"
    )
