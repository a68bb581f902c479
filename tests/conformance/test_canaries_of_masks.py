"""Free text of SEG, RTSTRUCT and reports comes out where it is asked for only, from wherever files are read.

Names of segments and regions, descriptions, tracking identifiers and meanings of codes hold markers, beside what names
people in images and objects. `masks.table()`, `masks.labels` and `read_annotations` show names; nothing else does.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicomtorch import (
    DicomFrames,
    DicomVolumes,
    FrameIndex,
    FrameLoader,
    MaskIndex,
    read_annotations,
    scan,
    view,
)
from dicomtorch.cli import main as cli
from dicomtorch.errors import DicomTorchError
from tests.masks.test_annotations import finding, named, region, report
from tests.support import mask_phantoms
from tests.support.archives import pack
from tests.support.canaries import leaks, marker
from tests.support.dicomweb_server import Server, dicomweb_server
from tests.support.http_server import http_server
from tests.support.requirements import require
from tests.support.viewing import get

OF_PEOPLE = (
    *("PatientName", "PatientAddress", "StudyDescription", "SeriesDescription", "InstitutionName"),
    *("OperatorsName", "AccessionNumber", "ReferringPhysicianName", "PatientComments", "StudyID"),
    *("StationName", "ProtocolName"),
)
OF_OBJECTS = ("ContentLabel", "ContentDescription", "ContentCreatorName", "DeviceSerialNumber")
OF_SEGMENTS = ("SegmentDescription", "SegmentAlgorithmName", "TrackingID")
OF_STRUCTURES = ("StructureSetLabel", "StructureSetName", "StructureSetDescription")
OF_REGIONS = ("ROIDescription", "ROIGenerationDescription")
NAMES = ("SegmentLabel", "ROIName", "CodeMeaning")
"""What is in the index besides `PatientID`, and shown where it is asked for."""

ALL = {
    name: marker(name)
    for name in (
        *(*OF_PEOPLE, *OF_OBJECTS, *OF_SEGMENTS, *OF_STRUCTURES, *OF_REGIONS, *NAMES),
        *("PatientID", "TextValue"),
    )
}


def found_in(output: str | bytes) -> list[str]:
    return leaks(output, ALL)


def mark(dataset: Any) -> None:
    """Puts markers where an object has free text."""
    for name in (*OF_PEOPLE, *OF_OBJECTS):
        setattr(dataset, name, marker(name))
    for segment in dataset.get("SegmentSequence", []):
        for name in OF_SEGMENTS:
            setattr(segment, name, marker(name))
        segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning = marker("CodeMeaning")
    for one in dataset.get("StructureSetROISequence", []):
        for name in OF_REGIONS:
            setattr(one, name, marker(name))
    if "StructureSetLabel" in dataset:
        for name in OF_STRUCTURES:
            setattr(dataset, name, marker(name))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CT, and objects of which one region lies between slices."""
    folder = tmp_path_factory.mktemp("marked")
    about: dict[str, Any] = {name: marker(name) for name in (*OF_PEOPLE, "PatientID")}
    slices = mask_phantoms.series(folder, 4, **about)
    ones = slices[0].pixel_array > 0
    mask_phantoms.segmentation(
        folder / "seg.dcm",
        slices,
        [*((1, k, ones) for k in range(3)), (2, 0, ones)],
        names=[marker("SegmentLabel"), "liver"],
        edit=mark,
    )
    between = [(0, 0, 1.3), (5, 0, 1.3), (5, 5, 1.3)]
    mask_phantoms.structures(
        folder / "rt.dcm",
        slices,
        [
            (marker("ROIName"), [(0, mask_phantoms.square(4, 9))]),
            ("heart", [(1, mask_phantoms.square(2, 5)), between]),
        ],
        edit=mark,
    )
    outline = region("POLYLINE", [(2, 2), (6, 2), (6, 6), (2, 2)], slices[0])
    tracked = named("Tracking Identifier", "112039", "TEXT", TextValue=marker("TextValue"))
    what = finding("39607008", marker("CodeMeaning"))
    report(folder / "sr.dcm", slices[0], [[what, tracked, outline]], edit=mark)
    return folder


@pytest.fixture(scope="module")
def index(tree: Path) -> FrameIndex:
    return scan(tree)[0]


def said(call: Callable[[], Any]) -> str:
    """What comes of a call: its result as it is shown, its error with causes, and what was warned of."""
    words = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            words.append(repr(call()))
        except DicomTorchError as error:
            one: BaseException | None = error
            while one is not None:
                words.append(f"{one} {one!r}")
                one = one.__cause__
    return "\n".join([*words, *(str(warning.message) for warning in caught)])


