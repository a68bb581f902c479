"""`python -m benchmarks.viewer`: the viewer in headless Chromium: wheel to paint, window drag, start, memory.

Needs Chromium and playwright (`make test-services` installs both). Times are from when the page is told of an event
to the end of the drawing that it led to, as the page's own clock has it. How long the browser held the event before
(it hands them out once for each frame of the screen) is a row of its own; what the compositor does afterwards is in
none.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks.report import machine, versions

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
VIEWER = "document.getElementById('dicomtorch-viewer').viewer"
BARS = {
    "wheel to paint, cached, p95 ms": 8.0,
    "wheel to paint, not cached, p95 ms": 60.0,
    "window drag on 3062 x 2394, p95 ms": 16.0,
    "command to page, s": 4.0,
    "page to first image, s": 2.0,
    "memory over 10,000 frames, MB": 50.0,
}

WATCH = f"""
(() => {{
  const times = window.times = [], held = window.held = [];
  let begun = 0;
  addEventListener(window.drags ? "pointermove" : "wheel", (e) => {{
    if (!begun) held.push(performance.now() - e.timeStamp);
    begun ||= performance.now();
  }}, true);
  {VIEWER}.root.addEventListener("dtv-painted", () => {{
    if (begun) times.push(performance.now() - begun);
    begun = 0;
  }});
}})()
"""


def write_image(path: Path, pixels: np.ndarray[Any, Any], number: int = 0) -> None:
    """A CT image, multi-frame if there is an axis in front."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID(CTImageStorage)
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["viewer", str(path)])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(path.parent)])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.Modality, dataset.InstanceNumber = "CT", number + 1
    dataset.ImagePositionPatient = [0, 0, float(number)]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.7, 0.7]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_trees(folder: Path, frames: int) -> None:
    """Slices of 512 x 512, one frame of 3062 x 2394, and a tree of many small frames."""
    rng = np.random.default_rng(0)
    for k in range(200):
        write_image(folder / "ct" / f"{k}.dcm", rng.integers(0, 3000, (512, 512)), k)
    write_image(folder / "mg" / "0.dcm", rng.integers(0, 4096, (3062, 2394)))
    for k in range(frames // 200):
        write_image(
            folder / "many" / f"{k % 50}" / f"{k}.dcm", rng.integers(0, 3000, (200, 16, 16)), k
        )


@contextlib.contextmanager
def serving(root: Path) -> Iterator[tuple[str, float, int]]:
    """(address, seconds from the command to its address, process) of `dicomtorch view`."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "dicomtorch", "view", str(root), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        yield url, time.perf_counter() - begun, process.pid
    finally:
        process.terminate()
        process.wait(20)


def opened(browser: Any, url: str) -> tuple[Any, float, float]:
    """(page, seconds until it has its parts, seconds from then to its first image)."""
    begun = time.perf_counter()
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(url)
    there = time.perf_counter()
    while not page.evaluate(f"!!{VIEWER}?.source?.image"):
        time.sleep(0.01)
    return page, there - begun, time.perf_counter() - there


def percentile(times: Sequence[float]) -> tuple[float, float]:
    return float(np.percentile(times, 50)), float(np.percentile(times, 95))


def wheel(page: Any, steps: int, pause: float) -> list[float]:
    """Milliseconds from each of so many steps to the frame that it shows."""
    page.evaluate("window.times.length = window.held.length = 0")
    for _ in range(steps):
        page.mouse.wheel(0, 120)
        time.sleep(pause)
    time.sleep(0.5)
    return list(page.evaluate("window.times"))


def measure_wheel(browser: Any, root: Path) -> dict[str, Any]:
    """Steps at 30/s with what is read ahead, the same back, and jumps to frames that nobody asked for."""
    with serving(root / "ct") as (url, _, _):
        page, _, _ = opened(browser, url)
        page.wait_for_timeout(500)
        page.evaluate(WATCH)
        page.mouse.move(400, 400)
        ahead = wheel(page, 60, 1 / 30)
        page.evaluate(f"{VIEWER}.go(0)")
        page.wait_for_timeout(500)
        cached = wheel(page, 20, 1 / 30)
        held = list(page.evaluate("window.held"))
        missed = []
        for k in range(40):
            page.evaluate(f"{VIEWER}.store.clear(); {VIEWER}.k = {(k * 37) % 190}")
            missed += wheel(page, 1, 0.1)
    return {
        "wheel to paint, 30 steps a second, median and p95 ms": percentile(ahead),
        "wheel events held by the browser, median and p95 ms": percentile(held),
        "wheel to paint, cached, median ms": percentile(cached)[0],
        "wheel to paint, cached, p95 ms": percentile(cached)[1],
        "wheel to paint, not cached, p95 ms": percentile(missed)[1],
    }


def measure_drag(browser: Any, root: Path) -> dict[str, Any]:
    """A drag over the picture, of a frame larger than the screen."""
    with serving(root / "mg") as (url, _, _):
        page, _, _ = opened(browser, url)
        page.wait_for_timeout(1500)
        page.evaluate(f"{VIEWER}.nextMode(); {VIEWER}.nextMode()")  # the source pane alone
        page.wait_for_timeout(500)
        page.mouse.move(400, 400)
        page.mouse.down()
        page.evaluate(f"window.drags = true; {WATCH}")
        for k in range(60):
            page.mouse.move(400 + 2 * k, 400 + k)
            time.sleep(1 / 60)
        page.mouse.up()
        times, held = list(page.evaluate("window.times")), list(page.evaluate("window.held"))
    return {
        "drag events held by the browser, median and p95 ms": percentile(held),
        "window drag on 3062 x 2394, median ms": percentile(times)[0],
        "window drag on 3062 x 2394, p95 ms": percentile(times)[1],
    }


def measure_start(browser: Any, root: Path, frames: int) -> dict[str, Any]:
    """The command on a tree that is indexed already."""
    with serving(root / "many"):
        pass
    with serving(root / "many") as (url, seconds, _):
        _, there, first = opened(browser, url)
    return {
        "frames of the tree": frames,
        "command to page, s": seconds + there,
        "page to first image, s": first,
    }


def memory_of(process: int) -> float:
    """Resident megabytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise OSError("no VmRSS")


def measure_memory(root: Path, frames: int) -> dict[str, Any]:
    """What the server holds after frames were asked for, beyond what it held after the first hundreds."""
    with serving(root / "ct") as (url, _, process):
        base, token = url.split("/#token=")
        connection = http.client.HTTPConnection(base.removeprefix("http://"))

        def ask(k: int) -> None:
            for path in (f"frames/{k % 200}/source", f"samples/{k % 200}/training"):
                connection.request(
                    "GET", f"/api/{path}", headers={"Authorization": f"Bearer {token}"}
                )
                connection.getresponse().read()

        for k in range(300):
            ask(k)
        before = memory_of(process)
        for k in range(frames):
            ask(k)
        return {
            "memory over 10,000 frames, MB": memory_of(process) - before,
            "frames asked for": frames,
        }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--frames", type=int, default=100_000, help="of the tree; default: %(default)s"
    )
    parser.add_argument(
        "--asked", type=int, default=10_000, help="frames for memory; default: %(default)s"
    )
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks/viewer.json"))
    arguments = parser.parse_args(argv)
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        write_trees(Path(folder), arguments.frames)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for measured in (
            measure_wheel(browser, Path(folder)),
            measure_drag(browser, Path(folder)),
            measure_start(browser, Path(folder), arguments.frames),
            measure_memory(Path(folder), arguments.asked),
        ):
            results |= measured
            for name, value in measured.items():
                numbers = value if isinstance(value, tuple) else (value,)
                bar = f"   (bar {BARS[name]:g})" if name in BARS else ""
                print(
                    f"{name}: {', '.join(f'{number:.1f}' for number in numbers)}{bar}", flush=True
                )
        browser.close()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), "versions": versions(), "results": results}, indent=2)
    arguments.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
