"""Decodes JPEG 2000 and HTJ2K frames whose SIZ, COD, COC, QCD or QCC was changed; no process may die of one.

`python -m tests.long.fuzz_segments --seconds 600` starts one child process after the other, which limits its own
memory, and counts those that died. Each mutation follows from (seed, number): `--seed SEED --only NUMBER` repeats one.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace

import imagecodecs

from dicomtorch.backends.base import get_backend
from dicomtorch.backends.streams import parse
from dicomtorch.errors import DicomTorchError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS
from dicomtorch.model.syntaxes import HTJ2K, HTJ2K_LOSSLESS, JPEG_2000, JPEG_2000_LOSSLESS
from tests.long.fuzz_backends import limit_memory
from tests.support import streams_by_encoders as encoders

SIZ, COD, COC, QCD, QCC = (b"\xff\x51", b"\xff\x52", b"\xff\x53", b"\xff\x5c", b"\xff\x5d")
SOT, SOD = b"\xff\x90", b"\xff\x93"
LARGEST = 1 << 18
"""Pixels of the largest frame that a changed SIZ may ask for."""
CHILD_SECONDS = 20.0

Seed = tuple[bytes, ImagePixel]


def segment_at(data: bytes, marker: bytes) -> tuple[int, int]:
    """Where the content of the first segment begins and ends."""
    at = data.index(marker) + 4
    return at, at - 2 + int.from_bytes(data[at - 2 : at], "big")


def with_component_segments(data: bytes) -> bytes:
    """The same stream with COC and QCC of component 0, which say what COD and QCD say."""
    start, stop = segment_at(data, COD)
    coc = b"\0" + data[start : start + 1] + data[start + 5 : stop]
    at, end = segment_at(data, QCD)
    qcc = b"\0" + data[at:end]
    inserted = b"".join(
        marker + struct.pack(">H", len(content) + 2) + content
        for marker, content in ((COC, coc), (QCC, qcc))
    )
    return data[:end] + inserted + data[end:]


def with_tile_segments(data: bytes) -> bytes:
    """The same stream with QCD and COD in the header of its first tile-part, too."""
    inserted = b"".join(
        data[slice(segment_at(data, marker)[0] - 4, segment_at(data, marker)[1])]
        for marker in (COD, QCD)
    )
    at, body = data.index(SOT), data.index(SOD)
    (length,) = struct.unpack_from(">I", data, at + 6)
    length = length and length + len(inserted)
    return (
        data[: at + 6] + struct.pack(">I", length) + data[at + 10 : body] + inserted + data[body:]
    )


def seeds() -> list[Seed]:
    """Gray and colour, 8 to 16 bits, both wavelets, with and without segments for a component or a tile-part."""
    found: list[Seed] = []
    for shape, bits in (((33, 40), 8), ((64, 48), 12), ((20, 30), 16), ((24, 40, 3), 8)):
        image = encoders.picture(shape, bits)
        htj2k = (
            (bytes(imagecodecs.htj2k_encode(image, reversible=True)), HTJ2K_LOSSLESS),
            (bytes(imagecodecs.htj2k_encode(image, reversible=False)), HTJ2K),
        )
        j2k = (
            (encoders.jpeg_2000(image, bits), JPEG_2000_LOSSLESS),
            (
                bytes(
                    imagecodecs.jpeg2k_encode(
                        image, level=60, codecformat="j2k", bitspersample=bits, reversible=False
                    )
                ),
                JPEG_2000,
            ),
        )
        for data, syntax in (*htj2k, *j2k):
            pixel = encoders.pixel_of(image, syntax, bits)
            found += [
                (variant, pixel)
                for variant in (data, with_component_segments(data), with_tile_segments(data))
            ]
    return found


def mutate(data: bytes, chance: random.Random) -> bytes:
    """`data` with one to three bytes of its segments changed."""
    frame = bytearray(data)
    places = [m for m in (SIZ, COD, COC, QCD, QCC) if m in data[: data.index(SOD)]]
    for _ in range(chance.choice((1, 1, 2, 3))):
        marker = chance.choice(places)
        start, stop = segment_at(data, marker)
        second = data.find(marker, stop, data.index(SOD))
        if second >= 0 and chance.random() < 0.5:  # in the tile-part
            start, stop = second + 4, second + 4 + stop - start
        at = chance.randrange(start - 2, stop)
        kind = chance.randrange(4)
        if kind == 0:
            frame[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            frame[at] = (frame[at] + chance.choice((-8, -1, 1, 8, 32))) % 256
        elif kind == 2:
            frame[at] = chance.choice((0, 1, 2, 0x1F, 0x20, 0x40, 0x7F, 0x80, 0xF8, 0xFF))
        else:
            frame[at] = chance.randrange(256)
    return bytes(frame)


def agreeing(data: bytes, pixel: ImagePixel) -> ImagePixel:
    """`pixel` with the size that the stream says, if it says one that can be decoded here."""
    try:
        stream = parse(data, pixel.transfer_syntax_uid, LIMITS.tiles)
    except DicomTorchError:
        return pixel
    if stream.rows * stream.columns > LARGEST or max(stream.rows, stream.columns) > 65_535:
        return pixel
    return replace(pixel, rows=stream.rows, columns=stream.columns)


def child(backend_name: str, seconds: float, seed: int, only: int, progress: str) -> int:
    """Decodes until the time is up; the number of the mutation at hand is in the file `progress`."""
    backend = get_backend(backend_name)
    frames = [(data, pixel) for data, pixel in seeds() if backend.supports(pixel)]
    limit_memory()
    counts: Counter[str] = Counter()
    number, end = max(only, 0), time.monotonic() + seconds
    descriptor = os.open(progress, os.O_WRONLY | os.O_CREAT, 0o600) if progress else -1
    while time.monotonic() < end:
        chance = random.Random(f"{seed} {number}")
        data, pixel = chance.choice(frames)
        data = mutate(data, chance)
        pixel = agreeing(data, pixel)
        if descriptor >= 0:
            os.pwrite(descriptor, struct.pack("<q", number), 0)
        try:
            backend.decode(data, pixel)
            counts["decoded"] += 1
        except DicomTorchError:
            counts["refused"] += 1
        except MemoryError:
            counts["memory"] += 1
        if only >= 0:
            break
        number += 1
    print(*(counts[name] for name in ("decoded", "refused", "memory")))
    return 0


def parent(backend_name: str, seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """Runs children until the time is up: what they counted, and what killed which."""
    counts: Counter[str] = Counter()
    deaths: list[str] = []
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        progress = os.path.join(folder, "progress")
        while (left := end - time.monotonic()) > 0.5:
            command = [sys.executable, "-m", "tests.long.fuzz_segments", "--child"]
            command += ["--backend", backend_name, "--seed", str(seed), "--progress", progress]
            command += ["--seconds", str(min(left, CHILD_SECONDS))]
            try:
                done = subprocess.run(
                    command, capture_output=True, timeout=CHILD_SECONDS + 60, check=False
                )
                code = done.returncode
                numbers = [int(word) for word in done.stdout.split()]
            except subprocess.TimeoutExpired:
                code, numbers = -1, []
            counts["children"] += 1
            if code or len(numbers) != 3:
                with open(progress, "rb") as stream:
                    (number,) = struct.unpack("<q", stream.read(8))
                deaths.append(f"exit code {code}: --seed {seed} --only {number}")
            else:
                counts.update(dict(zip(("decoded", "refused", "memory"), numbers, strict=True)))
            seed += 1
    return counts, deaths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="imagecodecs")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=-1, help="repeat this mutation of this seed")
    parser.add_argument("--child", action="store_true", help="decode in this process")
    parser.add_argument("--progress", default="", help="a file for the number of the mutation")
    given = parser.parse_args()
    if given.child or given.only >= 0:
        return child(given.backend, given.seconds, given.seed, given.only, given.progress)
    counts, deaths = parent(given.backend, given.seconds, given.seed)
    number = counts["decoded"] + counts["refused"]
    print(
        f"{given.backend}: {number} changed segments in {counts['children']} processes: "
        f"{counts['refused']} refused, {counts['decoded']} decoded, {counts['memory']} out of memory, "
        f"{len(deaths)} deaths"
    )
    for death in deaths:
        print(death, file=sys.stderr)
    return int(bool(deaths))


if __name__ == "__main__":
    sys.exit(main())
