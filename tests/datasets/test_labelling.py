"""What `masks=` may be: one file for each series, of several kinds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from dicomtorch import DicomFrames, MaskIndex, read_annotations, scan
from dicomtorch.errors import OptionError, SourceError
from dicomtorch.storage import choose
from tests.support.mask_phantoms import segmentation, series, structures
from tests.support.requirements import require
from tests.support.servers import s3_server

SERIES = ("1.2.3.1", "1.2.3.2")


def nifti(path, volume):
    """A file on the grid of `series`: slices from z = 0 upwards, 2 mm apart, pixels of 1 mm."""
    import nibabel

    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), affine), path)
    return path


@pytest.fixture
def case(tmp_path):
    """(folder of two series, their slices, a block, elsewhere)."""
    folder = tmp_path / "ct"
    slices = [
        series(
            folder / uid[-1], 3, SeriesInstanceUID=uid, SOPInstanceUID=lambda k, u=uid: f"{u}.{k}"
        )
        for uid in SERIES
    ]
    block = np.zeros((3, 12, 16), np.uint8)
    block[1, 2:6, 3:9] = 1
    return folder, slices, block, tmp_path


def areas(frames):
    uids = frames.index.column("SeriesInstanceUID").tolist()
    counts = frames.masks.areas()[:, 0]
    return {uid: int(counts[[k for k, u in enumerate(uids) if u == uid]].sum()) for uid in SERIES}


def test_nifti_and_dicom_masks_in_one_dataset(case):
    require("nibabel")
    folder, slices, block, root = case
    files = {
        SERIES[0]: nifti(root / "a.nii.gz", block),
        SERIES[1]: segmentation(
            root / "b.dcm", slices[1], [(1, 1, block[1, :, ::-1])], names=["Liver"]
        ),
    }
    frames = DicomFrames(folder, masks=files, labels={"liver": 1})
    assert areas(frames) == dict.fromkeys(SERIES, 24)
    for k in range(len(frames)):
        _, mask, meta = frames[k]
        is_second = meta["SeriesInstanceUID"] == SERIES[1]
        number = k % 3
        expected = block[number, :, ::-1] if is_second else block[number]
        np.testing.assert_array_equal(mask[0], expected)
        assert meta["mask_known"] == (1,)


def test_a_dicom_file_for_another_series_is_refused(case):
    folder, slices, block, root = case
    path = segmentation(
        root / "b.dcm",
        slices[1],
        [(1, 1, block[1])],
        names=["liver"],
        references=[1],
        ReferencedSeriesSequence=[],
    )
    with pytest.raises(OptionError, match="1 of 1 DICOM files give no label for the series"):
        DicomFrames(folder, masks={SERIES[0]: path}, labels={"liver": 1}, unlabelled="zero")


def test_a_file_and_an_object_for_one_series_are_told(case):
    require("nibabel")
    folder, slices, block, root = case
    grid = nifti(root / "a.nii.gz", block)
    structures(root / "b.dcm", slices[0], [("liver", [(2, [(1, 1), (4, 1), (4, 4), (1, 4)])])])
    index, objects = scan(folder)[0], scan(root / "b.dcm")[0]
    with pytest.raises(OptionError, match=r'give the label 1 for one series; .*choose="all"'):
        MaskIndex(index, objects, files={SERIES[0]: grid}, labels={"liver": 1})
    both = MaskIndex(index, objects, files={SERIES[0]: grid}, labels={"liver": 1}, choose="all")
    assert both.areas().sum() == 24 + 16


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (7, OptionError, "masks must be True"),
        ("absent.csv", SourceError, "there is no file"),
        ({"series": ["1"], "file_name": ["a"]}, OptionError, "needs xmin"),
    ],
)
def test_what_is_no_source_of_masks(case, given, error, message):
    with pytest.raises(error, match=message):
        DicomFrames(case[0], masks=given)


def test_masks_of_another_bucket_are_asked_for_with_the_same_options(case, monkeypatch):
    """No credentials are in the environment, so that without the options nothing would be given."""
    require("obstore")
    require("moto")
    folder, slices, block, root = case
    segmentation(root / "masks" / "b.dcm", slices[1], [(1, 1, block[1, :, ::-1])], names=["Liver"])
    monkeypatch.setattr(choose, "_of_place", {})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with s3_server() as s3:
        for bucket, tree in (("images-here", folder), ("masks-there", root / "masks")):
            s3.client.create_bucket(Bucket=bucket)
            s3.put_tree(bucket, tree, "x/")
        options = {"storage_options": s3.options, "cache_dir": root / "cache", "unlabelled": "zero"}
        expected = areas(DicomFrames(folder, masks=root / "masks", unlabelled="zero"))
        assert expected[SERIES[1]] == 24
        address = "s3://masks-there/x"
        assert areas(DicomFrames("s3://images-here/x", masks=address, **options)) == expected
        files = {SERIES[1]: f"{address}/b.dcm"}
        choose._of_place.clear()
        frames = DicomFrames("s3://images-here/x", masks=files, **options)
        assert areas(frames) == {SERIES[0]: 0, SERIES[1]: 24}
        with pytest.raises(SourceError, match="cannot be opened"):
            DicomFrames(frames.index, boxes="s3://masks-there/nothing", storage_options=s3.options)
        choose._of_place.clear()
        assert read_annotations(address, storage_options=s3.options).num_rows == 0
        # Options of a bucket mean nothing for files of this machine.
        local = DicomFrames("s3://images-here/x", masks=root / "masks", **options)
        assert areas(local) == expected
