"""Frames copied out of their files: samples of bytes and a record, shards of them, and back to tensors.

`samples` is the one generator behind every format; `ReadSample` is the way back, whatever kept the samples.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import tarfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar

from dicomtorch.batches.collate import FrameSample
from dicomtorch.batches.metadata import FrameMeta, MetadataReader, metas_of
from dicomtorch.datasets.identity import Identity
from dicomtorch.errors import DicomTorchError, HeaderError, OptionError, printable
from dicomtorch.index.drafts import open_new, whole_folder
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.options import PixelOptions
from dicomtorch.model.record import plain
from dicomtorch.reader.choice import Isolation
from dicomtorch.reader.reader import FrameReader
from dicomtorch.reader.records import Contents, RecordReader, write_record
from dicomtorch.reader.threads import usable_threads

OnError = Literal["raise", "skip"]

Result = TypeVar("Result")

_TOGETHER = 256  # frames whose metadata are looked up at once
_AHEAD_BYTES = 64 << 20  # stored values of the frames that are read ahead
_AHEAD = 64  # frames, however small
_BYTES = {"encoded": "frame", "stored": "npy"}
_OF_READING = ("index", "requested_index", "voi", "WindowCenter", "WindowWidth")


class Written(NamedTuple):
    """What `write` did.

    Attributes:
        frames: How many were written.
        shards: The files, in order.
        skipped: What was wrong with frames that `on_error="skip"` left out.
    """

    frames: int
    shards: tuple[Path, ...]
    skipped: tuple[str, ...]


def samples(
    index: FrameIndex,
    frames: Contents = "encoded",
    *,
    deidentified: bool = True,
    salt: bytes | None = None,
    keep: Sequence[str] = (),
    skipped: list[str] | None = None,
    isolation: Isolation = None,
) -> Generator[tuple[str, bytes, dict[str, Any]], None, None]:
    """The frames of an index, each as (key, bytes, record); a record is what JSON can hold.

    Args:
        index: In whose order they come; `index.select(permutation)` for another one.
        frames: "encoded": bytes as the file has them, the code stream or the native frame. "stored": decoded, as
            `.npy`, which are larger and need no decoder.
        deidentified: See `FrameIndex.write`.
        salt: See `FrameIndex.write`.
        keep: See `FrameIndex.write`.
        skipped: Gets what was wrong with frames that cannot be read, which are left out; `None`: they raise.
        isolation: See `FrameIndex.write`.

    Yields:
        The position in the index with nine digits; the bytes; the record.

    Raises:
        OptionError: There is no column of `keep`, or an option means nothing.
        DicomTorchError: A frame cannot be read or decoded; the message names it.
    """
    if frames not in _BYTES:
        raise OptionError(f'frames must be "encoded" or "stored"; got {frames!r}')
    reader = FrameReader(index, isolation=isolation)
    meta = _Meta(index, deidentified, salt, keep)

    def read(position: int) -> tuple[bytes, dict[str, Any]] | DicomTorchError:
        try:
            return write_record(reader, position, frames, withhold=deidentified)
        except DicomTorchError as error:
            return error

    sizes = (_stored_bytes(index, position) for position in range(len(index)))
    with ThreadPoolExecutor(usable_threads()) as threads:
        columns = meta.of_all(len(index))
        for position, read_frame in enumerate(_read_ahead(threads, read, sizes)):
            about = next(columns)
            if not isinstance(read_frame, DicomTorchError):
                data, record = read_frame
                yield f"{position:09}", data, {**record, "meta": about}
            elif skipped is None:
                raise read_frame
            else:
                skipped.append(str(read_frame))


def _stored_bytes(index: FrameIndex, position: int) -> int:
    pixel = index.image_pixel(position)
    return math.prod(pixel.shape) * pixel.stored_dtype.itemsize


def _read_ahead(
    threads: ThreadPoolExecutor, read: Callable[[int], Result], sizes: Iterable[int]
) -> Iterator[Result]:
    """What `read` gives for positions 0, 1, ... in this order: threads are ahead by what memory is meant for it.

    Args:
        threads: Which read.
        read: Of a position.
        sizes: How much memory each takes about.
    """
    waiting: deque[tuple[Future[Result], int]] = deque()
    held = 0
    for position, size in enumerate(sizes):
        while waiting and (held + size > _AHEAD_BYTES or len(waiting) >= _AHEAD):
            done, freed = waiting.popleft()
            yield done.result()
            del done  # it holds what it gave
            held -= freed
        waiting.append((threads.submit(read, position), size))
        held += size
    while waiting:
        yield waiting.popleft()[0].result()


class _Meta:
    """What records say of frames: what samples have in `meta`.

    Args:
        index: Of the frames.
        deidentified: See `FrameIndex.write`.
        salt: Of the hashes.
        keep: Further columns.
    """

    def __init__(
        self, index: FrameIndex, deidentified: bool, salt: bytes | None, keep: Sequence[str]
    ) -> None:
        if salt is not None and not (deidentified and isinstance(salt, bytes)):
            raise OptionError("salt must be bytes, and goes with deidentified=True")
        names = {column.name for column in index.columns}
        if absent := [name for name in keep if name not in names]:
            raise OptionError(f"keep: there is no column {', '.join(absent)}")
        shown = [] if deidentified else list(index.tags)
        self._reader = MetadataReader(index, [*keep, *shown])
        self._left_out = {*_OF_READING}
        if deidentified:
            self._left_out |= {name for name in index.joined if name not in keep}
            self._identity = Identity(self._reader.keys, "hash", salt)
        else:
            self._identity = Identity(self._reader.keys, "real", None)

    def of_all(self, count: int) -> Iterator[dict[str, Any]]:
        """For each of so many frames."""
        for first in range(0, count, _TOGETHER):
            yield from self._of(range(first, min(first + _TOGETHER, count)))

    def _of(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        columns = self._reader.of(positions, [AppliedVOI()] * len(positions), positions)
        self._identity.hide(columns)
        kept = {name: column for name, column in columns.items() if name not in self._left_out}
        return [{name: plain(value) for name, value in meta.items()} for meta in metas_of(kept)]


def write(
    index: FrameIndex,
    out: str | os.PathLike[str],
    *,
    format: Literal["webdataset"] = "webdataset",
    frames: Contents = "encoded",
    shard_bytes: int = 1 << 28,
    deidentified: bool = True,
    salt: bytes | None = None,
    keep: Sequence[str] = (),
    on_error: OnError = "raise",
    isolation: Isolation = None,
) -> Written:
    """See `FrameIndex.write`."""
    if format != "webdataset":
        raise OptionError(
            f'format must be "webdataset"; got {format!r}. dicomtorch.integrations.shards.samples gives what other '
            "writers take"
        )
    if on_error not in ("raise", "skip"):
        raise OptionError(f'on_error must be "raise" or "skip"; got {on_error!r}')
    if shard_bytes < 1:
        raise OptionError(f"shard_bytes must be 1 or more; got {shard_bytes}")
    folder = Path(out).absolute()
    if folder.exists():
        raise OptionError(f"there is something at {printable(folder)} already; name a new folder")
    skipped: list[str] = []
    found = samples(
        index,
        frames,
        deidentified=deidentified,
        salt=salt,
        keep=keep,
        skipped=skipped if on_error == "skip" else None,
        isolation=isolation,
    )
    with whole_folder(folder) as draft, contextlib.closing(found):
        shards = _Shards(draft, shard_bytes)
        with contextlib.closing(shards):
            for key, data, record in found:
                about = json.dumps(record, allow_nan=False, separators=(",", ":")).encode()
                shards.add({f"{key}.{_BYTES[frames]}": data, f"{key}.json": about})
    return Written(shards.samples, tuple(folder / name for name in shards.names), tuple(skipped))


class _Shards:
    """Tar files as webdataset reads them: the parts of a sample follow each other, and have its key as their stem.

    Args:
        folder: Of the files.
        most: Bytes after which one is closed.

    Attributes:
        samples: How many were added.
        names: Of the files.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._tar: tarfile.TarFile | None = None
        self._file: BinaryIO | None = None
        self.samples = 0
        self.names: list[str] = []

    def add(self, parts: Mapping[str, bytes]) -> None:
        """Writes one sample, its parts by name."""
        if self._file is not None and self._file.tell() >= self._most:
            self.close()
        if self._tar is None:
            self.names.append(f"frames-{len(self.names):06}.tar")
            self._file = open_new(self._folder / self.names[-1])
            self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.GNU_FORMAT)
        for name, data in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o400
            self._tar.addfile(entry, io.BytesIO(data))
        self.samples += 1

    def close(self) -> None:
        """Ends the file that is written just now."""
        if self._tar is not None and self._file is not None:
            with self._file:
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())
        self._tar = self._file = None


