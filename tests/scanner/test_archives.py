"""Archives as sources: everything is as if they had been unpacked, and nothing is."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameIndex, FrameLoader, Limits, scan
from dicomtorch.cli.main import main
from dicomtorch.errors import SourceError, StaleIndexError, StorageError
from dicomtorch.reader import kernels
from dicomtorch.scanner.open import open_index
from dicomtorch.scanner.scan import with_tags
from dicomtorch.storage.members import Window
from tests.support.archives import KINDS, edited, pack
from tests.support.mask_phantoms import series, square, structures
from tests.support.phantoms import ct, ct_pixels, write, write_series


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Native, encapsulated, multi-frame, deflated and bitmap images, and what is none."""
    there = tmp_path / "files"
    write_series(there / "series", 5)
    write(ct(np.stack([ct_pixels(k) for k in range(7, 12)]), 20), there / "multi.dcm")
    data = ct(ct_pixels(3), 21)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    write(data, there / "b" / "deflated.dcm")
    rle = ct(np.stack([ct_pixels(k) for k in (1, 2)]), 22)
    rle.compress(RLELossless)
    write(rle, there / "b" / "rle.dcm")
    (there / "notes.txt").write_text("nothing to see here, just some words")
    (there / "empty").write_bytes(b"")
    return there


def by_name(index: FrameIndex) -> dict[tuple[str, int], int]:
    """Position of each frame by the name of its file, below the folder or in the archive."""
    names = (
        index.path(i).rpartition("!/")[2].removeprefix(os.fsdecode(index.path_prefix))
        for i in range(len(index))
    )
    frames = index.gather("frame", np.arange(len(index)))
    return {
        (name, int(frame)): i for i, (name, frame) in enumerate(zip(names, frames, strict=True))
    }


