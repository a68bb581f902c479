"""Decoded frames on disk, so that what is expensive to decode is decoded once.

One file a frame: a head, and the stored values as they are or packed by Blosc2 (LZ4 over shuffled bytes), whichever is
smaller. Of what imagecodecs has, that reads nearly as fast as raw values do and takes a half to two thirds of their
space; HTJ2K takes a fifth to three quarters less again and reads 5 to 9 times slower (`python -m benchmarks.cache`).

Nothing here is needed to read a frame: an entry that is damaged, gone or not for this file is decoded again, and where
nothing can be written reading goes on without. Entries become visible whole, by renaming, so a process may be killed
at any point. `room` counts their bytes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import math
import os
import stat
import struct
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import imagecodecs as _imagecodecs
import numpy as np
import numpy.typing as npt

from dicomtorch._version import __version__
from dicomtorch.backends.base import STORED_VALUES_VERSION, Backend
from dicomtorch.backends.isolated import inner
from dicomtorch.errors import OptionError, printable, without_path
from dicomtorch.index.locks import FileLock
from dicomtorch.index.private import is_ours, make_private_folder, open_private
from dicomtorch.index.purge import FRAMES
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_FAMILY,
    JPEG_2000_FAMILY,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
    JPEG_XL_FAMILY,
)
from dicomtorch.reader.room import Room
from dicomtorch.storage.base import Scratch

Array = npt.NDArray[Any]

EXPENSIVE = frozenset(
    {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN}
    | JPEG_LOSSLESS_FAMILY
    | JPEG_LS_FAMILY
    | JPEG_2000_FAMILY
    | HTJ2K_FAMILY
    | JPEG_XL_FAMILY
)
"""Syntaxes whose frames are kept: decoding takes at least 4 times as long as reading the entry, or inflates a file.
RLE takes 2 times; JPEG takes 2 to 5 times, but an entry is then 4 to 10 times larger than the frame in its file."""

DEFAULT_BYTES = 50_000_000_000

codecs: Any = _imagecodecs  # its types name fewer buffers than it takes
_logger = logging.getLogger("dicomtorch")

_MAGIC = b"DTFRAME1"
# magic, CRC-32 of all that follows it, packing, number of axes, type, shape, key; then zeros, to align the values
_HEAD = struct.Struct("<8sIBB4s3I32s")
_HEAD_BYTES = 128
_CRC_END = 12
_RAW, _BLOSC2 = 0, 1
_MOST_OF_ARRAY = 1 << 28  # bytes of an entry that is no frame
_BLOSC2_HEAD_BYTES = 32
_TYPES = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)) | {"f4", "f8"}

_TOUCH_SECONDS = 600.0  # how exactly the time of the last use is known
_FULL_SECONDS = 300.0  # how long a full cache is left alone
_DRAFT_SECONDS = 3600.0  # a draft this old belongs to a process that was killed
_LOCK_SECONDS = 10.0


class FrameCache:
    """Stored values of decoded frames in a folder of the user's; bounded, shared by threads and processes.

    When it is full, entries that were not used since this object was made go, those unused longest first. Entries that
    were used since stay, and further frames are not kept: were they evicted too, an epoch over more frames than fit
    would find next to nothing of the epoch before.

    Picklable, safe in threads and forked processes. It holds pixels: files and new folders are for their owner only,
    and nothing is believed that another user wrote.

    Args:
        folder: Made if it is not there. Deleting it is safe at any time.
        max_bytes: What all entries together may take; those being written, one for each thread, come on top.

    Raises:
        OptionError: `max_bytes` is not positive, or the folder cannot be made or belongs to another user.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = DEFAULT_BYTES) -> None:
        if max_bytes <= 0:
            raise OptionError(f"cache_bytes must be positive; got {max_bytes}")
        self.folder = Path(os.path.abspath(folder)) / FRAMES
        self.max_bytes = max_bytes
        self._since = time.time()
        self._room = Room(self.folder, max_bytes)
        try:
            make_private_folder(self._drafts)
            owned = is_ours(os.stat(self.folder))
        except OSError as error:
            raise OptionError(
                f"the cache folder {printable(folder)} cannot be made ({error.strerror}); name one that can be "
                f"written, or leave out cache="
            ) from without_path(error)
        if not owned:
            raise OptionError(
                f"the cache folder {printable(self.folder)} belongs to another user; name one of your own"
            )
        self._remove_drafts()
        self._renew()

    @property
    def _drafts(self) -> Path:
        return self.folder / "drafts"

    def _remove_drafts(self) -> None:
        """What processes left that were killed while they wrote."""
        forgotten = time.time() - _DRAFT_SECONDS
        with contextlib.suppress(OSError), os.scandir(self._drafts) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    if entry.stat(follow_symlinks=False).st_mtime < forgotten:
                        os.unlink(entry.path)

    def _renew(self) -> None:
        """What each process finds out by itself."""
        self._writes = True
        self._full_until = -math.inf
        self._said: set[str] = set()

    def read(
        self, key: bytes, pixel: ImagePixel, scratch: Scratch, out: Array | None
    ) -> Array | None:
        """The stored values of an entry, or `None` if there is none that is whole.

        Args:
            key: Of `frame_key`.
            pixel: Of the frame.
            scratch: Memory of the calling thread; the result may lie in it.
            out: Written to if shape and type fit.
        """
        return self._read(key, pixel.shape, _HEAD_BYTES + 8 * math.prod(pixel.shape), scratch, out)

    def read_array(self, key: bytes, scratch: Scratch, most: int = _MOST_OF_ARRAY) -> Array | None:
        """The same of other arrays that were written here, of at most so many bytes, whose shape is not known."""
        return self._read(key, None, most + _HEAD_BYTES, scratch, None)

    def _read(
        self,
        key: bytes,
        shape: tuple[int, ...] | None,
        most: int,
        scratch: Scratch,
        out: Array | None,
    ) -> Array | None:
        path = self._path(key)
        try:
            with open(path, "rb", buffering=0, opener=_open_entry) as file:
                info = os.fstat(file.fileno())
                if not (stat.S_ISREG(info.st_mode) and is_ours(info)):
                    self._say_once(
                        "an entry of the cache belongs to another user; it is not used, its frame decoded again"
                    )
                    return None
                if info.st_size > most:
                    view = memoryview(b"")
                else:
                    view = scratch.view(info.st_size)
                    view = view[: file.readinto(view)]
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say_once("an entry of the cache cannot be read; frames are decoded again", error)
            return None
        stored = _unpack(view, key, shape, out)
        with contextlib.suppress(OSError):  # it may be gone, or read-only
            if stored is None:
                path.unlink()
            elif info.st_mtime < max(self._since, time.time() - _TOUCH_SECONDS):
                os.utime(path)
        if stored is None:
            self._say_once(
                "an entry of the cache is damaged; it is removed, its frame decoded again"
            )
        return stored

    def has(self, key: bytes) -> bool:
        """Whether there is an entry, whole or not."""
        return self._path(key).exists()

    def write(self, key: bytes, stored: Array) -> None:
        """Keeps the stored values of a frame, if there is room; never raises for want of it."""
        if not self._writes or time.monotonic() < self._full_until:
            return
        parts = _pack(key, stored)
        size = sum(len(part) for part in parts)
        if size > self.max_bytes:
            return
        path = self._path(key)
        draft = self._drafts / uuid.uuid4().hex
        try:
            make_private_folder(path.parent)
            with open(draft, "xb", opener=open_private) as file:
                file.writelines(parts)
            if self._put(draft, path, size):
                return
            may_more_go = self._room.make(size, self._since)
            if not self._put(draft, path, size) and not may_more_go:
                self._full_until = time.monotonic() + _FULL_SECONDS
                self._say_once(
                    f"the cache {printable(self.folder.parent)} is full of frames that were used since this "
                    f"dataset was opened; further ones are not kept. cache_bytes={self.max_bytes:_} is what it may take"
                )
        except TimeoutError:
            self._full_until = time.monotonic() + _FULL_SECONDS
            self._say_once(
                f"another process holds the lock of the cache {printable(self.folder.parent)} for more than "
                f"{_LOCK_SECONDS:g} s; frames are not kept for some minutes, then it is tried again"
            )
        except OSError as error:
            self._writes = False
            self._say_once(
                f"decoded frames cannot be kept in {printable(self.folder.parent)}; this process goes on without",
                error,
            )
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def _put(self, draft: Path, path: Path, size: int) -> bool:
        """Makes an entry of a draft, if there is room."""
        with FileLock(self.folder / "lock", _LOCK_SECONDS) as lock:
            if not lock.exists:
                self._say_once(
                    f"the cache {printable(self.folder.parent)} is on a file system without locks: processes "
                    "that write at the same time may together exceed cache_bytes until it is counted again"
                )
            fits = self._room.take(size)
            if fits:
                os.replace(draft, path)
        return fits

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / f"{name[2:]}.frame"

    def _say_once(self, message: str, error: OSError | None = None) -> None:
        if message not in self._said:
            self._said.add(message)
            cause = "" if error is None else f" ({error.strerror or error})"
            _logger.warning("%s%s (said once)", message, cause)

    def __getstate__(self) -> dict[str, Any]:
        own = ("_writes", "_full_until", "_said")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()


