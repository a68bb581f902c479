"""Which backend decodes which frames of an index: chosen once, and never changed behind anybody's back."""

from __future__ import annotations

from collections.abc import Iterable

from dicomtorch.backends.base import Backend, choose_backend
from dicomtorch.errors import UnsupportedError
from dicomtorch.model.image import ImagePixel


class ChosenBackends:
    """The backend of each distinct `ImagePixel`.

    Args:
        backend: A name, "auto", or a `Backend`.
        pixels: What is to be decoded.

    Attributes:
        chosen: What decodes them.
        unsupported: Those that nothing decodes, with the error that says so.
    """

    def __init__(self, backend: str | Backend = "auto", pixels: Iterable[ImagePixel] = ()) -> None:
        self.chosen: dict[ImagePixel, Backend] = {}
        self.unsupported: dict[ImagePixel, UnsupportedError] = {}
        for pixel in pixels:
            try:
                self.chosen[pixel] = choose_backend(backend, pixel)
            except UnsupportedError as error:
                self.unsupported[pixel] = error

    def of(self, pixel: ImagePixel) -> Backend:
        """What decodes `pixel`.

        Raises:
            UnsupportedError: Nothing does.
        """
        backend = self.chosen.get(pixel)
        if backend is None:
            raise UnsupportedError(str(self.unsupported[pixel]))
        return backend
