"""Lists of frames that are to be left out: `verify` writes one, `exclude=` of the datasets takes it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from dicomtorch.errors import OptionError, escaped, printable, redacting, without_path
from dicomtorch.index.drafts import whole_file
from dicomtorch.index.frame_index import FrameIndex

_FORMAT: Final = {"format": "dicomtorch quarantine", "version": 1}


class Quarantined(NamedTuple):
    """A frame that is to be left out.

    Attributes:
        file: Row of the index's files table.
        frame: From 0 in the file.
        reason: Why.
    """

    file: int
    frame: int
    reason: str


def write_quarantine(
    path: str | os.PathLike[str],
    index: FrameIndex,
    frames: Iterable[Quarantined],
    *,
    redact_paths: bool = False,
) -> None:
    """Writes a list as JSON, readable by its owner alone, in place of one that is there.

    Args:
        path: Of the list.
        index: What the frames are of.
        frames: What is to be left out.
        redact_paths: Leaves paths out; files are found by a hash of theirs all the same.

    Raises:
        OSError: It cannot be written.
    """
    entries = []
    for one in frames:
        redacted = redact_paths or redacting()
        name = {} if redacted else {"path": escaped(index.file_path(one.file))}
        size, time = (int(index.files[column][one.file]) for column in ("size", "mtime_ns"))
        keys = list(_keys(index, one.file))
        entries.append(
            {**name, "file": keys, "size": size, "mtime_ns": time, "frame": one.frame}
            | {"reason": one.reason}
        )
    text = json.dumps({**_FORMAT, "frames": entries}, indent=1)
    with whole_file(Path(path)) as draft:
        draft.write(text.encode() + b"\n")


def without_quarantined(index: FrameIndex, path: str | os.PathLike[str]) -> tuple[FrameIndex, int]:
    """An index without the frames of a list; a file that has changed since is another one.

    Args:
        index: Of the same folder, or of one moved elsewhere as a whole.
        path: What `write_quarantine` wrote.

    Returns:
        The index, and how many frames of the list are not in it.

    Raises:
        OptionError: It cannot be read, or is no such list.
    """
    listed = _read(Path(path))
    files = np.asarray(index.column("file"))
    sizes = {size for size, _, _ in listed.values()}
    found: set[str] = set()
    known: dict[int, list[str]] = {}
    for file in np.unique(files).tolist():
        if int(index.files["size"][file]) in sizes:
            known[file] = list(_keys(index, file))
    frames = np.asarray(index.column("frame"))
    keep = np.ones(len(index), np.bool_)
    for i in np.flatnonzero(np.isin(files, list(known))).tolist():
        file = int(files[i])
        now = (int(index.files["size"][file]), int(index.files["mtime_ns"][file]))
        for key in known[file]:
            entry = f"{key} {int(frames[i])}"
            if entry in listed and listed[entry][:2] == now:
                keep[i] = False
                found.add(listed[entry][2])
    missing = len({name for _, _, name in listed.values()} - found)
    return (index if keep.all() else index.select(keep)), missing


def _keys(index: FrameIndex, file: int) -> tuple[str, str]:
    """Names of a file: by its whole path, and by that below the root, should it have moved."""
    below: bytes = index.files["path"][file]
    return _hashed(b"whole\0" + index.file_path(file)), _hashed(b"below\0" + below)


def _hashed(path: bytes) -> str:
    return hashlib.sha256(path).hexdigest()[:32]


def _read(path: Path) -> dict[str, tuple[int, int, str]]:
    """What each key and frame was: size, time, and a name of the entry."""
    listed: dict[str, tuple[int, int, str]] = {}
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if {name: content[name] for name in _FORMAT} != _FORMAT:
            raise ValueError
        for number, entry in enumerate(content["frames"]):
            for key in entry["file"]:
                listed[f"{key} {int(entry['frame'])}"] = (
                    int(entry["size"]),
                    int(entry["mtime_ns"]),
                    str(number),
                )
    except OSError as error:
        raise OptionError(
            f"the list of frames to exclude, {printable(os.fsencode(path))}, cannot be read ({error.strerror})"
        ) from without_path(error)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OptionError(
            f"{printable(os.fsencode(path))} is no list of frames to exclude; "
            "`dicomtorch verify ROOT --quarantine FILE` writes one"
        ) from error
    return listed
