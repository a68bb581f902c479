"""`FrameIndex`: building, selecting, storing; the oracle is what was put in."""

from __future__ import annotations

import math
import pickle
import random
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.index import synthetic
from dicomtorch.errors import (
    DicomTorchError,
    FrameIndexError,
    FrameNotFoundError,
    IndexFileError,
    OptionError,
)
from dicomtorch.index import files as index_file
from dicomtorch.index.builder import FileRows, build_part, merge_parts
from dicomtorch.index.columns import Packed, Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.generation import frame_columns
from dicomtorch.model.frame import LookupTable

PIXEL = {
    "TransferSyntaxUID": "1.2.840.10008.1.2.1",
    "Rows": 4,
    "Columns": 5,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "PlanarConfiguration": 0,
    "pixel_data_vr": "OW",
    "SegmentationType": "",
}


def file_rows(name: str, count: int, **columns: object) -> FileRows:
    given = {
        **PIXEL,
        "frame": list(range(count)),
        "offset": [1000 + 40 * k for k in range(count)],
        "length": 40,
        "fragments": 0,
        "bit_offset": 0,
        "SOPInstanceUID": f"1.2.{name}",
        "voi_lut_count": 0,
        **columns,
    }
    return FileRows(
        path=name.encode(),
        size=1000 + 40 * count,
        mtime_ns=17,
        inode=3,
        file_class="image" if count else "no_pixels",
        reason="" if count else "no Pixel Data",
        count=count,
        columns=given if count else {},
    )


@pytest.fixture
def index() -> FrameIndex:
    lut = LookupTable(-2, 16, np.array([0, 5, 65535], np.uint16))
    second = file_rows("b.dcm", 3, PatientID="p2", WindowCenter=[1.0, 2.0, 3.0], WindowWidth=10.0)
    second.columns |= {"voi_lut": [-1, 0, -1], "voi_lut_count": [0, 1, 0]}
    second.lookups.append(lut)
    files = [
        file_rows("c.dcm", 2, PatientID="", StudyInstanceUID="s3", Modality="MR"),
        second,
        file_rows("note.dcm", 0),
        file_rows(
            "a.dcm", 1, PatientID="patient-one", ImagePositionPatient=(1.0, 2.0, 3.0), Modality="CT"
        ),
    ]
    return FrameIndex.build(files, root=b"/data", tags={"PatientSex": "text", "KVP2": "float64"})


def test_files_are_ordered_by_path_and_frames_follow(index: FrameIndex) -> None:
    assert list(index.files["path"]) == [b"a.dcm", b"b.dcm", b"c.dcm", b"note.dcm"]
    assert index.column("frame").tolist() == [0, 0, 1, 2, 0, 1]
    assert [index.path(i) for i in (0, 3, 5)] == ["/data/a.dcm", "/data/b.dcm", "/data/c.dcm"]
    assert np.asarray(index.files["first_row"]).tolist() == [0, 1, 4, -1]


def test_missing_values_are_typed(index: FrameIndex) -> None:
    assert index.column("ImagePositionPatient")[0].tolist() == [1, 2, 3]
    assert np.isnan(index.column("ImagePositionPatient")[1]).all()
    assert index.column("InstanceNumber").tolist() == [-1] * 6
    assert index.column("PatientSex").tolist() == [""] * 6
    assert np.isnan(index.column("KVP2")).all()


def test_patients_without_id_are_told_apart_by_study(index: FrameIndex) -> None:
    assert index.column("patient").tolist() == [0, 1, 1, 1, 2, 2]


def test_frame_values_are_shared_and_right(index: FrameIndex) -> None:
    assert index.frame_values(4) is index.frame_values(5)
    values = index.frame_values(2)
    assert values.windows == ((2.0, 10.0),)
    assert values.pixel.bits_stored == 12
    (lut,) = values.voi_luts
    assert (lut.first_mapped, lut.bits, lut.data.tolist()) == (-2, 16, [0, 5, 65535])
    assert values.padding is None
    assert math.isnan(values.rescale_slope)
    assert index.frame_values(1).voi_luts == ()


def test_selecting(index: FrameIndex) -> None:
    assert len(index.filter(Modality=["CT", "MR"])) == 3
    assert index.filter(Modality="XA").column("frame").tolist() == []
    assert index.filter(frame=0).filter(PatientID="p2").path(0) == "/data/b.dcm"
    assert index.select([-1, 0]).column("frame").tolist() == [1, 0]
    assert index.find(SOPInstanceUID="1.2.b.dcm", frame=1) == 2
    with pytest.raises(FrameNotFoundError, match="3 frames match the SOPInstanceUID"):
        index.find(SOPInstanceUID="1.2.b.dcm")
    with pytest.raises(FrameNotFoundError, match="no frame of 6 matches"):
        index.find(SOPInstanceUID="1")
    with pytest.raises(FrameIndexError, match="frame 6 is outside the index, which has 6"):
        index.row(6)
    with pytest.raises(OptionError, match="did you mean Modality"):
        index.column("modality")


