"""Ends a process without warning at each call that writes: `python -m tests.long.kill_points --seconds 60`.

An index that is saved, one that is replaced, a refresh of the stored one, a cache, an export and a list of frames to
leave out: the first call ends the process, then the second, until none did. What is left must be whole: the old or the
new index, entries that give the right values or none, the old or the new file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from dicomtorch import FrameIndex, scan
from dicomtorch.index.quarantine import Quarantined, without_quarantined, write_quarantine
from dicomtorch.reader.cache import FrameCache
from dicomtorch.reader.reader import FrameReader
from dicomtorch.scanner.open import open_index
from tests.long.system_faults import Scene
from tests.support.long_run import Tally, main

CALLS = (
    *("open", "write", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "ftruncate"),
    *("utime", "chmod", "fchmod", "link", "close"),
)


class Ending:
    """Ends this process at the `nth` call, before or after it is done; half of what is written is there."""

    def __init__(self, nth: int, after: bool) -> None:
        self._left = nth
        self._after = after

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The call, which may be the last one."""

        def call(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                elif name == "fsync":
                    info = os.fstat(arguments[0])
                    if self._after and stat.S_ISREG(info.st_mode):
                        os.truncate(arguments[0], info.st_size // 2)
                elif self._after:
                    real(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call


def ended(work: Callable[[], None], nth: int, after: bool) -> bool:
    """Does the work in a process that ends at its `nth` call; whether it came to that."""
    process = os.fork()
    if not process:
        try:
            ending = Ending(nth, after)
            with ExitStack() as stack:
                for name in CALLS:
                    wrapped = ending.wrap(name, getattr(os, name))
                    stack.enter_context(patch.object(os, name, wrapped))
                work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the process that was to be killed failed ({code})"
    return code != 0


class Kills(Scene):
    """What is done in processes that end, and what must be left."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.old = self.index.select([0])
        self.new = self.index
        self.saved = folder / "saved"
        self.table = folder / "table.csv"
        self.listed = folder / "listed.json"

    def reset(self) -> None:
        """The old state of everything."""
        for path in (self.saved, self.folder / "cache", self.folder / "kept"):
            shutil.rmtree(path, ignore_errors=True)
        self.old.save(self.saved)
        self.old.export(self.table, salt=b"x")
        write_quarantine(self.listed, self.new, [Quarantined(0, 0, "old")])
        open_index(self.tree, cache_dir=self.folder / "kept")
        os.utime(self.tree / "0.dcm")

    def works(self) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
        """Name -> (what a process does, what looks at what it left)."""
        return {
            "save": (self._save_anew, self._look_at_new),
            "replace": (lambda: self.new.save(self.saved, replace=True), self._look_at_saved),
            "refresh": (self._refresh_only, self._look_at_store),
            "cache": (self._fill_cache, self._look_at_cache),
            "export": (lambda: self.new.export(self.table, salt=b"x"), self._look_at_table),
            "list": (self._list, self._look_at_list),
        }

    def _save_anew(self) -> None:
        self.new.save(self.folder / "another")

    def _look_at_new(self) -> None:
        path = self.folder / "another"
        if path.exists():
            assert len(FrameIndex.load(path)) == 3
            shutil.rmtree(path)

    def _look_at_saved(self) -> None:
        assert len(FrameIndex.load(self.saved)) in (1, 3)

    def _refresh_only(self) -> None:
        open_index(self.tree, cache_dir=self.folder / "kept")

    def _look_at_store(self) -> None:
        kept = self.folder / "kept"
        assert len(open_index(self.tree, cache_dir=kept, refresh=False)) == 3
        self._right(open_index(self.tree, cache_dir=kept))

    def _fill_cache(self) -> None:
        FrameReader(self.new_index(), cache=FrameCache(self.folder / "cache")).read_stored(2)

    def new_index(self) -> FrameIndex:
        """Of the files as they are."""
        return scan(self.tree)[0]

    def _look_at_cache(self) -> None:
        cache = FrameCache(self.folder / "cache")
        for _ in range(2):
            self._right(self.new_index(), cache)

    def _look_at_table(self) -> None:
        assert len(self.table.read_text().splitlines()) in (2, 4)

    def _list(self) -> None:
        write_quarantine(self.listed, self.new, [Quarantined(k, 0, "new") for k in range(2)])

    def _look_at_list(self) -> None:
        json.loads(self.listed.read_text())
        kept, _ = without_quarantined(self.new, self.listed)
        assert len(kept) in (1, 2)


def rounds(seed: int, tally: Tally) -> Iterator[None]:
    """Each work ended at each of its calls."""
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        kills = Kills(Path(folder))
        np.random.seed(0)
        while True:
            works = list(kills.works().items())
            rng.shuffle(works)
            for name, (work, look) in works:
                for after in (False, True):
                    nth, more = 1, True
                    while more:
                        kills.reset()

                        def once(
                            work: Callable[[], None] = work,
                            look: Callable[[], None] = look,
                            nth: int = nth,
                            after: bool = after,
                        ) -> str:
                            nonlocal more
                            more = ended(work, nth, after)
                            look()
                            return "killed" if more else "went through"

                        tally.timed(f"{name}, ended {'after' if after else 'at'} call {nth}", once)
                        yield
                        nth += 1


if __name__ == "__main__":
    sys.exit(main("kill_points", rounds))
