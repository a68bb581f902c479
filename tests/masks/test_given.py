"""Masks and regions of objects that a DICOMweb server has: those of the same files, each object asked for once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicomtorch import DicomFrames, DicomVolumes, FrameLoader, read_annotations, scan
from dicomtorch.errors import OptionError, StaleIndexError
from dicomtorch.reader import kept_frames
from dicomtorch.storage import instances
from tests.masks.test_annotations import finding, region, report, shape_file
from tests.support.dicomweb_server import TOKEN, Server, dicomweb_server
from tests.support.http_server import counts, http_server
from tests.support.mask_phantoms import segmentation, series, slide, square, structures
from tests.support.orthanc import OPTIONS as OF_ORTHANC
from tests.support.orthanc import orthanc
from tests.support.requirements import require

require("urllib3")

OPTIONS: dict[str, Any] = {"headers": {"Authorization": TOKEN}, "max_retries": 0}


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    """Nothing is kept of another test's server."""
    instances._kept._kept.clear()
    kept_frames._kept._kept.clear()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Slices with two structures, two segments and the regions of a report."""
    folder = tmp_path / "files"
    slices = series(folder, 6)
    rois = [
        ("liver", [(k, square(2.2, 9.1 + k / 3)) for k in range(6)]),
        ("kidney", [(k, square(4, 6.5)) for k in (1, 3)]),
    ]
    structures(folder / "rt.dcm", slices, rois)
    random = np.random.default_rng(0)
    pixels = [(1 + k % 2, k, random.integers(0, 2, (12, 16))) for k in range(6)]
    segmentation(folder / "seg.dcm", slices, pixels)
    items = [finding("4147007", "Mass"), region("POLYLINE", [*square(1, 5), (1, 1)], slices[2])]
    report(folder / "sr.dcm", slices[2], [items])
    return folder


def datasets(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def server(files: Path) -> Iterator[Server]:
    with dicomweb_server(datasets(files), TOKEN) as made:
        yield made


def whole(server: Server, folder: Path, name: str) -> int:
    """How often the file of an object was asked for."""
    uid = pydicom.dcmread(folder / name).SOPInstanceUID
    return sum(path.endswith(f"/instances/{uid}") for path in server.asked)


def same(plain: Any, web: Any) -> None:
    """The samples of files and of a server, by what tells frames apart."""
    assert len(plain) == len(web) > 0
    others = {meta["SOPInstanceUID"]: parts for *parts, meta in (web[k] for k in range(len(web)))}
    for k in range(len(plain)):
        *parts, meta = plain[k]
        for part, other in zip(parts, others[meta["SOPInstanceUID"]], strict=True):
            assert torch.equal(part, other)


@pytest.mark.parametrize("kind", ["rtstruct", "seg", "sr"])
def test_they_are_those_of_files(files: Path, server: Server, kind: str) -> None:
    options: dict[str, Any] = {"masks": kind, "mask_output": "channels"}
    plain = DicomFrames(files, **options)
    web = DicomFrames(server.address, storage_options=OPTIONS, **options)
    assert any(plain[k][1].any() for k in range(6))
    same(plain, web)
    server.faults.bare = True
    instances._kept._kept.clear()
    same(plain, DicomFrames(web.index, **options))


def test_boxes_of_reports(files: Path, server: Server) -> None:
    options: dict[str, Any] = {"boxes": "sr"}
    plain = DicomFrames(files, **options)
    web = DicomFrames(server.address, storage_options=OPTIONS, **options)
    found = [sorted(str(f[k][1]["boxes"].tolist()) for k in range(len(f))) for f in (plain, web)]
    assert found[0] == found[1]
    assert whole(server, files, "sr.dcm") == 1


def test_contours_are_asked_for_once(files: Path, server: Server) -> None:
    frames = DicomFrames(
        server.address, masks="rtstruct", mask_output="channels", storage_options=OPTIONS
    )
    assert whole(server, files, "rt.dcm") == 1  # by the scan
    for _ in range(2):
        for _ in FrameLoader(frames, 4, shuffle=True):
            pass
    assert whole(server, files, "rt.dcm") == 1
    instances._kept._kept.clear()  # as in a process that finds the index there
    again = DicomFrames(frames.index, masks="rtstruct", mask_output="channels")
    server.asked.clear()
    for _ in FrameLoader(again, 4, shuffle=True):
        pass
    assert whole(server, files, "rt.dcm") == 1
    volume = DicomVolumes(frames.index, masks="rtstruct", mask_output="channels")
    assert volume[0][1].any()
    assert whole(server, files, "rt.dcm") == 1


def test_frames_of_segmentations_are_asked_for_together(files: Path, server: Server) -> None:
    uid = pydicom.dcmread(files / "seg.dcm").SOPInstanceUID
    frames = DicomFrames(server.address, masks="seg", storage_options=OPTIONS)
    server.asked.clear()
    for _ in range(2):
        for _ in FrameLoader(frames, 2, shuffle=True):
            pass
    asked = [path for path in server.asked if uid in path]
    assert len(asked) == 1
    assert asked[0].endswith("/frames/1,2,3,4,5,6")
    kept_frames._kept._kept.clear()
    server.faults.drops_part = True  # of several: each is asked for alone then
    same(DicomFrames(files, masks="seg"), DicomFrames(frames.index, masks="seg"))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_contours_in_other_encodings(files: Path, syntax: UID) -> None:
    path = files / "rt.dcm"
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian)
    options: dict[str, Any] = {"masks": "rtstruct", "mask_output": "channels"}
    with dicomweb_server(datasets(files)) as server:
        same(DicomFrames(files, **options), DicomFrames(server.address, **options))


def test_an_object_that_is_given_otherwise_is_never_read_wrong(files: Path, server: Server) -> None:
    frames = DicomFrames(
        server.address, masks="rtstruct", mask_output="channels", storage_options=OPTIONS
    )
    instances._kept._kept.clear()
    (one,) = (each for each in server.datasets if each.Modality == "RTSTRUCT")
    one.StructureSetLabel = "another"
    with pytest.raises(StaleIndexError, match=r"masks: object 0 .*other bytes of the instance"):
        frames[0]
    server.datasets.remove(one)
    instances._kept._kept.clear()
    with pytest.raises(StaleIndexError, match="no such instance"):
        frames[0]


def test_a_server_that_gives_no_files_says_so_and_gives_its_images(
    files: Path, server: Server
) -> None:
    uid = pydicom.dcmread(files / "rt.dcm").SOPInstanceUID
    server.faults.status[f"instances/{uid}"] = [406]
    server.datasets = [one for one in server.datasets if one.Modality != "SEG"]
    index, report = scan(server.address, storage_options=OPTIONS)
    assert len(index) == 6
    server.faults.status.clear()
    (reason,) = [one.reason for one in report.findings if one.file_class == "unreadable"]
    assert "406" in reason
    with pytest.raises(OptionError):
        DicomFrames(index, masks="rtstruct", mask_output="channels")
    again, _ = scan(server.address, index=index)  # what was not given is asked for again
    assert DicomFrames(again, masks="rtstruct", mask_output="channels")[0][1].any()


def test_orthanc_gives_what_its_files_have(files: Path, tmp_path: Path) -> None:
    require("orthanc")
    with orthanc(tmp_path / "orthanc") as server:
        assert all(server.takes(path.read_bytes()) for path in sorted(files.iterdir()))
        for kind in ("rtstruct", "seg", "sr"):
            options: dict[str, Any] = {"masks": kind, "mask_output": "channels"}
            web = DicomFrames(server.address, storage_options=OF_ORTHANC, **options)
            same(DicomFrames(files, **options), web)


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("FRACTIONAL", RLELossless),
        ("LABELMAP", RLELossless),
        ("LABELMAP", ExplicitVRLittleEndian),
        ("BINARY", ExplicitVRLittleEndian),
        ("FRACTIONAL", DeflatedExplicitVRLittleEndian),
    ],
)  # fmt: skip
def test_thirty_frames_of_a_segmentation_are_one_request(
    tmp_path: Path, kind: str, syntax: UID
) -> None:
    folder = tmp_path / "files"
    slices = series(folder, 70)
    random = np.random.default_rng(0)
    most = 255 if kind == "FRACTIONAL" else 1
    pixels = [(1, k, most * random.integers(0, 2, (12, 16))) for k in range(70)]
    path = segmentation(folder / "seg.dcm", slices, pixels, kind=kind)
    dataset = pydicom.dcmread(path)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    options: dict[str, Any] = {"masks": "seg", "mask_output": "channels"}
    with dicomweb_server(datasets(folder)) as server:
        web = DicomFrames(server.address, **options)
        server.asked.clear()
        for _ in range(2):
            for _ in FrameLoader(web, 4, shuffle=True):
                pass
        asked = [path for path in server.requests if dataset.SOPInstanceUID in path]
        assert len(asked) == 3
        assert sum(path.count(",") + 1 for path in asked) == 70
        assert web.masks.areas().any()
        assert len([p for p in server.requests if dataset.SOPInstanceUID in p]) == 3
        same(DicomFrames(folder, **options), web)


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """A slide in tiles of 10 x 10, with polygons, points and ellipses of its matrix, and points of one tile."""
    folder = tmp_path / "slide"
    image = slide(folder, 10)
    random = np.random.default_rng(0)
    groups = [
        ("cells", "POINT", [random.uniform(0, 50, (200, 2))]),
        ("tissue", "POLYGON", [np.array(square(3, 17)), np.array(square(22.5, 41))]),
        ("nuclei", "ELLIPSE", [np.array([(5, 30), (15, 30), (10, 27), (10, 33)])]),
    ]

    def counted(dataset: pydicom.Dataset) -> None:
        dataset.AnnotationGroupSequence[0].NumberOfAnnotations = 200

    shape_file(folder / "ann.dcm", image, groups, edit=counted)
    report_of_one = [("one", "POINT", [np.array([(2.5, 3.5), (7, 8)])])]

    def of_a_frame(dataset: pydicom.Dataset) -> None:
        dataset.PixelOriginInterpretation = "FRAME"
        dataset.ReferencedImageSequence[0].ReferencedFrameNumber = 4
        dataset.AnnotationGroupSequence[0].NumberOfAnnotations = 2

    shape_file(folder / "frame.dcm", image, report_of_one, edit=of_a_frame)
    return folder


def same_annotations(plain: Any, web: Any) -> None:
    """The tables of two scans, in whichever order their objects come."""
    tables = [
        sorted(map(str, read_annotations(index).drop_columns(["object"]).to_pylist()))
        for index in (plain.index, web.index)
    ]
    assert len(tables[0]) == 205
    assert tables[0] == tables[1]


def same_by_frame(plain: DicomFrames, web: DicomFrames) -> None:
    """All samples of one instance."""
    order = [sorted(range(len(one)), key=lambda k: one[k][-1]["frame"]) for one in (plain, web)]
    assert len(order[0]) == len(order[1]) == 25
    for k, j in zip(*order, strict=True):
        (image, target, _), (other, other_target, _) = plain[k], web[j]
        assert torch.equal(image, other)
        assert str(target) == str(other_target)
        if isinstance(target, torch.Tensor):
            assert torch.equal(target, other_target)


WITH_ANNOTATIONS: list[dict[str, Any]] = [
    {"points": "ann"},
    {"boxes": "ann"},
    {"masks": "ann", "mask_output": "channels", "unlabelled": "zero"},
]


@pytest.mark.parametrize("options", WITH_ANNOTATIONS, ids=lambda options: next(iter(options)))
def test_bulk_annotations_are_those_of_files(annotated: Path, options: dict[str, Any]) -> None:
    plain = DicomFrames(annotated, values="stored", **options)
    with dicomweb_server(datasets(annotated), TOKEN) as server:
        web = DicomFrames(server.address, storage_options=OPTIONS, values="stored", **options)
        same_by_frame(plain, web)
        for name in ("ann.dcm", "frame.dcm"):
            assert whole(server, annotated, name) == 1
        for _ in FrameLoader(web, 4, shuffle=True):
            pass
        assert whole(server, annotated, "ann.dcm") == 1
        same_annotations(plain, web)


def test_orthanc_gives_bulk_annotations(annotated: Path, tmp_path: Path) -> None:
    require("orthanc")
    with orthanc(tmp_path / "orthanc") as server:
        assert all(server.takes(path.read_bytes()) for path in sorted(annotated.iterdir()))
        for options in WITH_ANNOTATIONS:
            web = DicomFrames(
                server.address, storage_options=OF_ORTHANC, values="stored", **options
            )
            plain = DicomFrames(annotated, values="stored", **options)
            same_by_frame(plain, web)
            same_annotations(plain, web)


def test_planes_of_an_image_in_an_object_share_a_request(tmp_path: Path) -> None:
    require("obstore")
    require("fsspec")
    folder = tmp_path / "files"
    slices = series(folder, 3)
    random = np.random.default_rng(0)
    pixels = [(s, k, 255 * random.integers(0, 2, (12, 16))) for s in (1, 2, 3) for k in range(3)]
    path = segmentation(folder / "seg.dcm", slices, pixels, kind="FRACTIONAL")
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    options: dict[str, Any] = {"masks": "seg", "mask_output": "channels"}
    with http_server(folder) as address:
        remote = DicomFrames(address, cache_dir=tmp_path / "cache", **options)
        counts(address)  # of the scan
        assert remote[1][1].any()
        assert counts(address)["GET"] == 2  # the image, and its three planes
        same(DicomFrames(folder, **options), remote)
