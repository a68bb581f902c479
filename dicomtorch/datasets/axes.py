"""Where the axes of a volume run in the patient: R or L, A or P, S or I."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dicomtorch.series.geometry import Floats, Ints, to_ras

_LETTERS = ("LR", "PA", "IS")  # of each axis of RAS: where it comes from, where it goes


def orientation_of(affine: Floats) -> str:
    """Where the axes of a tensor run, nearest: of its affine to LPS three letters out of R, L, A, P, S, I."""
    towards, signs = _nearest_axes(affine)
    pairs = zip(towards.tolist(), signs.tolist(), strict=True)
    return "".join(_LETTERS[axis][int(sign > 0)] for axis, sign in pairs)


def turns(affine: Floats, orientation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(the old axis of each new one, new axes that are to be turned round) for an orientation."""
    towards, signs = _nearest_axes(affine)
    wanted = [
        next(k for k, pair in enumerate(_LETTERS) if letter in pair) for letter in orientation
    ]
    axes = tuple(int(np.flatnonzero(towards == axis)[0]) for axis in wanted)
    flips = tuple(
        k
        for k, letter in enumerate(orientation)
        if (signs[axes[k]] > 0) != (_LETTERS[wanted[k]].index(letter) == 1)
    )
    return axes, flips


def turned(
    affine: Floats, shape: Sequence[int], axes: tuple[int, ...], flips: tuple[int, ...]
) -> Floats:
    """The affine of a volume whose axes were exchanged, then turned round."""
    result = np.asarray(affine[:, [*axes, 3]])
    for k in flips:
        result[:3, 3] += result[:3, k] * (shape[axes[k]] - 1)
        result[:3, k] *= -1
    return result


def _nearest_axes(affine: Floats) -> tuple[Ints, Floats]:
    """For each axis of a tensor the axis of RAS that is nearest to it, each once, and in which direction.

    The closest pair is joined first; a shear is taken out before (the nearest rotation).
    """
    cosines = to_ras(affine)[:3, :3]
    u, _, v = np.linalg.svd(cosines / np.linalg.norm(cosines, axis=0))
    left = np.array(u @ v)
    towards, signs = np.zeros(3, np.int64), np.zeros(3)
    for axis in np.argsort(-np.abs(left).max(axis=0), kind="stable").tolist():
        towards[axis] = np.abs(left[:, axis]).argmax()
        signs[axis] = np.sign(left[towards[axis], axis])
        left[towards[axis]] = 0
    return towards, signs


def is_orientation(given: Any) -> bool:
    """Whether it has one letter of each axis."""
    return (
        isinstance(given, str)
        and len(given) == 3
        and all(sum(letter in pair for letter in given) == 1 for pair in _LETTERS)
    )
