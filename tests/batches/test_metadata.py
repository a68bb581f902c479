"""`FrameMeta`: a dict that says how to get what it does not have."""

from __future__ import annotations

import copy
import pickle
from collections import ChainMap
from pathlib import Path

import pytest

from dicomtorch import DicomFrames, FrameMeta
from dicomtorch.errors import DicomTorchError
from tests.support.phantoms import write_series


def test_a_key_that_is_not_there_says_how_to_ask_for_it(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    frames = DicomFrames(tmp_path)
    for meta in (frames[0][1], frames[:][1]):
        with pytest.raises(KeyError, match=r"^meta has no 'PatientSex' .*tags=\['PatientSex'\]"):
            meta["PatientSex"]
        with pytest.raises(DicomTorchError, match="did you mean 'SOPInstanceUID'"):
            meta["SOPInstanceUId"]
        with pytest.raises(KeyError, match=r"no 3 \("):
            meta[3]  # type: ignore[call-overload]
        assert meta.get("PatientSex") is None
        assert "PatientSex" not in meta
        assert ChainMap({}, meta).get("PatientSex", "-") == "-"


def test_it_is_a_dict_in_all_else() -> None:
    meta = FrameMeta(index=3)
    for again in (copy.copy(meta), copy.deepcopy(meta), pickle.loads(pickle.dumps(meta))):
        assert type(again) is FrameMeta
        assert again == {"index": 3}
    assert {**meta} == dict(meta) == {"index": 3}
