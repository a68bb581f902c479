"""A backend that notes how long it decoded, in whichever process it does."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from dicomtorch import ImagePixel
from dicomtorch.backends.base import Array, Buffer, get_backend

_NUMBER = struct.Struct("d")


class Noting:
    """Decodes as another backend does.

    Args:
        name: Of that one.
        file: Where the seconds of the last frame are noted.
    """

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self._inner = get_backend(name)
        self._file = file
        self._descriptor = -1

    def __reduce__(self) -> tuple[type[Noting], tuple[str, Path]]:
        return Noting, (self.name, self._file)

    def supports(self, pixel: ImagePixel) -> bool:
        """As that one does."""
        return self._inner.supports(pixel)

    def decode(self, data: Buffer, pixel: ImagePixel, out: Array | None = None) -> Array:
        """As that one does."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT)
        began = time.perf_counter()
        decoded = self._inner.decode(data, pixel, out)
        seconds = time.perf_counter() - began
        os.pwrite(self._descriptor, _NUMBER.pack(seconds), 0)
        return decoded

    def seconds(self) -> float:
        """How long the last frame took."""
        return float(_NUMBER.unpack(self._file.read_bytes())[0])
