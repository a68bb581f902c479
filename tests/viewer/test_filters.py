from __future__ import annotations

import numpy as np
import pytest

from dicomtorch import scan
from dicomtorch.errors import OptionError
from dicomtorch.viewer.filters import matching
from tests.support.phantoms import ct, ct_pixels, write


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    for k in range(6):
        more = {"Modality": "MR" if k % 2 else "CT", "ConvolutionKernel": f"B{k}0f soft"}
        write(ct(ct_pixels(k), k, SliceThickness=k + 0.5, **more), folder / f"{k}.dcm")
    found, _ = scan(folder)
    return found.join(
        {"SOPInstanceUID": list(found.column("SOPInstanceUID")), "the label": [0, 1, 2] * 2}
    )


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("Modality=CT", lambda i: np.asarray(i.column("Modality") == "CT")),
        ("modality != CT", lambda i: np.asarray(i.column("Modality") == "MR")),
        ("SliceThickness<2.5", lambda i: i.column("SliceThickness") < 2.5),
        (
            "SliceThickness>=2.5  Modality=MR",
            lambda i: (
                (i.column("SliceThickness") >= 2.5) & np.asarray(i.column("Modality") == "MR")
            ),
        ),
        (
            "ConvolutionKernel~b3",
            lambda i: np.asarray(i.column("ConvolutionKernel") == "B30f soft"),
        ),
        (
            'ConvolutionKernel="B30f soft"',
            lambda i: np.asarray(i.column("ConvolutionKernel") == "B30f soft"),
        ),
        ("the label=2", lambda i: i.column("the label") == 2),
        ("Modality=nothing", lambda i: np.zeros(6, bool)),
        ("", lambda i: np.ones(6, bool)),
    ],
)
def test_terms_hold_where_columns_have_the_values(index, text, holds):
    assert np.array_equal(matching(index, text), holds(index))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("CT", "made of terms"),
        ("Modality=", "made of terms"),
        ("Modalty=CT", "no column"),
        ("Rows=many", "holds numbers"),
        ("Rows~5", "holds numbers"),
        ("Modality<CT", "holds text"),
        ("PixelSpacing=1", "several numbers"),
        ("Rows=1 " * 400, "characters"),
        ("Modality='; drop table", "made of terms"),
    ],
)
def test_what_means_nothing_is_refused(index, text, complaint):
    with pytest.raises(OptionError, match=complaint):
        matching(index, text)
