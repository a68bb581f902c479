"""`Storable`: an index written to a folder, opened again, sent to other processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from dicomtorch.errors import OptionError, SourceError
from dicomtorch.index import files as index_file
from dicomtorch.index import opened
from dicomtorch.index.frame_rows import FrameRows
from dicomtorch.index.generation import moved
from dicomtorch.index.partitions import open_partitions


class Storable(FrameRows):
    """The methods of `FrameIndex` that have to do with files."""

    def save(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Writes the index to a new folder of Arrow files; see `index_file`.

        The folder appears whole or not at all, readable by its owner only, because it holds identifiers. A selection is
        written as the whole scan that it came from with its row numbers; joined columns are written too.

        Args:
            path: Of the folder.
            replace: Whether an index that is there goes.

        Raises:
            IndexFileError: There is something at `path` already that is not to be replaced, or is no index.
            OSError: It could not be written; nothing is left behind.
        """
        index_file.write(self._generation, Path(path), self._rows, self._joined, replace=replace)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        root: str | bytes | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Opens an index that `save` wrote; it is read into memory and checked.

        It is pickled as its path, so it has to stay there. Worker processes that are forked share the memory, those
        that are spawned map it. What `DicomFrames(root)` keeps in its cache is mapped, and shared by all.

        Several are opened as one, as `concat` makes it: partitions, one a site or a year, each refreshed alone. What
        comes of them is kept in the cache folder and mapped, until one of them is another than before; selections and
        joined columns are put together each time, in memory.

        Args:
            path: Of its folder, or those of several.
            root: Where the files are by now, if they were moved or copied with their times (`cp -a`, `rsync -a`), or
                the index was taken to another machine. A file is read if its size and time are as they were; inodes
                count as not known. `scan(root, index=index)` takes over what has not changed, after it has compared
                some headers.
            cache_dir: Where the one of several is kept; `None`: the user's cache folder.

        Raises:
            IndexFileError: One is missing, damaged, or of another version.
            OptionError: One of several is named twice, or they do not go together, see `concat`.
            SourceError: None of its files is below `root`.
        """
        # Worker processes, which open it by its path, may be in another folder.
        try:
            several = [path] if isinstance(path, str | os.PathLike) else [*path]
            folders = [Path(one).absolute() for one in several]
        except TypeError as error:
            raise OptionError(
                f"load takes the path of an index, or several, as text; got {type(path).__name__}"
            ) from error
        is_one = isinstance(path, str | os.PathLike)
        stored = index_file.read(folders[0]) if is_one else open_partitions(folders, cache_dir)
        index = cls(*stored)
        return index if root is None else index.moved(root)

    def moved(self, root: str | bytes | os.PathLike[str]) -> Self:
        """This index for files that are below another folder by now; see `load`.

        Raises:
            SourceError: None of them is there, or it is an address.
        """
        if b"://" in os.fsencode(root):  # which may hold a key
            raise SourceError(
                "root= is a folder of this machine, and this is an address: scan that, and join again what is "
                "joined to this index"
            )
        folder = os.path.abspath(os.path.expanduser(os.fsencode(root)))
        return type(self)(moved(self._generation, folder), self._rows, self._joined)

    def __getstate__(self) -> dict[str, Any]:
        return opened.to_state(self._generation, self._rows, self._joined)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(*opened.from_state(state))  # type: ignore[misc]
