"""What is said of samples that cannot be read."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dicomtorch.datasets.options import Failure
from dicomtorch.errors import DicomTorchError, StaleIndexError, StorageError

_PACKAGE = str(Path(__file__).parents[1])


def plural(sample_name: str) -> str:
    """What several samples are called."""
    return f"{sample_name}{'es' if sample_name.endswith('ch') else 's'}"


def warn_of(failure: Failure, sample_name: str) -> None:
    """Warns of the first sample that was replaced, where the package was called."""
    warnings.warn(
        f"{failure.error}. {sample_name.capitalize()} {failure.index} was replaced by {sample_name} "
        f"{failure.replaced_by}; further ones are replaced without a warning and listed in "
        f"{plural(sample_name)}.failures",
        stacklevel=_level_of_caller(),
    )


def with_way_out(error: DicomTorchError, sample_name: str) -> DicomTorchError:
    """The error as it is raised: where a sample can be left out, saying how."""
    if isinstance(error, StaleIndexError | StorageError):
        return error
    named = type(error)(
        f'{error}. Leave it out with {plural(sample_name)}.index.select(...), or use on_error="replace"'
    )
    named.__cause__ = error
    return named


def _level_of_caller() -> int:
    """For `warnings.warn` in the function that calls this: the first frame outside of the package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def shapes_of(
    shape: Callable[[Any], tuple[int, ...]], asked: Sequence[Any]
) -> set[tuple[int, ...]]:
    """The shapes of samples that have one."""
    shapes = set()
    for one in asked:
        with contextlib.suppress(DicomTorchError):
            shapes.add(shape(one))
    return shapes
