"""What two indexes have in common that a training set and a test set must not."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from dicomtorch.errors import OptionError, format_count
from dicomtorch.index import splits
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.splits import Groups
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import NATIVE
from dicomtorch.reader.fetch import FrameFetcher

Kind = Literal["patients", "studies", "series", "instances", "pixel data"]

_PROGRESS_DELAY = 2.0  # seconds


class HasIndex(Protocol):
    """A dataset with an index, as `DicomFrames` is."""

    @property
    def index(self) -> FrameIndex:
        """The index."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """Something that two indexes share.

    Attributes:
        kind: What it is.
        first: Number of the one index among those given.
        second: Number of the other.
        count: How many patients, studies, ... there are in both; frames for pixel data.
        frames: Positions in the first and in the second index that belong to them.
    """

    kind: Kind
    first: int
    second: int
    count: int
    frames: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


class Leakage(tuple[Overlap, ...]):
    """All overlaps that were found; false if there are none."""

    __slots__ = ()

    def __str__(self) -> str:
        if not self:
            return "nothing is shared"
        return "\n".join(
            f"{_what(one)} in both part {one.first} and part {one.second}: "
            f"{' and '.join(format_count(len(frames), 'frame') for frames in one.frames)}"
            for one in self
        )

    __repr__ = __str__


def _what(one: Overlap) -> str:
    if one.kind == "pixel data":
        return f"pixel data of {format_count(one.count, 'frame')}"
    singular = {"patients": "patient", "studies": "study", "instances": "instance"}
    return f"{one.count:,} {one.kind if one.count != 1 else singular.get(one.kind, one.kind)}"


def check_leakage(*indexes: FrameIndex | HasIndex, pixels: bool = True) -> Leakage:
    """Finds patients, studies, series, instances and pixel data that are in more than one index.

    Pixel data are compared as they are stored: copies under another UID or patient are found, frames that were
    compressed anew are not. Uncompressed frames of one single value do not count, because empty slices are alike.

    Args:
        indexes: Two or more, or datasets that have one.
        pixels: Whether to read and compare the pixel data of all frames that could be equal.

    Returns:
        What is shared, empty if nothing is; printed, it identifies nobody. Each `Overlap` has the positions of its
        frames, so that `index.path(k)` shows the files and `index.select(mask)` leaves them out.

    Raises:
        OptionError: There are less than two indexes.
        DicomTorchError: The pixel data of a frame cannot be read.

    Example:
        >>> train, test = index.split([0.8, 0.2])                # doctest: +SKIP
        >>> assert not check_leakage(train, test)                # doctest: +SKIP
    """
    if len(indexes) < 2:
        raise OptionError(f"check_leakage compares two indexes or more; got {len(indexes)}")
    plain = [one if isinstance(one, FrameIndex) else one.index for one in indexes]
    kinds: dict[Kind, Callable[[FrameIndex], Groups]] = {
        "patients": _patients,
        "studies": lambda index: _by(index, "StudyInstanceUID"),
        "series": lambda index: _by(index, "SeriesInstanceUID"),
        "instances": lambda index: _by(index, "SOPInstanceUID"),
    }
    found: list[Overlap] = []
    for kind, groups in kinds.items():
        found += _overlaps(kind, [groups(index) for index in plain])
    if pixels:
        found += _overlaps("pixel data", _pixel_data(plain))
    return Leakage(found)


def _patients(index: FrameIndex) -> Groups:
    names = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
    return splits.by_patient(*(index.column(name) for name in names))[0]


def _by(index: FrameIndex, name: str) -> Groups:
    groups = splits.group_by([index.column(name)])
    return groups._replace(keys=[b"" if key == b"0:" else key for key in groups.keys])


def _overlaps(kind: Kind, groups: list[Groups]) -> Iterator[Overlap]:
    known = [set(one.keys) - {b""} for one in groups]
    for i, j in itertools.combinations(range(len(groups)), 2):
        shared = known[i] & known[j]
        if shared:
            frames = (_frames(groups[i], shared), _frames(groups[j], shared))
            count = len(frames[0]) if kind == "pixel data" else len(shared)
            yield Overlap(kind, i, j, count, frames)


def _frames(groups: Groups, shared: set[bytes]) -> npt.NDArray[np.int64]:
    is_shared = np.array([key in shared for key in groups.keys], np.bool_)
    return np.flatnonzero(is_shared[groups.number])


def _pixel_data(indexes: list[FrameIndex]) -> list[Groups]:
    """Frames by a digest of their encoded bytes; b"" where no frame of another index could be equal."""
    looks = [_looks(index) for index in indexes]
    met: dict[tuple[Any, ...], set[int]] = {}
    for k, mine in enumerate(looks):
        for look in set(mine):
            met.setdefault(look, set()).add(k)
    result = []
    for index, mine in zip(indexes, looks, strict=True):
        wanted = [i for i, look in enumerate(mine) if len(met[look]) > 1]
        numbers: dict[bytes, int] = {b"": 0}
        number = np.zeros(len(index), np.int64)
        for position, digest in _digests(index, wanted):
            number[position] = numbers.setdefault(digest, len(numbers))
        result.append(Groups(number, list(numbers)))
    return result


def _looks(index: FrameIndex) -> list[tuple[Any, ...]]:
    """What is equal for frames whose bytes can be."""
    looks = {}
    for number, position in zip(
        *np.unique(index.column("image_pixel"), return_index=True), strict=True
    ):
        pixel = index.image_pixel(int(position))
        syntax = pixel.transfer_syntax_uid
        looks[int(number)] = (
            pixel.shape,
            pixel.bits_allocated,
            "" if syntax in NATIVE else syntax,
        )
    # Not their lengths: fragments, and bits in front of a frame, change these.
    return [looks[number] for number in np.asarray(index.column("image_pixel")).tolist()]


def _digests(index: FrameIndex, positions: list[int]) -> Iterator[tuple[int, bytes]]:
    located = index.locate(positions) if positions else []
    fetcher = FrameFetcher(index)
    for where in tqdm(
        sorted(located, key=lambda one: (one.file, one.span)),
        desc="compare",
        unit="frame",
        delay=_PROGRESS_DELAY,
        disable=None,
        leave=False,
    ):
        pixel = index.image_pixel(where.position)
        yield where.position, _digest(fetcher.encoded(where.position), pixel)


def _digest(data: bytes, pixel: ImagePixel) -> bytes:
    if pixel.transfer_syntax_uid in NATIVE:
        octets = np.frombuffer(data, np.uint8)
        if pixel.bits_allocated == 1:
            is_empty = int(np.unpackbits(octets).sum()) in (0, pixel.native_bits)
        else:
            step = max(1, pixel.bits_allocated * pixel.samples_per_pixel // 8)
            is_empty = np.array_equal(octets[step:], octets[:-step])
        if is_empty:
            return b""
    return hashlib.blake2b(data, digest_size=16).digest()
