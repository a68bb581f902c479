"""The worked numbers of `test_cases`, each as a file: from bytes on disk over the index to the tensor.

Windows, tables, padding and functional groups (PS3.3 C.7.5, C.7.6.16, C.8, C.11). Stored values, colour and
encapsulation are in `test_stored_files`.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from dicomtorch import DicomFrames, FrameReader, PixelOptions, scan
from dicomtorch.errors import DicomTorchError, PixelValueError
from tests.support.phantoms import Reading, close, ct, every_way, group, image, lut, write

NAN = math.nan
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"


def read(
    tmp_path: Path,
    stored: Any,
    dtype: str = "i2",
    options: dict[str, Any] | None = None,
    **attributes: Any,
) -> Reading:
    """Writes a file of `stored` and reads it in every way."""
    path = write(image(np.array(stored, dtype), **attributes), tmp_path / "case.dcm")
    return every_way(path, **(options or {}))


def window(center: Any, width: Any, function: str = "", **more: Any) -> dict[str, Any]:
    """Attributes of a VOI."""
    attributes = {"WindowCenter": center, "WindowWidth": width, **more}
    return {**attributes, "VOILUTFunction": function} if function else attributes


def rescale(slope: float, intercept: float) -> dict[str, Any]:
    return {"RescaleSlope": f"{slope:.10g}", "RescaleIntercept": f"{intercept:.10g}"}


MONOCHROME1 = {"PhotometricInterpretation": "MONOCHROME1"}
L3 = window(40, 400)
S1 = window(2048, 1024, "SIGMOID")
HALVES = [0, 0.25, 0.5, 0.75, 1]

WINDOWS: list[tuple[str, Any, str, dict[str, Any], list[float]]] = [
    ("L1", [0, 1, 128, 254, 255], "u1", window(128, 256), [0, 0.003922, 0.501961, 0.996078, 1]),
    ("L2", [0, 2047, 2048, 4095], "u2", window(2048, 4096), [0, 0.499878, 0.500122, 1]),
    (
        "L3",
        [-161, -160, -159, 0, 40, 239, 240],
        "i2",
        L3,
        [0, 0, 0.002506, 0.401003, 0.501253, 1, 1],
    ),
    ("L4", [9, 10], "i2", window(10, 1), [0, 1]),
    ("L4 9.5", [9], "i2", {**window(10, 1), **rescale(1, 0.5)}, [0]),
    ("L4 9.6", [9], "i2", {**window(10, 1), **rescale(1, 0.6)}, [1]),
    ("L5", [8, 9, 10, 11], "i2", window(10, 2), [0, 0, 1, 1]),
    ("L5 9.5", [9], "i2", {**window(10, 2), **rescale(1, 0.5)}, [0.5]),
    (
        "L6",
        [265, 313, 314, 794],
        "u2",
        {**window(1000, 2000), **rescale(3.774114, 0.000061)},
        [0.500320, 0.590944, 0.592832, 1],
    ),
    ("L7", [0, 50, 100], "u2", {**window(50, 101), **rescale(-1, 100)}, [1, 0.505, 0.005]),
    ("L8", [-160, 0, 40, 240], "i2", {**L3, **MONOCHROME1}, [1, 0.598997, 0.498747, 0]),
    (
        "L9",
        [-160, 0, 40, 240],
        "i2",
        {**L3, **MONOCHROME1, "PresentationLUTShape": "INVERSE"},
        [1, 0.598997, 0.498747, 0],
    ),
    (
        "L10",
        [-2048, 0, 2047],
        "i2",
        {**window(0, 4096), **MONOCHROME1, **rescale(1, 0), "BitsStored": 12},
        [1, 0.499878, 0],
    ),
    ("L11", [-160, 0, 40, 240], "i2", window([40, 600], [400, 2800]), [0, 0.401003, 0.501253, 1]),
    ("E1", [-160, 0, 40, 239, 240, 241], "i2", window(40, 400, "LINEAR_EXACT"), [0, 0.4, 0.5, 0.9975, 1, 1]),
    ("E2", HALVES, "f4", window(0.5, 1, "LINEAR_EXACT"), HALVES),
    ("E3", [0, 240], "i2", {**window(40, 400, "LINEAR_EXACT"), **MONOCHROME1}, [0.6, 0]),
    ("E4", [0, 0.00025, 0.001], "f8", window("0.0005", "0.001", "LINEAR_EXACT"), [0, 0.25, 1]),
    (
        "S1",
        [0, 1536, 2048, 2304, 2560, 3072, 4095],
        "u2",
        S1,
        [0.000335, 0.119203, 0.5, 0.731059, 0.880797, 0.982014, 0.999663],
    ),
    ("S3", [2304], "u2", {**S1, **MONOCHROME1}, [0.268941]),
    ("S4", [1536], "u2", {**S1, **rescale(2, -1024)}, [0.5]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "dtype", "attributes", "y"),
    [pytest.param(*case[1:], id=case[0]) for case in WINDOWS],
)
def test_windows(tmp_path: Path, stored: Any, dtype: str, attributes: Any, y: list[float]) -> None:
    found = read(tmp_path, stored, dtype, **attributes)
    close(found.flat, y)
    center, width = attributes["WindowCenter"], attributes["WindowWidth"]
    first = [float(v[0] if isinstance(v, list) else v) for v in (center, width)]
    assert [found.index.column(k)[0] for k in ("WindowCenter", "WindowWidth")] == first
    assert found.meta[0]["voi"] == "file"
    assert [found.meta[0]["WindowCenter"], found.meta[0]["WindowWidth"]] == first
    assert found.index.column("VOILUTFunction")[0] == attributes.get("VOILUTFunction", "")


def test_l1_l2_are_the_full_range(tmp_path: Path) -> None:
    found = read(tmp_path, range(256), "u1", **window(128, 256))
    close(found.flat, np.arange(256) / 255, 1e-7)
    found = read(tmp_path, range(4096), "u2", **window(2048, 4096))
    close(found.flat, np.arange(4096) / 4095, 1e-7)


def test_l6_is_not_folded_in_stored_units(tmp_path: Path) -> None:
    attributes = {**window(1000, 2000), **rescale(3.774114, 0.000061)}
    found = read(tmp_path, [265, 313, 314, 794], "u2", {"values": "modality"}, **attributes)
    np.testing.assert_allclose(
        found.flat, [1000.140271, 1181.297743, 1185.071857, 2996.646577], rtol=2e-7
    )
    assert found.index.column("RescaleSlope")[0] == 3.774114


def test_l11_the_other_window(tmp_path: Path) -> None:
    attributes = window([40, 600], [400, 2800])
    found = read(tmp_path, [600, 1999], "i2", {"window": 1}, **attributes)
    close(found.flat, [0.5 / 2799 + 0.5, 1399.5 / 2799 + 0.5])
    assert found.meta[0]["WindowCenter"] == 600
    assert found.index.column("windows")[0] == "40.0\\400.0\\600.0\\2800.0"
    with pytest.raises(PixelValueError, match=r"\(0028,1050\) WindowCenter has 2 values.*window=2"):
        read(tmp_path, [0], "i2", {"window": 2}, **attributes)


def test_l12_unequal_counts(tmp_path: Path) -> None:
    found = read(tmp_path, [0, 40], **window([40, 600], 400))
    close(found.flat, [0.401003, 0.501253])
    assert found.notices.count("without a partner") == 1
    assert found.index.column("windows")[0] == ""


@pytest.mark.parametrize(
    "attributes",
    [
        window(None, 400),
        window(40, None),
        {"RescaleSlope": None, "RescaleIntercept": None},
    ],
)
def test_l13_empty_is_absent(tmp_path: Path, attributes: dict[str, Any]) -> None:
    found = read(tmp_path, [2, 81, 162], "u1", **attributes)
    close(found.flat, [0.007843, 0.317647, 0.635294])
    assert found.meta[0]["voi"] == "full"
    for keyword in ("WindowCenter", "RescaleSlope"):
        assert math.isnan(found.index.column(keyword)[0])


@pytest.mark.parametrize("width", [0, -5])
def test_l14_widths_that_are_none(tmp_path: Path, width: int) -> None:
    found = read(tmp_path, [100, 150, 300], **window(40, width))
    close(found.flat, [0, 0.25, 1])
    assert found.meta[0]["voi"] == "frame"
    assert found.notices.count("(0028,1051)") == 1
    # The next window is not: the first is absent.
    found = read(tmp_path, [0, 40], **window([40, 40], [width, 400]))
    close(found.flat, [0.401003, 0.501253])


def test_l15_width_below_1(tmp_path: Path) -> None:
    attributes = {
        **window("0.10774013962825", "0.21467775607873"),
        **rescale(5.6120501942e-06, 0),
    }
    found = read(tmp_path, [251, 300, 1333, 38000], "u2", **attributes)
    close(found.flat, [0.004692, 0.005973, 0.032978, 0.991517])
    assert found.notices.count("taken as LINEAR_EXACT") == 1


def test_l16_width_1_on_fractions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dicomtorch"):
        path = write(image(np.array(HALVES, "f4"), **window(0.5, 1)), tmp_path / "case.dcm")
        frames = DicomFrames(scan(path)[0])
        close(frames[0][0], HALVES)
        close(frames[[0, 0]][0], HALVES * 2)
    assert caplog.text.count("taken as LINEAR_EXACT") == 1
    close(every_way(path, values="modality").flat, HALVES)


def test_u1_unknown_function(tmp_path: Path) -> None:
    path = write(image(np.array([1, 2], "i2"), **window(40, 400, "FOO")), tmp_path / "case.dcm")
    frames = DicomFrames(scan(path)[0])
    for ask in (0, [0]):
        with pytest.raises(
            PixelValueError, match=r"case.dcm, frame 0.*\(0028,1056\).*VR CS, length 3"
        ):
            frames[ask]
    close(every_way(path, values="modality").flat, [1, 2])
    close(every_way(path, window=(40, 400)).flat, [0.403509, 0.406015])


# --- 3. Lookup tables: C.11.1, C.11.2.1.1 --------------------------------------------------------------


def voi_lut(*items: Dataset, **more: Any) -> dict[str, Any]:
    return {"VOILUTSequence": list(items), **more}


V1: dict[str, Any] = voi_lut(lut([4, 10, 8], [0, 64, 128, 255]))
V4 = lut([5, 0, 8], [0, 50, 100, 200, 250])
V1_X, V1_Y = [9, 10, 11, 12, 13, 14, 1000], [0, 0, 0.250980, 0.501961, 1, 1, 1]


@pytest.mark.parametrize(
    ("stored", "dtype", "attributes", "y"),
    [
        pytest.param(V1_X, "u2", V1, V1_Y, id="V1"),
        pytest.param(
            V1_X, "u2", {**V1, **MONOCHROME1}, [1 - y for y in V1_Y], id="V1 MONOCHROME1"
        ),
        pytest.param(
            [-3, -2, -1, 0, 5],
            "i2",
            voi_lut(lut([3, 65534, 16], [0, 32768, 65535])),
            [0, 0, 0.500008, 1, 1],
            id="V2",
        ),
        pytest.param(
            [-3, -2, -1, 0, 5],
            "i2",
            voi_lut(lut([3, -2, 16], [0, 32768, 65535], descriptor_vr="SS")),
            [0, 0, 0.500008, 1, 1],
            id="V2 SS",
        ),
        pytest.param(
            [0, 1, 2, 3, 8],
            "u2",
            voi_lut(lut([3, 65534, 16], [0, 32768, 65535]), **rescale(1, -3)),
            [0, 0, 0.500008, 1, 1],
            id="V2 rescale",
        ),
        pytest.param(
            [0, 32768, 65535],
            "u2",
            voi_lut(lut([0, 0, 16], list(range(65536)))),
            [0, 0.500008, 1],
            id="V3",
        ),
        pytest.param(
            [5, 6, 7, 9],
            "u2",
            voi_lut(V4, **rescale(2, -10)),
            [0, 0.392157, 0.980392, 0.980392],
            id="V4",
        ),
        pytest.param([3], "u2", voi_lut(V4, **rescale(0.5, 0)), [0.392157], id="V5"),
        pytest.param(
            V1_X, "u2", voi_lut(lut([4, 10, 8], b"\0\x40\x80\xff")), V1_Y, id="V7 packed"
        ),
        pytest.param(
            V1_X, "u2", voi_lut(lut([4, 10, 8], b"\0\0\x40\0\x80\0\xff\0")), V1_Y, id="V7"
        ),
    ],
)  # fmt: skip
def test_voi_luts(tmp_path: Path, stored: Any, dtype: str, attributes: Any, y: list[float]) -> None:
    found = read(tmp_path, stored, dtype, **attributes)
    close(found.flat, y)
    assert found.index.column("voi_lut")[0] >= 0
    assert found.index.column("voi_lut_count")[0] == 1
    assert found.meta[0]["voi"] == "lut"
    assert math.isnan(found.meta[0]["WindowCenter"])


def test_v6_lut_and_window(tmp_path: Path) -> None:
    attributes = {**V1, **window(100, 50)}
    close(read(tmp_path, V1_X, "u2", **attributes).flat, V1_Y)
    found = read(tmp_path, [99, 100], "u2", {"window": 0}, **attributes)
    close(found.flat, [-0.5 / 49 + 0.5, 0.5 / 49 + 0.5])
    assert (found.meta[0]["voi"], found.meta[0]["WindowCenter"]) == ("file", 100)


def test_v8_too_few_bits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dicomtorch"):
        attributes = voi_lut(lut([4, 0, 8], [0, 1000, 2000, 4095]))
        path = write(image(np.arange(4, dtype="u2"), **attributes), tmp_path / "case.dcm")
        close(DicomFrames(scan(path)[0])[0][0], [0, 1000 / 4095, 2000 / 4095, 1])
    assert caplog.text.count("LUTDescriptor states 8 bits") == 1
    close(every_way(path).flat, [0, 0.2442, 0.4884, 1], 1e-4)


def test_v9_empty_items(tmp_path: Path) -> None:
    empty = group(LUTExplanation="nothing")
    for tag, vr in ((0x00283002, "US"), (0x00283006, "OW")):
        empty.add_new(tag, vr, None)
    attributes: dict[str, Any] = {"VOILUTSequence": [empty], "ModalityLUTSequence": [empty]}
    found = read(tmp_path, [2, 81, 162], "u1", **attributes)
    close(found.flat, [0.007843, 0.317647, 0.635294])
    assert found.index.column("voi_lut")[0] == found.index.column("modality_lut")[0] == -1


M1: dict[str, Any] = {
    "ModalityLUTSequence": [lut([4, 0, 16], [10, 20, 30, 1000])],
    **window(20, 21),
}


def test_m1_modality_lut_and_window(tmp_path: Path) -> None:
    close(read(tmp_path, range(4), "u2", **M1).flat, [0.025, 0.525, 1, 1])
    found = read(tmp_path, range(4), "u2", {"values": "modality"}, **M1)
    assert found.flat.tolist() == [10, 20, 30, 1000]
    assert found.index.column("modality_lut")[0] >= 0


def test_m2_first_value_of_a_signed_modality_lut(tmp_path: Path) -> None:
    attributes: dict[str, Any] = {"ModalityLUTSequence": [lut([3, 63488, 16], [7, 8, 9])]}
    found = read(
        tmp_path, [-2049, -2048, -2047, -2046, 5], "i2", {"values": "modality"}, **attributes
    )
    assert found.flat.tolist() == [7, 7, 8, 9, 9]


def test_m3_modality_lut_and_rescale(tmp_path: Path) -> None:
    found = read(tmp_path, range(4), "u2", {"values": "modality"}, **M1, **rescale(2, 0))
    assert found.flat.tolist() == [10, 20, 30, 1000]
    assert found.notices.count("both present; the LUT is used") == 1


# --- 4. Without a VOI ----------------------------------------------------------------------------------


def test_f1_full_range_of_8_bits(tmp_path: Path) -> None:
    found = read(tmp_path, [2, 81, 162], "u1")
    close(found.flat, [0.007843, 0.317647, 0.635294])
    assert found.meta[0]["voi"] == "full"


def test_f2_range_of_the_frame(tmp_path: Path) -> None:
    found = read(tmp_path, [100, 150, 300], "u2")
    close(found.flat, [0, 0.25, 1])
    meta = found.meta[0]
    assert (meta["voi"], meta["WindowCenter"], meta["WindowWidth"]) == ("frame", 200.5, 201)


def padding(value: int, limit: int | None = None, vr: str = "") -> Dataset:
    """Padding elements, with the VR of Pixel Representation unless `vr` says another."""
    extra = Dataset()
    extra.add_new("PixelPaddingValue", vr or ("SS" if value < 0 else "US"), value)
    if limit is not None:
        extra.add_new("PixelPaddingRangeLimit", vr or ("SS" if limit < 0 else "US"), limit)
    return extra


def read_padded(
    tmp_path: Path, stored: Any, dtype: str, pad: Dataset, options: Any = None, **attributes: Any
) -> Reading:
    dataset = image(np.array(stored, dtype), **attributes)
    dataset.update(pad)
    return every_way(write(dataset, tmp_path / "case.dcm"), **(options or {}))


def test_f3_range_without_padding(tmp_path: Path) -> None:
    found = read_padded(tmp_path, [-2000, 100, 150, 300], "i2", padding(-2000))
    close(found.flat, [0, 0, 0.25, 1])
    assert found.index.column("PixelPaddingValue")[0] == -2000


def test_f4_nothing_to_see(tmp_path: Path) -> None:
    close(read(tmp_path, [7, 7]).flat, [0, 0])
    close(read_padded(tmp_path, [-5, -5], "i2", padding(-5)).flat, [0, 0])


def test_f5_what_is_not_finite(tmp_path: Path) -> None:
    stored = [NAN, 1, 3, math.inf]
    close(read(tmp_path, stored, "f4").flat, [0, 0, 1, 1])
    found = read(tmp_path, stored, "f4", {"values": "modality"})
    np.testing.assert_array_equal(found.flat, stored)


# --- 5. Padding: C.7.5.1.1.2 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "dtype", "pad", "attributes", "y", "columns"),
    [
        pytest.param(
            [-2000, -1999, -1024],
            "i2",
            padding(-2000),
            window(-1500, 3000),
            [0, 0.333778, 0.658886],
            (-2000, NAN),
            id="P1",
        ),
        pytest.param(
            [-2000, -1999],
            "i2",
            padding(63536, vr="US"),
            window(-1500, 3000),
            [0, 0.333778],
            (-2000, NAN),
            id="P2",
        ),
        pytest.param(
            [0, 15, 30, 31],
            "u2",
            padding(0, 30),
            window(0, 100),
            [0, 0, 0, 31.5 / 99 + 0.5],
            (0, 30),
            id="P3",
        ),
        pytest.param(
            [4095, 4000, 3999, 0],
            "u2",
            padding(4095, 4000),
            {**window(2048, 4096), **MONOCHROME1},
            [0, 0, 0.023443, 1],
            (4095, 4000),
            id="P4",
        ),
    ],
)
def test_padding(
    tmp_path: Path, stored: Any, dtype: str, pad: Dataset, attributes: Any, y: Any, columns: Any
) -> None:
    found = read_padded(tmp_path, stored, dtype, pad, **attributes)
    close(found.flat, y)
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    np.testing.assert_array_equal([found.index.column(name)[0] for name in names], columns)


def test_p5_float_padding(tmp_path: Path) -> None:
    stored = [-1e30, 1, 2, 3]
    attributes: dict[str, Any] = {"FloatPixelPaddingValue": np.float32(-1e30).item()}
    close(read(tmp_path, stored, "f4", **attributes).flat, [0, 0, 0.5, 1])
    found = read(
        tmp_path, stored, "f4", {"values": "modality", "normalize": "minmax"}, **attributes
    )
    close(found.flat, [0, 0, 0.5, 1])


def test_p6_zscore(tmp_path: Path) -> None:
    options: dict[str, Any] = {"values": "modality", "normalize": "zscore"}
    found = read_padded(tmp_path, [-2000, 0, 10, 20], "i2", padding(-2000), options)
    close(found.flat, [0, -1.224745, 0, 1.224745])
    options["padding"] = -9
    found = read_padded(tmp_path, [-2000, 0, 10, 20], "i2", padding(-2000), options)
    close(found.flat, [-9, -1.224745, 0, 1.224745])


# --- 8. Functional groups and other multi-frame attributes --------------------------------------------


def transformation(slope: float) -> Dataset:
    item = group(RescaleSlope=slope, RescaleIntercept=0, RescaleType="US")
    return group(PixelValueTransformationSequence=[item])


def frame_voi(**attributes: Any) -> Dataset:
    return group(FrameVOILUTSequence=[group(**attributes)])


def position(z: float) -> Dataset:
    return group(PlanePositionSequence=[group(ImagePositionPatient=[0, 0, z])])


def enhanced(
    stored: Any, per_frame: Any = None, shared: Any = None, dtype: str = "u2", **more: Any
) -> Dataset:
    dataset = image(np.array(stored, dtype), **more)
    del dataset.ImagePositionPatient
    if per_frame is not None:
        dataset.PerFrameFunctionalGroupsSequence = per_frame
    if shared is not None:
        dataset.SharedFunctionalGroupsSequence = [shared]
    return dataset


@pytest.mark.parametrize(
    ("per_frame", "shared", "slopes"),
    [
        ([transformation(2), transformation(5)], transformation(3), [2, 5]),
        ([transformation(2), Dataset()], transformation(3), [2, 3]),
        (None, transformation(3), [3, 3]),
        (None, None, [4, 4]),
    ],
)
def test_g1_slopes(tmp_path: Path, per_frame: Any, shared: Any, slopes: list[float]) -> None:
    stored = [[[1, 10]], [[2, 20]]]
    dataset = enhanced(stored, per_frame, shared, RescaleSlope=4, RescaleIntercept=0)
    found = every_way(write(dataset, tmp_path / "case.dcm"), values="modality")
    np.testing.assert_array_equal(
        found.images[:, 0, 0], [[slopes[0], 10 * slopes[0]], [2 * slopes[1], 20 * slopes[1]]]
    )
    assert list(found.index.column("RescaleSlope")) == slopes


def test_g2_the_window_of_the_frame(tmp_path: Path) -> None:
    per_frame = [frame_voi(WindowCenter=64, WindowWidth=80), frame_voi(WindowCenter=50, WindowWidth=10)]  # fmt: skip
    dataset = enhanced([[[64, 50]], [[64, 50]]], per_frame, **window(63, 75))
    found = every_way(write(dataset, tmp_path / "case.dcm"))
    close(found.images, [0.5 / 79 + 0.5, -13.5 / 79 + 0.5, 1, 0.5 / 9 + 0.5])
    assert list(found.index.column("WindowCenter")) == [64, 50]


def test_g3_macros_are_taken_whole(tmp_path: Path) -> None:
    per_frame = [frame_voi(**V1), Dataset()]
    shared = frame_voi(WindowCenter=100, WindowWidth=50)
    found = every_way(
        write(enhanced([[[11, 12]], [[99, 100]]], per_frame, shared), tmp_path / "case.dcm")
    )
    close(found.images, [0.250980, 0.501961, -0.5 / 49 + 0.5, 0.5 / 49 + 0.5])
    np.testing.assert_array_equal(found.index.column("WindowCenter"), [NAN, 100])
    with pytest.raises(PixelValueError, match="window=0"):
        DicomFrames(found.index, window=0)[0]


@pytest.mark.parametrize("frames", [1, 4])
def test_g4_more_items_than_frames(tmp_path: Path, frames: int) -> None:
    items = [position(10.0 * k) for k in range(45)]
    dataset = enhanced(np.arange(frames).reshape(-1, 1, 1), items, NumberOfFrames=frames)
    found = every_way(write(dataset, tmp_path / "case.dcm"), values="modality")
    assert found.images.reshape(-1).tolist() == list(range(frames))
    assert found.index.column("ImagePositionPatient")[:, 2].tolist() == [
        10.0 * k for k in range(frames)
    ]
    assert "has 45 items" in found.notices


def test_g5_fewer_items_than_frames(tmp_path: Path) -> None:
    items = [position(1), position(2)]
    dataset = enhanced([[[1]], [[2]], [[3]]], items, **rescale(3, 0))
    found = every_way(write(dataset, tmp_path / "case.dcm"), values="modality")
    assert found.images.reshape(-1).tolist() == [3, 6, 9]
    z = found.index.column("ImagePositionPatient")[:, 2]
    np.testing.assert_array_equal(z, [1, 2, NAN])
    assert "has 2 items for 3 frames" in found.notices


def dose(stored: Any, scaling: str = "1e-6", **more: Any) -> Dataset:
    array = np.array(stored, "u4")
    attributes = {
        "SOPClassUID": RT_DOSE,
        "Modality": "RTDOSE",
        "DoseUnits": "GY",
        "DoseGridScaling": scaling,
    }
    return image(array, **attributes, **more)


def test_g6_dose(tmp_path: Path) -> None:
    stored = [[[0, 1249000]], [[624500, 2498000]], [[100, 100]]]
    path = write(dose(stored, **window(1, 2)), tmp_path / "case.dcm")
    found = every_way(path, values="modality")
    close(found.images, np.array(stored) * 1e-6, 1e-7)
    assert found.index.column("Units")[0] == "GY"
    found = every_way(path)
    close(found.images, np.array(stored) / 2498000)
    assert [meta["voi"] for meta in found.meta] == ["dose"] * 3
    # A part of the grid is shown as the whole is.
    part = DicomFrames(scan(path)[0].select([2, 0]))
    close(part[0][0], [100 / 2498000] * 2)
    # The user's window is the first rule.
    close(every_way(path, window=(1.249, 2.498)).images[0], [0, 0.5], 0.5)
    found = every_way(path, window=0)
    close(found.images[0], [0, 1])
    assert found.meta[0]["voi"] == "file"


def test_relative_dose_is_not_in_gray(tmp_path: Path) -> None:
    dataset = dose([[[0, 1249000]]])
    for units in ("GY", "RELATIVE"):
        dataset.DoseUnits = units
        found = every_way(write(dataset, tmp_path / "case.dcm"), values="modality")
        assert [meta["Units"] for meta in found.meta] == [units]


HUGE = ("1e39", "-1E39", "1e-320", "1e300", "-1e-310", "1.7e308")


@pytest.mark.parametrize("number", HUGE)
@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept", "WindowWidth", "WindowCenter"])  # fmt: skip
@pytest.mark.parametrize("values", ["modality", "display"])
def test_extreme_numbers_of_a_header(
    tmp_path: Path, keyword: str, number: str, values: Literal["modality", "display"]
) -> None:
    """An error that names the attribute and what it is, or it is as absent with a notice: never NaN or infinity."""
    header = {**rescale(1, -1024), **window(40, 400), keyword: number}
    path = write(image(np.array([[[0, 1, 1064], [2000, 4095, 3]]], "u2"), **header), tmp_path / "case.dcm")  # fmt: skip
    frames = DicomFrames(path, values=values)
    shown = f"{keyword} is {float(number):g}"
    try:
        picture, _ = frames[0]
    except PixelValueError as error:
        assert shown in str(error)  # noqa: PT017 - some numbers are an error, others are not
    else:
        assert torch.isfinite(picture).all()


def test_a_grid_without_dose(tmp_path: Path) -> None:
    found = every_way(write(dose([[[0, 0]], [[0, 0]]]), tmp_path / "case.dcm"))
    close(found.images, [0] * 4)
    assert found.meta[0]["voi"] == "dose"


def test_channels_of_a_dose(tmp_path: Path) -> None:
    path = write(dose([[[0, 1000000]], [[2000000, 500000]]]), tmp_path / "case.dcm")
    found = every_way(path, window=[None, "series", (0.5, 1)])
    close(found.images[:, 0], [0, 0.5, 1, 0.25])
    close(found.images[:, 1], [0, 0.5, 1, 0.25])
    close(found.images[:, 2], [0, 1, 1, 0.5], 1e-3)


@pytest.mark.parametrize("vector", [[0, 2.5, 5], [10, 12.5, 15]])
def test_g7_grid_frame_offset_vector(tmp_path: Path, vector: list[float]) -> None:
    dataset = dose([[[1]], [[2]], [[3]]], GridFrameOffsetVector=vector, NumberOfFrames=3)
    dataset.ImagePositionPatient = [1, 2, 10]
    found = every_way(write(dataset, tmp_path / "case.dcm"), values="modality")
    assert found.index.column("ImagePositionPatient").tolist() == [
        [1, 2, 10],
        [1, 2, 12.5],
        [1, 2, 15],
    ]


@pytest.mark.parametrize(("kind", "z"), [("RECON TOMO", [0, 4, 8]), ("STATIC", [NAN] * 3)])
def test_g8_slices_of_nuclear_medicine(tmp_path: Path, kind: str, z: list[float]) -> None:
    detector = group(ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    dataset = enhanced([[[1]], [[2]], [[3]]])
    del dataset.ImageOrientationPatient
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.20"
    dataset.Modality = "NM"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", kind, "EMISSION"]
    dataset.SliceVector = [1, 2, 3]
    dataset.SpacingBetweenSlices = 4
    dataset.DetectorInformationSequence = [detector]
    found = every_way(write(dataset, tmp_path / "case.dcm"), values="modality")
    np.testing.assert_array_equal(found.index.column("ImagePositionPatient")[:, 2], z)


def test_g9_tiled_full(tmp_path: Path) -> None:
    dataset = image(np.zeros((16, 256, 256), "u1"))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = 500, 300
    dataset.TotalPixelMatrixFocalPlanes, dataset.NumberOfOpticalPaths = 2, 2
    dataset.OpticalPathSequence = [
        group(OpticalPathIdentifier="a"),
        group(OpticalPathIdentifier="b"),
    ]
    found = every_way(write(dataset, tmp_path / "case.dcm"))
    tiles = list(
        zip(found.index.column("tile_column"), found.index.column("tile_row"), strict=True)
    )
    assert tiles == [(1, 1), (257, 1), (1, 257), (257, 257)] * 4
    assert list(found.index.column("OpticalPathIdentifier")) == ["a"] * 8 + ["b"] * 8


def test_g10_times(tmp_path: Path) -> None:
    stored = np.zeros((4, 1, 1), "u1")
    dataset = image(stored, FrameTimeVector=[0, 33, 34, 33])
    found = every_way(write(dataset, tmp_path / "case.dcm"))
    assert list(found.index.column("time")) == [0, 33, 67, 100]
    found = every_way(write(image(stored, FrameTime=33), tmp_path / "case.dcm"))
    assert list(found.index.column("time")) == [0, 33, 66, 99]
    assert [meta["FrameTime"] for meta in found.meta] == [33] * 4


def test_g11_real_world_values(tmp_path: Path) -> None:
    mapping = group(RealWorldValueSlope=1.0, RealWorldValueIntercept=-1024.0)
    mapping.add_new("RealWorldValueFirstValueMapped", "US", 0)
    mapping.add_new("RealWorldValueLastValueMapped", "US", 4095)
    attributes = {"RealWorldValueMappingSequence": [mapping], **rescale(2, 7)}
    found = read(tmp_path, [0, 4095, 5000], "u2", {"values": "real_world"}, **attributes)
    np.testing.assert_array_equal(found.flat, [-1024, 3071, NAN])
    with pytest.raises(PixelValueError, match=r"\(0040,9096\)"):
        read(tmp_path, [0], "u2", {"values": "real_world"})


@pytest.mark.parametrize(
    ("kind", "maximum", "stored", "y", "voi"),
    [
        ("FRACTIONAL", 255, [0, 127, 255], [0, 0.498039, 1], "full"),
        ("FRACTIONAL", 100, [0, 50, 100], [0, 0.5, 1], "full"),
        ("LABELMAP", None, [0, 5, 3], [0, 5, 3], "label"),
    ],
)
@pytest.mark.parametrize("window_", [None, "series"])
def test_g12_segmentations(
    tmp_path: Path, kind: str, maximum: Any, stored: Any, y: Any, voi: str, window_: Any
) -> None:
    attributes = {"Modality": "SEG", "SegmentationType": kind}
    if maximum is not None:
        attributes["MaximumFractionalValue"] = maximum
    found = read(tmp_path, stored, "u1", {"window": window_}, **attributes)
    close(found.flat, y)
    assert found.meta[0]["voi"] == voi
    assert found.index.column("SegmentationType")[0] == kind


def test_g12_binary_segmentation(tmp_path: Path) -> None:
    dataset = image(
        np.zeros((2, 3, 3), "u1"),
        Modality="SEG",
        SegmentationType="BINARY",
        BitsAllocated=1,
        BitsStored=1,
        PixelData=b"\x55\xff\x03\x00",
    )
    dataset.HighBit = 0
    found = every_way(write(dataset, tmp_path / "case.dcm"))
    close(found.images, [1, 0, 1, 0, 1, 0, 1, 0, 1] + [1] * 9)


# --- One mapping for a series --------------------------------------------------------------------------


def write_series(folder: Path, windows: list[Any], stored: list[Any], **more: Any) -> Path:
    for k, (pair, values) in enumerate(zip(windows, stored, strict=True)):
        attributes = {} if pair is None else window(*pair)
        dataset = image(np.array(values, "i2"), InstanceNumber=k, **attributes, **more)
        dataset.SOPInstanceUID = f"1.2.3.{k}"
        write(dataset, folder / f"{k}.dcm")
    return folder


def test_series_with_one_window_keeps_it(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", [(40, 400)] * 2, [[0, 40], [0, 40]])
    found = every_way(folder, window="series")
    close(found.images, [0.401003, 0.501253] * 2)
    assert found.meta[0]["voi"] == "series"
    assert found.meta[0]["WindowCenter"] == 40


def test_series_with_different_windows(tmp_path: Path) -> None:
    # LINEAR 100.5/101 shows 50 to 150; 300.5/201 shows 200 to 400: together 50 to 400.
    folder = write_series(tmp_path / "s", [(100.5, 101), (300.5, 201)], [[50, 225], [400, 225]])
    found = every_way(folder, window="series")
    close(found.images, [0, 0.5, 1, 0.5])


def test_series_without_windows(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", [None, (0, 10)], [[0, 50], [100, 25]])
    found = every_way(folder, window="series")
    close(found.images, [0, 0.5, 1, 0.25])
    assert {meta["voi"] for meta in found.meta} == {"series"}


def test_channels_with_and_without_the_series(tmp_path: Path) -> None:
    folder = write_series(
        tmp_path / "s", [None, (10.5, 21)], [[0, 50], [100, 10]], Modality="CT", RescaleType="HU"
    )
    found = every_way(folder, window=["series", None, (50.5, 101), "lung"])
    assert found.images.shape == (2, 4, 1, 2)
    close(found.images[:, 0], [0, 0.5, 1, 0.1])
    close(found.images[:, 1], [0, 1, 1, 0.5])
    close(found.images[:, 2], [0, 0.5, 1, 0.1])
    close(found.images[0, 3, 0], [600.5 / 1499 + 0.5, 650.5 / 1499 + 0.5])
    assert found.meta[0]["voi"] == "series"


def test_a_frame_of_the_series_that_cannot_be_measured_is_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", [None, None], [[0, 50], [100, 10]])
    index, _ = scan(folder)
    (folder / "1.dcm").write_bytes(b"changed")
    frames = DicomFrames(index, window="series")
    with pytest.raises(DicomTorchError, match=r"0\.dcm, frame 0.*alike with frame 0 of .*1\.dcm"):
        frames[0]


def test_colour_does_not_count_in_a_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", [None], [[0, 50]])
    rgb = ct(np.zeros((1, 2), "u1"), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    rgb.PlanarConfiguration, rgb.PixelData = 0, b"\xff" * 6
    del rgb.WindowCenter, rgb.WindowWidth
    write(rgb, folder / "rgb.dcm")
    frames = DicomFrames(scan(folder)[0], window="series")
    close(frames[0][0], [0, 1])
    close(frames[1][0], [1] * 6)


def test_a_series_over_doses_begins_at_0(tmp_path: Path) -> None:
    for k, stored in enumerate(([100, 200], [300, 400])):
        dataset = dose([stored])
        dataset.SOPInstanceUID = f"1.2.3.{k}"
        write(dataset, tmp_path / "s" / f"{k}.dcm")
    close(every_way(tmp_path / "s", window="series").images, [0.25, 0.5, 0.75, 1])
    close(every_way(tmp_path / "s").images, [0.5, 1, 0.75, 1])


# --- Real files ----------------------------------------------------------------------------------------


def sample(samples: Path, name: str) -> Path:
    (path,) = samples.rglob(name)
    return path


@pytest.mark.parametrize(
    ("name", "frame", "options", "points", "mean"),
    [
        pytest.param(
            "GH133.dcm",
            0,
            {"window": 0},
            {2089663: 0.232267, 4239131: 0.238667, 5015331: 0.125404},
            0.0809213,  # 0.0809265 with the sigmoid of the 68 % of the pixels that are padding
            id="S2",
        ),
        pytest.param(
            "GH133.dcm",
            0,
            {},
            {2089663: 0.232234, 4239131: 0.238584, 5015331: 0.125519},
            0.0809221,
            id="V10",
        ),
        pytest.param(
            "mlut_19.dcm",
            0,
            {"values": "modality"},
            {1380: 16388, 14557: 32776, 59036: 0},
            32357.85054,
            id="M2",
        ),
        pytest.param(
            "cine-test.dcm",
            4,
            {},
            {14759: 0.822785, 19671: 0.240506, 32754: 0.531646},
            0.3078557267973695,
            id="G2 frame 4",
        ),
        pytest.param(
            "cine-test.dcm",
            7,
            {},
            {14759: 0.822368, 19671: 0.335526, 32754: 0.519737},
            0.28796748111122533,
            id="G2 frame 7",
        ),
    ],
)
def test_samples(
    samples: Path, name: str, frame: int, options: Any, points: dict[int, float], mean: float
) -> None:
    frames = DicomFrames(scan(sample(samples, name))[0], **options)
    pixels = frames[frame][0].numpy().astype(np.float64).reshape(-1)
    np.testing.assert_array_equal(frames[[frame]][0].numpy().reshape(-1), pixels)
    close([pixels[at] for at in points], list(points.values()))
    np.testing.assert_allclose(pixels.mean(), mean, rtol=2e-6)


def test_f6_multiframe_windowing(samples: Path) -> None:
    index, report = scan(sample(samples, "MultiframeWindowing.dcm"))
    assert report.findings[0].reason.count("(0028,0103) PixelRepresentation is missing") == 1
    modality, display = (
        [frame[0].unique().tolist() for frame in DicomFrames(index, values=values)]
        for values in ("modality", "display")
    )
    assert modality == [
        [0, 16, 32, 48],
        [100, 116, 132, 148],
        [0, 32, 64, 96],
        [100, 132, 164, 196],
    ]
    close(display, [[0.377953, 0.503937, 0.629921, 0.755906], *[[0, 1 / 3, 2 / 3, 1]] * 3])
    voi = [meta["voi"] for _, meta in DicomFrames(index)]
    assert voi == ["file", "frame", "frame", "frame"]


@pytest.mark.parametrize(
    ("name", "frames", "items"), [("liver_1frame.dcm", 1, 3), ("jpeg2k_3d.dcm", 4, 45)]
)
def test_g4_samples(samples: Path, name: str, frames: int, items: int) -> None:
    index, report = scan(sample(samples, name))
    assert len(index) == frames
    assert f"has {items} items" in report.findings[0].reason


def test_p2_sample(samples: Path) -> None:
    name = "GH177_D_CLUNIE_CT1_IVRLE_BigEndian_ELE_undefinded_length.dcm"
    index, _ = scan(sample(samples, name))
    assert index.column("PixelPaddingValue")[0] == -2000
    stored = FrameReader(index).read_stored(0)
    y = DicomFrames(index)[0][0][0].numpy()
    assert (stored == -2000).any()
    assert (y[stored == -2000] == 0).all()


def test_p3_sample(samples: Path) -> None:
    index, _ = scan(sample(samples, "GH133.dcm"))
    assert [*(index.frame_values(0).padding or ())] == [0, 30]
    stored = FrameReader(index).read_stored(0)
    inside = (stored >= 0) & (stored <= 30)
    assert 0.67 < inside.mean() < 0.69
    y = DicomFrames(index, window=0)[0][0][0].numpy()
    assert (y[inside] == 0).all()


def test_l13_l15_samples(samples: Path) -> None:
    index, _ = scan(sample(samples, "leadtools-flowers-8-mono2-rle.dcm"))
    assert math.isnan(index.column("RescaleSlope")[0])
    stored = FrameReader(index).read_stored(0)
    close(DicomFrames(index, values="modality")[0][0], stored, 0)
    index, report = scan(sample(samples, "RI6XDosiGap.dcm"))
    assert "taken as LINEAR_EXACT" in report.findings[0].reason
    stored = FrameReader(index).read_stored(0).reshape(-1)
    y = DicomFrames(index)[0][0].numpy().reshape(-1)
    for s, expected in {251: 0.004692, 300: 0.005973, 1333: 0.032978, 38000: 0.991517}.items():
        close(y[stored == s], np.full((stored == s).sum(), expected))


def test_l16_sample(samples: Path) -> None:
    index, _ = scan(sample(samples, "parametric_map_float.dcm"))
    values = index.frame_values(0)
    assert values.windows == ((0.5, 1.0),)
    close(DicomFrames(index)[0][0], FrameReader(index).read_stored(0).clip(0, 1))


def test_f1_samples(samples: Path) -> None:
    index, _ = scan(sample(samples, "XA-MONO2-8-12x-catheter.dcm"))
    reader = FrameReader(index, options=PixelOptions("stored"))
    for k in range(2):
        close(DicomFrames(index)[k][0][0], reader.read_stored(k) / 255)


def test_big_endian_files_have_the_same_values(tmp_path: Path) -> None:
    stored = np.array([-2000, -1, 0, 300], "i2")
    plain = every_way(write(image(stored, **L3), tmp_path / "little.dcm"))
    dataset = image(stored, ExplicitVRBigEndian, PixelData=stored.astype(">i2").tobytes(), **L3)
    big = every_way(write(dataset, tmp_path / "big.dcm"))
    np.testing.assert_array_equal(big.images, plain.images)
