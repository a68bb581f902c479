"""A scan of a server that is killed without warning is gone on with, and reads nothing twice that it had kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dicomtorch import scan
from dicomtorch.errors import IndexFileError
from dicomtorch.index import files as index_file
from dicomtorch.scanner.open import open_source
from tests.support.http_server import counts, http_server
from tests.support.phantoms import ct, write
from tests.support.requirements import require

require("obstore")
require("fsspec")

OBJECTS, CHUNK, WORKERS = 240, 16, 2
_SCANS = f"""
import sys
from dicomtorch.scanner import reading
from dicomtorch.scanner.open import open_source

reading._BETWEEN_CHECKPOINTS, reading._LARGEST_OF_CHILDREN = 0.0, {CHUNK}
address, cache = sys.argv[1:]
open_source(address, storage_options={{"io_threads": 1}}, cache_dir=cache, num_workers={WORKERS})
"""


def kept(cache: Path) -> int:
    """How many objects an unfinished scan has kept so far."""
    for folder in cache.glob("indexes/*/partial"):
        try:
            return len(index_file.read(folder).generation.files["size"])
        except (IndexFileError, FileNotFoundError):  # it is just being replaced
            return 0
    return 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system does not kill")
def test_a_scan_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    folder, cache = tmp_path / "files", tmp_path / "cache"
    for k in range(OBJECTS):
        write(ct(np.full((8, 8), k, np.int16)), folder / f"{k:03}.dcm")
    script = tmp_path / "scans.py"
    script.write_text(_SCANS, encoding="utf-8")
    with http_server(folder, latency=0.15) as address:
        process = subprocess.Popen([sys.executable, str(script), address, str(cache)])
        try:
            while kept(cache) < 2 * CHUNK:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        time.sleep(1.0)  # its children end with the objects that they are at
        known, first = kept(cache), counts(address)["GET"] - 1  # without the page
        assert 2 * CHUNK <= known < OBJECTS
        index, report = open_source(address, cache_dir=cache)
        asked = counts(address)["GET"] - 1
    assert (report.reused, report.read) == (known, OBJECTS - known)
    assert asked == OBJECTS - known  # nothing of what was kept
    # Read before it was killed and not kept: what each worker was at, and what came while the last was written down.
    assert 0 <= first - known <= 2 * WORKERS * CHUNK
    expected, _ = scan(folder)
    for name in ("frame", "offset", "length", "Rows", "SOPInstanceUID"):
        every = np.arange(OBJECTS)
        assert repr(index.gather(name, every)) == repr(expected.gather(name, every))
