"""The file in which `verify` notes what is done, so that a later run does only the rest."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from dicomtorch.errors import OptionError, printable, without_path
from dicomtorch.reports.verify_result import Finding, Result

FORMAT = {"format": "dicomtorch verify", "version": 1}
_NOTED = ("frames", "decoded", "compared", "single", "largest_accepted")


class VerifyState:
    """What is done already: a line of JSON for each unit, the settings in the first one."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._path = path
        self._name = "" if path is None else printable(path)
        self._settings = settings
        self._known: dict[str, Result] = {}
        self._file: BinaryIO | None = None

    def __enter__(self) -> VerifyState:
        if self._path is not None:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise OptionError(
                    f"the state file {self._name} cannot be opened ({error.strerror}); name a file in a folder that "
                    "is there and can be written"
                ) from without_path(error)
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
                f"{self._name} is in use by another verify; wait for it, or name another file"
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
                f"{self._name} is no state file of verify; name another file"
            ) from error
        try:
            for line in lines[1:-1]:
                entry = json.loads(line)
                findings = [Finding(file=-1, **finding) for finding in entry["findings"]]
                noted = {name: int(entry[name]) for name in _NOTED}
                self._known[entry["key"]] = Result(**noted, findings=findings)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise OptionError(
                f"{self._name} is a damaged state file of verify; remove it to start again"
            ) from error
        end = sum(len(line) + 1 for line in lines[:-1])
        file.truncate(end)  # what follows was not written to its end
        file.seek(end)

    def _check(self, entry: dict[str, Any]) -> None:
        if {name: entry[name] for name in FORMAT} != FORMAT:
            raise ValueError
        if entry != self._settings:
            names = ("backend", "against", "tolerance")
            before = ", ".join(f"{name} {entry.get(name)!r}" for name in names)
            now = ", ".join(f"{name} {self._settings[name]!r}" for name in names)
            raise OptionError(
                f"{self._name} belongs to a run with {before}; this one has {now}. Name another file"
            )

    def _write(self, entry: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()  # a process that is killed loses no more than what it is at
