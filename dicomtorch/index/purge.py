"""Removing what is kept of a folder of images: indexes, unfinished scans, decoded and encoded frames."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomtorch.errors import OptionError, StorageError, printable, without_path
from dicomtorch.index.drafts import SUFFIX
from dicomtorch.index.files import MANIFEST
from dicomtorch.index.generation_store import default_cache_dir
from dicomtorch.index.locks import FileLock
from dicomtorch.index.private import is_ours

FRAMES: Final = "frames"
"""The folder in that of a `FrameCache` which has its entries."""

RANGES: Final = "ranges"
"""The folder in that of `range_cache` which has a `FrameCache` of encoded frames."""

_LOCK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that is kept of files.

    Attributes:
        folder: Where it is.
        kind: "index", "decoded frames" or "encoded frames".
        size: Bytes.
    """

    folder: Path
    kind: str
    size: int


def kept_of(
    root: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None
) -> list[Kept]:
    """The stored indexes that hold rows of files below a folder: its own, those of folders in it and around it.

    An index that cannot be read counts as one of them, because nothing says that it is not.

    Args:
        root: A folder or a file, which need not be there any more, or an address without its query.
        cache_dir: Where indexes are kept; `None`: the user's cache folder.
    """
    base = default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()
    asked = os.fsencode(root)
    is_address = b"://" in asked
    asked = asked.rstrip(b"/") if is_address else os.path.realpath(os.path.expanduser(asked))
    found = []
    for folder in _folders(base.absolute() / "indexes"):
        roots = list(_roots(folder))
        if not roots or any(each is None or _overlap(each, asked) for each in roots):
            found.append(Kept(folder, "index", _size(folder)))
    return found


def kept_frames(folder: str | os.PathLike[str]) -> list[Kept]:
    """The frames in a folder that was given as `cache=` or as `range_cache`, of whatever files."""
    base = Path(os.path.abspath(folder))
    places = {"decoded frames": base / FRAMES, "encoded frames": base / RANGES / FRAMES}
    return [Kept(at, kind, _size(at)) for kind, at in places.items() if at.is_dir()]


def remove(kept: Iterable[Kept]) -> None:
    """Removes them; programs that have an index open go on with it.

    The blocks on the disk are not overwritten.

    Raises:
        StorageError: One cannot be removed.
        OptionError: One is in use by a scan, or belongs to another user.
    """
    for each in kept:
        try:
            if not is_ours(each.folder.stat()):
                raise OptionError(f"{printable(each.folder)} belongs to another user")
            with FileLock(each.folder / "lock", _LOCK_SECONDS):
                # Away from its place at once, so that nobody opens what is half there.
                draft = each.folder.with_name(f"{each.folder.name}.purged{SUFFIX}")
                shutil.rmtree(draft, ignore_errors=True)
                os.rename(each.folder, draft)
            shutil.rmtree(draft)
        except FileNotFoundError:  # somebody else was faster
            continue
        except TimeoutError as error:
            raise OptionError(
                f"{printable(each.folder)} is in use by a scan; end it, or try again when it is done"
            ) from error
        except OSError as error:
            raise StorageError(
                f"{printable(each.folder)} cannot be removed ({error.strerror})"
            ) from without_path(error)


def _folders(base: Path) -> list[Path]:
    try:
        with os.scandir(base) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(
            f"{printable(base)} cannot be looked into ({error.strerror})"
        ) from without_path(error)


def _roots(folder: Path) -> Iterator[bytes | None]:
    """What the indexes in a folder are of, `None` for one that does not say."""
    for manifest in folder.glob(f"*/{MANIFEST}"):
        try:
            yield bytes.fromhex(json.loads(manifest.read_bytes()[9:-1])["root"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            yield None


def _overlap(one: bytes, other: bytes) -> bool:
    """Whether one of two folders is the other or in it."""
    first, second = (os.path.join(path, b"") for path in (one, other))
    return first.startswith(second) or second.startswith(first)


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total
