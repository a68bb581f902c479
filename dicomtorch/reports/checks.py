"""The checks of `doctor`: each looks at columns of an index, or at the files of a report, and says what it found."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dicomtorch.backends.capability import Capability
from dicomtorch.errors import format_count
from dicomtorch.index.burned_in import OFTEN_BURNED_IN, SECONDARY_CAPTURE
from dicomtorch.index.burned_in import burned_in as masks_of_burned_in
from dicomtorch.index.codes import Codes, numbered
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.report import FileClass, ScanReport
from dicomtorch.model.shown import shown

Level = Literal["problem", "warning", "note"]
Mask = npt.NDArray[np.bool_]

_CROSS_SECTIONAL = ("CT", "MR", "PT")
_NOT_WINDOWED = ("SEG", "RTDOSE")


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to know.

    Attributes:
        check: Its name, the same in every version.
        level: "problem": frames are lost or cannot be used. "warning": something that spoils a training or gives away
            a patient when it goes unnoticed. "note": good to know.
        text: What was found, with numbers.
        advice: What to do about it.
        frames: How many frames it concerns.
        files: Rows of the index's files table: those concerned, or one for each series where it is about series.
    """

    check: str
    level: Level
    text: str
    advice: str
    frames: int
    files: tuple[int, ...] = ()


def of_files(report: ScanReport, index: FrameIndex) -> list[Remark]:
    """What the scan says of files as a whole.

    Args:
        report: The files.
        index: The frames.
    """
    return [*_lost_files(report), *_claimed(index), *_noticed(report)]


def of_frames(index: FrameIndex, decoding: Sequence[Capability]) -> list[Remark]:
    """What the columns of an index say; no pixel is read.

    Args:
        index: The frames.
        decoding: What decodes each kind of image in it.
    """
    remarks = _undecodable(index, decoding)
    if len(index):
        for check in (_windows, _ranges, burned_in, _duplicates, _geometry, _patients):
            remarks += check(index)
    return remarks


def _lost_files(report: ScanReport) -> list[Remark]:
    remarks = []
    kinds: tuple[tuple[FileClass, str, str], ...] = (
        ("unreadable", "damaged, so that none of their frames is here", "get them again"),
        ("unsupported", "of a kind that is not decoded", "convert them"),
    )
    for name, what, advice in kinds:
        files = tuple(report.findings.of_class(name))
        if files:
            text = f"{format_count(len(files), 'file')} {_verb(files)} {what}"
            advice = f"{advice}; `dicomtorch scan` gives the reason for each"
            remarks.append(Remark(name, "problem", text, advice, 0, files))
    return remarks


def _undecodable(index: FrameIndex, decoding: Sequence[Capability]) -> list[Remark]:
    remarks = []
    for kind in decoding:
        if kind.backends:
            continue
        pixel = kind.pixel
        mask = index.where(
            TransferSyntaxUID=pixel.transfer_syntax_uid,
            PhotometricInterpretation=pixel.photometric_interpretation,
            BitsAllocated=pixel.bits_allocated,
            BitsStored=pixel.bits_stored,
            HighBit=pixel.high_bit,
            SamplesPerPixel=pixel.samples_per_pixel,
        )
        photometric = shown("PhotometricInterpretation", pixel.photometric_interpretation)
        text = (
            f"{format_count(kind.frames, 'frame')} of {kind.syntax_name}, {photometric}, "
            f"{pixel.bits_stored} of {pixel.bits_allocated} bits, cannot be decoded"
        )
        files = _files(index, mask)
        remarks.append(Remark("decoding", "problem", text, kind.advice, kind.frames, files))
    return remarks


def _claimed(index: FrameIndex) -> list[Remark]:
    """Files whose number of frames is not what NumberOfFrames says; absent, it says 1."""
    claimed, found = (np.asarray(index.files[f"{what}_frames"]) for what in ("claimed", "found"))
    more = np.where(found < 0, 0, found - np.where(claimed < 0, 1, claimed))
    more[np.asarray(index.files["frames"]) == 0] = 0
    differ = np.flatnonzero(more).tolist()
    if not differ:
        return []
    lost, spare = int(-more[more < 0].sum()), int(more[more > 0].sum())
    text = (
        f"{format_count(len(differ), 'file')} {_verb(differ, 'claims', 'claim')} another number of frames "
        f"(NumberOfFrames) than there are"
    )
    text += (
        f": {format_count(lost, 'frame')} that they claim {'is' if lost == 1 else 'are'} missing"
        * (lost > 0)
    )
    text += f"{',' if lost else ':'} {format_count(spare, 'frame')} more than they claim" * (
        spare > 0
    )
    advice = "get the files again; frames that are not claimed are not read"
    return [Remark("claimed_frames", "problem", text, advice, lost + spare, tuple(differ))]