def test_updated_equals_built_anew() -> None:
    names = [f"{k:02d}.dcm" for k in range(12)]
    make = {name: (lambda n=name: file_rows(n, int(n[:2]) % 4, PatientID=n[1])) for name in names}
    for name in names:
        plain = make[name]

        def with_lut(plain: object = plain, name: str = name) -> FileRows:
            rows: FileRows = plain()  # type: ignore[operator]
            if rows.count:
                rows.lookups.append(LookupTable(int(name[:2]), 8, np.arange(3, dtype=np.uint16)))
                rows.columns |= {"voi_lut": 0, "voi_lut_count": 1}
            return rows

        make[name] = with_lut
    chosen = random.Random(3)
    old_names = sorted(chosen.sample(names, 7))
    new_names = sorted(chosen.sample(names, 8))
    old = FrameIndex.build((make[n]() for n in old_names), root=b"/r")
    keep = np.array([n in new_names for n in old_names])
    updated = old.updated(keep, (make[n]() for n in new_names if n not in old_names))
    anew = FrameIndex.build((make[n]() for n in new_names), root=b"/r")
    assert list(updated.files["path"]) == list(anew.files["path"])
    for column in anew.columns:
        if column.name != "voi_lut":
            ours, theirs = updated.column(column.name), anew.column(column.name)
            np.testing.assert_array_equal(np.asarray(list(ours)), np.asarray(list(theirs)))
    for i in range(len(anew)):
        ours, theirs = updated.frame_values(i).voi_luts[0], anew.frame_values(i).voi_luts[0]
        assert ours.first_mapped == theirs.first_mapped


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("selected", [False, True])
def test_pickle_and_save_round_trip(
    index: FrameIndex, tmp_path, stored: bool, selected: bool
) -> None:
    expected = index.select([4, 1]) if selected else index
    copy = expected
    if stored:
        expected.save(tmp_path / "x.index")
        copy = FrameIndex.load(tmp_path / "x.index")
        assert (tmp_path / "x.index").stat().st_mode & 0o777 == 0o700
        with pytest.raises(IndexFileError, match="exists already"):
            index.save(tmp_path / "x.index")
    copy = pickle.loads(pickle.dumps(copy))
    assert copy.uuid == expected.uuid
    assert copy.root == expected.root
    for column in expected.columns:
        ours, theirs = copy.column(column.name), expected.column(column.name)
        np.testing.assert_array_equal(np.asarray(list(ours)), np.asarray(list(theirs)))


def test_a_stored_index_is_plain_arrow(index: FrameIndex, tmp_path) -> None:
    index.save(tmp_path / "x.index")
    with pa.ipc.open_file(tmp_path / "x.index" / "frames.arrow") as reader:
        table = reader.read_all()
    assert table.column("SOPInstanceUID").to_pylist()[1] == "1.2.b.dcm"


@pytest.mark.parametrize("name", ["frames.arrow", "files.arrow", "lookups.arrow", "manifest.json"])
def test_a_damaged_index_is_refused_by_name(index: FrameIndex, tmp_path, name: str) -> None:
    index.save(tmp_path / "x.index")
    path = tmp_path / "x.index" / name
    whole = path.read_bytes()
    chosen = random.Random(5)
    for _ in range(60):
        damaged = bytearray(whole)
        if chosen.random() < 0.3:
            del damaged[chosen.randrange(len(damaged)) :]
        else:
            damaged[chosen.randrange(len(damaged))] ^= 1 << chosen.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(IndexFileError, match="scan again"):
            FrameIndex.load(tmp_path / "x.index")


def test_numbers_that_point_outside_are_refused(index: FrameIndex, tmp_path) -> None:
    # Right CRC, wrong content: what a bug or another program could leave.
    frames = index._generation.frames
    offsets = np.array(frames["offset"])
    offsets[2] += 100
    frames["offset"] = offsets
    index.save(tmp_path / "x.index")
    with pytest.raises(IndexFileError, match="points outside its files"):
        FrameIndex.load(tmp_path / "x.index")


def test_an_empty_index(tmp_path) -> None:
    index = FrameIndex.build([], root=b"/nothing")
    index.save(tmp_path / "x.index")
    copy = FrameIndex.load(tmp_path / "x.index")
    assert len(copy) == 0
    assert copy.image_pixels() == []
    with pytest.raises(DicomTorchError, match="is empty"):
        copy.row(0)


