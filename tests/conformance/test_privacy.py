"""Whose files they are: UIDs that are hashed, attributes that identify, paths that are kept out, what is removed."""

from __future__ import annotations

import ast
import logging
import os
import pickle
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from pydicom.datadict import dictionary_has_tag
from torch.utils.data import DataLoader

import dicomtorch
from dicomtorch import DicomClips, DicomFrames, DicomVolumes, FrameIndex, scan
from dicomtorch.batches.metadata import DEFAULT_KEYS
from dicomtorch.cli import main as cli
from dicomtorch.errors import DicomTorchError, OptionError, printable
from dicomtorch.index.exports import HASHED
from dicomtorch.index.locks import FileLock
from dicomtorch.index.purge import kept_of, remove
from dicomtorch.index.quarantine import write_quarantine
from dicomtorch.model.identifiers import PROFILE, action_for, action_of
from dicomtorch.pictures import plot
from tests.support.archives import pack
from tests.support.http_server import http_server
from tests.support.phantoms import ct, ct_pixels, encapsulated, write, write_series

UIDS = {"SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"}
SALT = b"a secret of this hospital"


def real_uids(index: FrameIndex) -> set[str]:
    return {uid for name in UIDS for uid in index.gather(name, np.arange(len(index)))}


# --- UIDs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def series(tmp_path: Path) -> Path:
    root = tmp_path / "series"
    write_series(root, 4)
    return root


def test_hashed_uids_are_those_of_the_export(series: Path, tmp_path: Path) -> None:
    frames = DicomFrames(series, uids="hash", salt=SALT, tags=["FrameOfReferenceUID"])
    frames.index.export(tmp_path / "table.parquet", salt=SALT)
    table = parquet.read_table(tmp_path / "table.parquet").to_pydict()
    real = real_uids(frames.index)
    for i in range(len(frames)):
        meta = frames[i][1]
        for name in UIDS:
            assert meta[name] == table[name][i]
            assert meta[name].startswith("2.25.")
        assert not any(uid in repr(meta) for uid in real)


@pytest.mark.parametrize("kind", [DicomFrames, DicomVolumes, DicomClips])
def test_no_sample_has_a_real_uid(series: Path, kind: Any) -> None:
    arguments = (1,) if kind is DicomClips else ()
    data = kind(series, *arguments, uids="hash")
    plain = kind(series, *arguments)
    real = real_uids(plain.index)
    assert any(uid in repr(plain[0][1]) for uid in real)
    for i in range(len(data)):
        assert not any(uid in repr(data[i][1]) for uid in real)


def test_workers_hash_alike_and_other_salts_otherwise(series: Path) -> None:
    frames = DicomFrames(series, uids="hash")
    expected = [frames[i][1]["SOPInstanceUID"] for i in range(4)]
    loader = DataLoader(frames, batch_size=2, num_workers=2)
    found = [uid for _, meta in loader for uid in meta["SOPInstanceUID"]]
    assert found == expected
    again = pickle.loads(pickle.dumps(frames))
    assert again[0][1]["SOPInstanceUID"] == expected[0]
    assert DicomFrames(series, uids="hash")[0][1]["SOPInstanceUID"] != expected[0]


def test_options_that_mean_nothing(series: Path) -> None:
    with pytest.raises(OptionError, match='uids must be "real" or "hash"'):
        DicomFrames(series, uids="none")  # type: ignore[call-overload]
    with pytest.raises(OptionError, match="salt must be bytes"):
        DicomFrames(series, salt=SALT)
    with pytest.raises(OptionError, match="salt must be bytes"):
        DicomFrames(series, uids="hash", salt="text")  # type: ignore[call-overload]


# --- Attributes that identify -----------------------------------------------------------------------------------------

OF_THE_TABLE = {
    # Keyword -> action, as another extract of the same table (edition 2025a) has them.
    "AccessionNumber": "Z",
    "AcquisitionComments": "X",
    "AcquisitionContextSequence": "X/Z",
    "AcquisitionDate": "X/Z",
    "AcquisitionDateTime": "X/Z/D",
    "AcquisitionDeviceProcessingDescription": "X/D",
    "AcquisitionFieldOfViewLabel": "D",
    "AcquisitionProtocolDescription": "X",
    "AdditionalPatientHistory": "X",
    "AdmissionID": "X",
    "BarcodeValue": "X/Z",
    "BeamDescription": "X",
    "CassetteID": "X",
    "ClinicalTrialProtocolEthicsCommitteeName": "D",
    "ClinicalTrialProtocolName": "Z",
    "ConcatenationUID": "U",
    "ConceptualVolumeDescription": "Z",
    "ConsultingPhysicianName": "Z",
    "ContainerIdentifier": "D",
    "ContentCreatorName": "Z/D",
    "ContentDate": "Z/D",
    "ContrastBolusAgent": "Z/D",
    "DetectorID": "X/D",
    "DeviceSerialNumber": "X/Z/D",
    "DeviceUID": "U",
    "DigitalSignatureUID": "U",
    "DimensionOrganizationUID": "U",
    "DoseReferenceDescription": "X",
}