def frame_key(
    *,
    uid: str,
    path: bytes,
    frame: int,
    size: int,
    mtime_ns: int,
    inode: int,
    first: int,
    span: tuple[int, ...],
    pixel: ImagePixel,
    backend: Backend,
) -> bytes:
    """What names the decoded values of a frame, 32 bytes.

    Args:
        uid: SOP Instance UID.
        path: Of the file. Relative where there is a UID, so that a tree may move: in badly made sets many files share
            a UID, and often size and time as well.
        frame: Within the file.
        size: Of the file, in bytes.
        mtime_ns: Of its last change.
        inode: Of the file, 0 if not known.
        first: Checksum of the first encoded bytes, which tells files of two roots apart that agree in all else.
        span: Where its bytes are.
        pixel: How they become stored values.
        backend: What decodes them; lossy streams differ from decoder to decoder, and from version to version.
    """
    kind = type(inner(backend))
    digest = hashlib.sha256(_decoder_key(pixel, kind.__module__, kind.__qualname__, backend.name))
    digest.update(repr((uid, path, frame, size, mtime_ns, inode, first, span)).encode())
    return digest.digest()


def reduced_key(key: bytes, factor: int, offset: float) -> bytes:
    """What names the same frame decoded at less than its resolution; see `Reduced`."""
    return hashlib.sha256(key + repr((factor, offset)).encode()).digest()


