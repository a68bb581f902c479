"""What a scan says of the files that it read."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, overload

import numpy as np
import numpy.typing as npt

from dicomtorch._forks import lazy
from dicomtorch.errors import format_count

FileClass = Literal["image", "no_pixels", "unsupported", "not_dicom", "unreadable"]
FILE_CLASSES: Final[tuple[FileClass, ...]] = get_args(FileClass)
CLASS_NAMES = {
    "image": "images",
    "no_pixels": "DICOM without pixels",
    "unsupported": "images that are not decoded",
    "not_dicom": "not DICOM",
    "unreadable": "damaged",
}
"""What reports call each class."""


@dataclass(frozen=True, slots=True)
class FileFinding:
    """One file in a report.

    Attributes:
        path: As `os.fsdecode` has it.
        file_class: One of `FILE_CLASSES`: "image" has rows; "no_pixels" is DICOM without an image; "unsupported" is an
            image that is not decoded by design; "not_dicom" was passed over; "unreadable" is damaged.
        reason: One line, without identifiers; for "image" a notice about what was odd, or "".
    """

    path: str
    file_class: FileClass
    reason: str = ""


class Findings(Sequence[FileFinding]):
    """One finding a file, made when it is asked for: a million files are no objects.

    Args:
        paths: Of the files, as bytes.
        classes: (n,), the place of each one's class in `FILE_CLASSES`.
        reasons: Why a file has no frames, or "".
        notices: What was odd, or "".
        said: (n,), whether there is a reason or a notice.
    """

    def __init__(
        self,
        paths: Sequence[bytes],
        classes: npt.NDArray[np.int8],
        reasons: Sequence[str],
        notices: Sequence[str],
        said: npt.NDArray[np.bool_],
    ) -> None:
        self._paths, self._classes = paths, classes
        self._reasons, self._notices = reasons, notices
        self._said = said

    def __len__(self) -> int:
        return len(self._classes)

    @overload
    def __getitem__(self, i: int) -> FileFinding: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[FileFinding, ...]: ...
    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return tuple(self[k] for k in range(*i.indices(len(self))))
        reason, notices = (self._reasons[i], self._notices[i]) if self._said[i] else ("", "")
        return FileFinding(
            os.fsdecode(self._paths[i]),
            FILE_CLASSES[self._classes[i]],
            f"{reason}; {notices}" if reason and notices else reason or notices,
        )

    def __iter__(self) -> Iterator[FileFinding]:
        return (self[k] for k in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Findings | tuple):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        """Numbers only: findings name files."""
        return f"Findings({format_count(len(self), 'file')})"

    def counts(self) -> dict[FileClass, int]:
        """Files per class, every class present."""
        found = np.bincount(self._classes, minlength=len(FILE_CLASSES)).tolist()
        return dict(zip(FILE_CLASSES, found, strict=True))

    def of_class(self, file_class: FileClass) -> list[int]:
        """Places of the files of a class."""
        return np.flatnonzero(self._classes == FILE_CLASSES.index(file_class)).tolist()

    def told(self) -> list[int]:
        """Places of the files that have something to say: a reason, a notice, or another class than "image"."""
        return np.flatnonzero(self._said | (self._classes != 0)).tolist()


NOTHING: Final = Findings((), np.zeros(0, np.int8), (), (), np.zeros(0, np.bool_))
"""Of no file."""


@dataclass(frozen=True, repr=False)
class ScanReport:
    """What a scan met.

    Attributes:
        findings: One per file, in scan order; a sequence.
        read: Files whose header was read in this scan.
        reused: Files that were taken over from the index given.
        removed: Files of the index given that are no longer there.
        seconds: Wall time.
        requests: Made for remote objects that were read.
        bytes_read: What came.
        duplicates: Files with frames whose SOPInstanceUID an earlier file has.
    """

    findings: Findings = NOTHING
    read: int = 0
    reused: int = 0
    removed: int = 0
    seconds: float = 0.0
    duplicates: int = 0
    requests: int = 0
    bytes_read: int = 0

    def __repr__(self) -> str:
        """Numbers only: findings name files."""
        found = ", ".join(f"{n:,} {CLASS_NAMES[name]}" for name, n in self.counts.items() if n)
        copies = f"; {self.duplicates:,} repeat a SOPInstanceUID" if self.duplicates else ""
        asked = f", {self.requests:,} requests" if self.requests else ""
        return (
            f"ScanReport({format_count(len(self.findings), 'file')}{found and f': {found}'}{copies}; "
            f"{self.read:,} read, {self.reused:,} known, {self.removed:,} gone{asked}, {self.seconds:.1f} s)"
        )

    @lazy
    def counts(self) -> dict[str, int]:
        """Files per class, every class present."""
        return {str(name): count for name, count in self.findings.counts().items()}
