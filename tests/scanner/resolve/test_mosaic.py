"""Sheets with all slices of a volume in one frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.scanner.resolve.test_resolver import image, item, resolve
from tests.support.csa import csa_header


def sheet(rows: int, columns: int, kind: str, **values: Any) -> Dataset:
    pixels = bytes(2 * rows * columns)
    return image(
        Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", kind], Rows=rows, Columns=columns,
        ImagePositionPatient=[-100, -90, 10], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[2, 3], SpacingBetweenSlices=4, PixelData=pixels, **values,
    )  # fmt: skip


def siemens(count: int | None, normal: list[float] | None, side: int = 216) -> Dataset:
    dataset = sheet(side, side, "MOSAIC")
    if count is not None:
        block = dataset.private_block(0x19, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0A, "US", count)
    if normal is not None:
        header = csa_header(SliceNormalVector=normal, NumberOfImagesInMosaic=[5])
        dataset.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    return dataset


def places(dataset: Dataset) -> tuple[int, int, Any]:
    found, _, notices = resolve(dataset)
    assert not notices
    assert "ImagePositionPatient" not in found.columns
    rows, columns, *numbers = found.columns["mosaic"].split("\\")
    return int(rows), int(columns), np.array(numbers, float).reshape(-1, 3)


@pytest.mark.parametrize("count", [5, None])
@pytest.mark.parametrize("normal", [[0, 0, 1], [0, 0, -1]])
def test_siemens(count: int | None, normal: list[float]) -> None:
    rows, columns, positions = places(siemens(count, normal))
    assert (rows, columns) == (72, 72)
    # The corner of a tile, whose centre is that of the sheet: 72 columns of 3 mm and 72 rows of 2 mm further.
    first = [-100 + 72 * 3, -90 + 72 * 2, 10]
    expected = [np.add(first, [0, 0, 4 * k * normal[2]]) for k in range(5)]
    np.testing.assert_allclose(positions, expected)


def test_siemens_without_the_names_of_creators() -> None:
    """As programs leave it that remove identifiers: the values stay, and nothing says whose they are."""
    dataset = siemens(None, [0, 0, -1])
    expected = places(siemens(None, [0, 0, -1]))
    header = dataset[0x00291010]
    for tag in [element.tag for element in dataset if element.tag.is_private_creator]:
        del dataset[tag]
    assert header.tag in dataset
    rows, columns, positions = places(dataset)
    assert (rows, columns) == expected[:2]
    np.testing.assert_array_equal(positions, expected[2])


@pytest.mark.parametrize("claimed", [True, False])
def test_what_only_lies_where_a_siemens_header_would(claimed: bool) -> None:
    dataset = siemens(None, None)
    header = csa_header(SliceNormalVector=[0, 0, -1], NumberOfImagesInMosaic=[5])
    if claimed:
        dataset.private_block(0x29, "SOMEBODY ELSE", create=True).add_new(0x10, "OB", header)
    else:
        dataset.add_new(0x00291010, "OB", header[4:])
    found, _, notices = resolve(dataset)
    assert "mosaic" not in found.columns
    assert len(notices) == 1


def test_without_a_stated_normal_it_is_that_of_the_plane() -> None:
    assert places(siemens(5, None))[2][1, 2] == 14


def test_uih() -> None:
    dataset = sheet(256, 320, "VFRAME")
    del dataset.ImagePositionPatient
    block = dataset.private_block(0x65, "Image Private Header", create=True)
    block.add_new(0x50, "DS", "20")
    items = [
        item(ImagePositionPatient=[-1, -2, 4 * k], AcquisitionTime="101112") for k in range(20)
    ]
    block.add_new(0x51, "SQ", Sequence(items))
    rows, columns, positions = places(dataset)
    assert (rows, columns) == (64, 64)
    np.testing.assert_allclose(positions, [[-1, -2, 4 * k] for k in range(20)])
    assert resolve(dataset)[0].columns["AcquisitionTime"] == 10 * 3600 + 11 * 60 + 12


@pytest.mark.parametrize(
    "dataset",
    [siemens(None, None), siemens(5, None, 215), siemens(0, None), sheet(8, 8, "VFRAME")],
)
def test_a_sheet_that_does_not_say_where_its_slices_are(dataset: Dataset) -> None:
    found, _, notices = resolve(dataset)
    assert "mosaic" not in found.columns
    assert "slices lie beside each other" in notices[0]
