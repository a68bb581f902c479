"""b-values and gradient directions, standard and private."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomtorch import scan
from tests.scanner.resolve.test_resolver import columns, image, item, per_frame, shared
from tests.support.csa import csa_header
from tests.support.phantoms import ct, ct_pixels, write

TILTED = [1, 0, 0, 0, math.cos(0.2), math.sin(0.2)]
ROW, COLUMN = np.array(TILTED).reshape(2, 3)
NORMAL = np.cross(ROW, COLUMN)
ORIENTATION = "DiffusionGradientOrientation"


def private(dataset: Dataset, *elements: tuple[int, int, str, str, Any]) -> Dataset:
    for group, element, creator, vr, value in elements:
        dataset.private_block(group, creator, create=True).add_new(element, vr, value)
    return dataset


def siemens(b: int, direction: list[float] | None) -> list[tuple[int, int, str, str, Any]]:
    creator = "SIEMENS MR HEADER"
    found: list[tuple[int, int, str, str, Any]] = [(0x19, 0x0C, creator, "IS", b)]
    return [*found, (0x19, 0x0E, creator, "FD", direction)] if direction else found


def ge(b: str, x: float, y: float, z: float) -> list[tuple[int, int, str, str, Any]]:
    names = zip((0xBB, 0xBC, 0xBD), (x, y, z), strict=True)
    return [
        (0x43, 0x39, "GEMS_PARM_01", "IS", [b, "8", "0", "0"]),
        *((0x19, element, "GEMS_ACQU_01", "DS", value) for element, value in names),
    ]


def philips(b: float, *parts: float) -> list[tuple[int, int, str, str, Any]]:
    creator = "Philips MR Imaging DD 001"
    return [
        (0x2001, 0x03, "Philips Imaging DD 001", "FL", b),
        *((0x2005, 0xB0 + k, creator, "FL", part) for k, part in enumerate(parts)),
    ]


def mr(*elements: tuple[int, int, str, str, Any], **values: Any) -> dict[str, Any]:
    return columns(
        private(image(Modality="MR", ImageOrientationPatient=TILTED, **values), *elements)
    )


def test_siemens() -> None:
    found = mr(*siemens(800, [0.6, 0, 0.8]))
    assert (found["DiffusionBValue"], found[ORIENTATION]) == (800, (0.6, 0, 0.8))
    assert found["diffusion_source"] == "SIEMENS"
    found = mr(*siemens(0, None))
    assert found["DiffusionBValue"] == 0
    assert ORIENTATION not in found


def test_siemens_without_its_own_elements() -> None:
    header = csa_header(B_value=[700], DiffusionGradientDirection=[0, 1, 0])
    found = mr((0x29, 0x10, "SIEMENS CSA HEADER", "OB", header))
    assert (found["DiffusionBValue"], found[ORIENTATION]) == (700, (0, 1, 0))


@pytest.mark.parametrize(
    ("encoding", "axes"), [("COL", (-ROW, -COLUMN, NORMAL)), ("ROW", (COLUMN, -ROW, NORMAL))]
)
def test_ge_gives_components_along_the_image(encoding: str, axes: Any) -> None:
    parts = (0.2, 0.5, math.sqrt(1 - 0.29))
    found = mr(*ge("1000001000", *parts), InPlanePhaseEncodingDirection=encoding)
    assert found["DiffusionBValue"] == 1000
    np.testing.assert_allclose(
        found[ORIENTATION], sum(p * a for p, a in zip(parts, axes, strict=True)), atol=1e-6
    )
    assert found["diffusion_source"] == "GE"
    # Nothing is said of a direction that would be a guess.
    assert ORIENTATION not in mr(*ge("1000", *parts))
    assert ORIENTATION not in mr(*ge("0", 0, 0, 0), InPlanePhaseEncodingDirection=encoding)


def test_philips() -> None:
    found = mr(*philips(1000.0, 0, -1, 0))
    assert (found["DiffusionBValue"], found[ORIENTATION]) == (1000, (0, -1, 0))
    assert found["diffusion_source"] == "Philips"
    assert ORIENTATION not in mr(*philips(0.0, 0, 0, 0))


def test_standard_attributes_are_taken_first() -> None:
    found = mr(
        *siemens(800, [0.6, 0, 0.8]), DiffusionBValue=750, DiffusionGradientOrientation=[0, 0, 1]
    )
    assert (found["DiffusionBValue"], found[ORIENTATION]) == (750, (0, 0, 1))
    assert "diffusion_source" not in found
    found = mr(*siemens(800, [0.6, 0, 0.8]), DiffusionBValue=750)
    assert (found["DiffusionBValue"], found[ORIENTATION]) == (750, (0.6, 0, 0.8))


def test_another_creator_has_other_elements_under_the_numbers() -> None:
    found = mr((0x19, 0x0C, "SOMEBODY ELSE", "IS", 800))
    assert "DiffusionBValue" not in found


def test_functional_groups() -> None:
    def macro(b: float, direction: list[float] | None) -> dict[str, Any]:
        items = [] if direction is None else [item(DiffusionGradientOrientation=direction)]
        return {"DiffusionBValue": b, "DiffusionGradientDirectionSequence": items}

    dataset = image(3, Modality="MR")
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        MRDiffusionSequence=[macro(0, None), macro(1000, [1, 0, 0]), macro(1000, [0, 1, 0])]
    )
    found = columns(dataset)
    assert found["DiffusionBValue"] == [0, 1000, 1000]
    np.testing.assert_array_equal(found[ORIENTATION], [[math.nan] * 3, [1, 0, 0], [0, 1, 0]])
    dataset = image(2, Modality="MR")
    dataset.SharedFunctionalGroupsSequence = shared(MRDiffusionSequence=macro(500, [0, 0, 1]))
    assert columns(dataset)[ORIENTATION] == (0, 0, 1)


def test_images_of_a_series_keep_their_own(tmp_path: Path) -> None:
    """What only private elements tell is not taken from the image before."""
    given: list[tuple[int, list[float] | None]] = [
        (0, None), (800, [0.6, 0, 0.8]), (800, [0, 1, 0]), (0, None), (400, [0, 0, 1]),
    ]  # fmt: skip
    for k, (b, direction) in enumerate(given):
        dataset = ct(ct_pixels(k), k, Modality="MR")
        write(private(dataset, *siemens(b, direction)), tmp_path / f"{k}.dcm")
    index, _ = scan(tmp_path)
    assert list(index.column("DiffusionBValue")) == [b for b, _ in given]
    np.testing.assert_array_equal(
        index.column(ORIENTATION), [direction or [math.nan] * 3 for _, direction in given]
    )
