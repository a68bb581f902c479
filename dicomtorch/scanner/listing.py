"""What a walk met, as columns: a million files are no objects while they are compared with an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.index.columns import Packed
from dicomtorch.scanner.entries import Entry
from dicomtorch.storage.files import int64

_TOGETHER: Final = 1 << 15  # files whose numbers become arrays together


class Files(NamedTuple):
    """Regular files of one folder.

    Attributes:
        prefix: What stands before each name: the folder below the root, with a separator at its end.
        names: Of the files.
        sizes: Bytes of each.
        times: Of the last change of each, in nanoseconds; as the system has them.
        inodes: Of each, 0 if not known; as the system has them.
    """

    prefix: bytes
    names: list[bytes]
    sizes: list[int]
    times: list[int]
    inodes: list[int]

    def entries(self) -> Iterator[Entry]:
        """One by one."""
        for name, size, time_ns, inode in zip(*self[1:], strict=True):
            yield Entry(self.prefix + name, size, int64(time_ns), int64(inode))


def entries_of(found: Iterable[Files | Entry]) -> Iterator[Entry]:
    """Everything one by one."""
    for one in found:
        if isinstance(one, Entry):
            yield one
        else:
            yield from one.entries()


class Listing(Sequence[Entry]):
    """Entries in the order in which they were met; plain files are rows of columns, all else objects.

    Attributes:
        paths: Of all.
        size: (n,), bytes of each.
        mtime_ns: (n,), time of the last change.
        inode: (n,), 0 if not known.
        odd: Place of an entry that is more than a regular file -> itself.
        versions: Place of a remote object -> its version.
    """

    def __init__(self, found: Iterable[Files | Entry]) -> None:
        self.odd: dict[int, Entry] = {}
        self.versions: dict[int, str] = {}
        self._begin()
        self._paths: list[Packed] = []
        self._numbers: list[npt.NDArray[np.int64]] = []
        count = 0
        for one in found:
            if isinstance(one, Entry):
                if one.reason or one.member.container:
                    self.odd[count] = one
                if one.version:
                    self.versions[count] = one.version
                one = Files(b"", [one.path], [one.size], [one.mtime_ns], [one.inode])
            self._add(one)
            count += len(one.names)
        self._flush()
        self.paths = Packed.concatenate(self._paths)
        self.size, self.mtime_ns, self.inode = self._identity = np.concatenate(
            self._numbers, axis=1
        )
        del self._paths, self._numbers

    def _begin(self) -> None:
        self._data: list[bytes] = []
        self._lengths: list[int] = []
        self._columns: tuple[list[int], ...] = ([], [], [])

    def _add(self, files: Files) -> None:
        if files.names:
            self._data.append(files.prefix)
            self._data.append(files.prefix.join(files.names))
        before = len(files.prefix)
        self._lengths += [before + len(name) for name in files.names]
        for mine, its in zip(self._columns, files[2:], strict=True):
            mine += its
        if len(self._lengths) >= _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        offsets = np.zeros(len(self._lengths) + 1, np.int64)
        np.cumsum(self._lengths, out=offsets[1:])
        self._paths.append(Packed(offsets, np.frombuffer(b"".join(self._data), np.uint8)))
        self._numbers.append(np.stack([_int64s(column) for column in self._columns]))
        self._begin()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        path, place = self.paths[i], i % len(self)
        size, time_ns, inode = (int(column[i]) for column in self._identity)
        version = self.versions.get(place, "")
        return self.odd.get(place) or Entry(path, size, time_ns, inode, version=version)

    def __iter__(self) -> Iterator[Entry]:
        return (self[k] for k in range(len(self)))


def _int64s(numbers: list[int]) -> npt.NDArray[np.int64]:
    try:
        return np.array(numbers, np.int64)
    except OverflowError:
        return np.array([int64(number) for number in numbers], np.int64)
