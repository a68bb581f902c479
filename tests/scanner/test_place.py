"""Frames of addresses: scanned in processes of their own, read with workers, refreshed by listing, without secrets."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameLoader, scan
from dicomtorch.errors import DicomTorchError, OptionError, SourceError, StaleIndexError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner import reading
from dicomtorch.storage import client
from tests.support.http_server import counts, http_server
from tests.support.phantoms import ct, write
from tests.support.requirements import require
from tests.support.servers import KEY, S3, SECRET, s3_server

require("obstore")
require("fsspec")

SIGNATURE = "X-Amz-Signature=5ec2e75ec2e75ec2e7"


def pixels(k: int, size: int = 64) -> Any:
    return np.full((size, size), k, np.int16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = tmp_path / "files"
    for k in range(12):
        write(ct(pixels(k)), files / f"series {k % 2}" / f"{k}.dcm")
    (files / "notes.txt").write_text("no DICOM, but some words of text")
    (files / "empty").write_bytes(b"")
    return files


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    require("moto")
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3, folder: Path) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3.client.create_bucket(Bucket=name)
    s3.put_tree(name, folder, "a/")
    s3.client.put_object(Bucket=name, Key="ab/other.dcm", Body=b"another prefix")
    return name


@pytest.fixture(autouse=True)
def _unused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if no test before had made a request in this process; whoever forks looks only at this."""
    before = dict(client._state)
    client._state.update(used=False)
    yield
    client._state.update(before)


def same_columns(one: FrameIndex, other: FrameIndex) -> None:
    for column in one.columns:
        values = (index.gather(column.name, np.arange(len(index))) for index in (one, other))
        assert repr(next(values)) == repr(next(values)), column.name


def test_an_index_of_a_bucket_is_that_of_the_folder(s3: S3, bucket: str, folder: Path) -> None:
    index, report = scan(f"s3://{bucket}/a", storage_options=s3.options)
    expected, _ = scan(folder)
    same_columns(index, expected)
    assert report.counts == expected.report().counts
    assert index.root == f"s3://{bucket}/a".encode()
    assert index.path(0) == f"s3://{bucket}/a/series 0/0.dcm"
    assert report.requests == 13  # all but the empty one
    assert not client._state["used"]


def test_one_object_a_whole_bucket_and_a_list(s3: S3, bucket: str) -> None:
    one, _ = scan(f"s3://{bucket}/a/series 1/3.dcm", storage_options=s3.options)
    assert (len(one), one.path(0)) == (1, f"s3://{bucket}/a/series 1/3.dcm")
    assert len(scan(f"s3://{bucket}", storage_options=s3.options)[0]) == 12
    some, _ = scan(
        [f"s3://{bucket}/a/series 0/", f"s3://{bucket}/a/series 1/1.dcm"],
        storage_options=s3.options,
    )
    assert (len(some), some.root) == (7, f"s3://{bucket}/a".encode())
    for nothing in (f"s3://{bucket}/nowhere", "s3://no-such-bucket-here/x"):
        with pytest.raises(SourceError, match="cannot be opened"):
            scan(nothing, storage_options=s3.options)
    with pytest.raises(SourceError, match="2 places"):
        scan([f"s3://{bucket}/a", "s3://another/a"], storage_options=s3.options)
    with pytest.raises(OptionError, match="for addresses"):
        scan(Path.cwd(), storage_options=s3.options)


def test_listings_of_more_than_one_page(s3: S3, tmp_path: Path) -> None:
    s3.client.create_bucket(Bucket="pages")
    s3.put_many("pages", {f"p/{k:04}": b"text, and no DICOM at all" for k in range(1203)})
    index, report = scan("s3://pages/p", storage_options=s3.options, num_workers=1)
    assert len(report.findings) == 1203
    again, report = scan("s3://pages/p", storage_options=s3.options, index=index)
    assert again is index
    assert (report.read, report.reused, report.requests) == (0, 1203, 0)


def test_refresh_reads_what_changed_and_nothing_else(s3: S3, bucket: str, tmp_path: Path) -> None:
    address = f"s3://{bucket}/a"
    options: Any = {"storage_options": s3.options, "cache_dir": tmp_path / "cache"}
    frames = DicomFrames(address, values="stored", **options)
    assert frames.report.read == 14
    new = write(ct(pixels(77)), tmp_path / "new.dcm")
    s3.client.put_object(Bucket=bucket, Key="a/series 0/2.dcm", Body=new.read_bytes())
    s3.client.delete_object(Bucket=bucket, Key="a/series 0/4.dcm")
    refreshed = DicomFrames(address, values="stored", **options)
    report = refreshed.report
    assert (report.read, report.reused, report.removed, report.requests) == (1, 12, 1, 1)
    assert int(refreshed[2][0].max()) == 77  # 0, 10, 2, 6, 8
    with pytest.raises(StaleIndexError, match=r"2\.dcm.*changed since it was indexed.*refresh"):
        frames[2]
    with pytest.raises(StaleIndexError, match="gone since it was indexed"):
        frames[3]
    s3.client.put_object(Bucket=bucket, Key="a/series 0/6.dcm", Body=new.read_bytes()[:-2000])
    with pytest.raises(StaleIndexError):
        refreshed[3]


