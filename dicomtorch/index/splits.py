"""Which part or fold a group belongs to: a function of the group's key and the seed alone.

So a group never straddles two parts, and groups that are added later move none of those that are there.
"""

from __future__ import annotations

import hashlib
import math
import numbers
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError, format_count
from dicomtorch.index.codes import distinct, firsts, numbered
from dicomtorch.index.columns import HasColumns, Texts
from dicomtorch.index.joins import key_column

Numbers = npt.NDArray[np.int64]
_Part = tuple[Numbers, list[bytes]]  # the number of each frame's value, and the values
_UNLIKELY = 1e-6


class Groups(NamedTuple):
    """Frames in groups.

    Attributes:
        number: (frames,), the group of each frame.
        keys: The key of each group, which is the same in every index that has the group.
    """

    number: Numbers
    keys: list[bytes]


def split(
    index: HasColumns, fractions: float | Sequence[float], by: str | Sequence[str], seed: int
) -> list[npt.NDArray[np.bool_]]:
    """Which frames are in each part; warns of parts that are empty, and of studies that are in several.

    Raises:
        OptionError: Fractions do not sum to 1, or there is no such column.
    """
    shares = _shares(fractions)
    groups = _groups(index, by)
    part = parts(groups.keys, shares, seed)[groups.number]
    for k, fraction in enumerate(shares):
        if fraction > 0 and len(index) and not (part == k).any():
            warnings.warn(
                f"part {k} of the split is empty: of {format_count(len(groups.keys), 'group')} none fell into it; try "
                f"another seed",
                stacklevel=3,
            )
    _warn_if_studies_straddle(index, part)
    return [part == k for k in range(len(shares))]


def _shares(fractions: float | Sequence[float]) -> list[float]:
    """The fraction of each part; one number leaves the rest to a second."""
    expected = (
        "fractions must be 0 or more and sum to 1, as in [0.7, 0.15, 0.15], or one number as in 0.8"
    )
    if isinstance(fractions, str | bytes | bool):
        raise OptionError(f"{expected}; got {fractions!r}")
    given: Any = fractions
    if isinstance(given, numbers.Real):
        first = float(given)
        if not 0 < first < 1:
            raise OptionError(f"{expected}; got {fractions!r}")
        return [first, 1 - first]
    try:
        shares = [float(fraction) for fraction in given]
    except (TypeError, ValueError) as error:
        raise OptionError(f"{expected}; got {fractions!r}") from error
    if not shares or min(shares) < 0 or not math.isclose(math.fsum(shares), 1, abs_tol=1e-6):
        raise OptionError(f"{expected}; got {shares}")
    return shares


def kfold(
    index: HasColumns, k: int, by: str | Sequence[str], stratify: str | None, seed: int
) -> Numbers:
    """The fold of each frame; warns of folds that are empty, and of studies that are in several.

    Raises:
        OptionError: There are fewer groups than folds, or too many values to stratify by.
    """
    groups = _groups(index, by)
    strata = None if stratify is None else strata_of(groups, key_column(index, stratify))
    fold = folds(groups.keys, k, seed, strata)[groups.number]
    empty = k - len(np.unique(fold))
    if empty:
        warnings.warn(
            f"{empty} of {k} folds {'is' if empty == 1 else 'are'} empty: the index "
            f"has only {format_count(len(groups.keys), 'group')}; take a smaller k, another seed, or stratify",
            stacklevel=3,
        )
    _warn_if_studies_straddle(index, fold)
    return fold


def _groups(index: HasColumns, by: str | Sequence[str]) -> Groups:
    names = [by] if isinstance(by, str) else list(by)
    if names != ["PatientID"]:
        return group_by([key_column(index, name) for name in names])
    studies = index.column("StudyInstanceUID")
    groups, nobody = by_patient(
        index.column("PatientID"), index.column("IssuerOfPatientID"), studies
    )
    if nobody.any():
        number = len(np.unique(studies.codes[nobody]))
        said = "1 study" if number == 1 else f"{number:,} studies"
        count = int(nobody.sum())
        verbs = ("has", "is") if count == 1 else ("have", "are")
        warnings.warn(
            f"{count:,} of {format_count(len(index), 'frame')} {verbs[0]} no PatientID and {verbs[1]} grouped by study "
            f"({said})",
            stacklevel=4,
        )
    return groups


def _warn_if_studies_straddle(index: HasColumns, part: Numbers) -> None:
    studies = index.column("StudyInstanceUID")
    is_in = np.zeros((len(studies.values), int(part.max(initial=0)) + 1), np.bool_)
    is_in[studies.codes, part] = True
    nameless = studies.code("")
    if nameless >= 0:
        is_in[nameless] = False
    several = int(np.count_nonzero(is_in.sum(axis=1) > 1))
    if several:
        warnings.warn(
            f"{several} {'study is' if several == 1 else 'studies are'} in several parts, because what was split by "
            f"differs within; "
            f'by="StudyInstanceUID" keeps each together',
            stacklevel=4,
        )


