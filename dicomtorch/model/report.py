"""What a scan says of the files that it read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dicomtorch._forks import lazy

FILE_CLASSES = ("image", "no_pixels", "unsupported", "not_dicom", "unreadable")
CLASS_NAMES = {
    "image": "images",
    "no_pixels": "DICOM without pixels",
    "unsupported": "images that are not decoded",
    "not_dicom": "not DICOM",
    "unreadable": "damaged",
}
"""What reports call each class."""

FileClass = Literal["image", "no_pixels", "unsupported", "not_dicom", "unreadable"]


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


@dataclass(frozen=True, repr=False)
class ScanReport:
    """What a scan met.

    Attributes:
        findings: One per file, in scan order.
        read: Files whose header was read in this scan.
        reused: Files that were taken over from the index given.
        removed: Files of the index given that are no longer there.
        seconds: Wall time.
        duplicates: Files with frames whose SOPInstanceUID an earlier file has.
    """

    findings: tuple[FileFinding, ...] = ()
    read: int = 0
    reused: int = 0
    removed: int = 0
    seconds: float = 0.0
    duplicates: int = 0

    def __repr__(self) -> str:
        """Numbers only: findings name files."""
        found = ", ".join(f"{n:,} {CLASS_NAMES[name]}" for name, n in self.counts.items() if n)
        copies = f"; {self.duplicates:,} repeat a SOPInstanceUID" if self.duplicates else ""
        return (
            f"ScanReport({len(self.findings):,} files{found and f': {found}'}{copies}; {self.read:,} read, "
            f"{self.reused:,} known, {self.removed:,} gone, {self.seconds:.1f} s)"
        )

    @lazy
    def counts(self) -> dict[str, int]:
        """Files per class, every class present."""
        counts = dict.fromkeys(FILE_CLASSES, 0)
        for finding in self.findings:
            counts[finding.file_class] += 1
        return counts
