"""Every exception of the package, and the one place that imports optional packages.

```
DicomTorchError
├── SourceError (FileNotFoundError)        a root that is missing, or holds no readable DICOM
├── HeaderError (ValueError)               a header that is damaged or beyond a limit
│   └── NotDicomError                      a file that is no DICOM at all
├── EncapsulationError (ValueError)        frames that cannot be located, or items that do not tile their span
├── StorageError (OSError)                 bytes that could not be read
├── StaleIndexError (RuntimeError)         a file is not the one that was indexed
├── ExecutorError (RuntimeError)           the executor of a scan broke, or its workers cannot read what they should
├── IndexFileError (ValueError)            an index that is damaged, foreign or of another version
├── FrameIndexError (IndexError)           a position outside the index
├── FrameNotFoundError (KeyError)          `find` met no frame, or more than one
├── MetaKeyError (KeyError)                a key that `meta` does not have
├── UnsupportedError (NotImplementedError) nothing installed decodes this
├── DecodeError (ValueError)               a code stream that is damaged or disagrees with its header
├── PixelValueError (ValueError)           stored values that the asked-for values cannot be made of
├── GeometryError (ValueError)             frames that make no volume, points outside of it
├── OptionError (ValueError)               options that mean nothing, alone or together
└── MissingDependencyError (ImportError)   an optional package is absent
```

Each class is built from one string, because a `DataLoader` worker sends an exception to the parent as text.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
from collections.abc import Iterator
from types import ModuleType


class DicomTorchError(Exception):
    """The root: whatever this package raises on purpose is one of these.

    A traceback ends with where the documentation has more about its class (`__notes__`).
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.add_note(
            f"More: how-to/errors.html#{type(self).__name__.lower()} in the documentation."
        )


class SourceError(DicomTorchError, FileNotFoundError):
    """The source is missing or holds nothing that can be read as DICOM."""


class HeaderError(DicomTorchError, ValueError):
    """A header is damaged or exceeds a limit."""


class NotDicomError(HeaderError):
    """The bytes are no DICOM at all."""


class EncapsulationError(DicomTorchError, ValueError):
    """The frames of a Pixel Data element cannot be told apart."""


class StorageError(DicomTorchError, OSError):
    """The operating system did not give the bytes that were asked for."""


class StaleIndexError(DicomTorchError, RuntimeError):
    """A file changed, vanished or was replaced after it was indexed."""


class ExecutorError(DicomTorchError, RuntimeError):
    """The executor that a scan was given broke, or its workers cannot do or open what this process can."""


class IndexFileError(DicomTorchError, ValueError):
    """A stored index is damaged, belongs to someone else or has another version."""


class FrameIndexError(DicomTorchError, IndexError):
    """A position is outside the index."""


class _NotFoundError(DicomTorchError, KeyError):
    """A look-up in vain."""

    def __str__(self) -> str:
        # KeyError shows its argument's repr, which would escape the message.
        return str(self.args[0]) if self.args else ""


class FrameNotFoundError(_NotFoundError):
    """A look-up did not give exactly one frame."""


class MetaKeyError(_NotFoundError):
    """The metadata of a sample have no such key."""


class UnsupportedError(DicomTorchError, NotImplementedError):
    """No installed backend decodes this kind of image."""


class DecodeError(DicomTorchError, ValueError):
    """A code stream is damaged or disagrees with the header."""


class PixelValueError(DicomTorchError, ValueError):
    """The values asked for cannot be made from the stored values of this frame."""


class GeometryError(DicomTorchError, ValueError):
    """Frames do not lie as a volume needs it, or a point lies outside of it."""


class OptionError(DicomTorchError, ValueError):
    """An option, or a combination of options, has no meaning."""


class MissingDependencyError(DicomTorchError, ImportError):
    """An optional package is not installed."""


def import_optional(module: str, extra: str) -> ModuleType:
    """Imports a package that only some users need.

    Args:
        module: The dotted module name, as in `matplotlib.pyplot`.
        extra: The extra of this package that installs it, as in `view`.

    Raises:
        MissingDependencyError: It is not installed; the message has the install line.
    """
    return _import(module, f'"dicomtorch[{extra}]"')


def import_library(module: str, package: str) -> ModuleType:
    """Imports a library that who uses an integration has, and that no extra of this package installs.

    Args:
        module: The dotted module name, as in `ignite.engine`.
        package: What its index calls it, as in `pytorch-ignite`.

    Raises:
        MissingDependencyError: It is not installed; the message has the install line.
    """
    return _import(module, package)


def _import(module: str, installed_by: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f"{package} is needed for this and could not be imported ({error}). "
            f"Install it with: pip install {installed_by}"
        ) from error


def format_count(count: int, noun: str) -> str:
    """As in 1 file, 1,234 files; "series" stays as it is."""
    return f"{count:,} {noun}{'' if count == 1 or noun.endswith('s') else 's'}"


def have(count: int, noun: str, total: int | None = None) -> str:
    """As in 1 file has, 2 files have, 1 of 7 files has."""
    many = (
        format_count(count, noun) if total is None else f"{count:,} of {format_count(total, noun)}"
    )
    return f"{many} {'has' if count == 1 else 'have'}"


def redacting() -> bool:
    """Whether paths are to be kept out of everything that is said: DICOMTORCH_REDACT=1 in the environment."""
    return os.environ.get("DICOMTORCH_REDACT", "") not in ("", "0")


def escaped(path: str | bytes) -> str:
    """A path as text: control characters and what is not UTF-8 escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    if text.isprintable():  # nearly always
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(path: str | bytes | os.PathLike[str]) -> str:
    """A path for a message, a log or a caption: escaped; or eight digits of its hash where paths are kept out.

    Paths name patients, so this is the one way from a path to words that people see.
    """
    raw = os.fsencode(path)
    if redacting():
        return f"<file {hashlib.sha256(raw).hexdigest()[:8]}>"
    return escaped(raw)


def without_path(error: Exception) -> Exception:
    """An error as the cause of ours: where paths are kept out, what the system says without one, else its type."""
    if not redacting() or isinstance(error, DicomTorchError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, os.strerror(error.errno))
    return RuntimeError(type(error).__name__)


@contextlib.contextmanager
def paths_kept_out() -> Iterator[None]:
    """Errors of the system that leave it are of the same class, and name no path where paths are kept out."""
    try:
        yield
    except OSError as error:
        told = without_path(error)
        if told is error:
            raise
        raise told from None
