"""Lets each call of the system fail, one after the other: `python -m tests.long.system_faults --seconds 60`.

Scanning, saving and opening an index, refreshing, reading frames, and a cache: the first call fails, then the second,
until all went well. What comes must be the right values, or an error of the package (`OSError` where saving says so);
afterwards, without a fault, everything must be there.
"""

from __future__ import annotations

import builtins
import errno
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import imagecodecs
import numpy as np

from dicomtorch import DicomFrames, FrameIndex, scan
from dicomtorch.errors import DicomTorchError
from dicomtorch.reader.cache import FrameCache
from dicomtorch.reader.reader import FrameReader
from dicomtorch.scanner.open import open_index
from dicomtorch.storage import local
from tests.support.long_run import Tally, main
from tests.support.phantoms import ct, ct_pixels, encapsulated, write

ERRORS = (
    errno.EIO,
    errno.ENOSPC,
    errno.EINTR,
    errno.ESTALE,
    errno.ENOMEM,
    errno.EMFILE,
    errno.EACCES,
)
CALLS = (
    *("open", "fstat", "stat", "lstat", "scandir", "listdir", "read", "pread", "preadv", "write"),
    *("fsync", "replace", "rename", "unlink", "mkdir", "ftruncate", "utime", "chmod", "fchmod"),
)
READS = frozenset(("read", "pread", "preadv"))
SHORT = -1
"""Not an error: a read that gives less than was asked for."""


class Fault:
    """Lets the `nth` call fail; `fired` says whether it came to that."""

    def __init__(self, nth: int, what: int, *, lasting: bool = False) -> None:
        self._left = nth
        self._what = what
        self._lasting = lasting
        self.fired = False

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The call, which may fail."""

        def call(*arguments: Any, **options: Any) -> Any:
            if self._what == SHORT and name not in READS:
                return real(*arguments, **options)
            self._left -= 1
            if self._left == 0 or (self._lasting and self._left < 0):
                self.fired = True
                if self._what != SHORT:
                    raise OSError(self._what, os.strerror(self._what))
                return _short(name, real, arguments)
            return real(*arguments, **options)

        return call


def _short(name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if name == "preadv":
        descriptor, buffers, offset = arguments
        part = memoryview(buffers[0])
        return real(descriptor, [part[: max(1, len(part) // 3)]], offset)
    descriptor, length, *rest = arguments
    return real(descriptor, max(1, length // 3), *rest)


@contextmanager
def injected(fault: Fault) -> Iterator[None]:
    """Calls of the system go through a fault."""
    with ExitStack() as stack:
        for name in CALLS:
            if hasattr(os, name):
                stack.enter_context(patch.object(os, name, fault.wrap(name, getattr(os, name))))
        stack.enter_context(patch.object(local, "_pread", fault.wrap("pread", local._pread)))
        stack.enter_context(patch.object(builtins, "open", fault.wrap("open", builtins.open)))
        yield


class Scene:
    """Files, an index of them, and what may be done with them.

    Args:
        folder: Empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.pixels = [ct_pixels(k) for k in range(3)]
        for k, pixels in enumerate(self.pixels[:2]):
            write(ct(pixels, k), self.tree / f"{k}.dcm")
        stream = bytes(imagecodecs.jpeg2k_encode(self.pixels[2], level=0, codecformat="j2k"))
        write(encapsulated(ct(self.pixels[2], 2), [stream]), self.tree / "2.dcm")
        self.index = open_index(self.tree, cache_dir=folder / "kept")
        self.round = 0

    def operations(self) -> dict[str, Callable[[], None]]:
        """Name -> what is done while something fails, and looks at what comes."""
        return {
            "scan": self._scan,
            "read": self._read,
            "cached": self._read_cached,
            "open": self._open,
            "refresh": self._refresh,
            "save": self._save,
        }

    def _right(self, index: FrameIndex, cache: FrameCache | None = None) -> None:
        reader = FrameReader(index, cache=cache)
        for i in range(len(index)):
            k = int(Path(index.path(i)).stem)
            assert np.array_equal(reader.read_stored(i), self.pixels[k]), "other pixels"
            image = DicomFrames(index, values="stored")[i][0]
            assert np.array_equal(image[0].numpy(), self.pixels[k]), "other pixels"

    def _scan(self) -> None:
        index, report = scan(self.tree)
        unread = sum(one.file_class == "unreadable" for one in report.findings)
        assert len(index) + unread >= 3 or report.findings, "files were lost in silence"
        for one in report.findings:
            assert one.file_class != "unreadable" or one.reason, "no reason is given"

    def _read(self) -> None:
        self._right(self.index)

    def _read_cached(self) -> None:
        self._right(self.index, FrameCache(self.folder / "cache"))

    def _open(self) -> None:
        found = open_index(self.tree, cache_dir=self.folder / "kept", refresh=False)
        assert found.table.num_rows == len(self.index)

    def _refresh(self) -> None:
        self.round += 1
        os.utime(self.tree / "0.dcm", ns=(self.round, self.round))
        open_index(self.tree, cache_dir=self.folder / "kept")

    def _save(self) -> None:
        self.index.save(self.folder / "saved", replace=(self.folder / "saved").exists())

    def check(self) -> None:
        """Without a fault, everything is there."""
        index, report = scan(self.tree)
        assert len(index) == 3, f"{len(index)} frames: {report.findings}"
        self._right(index)
        self.index = open_index(self.tree, cache_dir=self.folder / "kept")
        assert len(self.index) == 3
        self._right(self.index, FrameCache(self.folder / "cache"))
        if (self.folder / "saved").exists():
            assert len(FrameIndex.load(self.folder / "saved")) == 3
        # Those of a saved index go when they are an hour old.
        left = list((self.folder / "kept").rglob("*.tmp"))
        assert len(left) < 5, "drafts pile up"


def attempt(scene: Scene, name: str, work: Callable[[], None], fault: Fault) -> str:
    """What came of an operation with a fault."""
    try:
        with injected(fault):
            work()
    except (DicomTorchError, MemoryError) as error:
        outcome = type(error).__name__
    except OSError:
        if name not in ("save", "refresh"):
            raise
        outcome = "OSError"
    else:
        outcome = "went on" if fault.fired else "no more calls"
    scene.check()
    return outcome


def rounds(seed: int, tally: Tally) -> Iterator[None]:
    """Each operation with each fault at each call; then lasting faults at random."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        rng = random.Random(seed)
        while True:
            pairs = [(name, what) for name in scene.operations() for what in (*ERRORS, SHORT)]
            rng.shuffle(pairs)
            for name, what in pairs:
                lasting = rng.random() < 0.3
                nth = 1
                while nth < 400:
                    fault = Fault(nth, what, lasting=lasting)
                    word = "short read" if what == SHORT else errno.errorcode[what]
                    tally.timed(
                        f"{name}, {word} at call {nth}{' and after' * lasting}",
                        lambda name=name, fault=fault: attempt(  # type: ignore[misc]
                            scene, name, scene.operations()[name], fault
                        ),
                    )
                    yield
                    if not fault.fired:
                        break
                    nth += rng.choice((1, 1, 2, 5))


if __name__ == "__main__":
    sys.exit(main("system_faults", rounds))
