"""Encodes the same images otherwise; no value may change: `python -m tests.long.metamorphic --seconds 60`.

An image is written with explicit or implicit VR, little or big endian, sequences and items of defined and undefined
length, with and without a Basic or an Extended Offset Table, in one or several fragments, with private elements, items
in private sequences, padding, another preamble and file name. The stored and display values, the metadata and the
report of the scan must be those of the first one.
"""

from __future__ import annotations

import io
import itertools
import random
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomtorch import DicomFrames, scan
from dicomtorch.reader.reader import FrameReader
from tests.support.long_run import Tally, main
from tests.support.phantoms import ct

NATIVE = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
_NOT_COMPARED = ("index", "requested_index")


def picture(rng: random.Random) -> np.ndarray[Any, Any]:
    """(frames, rows, columns) of 8 or 16 bits."""
    rows, columns, frames = rng.randint(1, 40), rng.randint(1, 40), rng.choice((1, 1, 2, 5))
    dtype = rng.choice((np.uint8, np.uint16, np.int16))
    values = np.random.default_rng(rng.getrandbits(32)).integers(
        0, 256 if dtype == np.uint8 else 4096, (frames, rows, columns)
    )
    return values.astype(dtype)


def described(pixels: np.ndarray[Any, Any], rng: random.Random) -> Dataset:
    """A data set with values that have to survive: geometry, windows, sequences."""
    dataset = ct(pixels if len(pixels) > 1 else pixels[0], rng.randint(0, 9))
    dataset.PatientName = "Doe^Jane"
    dataset.SeriesDescription = "x" * rng.randint(0, 9)
    dataset.RescaleSlope = rng.choice((1, 2, 0.5))
    dataset.WindowCenter = [40, rng.randint(1, 900)]
    dataset.WindowWidth = [400, 77]
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-1", "SRT", "something"
    item.PurposeOfReferenceCodeSequence = [Dataset(), item_of("inner")]
    dataset.AnatomicRegionSequence = [item, item_of("second")]
    dataset.ReferencedImageSequence = []
    return dataset


def item_of(meaning: str) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeMeaning = meaning
    return item


def changed(dataset: Dataset, rng: random.Random) -> Dataset:
    """The same with other lengths, and with more that says nothing."""
    made = pydicom.dcmread(io.BytesIO(written(dataset)), force=True)
    if rng.random() < 0.6:
        block = made.private_block(rng.choice((0x0009, 0x0029, 0x7FE1)), "TEST", create=True)
        block.add_new(1, "LO", "z" * rng.randint(0, 70 if rng.random() < 0.2 else 20))
        block.add_new(2, "SQ", [item_of("private"), Dataset()])
        block.add_new(3, "OB", bytes(2 * rng.randint(0, 3000)))
    if rng.random() < 0.3:
        made.add_new(0xFFFCFFFC, "OB", bytes(2 * rng.randint(0, 200)))
    if rng.random() < 0.3:
        made.PatientComments = "c" * rng.randint(1, 5000)
    for element in made.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = rng.random() < 0.5
            for item in element.value:
                item.is_undefined_length_sequence_item = rng.random() < 0.5
    return made


def written(dataset: Dataset) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    uid = dataset.file_meta.TransferSyntaxUID
    if uid.is_transfer_syntax:
        dataset.save_as(stream, enforce_file_format=True)
    else:
        dataset.preamble = b"\0" * 128
        dataset.save_as(stream, implicit_vr=False, little_endian=True, force_encoding=True)
    return stream.getvalue()


def in_syntax(dataset: Dataset, syntax: str, pixels: np.ndarray[Any, Any]) -> Dataset:
    """The same data set in a syntax of uncompressed pixels."""
    made = Dataset({element.tag: element for element in dataset})
    made.file_meta = FileMetaDataset(dataset.file_meta)
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    if order == ">" and pixels.dtype.itemsize == 1:  # OW: bytes in words (PS3.5 8.1.1)
        data += b"\0" * (len(data) % 2)
        data = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OW"
    return made


