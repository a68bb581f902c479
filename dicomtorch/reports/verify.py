"""Decodes every frame once, with one backend or with two that are compared, and goes on after an interruption.

A damaged stream that still decodes cannot be recognised by one decoder. Two that disagree show it; they show a wrong
decoder, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dicomtorch.backends.base import choose_backend
from dicomtorch.errors import DicomTorchError, OptionError, UnsupportedError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import LOSSY
from dicomtorch.reader.reader import FrameReader
from dicomtorch.reader.threads import usable_threads
from dicomtorch.reports.text import format_count, format_name, harmless, name_file

TOLERANCE = 2
"""Difference between correct decoders of lossy streams, and of colour that was converted from YCbCr."""

_FORMAT = {"format": "dicomtorch verify", "version": 1}
_UNIT_FRAMES = 64  # frames that are done, and noted in the state file, together
_MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One frame that failed or differs.

    Attributes:
        file: Row of the index's files table.
        frame: From 0 in the file.
        kind: "failure", "unsupported" (no decoder was tried) or "difference".
        text: The error without path and frame, or how much differs.
        backend: Whose error it is ("" where none decodes it), or the two that differ, as in "imagecodecs, pydicom".
    """

    file: int
    frame: int
    kind: str
    text: str
    backend: str


@dataclass(slots=True)
class Result:
    """What was found so far.

    Attributes:
        frames: Frames that are done, whatever came of it.
        resumed: How many of them the state file knew.
        decoded: Frames that the first backend decoded.
        compared: Frames that both decoded.
        single: Frames that the second backend does not decode, or that are decoded by one and the same.
        largest_accepted: Largest difference within the tolerance.
        damaged: Files that have no frame here because they are damaged.
        findings: By file and frame, once all is done.
    """

    frames: int = 0
    resumed: int = 0
    decoded: int = 0
    compared: int = 0
    single: int = 0
    largest_accepted: int = 0
    damaged: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no file is damaged, every frame was decoded, and none differs."""
        return not self.findings and not self.damaged

    def add(self, unit: Result) -> None:
        """Counts in what was found in a part."""
        for name in ("frames", "resumed", "decoded", "compared", "single"):
            setattr(self, name, getattr(self, name) + getattr(unit, name))
        self.largest_accepted = max(self.largest_accepted, unit.largest_accepted)
        self.findings += unit.findings


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
        self._readers = [FrameReader(index, name) for name in self._asked]
        self._names: dict[ImagePixel, tuple[str, ...]] = {}
        self._tolerance = tolerance
        self._threads = num_threads or usable_threads()
        self._stop = threading.Event()
        self._settings = _FORMAT | {
            "backend": backend,
            "against": against or "",
            "tolerance": tolerance,
        }
        self._state = None if state is None else Path(state)

    def __iter__(self) -> Iterator[int]:
        with contextlib.ExitStack() as stack:
            state = stack.enter_context(_State(self._state, self._settings))
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

    def _finish(self, key: str, future: Future[Result | None], state: _State) -> int:
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
        text = repr((self.index.path(unit[0]), where.size, where.mtime_ns, frames))
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
    starts = np.flatnonzero(np.diff(files, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(files)], strict=True):
        for first in range(int(start), int(end), _UNIT_FRAMES):
            yield list(range(first, min(first + _UNIT_FRAMES, int(end))))


class _State:
    """What is done already: a line of JSON for each unit, the settings in the first one."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._path = path
        self._settings = settings
        self._known: dict[str, Result] = {}
        self._file: BinaryIO | None = None

    def __enter__(self) -> _State:
        if self._path is not None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            self._file = os.fdopen(descriptor, "r+b")
            try:
                self._lock(self._file)
                self._read(self._file)
            except BaseException:
                self._file.close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _lock(self, file: BinaryIO) -> None:
        """For this process alone, until the file is closed; where there are no such locks, there is none."""
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OptionError(
                f"{self._path} is in use by another verify; wait for it, or name another file"
            ) from error
        except OSError:  # a file system without locks
            return

    def get(self, key: str) -> Result | None:
        """What is known of a unit."""
        return self._known.get(key)

    def add(self, key: str, found: Result) -> None:
        """Notes a unit that is done; one with failures is tried again, for the disk or the network may be to blame."""
        if self._file is None or any(one.kind == "failure" for one in found.findings):
            return
        entry = {name: getattr(found, name) for name in _NOTED}
        entry["findings"] = [
            {name: value for name, value in asdict(finding).items() if name != "file"}
            for finding in found.findings
        ]
        self._write({"key": key, **entry})

    def _read(self, file: BinaryIO) -> None:
        lines = file.read().split(b"\n")
        if len(lines) == 1 and json.dumps(self._settings).encode().startswith(lines[0]):
            file.truncate(0)  # new, or written no further than into its first line
            file.seek(0)
            self._write(self._settings)
            return
        try:
            self._check(json.loads(lines[0]))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(
                f"{self._path} is no state file of verify; name another file"
            ) from error
        try:
            for line in lines[1:-1]:
                entry = json.loads(line)
                findings = [Finding(file=-1, **finding) for finding in entry["findings"]]
                noted = {name: int(entry[name]) for name in _NOTED}
                self._known[entry["key"]] = Result(**noted, findings=findings)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise OptionError(
                f"{self._path} is a damaged state file of verify; remove it to start again"
            ) from error
        end = sum(len(line) + 1 for line in lines[:-1])
        file.truncate(end)  # what follows was not written to its end
        file.seek(end)

    def _check(self, entry: dict[str, Any]) -> None:
        if {name: entry[name] for name in _FORMAT} != _FORMAT:
            raise ValueError
        if entry != self._settings:
            names = ("backend", "against", "tolerance")
            before = ", ".join(f"{name} {entry.get(name)!r}" for name in names)
            now = ", ".join(f"{name} {self._settings[name]!r}" for name in names)
            raise OptionError(
                f"{self._path} belongs to a run with {before}; this one has {now}. Name another file"
            )

    def _write(self, entry: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()  # a process that is killed loses no more than what it is at


_NOTED = ("frames", "decoded", "compared", "single", "largest_accepted")


def to_json(result: Result, index: FrameIndex, *, redact_paths: bool = False) -> dict[str, Any]:
    """Plain values, ready for `json.dumps`; files are named by path, or by number."""
    return {
        "frames": result.frames,
        "resumed": result.resumed,
        "decoded": result.decoded,
        "compared": result.compared,
        "not_compared": result.single,
        "damaged_files": result.damaged,
        "largest_accepted_difference": result.largest_accepted,
        "findings": [
            {
                **name_file(index, finding.file, redact_paths=redact_paths),
                **{name: value for name, value in asdict(finding).items() if name != "file"},
            }
            for finding in result.findings
        ],
    }


def format_result(result: Result, index: FrameIndex, *, redact_paths: bool = False) -> str:
    """The same as text for a terminal; frames of one file with the same error are one line."""
    lines = [f"{result.decoded:,} of {format_count(result.frames, 'frame')} decoded"]
    if result.compared:
        lines.append(
            f"{result.compared:,} compared with a second decoder; the largest difference within the tolerance is "
            f"{result.largest_accepted}"
        )
    if result.single:
        lines.append(
            f"{format_count(result.single, 'frame')} not compared: no second decoder for them"
        )
    if result.resumed:
        lines.append(f"{format_count(result.resumed, 'frame')} known from the state file")
    if result.damaged:
        damaged = format_count(result.damaged, "damaged file")
        lines.append(f"{damaged} without frames; `dicomtorch scan` gives the reason")
    blocks = ["\n".join(lines)]
    for kind, heading in (
        ("failure", "Failed"),
        ("unsupported", "Not decoded by this backend"),
        ("difference", "Different"),
    ):
        alike: dict[tuple[int, str, str], list[Finding]] = {}
        for finding in result.findings:
            if finding.kind == kind:
                key = (finding.file, finding.backend, re.sub(r"\d+", "", finding.text))
                alike.setdefault(key, []).append(finding)
        if not alike:
            continue
        frames = sum(map(len, alike.values()))
        lines = [f"{heading} ({format_count(frames, 'time')}):"]
        for same in list(alike.values())[:_MOST_LISTED]:
            name = format_name(name_file(index, same[0].file, redact_paths=redact_paths))
            by = f" ({same[0].backend})" if same[0].backend else ""
            lines.append(f"  {name}, {_frames(same)}{by}: {harmless(same[0].text)}")
        if len(alike) > _MOST_LISTED:
            lines.append(f"  and {len(alike) - _MOST_LISTED:,} more; --json lists them all")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _frames(findings: Sequence[Finding]) -> str:
    numbers = [str(finding.frame) for finding in findings]
    if len(numbers) == 1:
        return f"frame {numbers[0]}"
    more = f" and {len(numbers) - 5:,} more" if len(numbers) > 5 else ""
    return f"frames {', '.join(numbers[:5])}{more}"