def test_one_frame_is_where_it_is_among_others(index: FrameIndex) -> None:
    for some in (index, index.select(range(len(index) - 1, -1, -1))):
        several = some.locate(range(len(some)))
        assert several == [some.locate([k])[0] for k in range(len(some))]
        assert [list(map(type, each)) for each in several] == [
            list(map(type, some.locate([k])[0])) for k in range(len(some))
        ]


@pytest.mark.parametrize("rows", [[0.5, 1.7], ["1"], np.array([True, False], object)])
def test_only_whole_numbers_select(index: FrameIndex, rows: object) -> None:
    with pytest.raises(OptionError, match="select takes whole numbers, or a boolean array"):
        index.select(rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["4", ["4"], None])
def test_numbers_are_not_compared_with_text(index: FrameIndex, value: object) -> None:
    assert len(index.filter(Rows=4)) == len(index.filter(Rows=[4.0, 5])) == len(index)
    with pytest.raises(OptionError, match="Rows holds numbers and cannot be compared with "):
        index.filter(Rows=value)


def test_an_unknown_column_is_a_sentence(index: FrameIndex) -> None:
    with pytest.raises(OptionError, match=r"no column 'Foo'\. Scan with tags"):
        index.column("Foo")


def test_what_went_leaves_nothing_behind(index: FrameIndex) -> None:
    keep = np.array([path != b"a.dcm" for path in index.files["path"]])
    later = index.updated(keep, [])
    assert later.find(PatientID="p2", frame=1) == 1
    assert sorted(later.column("PatientID").values) == [b"", b"p2"]
    assert b"patient-one" not in b"".join(index_file.serialize(later._generation).values())
    assert later.frame_values(1).voi_luts[0].data.tolist() == [0, 5, 65535]
    keep = np.array([path == b"c.dcm" for path in later.files["path"]])
    assert len(later.updated(keep, []).files["path"]) == 1
    assert len(later.updated(keep, [])._generation.lookups["bits"]) == 0


def test_lookups_that_stay_are_found_by_those_who_need_them() -> None:
    def files(*numbers: int) -> list[FileRows]:
        made = []
        for n in numbers:
            file = file_rows(f"{n}.dcm", 2, palette=0, voi_lut=[3, -1], voi_lut_count=[2, 0])
            file.lookups = [LookupTable(0, 16, np.array([n, k], np.uint16)) for k in range(5)]
            made.append(file)
        return made

    index = FrameIndex.build(files(1, 2, 3), root=b"/data")
    later = index.updated(np.array([False, True, True]), files(4))
    assert len(later._generation.lookups["bits"]) == 15
    for i, n in enumerate((2, 2, 3, 3, 4, 4)):
        values = later.frame_values(i)
        assert [table.data.tolist() for table in values.palette] == [[n, 0], [n, 1], [n, 2]]
        expected = [] if i % 2 else [[n, 3], [n, 4]]
        assert [table.data.tolist() for table in values.voi_luts] == expected


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_a_table_of_some_patients_does_not_name_the_others(
    index: FrameIndex, tmp_path, suffix: str
) -> None:
    path = tmp_path / f"some{suffix}"
    index.filter(PatientID="p2").export(path, deidentified=False)
    assert b"p2" in path.read_bytes()
    assert b"patient-one" not in path.read_bytes()
    table = index.filter(PatientID="p2").table
    assert table.column("PatientID").chunk(0).dictionary.to_pylist() == ["p2"]


def test_many_texts_are_found_at_once() -> None:
    """Comparing each of thousands with each of hundreds of thousands took minutes."""
    texts = Texts.of(f"1.2.840.{k:05}" for k in range(60_000))
    began = time.process_time()
    wanted = [f"1.2.840.{k:05}" for k in range(58_000, 62_000)]
    expected = [*range(58_000, 60_000), *[-1] * 2_000]
    assert texts.codes_of(wanted).tolist() == expected
    assert time.process_time() - began < 2.0
    assert texts.codes_of([]).tolist() == []
    assert (texts.code("1.2.840.59999"), texts.code("1.2.840")) == (59_999, -1)
    assert texts.codes_of(["1.2.840.00007"]).tolist() == [7]
    some = texts.take(np.arange(59_999, -1, -3)).compact()
    assert some.tolist() == [f"1.2.840.{k:05}" for k in range(59_999, -1, -3)]
    assert len(some.values) == 20_000
    short = Texts.of(["", "a"])
    assert [short.codes_of(one).tolist() for one in ([], ["a"], ["b", "", "a"])] == [
        *([], [1], [-1, 0, 1])
    ]


