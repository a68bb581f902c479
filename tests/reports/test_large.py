"""What `doctor` says of large frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicomtorch import scan
from dicomtorch.model.syntaxes import HTJ2K_LOSSLESS, JPEG_2000_LOSSLESS, JPEG_BASELINE
from dicomtorch.reports import large
from dicomtorch.reports.doctor import examine
from tests.support.phantoms import encapsulated, image, write


@pytest.mark.parametrize("there", [False, True])
def test_what_would_let_less_be_decoded(
    tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "skips_resolutions", lambda: there)
    monkeypatch.setattr(large, "has_scaled_dct", lambda: there)
    cases = [(JPEG_2000_LOSSLESS, 1024), (JPEG_BASELINE, 1024), (HTJ2K_LOSSLESS, 1024)]
    for k, (syntax, size) in enumerate([*cases, (JPEG_2000_LOSSLESS, 1023)]):
        dataset = image(np.zeros((size, size), np.uint8), SOPInstanceUID=f"1.2.{k}")
        write(encapsulated(dataset, [b"\xff\x4f\xff\x51"], syntax), tmp_path / f"{k}.dcm")
    index, report = scan(tmp_path)
    found = [remark for remark in examine(index, report).remarks if remark.check == "large"]
    if there:
        assert found == []
        return
    assert [(remark.level, remark.frames, len(remark.files)) for remark in found] == [
        ("note", 1, 1)
    ] * 2
    assert "Python 3.12" in found[0].advice
    assert "dicomtorch[reduced]" in found[1].advice