def test_the_files_are_worth_it(tree: Path, index: FrameIndex) -> None:
    written = b"".join(path.read_bytes() for path in tree.iterdir())
    assert found_in(written) == list(ALL)
    assert len(index.filter(Modality="CT")) == 4


COMMANDS = ("scan", "info", "series", "doctor", "verify")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(tree: Path, capfd: pytest.CaptureFixture[str], command: str) -> None:
    for options in ([], ["--json"]):
        assert cli.main([command, str(tree), *options]) in (0, 1)
        output = capfd.readouterr()
        assert len(output.out) > 20
        assert found_in(output.out + output.err) == []


def test_a_picture_of_masks(tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    require("matplotlib")
    picture = tmp_path / "a.png"
    assert cli.main(["preview", "--masks", str(tree), "--output", str(picture)]) == 0
    assert found_in("".join(capfd.readouterr()).encode() + picture.read_bytes()) == []


WAYS: list[dict[str, Any]] = [
    {"masks": True, "between": "nearest", "labels": {"liver": 1, "heart": 2}},
    {"masks": "seg"},
    {"masks": "seg", "mask_output": "channels", "unlabelled": "zero"},
    {"masks": "rtstruct", "between": "nearest"},
    {"masks": "sr"},
    {"boxes": "sr"},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_samples_batches_and_what_is_shown(
    index: FrameIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    caplog.set_level("DEBUG")
    frames = DicomFrames(index, cache=tmp_path / "cache", **options)
    shown = [repr(frames), frames._repr_html_(), said(lambda: list(frames))]
    if "masks" in options:
        shown += [
            repr(frames.masks),
            frames.masks.reasons(),
            said(lambda: list(FrameLoader(frames, 2))),
        ]
    shown += [said(lambda k=k: pickle.dumps(frames[k][-1])) for k in range(4)]  # type: ignore[misc]
    shown.append(caplog.text)
    assert found_in("\n".join(shown)) == []
    kept = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert found_in(b"".join(kept)) == []


def wrong(index: FrameIndex, tree: Path) -> Iterator[Callable[[], Any]]:
    """What an option, a file or a table does wrong."""
    yield from (
        lambda: DicomFrames(index, masks=True),
        lambda: DicomFrames(index, masks="rtstruct"),
        lambda: DicomFrames(index, masks="rtstruct", labels=["nothing"]),
        lambda: DicomFrames(index, masks="ann"),
        lambda: MaskIndex(index.filter(Modality="CT"), index, labels={"(": 1}),
        lambda: MaskIndex(index.filter(Modality="CT"), index, kind="seg").has("nothing"),
        lambda: DicomFrames(index, points="sr")[0],
        lambda: DicomVolumes(index, masks="rtstruct")[0],
        lambda: DicomVolumes(index, masks="rtstruct", group="series"),
        lambda: index.join({"StudyDescription": ["x"]}, on="StudyDescription"),
    )
    for name in ("seg", "rt", "sr"):
        path = tree / f"{name}.dcm"
        for part in (3, 5, 7):
            yield lambda path=path, part=part: _cut(index, path, part)  # type: ignore[misc]


def _cut(index: FrameIndex, path: Path, part: int) -> Any:
    """The masks of an object that is cut off after the scan, or before it."""
    kind: Any = {"seg": "seg", "rt": "rtstruct", "sr": "sr"}[path.stem]
    data = path.read_bytes()
    frames = DicomFrames(index, masks=kind, between="nearest")
    try:
        path.write_bytes(data[: len(data) * part // 8])
        with contextlib.suppress(DicomTorchError):
            again = scan(path.parent)
            said_again = [finding.reason for finding in again[1].findings]
            assert found_in(" ".join(said_again)) == []
        return said(lambda: frames[0]) + said(lambda: DicomFrames(path.parent, masks=kind)[0])
    finally:
        path.write_bytes(data)


def test_messages(tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    copy = shutil.copytree(tree, tmp_path / "copy")
    messages = [said(call) for call in wrong(scan(copy)[0], copy)]
    assert len({*messages}) > 12
    assert [message for message in (*messages, caplog.text) if found_in(message)] == []


def test_a_planted_leak_is_found(index: FrameIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskIndex, "__repr__", lambda self: repr(self.labels))
    assert found_in(repr(DicomFrames(index, masks="seg").masks)) == ["SegmentLabel"]


def test_what_is_asked_for_has_names(tree: Path, index: FrameIndex, tmp_path: Path) -> None:
    frames = DicomFrames(index, masks="rtstruct", between="nearest")
    assert found_in(repr(frames.masks.table().to_pydict())) == ["ROIName"]
    assert found_in(repr(frames.masks.labels)) == ["ROIName"]
    assert "TextValue" in found_in(repr(read_annotations(tree).to_pydict()))
    index.save(tmp_path / "index")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "index").iterdir())
    assert {*found_in(kept)} == {"PatientID", *NAMES}


@pytest.mark.parametrize("contents", ["encoded", "stored"])
def test_copies_of_frames(index: FrameIndex, tmp_path: Path, contents: Any) -> None:
    images = index.filter(Modality="CT")
    note = [marker("PatientName")] * 4
    joined = images.join({"InstanceNumber": [1, 2, 3, 4], "note": note}, on="InstanceNumber")
    for k, given in enumerate((index, joined)):
        written = given.write(tmp_path / f"shards{k}", frames=contents)
        assert written.frames == len(given)
        assert found_in(b"".join(path.read_bytes() for path in written.shards)) == []
    joined.export(tmp_path / "table.csv")
    assert found_in((tmp_path / "table.csv").read_bytes()) == []


def test_rows_of_other_libraries(index: FrameIndex) -> None:
    require("datasets")
    rows = index.filter(Modality="CT").to_hf()
    assert found_in(repr(rows) + repr(rows.features) + repr(rows[0])) == []
    assert found_in(repr(rows.data.table.to_pydict())) == []


@contextlib.contextmanager
def served(tree: Path) -> Iterator[Server]:
    with dicomweb_server([pydicom.dcmread(path) for path in sorted(tree.iterdir())]) as server:
        yield server


def check_place(place: str, kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What is said of files somewhere, and of their frames and masks."""
    for command in ("scan", "doctor"):
        assert cli.main([command, place]) in (0, 1)
    frames = DicomFrames(place, masks="seg", cache_dir=kept)
    shown = [repr(frames), frames._repr_html_(), repr(frames.report), said(lambda: list(frames))]
    output = capfd.readouterr()
    assert found_in("\n".join([*shown, *output])) == []
    files = b"".join(path.read_bytes() for path in kept.rglob("*") if path.is_file())
    assert {*found_in(files)} == {"PatientID", *NAMES}


@pytest.mark.parametrize("name", ["stored.zip", "deflated.zip", "plain.tar"])
def test_archives(tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    check_place(str(pack(tree, tmp_path / name)), tmp_path / "kept", capfd)


def test_servers(tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with http_server(tree) as address:
        check_place(address, tmp_path / "kept", capfd)
    with served(tree) as server:
        check_place(server.address, tmp_path / "web", capfd)
        frames = DicomFrames(server.address, cache_dir=tmp_path / "web")
        messages = []
        server.faults.status = {"/frames/": [403] * 9}
        for kind in ("", "video/mpeg"):
            server.faults.syntax = kind
            messages += [said(lambda k=k: frames[k]) for k in range(2)]  # type: ignore[misc]
            server.faults.status = {}
        assert found_in("\n".join(messages)) == []


OF_FRAME = ("source", "table", "thumb", "mask")


@pytest.mark.parametrize("options", [{"masks": "seg"}, {"masks": "rtstruct", "between": "nearest"}])
def test_the_viewer(index: FrameIndex, options: dict[str, Any]) -> None:
    require("starlette")
    require("uvicorn")
    frames = DicomFrames(index, **options)
    for given in (frames, FrameLoader(frames, 2), DicomVolumes(index, **options)):
        with view(given, browser=False) as viewing:
            asked = ["/", "/api/summary", "/api/series", "/api/batches", "/api/batches/0"]
            asked.append("/api/batches/0/training?item=1")
            for k in range(4):
                asked += [f"/api/series/{k}", f"/api/places/{k}", f"/api/samples/{k}"]
                asked += [f"/api/frames/{k}/{what}" for what in OF_FRAME]
                asked += [f"/api/samples/{k}/{what}" for what in ("training", "mask")]
            replies = [get(viewing.url, path) for path in asked]
            assert sum(reply.status == 200 for reply in replies) > 12
            bodies = [reply.body + repr(dict(reply.headers)).encode() for reply in replies]
            assert found_in(b"\n".join(bodies)) == []