@pytest.mark.parametrize("chosen", [None, [5, 0, 0, 3], []])
def test_a_column_at_positions_is_that_of_these(chosen: list[int] | None) -> None:
    index = FrameIndex(synthetic(6))
    index = index.join({"SOPInstanceUID": [*index.column("SOPInstanceUID")], "label": [*"abcdef"]})
    if chosen is not None:
        index = index.select(np.array(chosen, np.int64))
    for positions in ([], [0, 2, 2, 1], [3]):
        at = np.array(positions if len(index) else [], np.int64)
        for name in (one.name for one in index.columns):
            found, whole = index.column_at(name, at), index.column(name)
            assert type(found) is type(whole), name
            if isinstance(whole, Texts):
                assert found.tolist() == [whole[k] for k in at], name
            elif isinstance(whole, Packed):
                assert list(found) == [whole[k] for k in at], name
            else:
                np.testing.assert_array_equal(found, whole[at], err_msg=name)
                assert found.dtype == whole.dtype, name
                assert found.shape == whole[at].shape, name


@given(st.lists(st.binary(max_size=9)), st.data())
def test_packed_values_are_taken(values: list[bytes], data: st.DataObject) -> None:
    numbers = st.integers(0, len(values) - 1) if values else st.nothing()
    rows = np.array(data.draw(st.lists(numbers)), np.int64)
    taken = Packed.of(values).take(rows)
    assert list(taken) == [values[k] for k in rows]
    some = np.array(
        data.draw(st.lists(st.integers(0, len(rows) - 1) if len(rows) else st.nothing())), np.int64
    )
    assert list(taken.take(some)) == [values[k] for k in rows[some]]
    first = len(values) // 2
    part = Packed(Packed.of(values).offsets[first:], Packed.of(values).data)
    later = rows[rows >= first]
    assert list(part.take(later - first)) == [values[k] for k in later]


def test_building_an_index_leaves_its_parts_as_they_are() -> None:
    part = build_part([file_rows("a.dcm", 1), file_rows("b.dcm", 1)], frame_columns({}))
    names = set(part.frames)
    FrameIndex.build(part, root=b"/data")
    assert set(part.frames) == names
    both = merge_parts([part, build_part([file_rows("c.dcm", 1)], frame_columns({}))])
    assert len(FrameIndex.build(both, root=b"/data")) == 3


def test_a_record_is_the_row_of_a_frame() -> None:
    files = [
        file_rows("a/1.dcm", 2, Modality="CT", PixelSpacing=(0.5, 0.25)),
        file_rows("a/2.dcm", 1, Modality="MR"),
    ]
    index = FrameIndex.build(files, root=b"/data", tags={"PatientSex": "text"})
    index = index.join({"SOPInstanceUID": ["1.2.a/1.dcm", "1.2.a/2.dcm"], "label": [7, -1]}).select(
        [2, 1]
    )
    row = index.record(-1)
    assert list(row) == ["path", *(column.name for column in index.columns)]
    expected = {
        "path": "/data/a/1.dcm",
        "frame": 1,
        "Modality": "CT",
        "PixelSpacing": (0.5, 0.25),
        "PatientSex": "",
        "label": 7,
    }
    assert {name: row[name] for name in expected} == expected
    assert index.record(0)["label"] == -1
    with pytest.raises(FrameIndexError, match="2 frames"):
        index.record(2)
    with pytest.raises(FrameIndexError, match="empty"):
        index.select([]).record(0)


def test_columns_print_as_names_by_kind() -> None:
    index = FrameIndex.build([file_rows("a.dcm", 1)], root=b"/data")
    lines = str(index.columns).splitlines()
    assert repr(index.columns) == str(index.columns)
    assert len(lines) < len(index.columns) / 3
    assert max(map(len, lines)) <= 100
    kind, shown = "", []
    for line in lines:
        kind = line.split()[0] if line[0] != " " else kind
        shown += [(name, kind) for name in line.split()[line[0] != " " :]]
    assert sorted(shown) == sorted((column.name, column.kind) for column in index.columns)
    assert lines[0].split()[:4] == ["int32", "file", "frame", "fragments"]


def test_a_column_prints_its_values_and_is_shown_without() -> None:
    names = ["DOE"] * 3 + ["", *(f"p{k}" for k in range(12))]
    column = Texts.of(names).take(np.arange(len(names)))
    assert repr(column) == "Texts(16 rows, 14 distinct)"
    lines = str(column).splitlines()
    assert lines[:3] == [repr(column), "         3  DOE", "         1  (empty)"]
    assert lines[-1].strip() == "and 4 more"
    assert str(Texts.of([])) == "Texts(0 rows, 0 distinct)"
    # Values that no row has are not shown.
    assert "DOE" not in str(column.take(np.array([3, 4])))
