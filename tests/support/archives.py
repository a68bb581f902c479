"""Zip and tar archives that tests make of files, also such as few programs write."""

from __future__ import annotations

import struct
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

KINDS = ("stored.zip", "deflated.zip", "plain.tar")


def pack(folder: Path, archive: Path, names: Iterable[str] | None = None) -> Path:
    """Packs the files of a folder; the name says how: see `KINDS`."""
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    if archive.suffix == ".tar":
        with tarfile.open(archive, "w") as tar:
            for name in names or paths:
                tar.add(folder / name, name)
    else:
        method = zipfile.ZIP_DEFLATED if "deflated" in archive.name else zipfile.ZIP_STORED
        with zipfile.ZipFile(archive, "w", method) as packed:
            for name in names or paths:
                packed.write(folder / name, name)
    return archive


def with_longer_local_extra(archive: Path) -> None:
    """Gives the first member of a zip a local extra field that its directory does not have."""
    data = archive.read_bytes()
    name = struct.unpack_from("<H", data, 26)[0]
    assert struct.unpack_from("<H", data, 28)[0] == 0
    at, extra = 30 + name, struct.pack("<HH", 0xCAFE, 8) + bytes(8)
    head = data[:28] + struct.pack("<H", len(extra)) + data[30:at]
    moved = bytearray(head + extra + data[at:])
    entry, end = moved.index(b"PK\x01\x02"), moved.index(b"PK\x05\x06")
    while entry < end:
        lengths = struct.unpack_from("<3H", moved, entry + 28)
        offset = struct.unpack_from("<I", moved, entry + 42)[0]
        struct.pack_into("<I", moved, entry + 42, offset + len(extra) if offset else 0)
        entry += 46 + sum(lengths)
    start = struct.unpack_from("<I", moved, end + 16)[0]
    struct.pack_into("<I", moved, end + 16, start + len(extra))
    archive.write_bytes(bytes(moved))


def edited(archive: Path, at: int, form: str, value: int, name: str = "") -> None:
    """Changes a number in the directory entry (or, with `at` negative, the local header) of a member of a zip.

    Args:
        archive: The zip.
        at: Offset in the entry; -1 - offset in the local header.
        form: Of the number, as in `struct`.
        value: The new one.
        name: Of the member; the first one if not given.
    """
    data = bytearray(archive.read_bytes())
    sign, length = (b"PK\x01\x02", 46) if at >= 0 else (b"PK\x03\x04", 30)
    entry = data.index(sign)
    while name and not data.startswith(name.encode(), entry + length):
        entry = data.index(sign, entry + 4)
    struct.pack_into("<" + form, data, entry + (at if at >= 0 else -1 - at), value)
    archive.write_bytes(bytes(data))
