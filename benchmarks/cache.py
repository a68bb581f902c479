"""`python -m benchmarks.cache`: how decoded frames are best kept: size and speed of codecs, and what decoding costs.

Reading an entry is open, read, checksum, unpack, on realistic frames: CT, ultrasound, X-ray. The last table is the
second epoch over JPEG 2000 files with `DicomFrames(cache=)` beside the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

from benchmarks import data, report
from dicomtorch import DicomFrames

Array = npt.NDArray[Any]
_codecs: Any = imagecodecs


def _blosc2(compressor: str, shuffle: str) -> Callable[[Array], bytes]:
    return lambda a: bytes(
        _codecs.blosc2_encode(
            a.tobytes(),
            level=1,
            compressor=compressor,
            shuffle=shuffle,
            typesize=a.dtype.itemsize,
            numthreads=1,
        )
    )


def _unblosc2(entry: Any, out: Array) -> None:
    _codecs.blosc2_decode(entry, numthreads=1, out=out.reshape(-1).view(np.uint8))


def _copy(entry: Any, out: Array) -> None:
    out.reshape(-1).view(np.uint8)[:] = np.frombuffer(entry, np.uint8)


WAYS: dict[str, tuple[Callable[[Array], bytes], Callable[[Any, Array], Any]]] = {
    "raw": (lambda a: a.tobytes(), _copy),
    "Zstandard 1": (
        lambda a: bytes(_codecs.zstd_encode(a.tobytes(), level=1)),
        lambda entry, out: _codecs.zstd_decode(entry, out=out.reshape(-1).view(np.uint8)),
    ),
    "LZ4": (
        lambda a: bytes(_codecs.lz4_encode(a.tobytes(), header=True)),
        lambda entry, out: _codecs.lz4_decode(
            entry, header=True, out=out.reshape(-1).view(np.uint8)
        ),
    ),
    "Blosc2 LZ4 shuffle": (_blosc2("lz4", "shuffle"), _unblosc2),
    "Blosc2 LZ4 bitshuffle": (_blosc2("lz4", "bitshuffle"), _unblosc2),
    "Blosc2 Zstandard shuffle": (_blosc2("zstd", "shuffle"), _unblosc2),
    "HTJ2K lossless": (
        lambda a: bytes(_codecs.htj2k_encode(a, reversible=True)),
        lambda entry, out: _codecs.htj2k_decode(entry, out=out),
    ),
}


def frames(size: int) -> dict[str, Array]:
    """What is kept."""
    return {
        "CT": data.phantom(0, size),
        "ultrasound": data.speckle(0, size * 15 // 16, size * 5 // 4),
        "colour ultrasound": data.colour(0, size * 15 // 16, size * 5 // 4),
        "X-ray": data.xray(0, size * 4),
    }


def decoders(frame: Array) -> dict[str, Callable[[], Any]]:
    """What reading an entry saves."""
    found: dict[str, bytes] = {"HTJ2K": bytes(_codecs.htj2k_encode(frame, reversible=True))}
    calls: dict[str, Callable[[bytes], Any]] = {"HTJ2K": _codecs.htj2k_decode}
    if frame.dtype == np.uint8:
        found["JPEG"] = bytes(_codecs.jpeg8_encode(frame, level=90))
        calls["JPEG"] = _codecs.jpeg8_decode
    else:
        found["RLE"], calls["RLE"] = (
            data._rle(frame),
            lambda stream: _codecs.dicomrle_decode(stream, dtype="u2"),
        )
        found["JPEG lossless"] = data._jpeg_lossless(frame)
        calls["JPEG lossless"] = _codecs.jpeg8_decode
        found["JPEG-LS"], calls["JPEG-LS"] = data._jpeg_ls(frame), _codecs.jpegls_decode
    found["JPEG 2000"] = bytes(
        _codecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True)
    )
    calls["JPEG 2000"] = _codecs.jpeg2k_decode
    return {name: lambda name=name: calls[name](found[name]) for name in found}  # type: ignore[misc]


def measure(name: str, frame: Array, folder: Path, repeats: int) -> list[report.Result]:
    """Milliseconds, medians of interleaved rounds."""
    timed: dict[str, Callable[[], Any]] = {}
    sizes: dict[str, float] = {}
    for way, (encode, decode) in WAYS.items():
        entry = encode(frame)
        path = folder / f"{name}-{way}"
        path.write_bytes(entry)
        sizes[f"read: {way}"] = len(entry) / frame.nbytes
        timed[f"read: {way}"] = _reading(path, decode, np.empty_like(frame), frame)
        timed[f"pack: {way}"] = lambda encode=encode: encode(frame)  # type: ignore[misc]
    timed.update({f"decode: {what}": decode for what, decode in decoders(frame).items()})
    spent: dict[str, list[float]] = {what: [] for what in timed}
    for _ in range(repeats):
        for what, call in timed.items():
            start = time.perf_counter()
            call()
            spent[what].append((time.perf_counter() - start) * 1e3)
    return [
        {"frame": name, "what": what, "ms": statistics.median(all_), "size": sizes.get(what, "-")}
        for what, all_ in spent.items()
    ]


def _reading(
    path: Path, decode: Callable[[Any, Array], Any], out: Array, expected: Array
) -> Callable[[], Any]:
    memory = bytearray(path.stat().st_size)

    def read() -> None:
        with open(path, "rb", buffering=0) as file:
            file.readinto(memory)
        zlib.crc32(memory)
        decode(memoryview(memory), out)

    read()
    np.testing.assert_array_equal(out, expected)
    return read


def epochs(options: argparse.Namespace) -> list[report.Result]:
    """First and later epochs over JPEG 2000 files."""
    results = []
    paths = data.make(options.data, data.SYNTAXES["jpeg_2000"], options.frames, options.size)
    for repeat in range(options.epochs):
        with tempfile.TemporaryDirectory() as folder:
            dataset = DicomFrames(paths, cache=Path(folder) / "cache", cache_dir=folder)
            loader = DataLoader(dataset, batch_size=32, shuffle=True)
            spent = []
            for _ in range(3):
                start = time.perf_counter()
                count = sum(len(images) for images, _ in loader)
                spent.append((time.perf_counter() - start) * 1e3 / count)
        row: report.Result = {"run": repeat, "first_ms": spent[0], "second_ms": spent[1]}
        results.append({**row, "third_ms": spent[2], "first/second": spent[0] / spent[1]})
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints tables, and writes `cache.json`."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {"machine": report.machine(), "versions": report.versions()}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        kept = [
            row
            for name, frame in frames(options.size).items()
            for row in measure(name, frame, Path(folder), options.repeats)
        ]
    results["codecs"], results["epochs"] = kept, epochs(options)
    print(report.plain_table("Keeping a decoded frame", kept, ("frame", "what", "size", "ms")))
    columns = ("run", "first_ms", "second_ms", "third_ms", "first/second")
    print(report.plain_table("JPEG 2000 with a cache, ms a frame", results["epochs"], columns))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "cache.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache", description=__doc__)
    output = Path("out") / "benchmarks"
    parser.add_argument("--size", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=3, help="runs; default: %(default)s")
    parser.add_argument("--folder", type=Path, help="a folder on the disk that shall be measured")
    parser.add_argument("--data", type=Path, default=output / "data", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=output, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
