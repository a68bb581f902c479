"""What is said to come from the DICOM standard names a place that the standard has."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_docstrings import ALL

ROOT = Path(__file__).parents[2]
FOLDERS = ("dicomtorch", "docs", "tests", "examples", "benchmarks", "kernels")
ENDINGS = {".py", ".md", ".c", ".h", ".js", ".html"}
OWN = {
    Path("docs/_ext/citations.py"),
    Path("docs/_ext/standard.py"),
    Path("tests/docs/test_sources.py"),
}
BUILT = {"generated", "_build", "build", "results"}


@pytest.fixture(scope="module")
def ext() -> Iterator[Any]:
    """Modules of the documentation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "_ext"))
        yield importlib.import_module


def texts() -> list[tuple[Path, str]]:
    """All that may cite."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    found += ROOT.glob("*.md")
    inside = [path.relative_to(ROOT) for path in found if path.suffix in ENDINGS]
    kept = [path for path in inside if path not in OWN and BUILT.isdisjoint(path.parts)]
    return [(path, (ROOT / path).read_text(encoding="utf-8")) for path in kept]


def test_every_citation_is_a_place_of_the_standard_and_none_is_left_over(ext):
    standard, citations = ext("standard"), ext("citations").citations
    cited, wrong = set(), []
    for path, text in texts():
        for one in citations(text):
            cited.add((one.part, one.place))
            known = standard.PLACES.get(one.part)
            if known is None or (one.place and one.place not in known):
                wrong.append(f"{path}: {one}")
    assert wrong == []
    listed = {(part, place) for part, places in standard.PLACES.items() for place in places}
    assert listed - cited == set()
    assert len(cited) > 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(PS3.3 C.7.6.3.1.2, PS3.5 8.2)", ["PS3.3 C.7.6.3.1.2", "PS3.5 8.2"]),
        ("PS3.5 section 8 and annex D, PS3.3 C.7", ["PS3.5 8", "PS3.5 annex D", "PS3.3 C.7"]),
        ("PS3.18 sections 10.4 and 10.6.", ["PS3.18 10.4", "PS3.18 10.6"]),
        ("PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI)", ["PS3.3 C.11.1", "PS3.3 C.11.2"]),
        ("PS3.5 A.4: fill bytes (D.1)", ["PS3.5 A.4", "PS3.5 D.1"]),
        ("PS3.16 TID 1410, 1411", ["PS3.16 TID 1410", "PS3.16 TID 1411"]),
        ("PS3.6 table A-1, edition 2026", ["PS3.6 table A-1"]),
        ("# PS3.3 C.7.6.2.1.1\n    # and C.7.6.2", ["PS3.3 C.7.6.2.1.1", "PS3.3 C.7.6.2"]),
        ("PS3.3 C.8.8.6.3; 0.01 mm", ["PS3.3 C.8.8.6.3"]),
        ("as PS3.15 treats it", ["PS3.15"]),
        ("PS3.5 A.4\n\n(C.11.2)", ["PS3.5 A.4", "PS3.3 C.11.2"]),
        ("H.264, T.81 B.1.1.2, ISO/IEC 14495-1 C.2.3", []),
    ],
)
def test_how_citations_are_read(ext, text, expected):
    assert [str(one) for one in ext("citations").citations(text)] == expected


@pytest.mark.parametrize("text", ["PS 3.3 C.7.6.3", "see PS3"])
def test_another_way_to_name_a_part_is_refused(ext, text):
    with pytest.raises(ValueError, match="write PS3"):
        list(ext("citations").citations(text))


RULES = {
    "Backend": "PS3.5 8.2",
    "Code": "PS3.3 8.8",
    "DicomClips": "PS3.3 C.7.6.5",
    "DicomCrops": "PS3.3 C.7.6.2.1.1",
    "DicomFrames": "PS3.3 C.11.1, C.11.2, C.7.6.3.1.2, C.7.5.1.1.2, C.7.6.16.2.11, C.8.9.1",
    "DicomFrames.identifiers": "PS3.15 table E.1-1",
    "DicomFrames.to_values": "PS3.3 C.11.1, C.11.2",
    "DicomSlides": "PS3.3 C.8.12.4, C.7.11.1, C.8.12.14",
    "DicomTiles": "PS3.3 C.7.6.17.3",
    "DicomVolumes": "PS3.3 C.7.6.2.1.1, C.8.13.5.9, C.8.8.3",
    "FrameIndex.export": "PS3.15 table E.1-1",
    "FrameIndex.image_pixel": "PS3.3 C.7.6.3",
    "FrameIndex.images": "PS3.3 C.7.6.1.1.2",
    "FrameIndex.write": "PS3.15 table E.1-1",
    "FrameReader.read_encoded": "PS3.5 A.4",
    "FrameReader.read_stored": "PS3.5 8.1.1",
    "ImagePixel": "PS3.3 C.7.6.3, PS3.5 8.1.1",
    "ImagePixel.native_bits": "PS3.3 C.7.6.3.1.2",
    "ImagePixel.stored_dtype": "PS3.5 8.1.1",
    "MaskIndex": "PS3.3 C.8.20.2.3, C.8.8.6",
    "MaskIndex.points": "PS3.3 C.8.8.6.1",
    "PixelOptions": "PS3.3 C.11.1, C.11.2, C.7.5.1.1.2",
    "Stack": "PS3.3 C.7.6.2",
    "Stack.patient_to_voxel": "PS3.3 C.7.6.2.1.1",
    "patient_to_voxel": "PS3.3 C.7.6.2.1.1",
    "read_annotations": "PS3.16 TID 1500, PS3.3 C.37.1.2",
    "scan": "PS3.10 7, PS3.3 annex F, PS3.18 10.6",
    "stacks": "PS3.3 C.7.6.2",
    "voxel_to_patient": "PS3.3 C.7.6.2.1.1",
}
"""Public names whose rules are the standard's."""


@pytest.mark.parametrize("name", RULES)
def test_rules_of_the_standard_say_their_section(ext, name):
    citations = ext("citations").citations
    said = set(citations(inspect.getdoc(dict(ALL)[name]) or ""))
    assert set(citations(RULES[name])) - said == set()


MODULES = [
    f"{room}/{module}"
    for room, modules in {
        "backends": "color rle stored",
        "dicom": "deflate elements encapsulated fragments header items meta spans tags walk",
        "index": "burned_in suv",
        "masks": "annotations bulk_annotations contours dose measurements placing polygons segmentations",
        "model": "identifiers image mask_object syntaxes",
        "pixels": "formulas plan voi",
        "scanner": "dicomdir web web_rows",
        "scanner/resolve": "diffusion geometry groups image lookup private suv values",
        "series": "geometry levels pyramids stacks",
    }.items()
    for module in modules.split()
]
"""Modules that are rules of the standard."""


@pytest.mark.parametrize("name", MODULES)
def test_modules_of_rules_begin_with_their_section(ext, name):
    tree = ast.parse((ROOT / "dicomtorch" / f"{name}.py").read_text(encoding="utf-8"))
    assert list(ext("citations").citations(ast.get_docstring(tree) or ""))
