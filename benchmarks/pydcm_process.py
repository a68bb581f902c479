"""pydcm in a process of its own, with another Python: `PydcmProcess` here, and what runs there when this is a script.

There only pydcm and NumPy are imported, nothing of this package.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


class PydcmProcess:
    """Reads modality values with pydcm, file after file.

    Args:
        python: Runs it.
        paths: Of files of one frame.
        first: Where the values of the first file are saved (`.npy`).

    Raises:
        OSError: There is no such Python.
        ValueError: It has no pydcm, or pydcm does not read the files; the last line of what it said.
    """

    def __init__(self, python: Path, paths: Sequence[Path], first: Path) -> None:
        self._process = subprocess.Popen(
            [python, __file__, first],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not self._said(json.dumps([str(path.absolute()) for path in paths])):
            _, error = self._process.communicate()
            raise ValueError((error.strip() or "it ended").splitlines()[-1])

    def turn(self, seconds: float) -> tuple[int, float, float]:
        """Reads for so many seconds: frames, and seconds by the wall and by the CPU."""
        frames, wall, cpu = json.loads(self._said(str(seconds)))
        return frames, wall, cpu

    def _said(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline()

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def main() -> None:
    import numpy as np
    import pydcm  # type: ignore[import-not-found,unused-ignore]

    paths = json.loads(sys.stdin.readline())
    values = [pydcm.decode(path, rescale=True) for path in paths]
    np.save(sys.argv[1], np.asarray(values[0], np.float32))
    print("ready", flush=True)
    for line in sys.stdin:
        frames, begin, worked = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < float(line):
            for path in paths:
                pydcm.decode(path, rescale=True)
            frames += len(paths)
        spent = (frames, time.perf_counter() - begin, time.process_time() - worked)
        print(json.dumps(spent), flush=True)


if __name__ == "__main__":
    main()
