"""What every storage must do: subclass `StorageConformance` in a test module and say how objects get there."""

from __future__ import annotations

import concurrent.futures
import pickle
from abc import abstractmethod

import pytest

from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.storage.base import ByteRange, Identity, Scratch, Storage

CONTENT = bytes(range(256)) * 40


class StorageConformance:
    """The tests; a subclass gives the storage, and puts objects into it."""

    @pytest.fixture
    @abstractmethod
    def storage(self) -> Storage:
        """The storage to test."""

    @abstractmethod
    def put(self, name: str, content: bytes) -> bytes:
        """Stores an object, or puts another one in its place; gives its name in the storage."""

    @abstractmethod
    def remove(self, name: bytes) -> None:
        """Removes an object."""

    @pytest.fixture
    def name(self) -> bytes:
        return self.put("object", CONTENT)

    def identity(self, storage: Storage, name: bytes) -> Identity:
        opened = storage.open(name)
        try:
            return opened.identity
        finally:
            opened.close()

    def test_identity_is_stable_and_has_the_size(self, storage: Storage, name: bytes) -> None:
        found = self.identity(storage, name)
        assert found.size == len(CONTENT)
        assert self.identity(storage, name) == found
        opened = storage.open(name, found)
        assert opened.identity == found
        opened.close()

    @pytest.mark.parametrize(
        ("offset", "length"), [(0, 1), (0, len(CONTENT)), (255, 3), (len(CONTENT) - 1, 1), (7, 0)]
    )
    def test_ranges(self, storage: Storage, name: bytes, offset: int, length: int) -> None:
        expected = CONTENT[offset : offset + length]
        opened = storage.open(name)
        assert opened.read(offset, length) == expected
        assert bytes(opened.read_exactly(offset, length, Scratch())) == expected
        opened.close()

    def test_only_the_end_of_an_object_shortens_a_read(self, storage: Storage, name: bytes) -> None:
        opened = storage.open(name)
        assert opened.read(len(CONTENT) - 5, 100) == CONTENT[-5:]
        assert opened.read(len(CONTENT), 1) == b""
        assert opened.read(len(CONTENT) + 1000, 1) == b""
        for offset in (len(CONTENT) - 5, len(CONTENT), len(CONTENT) + 1000):
            with pytest.raises(StaleIndexError):
                opened.read_exactly(offset, 100, Scratch())
        opened.close()

    def test_scratch_memory_may_be_used_again(self, storage: Storage, name: bytes) -> None:
        opened, scratch = storage.open(name), Scratch()
        first = opened.read_exactly(0, 16, scratch)
        assert bytes(opened.read_exactly(16, 16, scratch)) == CONTENT[16:32]
        assert bytes(first) in (CONTENT[:16], CONTENT[16:32])
        opened.close()

    def test_many_ranges_come_in_the_order_asked_for(self, storage: Storage, name: bytes) -> None:
        other = self.put("other", CONTENT[::-1])
        ids = {one: self.identity(storage, one) for one in (name, other)}
        wanted = [
            ByteRange(one, ids[one], offset, 50) for offset in (300, 0, 20) for one in (other, name)
        ]
        content = {name: CONTENT, other: CONTENT[::-1]}
        assert storage.read_many(wanted) == [
            content[r.name][r.offset : r.offset + r.length] for r in wanted
        ]
        assert storage.read_many([]) == []

    def test_another_object_is_never_read_for_the_one_expected(
        self, storage: Storage, name: bytes
    ) -> None:
        before = self.identity(storage, name)
        longer = before._replace(size=before.size + 1)
        later = before._replace(mtime_ns=before.mtime_ns + 1)
        newer = before._replace(version=f'"{before.version}+"')
        for expected in (longer, later, newer):
            with pytest.raises(StaleIndexError):
                storage.open(name, expected).read(0, 1)
            with pytest.raises(StaleIndexError, match="object"):
                storage.read_many([ByteRange(name, expected, 0, 1)])
        if before.inode:
            with pytest.raises(StaleIndexError, match="inode"):
                storage.open(name, before._replace(inode=before.inode ^ 1))
        storage.open(name, before._replace(inode=0)).close()

    def test_an_object_that_is_gone(self, storage: Storage, name: bytes) -> None:
        before = self.identity(storage, name)
        self.remove(name)
        with pytest.raises(StaleIndexError):
            storage.open(name, before).read(0, 1)
        with pytest.raises(StorageError):
            storage.open(name)
        with pytest.raises(StaleIndexError, match="object"):
            storage.read_many([ByteRange(name, before, 0, 1)])

    def test_a_hint_says_nothing_of_errors(self, storage: Storage, name: bytes) -> None:
        known = self.identity(storage, name)
        self.remove(name)
        kept = self.put("other", CONTENT)
        storage.will_need([ByteRange(name, known, 0, 10), ByteRange(kept, known, 5, 0)])

    def test_what_was_asked_for_ahead_is_what_is_read(self, storage: Storage, name: bytes) -> None:
        known = self.identity(storage, name)
        spans = [(k * 97, 90 + k) for k in range(40)] + [(0, len(CONTENT))]
        storage.will_need([ByteRange(name, known, *span) for span in spans])
        opened = storage.open(name, known)
        for _ in range(2):
            for offset, length in spans:
                found = bytes(opened.read_exactly(offset, length, Scratch()))
                assert found == CONTENT[offset : offset + length]
        opened.close()

    def test_an_object_that_was_replaced(self, storage: Storage, name: bytes) -> None:
        before = self.identity(storage, name)
        opened = storage.open(name, before)
        self.put("object", CONTENT[::-1] + b"more")
        storage.will_need([ByteRange(name, before, 0, 10)])
        with pytest.raises(StaleIndexError):
            storage.open(name, before).read_exactly(0, 10, Scratch())
        with pytest.raises(StaleIndexError, match="object"):
            storage.read_many([ByteRange(name, before, 0, 10)])
        opened.close()
        assert self.identity(storage, name).size == len(CONTENT) + 4

    def test_threads_share_an_object_and_copies_a_storage(
        self, storage: Storage, name: bytes
    ) -> None:
        copy: Storage = pickle.loads(pickle.dumps(storage))
        opened = copy.open(name)

        def read(offset: int) -> bool:
            return opened.read(offset, 64) == CONTENT[offset : offset + 64]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(0, 2000, 3)))
        opened.close()
