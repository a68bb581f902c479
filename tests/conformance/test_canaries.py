"""Nothing of a header comes out unless it is a UID that samples have, or was named in `tags=`.

Every attribute that the package reads, and others that name people, holds a marker; then every command, report, export,
sample, notebook, warning, error and log record at DEBUG is searched for the markers, in any disguise.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import logging
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch.utils.data import DataLoader

from dicomtorch import (
    DicomClips,
    DicomFrames,
    DicomVolumes,
    FrameIndex,
    FrameLoader,
    check_leakage,
    scan,
    stacks,
    view,
)
from dicomtorch.cli import main as cli
from dicomtorch.errors import DicomTorchError
from dicomtorch.reports import summary
from dicomtorch.viewer.notebook import NotebookView
from tests.support.canaries import keywords, leaks, marker, with_markers, write_marked
from tests.support.phantoms import ct, ct_pixels, write
from tests.support.requirements import require
from tests.support.viewing import get


class Told(logging.Handler):
    """Everything that is logged, by anybody, at any level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.args!r} {record.exc_text or ''}")


@pytest.fixture
def log() -> Iterator[Told]:
    told, root = Told(), logging.getLogger()
    level = root.level
    root.addHandler(told)
    root.setLevel(logging.DEBUG)
    try:
        yield told
    finally:
        root.removeHandler(told)
        root.setLevel(level)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("canaries")
    write_marked(found)
    return found


@pytest.fixture(scope="module")
def index(folder: Path) -> FrameIndex:
    return scan(folder)[0]


def some(index: FrameIndex, *names: str) -> FrameIndex:
    """The frames of some files; all of them, or the one that has every marker."""
    paths = [index.files["path"][file].decode() for file in index.column("file").tolist()]
    return index.select([i for i, path in enumerate(paths) if path in names])


def test_the_files_are_worth_it(folder: Path, index: FrameIndex) -> None:
    """The markers are in the files, and most of the files are images all the same."""
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(written) == len(keywords()) + 7 > 150
    for k, keyword in enumerate(keywords()):
        assert marker(keyword).encode() in written[f"{k:03d}.dcm"], keyword
    assert index.report().counts["image"] > 100
    assert len(some(index, "whole.dcm")) == len(some(index, "broken.dcm")) == 1
    assert index.report().counts["unreadable"] >= 5


COMMANDS = [
    ["scan"],
    ["scan", "--json"],
    ["scan", "--json", "--tags", "PatientName", "PatientID", "StudyDescription"],
    ["info"],
    ["info", "--json"],
    ["series"],
    ["series", "--json"],
    ["doctor"],
    ["doctor", "--json", "--strict"],
    ["verify"],
    ["verify", "--json", "--against", "pydicom"],
]


@pytest.mark.parametrize("redact", [[], ["--redact-paths"]], ids=["", "redacted"])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    log: Told,
    arguments: list[str],
    redact: list[str],
) -> None:
    command, *options = arguments
    assert cli.main([command, str(folder), *options, *redact]) in (0, 1)
    output = capfd.readouterr()
    assert len(output.out) > 90
    assert leaks(output.out + output.err + "\n".join(log.lines)) == []


@pytest.mark.parametrize("command", ["preview", "show", "bench"])
def test_commands_that_draw_or_measure(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], log: Told, command: str
) -> None:
    pytest.importorskip("matplotlib")
    options = ["--output", str(tmp_path / "a.png"), "--window", "40", "400"]
    if command == "bench":
        options = ["--counts", "1", "--seconds", "1", "--json"]
    else:
        options = options[: 2 + 2 * (command == "show") + 3]
    for name in ("whole.dcm", "."):
        assert cli.main([command, str(folder / name), *options]) in (0, 1, 2)
        output = capfd.readouterr()
        assert leaks(output.out + output.err + "\n".join(log.lines)) == []
        if command == "bench":
            break
    if command != "bench":
        assert leaks((tmp_path / "a.png").read_bytes()) == []