def test_the_profile_is_that_of_the_standard() -> None:
    assert len(PROFILE) == 652
    assert {keyword: action_of(keyword) for keyword in OF_THE_TABLE} == OF_THE_TABLE
    known = [tag for tag in PROFILE if dictionary_has_tag(tag)]
    assert len(known) > 0.9 * len(PROFILE)  # pydicom's dictionary is of an earlier edition
    for tag, action in (
        (0x00091001, "X"),  # private
        (0x50020010, "X"),  # curve
        (0x60023000, "X"),  # overlay
        (0x60020010, ""),  # its rows
        (0x00280010, ""),
        (0x00080060, ""),
    ):
        assert action_for(tag) == action
    assert action_of("0010,0010") == ""
    assert action_of("00100010") == "Z"
    assert action_of("nodule01") == ""


def test_samples_have_three_of_them_unasked() -> None:
    assert {key for key in DEFAULT_KEYS if action_of(key)} == UIDS
    assert all("U" in action_of(name) for name in HASHED)


def test_identifiers_says_which_tags_they_are(series: Path) -> None:
    frames = DicomFrames(series, tags=["PatientSex", "KVP", "StudyDescription"])
    assert frames.identifiers == {
        **dict.fromkeys(UIDS, "U"),
        "PatientSex": "Z",
        "StudyDescription": "X",
    }
    hashed = DicomFrames(series, tags=["PatientSex", "FrameOfReferenceUID"], uids="hash")
    assert hashed.identifiers == {"PatientSex": "Z"}
    index = frames.index.join(
        {"InstanceNumber": [1, 2, 3, 4], "PatientWeight": [70] * 4}, on="InstanceNumber"
    )
    assert DicomVolumes(index, uids="hash").identifiers == {"PatientWeight": "X"}


# --- Paths ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def doe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files below a folder with a name, of which some are damaged, while paths are kept out."""
    root = tmp_path / "Doe^Jane"
    write_series(root / "Roe^Mary", 3)
    write(encapsulated(ct(ct_pixels(), 9), [b"\0" * 64]), root / "Roe^Mary" / "Poe^Ann.dcm")
    cut = root / "Roe^Mary" / "Coe^Sue.dcm"
    cut.write_bytes((root / "Roe^Mary" / "000.dcm").read_bytes()[:600])
    (root / "Noe^Eve.dcm").mkdir()
    monkeypatch.setenv("DICOMTORCH_REDACT", "1")
    return root


NAMES = ("Doe^Jane", "Roe^Mary", "Poe^Ann", "Coe^Sue", "Noe^Eve")


def named(text: str) -> list[str]:
    return [name for name in NAMES if name in text]


def test_a_path_has_one_way_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printable(b"Doe^Jane/1.dcm") == "Doe^Jane/1.dcm"
    for value, hidden in (("1", True), ("yes", True), ("0", False), ("", False)):
        monkeypatch.setenv("DICOMTORCH_REDACT", value)
        assert ("Doe" not in printable("Doe^Jane/1.dcm")) == hidden
    monkeypatch.setenv("DICOMTORCH_REDACT", "1")
    assert printable("Doe^Jane/1.dcm") == printable(b"Doe^Jane/1.dcm")
    assert printable("Doe^Jane/1.dcm") != printable("Doe^Jane/2.dcm")


@pytest.mark.parametrize("command", ["scan", "info", "series", "doctor", "verify"])
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["", "json"])
def test_commands_keep_paths_out(
    doe: Path, capfd: pytest.CaptureFixture[str], command: str, options: list[str]
) -> None:
    assert cli.main([command, str(doe), *options]) in (0, 1)
    output = capfd.readouterr()
    assert len(output.out) > 50
    assert named(output.out + output.err) == []