def group_by(columns: Sequence[Any]) -> Groups:
    """Frames are of one group if all their values are equal.

    Args:
        columns: `Texts` or 1-D arrays of whole numbers.

    Raises:
        OptionError: There is none.
    """
    if not columns:
        raise OptionError("by= names no column; name one or more")
    return _group([_distinct(column) for column in columns])


def by_patient(
    patients: Texts, issuers: Texts, studies: Texts
) -> tuple[Groups, npt.NDArray[np.bool_]]:
    """Frames by PatientID and its issuer, by study where the PatientID is empty; and where that is."""
    nobody: npt.NDArray[np.bool_] = patients == ""
    columns = [(patients, True), (issuers, ~nobody), (studies, nobody)]
    return _group([_blanked(_distinct(column), kept) for column, kept in columns]), nobody


def _blanked(part: _Part, kept: Any) -> _Part:
    """With "" where a value does not count."""
    inverse, values = part
    return np.where(kept, inverse, len(values)), [*values, b""]


def _group(columns: Sequence[_Part]) -> Groups:
    number = numbered([inverse for inverse, _ in columns], len(columns[0][0]))
    # The length in front of each value, so that ("a", "bc") and ("ab", "c") differ.
    keys = [
        b"".join(_framed(values[inverse[k]]) for inverse, values in columns)
        for k in firsts(number).tolist()
    ]
    return Groups(number, keys)


def _framed(value: bytes) -> bytes:
    return b"%d:%b" % (len(value), value)


def _distinct(column: Any) -> _Part:
    if isinstance(column, Texts):
        inverse, codes = distinct(column)
        return inverse, [column.values[code] for code in codes.tolist()]
    values, inverse = np.unique(np.asarray(column), return_inverse=True)
    return inverse, [b"%d" % value for value in values.tolist()]


def positions(keys: Sequence[bytes], seed: int, use: bytes = b"") -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each key: evenly spread, and always the same for a key, a seed and a use."""
    if not 0 <= seed < 1 << 64:
        raise OptionError(f"seed must be within 0 and 2**64 - 1; got {seed}")
    salt = seed.to_bytes(8, "little")
    hashes = (hashlib.blake2b(key, digest_size=8, salt=salt, person=use).digest() for key in keys)
    numbers = [int.from_bytes(digest, "little") >> 11 for digest in hashes]
    return np.array(numbers, np.float64) / (1 << 53)


def parts(keys: Sequence[bytes], shares: Sequence[float], seed: int) -> Numbers:
    """The part of each group; shares sum to 1."""
    ends = np.cumsum(shares)[:-1]
    where = positions(keys, seed)
    _warn_if_split_before(where, seed)
    return np.searchsorted(ends, where, side="right")


def folds(
    keys: Sequence[bytes], k: int, seed: int, strata: Sequence[bytes] | None = None
) -> Numbers:
    """The fold of each group, 0 to k - 1.

    With `strata` the groups of each are dealt out in the order of their hash, so that folds have equally many of
    each, to within one; a group that is added then moves others.

    Raises:
        OptionError: There are fewer groups than folds, or hardly a stratum has two groups.
    """
    if k < 2:
        raise OptionError(f"k must be 2 or more; got {k}")
    if len(keys) < k:
        raise OptionError(
            f"{format_count(len(keys), 'group')} cannot make {k} folds; take a smaller k"
        )
    # Not the numbers of `parts`, so that folds of a part are as large as each other.
    where = positions(keys, seed, b"folds")
    if strata is None:
        _warn_if_split_before(where, seed)
        return np.minimum((where * k).astype(np.int64), k - 1)
    count = len(set(strata))
    if count > max(1, len(keys) // 2):
        raise OptionError(
            f"stratify has {count} different values for {format_count(len(keys), 'group')}, which cannot be spread "
            f"evenly; join a coarser column"
        )
    order = sorted(range(len(keys)), key=lambda g: (strata[g], where[g], keys[g]))
    result = np.empty(len(keys), np.int64)
    result[order] = np.arange(len(keys)) % k
    return result


def _warn_if_split_before(where: npt.NDArray[np.float64], seed: int) -> None:
    """Warns if the groups are only a part of what has such numbers: fractions of it are other than asked for."""
    gap = np.diff(np.sort(where), prepend=0, append=1).max()
    # At most how likely evenly spread numbers have such a gap.
    if (len(where) + 1) * (1 - gap) ** len(where) < _UNLIKELY:
        warnings.warn(
            f"these groups look like a part of a split with seed={seed}, so that parts of them come out larger or "
            f"smaller than asked for; another seed splits them independently",
            stacklevel=5,
        )


def strata_of(groups: Groups, column: Any) -> list[bytes]:
    """For each group the values that its frames have: one stratum for each combination."""
    inverse, values = _distinct(column)
    pairs = np.unique(groups.number * len(values) + inverse)
    result = [b""] * len(groups.keys)
    for pair in pairs.tolist():
        group, value = divmod(pair, len(values))
        result[group] += _framed(values[value])
    return result