def encapsulated(streams: list[bytes], rng: random.Random) -> tuple[bytes, dict[str, bytes]]:
    """(the value of Pixel Data, further elements): some fragments, some offset table, padding."""
    frames = []
    for stream in streams:
        stream += b"\0" * (len(stream) % 2)
        cuts = sorted(
            2 * rng.randrange(1, len(stream) // 2) for _ in range(rng.choice((0, 0, 1, 4)))
        )
        edges = [0, *dict.fromkeys(cuts), len(stream)]
        frames.append([stream[a:b] for a, b in itertools.pairwise(edges)])
    split = any(len(fragments) > 1 for fragments in frames)
    body, offsets = b"", []
    for fragments in frames:
        offsets.append(len(body))
        for fragment in fragments:
            body += struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment)) + fragment
    table = b"".join(struct.pack("<I", offset) for offset in offsets)
    extended: dict[str, bytes] = {}
    kind = rng.choice(("basic", "empty", "extended"))
    if (split and len(streams) > 1) or kind == "basic":
        kind = "basic"
    elif kind == "extended" and not split:
        extended["ExtendedOffsetTable"] = struct.pack(f"<{len(offsets)}Q", *offsets)
        lengths = [len(stream) for stream in streams]
        extended["ExtendedOffsetTableLengths"] = struct.pack(f"<{len(lengths)}Q", *lengths)
    head = table if kind == "basic" else b""
    value = struct.pack("<HHI", 0xFFFE, 0xE000, len(head)) + head + body
    return value + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), extended


def lossless(pixels: np.ndarray[Any, Any], rng: random.Random) -> tuple[str, list[bytes]]:
    """(transfer syntax, streams)."""
    if pixels.dtype != np.int16 and min(pixels.shape[1:]) > 1 and rng.random() < 0.5:
        return "1.2.840.10008.1.2.4.80", [bytes(imagecodecs.jpegls_encode(one)) for one in pixels]
    streams = [
        bytes(imagecodecs.jpeg2k_encode(one, level=0, codecformat="j2k", reversible=True))
        for one in pixels
    ]
    return "1.2.840.10008.1.2.4.90", streams


def variant(
    plain: Dataset, pixels: np.ndarray[Any, Any], rng: random.Random, encoded: Any
) -> bytes:
    """A file with the same image."""
    made = changed(plain, rng)
    if encoded is None:
        content = written(in_syntax(made, rng.choice(NATIVE), pixels))
    else:
        syntax, streams = encoded
        value, extended = encapsulated(streams, rng)
        made.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        for keyword, table in extended.items():
            setattr(made, keyword, table)
        made.PixelData = value
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
        content = written(made)
    preamble = rng.choice((b"\0" * 128, b"MZ" + b"\x90" * 126, rng.randbytes(128)))
    return preamble + content[128:]


def values_of(path: Path) -> dict[str, Any]:
    """Everything that is said of a file."""
    index, report = scan(path)
    frames = DicomFrames(index, tags=["SeriesDescription"])
    stored = FrameReader(index)
    result: dict[str, Any] = {"class": report.findings[0].file_class}
    for i in range(len(index)):
        image, meta = frames[i]
        result[f"image {i}"] = image.numpy().tobytes()
        array = stored.read_stored(i)
        result[f"stored {i}"] = (str(array.dtype), array.shape, array.tobytes())
        kept = {key: value for key, value in meta.items() if key not in _NOT_COMPARED}
        result[f"meta {i}"] = repr(sorted(kept.items()))
    return result


def rounds(seed: int, tally: Tally) -> Iterator[None]:
    """One image after the other, each in several files."""
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        while True:
            rng = random.Random(f"{seed} {number}")
            pixels = picture(rng)
            plain = described(pixels, rng)
            first = Path(folder, "plain.dcm")
            first.write_bytes(written(in_syntax(plain, ExplicitVRLittleEndian, pixels)))
            expected = values_of(first)
            assert len(expected) == 1 + 3 * len(pixels)
            for k in range(6):
                encoded = lossless(pixels, rng) if k % 2 else None
                name = rng.choice(("a.dcm", "IM000001", "x.y.z", "ÄÖ ü.DCM"))
                path = Path(folder, name)
                path.write_bytes(variant(plain, pixels, rng, encoded))

                def compare(path: Path = path, expected: dict[str, Any] = expected) -> str:
                    found = values_of(path)
                    differing = [key for key in expected if found.get(key) != expected[key]]
                    if differing:
                        raise AssertionError(f"other {', '.join(differing)}")
                    return "the same"

                tally.timed(f"image {number} of seed {seed}, file {k}", compare)
                path.unlink()
                yield
            number += 1


if __name__ == "__main__":
    sys.exit(main("metamorphic", rounds))
