"""DICOMweb servers as sources: what the frames of files would be, and every fault as a typed error."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid
from torch.utils.data import DataLoader
from tqdm import tqdm

from dicomtorch import DicomFrames, FrameIndex, FrameLoader, scan, view
from dicomtorch.cli import main as cli
from dicomtorch.cli.options import EXIT_ERROR, EXIT_OK
from dicomtorch.errors import (
    DicomTorchError,
    OptionError,
    SourceError,
    StaleIndexError,
    StorageError,
)
from dicomtorch.reader.web import WebFrames
from dicomtorch.reports.info import describe
from dicomtorch.scanner import web as scanner_web
from dicomtorch.scanner.scan import with_tags
from dicomtorch.scanner.web_rows import WebReader
from dicomtorch.storage import web
from dicomtorch.storage.web import WebSettings
from tests.support.dicomweb_server import TOKEN, Server, dicomweb_server
from tests.support.phantoms import ct, ct_pixels, lut, write
from tests.support.requirements import require
from tests.support.viewing import get

OPTIONS: dict[str, Any] = {"headers": {"Authorization": TOKEN}, "max_retries": 3}


def datasets() -> list[Dataset]:
    """Native, compressed, multi-frame, one with a lookup table, one without pixels."""
    found = [ct(ct_pixels(k), k) for k in range(5)]
    multi = ct(np.stack([ct_pixels(k) for k in range(5, 45)]), 20)
    multi.SeriesInstanceUID = generate_uid(entropy_srcs=["multi"])
    rle = ct(np.stack([ct_pixels(k) for k in (1, 2)]), 22)
    rle.compress(RLELossless, generate_instance_uid=False)
    rle.SeriesInstanceUID = generate_uid(entropy_srcs=["rle"])
    table = ct(np.arange(256, dtype=np.uint8).reshape(16, 16), 23)
    table.StudyInstanceUID = generate_uid(entropy_srcs=["other study"])
    table.ModalityLUTSequence = [lut([256, 0, 16], list(range(0, 512, 2)))]
    del table.RescaleSlope, table.RescaleIntercept
    report = ct(ct_pixels(9), 24)
    for keyword in ("Rows", "Columns", "PixelData", "BitsAllocated"):
        delattr(report, keyword)
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    return [*found, multi, rle, table, report]


@pytest.fixture
def server() -> Iterator[Server]:
    with dicomweb_server(datasets(), TOKEN) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for k, one in enumerate(datasets()):
        write(one, tmp_path / "files" / f"{k}.dcm")
    return tmp_path / "files"


def by_uid(frames: DicomFrames) -> dict[tuple[str, int], int]:
    at = np.arange(len(frames))
    uids, numbers = (frames.index.gather(name, at) for name in ("SOPInstanceUID", "frame"))
    return {(uid, number): k for k, (uid, number) in enumerate(zip(uids, numbers, strict=True))}


def test_a_server_is_its_files(server: Server, files: Path) -> None:
    plain, web = DicomFrames(files), DicomFrames(server.address, storage_options=OPTIONS)
    assert web.report.counts == plain.report.counts
    assert scan(server.address)[1].requests > 3
    places, others = by_uid(plain), by_uid(web)
    assert places.keys() == others.keys()
    own = ("index", "requested_index", "patient")
    for uid, k in places.items():
        (image, meta), (other, other_meta) = plain[k], web[others[uid]]
        assert torch.equal(image, other)
        assert repr({**meta, **dict.fromkeys(own)}) == repr({**other_meta, **dict.fromkeys(own)})
    stored = DicomFrames(server.address, values="stored")
    (k,) = [k for k, u in enumerate(web.index.gather("Rows", np.arange(len(web)))) if u == 16]
    assert stored[k][0].flatten().tolist() == list(range(256))
    modality = DicomFrames(server.address, values="modality")
    assert modality[k][0].flatten().tolist() == list(range(0, 512, 2))


def test_frames_of_an_instance_are_asked_for_together(server: Server) -> None:
    frames = DicomFrames(server.address, storage_options=OPTIONS, values="stored")
    series = list(frames.index.column("SeriesInstanceUID"))
    multi = [k for k, uid in enumerate(series) if series.count(uid) == 40]
    server.asked.clear()
    batch = frames[multi][0]
    assert len(multi) == 40
    assert len([path for path in server.asked if "/frames/" in path]) == 2
    for k, image in enumerate(batch):
        np.testing.assert_array_equal(image[0].numpy(), ct_pixels(5 + k))
    assert "transfer-syntax=*" in server.accepts[-1]
    few = DicomFrames(server.address, storage_options={**OPTIONS, "frames_per_request": 7})
    server.asked.clear()
    few[multi]
    assert len([path for path in server.asked if "/frames/" in path]) == 6
    loader = FrameLoader(few, 20, shuffle=True, collate_fn=list)
    said = loader.forecast()
    server.asked.clear()
    assert len(list(loader)) == 3
    assert 6 < len([path for path in server.asked if "/frames/" in path]) <= said.requests
    assert said.unsized == 2  # compressed
    random = describe(few.index, few.report)["epoch"]["random"]
    assert random["requests"] == len(few)


def test_known_instances_are_not_asked_for_again(server: Server) -> None:
    index, report = scan(server.address, storage_options=OPTIONS)
    server.asked.clear()
    again, refreshed = scan(server.address, index=index, storage_options=OPTIONS)
    assert again is index
    assert (refreshed.read, refreshed.reused) == (0, report.read)
    assert not [path for path in server.asked if "metadata" in path or "frames" in path]
    gone = server.datasets.pop(0)
    new = ct(ct_pixels(30), 30)
    server.datasets.append(new)
    server.asked.clear()
    changed, refreshed = scan(server.address, index=index)
    assert (refreshed.read, refreshed.removed) == (1, 1)
    assert [path for path in server.asked if "metadata" in path] == [
        path for path in server.asked if path.endswith(f"instances/{new.SOPInstanceUID}/metadata")
    ]
    assert gone.SOPInstanceUID not in list(changed.column("SOPInstanceUID"))
    more, _ = scan(server.address, index=index, tags=["PatientSex"])
    assert set(more.column("PatientSex")) == {"F"}
    with pytest.raises(OptionError, match="scan it again with tags"):
        with_tags(index, ["PatientSex"])


def test_studies_and_series_are_sources(server: Server) -> None:
    one = server.datasets[0]
    study = f"{server.address}/studies/{one.StudyInstanceUID}"
    assert len(scan(study, storage_options=OPTIONS)[0]) == 5 + 40 + 2
    series, _ = scan(f"{study}/series/{one.SeriesInstanceUID}/")
    assert len(series) == 5
    assert series.root.decode() == server.address
    assert series.path(0).startswith(f"{server.address}/studies/")
    with pytest.raises(SourceError, match="is scanned alone"):
        scan([study, study + "1"])


@pytest.mark.parametrize(("page", "ignores"), [(2, False), (1000, True), (3, True)])
def test_pages_of_lists(
    server: Server, page: int, ignores: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.page, server.faults.ignores_offset = page, ignores
    _, report = scan(server.address, storage_options=OPTIONS)
    assert len(report.findings) == (9 if page != 3 else 4)
    # Whether a page that comes again is all that there is cannot be known, so it is said.
    assert ("gives the same page of a list again" in caplog.text) == ignores


def test_workers_pickles_and_loaders(server: Server) -> None:
    frames = DicomFrames(server.address, storage_options=OPTIONS, values="stored", size=(16, 16))
    whole = frames[list(range(len(frames)))][0]
    copy = pickle.loads(pickle.dumps(frames))
    assert torch.equal(copy[list(range(len(frames)))][0], whole)
    for loader in (DataLoader(frames, 8, num_workers=2, timeout=60), FrameLoader(frames, 8)):
        assert torch.equal(torch.cat([batch for batch, _ in loader]), whole)


def test_what_passes_is_asked_for_again(server: Server) -> None:
    frames = DicomFrames(server.address, storage_options=OPTIONS, values="stored")
    server.faults.status["/frames/"] = [503, 2]
    server.faults.cut = 1
    frames[0]
    assert server.faults.cut == server.faults.status["/frames/"][1] == 0
    server.faults.lengths = False
    frames[0]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ({"status": {"/frames/": [404]}}, StaleIndexError, r"no such instance or frame \(404\)"),
        ({"status": {"/frames/": [406]}}, StorageError, "406: it does not give frames as they are"),
        ({"status": {"/frames/": [401]}}, StorageError, "401: credentials are missing"),
        ({"status": {"/frames/": [500]}}, StorageError, "answered 500"),
        ({"status": {"/frames/": [503]}}, StorageError, "answered 503"),
        ({"status": {"/frames/": [302]}}, StorageError, "302 and names another address"),
        ({"cut": 99}, StorageError, "did not answer in whole"),
        ({"syntax": JPEGLSLossless}, StaleIndexError, "gave the frame in JPEG-LS.*'instance'"),
    ],
)  # fmt: skip
def test_faults_are_typed_and_name_the_frame(
    server: Server, fault: dict[str, Any], kind: type[DicomTorchError], message: str
) -> None:
    frames = DicomFrames(server.address, storage_options=OPTIONS)
    series = frames.index.column("SeriesInstanceUID")
    two = [k for k in range(len(frames)) if list(series).count(series[k]) == 2]
    for name, value in fault.items():
        setattr(server.faults, name, value)
    with pytest.raises(kind, match=message) as caught:
        frames[two]
    text = str(caught.value)
    assert "instances/" in text
    assert "frame" in text
    assert TOKEN not in text


def test_a_frame_that_is_not_given_keeps_back_no_other(server: Server) -> None:
    frames = DicomFrames(server.address, storage_options=OPTIONS, values="stored")
    series = list(frames.index.column("SeriesInstanceUID"))
    multi = [k for k in range(len(frames)) if series.count(series[k]) == 40]
    whole = frames[multi][0]
    server.faults.drops_part = True
    assert torch.equal(frames[multi][0], whole)


def test_what_says_which_files_to_read_is_refused(server: Server) -> None:
    for given in ({"part": (1, 2)}, {"inventory": "list.csv"}):
        with pytest.raises(OptionError, match="is for files"):
            scan(server.address, storage_options=OPTIONS, **given)


def test_options_count_without_a_refresh(server: Server, tmp_path: Path) -> None:
    DicomFrames(server.address, storage_options=OPTIONS, cache_dir=tmp_path)
    web._of_place.clear()  # as in another process
    again = DicomFrames(server.address, storage_options=OPTIONS, cache_dir=tmp_path, refresh=False)
    assert again[0][0].ndim == 3
    assert again.is_remote


def test_retries_do_not_repeat_what_was_refused(server: Server) -> None:
    frames = DicomFrames(server.address, storage_options=OPTIONS)
    for status, times in ((403, 1), (404, 1), (500, 2), (503, 4), (429, 4)):
        server.faults.status = {"/frames/": [status]}
        server.asked.clear()
        with pytest.raises(DicomTorchError):
            frames[0]
        assert len(server.asked) == times


def test_bad_instances_end_no_scan(server: Server) -> None:
    one = server.datasets[2]
    server.datasets[2].BitsAllocated = 7
    server.faults.status = {f"instances/{server.datasets[5].SOPInstanceUID}/frames": [500]}
    index, report = scan(server.address, storage_options=OPTIONS)
    reasons = {finding.path.rpartition("/")[2]: finding.reason for finding in report.findings}
    assert "BitsAllocated" in reasons[one.SOPInstanceUID]
    assert "first frame was not given" in reasons[server.datasets[5].SOPInstanceUID]
    assert len(index) == 4 + 2 + 1
    server.faults.status = {}
    again, _ = scan(server.address, index=index)
    assert len(again) == 4 + 40 + 2 + 1  # what was not given is asked for again


def test_a_series_of_several_transfer_syntaxes(server: Server) -> None:
    mixed = []
    for k in range(4):
        one = ct(ct_pixels(k), 50 + k)
        if k == 3:
            one.compress(RLELossless, generate_instance_uid=False)
        one.SeriesInstanceUID = generate_uid(entropy_srcs=["mixed"])
        mixed.append(one)
    server.datasets[:] = mixed
    frames = DicomFrames(server.address, storage_options=OPTIONS, values="stored")
    assert sorted(map(str, frames.index.column("TransferSyntaxUID"))) == [
        *["1.2.840.10008.1.2.1"] * 3,
        RLELossless,
    ]
    server.datasets[:] = [mixed[0], mixed[3], mixed[1]]  # alike at both ends
    guessed = DicomFrames(server.address, refresh=True, storage_options=OPTIONS)
    assert len(guessed) == 3
    for k in range(3):
        guessed[k]


def test_values_of_other_servers_are_not_fetched(server: Server) -> None:
    server.faults.bulk = "http://127.0.0.1:9"
    _, report = scan(server.address, storage_options=OPTIONS)
    reasons = [one.reason for one in report.findings if "another server" in one.reason]
    assert len(reasons) == 1


def test_lists_that_are_none(server: Server) -> None:
    for status in (404, 401, 500):
        server.faults.status = {"/studies": [status]}
        with pytest.raises(SourceError, match=f"no list of instances: .*{status}"):
            scan(server.address, storage_options=OPTIONS)
    server.faults.status = {}
    server.datasets.clear()
    with pytest.raises(SourceError, match="there are no files"):
        DicomFrames(server.address)


def test_addresses_of_something_else_are_told(server: Server) -> None:
    options = OPTIONS | {"max_retries": 0}
    host = server.address.partition("://")[2]
    for address, message in (
        ("dicomweb+http://127.0.0.1:1/web", "nothing answers at this host and port"),
        ("dicomweb+https://no-such-host.invalid/web", "no server of this name was found"),
        (f"dicomweb+https://{host}", "no encrypted connection could be made.*ca_certs"),
    ):
        with pytest.raises(SourceError, match=message) as caught:
            scan(address, storage_options=options)
        assert TOKEN.split()[1] not in str(list(chain(caught.value)))
    for status in (400, 404, 405, 200):  # the last is a page
        server.faults.status = {"/studies": [status]}
        with pytest.raises(
            SourceError, match="DICOMweb services, which often ends with /dicom-web"
        ):
            scan(server.address, storage_options=options)
    server.faults.status = {"/metadata": [404]}
    _, report = scan(server.address, storage_options=options)
    assert {one.reason for one in report.findings if one.file_class == "unreadable"} == {
        "its header was not given: the server answered 404"
    }
    with pytest.raises(OptionError, match=r"got Authorization.* Headers go into 'headers'"):
        scan(server.address, storage_options={"Authorization": TOKEN})


FAULTS: tuple[dict[str, Any], ...] = (
    *({"status": {"/frames/": [status]}} for status in (302, 401, 403, 404, 406, 500, 503)),
    {"cut": 99},
    {"boundary": "another one"},
    {"kind": "image/png"},
    {"syntax": JPEGLSLossless},
    {"stalls": 99},
)  # fmt: skip


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error with those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_secrets_are_nowhere(
    server: Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    options = {**OPTIONS, "max_retries": 0, "timeout": 0.3}
    frames = DicomFrames(server.address, storage_options=options, cache_dir=tmp_path / "cache")
    index = frames.index
    index.save(tmp_path / "index")
    index.filter(Rows=24).export(tmp_path / "shared.csv")
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 5
    kept += [pickle.dumps(index), pickle.dumps(frames.report)]
    said = [repr(frames), str(frames), frames._repr_html_(), repr(frames.report)]
    said += [str(index), index._repr_html_(), repr(index.record(0)), repr(frames[0][1])]
    said += [
        repr(WebFrames(index.root)),
        repr(WebSettings.of(OPTIONS)),
        repr(describe(index, frames.report)),
    ]
    for fault in FAULTS:
        server.faults = type(server.faults)(**fault)
        with pytest.raises(DicomTorchError) as caught:
            frames[0]
        assert type(caught.value) in (StorageError, StaleIndexError)
        said += ["".join(traceback.format_exception(one)) for one in chain(caught.value)]
        if "status" in fault:
            fault["status"]["/studies"] = fault["status"]["/frames/"]
            with pytest.raises(SourceError) as refused:
                scan(server.address, storage_options=options)
            said += [repr(one) for one in chain(refused.value)]
    assert "/frames/" in caplog.text  # of urllib3, which logs addresses
    said += [*capfd.readouterr(), caplog.text]
    secret = TOKEN.split()[1]
    assert not [one for one in said if secret in one]
    assert not [one for one in kept if secret.encode() in one]
    assert secret.encode() in pickle.dumps(frames)  # workers that are spawned need it


@pytest.mark.parametrize("scheme", ["dicomweb+https", "dicomweb+http", "https", "s3", "gs"])
def test_a_password_in_an_address_is_refused_and_not_repeated(
    scheme: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    address = f"{scheme}://somebody:hunter2@127.0.0.1:9/web"
    path = tmp_path / "file.dcm"
    write(ct(ct_pixels()), path)
    index, _ = scan(tmp_path)
    index.save(tmp_path / "saved")
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: DicomFrames(address, cache_dir=tmp_path / "cache"),
        lambda: scan(address),
        lambda: scan([address, tmp_path]),
        lambda: index.moved(address),
        lambda: FrameIndex.load(tmp_path / "saved", root=address),
    )
    said = []
    for attempt in attempts:
        with pytest.raises(DicomTorchError) as caught:
            attempt()
        said += [repr(one) for one in chain(caught.value)]
    assert cli.main(["info", address]) == EXIT_ERROR
    said += [*capsys.readouterr(), caplog.text]
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert not [one for one in said if "hunter2" in one]
    assert not [one for one in kept if b"hunter2" in one]


def test_commands_read_a_server(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WEB_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    options = ["--storage-option", "headers.Authorization=env:WEB_TOKEN"]
    said = ""

    def run(*words: object) -> str:
        nonlocal said
        code = cli.main([*map(str, words), *options])
        out, err = capsys.readouterr()
        said += out + err
        assert code in (EXIT_OK, 1), err
        return out

    saved = tmp_path / "saved.index"
    count = 5 + 40 + 2 + 1
    assert json.loads(run("scan", server.address, "--json", "-o", saved))["frames"] == count
    found = json.loads(run("info", server.address, "--json"))
    assert found["frames"] == count
    assert found["epoch"]["random"]["requests"] == count
    assert found["epoch"]["grouped"]["requests"] < count
    monkeypatch.setattr(web, "_of_place", {})
    assert json.loads(run("info", saved, "--json"))["frames"] == count
    assert json.loads(run("doctor", server.address, "--json"))["frames"] == count
    assert json.loads(run("verify", server.address, "--json"))["frames"] == count
    assert "Wrote" in run("preview", server.address, "-o", tmp_path / "p.png")
    run("series", server.address)
    run("show", server.address, 0, "--output", tmp_path / "shown.png")
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    secret = TOKEN.split()[1]
    assert secret not in said + caplog.text
    assert not [one for one in kept if secret.encode() in one]


def test_a_viewer_of_a_server_does_not_tell_its_key(server: Server) -> None:
    require("starlette")
    require("uvicorn")
    frames = DicomFrames(server.address, storage_options=OPTIONS)
    with view(frames, browser=False) as viewing:
        paths = ["/", "/api/summary", "/api/samples/0", "/api/samples/1/training"]
        replies = [get(viewing.url, path) for path in paths]
        assert [reply.status for reply in replies] == [200] * 4
        assert replies[1].info["frames"] == len(frames)
        paths = [f"/api/samples/{k}/training" for k in range(2, 6)]
        server.faults.status = {"/frames/": [403]}
        replies += [get(viewing.url, path) for path in paths]
    secret = TOKEN.split()[1]
    for reply in replies:
        assert secret.encode() not in reply.body
        assert secret not in repr(reply.headers)


def test_progress_says_requests_and_bytes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    real: Any = tqdm

    class Bar(real):  # type: ignore[misc]
        def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
            said.append(s)

    monkeypatch.setattr(scanner_web, "tqdm", Bar)
    scan(server.address, storage_options=OPTIONS, progress=True)
    assert len(said) == 9
    assert re.fullmatch(r"[0-9]+ requests, [0-9.]+ MB", said[-1])


def test_a_scan_that_was_broken_off_is_gone_on_with(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner_web, "_BETWEEN_CHECKPOINTS", 0.0)
    real = WebReader.finished
    read: list[Any] = []

    def breaks(self: Any, one: Any) -> Any:
        if len(read) == 6:
            raise KeyboardInterrupt
        read.append(one)
        return real(self, one)

    monkeypatch.setattr(WebReader, "finished", breaks)
    with pytest.raises(KeyboardInterrupt):
        DicomFrames(server.address, storage_options=OPTIONS, cache_dir=tmp_path)
    monkeypatch.setattr(WebReader, "finished", real)
    server.asked.clear()
    frames = DicomFrames(server.address, storage_options=OPTIONS, cache_dir=tmp_path)
    # At most a tenth of the time goes into keeping, so that the last ones may not be.
    assert 1 <= frames.report.reused <= 6
    assert frames.report.read == 9 - frames.report.reused
    assert read[0].rows.path.decode() not in str(server.asked)
    whole, _ = scan(server.address, storage_options=OPTIONS)
    for name in ("SOPInstanceUID", "frame", "Rows", "TransferSyntaxUID"):
        assert sorted(frames.index.column(name)) == sorted(whole.column(name))


def test_addresses_and_options_are_checked(server: Server) -> None:
    host = server.address.partition("://")[2]
    for address, options, message in (
        ("dicomweb+http://example.org/web", {}, "unencrypted"),
        (f"dicomweb+http://user:{TOKEN[-9:]}@{host}", {}, "a user, a password or a query"),
        (f"{server.address}?key={TOKEN[-9:]}", {}, "a user, a password or a query"),
        (server.address, {"heads": 1}, "got heads"),
        (server.address, {"headers": {"A": 1}}, "must map names"),
        (server.address, {"headers": {"A": "b\r\nC: d"}}, "must map names"),
        (server.address, {"io_threads": 0}, "1 to 64"),
        (server.address, {"timeout": -1}, "above 0"),
        (server.address, {"probe": "all"}, "'series' or 'instance'"),
    ):
        with pytest.raises(OptionError, match=message) as caught:
            scan(address, storage_options=options)
        assert TOKEN[-9:] not in str(caught.value)


def test_answers_beyond_the_limit(server: Server) -> None:
    with pytest.raises(SourceError, match="more than 100 bytes"):
        scan(server.address, storage_options={**OPTIONS, "most_bytes": 100})
    most = {**OPTIONS, "most_bytes": 20_000}
    frames = DicomFrames(server.address, storage_options=most, values="stored")
    multi = [k for k in range(len(frames)) if frames.index.record(k)["frame"] > 1]
    whole = DicomFrames(server.address, storage_options=OPTIONS, values="stored")
    assert torch.equal(frames[multi][0], whole[multi][0])  # alone they are below it
    frames = DicomFrames(frames.index, storage_options={**OPTIONS, "most_bytes": 500})
    with pytest.raises(StorageError, match="more than 500 bytes"):
        frames[multi]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_connections_of_its_own(server: Server) -> None:
    frames = DicomFrames(server.address, storage_options=OPTIONS, values="stored")
    frames[[1, 2]]
    child = os.fork()
    if not child:
        try:
            good = bool(torch.equal(frames[[1]][0][0], frames[1][0]))
            os._exit(0 if good else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
