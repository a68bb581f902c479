"""Memory that runs out is a `MemoryError`: no blank frame, no other one in its place, no error of the file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameLoader
from dicomtorch.errors import DecodeError
from tests.reader.test_limits import sparse
from tests.support.phantoms import ct, ct_pixels, encapsulated, write, write_series

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is of Linux")

SCRIPT = """
import resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from dicomtorch import DicomFrames, FrameLoader, scan
from dicomtorch.errors import DicomTorchError
from dicomtorch.model.limits import Limits

index, _ = scan(sys.argv[1])
small = [i for i in range(len(index)) if not index.path(i).endswith("large.dcm")]
(large,) = set(range(len(index))) - set(small)
if sys.argv[2] == "tensor":
    frames = DicomFrames(index, values="modality", on_error="replace")
elif sys.argv[2] == "stored":
    frames = DicomFrames(index, values="stored", on_error="replace")
else:
    frames = DicomFrames(index, values="display", size=(64, 64), on_error="replace")
expected = [frames[i][0].clone() for i in small]
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (150 << 20), resource.RLIM_INFINITY))

def runs_out(call):
    try:
        call()
    except MemoryError as error:
        assert not isinstance(error, DicomTorchError)
        return
    raise SystemExit("no MemoryError")

for _ in range(3):
    runs_out(lambda: frames[large])
    runs_out(lambda: frames[[large, large]])
    for i, image in zip(small, expected):
        assert torch.equal(frames[i][0], image)
    if sys.argv[2] == "resized":
        assert len(frames[small][0]) == len(small)
runs_out(lambda: list(FrameLoader(frames, batch_size=1, num_threads=1)))
assert not frames.failures
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
loader = FrameLoader(DicomFrames(index.select(small), values="stored"), batch_size=1, num_threads=1)
assert sum(len(images) for images, _ in loader) == len(small)
print("fine")
"""


@pytest.mark.parametrize("way", ["tensor", "stored", "resized"])
def test_memory_that_runs_out_is_a_memory_error_and_nothing_else(tmp_path: Path, way: str) -> None:
    write_series(tmp_path, 3)
    sparse(tmp_path / "large.dcm", 16_000)  # 512 MB, of which the disk has next to nothing
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path), way],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr[-2000:] + done.stdout


@pytest.mark.parametrize("start", range(4))
def test_an_allocation_that_fails_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    """Every allocation of NumPy on the way of a frame, one after the other."""
    codecs = pytest.importorskip("imagecodecs")
    pixels = ct_pixels()
    stream = codecs.jpeg2k_encode(pixels, level=0, codecformat="j2k")
    write(encapsulated(ct(pixels), [stream]), tmp_path / "a.dcm")
    frames = DicomFrames(tmp_path, values="modality", on_error="replace")
    expected = frames[0][0].clone()
    failed = 0
    for number in range(start, 40, 4):
        made = iter(range(1000))
        real = np.empty

        def empty(*arguments: object, **options: object) -> object:
            if next(made) == number:  # noqa: B023 - used up before the next round
                raise MemoryError
            return real(*arguments, **options)  # type: ignore[call-overload] # noqa: B023

        again = DicomFrames(frames.index, values="modality", on_error="replace")
        with monkeypatch.context() as patch:
            patch.setattr(np, "empty", empty)
            try:
                image = again[0][0]
            except MemoryError:
                failed += 1
            else:
                assert torch.equal(image, expected)
        assert torch.equal(again[0][0], expected)
    assert failed or start


def test_errors_of_workers_and_threads_arrive(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    write(encapsulated(ct(ct_pixels(), 9), [b"\0" * 64]), tmp_path / "broken.dcm")
    frames = DicomFrames(tmp_path)
    for loader in (
        DataLoader(frames, batch_size=1, num_workers=1),
        FrameLoader(frames, batch_size=1, num_threads=2),
    ):
        with pytest.raises(DecodeError, match=r"broken\.dcm, frame 0"):
            list(loader)
