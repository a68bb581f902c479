"""Plans a run on a public archive: which series, what lies under their prefixes, what an epoch asks for and moves.

    pip install "dicomtorch[remote]" idc-index-data
    python examples/public_archive.py --modality CT --most 20 --batches 10

The archive is the Imaging Data Commons: 100 TB in public buckets, one prefix a series. Its table of series (a Parquet
file, in the package idc-index-data, or --table FILE) has an address, modality and size for each; nothing is asked for
before some are chosen. Requests and bytes that leave a bucket cost somebody money: look at the plan first.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from dicomtorch import DicomFrames, FrameLoader

COLUMNS = ["series_aws_url", "Modality", "instanceCount", "series_size_MB", "SeriesInstanceUID"]


def default_table() -> Path:
    """The table of the package idc-index-data."""
    import idc_index_data  # type: ignore[import-not-found, unused-ignore]

    return Path(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)


def choose(table: Path, modality: str, most: int) -> Any:
    """The smallest series of a modality that are volumes, all in one bucket."""
    series = pq.read_table(table, columns=COLUMNS)
    is_volume = pc.greater_equal(series["instanceCount"], 3)
    series = series.filter(pc.and_(pc.equal(series["Modality"], modality), is_volume))
    bucket = series["series_aws_url"][0].as_py().split("/")[2] if len(series) else ""
    series = series.filter(pc.starts_with(series["series_aws_url"], f"s3://{bucket}/"))
    return series.sort_by("series_size_MB").slice(0, most)


def main() -> None:
    """Plans, and with --batches reads some of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="of series; default: that of idc-index-data")
    parser.add_argument("--modality", default="CT")
    parser.add_argument("--most", type=int, default=20, help="series")
    parser.add_argument("--batches", type=int, default=0, help="to read, after the plan")
    parser.add_argument(
        "--options", type=json.loads, default={"skip_signature": True, "region": "us-east-1"}
    )
    parser.add_argument("--cache-dir", type=Path, help="where the index is kept")
    arguments = parser.parse_args()
    series = choose(arguments.table or default_table(), arguments.modality, arguments.most)
    prefixes = [address.removesuffix("*") for address in series["series_aws_url"].to_pylist()]
    size = sum(series["series_size_MB"].to_pylist())
    print(
        f"{len(prefixes)} series, {sum(series['instanceCount'].to_pylist())} objects, {size:.1f} MB"
    )
    frames = DicomFrames(
        prefixes,
        storage_options=arguments.options,
        cache_dir=arguments.cache_dir,
        on_error="replace",
    )
    report = frames.report
    print(
        f"scan: {report.requests} requests, {report.bytes_read / 1e6:.1f} MB for {len(frames)} frames; "
        f"{report.reused} objects were known"
    )
    loader = FrameLoader(frames, 8, shuffle=True)
    said = loader.forecast()
    print(f"an epoch in random order: {said.requests} requests, {said.bytes / 1e6:.1f} MB")
    for images, meta in itertools.islice(loader, arguments.batches):
        print(tuple(images.shape), sorted(set(meta["Modality"])))


if __name__ == "__main__":
    main()
