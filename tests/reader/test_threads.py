"""Whether a few frames are worth threads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicomtorch import DicomFrames
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, JPEG_2000_LOSSLESS, JPEG_BASELINE
from dicomtorch.reader import fetch
from dicomtorch.reader.threads import worthwhile_threads
from tests.support.phantoms import write
from tests.support.slide_phantoms import JPEG, level, tissue

TILE = ImagePixel(JPEG_BASELINE, 256, 256, 3, "YBR_FULL_422", 8, 8, 7, 0, 0, "OB")


def test_small_work_is_done_by_the_caller() -> None:
    assert worthwhile_threads([TILE] * 4) == 1
    assert worthwhile_threads([TILE] * 16) == 2
    slow = replace(TILE, transfer_syntax_uid=JPEG_2000_LOSSLESS)
    assert worthwhile_threads([slow] * 2) > 2
    plain = replace(
        TILE, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN, photometric_interpretation="RGB"
    )
    assert worthwhile_threads([plain] * 16) == 1
    assert worthwhile_threads([replace(plain, rows=4000, columns=3000)] * 2) > 2


def test_a_few_small_tiles_do_not_go_to_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(level(tissue(128, 128), 32, **JPEG), tmp_path / "level.dcm")
    frames = DicomFrames(tmp_path, values="stored")
    monkeypatch.setattr(fetch, "usable_threads", lambda: 4)
    many = frames[:][0]  # 16 frames of 32 x 32 are not worth it either

    def pool() -> None:
        raise AssertionError("asked for threads")

    monkeypatch.setattr(fetch, "decode_pool", pool)
    assert np.array_equal(frames[[0, 1, 2, 3]][0], many[:4])
    with pytest.raises(AssertionError, match="asked for threads"):
        frames[[*range(16), 0]]
