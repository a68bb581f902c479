"""Frames of a DICOMweb server (WADO-RS, PS3.18 section 10.4): as they are encoded there, several at once.

The second contract of sources: they give frames, where a storage gives ranges of bytes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import DicomTorchError, StaleIndexError, StorageError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.shown import named_uid
from dicomtorch.model.syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from dicomtorch.storage.ahead import Ahead, Request
from dicomtorch.storage.multipart import in_order
from dicomtorch.storage.web import (
    FRAMES,
    MOST_DAMAGED,
    StatusError,
    WebAnswer,
    WebClient,
    client_for,
    encoding_of,
    frames_in,
    real_url,
    remember_client,
)

_SAME_PIXELS: Final = frozenset(
    (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
)
_NOT_OF_A_FRAME: Final = frozenset((0, 401, 403, 406, 415, 429, 502, 503, 504))
"""Status codes that have nothing to do with which frames were asked for; 0: there was no answer."""
_GONE: Final = frozenset((404, 410))
_NOT_ENCODED: Final = frozenset((400, 406, 415))
_OFTEN: Final = 300  # answers after which more frames are asked for together again
_RATIO: Final = 4  # that a compressed frame is taken to be smaller by, before one comes
_SHARES: Final = 4  # of the budget, of which a request of several frames has one
_MOST_SIZES: Final = 8192  # instances whose frames' sizes are remembered
_REFRESH: Final = "refresh the index (DicomFrames(root), or scan(root, index=old)) and start again"


@dataclass(frozen=True, slots=True)
class WantedFrame:
    """A frame of an instance.

    Attributes:
        instance: Its address below the root.
        number: From 0.
        size: Bytes that it may take, for the budget; what it is does not depend on it.
        count: Frames of the instance, 0 if nobody knows; nor on this.
    """

    instance: str
    number: int
    size: int = field(compare=False)
    count: int = field(default=0, compare=False)


class GivenFrame(NamedTuple):
    """What a server gave.

    Attributes:
        data: The encoded frame.
        transfer_syntax_uid: That it is encoded with.
    """

    data: memoryview
    transfer_syntax_uid: str


class FrameSource(Protocol):
    """What gives frames; see `WebFrames`."""

    def will_need(self, wanted: Sequence[WantedFrame], *, is_known: bool = False) -> None:
        """Begins to ask for frames that are read soon."""

    def need(self, wanted: Sequence[WantedFrame]) -> None:
        """Asks for frames that are read right away."""

    def take(self, wanted: WantedFrame) -> GivenFrame:
        """One frame."""

    def take_many(self, wanted: Sequence[WantedFrame]) -> Sequence[GivenFrame | DicomTorchError]:
        """Several frames that are read right away, or what is wrong with each."""


class WebFrames(FrameSource):
    """A source that gives frames, and no ranges. Picklable; in a forked process it begins anew.

    Frames that are read soon are asked for ahead as ranges of objects are: those of one instance together, in one
    request those of several batches too, each once while somebody will read it, within `prefetch_bytes`.

    Args:
        root: A `dicomweb+https` address.
        client: Asks the server.

    Attributes:
        root: As given.
        settings: How it is asked.
        frames_per_request: As these say.
    """

    def __init__(self, root: bytes, client: WebClient | None = None) -> None:
        self.root = root
        self._client = client or client_for(root)
        self._url = real_url(root, self._client.settings)
        self.settings = settings = self._client.settings
        self.frames_per_request = settings.frames_per_request
        self._together = _Together(settings.frames_per_request)
        self._sizes: dict[str, int] = {}  # bytes of a frame of instances of which some came
        self._ahead: Ahead[WantedFrame, GivenFrame] = Ahead(
            self, settings.io_threads, int(settings.prefetch_bytes)
        )

    def will_need(self, wanted: Sequence[WantedFrame], *, is_known: bool = False) -> None:
        """Begins to ask for frames that are read soon, as far as the budget goes.

        Args:
            wanted: Each as often as it is read.
            is_known: These reads may have been told before.
        """
        self._ahead.ask(wanted, is_known=is_known)

    def need(self, wanted: Sequence[WantedFrame]) -> None:
        """Asks for frames that are read right away."""
        self._ahead.ask(wanted, now=True)

    def take(self, wanted: WantedFrame) -> GivenFrame:
        """One frame; what was asked for ahead is there already, or soon.

        Raises:
            StaleIndexError: It is gone.
            StorageError: It was not given.
        """
        try:
            found = self._ahead.take(wanted)
            return self.fetch(wanted.instance, [wanted.number])[0] if found is None else found
        except StatusError as error:
            raise StorageError(*error.args) from error

    def take_many(self, wanted: Sequence[WantedFrame]) -> list[GivenFrame | DicomTorchError]:
        """Several frames, asked for together, or what is wrong with each."""
        found: list[Any] = self._ahead.take_many(wanted)
        return [StorageError(*one.args) if isinstance(one, StatusError) else one for one in found]

    def group(self, wanted: WantedFrame) -> Hashable:
        """Of which instance a frame is; see `ahead.Planner`."""
        return wanted.instance

    def requests(self, reads: dict[WantedFrame, int]) -> Iterator[_FrameRequest]:
        """The requests for frames: those of one instance together, all but the last one full."""
        of_instance: dict[str, list[WantedFrame]] = {}
        for one in reads:
            of_instance.setdefault(one.instance, []).append(one)
        for wanted in of_instance.values():
            most = self._frames_like(wanted[0])
            for first in range(0, len(wanted), most):
                some = wanted[first : first + most]
                yield _FrameRequest(self, {one: reads[one] for one in some}, most)

    def _frames_like(self, wanted: WantedFrame) -> int:
        """Frames like this one that a request has: within a share of the budget, so that several are under way."""
        share = int(self.settings.prefetch_bytes) // _SHARES
        return max(1, min(self._together.most, share // max(self.size(wanted), 1)))

    def size(self, wanted: WantedFrame) -> int:
        """Bytes that a frame may take: as many as others of its instance took."""
        return self._sizes.get(wanted.instance, wanted.size)

    def fetch_each(
        self, instance: str, numbers: Sequence[int]
    ) -> list[GivenFrame | DicomTorchError]:
        """Frames of one instance, or what is wrong with each: where some are at fault, the others are given."""
        each: list[GivenFrame | DicomTorchError] = []
        while len(each) < len(numbers):
            each += self._fetch_some(instance, numbers[len(each) : len(each) + self._together.most])
        return each

    def _fetch_some(
        self, instance: str, numbers: Sequence[int]
    ) -> list[GivenFrame | DicomTorchError]:
        """The same in one request, if that is answered."""
        try:
            given = self.fetch(instance, numbers)
        except (StaleIndexError, StorageError) as error:
            if len(numbers) == 1 or getattr(error, "status", None) in _NOT_OF_A_FRAME:
                return [error] * len(numbers)
        else:
            self._learn(instance, given)
            return list(given)
        # Two tell at once whether lists are what the server refuses.
        first = len(numbers) // 2 if self._together.is_sure else min(2, len(numbers) - 1)
        each = self.fetch_each(instance, numbers[:first])
        each += self.fetch_each(instance, numbers[first:])
        if all(isinstance(one, GivenFrame) for one in each):
            self._together.refused(len(numbers))
        return each

    def _learn(self, instance: str, given: Sequence[GivenFrame]) -> None:
        self._together.given(len(given))
        if len(self._sizes) >= _MOST_SIZES:
            self._sizes.clear()
        self._sizes[instance] = max(len(one.data) for one in given)

    def fetch(self, instance: str, numbers: Sequence[int]) -> list[GivenFrame]:
        """Frames of one instance, in one request.

        Raises:
            StaleIndexError: The instance or a frame is gone.
            StorageError: They were not given.
        """
        names = [number + 1 for number in numbers]
        url = f"{self._url}/{instance}/frames/{','.join(map(str, names))}"
        again = MOST_DAMAGED if len(names) == 1 else int(self._together.is_sure)
        try:
            return self._client.read(url, FRAMES, lambda answer: _given(answer, names), again)
        except StatusError as error:
            if error.status in _GONE:
                raise StaleIndexError(
                    f"the server has no such instance or frame ({error.status}) since it was indexed; {_REFRESH}"
                ) from None
            if error.status in _NOT_ENCODED:
                raise StatusError.of(
                    error.status,
                    f"the server answered {error.status}: it does not give frames as they are encoded; export the "
                    f"series as files and read these",
                ) from None
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.root, self._client)


def _given(answer: WebAnswer, names: Sequence[int]) -> list[GivenFrame]:
    """The frames of an answer, by their numbers from 1."""
    parts = in_order(frames_in(answer), names)
    return [GivenFrame(part.data, encoding_of(part.content_type)) for part in parts]


class _Together:
    """How many frames a server gives in one answer: fewer than it is asked for, where it turns out to refuse these.

    Answers are refused for a while, too, and so more are tried again after many that were given. Used by several
    threads, which may count one answer less.

    Args:
        top: The most that it is asked for.

    Attributes:
        most: That it is asked for.
        is_sure: It gave several once.
    """

    def __init__(self, top: int) -> None:
        self._top = self.most = top
        self.is_sure = False
        self._refused = self._given = 0  # in a row

    def given(self, count: int) -> None:
        """So many came in one answer."""
        self.is_sure |= count > 1
        if count < self.most:
            return
        self._refused = 0
        self._given += 1
        if self._given >= _OFTEN:
            self._given = 0
            self.most = min(2 * self.most, self._top)

    def refused(self, count: int) -> None:
        """So many did not, and came all in answers of fewer: twice, or where nothing else is known, is too many."""
        if count > self.most:
            return
        self._refused += 1
        if self._refused > self.is_sure:
            self._refused = self._given = 0
            self.most = max(count // 2, 1)


class _FrameRequest(Request[WantedFrame, GivenFrame]):
    """Frames of one instance.

    Args:
        source: That gives them.
        reads: Frame -> how often it is read.
        most: Frames in a request.
    """

    __slots__ = ("_found", "_most", "_numbers", "_source", "group", "room")

    def __init__(self, source: WebFrames, reads: dict[WantedFrame, int], most: int) -> None:
        super().__init__(reads, sum(map(source.size, reads)))
        self._source = source
        self._numbers = [one.number for one in reads]
        self._found: dict[int, GivenFrame | DicomTorchError] = {}
        self.group = next(iter(reads)).instance
        self.room = most - len(reads)

    def add(self, wanted: WantedFrame, reads: int) -> None:
        super().add(wanted, reads)
        if wanted.number in self._numbers:  # who asked for it first waits for this request, too
            return
        self._numbers.append(wanted.number)
        self.size += self._source.size(wanted)
        self.room -= 1

    def fetch(self) -> None:
        numbers = sorted(self._numbers)
        found = self._source.fetch_each(str(self.group), numbers)
        self._found = dict(zip(numbers, found, strict=True))
        self.size = sum(len(one.data) for one in found if isinstance(one, GivenFrame))

    def given(self, wanted: WantedFrame) -> GivenFrame:
        found = self._found[wanted.number]
        if isinstance(found, DicomTorchError):
            raise type(found)(*found.args) from found
        return found


_of_root: dict[bytes, tuple[WebClient, WebFrames]] = {}
_lock: Final = ForkedLock()


def frames_of(root: bytes) -> WebFrames:
    """The source of an address: one for all that this process reads from there with these options."""
    with _lock:
        client = client_for(root)
        known = _of_root.get(root)
        if known is None or known[0] is not client:
            known = _of_root[root] = client, WebFrames(root, client)
        return known[1]


def _restored(root: bytes, client: WebClient) -> WebFrames:
    """The source in another process, which takes its options for those of the server if it has none."""
    remember_client(root, client)
    return frames_of(root)


def wanted_frames(index: FrameIndex, located: Sequence[FrameLocation]) -> list[WantedFrame]:
    """How the server of an index is asked for frames."""
    files: Any = index.files
    about: dict[int, tuple[str, int]] = {}  # looked up once for each instance
    found = []
    for where in located:
        known = about.get(where.file)
        if known is None:
            count = int(files["found_frames"][where.file])
            known = about[where.file] = files["path"][where.file].decode(), count
        size = where.span.length
        if not size:
            size = index.image_pixel(where.position).native_bits // (8 * _RATIO)
        found.append(WantedFrame(known[0], where.span.offset, size, known[1]))
    return found


def given_frame(given: GivenFrame, pixel: ImagePixel) -> memoryview:
    """The bytes of a frame that a decoder takes, if it is what the index says.

    Raises:
        StaleIndexError: It is encoded otherwise.
        StorageError: It has not the bytes that an uncompressed frame has.
    """
    expected = pixel.transfer_syntax_uid
    if (
        given.transfer_syntax_uid != expected
        and not {
            given.transfer_syntax_uid,
            expected,
        }
        <= _SAME_PIXELS
    ):
        raise StaleIndexError(
            f"the server gave the frame in {named_uid(given.transfer_syntax_uid)}, and the index has "
            f"{named_uid(expected)}; scan again with storage_options={{'probe': 'instance'}}"
        )
    if pixel.is_encapsulated:
        return given.data
    size = -(-pixel.native_bits // 8)
    if not size <= len(given.data) <= size + size % 2:
        raise StorageError(f"the server gave {len(given.data)} bytes of a frame that has {size}")
    return given.data[:size]
