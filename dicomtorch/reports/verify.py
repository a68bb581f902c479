"""Decodes every frame once, with one backend or with two that are compared, and goes on after an interruption.

A damaged stream that still decodes cannot be recognised by one decoder. Two that disagree show it; they show a wrong
decoder, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.backends.base import choose_backend
from dicomtorch.backends.capability import others_that_decode
from dicomtorch.backends.isolated import can_isolate
from dicomtorch.errors import DicomTorchError, OptionError, UnsupportedError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import LOSSY
from dicomtorch.reader.choice import Isolation
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.reader.reader import FrameReader
from dicomtorch.reader.threads import usable_threads
from dicomtorch.reports.verify_result import Finding, Result
from dicomtorch.reports.verify_state import FORMAT, VerifyState

TOLERANCE = 2
"""Difference between correct decoders of lossy streams, and of colour that was converted from YCbCr."""

DEFAULT_ISOLATION: Isolation = "process" if can_isolate() else None

_UNIT_FRAMES = 64  # frames that are done, and noted in the state file, together


class Verification:
    """Decodes the frames of an index; an iterator of the number of frames that each step did.

    Args:
        index: The frames.
        backend: What decodes, "auto" for what training takes.
        against: What decodes a second time, to be compared; `None` for nothing.
        tolerance: Difference that lossy streams and converted colour may have. Lossless streams must agree exactly.
        state: File where what is done is noted, made if it is missing; a later run with it does only the rest, what
            failed, and files that changed. It has no paths and no identifiers.
        num_threads: At most so many at once; `None`: as many as this process may use.
        isolation: "process": code streams are decoded in child processes, so that none of them ends this one; the
            default where the system can. `None`: only with backends that are known to end their process.

    Attributes:
        result: What was found so far.

    Raises:
        OptionError: The two backends are the same, or `state` belongs to a run with other backends or tolerance.
    """

    def __init__(
        self,
        index: FrameIndex,
        *,
        backend: str = "auto",
        against: str | None = None,
        tolerance: int = TOLERANCE,
        state: str | os.PathLike[str] | None = None,
        num_threads: int | None = None,
        isolation: Isolation = DEFAULT_ISOLATION,
    ) -> None:
        if against == backend:
            raise OptionError(
                f"backend and against are both {backend!r}; name two decoders to compare them"
            )
        if tolerance < 0:
            raise OptionError(f"tolerance={tolerance}: expected 0 or more")
        self.index = index
        self.result = Result(damaged=index.report().counts["unreadable"])
        self._asked = (backend,) if against is None else (backend, against)
        self._readers = [FrameReader(index, name, isolation=isolation) for name in self._asked]
        self._names: dict[ImagePixel, tuple[str, ...]] = {}
        self._tolerance = tolerance
        self._threads = num_threads or usable_threads()
        self._stop = threading.Event()
        self._settings = FORMAT | {
            "backend": backend,
            "against": against or "",
            "tolerance": tolerance,
        }
        self._state = None if state is None else Path(state)

    def __iter__(self) -> Iterator[int]:
        with contextlib.ExitStack() as stack:
            state = stack.enter_context(VerifyState(self._state, self._settings))
            pool = stack.enter_context(ThreadPoolExecutor(self._threads, "dicomtorch-verify"))
            stack.callback(self._stop.set)  # before the pool is waited for
            pending: deque[tuple[str, Future[Result | None]]] = deque()
            for unit in _units(self.index):
                key = self._key(unit)
                known = state.get(key)
                if known is not None:
                    yield self._count(self._restored(known, unit))
                    continue
                pending.append((key, pool.submit(self._verify, unit)))
                if len(pending) >= 2 * self._threads:
                    yield self._finish(*pending.popleft(), state)
            while pending:
                yield self._finish(*pending.popleft(), state)
        self.result.findings.sort(key=lambda finding: (finding.file, finding.frame))

    def run(self) -> Result:
        """Goes through all of it."""
        for _ in self:
            pass
        return self.result

    def _finish(self, key: str, future: Future[Result | None], state: VerifyState) -> int:
        found = future.result()
        assert found is not None  # only after `_stop`
        state.add(key, found)
        return self._count(found)

    def _count(self, found: Result) -> int:
        self.result.add(found)
        return found.frames

    def _key(self, unit: Sequence[int]) -> str:
        """Names some frames of a file as it is now; another size or time gives another key."""
        (where,) = self.index.locate([unit[0]])
        frames = self.index.gather("frame", np.asarray(unit, np.int64))
        # The whole path: a copy elsewhere with the same name, size and time is another file.
        text = repr((self.index.file_path(where.file), where.size, where.mtime_ns, frames))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _restored(self, known: Result, unit: Sequence[int]) -> Result:
        (where,) = self.index.locate([unit[0]])
        findings = [replace(finding, file=where.file) for finding in known.findings]
        return replace(known, resumed=known.frames, findings=findings)

    def _verify(self, unit: Sequence[int]) -> Result | None:
        """Some frames of one file; `None` if told to stop."""
        found = Result()
        for position in unit:
            if self._stop.is_set():
                return None
            self._verify_frame(position, found)
        return found

    def _verify_frame(self, position: int, found: Result) -> None:
        found.frames += 1
        pixel = self.index.image_pixel(position)
        names = self._chosen(pixel)
        decoded = []
        for reader, name in zip(self._readers, names, strict=True):
            try:
                if name or reader is self._readers[0]:
                    decoded.append(reader.read_stored(position))
            except DicomTorchError as error:
                # The reader put path and frame in front of what it caught.
                text = " ".join(str(error.__cause__ or error).split())
                kind = "unsupported" if isinstance(error, UnsupportedError) else "failure"
                if kind == "failure" and self._asked == ("auto",):
                    text += self._other_decoder(position, pixel, name)
                found.findings.append(self._finding(position, kind, text, name))
            else:
                found.decoded += reader is self._readers[0]
        found.single += len(names) == 2 and not names[1]
        if len(decoded) == 2:
            found.compared += 1
            text = self._difference(pixel, decoded[0], decoded[1], found)
            if text:
                both = ", ".join(names)
                found.findings.append(self._finding(position, "difference", text, both))

    def _other_decoder(self, position: int, pixel: ImagePixel, failed: str) -> str:
        """Says which other backends decode a frame that the one of "auto" does not, if there are any."""
        try:
            data = FrameFetcher(self.index).encoded(position)
        except DicomTorchError:
            return ""
        able = others_that_decode(data, pixel, failed)
        return f"; backend={able[0]!r} decodes it" if able else ""

    def _chosen(self, pixel: ImagePixel) -> tuple[str, ...]:
        """The names of the backends that decode such frames, "" for none; the second one only if it is another."""
        known = self._names.get(pixel)
        if known is None:
            names = []
            for name in self._asked:
                try:
                    names.append(choose_backend(name, pixel).name)
                except UnsupportedError:
                    names.append("")
            if len(names) == 2 and names[0] == names[1]:
                names[1] = ""
            known = self._names[pixel] = tuple(names)
        return known

    def _difference(
        self,
        pixel: ImagePixel,
        one: npt.NDArray[Any],
        other: npt.NDArray[Any],
        found: Result,
    ) -> str:
        """What differs by more than is accepted, or ""."""
        if one.shape != other.shape:
            return f"shapes {one.shape} and {other.shape}"
        if np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            return ""
        first, second = one.astype(np.float64), other.astype(np.float64)
        unequal = (one != other) & ~(np.isnan(first) & np.isnan(second))
        # What is a number in one of them only is as far off as can be.
        distance = np.nan_to_num(np.abs(first[unequal] - second[unequal]), nan=np.inf)
        largest, accepted = float(distance.max()), self._accepted(pixel)
        if accepted and largest <= accepted:
            found.largest_accepted = max(found.largest_accepted, int(largest))
            return ""
        return f"{len(distance):,} of {one.size:,} values differ, by up to {largest:.6g}"

    def _accepted(self, pixel: ImagePixel) -> int:
        lossy = pixel.transfer_syntax_uid in LOSSY
        converted = pixel.photometric_interpretation.startswith("YBR")
        # The transforms of JPEG 2000 and its kin are part of the stream; the reversible one loses nothing.
        converted &= pixel.photometric_interpretation != "YBR_RCT"
        return self._tolerance if lossy or converted else 0

    def _finding(self, position: int, kind: str, text: str, backend: str) -> Finding:
        (where,) = self.index.locate([position])
        (frame,) = self.index.gather("frame", np.array([position]))
        return Finding(where.file, frame, kind, text, backend)


def _units(index: FrameIndex) -> Iterator[list[int]]:
    """Positions, some frames of one file at a time."""
    files = np.asarray(index.column("file"))
    edges = [*np.flatnonzero(np.diff(files, prepend=-1)), len(files)]
    for start, end in itertools.pairwise(edges):
        for first in range(int(start), int(end), _UNIT_FRAMES):
            yield list(range(first, min(first + _UNIT_FRAMES, int(end))))
