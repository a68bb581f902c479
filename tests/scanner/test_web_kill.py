"""A scan of a DICOMweb server that is killed without warning is gone on with, and asks for nothing that it had kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import generate_uid

from dicomtorch import scan
from dicomtorch.errors import IndexFileError
from dicomtorch.index import files as index_file
from dicomtorch.scanner.open import open_source
from tests.support.dicomweb_server import TOKEN, Server, dicomweb_server
from tests.support.phantoms import ct
from tests.support.requirements import require

require("urllib3")

SERIES, INSTANCES = 30, 4
COUNT = SERIES * INSTANCES
_SCANS = """
import sys
from dicomtorch.scanner import web
from dicomtorch.scanner.open import open_source

web._BETWEEN_CHECKPOINTS = 0.0
address, cache, token = sys.argv[1:]
options = {"io_threads": 2, "headers": {"Authorization": token}}
open_source(address, storage_options=options, cache_dir=cache)
"""


def kept(cache: Path) -> set[str]:
    """The instances that an unfinished scan has kept so far."""
    for folder in cache.glob("indexes/*/partial"):
        try:
            paths: Any = index_file.read(folder).generation.files["path"]
            return {path.decode() for path in paths}
        except (IndexFileError, FileNotFoundError):  # it is just being replaced
            return set()
    return set()


def described(server: Server) -> list[str]:
    """Series whose headers, and instances whose first frames, were asked for."""
    ends = ("/metadata", "/frames/1")
    return [path.removeprefix("/web/") for path in server.asked if path.endswith(ends)]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system does not kill")
def test_a_scan_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    datasets = [
        ct(np.full((8, 8), k, np.int16), k, StudyInstanceUID="1.2.3.4") for k in range(COUNT)
    ]
    for k, one in enumerate(datasets):
        one.SeriesInstanceUID = generate_uid(entropy_srcs=[f"series {k // INSTANCES}"])
    script, cache = tmp_path / "scans.py", tmp_path / "cache"
    script.write_text(_SCANS, encoding="utf-8")
    with dicomweb_server(datasets, TOKEN) as server:
        server.faults.latency = 0.1
        arguments = [sys.executable, str(script), server.address, str(cache), TOKEN]
        process = subprocess.Popen(arguments)
        try:
            while len(kept(cache)) < COUNT // 4:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        server.faults.latency = 0.0
        known = kept(cache)
        assert COUNT // 4 <= len(known) < COUNT
        whole = [path for path in known if "/instances/" in path]
        server.asked.clear()
        options = {"headers": {"Authorization": TOKEN}}
        index, report = open_source(server.address, storage_options=options, cache_dir=cache)
        asked = described(server)
        expected, _ = scan(server.address, storage_options=options)
    assert (report.reused, report.read) == (len(known), COUNT - len(known))
    assert not [path for path in asked if path.rpartition("/")[0].removesuffix("/frames") in whole]
    # Of a series of which all is kept nothing, of others no more than a scan asks for.
    of_series = [path.partition("/instances/")[0] for path in whole]
    done = {one for one in of_series if of_series.count(one) == INSTANCES}
    assert done
    assert not [path for path in asked if any(path.startswith(f"{one}/") for one in done)]
    assert len(asked) <= 3 * (SERIES - len(done)) + INSTANCES
    at = np.arange(COUNT)
    for name in ("frame", "Rows", "SOPInstanceUID", "TransferSyntaxUID"):
        assert sorted(index.gather(name, at)) == sorted(expected.gather(name, at))
    secret = TOKEN.split()[1].encode()
    assert not [path for path in cache.rglob("*") if path.is_file() and secret in path.read_bytes()]
