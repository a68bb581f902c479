"""What a user gave as a source: paths, or something else, which gets a message that says what it is and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final

from dicomtorch.errors import SourceError, printable

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_TAKES = "name a folder, a file, a list of either, or give a FrameIndex"
_MOST_SHOWN = 80  # characters of a path in a message

_IMAGE = "torchvision or Pillow read it"
_UNPACK = "unpack it and name the folder, or make it a .zip or .tar, which are read as they are"
_NAME_IT = "name it as a source to read what is in it"
_BEGINNINGS: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"\xff\xd8\xff", "a JPEG image", _IMAGE),
    (b"\x89PNG\r\n", "a PNG image", _IMAGE),
    (b"GIF8", "a GIF image", _IMAGE),
    (b"II*\0", "a TIFF image", _IMAGE),
    (b"MM\0*", "a TIFF image", _IMAGE),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file", _IMAGE),
    (b"%PDF", "a PDF document", "give the images themselves"),
    (b"PK\x03\x04", "a zip archive", _NAME_IT),
    (b"\x1f\x8b", "compressed by gzip (.gz, .nii.gz, .tar.gz)", _UNPACK),
    (b"BZh", "compressed by bzip2 (.bz2, .tar.bz2)", _UNPACK),
    (b"\xfd7zXZ\0", "compressed by xz (.xz, .tar.xz)", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", _UNPACK),
    (b"\x93NUMPY", "a NumPy array", "numpy.load reads it"),
    (b"\x89HDF", "an HDF5 file", "h5py reads it"),
    (b"NRRD000", "an NRRD volume", "SimpleITK reads it"),
    (b"ObjectType = Image", "a MetaImage volume", "SimpleITK reads it"),
    (b"ARROW1", "an Arrow table", "pyarrow reads it"),
    (b"PAR1", "a Parquet table", "pandas.read_parquet reads it"),
    (b"<?xml", "an XML document", "give the images themselves"),
    (b"<!DOCTYPE html", "a web page, perhaps an error in place of a download", "load it again"),
    (b"<html", "a web page, perhaps an error in place of a download", "load it again"),
    (b"version https://git-lfs", "a pointer of Git LFS in place of a file", "git lfs pull"),
)
_FURTHER_IN: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (257, b"ustar", "a tar archive", _NAME_IT),
    (344, b"n+1\0", "a NIfTI volume", "nibabel or SimpleITK read it"),
    (344, b"ni1\0", "a NIfTI volume", "nibabel or SimpleITK read it"),
    (4, b"ftyp", "a film (MP4)", "torchcodec reads it"),
)


def is_archive(beginning: bytes) -> bool:
    """Whether a file of several files begins so, or a compressed one."""
    return any(sign in what_it_is(beginning) for sign in (" archive and", "compressed by "))


def what_it_is(beginning: bytes) -> str:
    """What a file that is no DICOM is, and what to do, by its first bytes; "" if they do not tell.

    Args:
        beginning: At least the first 348 bytes, if there are as many.
    """
    for start, what, advice in _BEGINNINGS:
        if beginning.startswith(start):
            return f"{what} and no DICOM; {advice}"
    for offset, sign, what, advice in _FURTHER_IN:
        if beginning[offset : offset + len(sign)] == sign:
            return f"{what} and no DICOM; {advice}"
    if beginning and not beginning.strip(b"\0"):
        return "nothing but zeros, as a download that broke off leaves it; load it again"
    return "text and no DICOM; give the images themselves" if _is_text(beginning) else ""


def _is_text(beginning: bytes) -> bool:
    """Whether all of it is printable; a character may be cut off at the end."""
    try:
        text = beginning.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if error.start < len(beginning) - 3:
            return False
        text = beginning[: error.start].decode("utf-8")
    return len(text) >= 16 and all(c.isprintable() or c in "\t\r\n\f" for c in text)


def paths_of(source: Any) -> list[PathLike]:
    """The paths that a source is, none of them opened yet.

    Args:
        source: A path, or a list, tuple, set, array, column or iterator of paths.

    Raises:
        SourceError: It is something else, there is none, or one is empty.
    """
    if isinstance(source, str | bytes | os.PathLike):
        return [_checked(source, "the source")]
    listed = isinstance(source, list | tuple | set | frozenset | Iterator)
    if (not listed and not hasattr(source, "tolist")) or hasattr(source, "read"):
        raise SourceError(f"the source is {_named(source)}; {_advice(source)}")
    items = list(source) if listed else source.tolist()
    if not isinstance(items, list) or not items:
        raise SourceError(f"the list of sources is empty; {_TAKES}")
    return [_checked(item, f"item {k} of the source") for k, item in enumerate(items)]


def _checked(path: Any, name: str) -> PathLike:
    if not isinstance(path, str | bytes | os.PathLike):
        raise SourceError(f"{name} is {_named(path)}; {_advice(path)}")
    raw = os.fsencode(path)
    if not raw:
        raise SourceError(
            f'{name} is an empty path, as an unset variable gives; "." names the current folder if that is meant'
        )
    if b"\0" in raw:
        raise SourceError(
            f"{name} is the content of a file and no path ({len(raw)} bytes); give the path of the file"
        )
    return path


def _named(given: Any) -> str:
    if given is None or isinstance(given, bool):
        return str(given)
    kind = type(given)
    article = "an" if kind.__name__[:1] in "AEIOUaeiou" else "a"
    return f"{article} {kind.__name__}"


def _advice(given: Any) -> str:
    """What to do with something that is no path."""
    if type(given).__module__.startswith("pydicom"):
        return (
            "files are read where they lie: give its path (dataset.filename), or write it with "
            "dataset.save_as(path) first"
        )
    if hasattr(given, "read") or isinstance(given, bytearray | memoryview):
        return "files are read where they lie, by several processes: write it to a file and give the path"
    if hasattr(given, "index") and hasattr(given, "failures"):
        return "give its index (.index), which is there already"
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return f"give a list of paths if it has any; else {_TAKES}"
    return _TAKES


def why_not_there(path: bytes, given: PathLike, error: OSError | ValueError) -> SourceError:
    """The error for a path that cannot be opened: where it looks like something else, saying so.

    Args:
        path: The absolute path.
        given: What the user wrote.
        error: What the system said.
    """
    raw = os.fsencode(given)
    text = printable(raw)
    text = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
    if re.search(rb"[*?]|\[.+\]", raw):
        return SourceError(
            f"{text} is a pattern and no path; expand it, as in sorted(glob.glob(pattern, recursive=True)), or name "
            f"the folder, which is searched whole"
        )
    if re.match(rb"\$\w|\$\{|%\w+%", raw):
        return SourceError(
            f"{text} begins with a variable that nobody replaced; os.path.expandvars does"
        )
    why = error.strerror if isinstance(error, OSError) else str(error)
    return SourceError(
        f"{printable(path)} cannot be opened ({why}); name a folder or file that exists and may be read"
    )
