"""What the guard costs a frame, and what a truncated frame costs until it is refused.

`DICOMTORCH_SAMPLES=folder python -m tests.support.measure_backends guard` and `... truncated --backend simpleitk`: over
the frames of the samples that have a reference, the least of several times.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from dicomtorch.backends import guard, jpeg, jpeg2000
from dicomtorch.backends.base import get_backend
from dicomtorch.errors import DecodeError, DicomTorchError
from dicomtorch.model.image import ImagePixel
from tests.long import fuzz_backends
from tests.support import frames_by_pydicom

CUTS = (0.5, 0.9, 0.99, 1.0)
"""Where frames are cut, as a part of their length; 1.0 is three bytes before the end."""


def sample_frames(folder: Path) -> Iterator[tuple[str, bytes, ImagePixel]]:
    """Every frame that has a reference."""
    golden = json.loads((folder / "golden.json").read_text())
    for name, entry in sorted(golden.items()):
        if not entry.get("frames"):
            continue
        ds = frames_by_pydicom.read(folder / name)
        pixel = frames_by_pydicom.image_pixel(ds)
        wanted = {int(frame) for frame in entry["frames"]}
        for frame, data in frames_by_pydicom.frames(ds, wanted).items():
            yield f"{name} {frame}", data, pixel


def family_of(pixel: ImagePixel) -> str:
    """The family of codecs that a transfer syntax belongs to."""
    syntax = pixel.transfer_syntax_uid
    names = (name for name, family in fuzz_backends.FAMILIES.items() if syntax in family)
    return next(names, "native")


def least(
    work: Callable[[], object], times: int, before: Callable[[], object] = lambda: None
) -> float:
    """Seconds of the fastest of several calls."""
    best = float("inf")
    for _ in range(times):
        before()
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def forget() -> None:
    """Lets the next frame be the first one with its header."""
    jpeg._kept_header.cache_clear()
    jpeg2000._main_header.cache_clear()


def measure_guard(folder: Path) -> None:
    """Microseconds of `guard.check`, given the frame in a memoryview, as a reader gives it.

    Of the first frame with a header, and of those that follow with the same.
    """
    rows: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for name, data, pixel in sample_frames(folder):
        check = partial(guard.check, memoryview(bytearray(data)), pixel)
        first, next_one = least(check, 100, forget), least(check, 200)
        rows[f"{family_of(pixel):13} {pixel.transfer_syntax_uid}"].append(
            (next_one * 1e6, first * 1e6, name)
        )
    print(
        f"{'family':13} {'transfer syntax':23} frames  median us    most us  a first one: median, most"
    )
    for key, found in sorted(rows.items()):
        nexts, firsts, _ = zip(*found, strict=True)
        print(
            f"{key:37} {len(found):6} {median(nexts):10.1f} {max(nexts):10.1f} {median(firsts):10.1f} "
            f"{max(firsts):6.1f}  {max(found)[2]}"
        )


def refusal(name: str, data: bytes, pixel: ImagePixel) -> float | None:
    """Seconds of the fastest of three refusals; `None` if it is not refused."""
    backend = get_backend(name)

    def refuse() -> None:
        try:
            backend.decode(data, pixel)
        except DecodeError:
            return
        raise AssertionError

    try:
        return least(refuse, 3)
    except AssertionError:
        return None


def measure_truncated(folder: Path, name: str) -> None:
    """Milliseconds until a frame that was cut is refused, beside those of decoding the whole frame."""
    rows: dict[str, list[tuple[float, float, float, str]]] = defaultdict(list)
    decoded: dict[str, int] = defaultdict(int)
    backend = get_backend(name)
    for frame, data, pixel in sample_frames(folder):
        if not backend.supports(pixel):
            continue
        try:
            whole = least(partial(backend.decode, data, pixel), 3) * 1e3
        except DicomTorchError:
            continue  # frames that this backend refuses as they are
        for part in CUTS:
            cost = refusal(name, data[: int((len(data) - 3) * part)], pixel)
            if cost is None:
                decoded[family_of(pixel)] += 1
            else:
                rows[family_of(pixel)].append((cost * 1e3, whole, part, frame))
    print(f"{'family':14} {'refused':>7} {'decoded':>7} {'most ms':>8} {'whole ms':>8} {'cut':>5}")
    for family, found in sorted(rows.items()):
        for cost, whole, part, frame in sorted(found, reverse=True)[:3]:
            print(
                f"{family:14} {len(found):7} {decoded[family]:7} {cost:8.2f} {whole:8.2f} {part:5}  {frame}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("guard", "truncated"))
    parser.add_argument("--backend", default="imagecodecs")
    given = parser.parse_args()
    folder = Path(os.environ["DICOMTORCH_SAMPLES"])
    if given.what == "guard":
        measure_guard(folder)
    else:
        measure_truncated(folder, given.backend)


if __name__ == "__main__":
    main()
