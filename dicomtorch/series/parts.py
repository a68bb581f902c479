"""Rules 3 and 4: which slices of a group make one volume each, and what tells the volumes apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dicomtorch.series.geometry import Ints
from dicomtorch.series.group import Group, mixed
from dicomtorch.series.keys import CONTENT, KEYS, LAST, MONITORING, PARTING, TIMES

_DEPTH = 4  # keys, one inside the other
_FEWEST = 3  # slices of a part of an irregular stack
_OTHER_SPACING = 0.05
_LOST = (1.5, 4.5)  # steps: a gap as long as this may be lost slices
_WHOLE = 0.05  # steps: how near to a whole number of them a gap of lost slices is
_BEGIN_ANEW = 0.5


class Part(NamedTuple):
    """Slices of one volume, or of one place.

    Attributes:
        group: They.
        keys: What tells it from the other parts.
    """

    group: Group
    keys: tuple[str, ...] = ()


def apart(group: Group) -> list[Part] | None:
    """Parts with one slice at each place, or of one place; `None` if nothing tells repeats apart."""
    if len(group.counts) == 1:
        return [Part(group)]
    if group.is_single:
        return _of_single(group)
    return _by_one_key(group) or _by_several(group) or regular_parts(group)


# Rule 3


def _of_single(group: Group) -> list[Part]:
    """One stack, whatever other attributes say, but for two exceptions."""
    if len(group) > 2 and any(group.codes(key) is not None for key in PARTING):
        regular = group.geometry.is_regular
        found = regular_parts(group, keys=CONTENT if regular else PARTING, regular=regular)
        if found is not None:
            return found
    return [Part(group)]


def regular_parts(
    group: Group, *, keys: Sequence[str] = PARTING, regular: bool = False
) -> list[Part] | None:
    """Rules 3a, 3b and 4d: the parts that the first key makes that gives regular ones; `None` if none does.

    Args:
        group: Irregular, or with several slices at a place, unless `regular`.
        keys: What may part it.
        regular: Its parts must lie between each other (rule 3b).
    """
    repeats = not regular and not group.is_single
    for key in keys:
        codes = group.codes(key)
        if codes is None:
            continue
        parts = group.parts(codes, anew=True)
        several = [part for part in parts if len(part.counts) > 1]
        rest = len(parts) - len(several)
        if not several or (regular and rest) or rest > len(several) + 2:
            continue
        if any(len(part) < _FEWEST for part in several):
            continue
        if not all(part.is_single and part.geometry.is_regular for part in several):
            continue
        if repeats or _may_part(several, regular=regular):
            return [Part(part, (key,)) for part in parts]
    return None


def _may_part(parts: Sequence[Group], *, regular: bool) -> bool:
    """Whether regular parts are volumes, and not pieces of one that lost slices or whose numbers are interleaved."""
    if len(parts) == 1:
        return True  # the others show one place each
    whole = Group(parts[0].slices, np.concatenate([part.rows for part in parts]))
    ends = np.cumsum([len(part) for part in parts])[:-1]
    along = [np.sort(one) for one in np.split(whole.along, ends)]
    order = sorted(range(len(parts)), key=lambda k: float(along[k][0]))
    between = False
    for a, b in itertools.pairwise(order):
        if not _on_one_line(parts[a], parts[b]):
            continue
        if along[b][0] < along[a][-1]:
            between = True
            if not _one_after_the_other(parts[a], parts[b]):
                return False
        elif not regular and _lost_slices(along[a], along[b]):
            return False
    return between or not regular


def _one_after_the_other(a: Group, b: Group) -> bool:
    """Whether Instance Number runs through one part, then through the other, or begins anew."""
    one, two = (part.slices.numbers(LAST, part.rows) for part in (a, b))
    if np.isnan(one).any() or np.isnan(two).any():
        return False
    if one.max() < two.min() or two.max() < one.min():
        return True
    return bool(np.isin(one, two).mean() > _BEGIN_ANEW)


def _lost_slices(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the gap between two parts is what lost slices of one volume leave."""
    step, other = np.diff(a).mean(), np.diff(b).mean()
    if abs(step - other) > _OTHER_SPACING * step:
        return False
    steps = (b[0] - a[-1]) / step
    return bool(abs(steps - round(steps)) < _WHOLE and _LOST[0] < steps < _LOST[1])


def _on_one_line(a: Group, b: Group) -> bool:
    """Whether two parts lie along one normal, and not beside each other."""
    apart_ = np.linalg.norm(a.beside.mean(axis=0) - b.beside.mean(axis=0))
    room = (
        2 * float(a.pixel.min()) + np.ptp(a.beside, axis=0).max() + np.ptp(b.beside, axis=0).max()
    )
    return bool(apart_ < room)


# Rule 4


def _by_one_key(group: Group) -> list[Part] | None:
    """Rule 4b: the key that alone tells volumes apart and leaves the fewest others mixed."""
    keys = [key for key in KEYS if group.tells(key)]
    best: tuple[int, list[Part]] | None = None
    for key in keys:
        parts = group.by(key)
        if parts is None or not all(part.is_single or _monitors(key, part) for part in parts):
            continue
        count = mixed(keys, parts)
        if best is None or count < best[0]:
            best = count, [Part(part, (key,)) for part in parts]
        if not count:
            break
    return None if best is None else best[1]


def _by_several(group: Group) -> list[Part] | None:
    """Rule 4c: keys one inside the other; then with times; then with Instance Number."""
    keys = [key for key in KEYS if group.tells(key)]
    times = [key for key in TIMES if group.tells(key)]
    for more in ([], times, [*times, LAST]):
        for depth in range(1 if more else 2, _DEPTH + 1):
            found = _nested(group, [*keys, *more], depth)
            if found is not None:
                return found
    return None


def _nested(group: Group, keys: Sequence[str], depth: int) -> list[Part] | None:
    if group.is_single:
        return [Part(group)]
    if not depth:
        return None
    for key in keys:
        parts = group.by(key)
        if parts is None:
            continue
        rest = [other for other in keys if other != key]
        below = [
            [Part(part)] if _monitors(key, part) else _nested(part, rest, depth - 1)
            for part in parts
        ]
        if all(found is not None for found in below):
            return [Part(part.group, (key, *part.keys)) for found in below for part in found or ()]
    return None


def _monitors(key: str, part: Group) -> bool:
    """Whether a part shows one place again and again, beside a volume (rule 5)."""
    return key in MONITORING and len(part.counts) == 1


def split_by_time(group: Group, keys: Sequence[str]) -> list[Group]:
    """`split_by=` of times: the k-th of each place, or equal values where that means nothing."""
    groups = [group]
    for key in keys:
        found: list[Group] = []
        for one in groups:
            codes = one.codes(key)
            ranked = one.ranked(key) if len(one.counts) > 1 else None
            found += ranked or ([one] if codes is None else one.parts(codes))
        groups = found
    return groups


def places_within(parts: Sequence[Part], whole: Ints) -> list[frozenset[int]]:
    """The places of each part among those of the group that they are parts of.

    Args:
        parts: Of one group.
        whole: Place of each slice, in the order of the parts.
    """
    ends = np.cumsum([len(part.group) for part in parts])[:-1]
    return [frozenset(one.tolist()) for one in np.split(whole, ends)]