def test_errors_of_commands_say_all_but_the_path(
    doe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["scan", str(doe / "nowhere")]) == 2
    said = capfd.readouterr().err
    assert named(said) == []
    assert "<file " in said
    assert "name a folder or file that exists" in said


def test_tracebacks_logs_and_warnings_keep_paths_out(
    doe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    index = scan(doe)[0]
    frames = DicomFrames(index, on_error="replace")
    bad = next(i for i in range(len(index)) if index.path(i).endswith("Poe^Ann.dcm"))
    good = next(i for i in range(len(index)) if index.path(i).endswith("000.dcm"))

    def gone() -> None:
        os.unlink(index.path(good))
        DicomFrames(index)[good]

    def truncated() -> None:
        os.truncate(index.path((good + 1) % len(index)), 700)
        for i in range(len(index)):
            DicomFrames(index, backend="pydicom")[i]

    calls: list[Any] = [
        lambda: DicomFrames(index)[bad],
        lambda: frames[bad],
        lambda: list(DataLoader(DicomFrames(index), batch_size=1, num_workers=1)),
        gone,
        truncated,
        lambda: DicomFrames(doe / "Noe^Eve.dcm"),
        lambda: DicomFrames(doe / "nothing^here"),
        lambda: FrameIndex.load(doe),
        lambda: index.save(doe),
        lambda: index.moved(doe / "Roe^Mary"),
        lambda: DicomFrames(index, exclude=doe / "Doe^Jane"),
        lambda: DicomFrames(index, cache=doe / "Roe^Mary" / "001.dcm"),
        lambda: DicomFrames(doe, cache_dir=doe / "Roe^Mary" / "001.dcm"),
        lambda: index.export(doe / "nowhere" / "Poe^Ann.csv"),
        lambda: index.save(doe / "Roe^Mary" / "001.dcm" / "index"),
        lambda: index.write(doe / "Roe^Mary" / "001.dcm" / "shards"),
        lambda: write_quarantine(doe / "nowhere" / "Poe^Ann.json", index, []),
        lambda: plot.write(doe / "Roe^Mary" / "001.dcm" / "a.png", lambda file, kind: None),
    ]
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for call in calls:
            try:
                call()
            except (DicomTorchError, OSError) as error:
                said.append(own_words(error))
    said += [str(one.message) for one in caught]
    assert len(said) > 14
    assert [text for text in (*said, caplog.text) if named(text)] == []


def test_no_message_has_a_path_that_did_not_go_that_way() -> None:
    """Attributes that hold paths, in strings that have blanks and so are words."""
    found = []
    for file in sorted(Path(dicomtorch.__file__).parent.rglob("*.py")):
        strings = [
            node
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.JoinedStr)
        ]
        for string in strings:
            text = "".join(
                str(part.value) for part in string.values if isinstance(part, ast.Constant)
            )
            for part in string.values:
                named = part.value if isinstance(part, ast.FormattedValue) else None
                is_path = isinstance(named, ast.Attribute) and named.attr in _PATHS
                if is_path and " " in text:
                    found.append(f"{file.name}:{string.lineno}: {ast.unparse(string)[:80]}")
    assert found == []


_PATHS = ("path", "folder", "root", "base", "parent", "filename")