@pytest.mark.parametrize("suffix", [".csv", ".arrow", ".parquet"])
def test_the_table_that_identifies_nobody(index: FrameIndex, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"shared{suffix}"
    index.export(path)
    data = path.read_bytes()
    if suffix == ".parquet":  # compressed
        data += json.dumps(parquet.read_table(path).to_pydict(), default=str).encode()
    uids = {name: marker(name) for name in keywords()}
    assert leaks(data, uids) == []  # there, UIDs are hashed too
    index.export(path, deidentified=False)
    assert "Modality" in leaks(path.read_bytes()) or suffix == ".parquet"


def test_reprs_and_notebooks(index: FrameIndex) -> None:
    frames = DicomFrames(index, on_error="replace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stacks(index, on_gap="keep")
        shown = [repr(index), index._repr_html_(), repr(frames), frames._repr_html_(), repr(found)]
        shown += [str(stack.report) for stack in found] + [found.reasons(), str(found.left_out)]
    shown += [str(check_leakage(index, index)), str(index.overview()), str(index.report())]
    assert leaks("\n".join(shown)) == []
    titles = pytest.importorskip("matplotlib.pyplot")
    whole = DicomFrames(some(index, "whole.dcm"))
    assert leaks(whole.show(0).axes[0].get_title()) == []
    titles.close("all")


def test_samples_and_batches(index: FrameIndex) -> None:
    whole = DicomFrames(some(index, "whole.dcm"))
    _, meta = whole[0]
    assert leaks(repr(meta)) == []
    assert {
        marker(name) for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    } <= {*map(str, meta.values())}
    for _, batch in DataLoader(whole, batch_size=1):
        assert leaks(repr(dict(batch))) == []
    for data in (
        DicomVolumes(index, on_gap="keep", values="modality"),
        DicomClips(some(index, "whole.dcm"), 1),
    ):
        assert leaks(repr(data) + repr(data[0][1])) == []


def test_what_tags_name_comes_out(folder: Path) -> None:
    whole = scan(folder / "whole.dcm", tags=["PatientName", "StudyDescription"])[0]
    _, meta = DicomFrames(whole, tags=["PatientName", "Modality"])[0]
    assert leaks(repr(meta)) == ["Modality", "PatientName"]


STATIC = ("/", "/viewer.js", "/viewer.css", "/icon.svg", "/none", "/api/none", "/api/series/9999")
OF_FRAME = ("source", "source?step=2&top=1&bottom=5&left=0&right=4", "thumb", "table", "mask", "no")
OF_SAMPLE = ("", "/training", "/training?draw=1&edge=8", "/mask", "/no")


def asked_of_the_viewer(frames: int) -> Iterator[str]:
    """Every address that the viewer answers, right and wrong."""
    yield from STATIC
    yield from ("/api/summary", "/api/series", "/api/series?filter=x=1", "/api/next?label=1&from=0")
    yield from ("/api/batches", "/api/batches?new=1", "/api/batches?offset=-1&limit=x")
    for k in (*range(frames), frames, "x"):
        yield from (f"/api/series/{k}", f"/api/places/{k}")
        yield from (f"/api/frames/{k}/{what}" for what in OF_FRAME)
        yield from (f"/api/samples/{k}{what}" for what in OF_SAMPLE)
    for k in (0, 1, 999):
        yield from (f"/api/batches/{k}", f"/api/batches/{k}/training?item=1")


def test_every_answer_of_the_viewer(index: FrameIndex, log: Told) -> None:
    """Headers and bodies, whatever the status."""
    require("starlette")
    require("uvicorn")
    names = [f"{k:03d}.dcm" for k in range(0, len(keywords()), 20)]
    chosen = some(index, "whole.dcm", "broken.dcm", *names)
    loader = FrameLoader(DicomFrames(chosen, on_error="replace"), batch_size=4)
    answered: dict[int, set[str]] = {}
    said: set[bytes] = set()
    with view(loader, browser=False) as viewing:
        for path in asked_of_the_viewer(len(chosen)):
            reply = get(viewing.url, path)
            answered.setdefault(reply.status, set()).add("".join(c for c in path if c.isalpha()))
            headers = {name: value for name, value in reply.headers.items() if name != "date"}
            said |= {json.dumps(headers).encode(), reply.body}
            assert not reply.body.startswith(b"\x89PNG")  # or its chunks were to be looked into
        said.add(repr(viewing).encode())
    assert leaks(b"\n".join([*said, *(line.encode() for line in log.lines)])) == []
    for what in ("framessource", "framesthumb", "framestable", "samples", "samplestraining"):
        assert f"api{what}" in answered[200]
    assert {"apisummary", "apiseries", "apibatches", "viewerjs"} <= answered[200]
    assert {"apinone", "apiframesno"} <= answered[404]
    assert any(b"expected SOC and SIZ" in one for one in said)


@pytest.mark.parametrize("has_widget", [False, True])
def test_what_a_notebook_keeps(
    index: FrameIndex, monkeypatch: pytest.MonkeyPatch, has_widget: bool
) -> None:
    if has_widget:
        require("anywidget")
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    frames = DicomFrames(some(index, "whole.dcm", "000.dcm", "001.dcm"), on_error="replace")
    shown = NotebookView(frames)
    try:
        bundle = shown._repr_mimebundle_()
        parts = bundle if isinstance(bundle, tuple) else (bundle,)
        for part in parts:
            assert leaks(json.dumps(part, default=str)) == []
            for kind, content in part.items():
                if kind == "image/png":
                    assert leaks(base64.b64decode(content)) == []
        assert has_widget or "text/plain" in parts[0]
    finally:
        shown.close()


OPTIONS: list[dict[str, Any]] = [
    *({"values": values} for values in ("display", "modality", "stored", "real_world", "suvbw")),
    *({"window": window} for window in ("lung", "series", 3, [None, "bone"])),
    {"color": "rgb"},
    {"values": "modality", "normalize": "zscore", "dtype": "float16"},
    {"values": "stored", "dtype": "uint8"},
    {"context": 1},
    {"backend": "simpleitk"},
    {"tags": ["PatientAge", "KVP"]},
]


def provoked(index: FrameIndex, folder: Path) -> Iterator[str]:
    """Messages of errors and warnings that the markers can lead to."""
    others: list[Any] = [
        lambda: index.find(SOPInstanceUID="1.2.3"),
        lambda: index.find(Modality=marker("Modality")),
        lambda: index.filter(Modalty="CT"),
        lambda: index.deduplicate("raise"),
        lambda: index.join({"PatientID": ["x"], "label": [1]}, on="PatientID"),
        lambda: index.join({"StudyDescription": ["x"], "label": [1]}, on="StudyDescription"),
        lambda: index.split([0.0, 1.0, 0.0]),
        lambda: index.kfold(1000),
        lambda: stacks(index, on_gap="raise"),
        lambda: DicomVolumes(index),
        lambda: DicomClips(index, 100),
        lambda: DicomFrames(folder, tags=["PatientSecks"]),
        lambda: next(iter(DataLoader(DicomFrames(index), batch_size=len(index)))),
        lambda: index.export("a.xyz"),
    ]
    for call in others:
        yield from said(call)
    for options in OPTIONS:
        for data in (index, some(index, "whole.dcm")):
            yield from said(lambda data=data, options=options: DicomFrames(data, **options))
    for options, i in itertools.product(OPTIONS, range(len(index))):
        yield from said(lambda i=i, options=options: _frame(index.select([i]), options))


def _frame(index: FrameIndex, options: dict[str, Any]) -> None:
    DicomFrames(index, **{"tags": [], **options} if "tags" not in options else options)[0]


def said(call: Any) -> Iterator[str]:
    """What an error and its causes say, also when they are pickled, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except DicomTorchError as error:
            one: BaseException | None = error
            while one is not None:
                yield f"{one} {one!r} {pickle.dumps(str(one))!r}"
                one = one.__cause__
    yield from (str(warning.message) for warning in caught)


def test_messages_and_logs(index: FrameIndex, folder: Path, log: Told) -> None:
    messages = set(provoked(index, folder))
    told = index.report().findings
    messages.update(finding.reason for finding in told)
    kinds = {"".join(c for c in message if not c.isdigit()) for message in messages}
    assert len(kinds) >= 50
    assert [(message, found) for message in messages if (found := leaks(message))] == []
    assert leaks("\n".join(log.lines)) == []


@pytest.mark.parametrize(
    "planted",
    [
        "{}",
        "Modality {}!",
        "x{}x",
    ],
)
def test_a_planted_leak_is_found(planted: str) -> None:
    text = marker("PatientName")
    for disguise in (
        text,
        text[::-1],
        text.lower(),
        text.encode().hex(),
        text.encode().hex().upper(),
        base64.b64encode(text.encode()).decode(),
        base64.b64encode(b"ab" + text.encode() + b"cd").decode(),
        base64.b64encode(b"a" + text[::-1].encode()).decode(),
        hashlib.sha256(text.encode()).hexdigest(),
        hashlib.md5(text.encode()).hexdigest(),
    ):
        assert leaks(planted.format(disguise)) == ["PatientName"], disguise
    assert leaks(b"\0" + text.encode("utf-16-le")) == ["PatientName"]
    assert leaks(text.encode("utf-16-be")) == ["PatientName"]
    assert leaks(planted.format(marker("SOPInstanceUID"))) == []
    for is_compressed in (False, True):
        chunks, file = PngInfo(), io.BytesIO()
        chunks.add_text("Title", planted.format(text), zip=is_compressed)
        Image.new("L", (4, 4)).save(file, "PNG", pnginfo=chunks)
        assert leaks(file.getvalue()) == ["PatientName"]


def test_a_report_without_the_rule_is_caught(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(ct(ct_pixels()), tmp_path / "a.dcm")
    path.write_bytes(with_markers(path.read_bytes(), ["Modality"]))
    monkeypatch.setattr(summary, "shown", lambda _, value: value)
    cli.main(["scan", str(tmp_path)])
    assert leaks(capsys.readouterr().out) == ["Modality"]


def test_markers_are_their_own() -> None:
    markers = [marker(keyword) for keyword in keywords()]
    assert len(set(markers)) == len(markers)
    assert not np.any([len(text) != 12 for text in markers])