def _windows(index: FrameIndex) -> list[Remark]:
    """Series with several windows: their display values cannot be compared."""
    chosen = index.select(_windowed(index))
    names = ("WindowCenter", "WindowWidth", "windows", "VOILUTFunction")
    columns = itertools.chain([_lut_contents(chosen)], map(chosen.column, names))
    mapping = numbered(columns, len(chosen))  # one column after the other is gathered
    voi = _has_voi(chosen)
    mapping = np.where(voi, mapping, -1)  # a function alone says nothing
    series = numbered([chosen.column("SeriesInstanceUID")], len(chosen))
    pairs, first = _distinct_pairs(series, mapping)
    numbers, mappings = np.unique(pairs[:, 0], return_counts=True)
    differ = np.isin(pairs[:, 0], numbers[mappings > 1])
    if not differ.any():
        return []
    # A frame without any window is shown by its own range, which differs from every window.
    windows = np.unique(pairs[differ & voi[first], 0], return_counts=True)[1]
    numbers = numbers[mappings > 1]
    text = (
        f"{len(numbers):,} series with windows that differ from frame to frame, or that some frames lack; up to "
        f"{windows.max():,} in one: their display values cannot be compared"
    )
    advice = 'use window="series", name one as in window=(40, 400), or train on values="modality"'
    frames = int(np.isin(series, numbers).sum())
    files = _first_files(chosen, series, numbers)
    return [Remark("windows", "warning", text, advice, frames, files)]


def _ranges(index: FrameIndex) -> list[Remark]:
    """Series without a window: each frame is shown by its own range."""
    eight = np.asarray(index.column("BitsStored")) <= 8
    rescaled = ~np.isnan(np.asarray(index.column("RescaleSlope")))
    rescaled |= np.asarray(index.column("modality_lut")) >= 0
    chosen = index.select(_windowed(index) & ~_has_voi(index) & ~(eight & ~rescaled))
    series = numbered([chosen.column("SeriesInstanceUID")], len(chosen))
    numbers, frames = np.unique(series, return_counts=True)
    numbers, frames = numbers[frames > 1], frames[frames > 1]
    if not len(numbers):
        return []
    text = (
        f"{len(numbers):,} series of several frames without a window: in display values each frame spans its own "
        f"range"
    )
    advice = 'use window="series", name one as in window=(40, 400), or train on values="modality"'
    files = _first_files(chosen, series, numbers)
    return [Remark("no_window", "warning", text, advice, int(frames.sum()), files)]


def burned_in(index: FrameIndex) -> list[Remark]:
    """Images that may show names or faces: what files say of that, and kinds of images that often do."""
    found = masks_of_burned_in(index)
    look = "look at them (`dicomtorch preview`) before you pass them on"
    checks = (
        (
            "burned_in",
            found.stated,
            "with burned-in text (BurnedInAnnotation YES)",
            look,
        ),
        (
            "burned_in_unstated",
            found.unstated,
            f"of kinds that often have burned-in text ({', '.join(OFTEN_BURNED_IN)}), BurnedInAnnotation absent",
            look,
        ),
        (
            "recognizable",
            found.recognizable,
            "in which a person may be recognised (RecognizableVisualFeatures YES)",
            look,
        ),
        (
            "slide_labels",
            found.slide_labels,
            "of slide labels or overviews, which show names",
            "leave them out",
        ),
    )
    return [
        Remark(
            name,
            "warning",
            f"{format_count(int(mask.sum()), 'frame')} {what}",
            advice,
            int(mask.sum()),
            _files(index, mask),
        )
        for name, mask, what, advice in checks
        if mask.any()
    ]


def _duplicates(index: FrameIndex) -> list[Remark]:
    uids = index.column("SOPInstanceUID")
    files = np.asarray(index.column("file"), np.int64)
    several = np.flatnonzero(np.bincount(uids.codes, minlength=1)[uids.codes] > 1)
    pairs, _ = _distinct_pairs(uids.codes[several], files[several])
    empty = uids.code("")
    pairs = pairs[pairs[:, 0] != empty]
    codes, copies = np.unique(pairs[:, 0], return_counts=True)
    codes = codes[copies > 1]
    if not len(codes):
        return []
    repeated = np.isin(pairs[:, 0], codes)
    files = pairs[repeated, 1]
    text = (
        f"{format_count(len(codes), 'SOPInstanceUID')} {_verb(codes)} in more than one file, "
        f"{len(files):,} files in all: the same image "
        f"may count twice, or lie on both sides of a split"
    )
    advice = 'index.deduplicate("first") keeps one of each'
    frames = int(np.isin(uids.codes, codes).sum())
    return [Remark("duplicates", "warning", text, advice, frames, tuple(np.unique(files).tolist()))]


