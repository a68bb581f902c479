"""What notebooks show: counts, escaped, without identifiers, and pictures that may be shown."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch import DicomFrames, scan
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.pictures import html as notebook
from tests.support.phantoms import file_rows


def index_of(modality: str, **columns: Any) -> FrameIndex:
    given: dict[str, object] = {
        "PatientID": "DOE-1",
        "Modality": modality,
        "Rows": 512,
        "Columns": 256,
    }
    rows = file_rows("DOE.dcm", 1, **{"SOPInstanceUID": "1.2.3", **given, **columns})
    return FrameIndex.build([rows], root=b"/DOE")


def test_counts_without_identifiers() -> None:
    for text in (repr(index_of("CT")), index_of("CT")._repr_html_()):
        assert "CT (1)" in text
        assert "DOE" not in text
        assert "1.2.3" not in text
    html = index_of("CT")._repr_html_()
    assert "512 x 256 (1)" in html
    assert re.search(r"Patients</th><td[^>]*>1</td>", html)


def test_what_a_file_claims_is_not_repeated() -> None:
    index = index_of("<script>alert(1)</script>")
    assert "script" not in index._repr_html_()
    assert "(not a value of the standard: VR CS, length 25) (1)" in repr(index)
    assert "&lt;b&gt;" in notebook.table("<b>", {"<b>": "<b>"}, note="<b>")
    assert "<b>" not in notebook.table("<b>", {"<b>": "<b>"}, note="<b>")


def test_the_most_frequent_come_first() -> None:
    many = [(f"M{n}", n) for n in range(1, 12)]
    assert notebook.counted(many).startswith("M11 (11), M10 (10)")
    assert notebook.counted(many).endswith("and 3 more")
    assert repr(index_of("CT").select([])) == "FrameIndex(0 frames in 0 files)"


def test_thumbnails(bundled: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    frames = DicomFrames(bundled / "CT_small.dcm")
    html = frames._repr_html_()
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    picture = np.asarray(image.open(io.BytesIO(base64.b64decode(data))))
    assert picture.shape[0] > 90
    assert picture.std() > 10
    assert "display" in html


def test_no_thumbnails_of_what_may_show_a_name(bundled: Path) -> None:
    index, _ = scan(bundled / "CT_small.dcm")
    generation = index._generation
    for name, value in (("BurnedInAnnotation", "YES"), ("Modality", "US")):
        kept = generation.frames[name]
        generation.frames[name] = Texts.of([value])
        html = DicomFrames(index)._repr_html_()
        generation.frames[name] = kept
        assert "<img" not in html
        assert "may show who it is" in html
