"""`python -m benchmarks.slides`: tiles and regions of a slide beside wsidicom, epochs of tiles beside `DicomFrames`.

A slide of JPEG tiles is made once. Everybody reads the same tiles in the same random order, a call of one after a
call of the other, and is checked to give the same values; caches of decoded tiles are off on both sides. That is done
in several processes, because where the memory of a process lies makes a codec a fifth slower or faster for its whole
life: the ratio is the median of theirs. Last comes a slide of many tiles: how long it takes to index, and to open again
from the kept index.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, generate_uid

from dicomtorch import DicomFrames, DicomSlides, DicomTiles, FrameLoader

TILE = 256
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
Pixels = npt.NDArray[np.uint8]
Call = Callable[[], Any]
Times = dict[str, list[float]]


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the slides, checks, times, prints a table, and writes JSON where asked to."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or Path(temporary)
        slide = folder / f"slide{options.tiles}"
        if not slide.exists():
            write_slide(slide, options.tiles)
        for k in range(options.processes):
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                seed = options.seed + k
                call = process.submit(against_wsidicom, folder, slide, options.calls, seed)
                for name, times in call.result().items():
                    results.setdefault(name, []).append(times)
        slides = DicomSlides(slide, cache_dir=folder / "indexes")
        results["epoch"] = [epochs(slides, options.rounds)]
        results["index"] = indexing(folder, options.many)
    print_table(results)
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=2), encoding="utf-8")
    return 0


# The slides


def write_slide(folder: Path, tiles: int) -> None:
    """A level of `tiles` x `tiles` JPEG tiles with the grain of tissue, and one of half its resolution."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    size = tiles * TILE
    coarse = rng.normal(0, 30, (size // 16 + 1, size // 16 + 1, 3)).repeat(16, 0).repeat(16, 1)
    image = (190 + coarse[:size, :size] + rng.normal(0, 8, (size, size, 3))).clip(0, 255)
    for k in range(2):
        part = image[:: k + 1, :: k + 1].astype(np.uint8)
        frames = [
            bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=85, subsampling="420"))
            for tile in _cut(part)
        ]
        made = level(part.shape[:2], 0.00025 * (k + 1), frames, k)
        made.save_as(folder / f"level{k}.dcm", enforce_file_format=True)


