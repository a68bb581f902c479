"""`FrameFetcher`: rows of an index -> encoded bytes -> stored values.

Nothing else in the package reads the bytes of a frame.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.backends.base import Backend, decoding
from dicomtorch.backends.guard import check_claim
from dicomtorch.backends.reduced import decode_reduced, reduced_shape
from dicomtorch.dicom.fragments import align, join
from dicomtorch.errors import DicomTorchError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.index.members import DEFLATED, WEB
from dicomtorch.model.frame import Reduced
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.samples import new_samples
from dicomtorch.reader.cache import EXPENSIVE, FrameCache, reduced_key
from dicomtorch.reader.choice import ChosenBackends
from dicomtorch.reader.given import GivenReader
from dicomtorch.reader.inflated import inflated_range
from dicomtorch.reader.kept import KeptRanges, stored_key
from dicomtorch.reader.objects import KnownObjects
from dicomtorch.reader.open_files import OpenFiles, is_inflated
from dicomtorch.reader.rows import rows_of
from dicomtorch.reader.threads import FEW, decode_pool, usable_threads, worthwhile_threads
from dicomtorch.reader.web import FrameSource, WantedFrame, frames_of
from dicomtorch.storage.base import ByteRange, Scratch, Storage
from dicomtorch.storage.choose import remember, storage_for
from dicomtorch.storage.local import LocalStorage
from dicomtorch.storage.remote import RemoteStorage
from dicomtorch.storage.web import is_web

Array = npt.NDArray[Any]


class FrameFetcher:
    """Reads what the file has of a frame, and decodes it.

    Picklable, and safe to use from several threads and in forked processes; holds no open file.

    Args:
        index: What to read from.
        backends: What decodes it; not needed for encoded bytes.
        cache: Where decoded frames of the expensive syntaxes are kept.
        storage: Where the files of the index are; `None`: what the address of its root says.
    """

    def __init__(
        self,
        index: FrameIndex,
        backends: ChosenBackends | None = None,
        cache: FrameCache | None = None,
        storage: Storage | None = None,
    ) -> None:
        self.index = index
        self.backends = backends or ChosenBackends()
        self.cache = cache
        self.giver: FrameSource | None = frames_of(index.root) if is_web(index.root) else None
        # Where frames are given, nobody asks for ranges.
        self.storage = storage or (LocalStorage() if self.giver else storage_for(index.root))
        self.kept = KeptRanges.of(self.giver or self.storage)
        self._renew()

    def _renew(self) -> None:
        self._local = _Local()
        self._limits = self.index.limits
        self.objects = KnownObjects(self.index)

    def restricted(self, rows: npt.NDArray[np.int64]) -> FrameFetcher:
        """A fetcher of some positions of this one's index."""
        return FrameFetcher(self.index.select(rows), self.backends, self.cache, self.storage)

    def files(self, index: FrameIndex | None = None) -> OpenFiles:
        """The files of one thread that reads from the index, or from another one of the same scan."""
        return OpenFiles(index or self.index, self.storage)

    def each(
        self,
        located: Sequence[FrameLocation],
        work: Callable[[int, OpenFiles], None],
        num_threads: int | None,
        ranges: Callable[[], Sequence[ByteRange]] | None = None,
    ) -> None:
        """Calls `work` for each of several frames, in several threads, each in the order of files and offsets.

        Where there are fewer frames than threads, each frame may be decoded with several of them.

        Args:
            located: The frames.
            work: Takes the number of a frame in `located`, and the files of its thread.
            num_threads: At most so many at once; `None`: as many as this process may use and the work is worth.
            ranges: What is read of remote objects; `None`: the frames.
        """
        if self.is_remote:
            self.need(located, ranges)
        order = sorted(range(len(located)), key=lambda k: (located[k].file, located[k].span))
        most = num_threads or usable_threads()
        threads = min(most, len(order))
        if num_threads is None and threads > 1 and len(order) <= FEW:
            pixels = [self.index.image_pixel(where.position) for where in located]
            threads = min(threads, worthwhile_threads(pixels))

        def do(part: Sequence[int]) -> None:
            decoding.threads = most // max(threads, 1)
            try:
                with self.files() as files:
                    for k in part:
                        work(k, files)
            finally:
                decoding.threads = 1

        if threads <= 1:
            do(order)
            return
        bounds = [len(order) * k // threads for k in range(threads + 1)]
        parts = [order[a:b] for a, b in itertools.pairwise(bounds)]
        tasks = [decode_pool().submit(do, part) for part in parts[1:]]
        try:
            do(parts[0])
        finally:
            failures = [task.exception() for task in tasks]
        for failure in failures:
            if failure is not None:
                raise failure

    @property
    def is_remote(self) -> bool:
        """Whether frames come over a network."""
        return self.giver is not None or self.storage.is_remote

    def need(
        self,
        located: Sequence[FrameLocation],
        ranges: Callable[[], Sequence[ByteRange]] | None = None,
    ) -> None:
        """Asks for all of several frames that are read now, so that none is waited for alone."""
        if self.giver is not None:
            self.giver.need(self._asked(self.giver, located))
        elif isinstance(self.storage, RemoteStorage):
            self.storage.need(self._ranges(located) if ranges is None else ranges())

    def _ranges(self, located: Sequence[FrameLocation]) -> list[ByteRange]:
        """What has to be read of frames whose values or bytes are not kept."""
        return self.not_at_hand(
            [
                (where, self.byte_range(where))
                for where in located
                if not where.deflated and not self.is_decoded(where)
            ]
        )

    def not_at_hand(self, ranges: Sequence[tuple[FrameLocation, ByteRange]]) -> list[ByteRange]:
        """Those of the ranges of frames whose bytes are neither kept nor in an inflated member, as often as there."""
        wanted = [one for where, one in ranges if where.container != DEFLATED]
        members = [one for one in ranges if one[0].container == DEFLATED]
        wanted += dict.fromkeys(one for where, one in members if not is_inflated(self.index, where))
        if self.kept is None:
            return wanted
        missing = set(self.kept.missing([one for one in wanted if one.identity.version]))
        return [one for one in wanted if not one.identity.version or one in missing]

    def is_decoded(self, where: FrameLocation) -> bool:
        """Whether the decoded values of a frame may be in the cache."""
        if self.cache is None:
            return False
        pixel = self.index.image_pixel(where.position)
        if pixel.transfer_syntax_uid not in EXPENSIVE:
            return False
        if not where.version and where.container != WEB:  # only a request would tell
            return False
        try:
            backend = self.backends.of(pixel)
        except DicomTorchError:  # reading the frame says so
            return False
        return self.cache.has(stored_key(where, self.files(), pixel, backend))

    def _kept(self, where: FrameLocation, files: OpenFiles, scratch: Scratch) -> memoryview:
        """The bytes of a frame of a remote object, read where they are kept if they are."""
        assert self.kept is not None
        wanted = self.byte_range(where)
        data = self.kept.read(wanted, scratch)
        if data is None:
            data = files.of(where).read_exactly(wanted.offset, wanted.length, scratch)
            self.kept.write(wanted, data)
        return data

    def will_need(
        self,
        positions: Sequence[int],
        index: FrameIndex | None = None,
        *,
        is_known: bool = False,
    ) -> None:
        """Asks the storage to have frames at hand soon, of this index or another of its scan; it says no errors.

        Args:
            positions: Each as often as it is read.
            index: Of the positions.
            is_known: These reads may have been told before.
        """
        is_kept = self.cache is not None or self.kept is not None
        if isinstance(self.storage, RemoteStorage) and index is None and not is_kept:
            known = self.objects.ranges(np.asarray(positions, np.int64))
            if known is not None:
                self.storage.will_need(known, is_known=is_known)
                return
        located = (index or self.index).locate(positions)
        if self.giver is not None:
            self.giver.will_need(self._asked(self.giver, located, index), is_known=is_known)
        elif isinstance(self.storage, RemoteStorage):
            ranges = self._ranges(located) if index is None else map(self.byte_range, located)
            self.storage.will_need(list(ranges), is_known=is_known)
        else:
            self.storage.will_need([self.byte_range(where) for where in located])

    def _asked(
        self, giver: FrameSource, located: Sequence[FrameLocation], index: FrameIndex | None = None
    ) -> list[WantedFrame]:
        """What a source that gives frames is asked for: what is neither in the cache of decoded ones nor kept."""
        left = located if index else [one for one in located if not self.is_decoded(one)]
        return GivenReader(giver, self.kept, index or self.index).missing(left)

    def byte_range(
        self, where: FrameLocation, pixel: ImagePixel | None = None, rows: range | None = None
    ) -> ByteRange:
        """Where the bytes of a frame are, or those of some of its rows if `reads_rows` says that they are apart."""
        start, length = (0, 0) if where.deflated else where.span[:2]
        if pixel is not None and rows is not None:
            start, length = rows_of(start, pixel, rows)
        if where.container == DEFLATED or (where.container and where.deflated):
            member = self.index.member(where.file)
            start, length = member.offset, member.length
        return ByteRange(*self.objects.of(where), start, length)

    def encoded(self, position: int) -> bytes:
        """The code stream of one frame as the file has it: fragments joined, nothing decoded.

        Of a native frame that begins or ends inside a byte the first pixel is at bit 0, with zeros behind the last.

        Raises:
            DicomTorchError: It cannot be read; the message names file and frame.
        """
        pixel = self.index.image_pixel(position)
        with self.files() as files:
            try:
                (where,) = self.index.locate([position])
                data = self.read_encoded(where, files, pixel)
                if not (pixel.is_encapsulated or where.span.bit_offset) and pixel.native_bits % 8:
                    data = align(data, 0, pixel)
                return bytes(data)
            except DicomTorchError as error:
                raise self.named(error, position) from error

    def beginning(self, position: int, most: int) -> bytes:
        """The first bytes of the code stream of one frame; of several fragments no more than the first.

        Args:
            position: In the index, not negative.
            most: How many bytes at most, 8 at least.

        Raises:
            DicomTorchError: They cannot be read; the message names file and frame.
        """
        (where,) = self.index.locate([position])
        if where.deflated or not where.span[2]:
            return self.encoded(position)[:most]
        offset, length = where.span[:2]
        with self.files() as files:
            try:
                file = files.of(where)
                data = bytes(file.read_exactly(offset, min(length, most), self._local.scratch))
            except DicomTorchError as error:
                raise self.named(error, position) from error
        return data[8 : 8 + int.from_bytes(data[4:8], "little")]

    def read_encoded(
        self,
        where: FrameLocation,
        files: OpenFiles,
        pixel: ImagePixel,
        scratch: Scratch | None = None,
    ) -> memoryview | bytes:
        """The bytes of a frame that a decoder takes, in `scratch` or memory of this thread that the next overwrites."""
        if self.giver is not None:
            given = GivenReader(self.giver, self.kept, self.index)
            return given.read(where, pixel, scratch or self._local.scratch)
        offset, length, fragments, bit_offset, _ = where.span
        if where.deflated:
            data = inflated_range(where, files)
        elif self.kept is not None and where.version and where.container != DEFLATED:
            data = self._kept(where, files, scratch or self._local.scratch)
        else:
            data = files.of(where).read_exactly(offset, length, scratch or self._local.scratch)
        if fragments:
            return join(data, where.span)
        return align(data, bit_offset, pixel) if bit_offset else data

    def stored(
        self,
        where: FrameLocation,
        files: OpenFiles,
        pixel: ImagePixel,
        backend: Backend,
        out: Array | None = None,
    ) -> Array:
        """Stored values, in memory of this thread that the next frame overwrites, or in memory of their own.

        Decoders may write to `out`, of the shape and type of `pixel`, if it is given; not all do.
        """
        if self.cache is None or pixel.transfer_syntax_uid not in EXPENSIVE:
            return self._decoded(where, files, pixel, backend, out)
        key = stored_key(where, files, pixel, backend)
        stored = self.cache.read(
            key, pixel, self._local.scratch, self._local.decoded(pixel, self._limits)
        )
        if stored is None:
            stored = self._decoded(where, files, pixel, backend)
            self.cache.write(key, stored)
        return stored

    def reduced(
        self,
        where: FrameLocation,
        files: OpenFiles,
        pixel: ImagePixel,
        backend: Backend,
        levels: int,
    ) -> Reduced:
        """A frame at 1 / 2^levels of its resolution, in memory of its own or of this thread."""
        if self.cache is None or pixel.transfer_syntax_uid not in EXPENSIVE:
            return self._decoded_reduced(where, files, pixel, backend, levels)
        key = stored_key(where, files, pixel, backend)
        shape = reduced_shape(pixel, levels)
        small = replace(pixel, rows=shape[0], columns=shape[1])
        factor = 1 << levels
        # Where the samples lie follows from how they were decoded, which differs from stream to stream.
        offsets = (0.0, (factor - 1) / 2)
        for offset in offsets:
            kept = self.cache.read(
                reduced_key(key, factor, offset), small, self._local.scratch, None
            )
            if kept is not None:
                return Reduced(kept, factor, offset)
        made = self._decoded_reduced(where, files, pixel, backend, levels)
        self.cache.write(reduced_key(key, factor, made.offset), made.samples)
        return made

    def _decoded(
        self,
        where: FrameLocation,
        files: OpenFiles,
        pixel: ImagePixel,
        backend: Backend,
        out: Array | None = None,
    ) -> Array:
        data = self.read_encoded(where, files, pixel)
        return self.decode(data, where, files, pixel, backend, out)

    def decode(
        self,
        data: memoryview | bytes,
        where: FrameLocation,
        files: OpenFiles,
        pixel: ImagePixel,
        backend: Backend,
        out: Array | None,
    ) -> Array:
        """Stored values of what `read_encoded` gave; see `stored`."""
        decoding.where = lambda: printable(files.index.path(where.position))
        decoding.limits = self._limits
        try:
            if out is None:
                out = self._local.decoded(pixel, self._limits)
            return backend.decode(data, pixel, out)
        finally:
            decoding.where, decoding.limits = None, LIMITS

    def _decoded_reduced(
        self,
        where: FrameLocation,
        files: OpenFiles,
        pixel: ImagePixel,
        backend: Backend,
        levels: int,
    ) -> Reduced:
        data = self.read_encoded(where, files, pixel)
        decoding.where = lambda: printable(files.index.path(where.position))
        decoding.limits = self._limits
        try:
            out = self._local.decoded(pixel, self._limits)
            return decode_reduced(backend, data, pixel, levels, out)
        finally:
            decoding.where, decoding.limits = None, LIMITS

    def named(self, error: DicomTorchError, position: int) -> DicomTorchError:
        """The same error, its message naming file and frame."""
        frame = self.index.gather("frame", np.array([position]))[0]
        path = printable(self.index.path(position))
        named = type(error)(f"{path}, frame {frame} (index {position}): {error}")
        named.__cause__ = error
        return named

    def __getstate__(self) -> dict[str, Any]:
        own = ("_local", "_limits", "objects")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        remember(self.storage)
        self._renew()


class _Local(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.scratch = Scratch()
        self._decoded: Array = np.empty((0, 0))

    def decoded(self, pixel: ImagePixel, limits: Limits) -> Array | None:
        """An array that a decoder may write to; fresh pages for every frame would cost as much as a fast decoder."""
        if not pixel.is_encapsulated:
            return None
        if self._decoded.shape != pixel.shape or self._decoded.dtype != pixel.stored_dtype:
            check_claim(pixel, limits)
            self._decoded = new_samples(pixel.shape, pixel.stored_dtype)
        return self._decoded
