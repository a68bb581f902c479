"""Where indexes live between runs."""

from __future__ import annotations

import shutil
import uuid as uuids
from dataclasses import replace

from dicomtorch.errors import IndexFileError
from dicomtorch.index import files as index_file
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.generation_store import PARTIAL, GenerationStore


class IndexStore(GenerationStore):
    """The stored indexes of one source, and what an unfinished scan of it has read."""

    def load(self) -> FrameIndex | None:
        """The current index, or `None` if there is none that is whole and of this version.

        Raises:
            IndexFileError: There is one, but it is damaged or of another version.
        """
        current = self.current()
        return None if current is None else FrameIndex(current)

    def save(self, index: FrameIndex) -> FrameIndex:
        """Stores the scan that an index is of; see `keep`.

        Raises:
            OSError: It could not be written; the current one stays.
        """
        return FrameIndex(self.keep(index.whole()._generation))

    def load_partial(self) -> FrameIndex | None:
        """What a scan that did not come to its end had read, or `None`."""
        folder = self.folder / PARTIAL
        if not folder.exists():
            return None
        try:
            generation = index_file.read(folder).generation
        except IndexFileError:  # nothing is lost but time
            return None
        # Another name than that of the folder, which goes: a scan that finds nothing more to read stores this one.
        return FrameIndex(replace(generation, uuid=str(uuids.uuid4()), folder=None))

    def save_partial(self, index: FrameIndex) -> None:
        """Keeps what an unfinished scan has read, beside the current index and in place of what it had read before.

        For the process that holds the lock.

        Raises:
            OSError: It could not be written; what was there before is.
        """
        folder = self.folder / PARTIAL
        if not index_file.is_index(folder):
            self.remove_partial()  # what a process left that was killed while it removed one
        index.save(folder, replace=True)

    def remove_partial(self) -> None:
        """Forgets what an unfinished scan has read."""
        shutil.rmtree(self.folder / PARTIAL, ignore_errors=True)