def own_words(error: BaseException) -> str:
    """A traceback without the lines of this file, which name the folders."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(line for line in lines if not line.startswith("    "))


ENCODED = (*NAMES, *(name.replace("^", "%5E") for name in NAMES))


def test_addresses_and_members_of_archives_are_kept_out(
    doe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    archive = pack(doe, tmp_path / "Doe^Jane.zip")
    said = []
    with http_server(tmp_path) as address:
        for place in (f"{address}/Doe%5EJane", f"{address}/Doe%5EJane.zip", str(archive)):
            for command in ("scan", "doctor"):
                assert cli.main([command, place]) in (0, 1)
            frames = DicomFrames(place, on_error="replace")
            said += [repr(frames), frames._repr_html_(), repr(frames.report), repr(frames.index)]
            bad = next(i for i in range(len(frames)) if "Poe" in frames.index.path(i))
            for call in (
                lambda frames=frames, bad=bad: DicomFrames(frames.index)[bad],
                lambda place=place: DicomFrames(f"{place}/nowhere^there"),
            ):
                with pytest.raises(DicomTorchError) as caught:
                    call()
                said.append(own_words(caught.value))
    said += [*capfd.readouterr(), caplog.text]
    assert [text for text in said if any(name in text for name in ENCODED)] == []


def test_what_is_asked_for_has_its_path(doe: Path, tmp_path: Path) -> None:
    frames = DicomFrames(doe, paths=True, backend="imagecodecs")
    assert named(frames[1][1]["path"])
    frames.index.export(tmp_path / "all.csv", deidentified=False)
    assert named((tmp_path / "all.csv").read_text())


# --- What is kept, and removing it ------------------------------------------------------------------------------------


def test_purge_removes_what_is_kept(series: Path, tmp_path: Path, capsys: Any) -> None:
    kept, cache = tmp_path / "kept", tmp_path / "cache"
    other = tmp_path / "other"
    write_series(other, 2)
    write(encapsulated(ct(ct_pixels(), 9), [stream_of()]), series / "j2k.dcm")
    frames = DicomFrames(series, cache_dir=kept, cache=cache)
    for i in range(len(frames)):
        frames[i]
    DicomFrames([series / "000.dcm", series / "001.dcm"], cache_dir=kept)
    DicomFrames(other, cache_dir=kept)
    folders = set((kept / "indexes").iterdir())
    assert len(folders) == 3
    assert list((cache / "frames").rglob("*"))
    arguments = ["purge", str(series), "--cache-dir", str(kept), "--cache", str(cache)]
    assert cli.main([*arguments, "--dry-run"]) == 0
    assert set((kept / "indexes").iterdir()) == folders
    capsys.readouterr()
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.count("index: ") == 2
    (left,) = (kept / "indexes").iterdir()
    assert not (cache / "frames").exists()
    assert len(DicomFrames(other, cache_dir=kept, refresh=False)) == 2
    assert len(frames.index.table) == 5  # what is open stays open
    assert cli.main(arguments) == 0
    assert "nothing is kept" in capsys.readouterr().out
    assert b"patient-1" not in b"".join(
        path.read_bytes() for path in kept.rglob("*") if path.is_file() and left not in path.parents
    )


def stream_of() -> bytes:
    codecs = pytest.importorskip("imagecodecs")
    return bytes(codecs.jpeg2k_encode(ct_pixels(), level=0, codecformat="j2k"))


def test_purge_of_a_server_removes_its_indexes_and_encoded_frames(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, ranges = tmp_path / "kept", tmp_path / "ranges"
    write_series(series / "more", 2)
    with http_server(series) as address:
        for place in (f"{address}/more/", address):
            frames = DicomFrames(
                place, cache_dir=kept, storage_options={"range_cache": str(ranges)}
            )
            frames[0]
    folders = list((kept / "indexes").iterdir())
    assert len(folders) == 2
    assert list(ranges.rglob("*.frame"))
    arguments = ["--cache-dir", str(kept), "--cache", str(ranges)]
    assert cli.main(["purge", f"{address}/others", "--cache-dir", str(kept), "--dry-run"]) == 0
    assert capsys.readouterr().out.count("index: ") == 1  # that of the place around it
    assert cli.main(["purge", f"{address}/more?signature=secret", *arguments]) == 0
    said = capsys.readouterr().out
    assert (said.count("index: "), said.count("encoded frames: ")) == (2, 1)
    assert "secret" not in said
    assert not [path for path in (*kept.rglob("*"), *ranges.rglob("*")) if path.is_file()]


def test_purge_finds_indexes_of_folders_above_and_below(series: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    DicomFrames(tmp_path, cache_dir=kept)
    DicomFrames(series, cache_dir=kept)
    assert len(kept_of(series, kept)) == 2
    assert len(kept_of(tmp_path, kept)) == 2
    assert len(kept_of(series / "000.dcm", kept)) == 2
    assert kept_of(tmp_path / "ser", kept)[0].kind == "index"  # that of the folder around it
    assert len(kept_of(tmp_path / "ser", kept)) == 1
    assert kept_of(series, tmp_path / "nowhere") == []
    for manifest in kept.rglob("manifest.json"):
        manifest.write_bytes(b"damaged")
    assert len(kept_of(tmp_path / "ser", kept)) == 2


def test_purge_leaves_what_a_scan_is_at(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomtorch.index.purge._LOCK_SECONDS", 0.1)
    DicomFrames(series, cache_dir=tmp_path / "kept")
    found = kept_of(series, tmp_path / "kept")
    with (
        FileLock(found[0].folder / "lock"),
        pytest.raises(OptionError, match="in use by a scan"),
    ):
        remove(found)
    assert found[0].folder.exists()
    remove(found)
    assert not found[0].folder.exists()
