"""The example of a public archive, against a server on this machine with the same layout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.phantoms import ct, write
from tests.support.requirements import require
from tests.support.servers import s3_server

require("obstore")
require("moto")

EXAMPLE = Path(__file__).parents[2] / "examples" / "public_archive.py"


def test_a_run_is_planned_and_begun(tmp_path: Path) -> None:
    rows = []
    with s3_server() as s3:
        s3.client.create_bucket(Bucket="idc-open-data")
        for k in range(3):
            for n in range(4):
                file = write(ct(np.full((64, 64), n, np.int16)), tmp_path / f"{k}-{n}.dcm")
                key = f"0000-series-{k}/{n}.dcm"
                s3.client.put_object(Bucket="idc-open-data", Key=key, Body=file.read_bytes())
            modality = "CT" if k else "MR"
            address = f"s3://idc-open-data/0000-series-{k}/*"
            rows.append((address, modality, 4, 0.04, f"1.2.{k}"))
        names = (
            "series_aws_url",
            "Modality",
            "instanceCount",
            "series_size_MB",
            "SeriesInstanceUID",
        )
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(columns), tmp_path / "index.parquet")
        command = [sys.executable, str(EXAMPLE), "--table", str(tmp_path / "index.parquet")]
        command += ["--options", json.dumps(s3.options), "--cache-dir", str(tmp_path / "cache")]
        said = [
            subprocess.run(
                [*command, "--batches", "1"],
                capture_output=True,
                text=True,
                timeout=100,
                check=True,
            ).stdout
            for _ in range(2)
        ]
    assert "2 series, 8 objects, 0.1 MB" in said[0]
    assert "scan: 8 requests" in said[0]
    assert "an epoch in random order: 8 requests, 0.1 MB" in said[0]
    assert "(8, 1, 64, 64) ['CT']" in said[0]
    assert "scan: 0 requests, 0.0 MB for 8 frames; 8 objects were known" in said[1]