_LOADS = """
import sys
import torch
from torch.utils.data import DataLoader
from dicomtorch import DicomFrames

def main():
    address, options, cache, start = eval(sys.argv[1])
    frames = DicomFrames(address, values="stored", storage_options=options, cache_dir=cache)
    context = None if start == "default" else start
    loader = DataLoader(frames, batch_size=5, num_workers=2, multiprocessing_context=context, timeout=60)
    print(torch.cat([images for images, _ in loader])[:, 0, 0, 0].tolist())

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("start", ["default", "spawn", "forkserver"])
def test_workers_of_a_data_loader(s3: S3, bucket: str, tmp_path: Path, start: str) -> None:
    """In a process of its own: this one has made requests before, and a worker forked from it would say so."""
    script = tmp_path / "loads.py"
    script.write_text(_LOADS, encoding="utf-8")
    given = repr((f"s3://{bucket}/a", s3.options, str(tmp_path / "cache"), start))
    run = subprocess.run(
        [sys.executable, str(script), given],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    expected = sorted(range(12), key=lambda k: f"series {k % 2}/{k}.dcm")
    assert run.stdout.strip() == repr(expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_worker_that_was_forked_after_a_request_says_so_at_once(
    s3: S3, bucket: str, tmp_path: Path
) -> None:
    frames = DicomFrames(
        f"s3://{bucket}/a", values="stored", storage_options=s3.options, cache_dir=tmp_path
    )
    assert frames[0][0].max() == 0
    forked = DataLoader(
        frames, batch_size=4, num_workers=1, multiprocessing_context="fork", timeout=20
    )
    with pytest.raises(DicomTorchError, match=r"before this process was forked.*FrameLoader"):
        list(forked)
    threads = FrameLoader(frames, 5, num_threads=2)
    assert sum(len(images) for images, _ in threads) == 12


def test_secrets_are_in_no_index_message_log_or_notebook(
    s3: S3, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    frames = DicomFrames(
        f"s3://{bucket}/a", values="stored", storage_options=s3.options, cache_dir=tmp_path / "c"
    )
    frames[0]
    said = [
        repr(frames),
        str(frames),
        frames._repr_html_(),
        repr(frames.report),
        repr(frames.index),
    ]
    said += [str(frames.index), repr(frames.index.record(0))]
    for options in ({"nosuch": SECRET}, {"endpoint": "http://127.0.0.1:9"}):
        with pytest.raises(DicomTorchError) as caught:
            scan(f"s3://{bucket}/a", storage_options={**s3.options, "max_retries": 0, **options})
        error: BaseException | None = caught.value
        while error is not None:
            said.append(repr(error))
            error = error.__cause__ or error.__context__
    stored = [pickle.dumps(frames.index)]
    frames.index.save(tmp_path / "saved")
    stored += [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    for one in [*stored, *(text.encode() for text in [*said, caplog.text])]:
        assert SECRET.encode() not in one
        assert KEY.encode() not in one
    assert SECRET.encode() in pickle.dumps(frames)  # workers that are spawned need it


def test_signed_addresses(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with http_server(folder) as address:
        signed = [f"{address}/series%20{k % 2}/{k}.dcm?{SIGNATURE}" for k in range(4)]
        frames = DicomFrames(signed, values="stored", cache_dir=tmp_path / "c", paths=True)
        values = [int(frames[k][0].max()) for k in range(4)]
        assert values == [0, 2, 1, 3]
        said = [repr(frames), frames[0][1]["path"], caplog.text, repr(frames.index)]
        write(ct(pixels(9)), folder / "series 0" / "0.dcm")
        with pytest.raises(StaleIndexError) as caught:
            frames[0]
        said.append(f"{caught.value!r} {caught.value.__cause__!r}")
    stored = [file.read_bytes() for file in (tmp_path / "c").rglob("*") if file.is_file()]
    stored.append(pickle.dumps(frames.index))
    for one in [*stored, *(text.encode() for text in said)]:
        assert b"Signature" not in one
    with pytest.raises(OptionError, match="password"):
        scan("https://user:secret@host/x")


def test_a_new_signature_takes_the_place_of_one_that_expired(folder: Path, tmp_path: Path) -> None:
    with http_server(folder) as address:

        def signed(query: str, few: range = range(4)) -> list[str]:
            return [f"{address}/series%20{k % 2}/{k}.dcm?{query}" for k in few]

        (folder / ".query").write_text("sig=first")
        options: Any = {"values": "stored", "cache_dir": tmp_path / "c"}
        frames = DicomFrames(signed("sig=first"), **options)
        assert int(frames[1][0].max()) == 2
        (folder / ".query").write_text("sig=second")
        with pytest.raises(DicomTorchError, match="403"):
            frames[1]
        again = DicomFrames(signed("sig=second"), **options)
        assert (again.report.read, again.report.reused) == (0, 4)
        assert int(again[1][0].max()) == 2
        # Other addresses of the host leave these as they are.
        assert len(DicomFrames(signed("sig=second", range(4, 6)), **options)) == 2
        assert int(DicomFrames(again.index, values="stored")[1][0].max()) == 2
    stored = [file.read_bytes() for file in (tmp_path / "c").rglob("*") if file.is_file()]
    assert not any(b"sig=" in one for one in stored)


def test_plain_http_is_walked_by_its_links_and_asked_once_an_object(folder: Path) -> None:
    with http_server(folder) as address:
        index, _ = scan(address)
        asked = counts(address)
        assert (asked["GET"], asked["HEAD"]) == (
            3 + 14,
            1,
        )  # pages and objects; the empty one has no range
        same_columns(index, scan(folder)[0])
        again, report = scan(address, index=index)
        assert again is index
        assert report.requests == 0
        write(ct(pixels(50)), folder / "series 1" / "5.dcm")
        changed, report = scan(address, index=index)
        assert (report.read, len(changed)) == (1, 12)


def test_requests_are_counted_once_whoever_makes_them(folder: Path) -> None:
    for k in range(60):
        write(ct(pixels(k, 8)), folder / "series 2" / f"{k:02}.dcm")
    with http_server(folder) as address, ThreadPoolExecutor(4) as threads:
        for how in ({"executor": threads}, {"num_workers": 2}, {"num_workers": 0}):
            counts(address)
            _, report = scan(address, **how)
            asked = counts(address)
            assert report.requests == asked["GET"] - 4 + asked["HEAD"]  # without the pages
            assert report.bytes_read == asked["bytes"]


def test_large_headers_are_asked_for_as_far_as_they_go(tmp_path: Path) -> None:
    many = ct(np.zeros((40, 512, 512), np.int16))
    for k, private in enumerate((60_000, 200_000, 3_000_000)):
        block = many.private_block(0x0009, f"TEST {k}", create=True)
        block.add_new(1, "OB", bytes(private))
    write(many, tmp_path / "many.dcm")
    for k in range(20):
        write(ct(np.zeros((512, 512), np.int16)), tmp_path / f"{k}.dcm")
    with http_server(tmp_path) as address:
        index, _ = scan(address)
        asked = counts(address)
    same_columns(index, scan(tmp_path)[0])
    assert asked["bytes"] < 21 * (64 << 10) + 300_000
    assert asked["GET"] <= 1 + 20 + 6


def test_a_scan_that_was_interrupted_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(reading, "_LARGEST_OF_CHILDREN", 16)
    for k in range(60):
        write(ct(pixels(k, 8)), tmp_path / f"{k:03}.dcm")
    kept: list[FrameIndex] = []

    def stop(index: FrameIndex) -> None:
        kept.append(index)
        raise KeyboardInterrupt

    with http_server(tmp_path) as address:
        with pytest.raises(KeyboardInterrupt):
            scan(address, checkpoint=stop)
        index, report = scan(address, index=kept[0])
        assert 0 < report.reused < 60
        assert report.reused + report.read == len(index) == 60
        same_columns(index, scan(address)[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_objects_in_memory(folder: Path) -> None:
    import fsspec

    place = f"memory://{uuid.uuid4().hex}"
    files = fsspec.filesystem("memory")
    for file in folder.rglob("*"):
        if file.is_file():
            files.pipe_file(f"{place}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    index, _ = scan(place)
    same_columns(index, scan(folder)[0])
    frames = DicomFrames(index, values="stored")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_first, (frames,)) == int(frames[0][0].max())


def _first(frames: Any) -> int:
    return int(frames[0][0].max())


def test_other_schemes_of_fsspec(folder: Path) -> None:
    index, _ = scan(f"file://{folder}")
    same_columns(index, scan(folder)[0])
    with pytest.raises(OptionError, match="no scheme"):
        scan("nosuchscheme://x/y")
