"""Decodes mutated frames until the time is up; the process may not die, hang, or raise anything but our errors.

`python -m tests.long.fuzz_backends --family jpeg_2000 --seconds 60` runs one family of codecs in this process, which
limits its own address space to 2 GiB. Each mutation follows from (seed, number), so `--only NUMBER` repeats one.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

from dicomtorch.backends.base import get_backend
from dicomtorch.errors import DicomTorchError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    DEFLATED_IMAGE_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_FAMILY,
    JPEG_2000_FAMILY,
    JPEG_BASELINE,
    JPEG_DCT,
    JPEG_EXTENDED,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
    JPEG_XL_FAMILY,
    RLE_LOSSLESS,
)
from tests.support import frames_by_pydicom, streams_by_encoders

FAMILIES: dict[str, frozenset[str]] = {
    "native": frozenset(
        {EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, ENCAPSULATED_UNCOMPRESSED}
    ),
    "deflated": frozenset({DEFLATED_IMAGE_FRAME}),
    "rle": frozenset({RLE_LOSSLESS}),
    "jpeg": JPEG_DCT,
    "jpeg_lossless": JPEG_LOSSLESS_FAMILY,
    "jpeg_ls": JPEG_LS_FAMILY,
    "jpeg_2000": JPEG_2000_FAMILY,
    "htj2k": HTJ2K_FAMILY,
    "jpeg_xl": JPEG_XL_FAMILY,
}
SLOW_SECONDS = 1.0
ADDRESS_SPACE = 2 << 30
LARGEST = 200_000
"""Bytes of the largest sample frame that is mutated."""

Seed = tuple[bytes, ImagePixel]


def own_frames(family: str) -> list[Seed]:
    """Frames that we encode: gray and colour, 8 to 16 bits."""
    frames = []
    for shape, bits in (((17, 23), 8), ((64, 48), 12), ((31, 33), 16), ((19, 21, 3), 8)):
        array = streams_by_encoders.picture(shape, bits)
        if family == "jpeg":
            if bits == 16:
                continue
            syntax = JPEG_BASELINE if bits == 8 else JPEG_EXTENDED
            frames.append(
                (
                    streams_by_encoders.jpeg_dct(array, bits),
                    streams_by_encoders.pixel_of(array, syntax, bits),
                )
            )
            continue
        frames += [
            streams_by_encoders.encode(array, syntax, bits)
            for syntax in sorted(FAMILIES[family] & streams_by_encoders.LOSSLESS.keys())
        ]
    return frames


def sample_frames(family: str, folder: Path) -> list[Seed]:
    """The first frame of the files below `folder` that are of this family and not too large."""
    frames = []
    for path in sorted(folder.rglob("*")):
        if (
            not path.is_file()
            or path.suffix in (".json", ".csv", ".md")
            or path.stat().st_size > 8 << 20
        ):
            continue
        try:
            ds = frames_by_pydicom.read(path)
            if frames_by_pydicom.syntax_of(ds) not in FAMILIES[family]:
                continue
            pixel = frames_by_pydicom.image_pixel(ds)
            data = frames_by_pydicom.frames(ds, {0})[0]
        except Exception:
            continue
        if 0 < len(data) <= LARGEST:
            frames.append((data, pixel))
    return frames


def mutate(data: bytes, chance: random.Random) -> bytes:
    """`data` with one to four faults, more often near its start, where the headers are."""
    frame = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not frame:
            break
        reach = len(frame) if chance.random() < 0.4 else min(len(frame), 256)
        at = chance.randrange(reach)
        kind = chance.randrange(7)
        if kind == 0:
            frame[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            frame[at] = chance.choice((0, 1, 2, 3, 127, 128, 254, 255, chance.randrange(256)))
        elif kind == 2:
            width, code = chance.choice(((2, ">H"), (4, ">I"), (4, "<I")))
            top = (1 << 8 * width) - 1
            value = chance.choice((0, 1, 2, top, top // 2, chance.randrange(top)))
            frame[at : at + width] = struct.pack(code, value)
        elif kind == 3:
            del frame[at:]
        elif kind == 4:
            del frame[at : at + chance.randrange(1, 40)]
        elif kind == 5:
            frame[at:at] = chance.randbytes(chance.randrange(1, 40))
        else:
            other = chance.randrange(len(frame))
            frame[at : at + 30] = frame[other : other + chance.randrange(1, 60)]
    return bytes(frame)


def limit_memory() -> None:
    """Lets an allocation beyond `ADDRESS_SPACE` fail, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def run(family: str, backend_name: str, seconds: float, seed: int, only: int, progress: int) -> str:
    """What went wrong, or "" and how often nothing did."""
    backend = get_backend(backend_name)
    seeds = own_frames(family)
    if folder := os.environ.get("DICOMTORCH_SAMPLES"):
        seeds += sample_frames(family, Path(folder))
    seeds = [(data, pixel) for data, pixel in seeds if backend.supports(pixel)]
    if not seeds:
        print(f"{family}: {backend_name} decodes none of the frames")
        return ""
    limit_memory()
    number, decoded, slowest, end = 0, 0, 0.0, time.monotonic() + seconds
    while (only < 0 and time.monotonic() < end) or (only >= 0 and number == 0):
        chance = random.Random(f"{seed} {max(only, number)}")
        data, pixel = chance.choice(seeds)
        mutated = mutate(data, chance)
        if progress >= 0:
            os.pwrite(progress, struct.pack("<q", max(only, number)), 0)
        start = time.perf_counter()
        try:
            result = backend.decode(mutated, pixel)
            decoded += 1
            if result.shape != pixel.shape:
                return f"{family} {number}: shape {result.shape} for {pixel}"
        except DicomTorchError:
            pass
        except Exception as error:
            return f"{family} {number}: {type(error).__name__}: {error} for {pixel}"
        slowest = max(slowest, time.perf_counter() - start)
        if slowest > SLOW_SECONDS:
            return f"{family} {number}: took {slowest:.1f} s for {pixel}"
        number += 1
    print(
        f"{backend_name} {family}: {number} mutations of {len(seeds)} frames, {number - decoded} refused, "
        f"{decoded} decoded, slowest {slowest * 1e3:.0f} ms, peak {peak_mb()} MB"
    )
    return ""


