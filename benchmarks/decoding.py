"""Frames/s of decoding: each syntax and backend, beside the codec alone on streams in memory with as many threads."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import torch
from pydicom.pixels.utils import pixel_array

from benchmarks import loading, report
from dicomtorch import DicomFrames, FrameIndex, FrameLoader, PixelOptions, scan
from dicomtorch.errors import DicomTorchError
from dicomtorch.reader.reader import FrameReader

SYNTAXES = (
    *("uncompressed", "rle", "jpeg_lossless", "jpeg_ls", "jpeg_2000", "htj2k"),
    "colour_jpeg_cine",
)
BACKENDS = ("imagecodecs", "pydicom", "simpleitk")
THREADS = (1, 2)
COLUMNS = ("syntax", "threads")
CODEC = "codec alone"

_codecs: Any = imagecodecs
CODECS: dict[str, Callable[[bytes], Any]] = {
    "rle": lambda stream: _codecs.dicomrle_decode(stream, dtype="u2"),
    "jpeg_lossless": _codecs.jpeg8_decode,
    "jpeg_ls": _codecs.jpegls_decode,
    "jpeg_2000": _codecs.jpeg2k_decode,
    "htj2k": _codecs.htj2k_decode,
    "colour_jpeg_cine": _codecs.jpeg8_decode,
}


def measure(syntax: str, options: argparse.Namespace) -> list[report.Result]:
    """From files to batches of float32 display values; every backend's stored values equal the first's."""
    index, _ = scan(loading.paths_of(syntax, options))
    index = index.select(np.arange(min(len(index), options.frames)))
    positions = list(range(len(index)))
    able: dict[str, Callable[[], int]] = {}
    missing = {}
    threads_of: dict[str, int] = {}
    for threads in THREADS:
        if syntax in CODECS:
            reader = FrameReader(index)
            streams = [reader.read_encoded(i) for i in positions]
            _add(able, threads_of, CODEC, threads, _codec_alone(CODECS[syntax], streams, threads))
        for backend in BACKENDS:
            try:
                check(index, backend, lossy=syntax == "colour_jpeg_cine")
                reader = FrameReader(index, backend)
            except DicomTorchError as error:
                missing[backend] = report.first_line(error)
                continue
            _add(able, threads_of, backend, threads, _backend(reader, positions, threads))
        # Six batches: as many for each thread, or the last one is waited for alone.
        loader = FrameLoader(DicomFrames(index), max(1, len(index) // 6), num_threads=threads)
        _add(able, threads_of, "FrameLoader", threads, _epoch(loader))
    rates = report.interleaved(able, options.repeats)
    results = []
    for threads in THREADS:
        mine = {
            name.rpartition("/")[0]: rates[name] for name in rates if threads_of[name] == threads
        }
        base = CODEC if syntax in CODECS else "pydicom"
        results += report.rows(mine, missing, base, syntax=syntax, threads=threads)
    return results


def _add(
    able: dict[str, Callable[[], int]],
    threads_of: dict[str, int],
    name: str,
    threads: int,
    once: Callable[[], int],
) -> None:
    able[f"{name}/{threads}"] = once
    threads_of[f"{name}/{threads}"] = threads


def _codec_alone(
    decode: Callable[[bytes], Any], streams: list[bytes], threads: int
) -> Callable[[], int]:
    def part(k: int) -> None:
        for stream in streams[k::threads]:
            decode(stream)

    def once() -> int:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(threads)))
        return len(streams)

    return once


def _backend(reader: FrameReader, positions: list[int], threads: int) -> Callable[[], int]:
    out = torch.empty((len(positions), *reader.shape(0)), dtype=reader.dtype)

    def once() -> int:
        for result in reader.read_many(positions, out, num_threads=threads):
            if isinstance(result, DicomTorchError):
                raise result
        return len(positions)

    return once


def _epoch(loader: FrameLoader) -> Callable[[], int]:
    return lambda: sum(len(images) for images, _ in loader)


def check(index: FrameIndex, backend: str, *, lossy: bool) -> None:
    """That a backend gives the values of the first one.

    Raises:
        DicomTorchError: It does not decode this.
        AssertionError: It gives something else.
    """
    stored = PixelOptions("stored")
    ours, theirs = FrameReader(index, options=stored), FrameReader(index, backend, stored)
    if theirs.unsupported:
        raise next(iter(theirs.unsupported.values()))
    for i in (0, len(index) - 1):
        np.testing.assert_allclose(
            theirs.read_stored(i).astype(float),
            ours.read_stored(i).astype(float),
            atol=4.5 if lossy else 0,
            err_msg=backend,
        )


def measure_samples(options: argparse.Namespace) -> list[report.Result]:
    """Real files, where `DICOMTORCH_SAMPLES` names a folder of them: stored values, ours and those of plain pydicom."""
    folder = os.environ.get("DICOMTORCH_SAMPLES", "")
    if not Path(folder).is_dir() or not folder:
        return []
    index, _ = scan(folder)
    results = []
    for name in sorted(set(index.column("TransferSyntaxUID"))):
        chosen = index.filter(TransferSyntaxUID=name)
        results += _measure_sample(str(pydicom.uid.UID(name).name), chosen, options.repeats)
    return results


def _measure_sample(name: str, index: FrameIndex, repeats: int) -> list[report.Result]:
    reader = FrameReader(index, options=PixelOptions("stored"))
    same, why = [], "differs from ours, or is refused"
    paths = [Path(index.path(i)) for i in range(len(index))]
    frames = index.column("frame").tolist()
    for i in range(len(index)):
        try:
            theirs = pixel_array(paths[i], index=frames[i])
            ours = reader.read_stored(i)
        except Exception:
            continue
        alike = theirs.shape == ours.shape and np.abs(theirs.astype(float) - ours).max() <= 4.5
        if alike:
            same.append(i)
        if len(same) == 32:
            break
    common = {"syntax": f"real: {name}", "threads": 1}
    if not same:
        return [{**common, "library": "pydicom", "missing": why}]

    def ours_once() -> int:
        for i in same:
            reader.read_stored(i)
        return len(same)

    def theirs_once() -> int:
        for i in same:
            pixel_array(paths[i], index=frames[i])
        return len(same)

    rates = report.interleaved({"imagecodecs": ours_once, "plain pydicom": theirs_once}, repeats)
    return report.rows(rates, {}, "plain pydicom", **common)
