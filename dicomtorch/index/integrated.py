"""What is done with an index in the shapes of other libraries, as its methods.

The work is in the room `integrations`, which lies above this one and is loaded when a method is called.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any, Final, Literal

INTEGRATIONS: Final = {
    "to_hf": "dicomtorch.integrations.huggingface",
    "write": "dicomtorch.integrations.shards",
}
"""Method -> the module that has a function of its name, which takes the index first."""


class Integrated:
    """The methods of `FrameIndex` that other libraries are needed for."""

    def to_hf(self, *, keep: Sequence[str] = (), **options: Any) -> Any:
        """The frames as a `datasets.Dataset` of Hugging Face, whose rows are decoded when they are asked for.

        Its columns are "index", the position here, and those of `meta` that identify nobody, to filter, sort and split
        by; a row that is taken has them beside "image", "mask" where there are masks, and all keys of `meta`. Pickled,
        it is the path of the index and not a copy of its columns, until a method of it makes other columns.
        `save_to_disk` of that library writes no dataset that decodes: `with_format(None).save_to_disk(path)` writes the
        columns, and the index is what to keep for the frames.

        Args:
            keep: Further columns, of which you know that they identify nobody, or may: joined labels, UIDs.
            **options: Of `DicomFrames`.

        Raises:
            MissingDependencyError: datasets is not installed.
            OptionError: There is no column of `keep`, or an option means nothing.
        """
        return self._integrated("to_hf", keep=keep, **options)

    def write(
        self,
        out: str | os.PathLike[str],
        *,
        format: Literal["webdataset"] = "webdataset",
        frames: Literal["encoded", "stored"] = "encoded",
        shard_bytes: int = 1 << 28,
        deidentified: bool = True,
        salt: bytes | None = None,
        keep: Sequence[str] = (),
        on_error: Literal["raise", "skip"] = "raise",
        isolation: Literal["process"] | None = None,
    ) -> Any:
        """Copies the frames, each with a record of what its bytes mean, into shards that `ReadSample` reads.

        What an image shows of people is in the pixels that are copied; nothing but a record is de-identified.

        Source of what is de-identified: PS3.15 table E.1-1.

        Args:
            out: A new folder, which only its owner may read and which appears whole or not at all.
            format: "webdataset": tar files, which need no library to be written.
                `dicomtorch.integrations.shards.samples` gives what other writers take.
            frames: "encoded": the code stream of each frame as its file has it, the pixels of native ones as they are.
                "stored": decoded, as `.npy`, larger and quicker to read.
            shard_bytes: After which a shard is closed.
            deidentified: As in `export`: hashes in place of UIDs, no joined columns, coded values of the standard only.
                `False`: what samples have in `meta`, and the tags that the index was scanned with.
            salt: Of the hashes, see `export`.
            keep: Further columns for `meta`, joined labels for example, of which you know that they identify nobody.
            on_error: "raise", or "skip" frames that cannot be read (with "stored", decoded).
            isolation: "process": what "stored" decodes is decoded in child processes, as with `DicomFrames`.

        Returns:
            How many frames were written, to which files, and what was wrong with those that were skipped.

        Raises:
            OptionError: There is something at `out`, no column of `keep`, or an option means nothing.
            DicomTorchError: A frame cannot be read and `on_error="raise"`; nothing is left behind.
            OSError: It could not be written.
        """
        return self._integrated(
            "write",
            out,
            format=format,
            frames=frames,
            shard_bytes=shard_bytes,
            deidentified=deidentified,
            salt=salt,
            keep=keep,
            on_error=on_error,
            isolation=isolation,
        )

    def _integrated(self, name: str, *arguments: Any, **options: Any) -> Any:
        work = getattr(importlib.import_module(INTEGRATIONS[name]), name)
        return work(self, *arguments, **options)