def _geometry(index: FrameIndex) -> list[Remark]:
    remarks = []
    sectional = index.where(Modality=_CROSS_SECTIONAL) & ~index.where(SOPClassUID=SECONDARY_CAPTURE)
    sectional &= index.where(mosaic="")  # slices of a sheet have places of their own
    of = f"of {', '.join(_CROSS_SECTIONAL)}"
    for check, names, what, advice in (
        (
            "position",
            ("ImagePositionPatient", "ImageOrientationPatient"),
            "without ImagePositionPatient or ImageOrientationPatient",
            "train on them as single frames; they make no volume",
        ),
        (
            "spacing",
            ("PixelSpacing",),
            "without PixelSpacing",
            "nothing is measured in millimetres there",
        ),
    ):
        lacking = np.zeros(len(index), np.bool_)
        for name in names:
            for numbers in np.asarray(index.column(name)).T:
                lacking |= np.isnan(numbers)
        lacking &= sectional
        count = int(lacking.sum())
        if count:
            text = f"{format_count(count, 'frame')} {of} {what}"
            remarks.append(Remark(check, "note", text, advice, count, _files(index, lacking)))
    return remarks


def _patients(index: FrameIndex) -> list[Remark]:
    nobody = index.where(PatientID="")
    count = int(nobody.sum())
    if not count:
        return []
    files = _files(index, nobody)
    text = (
        f"{format_count(len(files), 'file')} ({format_count(count, 'frame')}) {_verb(files, 'has', 'have')} an empty "
        f"PatientID"
    )
    advice = "each study then counts as a patient of its own in a split; join the IDs you know"
    return [Remark("patients", "warning", text, advice, count, files)]


def _noticed(report: ScanReport) -> list[Remark]:
    files = tuple(k for k in report.findings.told() if report.findings[k].file_class == "image")
    if not files:
        return []
    departs = _verb(files, "departs", "depart")
    text = f"{format_count(len(files), 'image file')} {departs} from the standard and can be read all the same"
    return [Remark("notices", "note", text, "`dicomtorch scan` lists what was odd", 0, files)]


def _windowed(index: FrameIndex) -> Mask:
    """Frames of some series to which a window would apply."""
    gray = np.asarray(index.column("SamplesPerPixel")) == 1
    palette = index.where(PhotometricInterpretation="PALETTE COLOR")
    other = index.where(Modality=_NOT_WINDOWED)
    nowhere = index.where(SeriesInstanceUID="")
    return np.asarray(gray & ~palette & ~other & ~nowhere, np.bool_)


def _distinct_pairs(one: Codes, other: Codes) -> tuple[Codes, Codes]:
    """((n, 2) pairs that there are, in order, the first row of each); `other` may be -1, too."""
    step = int(other.max(initial=0)) + 2
    keys, first = np.unique(one.astype(np.int64) * step + other + 1, return_index=True)
    return np.stack([keys // step, keys % step - 1], axis=1), first


def _has_voi(index: FrameIndex) -> Mask:
    window = ~np.isnan(np.asarray(index.column("WindowWidth")))
    return np.asarray(window | (np.asarray(index.column("voi_lut")) >= 0), np.bool_)


def _lut_contents(index: FrameIndex) -> Codes:
    """Equal numbers for frames whose VOI LUTs are equal, entry by entry; 0 for none."""
    rows, first, inverse = np.unique(
        np.asarray(index.column("voi_lut")), return_index=True, return_inverse=True
    )
    numbers = np.zeros(len(rows), np.int64)
    known: dict[bytes, int] = {}
    for k in np.flatnonzero(rows >= 0):
        content = hashlib.sha256()  # the tables themselves may be gigabytes
        for table in index.frame_values(int(first[k])).voi_luts:
            content.update(f"{table.first_mapped} {table.bits} {len(table.data)} ".encode())
            content.update(table.data.tobytes())
        numbers[k] = known.setdefault(content.digest(), len(known) + 1)
    return numbers[inverse]


def _files(index: FrameIndex, mask: Mask) -> tuple[int, ...]:
    return tuple(np.unique(np.asarray(index.column("file"))[mask]).tolist())


def _first_files(index: FrameIndex, series: Codes, numbers: Codes) -> tuple[int, ...]:
    """A file of each of these series."""
    known, first = np.unique(series, return_index=True)
    files = np.asarray(index.column("file"))[first[np.isin(known, numbers)]]
    return tuple(files.tolist())


def _verb(subjects: Sized, one: str = "is", many: str = "are") -> str:
    return one if len(subjects) == 1 else many
