"""What is kept of frames on a disk of this machine, and what names it.

Encoded frames of remote objects and of DICOMweb servers are kept as they came where `storage_options` has
`range_cache`: the same files, folder rules and bounds as those of decoded frames (`cache`), below a folder of their
own. An entry is named by the address of the object and its version, so that one that changed is asked for again once
the index says so. The version of an instance of a DICOMweb server is the checksum of the header that was scanned.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from dicomtorch.backends.base import Backend
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.index.purge import RANGES
from dicomtorch.model.image import ImagePixel
from dicomtorch.reader.cache import FrameCache, frame_key
from dicomtorch.reader.open_files import OpenFiles, identity_of
from dicomtorch.reader.web import FrameSource, WebFrames
from dicomtorch.storage.base import ByteRange, Scratch, Storage
from dicomtorch.storage.remote import RemoteStorage

_MOST = (1 << 31) - 1024  # bytes of a range that is kept: what an entry can have
_FIRST_BYTES = 4096  # of a frame, whose checksum is in the key of its decoded values


class KeptRanges:
    """Ranges and frames that were read before; shared by threads and processes, picklable.

    Args:
        folder: Below which they are.
        max_bytes: What they may take.

    Raises:
        OptionError: The folder cannot be made, or belongs to another user.
    """

    def __init__(self, folder: str, max_bytes: int) -> None:
        self._cache = FrameCache(Path(folder) / RANGES, max_bytes)

    @classmethod
    def of(cls, source: Storage | FrameSource) -> KeptRanges | None:
        """Those that the options of a storage, or of a source of frames, ask for."""
        if not isinstance(source, RemoteStorage | WebFrames) or source.settings.range_cache is None:
            return None
        return cls(source.settings.range_cache, source.settings.range_cache_bytes)

    def read(self, wanted: ByteRange, scratch: Scratch) -> memoryview | None:
        """A range, in `scratch` or memory of its own; `None` if it is not there in whole."""
        found = self._cache.read_array(_key(wanted), scratch, wanted.length)
        if found is None or found.nbytes != wanted.length:
            return None
        return found.data.cast("B")

    def write(self, wanted: ByteRange, data: memoryview) -> None:
        """Keeps a range, if there is room."""
        if wanted.length <= _MOST:
            self._cache.write(_key(wanted), np.frombuffer(data, np.uint8))

    def has_frame(self, index: FrameIndex, where: FrameLocation) -> bool:
        """Whether a frame that a server gave is there, whole or not."""
        return bool(where.version) and self._cache.has(_frame_key(index, where))

    def read_frame(
        self, index: FrameIndex, where: FrameLocation, scratch: Scratch
    ) -> memoryview | None:
        """The bytes of a frame that a server gave, in `scratch` or memory of its own; `None` if it is not there."""
        if not where.version:
            return None
        found = self._cache.read_array(_frame_key(index, where), scratch, _MOST)
        return None if found is None else found.data.cast("B")

    def write_frame(self, index: FrameIndex, where: FrameLocation, data: memoryview) -> None:
        """Keeps a frame that is what the index says, if there is room, and the scan said which version it is."""
        if where.version and len(data) <= _MOST:
            self._cache.write(_frame_key(index, where), np.frombuffer(data, np.uint8))

    def missing(self, ranges: list[ByteRange]) -> list[ByteRange]:
        """Those that are not there."""
        return [wanted for wanted in ranges if not self._cache.has(_key(wanted))]


def _key(wanted: ByteRange) -> bytes:
    """What names a range, 32 bytes."""
    name, identity, offset, length = wanted
    text = repr((name, identity.version, identity.size, offset, length))
    return hashlib.sha256(b"range" + text.encode()).digest()


def _frame_key(index: FrameIndex, where: FrameLocation) -> bytes:
    """What names a frame that a server gives, 32 bytes."""
    paths: Any = index.files["path"]
    pixel = index.image_pixel(where.position)
    about = (where.version, where.span.offset, pixel.transfer_syntax_uid, pixel.native_bits)
    text = repr((index.root, paths[where.file], *about))
    return hashlib.sha256(b"given" + text.encode()).digest()


def stored_key(
    where: FrameLocation, files: OpenFiles, pixel: ImagePixel, backend: Backend
) -> bytes:
    """What names the decoded values of a frame in the cache, see `frame_key`.

    Raises:
        StaleIndexError: Its file is not the one that was indexed.
        StorageError: It cannot be read.
    """
    # First, because a file that changed since it was indexed is an error, whatever is kept of it. The version of a
    # remote object says as much without a request.
    if where.version:
        identity, first = identity_of(where), where.version.encode()
    else:
        identity, first = files.beginning(where, _FIRST_BYTES)
    index = files.index
    at = np.array([where.position])
    (uid,) = index.gather("SOPInstanceUID", at)
    paths: Any = index.files["path"]
    return frame_key(
        uid=uid,
        path=paths[where.file] if uid else index.file_path(where.file),
        frame=index.gather("frame", at)[0],
        size=where.size,
        mtime_ns=where.mtime_ns,
        inode=identity.inode,
        first=zlib.crc32(first),
        span=tuple(where.span),
        pixel=pixel,
        backend=backend,
    )
