"""Rows of the files table that are members of archives: which object is opened for them, and where they lie in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.index.builder import NO_MEMBER, Member
from dicomtorch.model.schema import CONTAINERS, MEMBER_MARK

STORED, DEFLATED, WEB = (CONTAINERS.index(name) for name in ("stored", "deflated", "web"))


def object_path(path: bytes, member: str) -> bytes:
    """The path of the archive that has `member`, from the path of that."""
    return path[: len(path) - len(MEMBER_MARK) - len(member.encode())]


def object_lengths(files: Any, rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How many bytes of each path name what is opened: all, or the archive.

    Args:
        files: The files table.
        rows: Of it.
    """
    paths, members = files["path"], files["member"]
    lengths: npt.NDArray[np.int64] = paths.offsets[rows + 1] - paths.offsets[rows]
    inside = _is_inside(files["container"][rows])
    if inside.any():
        codes, offsets = members.codes[rows], members.values.offsets
        lengths -= np.where(inside, offsets[codes + 1] - offsets[codes] + len(MEMBER_MARK), 0)
    return lengths


def object_length(files: Any, row: int) -> int:
    """How many bytes of one path name what is opened; in a tenth of the time that `object_lengths` takes for it."""
    paths, members = files["path"], files["member"]
    length: int = paths.offsets.item(row + 1) - paths.offsets.item(row)
    if files["container"].item(row) in (STORED, DEFLATED):
        code, offsets = members.codes.item(row), members.values.offsets
        length -= offsets.item(code + 1) - offsets.item(code) + len(MEMBER_MARK)
    return length


def member_of(files: Any, row: int) -> Member:
    """Where in an archive a file is; `NO_MEMBER` if in none."""
    container = int(files["container"][row])
    if not container:
        return NO_MEMBER
    numbers = (int(files[f"member_{name}"][row]) for name in Member._fields[2:])
    return Member(container, files["member"][row], *numbers)


def is_inside(files: Any, row: int) -> bool:
    """Whether a file is a member of an archive."""
    return bool(_is_inside(files["container"][row]))


def _is_inside(container: Any) -> Any:
    return (container == STORED) | (container == DEFLATED)