@functools.lru_cache(maxsize=1024)
def _decoder_key(pixel: ImagePixel, module: str, qualname: str, name: str) -> bytes:
    versions = (__version__, STORED_VALUES_VERSION, _versions(name))
    return repr((module, qualname, name, *versions, pixel)).encode()


@functools.cache
def _versions(name: str) -> tuple[str, ...]:
    """Of the libraries that a backend decodes with, as far as that can be told."""
    plugins = ("pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm", "pillow")
    found = []
    for package in (name, *(plugins if name == "pydicom" else ())):
        try:
            found.append(importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            found.append("")
    return tuple(found)


def _pack(key: bytes, stored: Array) -> tuple[bytes, Any]:
    """Head and values of an entry."""
    values: Any = memoryview(np.ascontiguousarray(stored).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    packed = codecs.blosc2_encode(
        values,
        level=1,
        compressor="lz4",
        shuffle="shuffle",
        typesize=stored.dtype.itemsize,
        numthreads=1,
    )
    # What hardly shrinks is kept as it is: then reading needs no second copy. So are frames of zeros, which are a head
    # only: C-Blosc2 2.23 calls it invalid for some sizes.
    packing = _BLOSC2 if _BLOSC2_HEAD_BYTES < len(packed) < 0.9 * len(values) else _RAW
    body = packed if packing == _BLOSC2 else values
    shape = (*stored.shape, 1, 1)[:3]
    kind = stored.dtype.newbyteorder("<").str[1:].encode()
    fields = (packing, stored.ndim, kind, *shape, key)
    head = _HEAD.pack(_MAGIC, 0, *fields).ljust(_HEAD_BYTES, b"\0")
    checksum = zlib.crc32(body, zlib.crc32(head[_CRC_END:]))
    return _HEAD.pack(_MAGIC, checksum, *fields).ljust(_HEAD_BYTES, b"\0"), body


def _unpack(
    entry: memoryview, key: bytes, expected: tuple[int, ...] | None, out: Array | None
) -> Array | None:
    """The values of an entry, in its own memory or in `out`; `None` if it is not what was written for `key`."""
    if len(entry) < _HEAD_BYTES:
        return None
    magic, checksum, packing, axes, kind, *sizes, written_for = _HEAD.unpack_from(entry)
    if magic != _MAGIC or checksum != zlib.crc32(entry[_CRC_END:]):
        return None
    kind = kind.rstrip(b"\0").decode("ascii", "replace")
    shape = tuple(sizes[:axes])
    if written_for != key or expected not in (None, shape) or kind not in _TYPES:
        return None
    dtype, body = np.dtype(f"<{kind}"), entry[_HEAD_BYTES:]
    nbytes = math.prod(shape) * dtype.itemsize
    if packing == _RAW:
        return np.frombuffer(body, dtype).reshape(shape) if len(body) == nbytes else None
    if out is None or out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        out = np.empty(shape, dtype)
    try:
        codecs.blosc2_decode(body, numthreads=1, out=out.reshape(-1).view(np.uint8))
    except (codecs.Blosc2Error, ValueError):
        return None
    return out


def _open_entry(path: str, flags: int) -> int:
    # Not waiting, should it be a FIFO.
    return open_private(path, flags | getattr(os, "O_NONBLOCK", 0))
