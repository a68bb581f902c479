"""Splits: no group straddles, nobody moves, parts are about as large as asked for."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.errors import OptionError
from dicomtorch.index import splits
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from tests.support.phantoms import file_rows

Patient = tuple[str, str, str]  # ID, issuer, study

patients = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(("", "X", "Y")), st.sampled_from("123")),
    min_size=1,
    max_size=40,
)


def index_of(people: list[Patient]) -> FrameIndex:
    files = [
        file_rows(
            f"{n:05d}.dcm",
            n,
            PatientID=patient,
            IssuerOfPatientID=issuer,
            StudyInstanceUID=f"{patient}{issuer}{study}",
            InstanceNumber=n % 3,
        )
        for n, (patient, issuer, study) in enumerate(people)
    ]
    return FrameIndex.build(files, root=b"/data")


def keys(index: FrameIndex) -> list[Patient]:
    names = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
    return list(zip(*(index.column(name) for name in names), strict=True))


def part_of_each(people: list[Patient], seed: int) -> dict[Patient, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = index_of(people).split([0.5, 0.3, 0.2], seed=seed)
    return {key: k for k, part in enumerate(parts) for key in keys(part)}


@given(patients, patients, st.integers(0, 3))
def test_new_patients_move_nobody(old: list[Patient], new: list[Patient], seed: int) -> None:
    before, after = part_of_each(old, seed), part_of_each([*new, *old], seed)
    assert before == {key: after[key] for key in before}


@given(patients, st.integers(0, 3))
def test_no_group_straddles_and_every_frame_is_in_one_part(
    people: list[Patient], seed: int
) -> None:
    index = index_of(people)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = index.split([0.5, 0.5], seed=seed)
    groups = [{key[:2] for key in keys(part)} for part in parts]
    assert not groups[0] & groups[1]
    assert sorted(uid for part in parts for uid in part.column("SOPInstanceUID")) == sorted(
        index.column("SOPInstanceUID")
    )
    for part in parts:
        assert list(part.rows) == sorted(part.rows)


@given(patients, st.integers(2, 5), st.booleans())
def test_folds_part_all_frames_by_group(people: list[Patient], k: int, stratified: bool) -> None:
    index = index_of(people)
    groups = len({(patient, issuer) for patient, issuer, _ in people})
    if groups < k:
        with pytest.raises(OptionError, match="cannot make"):
            index.kfold(k)
        return
    labels: dict[tuple[str, str], set[int]] = {}
    for n, (patient, issuer, _) in enumerate(people):
        labels.setdefault((patient, issuer), set()).add(n % 3)
    strata = len({frozenset(values) for values in labels.values()})
    if stratified and strata > max(1, groups // 2):
        with pytest.raises(OptionError, match="cannot be spread evenly"):
            index.kfold(k, stratify="InstanceNumber")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folds = index.kfold(k, stratify="InstanceNumber" if stratified else None)
    assert sorted(uid for _, part in folds for uid in part.column("SOPInstanceUID")) == sorted(
        index.column("SOPInstanceUID")
    )
    for train, validation in folds:
        assert len(train) + len(validation) == len(index)
        assert not {key[:2] for key in keys(train)} & {key[:2] for key in keys(validation)}
    if stratified:
        sizes = [len({key[:2] for key in keys(validation)}) for _, validation in folds]
        assert max(sizes) - min(sizes) <= 1


def test_the_part_of_a_patient_is_the_same_for_ever() -> None:
    # Recorded once. A change here moves patients between the training and the test sets of everybody.
    people = [(name, "", "1") for name in "abcdefghij"] + [("a", "X", "1"), ("", "", "1")]
    with pytest.warns(UserWarning, match="1 of 12 frames has no PatientID and is grouped"):
        train, test = index_of(people).split([0.7, 0.3], seed=7)
    assert (
        "".join(train.column("PatientID")) + "|" + "".join(test.column("PatientID"))
        == "abcdgja|efhi"
    )


def test_fractions_are_met_about_and_seeds_differ() -> None:
    index = index_of([(f"p{n}", "", "1") for n in range(2000)])
    parts = index.split([0.7, 0.2, 0.1, 0.0])
    assert [len(part) for part in parts] == pytest.approx([1400, 400, 200, 0], abs=60)
    other = index.split([0.7, 0.2, 0.1, 0.0], seed=1)[0]
    both = set(other.column("PatientID")) & set(parts[0].column("PatientID"))
    assert len(both) == pytest.approx(2000 * 0.49, abs=80)
    assert [len(part) for _, part in index.kfold(4)] == pytest.approx([500] * 4, abs=80)


def test_folds_of_a_part_are_about_as_large_as_each_other() -> None:
    index = index_of([(f"p{n}", "", "1") for n in range(2000)])
    train, _ = index.split([0.7, 0.3])
    share = len(train) / 5
    assert [len(fold) for _, fold in train.kfold(5)] == pytest.approx([share] * 5, abs=70)


def test_a_part_that_is_split_again_with_the_same_seed_is_noticed() -> None:
    index = index_of([(f"p{n}", "", "1") for n in range(200)])
    train, _ = index.split([0.75, 0.25])
    with pytest.warns(UserWarning, match=r"part of a split with seed=0.* another seed") as caught:
        train.split([0.5, 0.5])
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="part of a split with seed=3"):
        index.kfold(4, seed=3)[1][0].kfold(3, seed=3)
    assert [len(part) for part in train.split([0.5, 0.5], seed=1)] == pytest.approx(
        [75, 75], abs=20
    )


def test_strata_are_spread_evenly() -> None:
    index = index_of([(f"p{n}", "", "1") for n in range(300)])
    for _, fold in index.kfold(5, stratify="InstanceNumber"):
        assert np.bincount(fold.column("InstanceNumber")).tolist() == [20, 20, 20]


def test_patients_without_id_go_by_study() -> None:
    index = index_of([("", "", str(n % 20)) for n in range(100)])
    with pytest.warns(UserWarning, match=r"100 of 100 frames have no PatientID .* \(20 studies\)"):
        parts = index.split([0.5, 0.5])
    studies = [set(part.column("StudyInstanceUID")) for part in parts]
    assert all(studies)
    assert not studies[0] & studies[1]


def test_a_study_of_several_patients_is_named() -> None:
    index = index_of([(f"p{n}", "", "1") for n in range(30)])
    generation = index._generation
    generation.frames["StudyInstanceUID"] = Texts.of(["s"] * 30)
    with pytest.warns(UserWarning, match="1 study is in several parts"):
        index.split([0.5, 0.5])


def test_what_means_nothing_is_refused() -> None:
    index = index_of([("a", "", "1"), ("b", "", "1")])
    with pytest.raises(OptionError, match="sum to 1"):
        index.split([0.5, 0.6])
    with pytest.raises(OptionError, match="sum to 1"):
        index.split([1.5, -0.5])
    with pytest.raises(OptionError, match="seed"):
        index.split([1], seed=-1)
    with pytest.raises(OptionError, match="cannot be a key"):
        index.split([1], by="SliceThickness")
    with pytest.raises(OptionError, match="by= names no column"):
        index.split([1], by=[])
    with pytest.raises(OptionError, match="k must be"):
        index.kfold(1)
    with pytest.warns(UserWarning, match="part . of the split is empty"):
        index_of([("a", "", "1")]).split([0.5, 0.5])


def test_keys_of_different_values_differ() -> None:
    first, second = Texts.of(["a", "ab"]), Texts.of(["bc", "c"])
    assert len(set(splits.group_by([first, second]).keys)) == 2


def test_one_number_splits_in_two() -> None:
    index = FrameIndex.build(
        [file_rows(f"{n}.dcm", n, PatientID=f"p{n}") for n in range(60)], root=b"/data"
    )
    one, rest = index.split(0.8)
    both = index.split([0.8, 0.2])
    assert [part.rows.tolist() for part in (one, rest)] == [part.rows.tolist() for part in both]


@pytest.mark.parametrize(
    "fractions", [0, 1, 1.5, -0.2, float("nan"), "0.8", True, None, [None], {}]
)
def test_what_is_no_fraction_is_refused_in_words(fractions: Any) -> None:
    index = FrameIndex.build([file_rows("a.dcm", 0, PatientID="p")], root=b"/data")
    with pytest.raises(OptionError, match=r"fractions must be .*sum to 1.*or one number"):
        index.split(fractions)