def peak_mb() -> str:
    """The most memory that this process has had."""
    try:
        import resource
    except ImportError:  # Windows
        return "?"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6:.0f}"


def run_all(backend_name: str, seconds: float, seed: int) -> int:
    """Each family in a process of its own; prints one line for all in the end."""
    began, failed, mutations = time.monotonic(), [], 0
    for family in FAMILIES:
        share = str(seconds / len(FAMILIES))
        command = [sys.executable, "-m", "tests.long.fuzz_backends", "--family", family]
        command += ["--backend", backend_name, "--seconds", share, "--seed", str(seed)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, end="", flush=True)
        found = re.search(r"(\d+) mutations", done.stdout)
        mutations += int(found[1]) if found else 0
        if done.returncode:
            failed.append(f"{family} ({done.returncode})")
    print(
        f"fuzz_backends: {mutations:,} mutated streams of {len(FAMILIES)} families by {backend_name} in "
        f"{time.monotonic() - began:.0f} s, {', '.join(failed) or 'no'} problem"
    )
    return int(bool(failed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, help="one of them; default: each in turn")
    parser.add_argument("--backend", default="imagecodecs")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=-1, help="repeat this mutation")
    parser.add_argument(
        "--progress", type=int, default=-1, help="descriptor that gets the number of each mutation"
    )
    given = parser.parse_args()
    if given.family is None:
        return run_all(given.backend, given.seconds, given.seed)
    problem = run(
        given.family, given.backend, given.seconds, given.seed, given.only, given.progress
    )
    if problem:
        print(problem, file=sys.stderr)
    return int(bool(problem))


if __name__ == "__main__":
    sys.exit(main())
