"""Frames of a DICOMweb server (WADO-RS, PS3.18 section 10.4): as they are encoded there, several at once.

The second contract of sources: they give frames, where a storage gives ranges of bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.shown import named_uid
from dicomtorch.model.syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from dicomtorch.storage.ahead import request_pool
from dicomtorch.storage.multipart import split
from dicomtorch.storage.web import (
    FRAMES,
    StatusError,
    WebClient,
    client_for,
    encoding_of,
    real_url,
    remember_client,
)

_SAME_PIXELS: Final = frozenset((IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN))
_NOT_OF_A_FRAME: Final = frozenset((0, 401, 403, 429, 502, 503, 504))  # 0: there was no answer
_FORGOTTEN_SECONDS: Final = 60.0
_REFRESH: Final = "refresh the index (DicomFrames(root), or scan(root, index=old)) and start again"


class WantedFrame(NamedTuple):
    """A frame of an instance.

    Attributes:
        instance: Its address below the root.
        number: From 0.
        size: Bytes that it may take, for the budget.
    """

    instance: str
    number: int
    size: int


class GivenFrame(NamedTuple):
    """What a server gave.

    Attributes:
        data: The encoded frame.
        transfer_syntax_uid: That it is encoded with.
    """

    data: memoryview
    transfer_syntax_uid: str


class _Asked(NamedTuple):
    """A frame that was asked for."""

    future: Future[list[GivenFrame]]
    number: int  # in the answer
    frames: int  # in the answer
    size: int
    at: float


class WebFrames:
    """A source that gives frames, and no ranges. Picklable; in a forked process it begins anew.

    Args:
        root: A `dicomweb+https` address.
        client: Asks the server.
    """

    def __init__(self, root: bytes, client: WebClient | None = None) -> None:
        self._root = root
        self._client = client or client_for(root)
        self._url = real_url(root, self._client.settings)
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = ForkedLock()
        self._asked: dict[tuple[str, int], _Asked] = {}
        self._held = 0

    def need(self, wanted: Sequence[WantedFrame], *, now: bool = True) -> None:
        """Asks for frames that are read right away, or soon as far as the budget goes; many of an instance together."""
        settings = self._client.settings
        of_instance: dict[str, list[WantedFrame]] = {}
        with self._lock:
            if self._process != os.getpid():
                self._begin()
            if 2 * self._held > settings.prefetch_bytes:
                self._forget()
            for one in sorted(set(wanted)):
                if one[:2] not in self._asked:
                    of_instance.setdefault(one.instance, []).append(one)
            for group in of_instance.values():
                for first in range(0, len(group), settings.frames_per_request):
                    some = group[first : first + settings.frames_per_request]
                    size = sum(one.size for one in some)
                    if not now and self._held + size > settings.prefetch_bytes:
                        return
                    self._held += size
                    future = request_pool().submit(
                        self.fetch, some[0].instance, [one.number for one in some]
                    )
                    for k, one in enumerate(some):
                        self._asked[one[:2]] = _Asked(
                            future, k, len(some), one.size, time.monotonic()
                        )

    def _forget(self) -> None:
        """Lets go of what came long ago and nobody took, as after an epoch that was broken off."""
        old = time.monotonic() - _FORGOTTEN_SECONDS
        for key in [key for key, one in self._asked.items() if one.at < old and one.future.done()]:
            self._held -= self._asked.pop(key).size

    def take(self, wanted: WantedFrame) -> GivenFrame:
        """One frame; what was asked for ahead is there already, or soon.

        Raises:
            StaleIndexError: It is gone.
            StorageError: It was not given.
        """
        with self._lock:
            asked = self._asked.pop(wanted[:2], None) if self._process == os.getpid() else None
            if asked is not None:
                self._held -= asked.size
        if asked is not None:
            try:
                return asked.future.result()[asked.number]
            except (StaleIndexError, StorageError) as error:
                if asked.frames == 1 or getattr(error, "status", None) in _NOT_OF_A_FRAME:
                    raise
        # Of several frames another one may have been at fault.
        return self.fetch(wanted.instance, [wanted.number])[0]

    def fetch(self, instance: str, numbers: Sequence[int]) -> list[GivenFrame]:
        """Frames of one instance, in one request.

        Raises:
            StaleIndexError: The instance or a frame is gone.
            StorageError: They were not given.
        """
        listed = ",".join(str(number + 1) for number in numbers)
        try:
            answer = self._client.get(f"{self._url}/{instance}/frames/{listed}", FRAMES)
        except StatusError as error:
            if error.status in (404, 410):
                raise StaleIndexError(
                    f"the server has no such instance or frame ({error.status}) since it was indexed; {_REFRESH}"
                ) from None
            if error.status in (400, 406, 415):
                raise StorageError(
                    f"the server answered {error.status}: it does not give frames as they are encoded; export the "
                    f"series as files and read these"
                ) from None
            raise
        parts = split(answer.content_type, answer.data)
        if len(parts) != len(numbers):
            raise StorageError(f"the server gave {len(parts)} frames of {len(numbers)}")
        return [GivenFrame(part.data, encoding_of(part.content_type)) for part in parts]

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self._root, "client": self._client}

    def __setstate__(self, state: dict[str, Any]) -> None:
        remember_client(state["root"], state["client"])
        self.__init__(state["root"], state["client"])  # type: ignore[misc]


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
