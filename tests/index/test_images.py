"""Which frames are images to train on, and what is done about repeated instances."""

from __future__ import annotations

import pytest

from dicomtorch.errors import OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.images import is_image
from tests.support.phantoms import file_rows

STORAGE = "1.2.840.10008.5.1.4.1.1."
CASES = [
    ("2", "CT", "ORIGINAL\\PRIMARY\\AXIAL", True),
    ("2", "CT", "ORIGINAL\\PRIMARY\\LOCALIZER", False),
    ("2", "CT", "original\\primary\\ localizer ", False),
    ("2", "CT", "DERIVED\\SECONDARY\\MPR", True),
    ("4", "MR", "", True),
    ("66.4", "SEG", "DERIVED\\PRIMARY", False),
    ("66.7", "SEG", "", False),
    ("481.2", "RTDOSE", "", False),
    ("30", "OT", "DERIVED\\PRIMARY\\VOLUME\\QUANTITY", True),
    ("7", "CT", "DERIVED\\SECONDARY\\\\DOSEINFO", False),
    ("7", "CT", "", False),
    ("7", "NM", "DERIVED\\PRIMARY\\WHOLE BODY\\EMISSION", True),
    ("7.3", "CT", "ORIGINAL\\PRIMARY\\AXIAL", True),
    ("7", "CR", "", True),
    ("7", "OT", "DERIVED\\SECONDARY", True),
    ("2", "CT", "DERIVED\\SECONDARY\\SCREEN SAVE", False),
    ("77.1.6", "SM", "ORIGINAL\\PRIMARY\\VOLUME\\NONE", True),
    ("77.1.6", "SM", "ORIGINAL\\PRIMARY\\LABEL\\NONE", False),
    ("77.1.6", "SM", "ORIGINAL\\PRIMARY\\OVERVIEW\\NONE", False),
    ("6.1", "US", "DERIVED\\PRIMARY\\\\0001", True),
]


@pytest.mark.parametrize(("sop_class", "modality", "image_type", "expected"), CASES)
def test_is_image(sop_class: str, modality: str, image_type: str, expected: bool) -> None:
    assert is_image(STORAGE + sop_class, modality, image_type) is expected


def build(uids: list[str] | None = None) -> FrameIndex:
    return FrameIndex.build(
        (
            file_rows(
                f"{n:03d}.dcm",
                n,
                2,
                SOPClassUID=STORAGE + sop_class,
                Modality=modality,
                ImageType=image_type,
                SOPInstanceUID=uids[n] if uids else f"1.{n}",
            )
            for n, (sop_class, modality, image_type, _) in enumerate(CASES)
        ),
        root=b"/data",
    )


def test_images_are_those_in_their_order() -> None:
    expected = [n for n, case in enumerate(CASES) if case[3] for _ in range(2)]
    images = build().images()
    assert images.column("file").tolist() == expected
    assert len(images.images()) == len(images)


def test_repeated_instances() -> None:
    uids = [f"1.{n % 15}" for n in range(20)]
    uids[0] = uids[1] = ""
    index = build(uids)
    repeated = [17, 18, 19]  # those of 15 and 16 have none before them
    assert index.column("file")[index.repeated()].tolist() == [n for n in repeated for _ in (0, 1)]
    assert index.report().duplicates == 3
    first = index.deduplicate("first")
    assert len(first) == 34
    assert first.deduplicate("raise") is first
    assert index.deduplicate("keep") is index
    assert len(index.images(duplicates="first")) == len(first.images())
    # In a selection the first is the first of those selected.
    assert index.select([39, 8]).deduplicate().column("file").tolist() == [19]
    with pytest.raises(
        OptionError, match="3 files have the SOPInstanceUID of an earlier one, /data/017"
    ):
        index.deduplicate("raise")
    with pytest.raises(OptionError, match='"keep", "first" or "raise"'):
        index.deduplicate("last")  # type: ignore[arg-type]


def test_a_thumbnail_of_a_slide_is_no_image() -> None:
    assert not is_image(f"{STORAGE}77.1.6", "SM", "DERIVED\\PRIMARY\\THUMBNAIL\\RESAMPLED")
