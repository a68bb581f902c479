"""`FrameMeta`: a dict that says how to get what it does not have."""

from __future__ import annotations

import copy
import math
import os
import pickle
from collections import ChainMap
from pathlib import Path

import pytest

from dicomtorch import DicomFrames, FrameMeta, scan
from dicomtorch.batches.metadata import MetadataReader, metas_of
from dicomtorch.errors import DicomTorchError
from dicomtorch.model.frame import AppliedVOI
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


def test_one_frame_has_the_metadata_that_it_has_among_others(tmp_path: Path) -> None:
    write_series(tmp_path, 3)
    whole, _ = scan(tmp_path, tags=["PatientSex", "ImageType"])
    paths = [os.path.relpath(whole.path(k), tmp_path) for k in range(3)]
    columns = {"path": paths, "weight": [1.5, 2.5, math.nan], "good": [True, False, True]}
    joined = whole.join({**columns, "note": ["a", "", "ä"]}, on="path")
    for index in (whole, joined, joined.select([2, 0])):
        reader = MetadataReader(index, ["PatientSex", "ImageType"])
        voi = [AppliedVOI("window", 40, 400)] * len(index)
        positions = list(range(len(index)))
        batch = metas_of(reader.of(positions, voi, positions))
        assert repr(metas_of(reader.of(positions, voi, positions, listed=True))) == repr(batch)
        for k in positions:
            for listed in (True, False):
                (one,) = metas_of(reader.of([k], voi[:1], [k], listed=listed))
                assert list(one) == list(batch[k])
                assert repr(one) == repr(batch[k])  # the same types, too


def test_it_is_a_dict_in_all_else() -> None:
    meta = FrameMeta(index=3)
    for again in (copy.copy(meta), copy.deepcopy(meta), pickle.loads(pickle.dumps(meta))):
        assert type(again) is FrameMeta
        assert again == {"index": 3}
    assert {**meta} == dict(meta) == {"index": 3}
