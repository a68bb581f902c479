"""Trees to scan, and indexes compared."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydicom.dataset import Dataset

from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.schema import LUT_COLUMNS
from tests.support.phantoms import ct, ct_pixels, lut, write

NUMBERS = {*LUT_COLUMNS, "frame_values"}


def mixed_tree(root: Path) -> Path:
    """Images of several kinds, in folders whose order by path is not that of a walk, and files that are none.

    43 files, 44 frames.
    """
    for k in range(40):
        dataset: Dataset = ct(ct_pixels(k), k, PatientID=f"p{k % 3}")
        if k % 5 == 1:
            dataset.VOILUTSequence = [lut([3, 0, 8], [1, 2, k % 2])]
        if k % 7 == 2:
            dataset.ModalityLUTSequence = [lut([3, 0, 16], [1, 2, 3 + k % 3])]
        write(dataset, root / ("a", "a-", "a/b", "c")[k % 4] / f"{k}.dcm")
    write(ct(np.stack([ct_pixels(k) for k in range(4)]), FrameTime="33"), root / "b" / "cine.dcm")
    (root / "a" / "notes.txt").write_text("no DICOM " * 50)
    (root / "cut.dcm").write_bytes((root / "a" / "0.dcm").read_bytes()[:400])
    return root


def assert_same(one: FrameIndex, other: FrameIndex, *, numbers: bool = True) -> None:
    """Both say the same of the same files; `numbers`: and number their lookup tables alike."""
    assert one.report().findings == other.report().findings
    for column in one.columns:
        if column.name in NUMBERS and not numbers:
            continue
        first, second = (
            x if isinstance(x, np.ndarray) else np.array(list(x))
            for x in (one.column(column.name), other.column(column.name))
        )
        np.testing.assert_array_equal(first, second, err_msg=column.name)
    for name in one.files:
        assert list(one.files[name]) == list(other.files[name]), name
    for i in range(len(one)):
        assert repr(one.frame_values(i)) == repr(other.frame_values(i))


def table_bytes(index: FrameIndex) -> bytes:
    """The frames as Arrow writes them: also the order of the values of each dictionary is in it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, index.table.schema) as writer:
        writer.write_table(index.table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def ends_at(number: int, marker: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls `scan_chunk`; the process that is asked for call `number` of a scan first is killed."""
    if arguments[1] == number:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return function(*arguments)


def number(text: str, base: int = 10) -> int:
    """A text as a number, for a worker to call."""
    return int(text, base)


def waits_for(path: Path, seconds: float = 20) -> bool:
    """Whether a file appears in time, for a worker to call."""
    ends = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < ends:
        time.sleep(0.01)
    return path.exists()


class Ending(Executor):
    """An executor with a worker that ends in the middle of a scan, once.

    Args:
        inner: Does the work.
        number: Of the call of the scan in which it ends.
        marker: A file that is there once it did.
    """

    def __init__(self, inner: Executor, number: int, marker: Path) -> None:
        self._inner, self._number, self._marker = inner, number, marker

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._inner.submit(ends_at, self._number, self._marker, fn, *args, **kwargs)
