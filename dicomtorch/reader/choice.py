"""Which backend decodes which frames of an index: chosen once, and never changed behind anybody's back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dicomtorch.backends.base import Backend, choose_backend
from dicomtorch.backends.isolated import isolated
from dicomtorch.errors import OptionError, UnsupportedError
from dicomtorch.model.image import ImagePixel

Isolation = Literal["process"] | None


class ChosenBackends:
    """The backend of each distinct `ImagePixel`.

    Args:
        backend: A name, "auto", or a `Backend`.
        pixels: What is to be decoded.
        isolation: "process": code streams are decoded in child processes; `None`: with backends only that are known to
            end their process on damaged streams.

    Attributes:
        isolation: As given.
        chosen: What decodes them.
        unsupported: Those that nothing decodes, with the error that says so.

    Raises:
        OptionError: There is no backend of that name, or it cannot be isolated.
    """

    def __init__(
        self,
        backend: str | Backend = "auto",
        pixels: Iterable[ImagePixel] = (),
        isolation: Isolation = None,
    ) -> None:
        if isolation not in (None, "process"):
            raise OptionError(f'isolation must be None or "process"; got {isolation!r}')
        self.isolation = isolation
        self.chosen: dict[ImagePixel, Backend] = {}
        self.unsupported: dict[ImagePixel, UnsupportedError] = {}
        for pixel in pixels:
            try:
                chosen = choose_backend(backend, pixel)
                self.chosen[pixel] = isolated(chosen, pixel, always=isolation == "process")
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
