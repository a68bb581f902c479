"""`python kill_refresh.py FOLDER`: ends processes in the middle of a refresh, looks at what is left; for `test_store`.

One process imports everything and forks the others: one that refreshes and ends itself without warning at its n-th
system call of a kind that reads or changes the store or the tree, and one that looks afterwards.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import stat
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomtorch.errors import IndexFileError
from dicomtorch.scanner.open import open_index

EVENTS = ("open", "os.", "shutil.", "fcntl.", "mmap.")


def make_file(path: Path, number: int) -> None:
    """A DICOM file with one frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pydicom.Dataset()
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.SOPInstanceUID = f"1.2.3.{number}"
    data.Rows = data.Columns = 4
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.PixelRepresentation = 0
    data.PixelData = bytes(range(16))
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def instances(root: Path, cache: Path, *, refresh: bool) -> list[str]:
    """What the index says there is, every column read."""
    index = open_index(root, cache_dir=cache, refresh=refresh)
    for column in index.columns:
        index.gather(column.name, np.arange(len(index)))
    return list(index.column("SOPInstanceUID"))


def forked(action: Callable[[], object]) -> tuple[int, Any]:
    """(how the process ended, what `action` gave in it)."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.write(write, json.dumps(action()).encode())
            status = 0
        except BaseException as error:
            os.write(write, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(said) if said else None


def refresh(root: Path, ends_at: int, cache: Path) -> int:
    """Refreshes, ending this process at its `ends_at`-th event; gives their number."""
    count = 0

    def hook(event: str, _: object) -> None:
        nonlocal count
        if event.startswith(EVENTS):
            count += 1
            if count == ends_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    open_index(root, cache_dir=cache)
    return count


def half_written(root: Path, nth: int, cache: Path) -> None:
    """Refreshes, ending this process when the `nth` file is half written."""
    plain, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        info = os.fstat(descriptor)
        if stat.S_ISREG(info.st_mode):
            count += 1
            if count == nth:
                os.ftruncate(descriptor, info.st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
        plain(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    open_index(root, cache_dir=cache)


def full(root: Path, most: int, cache: Path) -> list[str]:
    """Refreshes while no file can be longer than `most` bytes; gives the warnings."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_index(root, cache_dir=cache)
    return [str(warning.message) for warning in caught]


def no_space(root: Path, nth: int, cache: Path) -> list[str]:
    """Refreshes while the `nth` fsync says that the disk is full; gives the warnings."""
    plain, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_index(root, cache_dir=cache)
    return [str(warning.message) for warning in caught]


def left(cache: Path) -> list[str]:
    """Temporary files and folders in the store."""
    return [path.name for path in cache.rglob("*.tmp")]


def main(folder: Path) -> None:
    """Prints one result for each fault."""
    root, pristine = folder / "tree", folder / "pristine"
    for k in range(3):
        make_file(root / f"{k}.dcm", k)
    before = instances(
        root, pristine, refresh=True
    )  # here, so that what is imported late is there for all
    instances(root, pristine, refresh=False)
    make_file(root / "sub" / "3.dcm", 3)
    os.unlink(root / "0.dcm")
    after = ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert before == ["1.2.3.0", "1.2.3.1", "1.2.3.2"], before
    results = []

    def attempt(
        name: str, number: int, start: Path | None, action: Callable[[Path], object]
    ) -> None:
        cache = folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        if start:
            shutil.copytree(start, cache)
        ended, said = forked(lambda: action(cache))
        drafts = left(cache)
        _, stored = forked(lambda: stored_instances(root, cache))
        _, fresh = forked(lambda: instances(root, cache, refresh=True))
        state = {tuple(before): "old", tuple(after): "new"}.get(tuple(stored or ()), str(stored))
        results.append(
            {
                "fault": name,
                "number": number,
                "first": start is None,
                "ended": ended,
                "said": said,
                "drafts": drafts,
                "left": left(cache),
                "stored": state,
                "right_after": fresh == after,
            }
        )

    for start in (pristine, None):
        cache = folder / "count"
        if start:
            shutil.copytree(start, cache)
        _, events = forked(partial(refresh, root, 0, cache))
        shutil.rmtree(cache)
        for n in range(1, int(str(events)) + 1, 1 if start else 3):
            attempt("kill", n, start, partial(refresh, root, n))
        for n in range(1, 8):
            attempt("half", n, start, partial(half_written, root, n))
        for most in (0, 30, 5000):
            attempt("full", most, start, partial(full, root, most))
        for n in range(1, 9, 3):
            attempt("no_space", n, start, partial(no_space, root, n))
    print(json.dumps(results))


def stored_instances(root: Path, cache: Path) -> list[str] | None:
    """What is stored, `None` if nothing is; as a program that may not refresh sees it."""
    folders = [path for path in cache.glob("indexes/*/current")]
    if not folders:
        return None
    try:
        return instances(root, cache, refresh=False)
    except IndexFileError as error:
        return [f"broken: {error}"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
