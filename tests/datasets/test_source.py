"""From what a user gives a dataset to frames."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset, Subset

from dicomtorch import (
    DicomClips,
    DicomCrops,
    DicomFrames,
    DicomPatches,
    DicomSlides,
    DicomTiles,
    DicomVolumes,
    FrameLoader,
    FrameReader,
    scan,
)
from dicomtorch.errors import OptionError, SourceError, StaleIndexError, UnsupportedError
from dicomtorch.scanner.file import read_file
from tests.support.phantoms import ct, ct_pixels, encapsulated, write, write_series


def test_the_report_says_what_was_read_and_how_long_it_took(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    write_series(folder, 5)
    first = DicomFrames(folder).report
    assert (first.read, first.reused, first.removed) == (5, 0, 0)
    assert first.seconds > 0
    (folder / "001.dcm").unlink()
    write(ct(ct_pixels(9), 9), folder / "009.dcm")
    second = DicomVolumes(folder, on_gap="keep").report
    assert (second.read, second.reused, second.removed) == (1, 4, 1)
    assert second.seconds > 0
    stored = DicomFrames(folder, refresh=False)
    assert (stored.report.read, stored.report.reused) == (0, 5)
    again: DicomFrames = pickle.loads(pickle.dumps(stored))
    assert again.report == stored.report


def test_several_indexes_count_as_one(tmp_path: Path) -> None:
    for name in ("north", "south"):
        write_series(tmp_path / name, 4)
    indexes = [scan(tmp_path / name)[0] for name in ("south", "north")]
    frames = DicomFrames([indexes[0], indexes[1].select([2, 0])], values="stored")
    wanted = [("south", k) for k in range(4)] + [("north", 2), ("north", 0)]
    assert [frames.index.path(i) for i in range(6)] == [
        os.fspath(tmp_path / name / f"{k:03}.dcm") for name, k in wanted
    ]
    for i, (_, k) in enumerate(wanted):
        np.testing.assert_array_equal(frames[i][0][0], ct_pixels(k))
    assert len(DicomVolumes(indexes, on_gap="keep")) >= 1
    mixed: Any = [indexes[0], tmp_path / "north"]
    with pytest.raises(OptionError, match="indexes and other things"):
        DicomFrames(mixed)


def test_a_selection_that_leaves_nothing_is_not_blamed_on_the_files(tmp_path: Path) -> None:
    write_series(tmp_path, 5)
    index, _ = scan(tmp_path)
    with pytest.raises(SourceError, match="left none of 5 frames of the index"):
        DicomFrames(index.filter(Modality="MR"))


def test_a_dataset_or_a_loader_stands_for_its_index(tmp_path: Path) -> None:
    write_series(tmp_path / "series", 6)
    frames = DicomFrames(tmp_path / "series")
    for source in (
        frames,
        DataLoader(frames, batch_size=2),
        FrameLoader(frames, batch_size=2),
        DicomVolumes(frames),
        FrameReader(frames.index),
    ):
        assert DicomFrames(source).index is frames.index
    clips = DicomClips(DataLoader(frames), 1)
    assert len(clips) == 6
    part = Subset(frames, [1, 2, 3])
    assert len(DicomVolumes(part)[0][1]["frames"]) == 3
    assert len(DicomFrames(Subset(part, [2]))) == 1
    assert (
        frames[[3]][1]["SOPInstanceUID"] == DicomFrames(Subset(part, [2]))[[0]][1]["SOPInstanceUID"]
    )
    table = {"SeriesInstanceUID": [frames[0][1]["SeriesInstanceUID"]], "x": [8], "y": [8], "z": [5]}
    assert len(DicomCrops(frames, table, size=(1, 4, 4))) == 1


def test_nothing_of_a_dataset_is_read_to_learn_that_it_is_one(tmp_path: Path) -> None:
    class Other(Dataset[int]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, i: int) -> int:
            raise AssertionError("was read")

    source: Any
    for source in (Other(), DataLoader(Other()), Subset(Other(), [1])):
        with pytest.raises(OptionError, match="Other, which is no dataset of DICOM frames"):
            DicomFrames(source)
    write_series(tmp_path, 4)
    volumes = DicomVolumes(tmp_path)
    with pytest.raises(OptionError, match=r"a part of DicomVolumes.*filter"):
        DicomFrames(Subset(volumes, [0]))
    with pytest.raises(SourceError, match=r"a DicomVolumes; give its index"):
        scan(volumes)  # type: ignore[arg-type]


@pytest.mark.parametrize("tag", [0x00100040, (0x0010, 0x0040), "0010,0040", "(0010,0040)"])
def test_tags_name_attributes_as_keywords_do(tmp_path: Path, tag: Any) -> None:
    write_series(tmp_path, 2)
    assert DicomFrames(tmp_path, tags=[tag])[0][1]["PatientSex"] == "F"
    index, _ = scan(tmp_path, tags=[tag])
    assert DicomFrames(index, tags=[tag, "Modality"])[0][1]["PatientSex"] == "F"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": "x"}, "transform must be a function of the image; got str"),
        ({"tags": "PatientSex"}, r"tags must be a list.*\['PatientSex'\]|tags must be a list"),
        ({"tags": 5}, "tags must be a list"),
        ({"tags": [0x00100041]}, "0x100041 is no tag of the DICOM dictionary"),
        ({"tags": [None]}, "NoneType names no attribute"),
        ({"tags": [1.5]}, "float names no attribute"),
        ({"tags": [True]}, "bool names no attribute"),
        ({"tags": ["9999,0040"]}, "9999,0040 is no tag"),
        ({"cache_bytes": -1}, "cache_bytes must be positive; got -1"),
        ({"on_error": "skip"}, "on_error"),
    ],
)
def test_options_are_checked_before_anything_is_opened(options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DicomFrames("nowhere", **options)


def test_a_path_is_told_to_those_who_ask(tmp_path: Path) -> None:
    first, second = write_series(tmp_path, 2)
    assert "path" not in DicomFrames(tmp_path)[0][1]
    frames = DicomFrames(tmp_path, paths=True)
    assert frames[1][1]["path"] == str(second)
    assert frames[:][1]["path"] == [str(first), str(second)]
    _, meta = next(iter(DataLoader(frames, batch_size=2)))
    assert meta["path"] == [str(first), str(second)]
    assert DicomClips(tmp_path, 1, paths=True)[0][1]["path"] == str(first)
    odd = tmp_path / "odd"
    odd.mkdir()
    name = os.path.join(os.fsencode(odd), b"\xff.dcm")
    os.rename(first, name)
    assert os.fsencode(DicomFrames(odd, paths=True)[0][1]["path"]) == name


def test_tags_that_an_index_lacks_are_read_from_the_files_of_its_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(6):
        write(
            ct(ct_pixels(k), k, XRayTubeCurrent=100 + k, PatientSex="FM"[k % 2]),
            tmp_path / f"{5 - k}.dcm",
        )
    pixels = np.stack([ct_pixels(k) for k in range(4)])
    write(ct(pixels, 9, XRayTubeCurrent=50, PatientSex="O"), tmp_path / "many.dcm")
    index, _ = scan(tmp_path)
    whole, _ = scan(tmp_path, tags=["XRayTubeCurrent", "PatientSex"])
    table = {"InstanceNumber": list(range(1, 11)), "grade": list(range(10))}
    joined = index.join({k: v[:6] + v[9:] for k, v in table.items()}, on="InstanceNumber")
    chosen = [8, 0, 3, 7, 3]
    read: list[bytes] = []

    def recorded(path: bytes, *rest: Any) -> Any:
        read.append(path)
        return read_file(path, *rest)

    monkeypatch.setattr("dicomtorch.scanner.worker.read_file", recorded)
    part = joined.select(chosen)
    frames = DicomFrames(part, tags=["XRayTubeCurrent", 0x00100040, "Modality"])
    assert {os.path.basename(path) for path in read} == {b"0.dcm", b"3.dcm", b"many.dcm"}
    _, meta = frames[:]
    assert (
        meta["XRayTubeCurrent"].tolist() == whole.select(chosen).column("XRayTubeCurrent").tolist()
    )
    assert meta["PatientSex"] == list(whole.select(chosen).column("PatientSex"))
    assert meta["grade"].tolist() == part.column("grade").tolist()
    assert meta["frame"].tolist() == [2, 0, 0, 1, 0]
    read.clear()
    assert (
        DicomFrames(frames, tags=["XRayTubeCurrent"])[:][1]["XRayTubeCurrent"].tolist()
        == meta["XRayTubeCurrent"].tolist()
    )
    assert DicomFrames(frames.index.filter(PatientSex="O"))[0][1]["XRayTubeCurrent"] == 50
    assert read == []
    assert DicomClips(part, 1, tags=["XRayTubeCurrent"])[0][1]["XRayTubeCurrent"] >= 50


def test_tags_are_not_read_from_other_files_than_those_indexed(tmp_path: Path) -> None:
    paths = write_series(tmp_path, 4)
    index, _ = scan(tmp_path)
    write(ct(ct_pixels(9), 9, PatientComments="a longer header"), paths[1])
    assert DicomFrames(index.select([0, 2]), tags=["XRayTubeCurrent"])
    with pytest.raises(
        StaleIndexError, match=r"001\.dcm is not the file that was indexed; refresh"
    ):
        DicomFrames(index, tags=["XRayTubeCurrent"])
    paths[1].unlink()
    with pytest.raises(StaleIndexError, match=r"001\.dcm is not the file"):
        DicomFrames(index, tags=["XRayTubeCurrent"])
    with pytest.raises(OptionError, match="'Nonsense' is no keyword"):
        DicomFrames(index, tags=["Nonsense"])


def test_unsupported_frames_are_named_at_once(tmp_path: Path) -> None:
    """When the dataset is made, before anything is read."""
    write_series(tmp_path, 1)
    dataset = encapsulated(ct(ct_pixels(), 1), [b"\0" * 64], "1.2.840.10008.1.2.4.110")
    write(dataset, tmp_path / "jxl.dcm")
    with pytest.raises(UnsupportedError, match=r"1 of 2 frames cannot be decoded: .*JPEG XL"):
        DicomFrames(tmp_path, backend="pydicom")
    with pytest.warns(UserWarning, match="1 of 2 frames is left out because nothing decodes it"):
        assert len(DicomFrames(tmp_path, backend="pydicom", on_error="replace")) == 1


def test_video_is_in_the_report(tmp_path: Path) -> None:
    write_series(tmp_path, 1)
    dataset = encapsulated(ct(ct_pixels(), 1), [b"\0" * 64], "1.2.840.10008.1.2.4.102")
    write(dataset, tmp_path / "video.dcm")
    frames = DicomFrames(tmp_path)
    assert len(frames) == 1
    (finding,) = [one for one in frames.report.findings if one.reason]
    assert (finding.path, finding.file_class) == ("video.dcm", "unsupported")
    assert "MPEG" in finding.reason


_MADE: dict[type, tuple[Any, ...]] = {
    DicomFrames: (),
    DicomVolumes: (),
    DicomClips: (3,),
    DicomPatches: ((4, 4),),
    DicomCrops: ({"seriesuid": []}, (4, 4, 4)),
    DicomSlides: (),
    DicomTiles: (64,),
}


@pytest.mark.parametrize("dataset", _MADE, ids=lambda dataset: dataset.__name__)
def test_an_unknown_option_is_refused_with_the_nearest_name(tmp_path: Path, dataset: type) -> None:
    write_series(tmp_path, 1)
    for wrong, meant in (("windows", "window"), ("on_eror", "on_error"), ("cachedir", "cache_dir")):
        with pytest.raises(OptionError) as told:
            dataset(tmp_path, *_MADE[dataset], **{wrong: None})
        said = f"{dataset.__name__} has no option {wrong}=; did you mean {meant}=?"
        assert str(told.value) == said
    with pytest.raises(
        OptionError, match=f"{dataset.__name__} has no option zzz=; it has .*values"
    ):
        dataset(tmp_path, *_MADE[dataset], zzz=1)


def test_an_unknown_option_may_be_one_of_another_dataset(tmp_path: Path) -> None:
    write_series(tmp_path, 1)
    options: Any = {"context": 1}
    with pytest.raises(OptionError, match="DicomVolumes has no option context=; DicomFrames has"):
        DicomVolumes(tmp_path, **options)
    options = {"sizes": (4, 4)}
    with pytest.raises(OptionError, match="DicomFrames has no option sizes=; did you mean size="):
        DicomFrames(tmp_path, **options)
    options = {"orientations": "RAS"}  # of the dataset's own
    with pytest.raises(OptionError, match="did you mean orientation="):
        DicomVolumes(tmp_path, **options)


@pytest.mark.parametrize("name", ["exclude", "cache", "cache_dir"])
@pytest.mark.parametrize("given", [["a.dcm"], b"a", 3])
def test_options_that_are_paths_say_what_they_take(tmp_path: Path, name: str, given: Any) -> None:
    write_series(tmp_path, 1)
    options: Any = {name: given}
    with pytest.raises(OptionError, match=f"{name} takes .*; got {type(given).__name__}"):
        DicomFrames(tmp_path, **options)