class ReadSample:
    """Makes `(image, meta)` of a sample that `FrameIndex.write` or `samples` gave, as a dataset of frames does.

    For `.map` of whatever reads the samples: `webdataset.WebDataset(shards).map(ReadSample(values="modality"))`.
    Picklable, and safe to use from several threads.

    Args:
        backend: A name, "auto", or a `Backend`.
        isolation: "process": code streams are decoded in child processes, as with `DicomFrames`.
        **pixels: Options of `DicomFrames` about pixels: `values`, `window`, `padding`, `normalize`, `color`, `size`,
            `dtype`; see `PixelOptions`. With `values="stored"` each image has the smallest type for its own frame
            unless `dtype` names one.

    Raises:
        OptionError: An option means nothing, or needs other frames (`window="series"`).
    """

    def __init__(
        self, *, backend: Any = "auto", isolation: Isolation = None, **pixels: Any
    ) -> None:
        try:
            options = PixelOptions(**pixels)
        except TypeError as error:
            raise OptionError(f"ReadSample takes options about pixels: {error}") from error
        self._reader = RecordReader(options, backend, isolation)

    def __call__(self, sample: Mapping[str, Any]) -> FrameSample:
        """The image (C, H, W) and metadata of one sample.

        Args:
            sample: Has the bytes as "frame" or "npy", and the record as "json", text or read already.

        Raises:
            DicomTorchError: It is no such sample, or its bytes cannot be decoded.
        """
        record = _record(sample.get("json"))
        data = next((sample[name] for name in _BYTES.values() if name in sample), None)
        if not isinstance(record, Mapping) or data is None:
            raise HeaderError(
                f"a sample needs json and frame or npy; this one has {', '.join(map(str, sample))}"
            )
        return self.read(data, record)

    def read(self, data: Any, record: Mapping[str, Any]) -> FrameSample:
        """The same of the bytes and the record."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise HeaderError(f"a frame is bytes; this one is a {type(data).__name__}")
        if not isinstance(record.get("meta"), Mapping):
            raise HeaderError("this record of a frame has no meta; write the frames anew")
        image, applied = self._reader.read(bytes(data), record)
        meta = FrameMeta((name, _value(value)) for name, value in record["meta"].items())
        shown = (applied.voi, applied.window_center, applied.window_width)
        meta.update(zip(("voi", "WindowCenter", "WindowWidth"), shown, strict=True))
        return FrameSample((image, meta))


def _record(given: Any) -> Any:
    """A record, if it is JSON, else what was given."""
    if not isinstance(given, bytes | str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:  # whose words would quote the record
        raise HeaderError(
            f"the json of a sample cannot be read ({type(error).__name__}); write the frames anew"
        ) from None


def _value(value: Any) -> Any:
    """What metadata had before JSON: tuples, and nan."""
    if isinstance(value, list):
        return tuple(map(_value, value))
    return float("nan") if value is None else value