def same(plain: DicomFrames, packed: DicomFrames) -> None:
    """Whether two datasets have the same frames, one by one and as batches."""
    names, others = by_name(plain.index), by_name(packed.index)
    assert names.keys() == others.keys()
    first, second = list(names.values()), [others[name] for name in names]
    for i, k in zip(first, second, strict=True):
        (image, meta), (other, packed_meta) = plain[i], packed[k]
        assert torch.equal(image, other)
        own = ("index", "requested_index", "patient")
        assert repr({**meta, **dict.fromkeys(own)}) == repr({**packed_meta, **dict.fromkeys(own)})
    assert torch.equal(plain[first][0], packed[second][0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_archive_is_its_folder(folder: Path, tmp_path: Path, kind: str, workers: int) -> None:
    path = pack(folder, tmp_path / kind)
    plain, report = scan(folder)
    packed, of_archive = scan(path, num_workers=workers)
    assert of_archive.counts == report.counts
    assert packed.path(0) == f"{path}!/{Path(plain.path(0)).relative_to(folder)}"
    reasons = [(one.path, one.file_class, one.reason) for one in report.findings]
    assert reasons == [
        (one.path.removeprefix(f"{kind}!/"), one.file_class, one.reason)
        for one in of_archive.findings
    ]
    for name in ("SOPInstanceUID", "Rows", "RescaleSlope", "length", "fragments", "frame"):
        assert list(plain.column(name)) == list(packed.column(name))
    same(DicomFrames(plain, values="stored"), DicomFrames(packed, values="stored"))


def test_stored_members_are_plain_ranges(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(folder, tmp_path / "stored.zip")
    index, _ = scan(path)
    k = by_name(index)["series/002.dcm", 0]
    offset, length = index.span(k)[:2]
    assert path.read_bytes()[offset : offset + length] == ct_pixels(2).tobytes()
    if kernels.kernels().module is None:
        return
    frames = DicomFrames(index)
    done: list[Any] = []
    for name in ("read", "read_one"):
        monkeypatch.setattr(kernels.PlainReader, name, recorded(done, name))
    one, together = frames[k][0], frames[[k]][0][0]
    assert list(map(bool, done)) == [True, True]
    assert torch.equal(one, together)
    assert torch.equal(one, DicomFrames(folder / "series" / "002.dcm")[0][0])


def recorded(results: list[Any], name: str) -> Any:
    """A method of `PlainReader` whose results are kept."""
    real = getattr(kernels.PlainReader, name)

    def method(*arguments: Any) -> Any:
        results.append(real(*arguments))
        return results[-1]

    return method


@pytest.mark.parametrize("kind", KINDS)
def test_members_of_an_unchanged_archive_are_not_read_again(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    path = pack(folder, tmp_path / kind)
    index, report = scan(path)
    again, refreshed = scan(path, index=index)
    assert again is index
    assert (refreshed.read, refreshed.reused) == (0, report.read)
    more, _ = scan(path, index=index, tags=["PatientSex"])
    assert set(more.column("PatientSex")) == {"F"}
    shutil.rmtree(folder / "b")
    os.utime(folder / "multi.dcm")
    pack(folder, path)
    changed, report = scan(path, index=index)
    assert len(changed) == 10
    assert (report.reused, report.removed) == (0, 2)
    same(DicomFrames(folder), DicomFrames(changed))


@pytest.mark.parametrize("kind", KINDS)
def test_a_replaced_archive_is_stale(folder: Path, tmp_path: Path, kind: str) -> None:
    path = pack(folder, tmp_path / kind)
    frames = DicomFrames(path)
    frames[0]
    before = path.stat()
    (tmp_path / "other").write_bytes(path.read_bytes())
    os.replace(tmp_path / "other", path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    for i in range(len(frames)):
        with pytest.raises(StaleIndexError, match=f"{kind}!/"):
            frames[i]
    with pytest.raises(StaleIndexError):
        with_tags(frames.index, ["PatientSex"])
    assert len(DicomFrames(path)) == len(frames)


def test_an_index_of_some_members_is_completed(folder: Path, tmp_path: Path) -> None:
    """Of a part of the files, or of a scan that was broken off: the other members are looked for."""
    path = pack(folder, tmp_path / "stored.zip")
    whole, _ = scan(path)
    some, _ = scan(path, part=(1, 2))
    assert 0 < len(some) < len(whole)
    again, report = scan(path, index=some)
    assert len(again) == len(whole)
    assert report.reused == len(some.files["size"])
    assert scan(path, index=again)[0] is again


def negative(path: Path) -> None:
    """A tar whose member claims to end before it begins."""
    head = bytearray(tarfile.TarInfo("x").tobuf())
    head[124:136] = b"\xff" * 8 + (-5000).to_bytes(4, "big", signed=True)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    path.write_bytes(bytes(head) + bytes(1024))


def chained(path: Path) -> None:
    """Names of names of names."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    path.write_bytes((info.tobuf() + b"a\0".ljust(512, b"\0")) * 3000 + bytes(1024))


@pytest.mark.parametrize("make", [negative, chained])
@pytest.mark.parametrize("num_workers", [None, 0])
def test_a_hostile_tar_ends_no_scan(
    folder: Path, tmp_path: Path, make: Any, num_workers: int | None
) -> None:
    make(tmp_path / "bad.tar")
    good = pack(folder, tmp_path / "stored.zip")
    index, report = scan([tmp_path / "bad.tar", good], num_workers=num_workers)
    assert len(index) == len(scan(good)[0])
    (bad,) = [
        one for one in report.findings if one.path == "bad.tar" or one.path.endswith("/bad.tar")
    ]
    assert "directory of the tar archive is damaged" in bad.reason


def test_a_failure_of_the_system_is_tried_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(folder, tmp_path / "stored.zip")
    whole, _ = scan(path)

    def fails(self: Any, offset: int, length: int) -> bytes:
        raise StorageError("cannot be read (EIO)") from OSError(5, "EIO")

    with monkeypatch.context() as patched:
        patched.setattr(Window, "read", fails)
        index, _ = scan(path, num_workers=0)
    assert len(index) < len(whole)
    assert len(scan(path, index=index)[0]) == len(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_pickles_workers_and_loaders(folder: Path, tmp_path: Path, kind: str) -> None:
    frames = DicomFrames(pack(folder, tmp_path / kind), isolation="process")
    whole = frames[list(range(len(frames)))][0]
    copy = pickle.loads(pickle.dumps(frames))
    assert torch.equal(copy[list(range(len(frames)))][0], whole)
    for loader in (DataLoader(frames, 4, num_workers=2, timeout=60), FrameLoader(frames, 4)):
        assert torch.equal(torch.cat([batch for batch, _ in loader]), whole)


def test_decoded_frames_of_a_deflated_zip_are_kept(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "deflated.zip")
    frames = DicomFrames(path, cache=tmp_path / "cache", values="stored")
    for _ in range(2):
        for k in (0, 1):
            image = frames[by_name(frames.index)["b/rle.dcm", k]][0]
            np.testing.assert_array_equal(image[0].numpy(), ct_pixels(k + 1))


def test_columns_can_be_added_and_archives_moved(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path = pack(folder, tmp_path / "there" / "deflated.zip")
    index, _ = scan(path)
    assert set(with_tags(index, ["PatientSex"]).column("PatientSex")) == {"F"}
    index.save(tmp_path / "index")
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    moved = FrameIndex.load(tmp_path / "index", root=tmp_path / "elsewhere")
    same(DicomFrames(folder), DicomFrames(moved))
    with pytest.raises(SourceError, match=r"deflated\.zip for example"):
        FrameIndex.load(tmp_path / "index", root=tmp_path / "nowhere")
    again, report = scan(tmp_path / "elsewhere" / "deflated.zip", index=moved)
    assert (report.read, len(again)) == (0, len(index))


def test_archives_beside_other_sources(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "plain.tar", ["multi.dcm"])
    pack(folder, tmp_path / "stored.zip", ["b/rle.dcm"])
    (tmp_path / "stored.zip").rename(tmp_path / "no suffix")
    sources = [folder / "series", tmp_path / "plain.tar", tmp_path / "no suffix"]
    index, report = scan(sources)
    assert len(index) == 5 + 5 + 2
    assert sum("!/" in one.path for one in report.findings) == 2
    same(DicomFrames(index), DicomFrames(open_index(sources)))


def test_names_are_labels_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "trap.dcm").write_bytes(b"this must not be read")
    source = (folder / "series" / "001.dcm").read_bytes()
    other = (folder / "series" / "002.dcm").read_bytes()
    names = [
        "../trap.dcm",
        str(tmp_path / "trap.dcm"),
        "a\\b.dcm",
        "x!/y.dcm",
        "ä\n\x1b[31m.dcm",
        "",
    ]
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the duplicate name
            archive.writestr("twice.dcm", other)
            archive.writestr("twice.dcm", source)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in (
            *names[:5],
            "twice.dcm",
            "twice.dcm",
            b"\xff.dcm".decode("utf-8", "surrogateescape"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(source)
            tar.addfile(info, io.BytesIO(source))
    for path in (tmp_path / "a.zip", tmp_path / "a.tar"):
        frames = DicomFrames(path, values="stored", paths=True, duplicates="keep")
        assert len(frames) == 7
        for i in range(len(frames)):
            image, meta = frames[i]
            np.testing.assert_array_equal(image[0].numpy(), ct_pixels(1))
            assert meta["path"].startswith(f"{path}!/")
            assert meta["path"].isprintable()
        (finding,) = [one for one in frames.report.findings if one.reason]
        assert "twice.dcm" in finding.path
        assert "a later member has the same name" in finding.reason


def test_what_is_not_read_is_named(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "stored.zip")
    edited(path, 8, "H", 1, "multi.dcm")
    edited(path, 10, "H", 14, "b/rle.dcm")
    _, report = scan(path)
    reasons = {one.path: one.reason for one in report.findings}
    assert "encrypted" in reasons["stored.zip!/multi.dcm"]
    assert "LZMA" in reasons["stored.zip!/b/rle.dcm"]
    assert report.counts["unreadable"] == 2
    inner = tmp_path / "inner"
    inner.mkdir()
    for kind in KINDS:
        pack(folder, inner / kind)
    (inner / "a.tar.gz").write_bytes(gzip.compress(b"x" * 500))
    _, report = scan(pack(inner, tmp_path / "outer.zip"))
    assert len(report.findings) == 4
    for one in report.findings:
        assert one.reason.startswith("an archive inside an archive")


def test_limits_of_archives(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "deflated.zip")
    limits = {
        "archive_members": (Limits(archive_members=3), 1),
        "archive_bytes": (Limits(archive_bytes=10_000), 5),
        "inflated_bytes": (Limits(inflated_bytes=3000), 1),
    }
    for name, (limit, least) in limits.items():
        _, report = scan(path, limits=limit)
        found = [one.reason for one in report.findings if f"Limits.{name} = " in one.reason]
        assert len(found) >= least
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", bytes(50 << 20))
    _, report = scan(tmp_path / "bomb.zip", limits=Limits(inflated_ratio=100))
    assert "Limits.inflated_ratio = 100" in report.findings[0].reason


def test_a_member_that_is_damaged_is_its_own_fault(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "deflated.zip")
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("series/001.dcm")
    data = bytearray(path.read_bytes())
    at = info.header_offset + 30 + len(info.filename) + info.compress_size - 40
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    frames = DicomFrames(path)
    names = by_name(frames.index)
    bad = names["series/001.dcm", 0]
    for i in range(len(frames)):
        if i == bad:
            with pytest.raises(OSError, match=r"series/001\.dcm.*the archive is damaged"):
                frames[i]
        else:
            frames[i]


@pytest.mark.parametrize("kind", KINDS)
def test_masks_in_archives(tmp_path: Path, kind: str) -> None:
    slices = series(tmp_path / "files")
    contours = [(k, square(2, 8)) for k in range(len(slices))]
    structures(tmp_path / "files" / "structures.dcm", slices, [("organ", contours)])
    plain = DicomFrames(tmp_path / "files", masks=True, labels=["organ"])
    packed = DicomFrames(pack(tmp_path / "files", tmp_path / kind), masks=True, labels=["organ"])
    assert len(plain) == len(packed) == 4
    for i in range(4):
        assert plain[i][1].any()
        assert torch.equal(plain[i][1], packed[i][1])


@pytest.mark.parametrize("command", [["scan"], ["info"], ["verify"], ["doctor"]])
def test_commands_take_archives(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    path = pack(folder, tmp_path / "stored.zip")
    assert main([*command, str(path)]) == 0
    plain = capsys.readouterr().out
    assert command == ["doctor"] or "13" in plain