def _cut(image: Pixels) -> list[Pixels]:
    padded = np.pad(image, [(0, -n % TILE) for n in image.shape[:2]] + [(0, 0)])
    rows, columns = (n // TILE for n in padded.shape[:2])
    parts = padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    return list(parts.reshape(-1, TILE, TILE, 3))


def level(shape: tuple[int, int], spacing: float, frames: list[bytes], number: int) -> Dataset:
    """A level as a VL Whole Slide Microscopy Image."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.50")
    dataset.file_meta.MediaStorageSOPClassUID = UID(WHOLE_SLIDE)
    dataset.SOPClassUID = WHOLE_SLIDE
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["slide", str(shape), str(number)])
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    measures, origin, path, color, kind = (Dataset() for _ in range(5))
    measures.PixelSpacing, measures.SliceThickness = [spacing, spacing], 0.001
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 40
    color.CodeValue, color.CodingSchemeDesignator = "414298005", "SCT"
    color.CodeMeaning = "Full Spectrum"
    kind.CodeValue, kind.CodingSchemeDesignator = "111744", "DCM"
    kind.CodeMeaning = "Brightfield illumination"
    path.OpticalPathIdentifier = "0"
    path.IlluminationColorCodeSequence = Items([color])
    path.IlluminationTypeCodeSequence = Items([kind])
    shared = Dataset()
    shared.PixelMeasuresSequence = Items([measures])
    values: dict[str, Any] = {
        "StudyInstanceUID": "1.2.826.0.1.5",
        "SeriesInstanceUID": "1.2.826.0.1.6",
        "FrameOfReferenceUID": "1.2.826.0.1.8",
        "PatientID": "patient",
        "Modality": "SM",
        "InstanceNumber": number + 1,
        "ImageType": ["ORIGINAL" if number == 0 else "DERIVED", "PRIMARY", "VOLUME", "NONE"],
        "ContainerIdentifier": "slide",
        "VolumetricProperties": "VOLUME",
        "SpecimenLabelInImage": "NO",
        "BurnedInAnnotation": "NO",
        "FocusMethod": "AUTO",
        "ExtendedDepthOfField": "NO",
        "AcquisitionDateTime": "20260101120000",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 5,
        "LossyImageCompressionMethod": "ISO_10918_1",
        "ImagedVolumeWidth": shape[1] * spacing,
        "ImagedVolumeHeight": shape[0] * spacing,
        "ImagedVolumeDepth": 0.001,
        "TotalPixelMatrixRows": shape[0],
        "TotalPixelMatrixColumns": shape[1],
        "TotalPixelMatrixFocalPlanes": 1,
        "TotalPixelMatrixOriginSequence": Items([origin]),
        "ImageOrientationSlide": [0, -1, 0, -1, 0, 0],
        "NumberOfOpticalPaths": 1,
        "OpticalPathSequence": Items([path]),
        "SharedFunctionalGroupsSequence": Items([shared]),
        "DimensionOrganizationType": "TILED_FULL",
        "NumberOfFrames": len(frames),
        "Rows": TILE,
        "Columns": TILE,
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "YBR_FULL_422",
        "PlanarConfiguration": 0,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": encapsulate(frames),
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


# What is timed


def against_wsidicom(folder: Path, path: Path, calls: int, seed: int) -> dict[str, Times]:
    """Seconds of one tile, and of regions of 256 and 512 pixels that lie across tiles; nothing without wsidicom.

    Args:
        folder: Of indexes.
        path: Of a slide.
        calls: Of each kind.
        seed: For which tiles.
    """
    try:
        wsidicom = importlib.import_module("wsidicom")
    except ImportError:
        return {}
    config = importlib.import_module("wsidicom.config")
    # Less than a tile; 0 means without a limit there.
    settings = config.Settings(decoded_frame_cache_size=1, encoded_frame_cache_size=1)
    config.set_default_settings(settings)
    slide, order = DicomSlides(path, cache_dir=folder / "indexes")[0], random.Random(seed)
    across = slide.levels[0].tile_columns
    results: dict[str, Times] = {}
    with wsidicom.WsiDicom.open(path) as other:
        for name, size in (("tile", 0), ("region of 256", 256), ("region of 512", 512)):
            times: Times = {"dicomtorch": [], "wsidicom": []}
            for k in range(calls + 4):
                ours, theirs = _calls(slide, other, size, across, order)
                pairs = [("dicomtorch", ours), ("wsidicom", theirs)]
                if k < 4:
                    image, wanted = ours(), np.asarray(theirs())
                    assert np.array_equal(image.permute(1, 2, 0).numpy(), wanted), name
                    continue
                for who, call in pairs[:: 1 if k % 2 else -1]:
                    start = time.perf_counter()
                    call()
                    times[who].append(time.perf_counter() - start)
            results[name] = times
    return results


def _calls(
    slide: Any, other: Any, size: int, across: int, order: random.Random
) -> tuple[Call, Call]:
    if size == 0:
        row, column = order.randrange(across), order.randrange(across)
        return (
            lambda: slide.tile(0, row, column).image,
            lambda: other.read_tile(0, (column, row), as_array=True),
        )
    row, column = (TILE * order.randrange(across - 2) + order.randrange(1, TILE) for _ in range(2))
    return (
        lambda: slide.region(0, row, column, size, size).image,
        lambda: other.read_region((column, row), 0, (size, size), as_array=True),
    )


def epochs(slides: DicomSlides, rounds: int) -> Times:
    """Seconds of a shuffled epoch of tiles, and of the same frames by `DicomFrames`."""
    tiles = DicomTiles(slides, TILE)
    frames = DicomFrames(tiles.index, values="stored")
    times: Times = {"DicomTiles": [], "DicomFrames": []}
    loaders = {
        name: FrameLoader(data, 32, shuffle=True, num_threads=2)
        for name, data in (("DicomTiles", tiles), ("DicomFrames", frames))
    }
    for k in range(rounds + 1):
        for name in [*loaders][:: 1 if k % 2 else -1]:
            start = time.perf_counter()
            for _ in loaders[name]:
                pass
            if k:
                times[name].append(time.perf_counter() - start)
    return times


def indexing(folder: Path, many: int) -> dict[str, float]:
    """Seconds to index a slide of `many` tiles for the first time, and to open it again."""
    root = folder / f"many{many}"
    if not root.exists():
        root.mkdir(parents=True)
        stream = bytes(imagecodecs.jpeg8_encode(np.full((TILE, TILE, 3), 200, np.uint8), level=50))
        across = int(many**0.5)
        shape = (across * TILE, across * TILE)
        made = level(shape, 0.00025, [stream] * across**2, 0)
        made.save_as(root / "level.dcm", enforce_file_format=True)
    with tempfile.TemporaryDirectory() as kept:
        DicomSlides(root, cache_dir=Path(kept) / "warm")  # what is imported once
        results = {}
        for name in ("first", "again"):
            start = time.perf_counter()
            slides = DicomSlides(root, cache_dir=Path(kept) / "indexes")
            results[name] = time.perf_counter() - start
        start = time.perf_counter()
        results["tiles"] = float(len(DicomTiles(slides, TILE)))
        results["list of tiles"] = time.perf_counter() - start
    return results


def print_table(results: dict[str, Any]) -> None:
    """Milliseconds, and ours as a multiple of the other's: by medians, and by the fastest tenth.

    Of several processes the median is printed, and for ratios also the least and the largest.
    """
    print(f"{'':16}  {'':12}  median ms  fastest tenth ms")
    for name, processes in results.items():
        if name == "index":
            continue
        figures = {
            who: np.array([_figures(times[who]) for times in processes]) for who in processes[0]
        }
        for who, found in figures.items():
            print(f"{name:16}  {who:12}  {_cells(np.median(found, axis=0) * 1e3, 3)}")
        ours, theirs = figures.values()
        ratios = ours / theirs
        print(f"{name:16}  {'ratio':12}  {_cells(np.median(ratios, axis=0), 2)}")
        if len(processes) > 1:
            ends = (
                f"{few:.2f} to {many:.2f}"
                for few, many in zip(ratios.min(0), ratios.max(0), strict=True)
            )
            print(f"{name:16}  {'processes':12}  {'  '.join(ends)}")
    index = results["index"]
    print(
        f"{index['tiles']:,.0f} tiles: indexed in {index['first']:.2f} s, opened again in {index['again']:.3f} s, "
        f"listed in {index['list of tiles']:.3f} s"
    )


def _figures(seconds: list[float]) -> tuple[float, float]:
    """(the median, the mean of the fastest tenth)."""
    tenth = sorted(seconds)[: max(1, len(seconds) // 10)]
    return statistics.median(seconds), statistics.mean(tenth)


def _cells(figures: npt.NDArray[np.float64], digits: int) -> str:
    return f"{figures[0]:9.{digits}f}  {figures[1]:16.{digits}f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slides", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder to keep the slides in")
    parser.add_argument("--tiles", type=int, default=16, help="tiles of a side of the slide")
    parser.add_argument("--many", type=int, default=100_000, help="tiles of the slide to index")
    parser.add_argument("--processes", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--calls", type=int, default=400, help="of each kind")
    parser.add_argument("--rounds", type=int, default=10, help="epochs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for all times")
    return parser


if __name__ == "__main__":
    sys.exit(main())
