"""Ends a process without warning at each call that writes: `python -m tests.long.kill_points --seconds 60`.

An index that is saved, one that is replaced, also with a selection and joined labels, a refresh of the stored one,
several that are opened as one, a cache, encoded frames of a server, an export, shards, a list of frames to leave out,
notes of a check and a picture: the first call ends the process, then the second, until none did. What is left must be
whole: the old or the new index, entries that give the right values or none, the old or the new file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import sys
import tarfile
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
from dicomtorch.integrations.shards import ReadSample
from dicomtorch.pictures import plot
from dicomtorch.reader.cache import FrameCache
from dicomtorch.reader.kept import KeptRanges
from dicomtorch.reader.reader import FrameReader
from dicomtorch.reports.verify import Verification
from dicomtorch.scanner.open import open_index
from dicomtorch.storage.base import ByteRange, Identity, Scratch
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
        self.shards, self.ranges = folder / "shards", folder / "ranges"
        self.noted, self.picture = folder / "noted", folder / "picture.png"
        labels = {"InstanceNumber": [1, 2, 3], "grade": [10, 20, 30]}
        self.labelled = self.index.join(labels, on="InstanceNumber").select([2, 1])
        self.parts = [folder / f"{k}.index" for k in range(2)]
        steady = [self.tree / f"{k}.dcm" for k in (1, 2)]  # the other one is touched each time
        self.steady = scan(steady)[0]
        for file, path in zip(steady, self.parts, strict=True):
            scan(file)[0].save(path)
        self.range = ByteRange(b"http://host/0.dcm", Identity(9, 1, 0), 3, 5)

    def reset(self) -> None:
        """The old state of everything."""
        for path in (
            *(self.saved, self.folder / "cache", self.folder / "kept", self.shards, self.ranges),
            self.folder / "together",
        ):
            shutil.rmtree(path, ignore_errors=True)
        self.noted.unlink(missing_ok=True)
        self.picture.write_bytes(b"old")
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
            "labelled": (self._save_labelled, self._look_at_labelled),
            "together": (self._put_together, self._look_at_together),
            "ranges": (self._keep_range, self._look_at_range),
            "shards": (lambda: self.steady.write(self.shards, shard_bytes=1), self._look_at_shards),
            "notes": (self._verify, self._look_at_notes),
            "picture": (self._draw, self._look_at_picture),
        }

    def _save_labelled(self) -> None:
        self.labelled.save(self.saved, replace=True)

    def _look_at_labelled(self) -> None:
        found = FrameIndex.load(self.saved)
        if "grade" in found.joined:
            assert found.column("grade").tolist() == [30, 20]
        else:
            assert len(found) == 1

    def _put_together(self) -> None:
        FrameIndex.load(self.parts, cache_dir=self.folder / "together")

    def _look_at_together(self) -> None:
        for _ in range(2):
            self._right(FrameIndex.load(self.parts, cache_dir=self.folder / "together"))

    def _keep_range(self) -> None:
        KeptRanges(str(self.ranges), 1 << 20).write(self.range, memoryview(b"bytes"))

    def _look_at_range(self) -> None:
        kept = KeptRanges(str(self.ranges), 1 << 20)
        found = kept.read(self.range, Scratch())
        assert found is None or bytes(found) == b"bytes"
        self._keep_range()
        again = kept.read(self.range, Scratch())
        assert again is not None
        assert bytes(again) == b"bytes"

    def _look_at_shards(self) -> None:
        if not self.shards.exists():
            return
        read, found = ReadSample(values="stored"), 0
        for path in sorted(self.shards.iterdir()):
            parts: dict[str, bytes] = {}
            with tarfile.open(path) as shard:
                for member in shard:
                    file = shard.extractfile(member)
                    assert file is not None
                    parts[member.name] = file.read()
            for name, data in parts.items():
                if name.endswith(".frame"):
                    about = parts[name.replace(".frame", ".json")]
                    image, _ = read({"frame": data, "json": about})
                    k = int(Path(self.steady.path(int(name.partition(".")[0]))).stem)
                    assert np.array_equal(image[0].numpy(), self.pixels[k]), "other pixels"
                    found += 1
        assert found == 2

    def _verify(self) -> None:
        Verification(self.steady, state=self.noted, isolation=None, num_threads=1).run()

    def _look_at_notes(self) -> None:
        result = Verification(self.steady, state=self.noted, isolation=None, num_threads=1).run()
        assert (result.frames, result.decoded) == (2, 2)

    def _draw(self) -> None:
        plot.write(self.picture, lambda file, _: file.write(b"a new picture"))

    def _look_at_picture(self) -> None:
        assert self.picture.read_bytes() in (b"old", b"a new picture")

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
