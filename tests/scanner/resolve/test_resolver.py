"""Headers to columns, over files that pydicom writes; expected values are the standard's rules worked by hand."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomtorch.dicom.header import read_header
from dicomtorch.errors import HeaderError
from dicomtorch.model.frame import LookupTable, RealWorldValueMap
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import Limits
from dicomtorch.scanner.resolve.resolver import WANTED, Resolved, Resolver, Tag

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def image(frames: int | None = None, **values: Any) -> Dataset:
    dataset = item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        SOPInstanceUID="1.2.3",
        Modality="CT",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=2,
        Columns=2,
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=0,
    )
    if frames is not None:
        dataset.NumberOfFrames = frames
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    if not any(k in dataset for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        dataset.PixelData = bytes(8 * (frames or 1))
        dataset["PixelData"].VR = "OW"
    return dataset


def written(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
    buffer = io.BytesIO()
    little = syntax != ExplicitVRBigEndian
    implicit = syntax == ImplicitVRLittleEndian
    dcmwrite(
        buffer,
        dataset,
        implicit_vr=implicit,
        little_endian=little,
        force_encoding=True,
    )
    return buffer.getvalue()


def resolve(
    dataset: Dataset,
    *,
    syntax: str = ExplicitVRLittleEndian,
    tags: dict[str, Tag] | None = None,
    limits: Limits | None = None,
) -> tuple[Resolved, ImagePixel, list[str]]:
    data = written(dataset, syntax)
    resolver = Resolver(tags=tags, limits=limits or Limits())
    wanted = resolver.wanted_of_large
    header = read_header(lambda at, n: data[at : at + n], len(data), wanted)
    notices = list(header.notices)
    claimed = resolver.number_of_frames(header, notices)
    pixel = resolver.image_pixel(header, notices)
    resolved = resolver.resolve(header, pixel, max(claimed, 1))
    return resolved, pixel, notices + resolved.notices


def columns(dataset: Dataset, **options: Any) -> dict[str, Any]:
    return resolve(dataset, **options)[0].columns


def per_frame(**macros: Sequence[dict[str, Any] | None]) -> list[Dataset]:
    """Items of the Per-frame Functional Groups Sequence; `None` leaves the macro out of a frame."""
    frames = [Dataset() for _ in next(iter(macros.values()))]
    for sequence, groups in macros.items():
        for frame, group in zip(frames, groups, strict=True):
            if group is not None:
                setattr(frame, sequence, [item(**group)])
    return frames


def shared(**macros: dict[str, Any]) -> list[Dataset]:
    return [item(**{sequence: [item(**group)] for sequence, group in macros.items()})]


# The main data set


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_values_of_the_main_data_set(syntax: str) -> None:
    dataset = image(
        PatientID="P 1 ",
        IssuerOfPatientID="here",
        StudyInstanceUID="1.2.4",
        SeriesInstanceUID="1.2.5",
        FrameOfReferenceUID="1.2.6",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        InstanceNumber="7",
        AcquisitionNumber="-3",
        TemporalPositionIdentifier="4",
        AcquisitionTime="101112.5",
        ImagePositionPatient=["-1.5", "2e1", "3"],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=["0.5", "0.25"],
        SliceThickness="2.5",
        SpacingBetweenSlices="3",
        RescaleSlope="2",
        RescaleIntercept="-1024",
        RescaleType="HU",
        KVP="120",
        ConvolutionKernel="B30f",
        EchoTime="12.5",
        BurnedInAnnotation="NO",
        PresentationLUTShape="IDENTITY",
    )
    assert columns(dataset, syntax=syntax) == {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "SOPInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2.4",
        "SeriesInstanceUID": "1.2.5",
        "FrameOfReferenceUID": "1.2.6",
        "PatientID": "P 1",
        "IssuerOfPatientID": "here",
        "Modality": "CT",
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "InstanceNumber": 7,
        "AcquisitionNumber": -3,
        "TemporalPositionIndex": 4,
        "AcquisitionTime": 10 * 3600 + 11 * 60 + 12.5,
        "ImagePositionPatient": (-1.5, 20, 3),
        "ImageOrientationPatient": (1, 0, 0, 0, 1, 0),
        "PixelSpacing": (0.5, 0.25),
        "SliceThickness": 2.5,
        "SpacingBetweenSlices": 3,
        "RescaleSlope": 2,
        "RescaleIntercept": -1024,
        "RescaleType": "HU",
        "KVP": 120,
        "ConvolutionKernel": "B30f",
        "EchoTime": 12.5,
        "BurnedInAnnotation": "NO",
        "PresentationLUTShape": "IDENTITY",
        "TransferSyntaxUID": str(syntax),
        "Rows": 2,
        "Columns": 2,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PlanarConfiguration": 0,
        "pixel_data_vr": "OW",
    }


def test_empty_values_are_absent_without_a_notice() -> None:
    dataset = image(
        RescaleSlope="", WindowCenter="", WindowWidth="", ImagePositionPatient="", PatientID=""
    )
    resolved, _, notices = resolve(dataset)
    absent = {"RescaleSlope", "WindowCenter", "ImagePositionPatient", "PatientID"}
    assert not absent & resolved.columns.keys()
    assert notices == []


def test_malformed_values_are_told_and_absent() -> None:
    dataset = image(ImagePositionPatient=["1", "2"], InstanceNumber="99999999999")
    resolved, _, notices = resolve(dataset)
    assert not {"ImagePositionPatient", "InstanceNumber"} & resolved.columns.keys()
    assert len(notices) == 2
    assert (
        "(0020,0032) ImagePositionPatient has VR DS and length 4; expected 3 numbers"
        in "; ".join(notices)
    )
    assert "99999999999" not in "; ".join(notices)


def test_a_malformed_slope_is_no_absent_one() -> None:
    with pytest.raises(HeaderError, match=r"\(0028,1053\) RescaleSlope"):
        columns(image(RescaleSlope=["1", "2"], RescaleIntercept="0"))


def test_dose_has_its_unit_and_scaling() -> None:
    found = columns(image(Modality="RTDOSE", DoseGridScaling="1e-6", DoseUnits="GY"))
    assert (found["DoseGridScaling"], found["Units"]) == (1e-6, "GY")
    assert 1249000 * found["DoseGridScaling"] == pytest.approx(1.249)


# Image Pixel Module


@pytest.mark.parametrize(
    ("missing", "attribute", "value"),
    [
        ("PixelRepresentation", "pixel_representation", 0),
        ("HighBit", "high_bit", 15),
        ("BitsStored", "bits_stored", 16),
        ("SamplesPerPixel", "samples_per_pixel", 1),
        ("PhotometricInterpretation", "photometric_interpretation", "MONOCHROME2"),
    ],
)
def test_what_has_one_meaning_is_filled_in(missing: str, attribute: str, value: Any) -> None:
    _, pixel, notices = resolve(image(**{missing: None}))
    assert getattr(pixel, attribute) == value
    assert [notice for notice in notices if missing in notice and "missing" in notice]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"Rows": None}, r"\(0028,0010\) Rows is missing"),
        ({"Rows": [2, 0]}, r"\(0028,0010\) Rows has 2 values"),
        ({"Columns": 0}, r"\(0028,0011\) Columns is 0"),
        ({"BitsAllocated": None}, r"\(0028,0100\) BitsAllocated is missing"),
        ({"BitsAllocated": 24}, r"\(0028,0100\) BitsAllocated is 24; expected 1, 8"),
        ({"BitsStored": 17}, r"\(0028,0101\) BitsStored is 17; expected 1 to 16"),
        ({"SamplesPerPixel": 2}, r"\(0028,0002\) SamplesPerPixel is 2"),
        ({"PixelRepresentation": 3}, r"\(0028,0103\) PixelRepresentation is 3"),
        ({"Rows": 65535, "Columns": 65535}, "Limits.pixels_per_frame = 268435456"),
    ],
)
def test_what_no_frame_can_be_read_with(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(HeaderError, match=reason):
        resolve(image(**values))


def test_limits_are_named() -> None:
    with pytest.raises(HeaderError, match=r"Limits.decoded_bytes_per_frame = 7"):
        resolve(image(), limits=Limits(decoded_bytes_per_frame=7))
    with pytest.raises(HeaderError, match=r"Limits.frames_per_file = 3"):
        resolve(image(4), limits=Limits(frames_per_file=3))


def test_high_bit_above_the_stored_bits_is_kept_and_below_is_not() -> None:
    assert resolve(image(BitsStored=12, HighBit=15))[1].high_bit == 15
    _, pixel, notices = resolve(image(BitsStored=12, HighBit=10))
    assert pixel.high_bit == 11
    assert "HighBit is 10" in notices[0]


def test_float_pixel_data_need_no_bits() -> None:
    dataset = image(
        FloatPixelData=bytes(16),
        BitsAllocated=32,
        BitsStored=None,
        HighBit=None,
        PixelRepresentation=None,
        FloatPixelPaddingValue=-1e30,
    )
    resolved, pixel, notices = resolve(dataset)
    assert (pixel.pixel_data_vr, pixel.bits_stored, notices) == ("OF", 32, [])
    assert resolved.columns["PixelPaddingValue"] == np.float32(-1e30)


@pytest.mark.parametrize(("text", "number"), [("3", 3), (" 3 ", 3), ("", -1), ("0", -1)])
def test_number_of_frames(text: str, number: int) -> None:
    header = _header_with_frames(text)
    assert Resolver().number_of_frames(header, []) == number


@pytest.mark.parametrize("text", ["1A", "-1", "1\\2", "1.5", "x"])
def test_number_of_frames_that_is_none(text: str) -> None:
    with pytest.raises(HeaderError, match=r"\(0028,0008\) NumberOfFrames"):
        Resolver().number_of_frames(_header_with_frames(text), [])


def _header_with_frames(text: str) -> Any:
    data = written(image(1)).replace(b"IS\x02\x001 ", b"IS\x02\x00@@")
    header = read_header(lambda at, n: data[at : at + n], len(data), WANTED)
    header.elements[0x00280008] = ("IS", text.encode())
    return header


# Values


def test_the_first_of_two_windows_and_all_of_them() -> None:
    found = columns(image(WindowCenter=[40, 600], WindowWidth=[400, 2800.5]))
    assert (found["WindowCenter"], found["WindowWidth"]) == (40, 400)
    assert found["windows"] == "40.0\\400.0\\600.0\\2800.5"


def test_windows_of_unequal_counts_are_paired_as_far_as_they_go() -> None:
    resolved, _, notices = resolve(image(WindowCenter=[40, 600], WindowWidth=400))
    assert (resolved.columns["WindowCenter"], resolved.columns["WindowWidth"]) == (40, 400)
    assert "windows" not in resolved.columns
    assert len(notices) == 1


@pytest.mark.parametrize(
    ("width", "function", "told"),
    [(0, None, 1), (-5, None, 1), (0.25, None, 1), (0.25, "LINEAR_EXACT", 0), (1, None, 0)],
)
def test_odd_widths_are_told_once(width: float, function: str | None, told: int) -> None:
    values: dict[str, Any] = {"VOILUTFunction": function} if function else {}
    resolved, _, notices = resolve(image(WindowCenter=1, WindowWidth=width, **values))
    assert resolved.columns["WindowWidth"] == width
    assert len(notices) == told


def lut(descriptor: list[int], data: bytes, signed: bool = False, **more: Any) -> Dataset:
    table = item(**more)
    table.add_new(0x00283002, "SS" if signed else "US", descriptor)
    table.add_new(0x00283006, "OW", data)
    return table


def test_first_value_of_the_modality_lut_has_the_sign_of_the_pixels() -> None:
    table = lut([3, 63488, 16], bytes(6), ModalityLUTType="US")
    resolved = resolve(image(PixelRepresentation=1, ModalityLUTSequence=[table]))[0]
    assert resolved.columns["modality_lut"] == 0
    assert resolved.columns["RescaleType"] == "US"
    assert isinstance(resolved.lookups[0], LookupTable)
    assert resolved.lookups[0].first_mapped == -2048
    unsigned = resolve(image(ModalityLUTSequence=[table]))[0]
    assert isinstance(unsigned.lookups[0], LookupTable)
    assert unsigned.lookups[0].first_mapped == 63488


def test_modality_lut_and_rescale_are_told() -> None:
    table = lut([4, 0, 16], np.array([10, 20, 30, 1000], "<u2").tobytes())
    dataset = image(ModalityLUTSequence=[table], RescaleSlope=1, RescaleIntercept=0)
    resolved, _, notices = resolve(dataset)
    assert resolved.columns["modality_lut"] == 0
    assert len(notices) == 1
    assert "the LUT is used" in notices[0]
    assert isinstance(resolved.lookups[0], LookupTable)
    assert resolved.lookups[0].data.tolist() == [10, 20, 30, 1000]


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ({"PixelRepresentation": 1}, -2),
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, -2),
        ({"RescaleSlope": -1, "RescaleIntercept": 0}, -2),
        ({"RescaleSlope": 1, "RescaleIntercept": 0}, 65534),
        ({}, 65534),
    ],
)
def test_first_value_of_the_voi_lut_is_signed_if_its_input_can_be(
    values: dict[str, Any], first: int
) -> None:
    table = lut([3, 65534, 16], np.array([0, 32768, 65535], "<u2").tobytes())
    resolved = resolve(image(VOILUTSequence=[table], **values))[0]
    assert isinstance(resolved.lookups[0], LookupTable)
    assert resolved.lookups[0].first_mapped == first


def test_empty_items_of_a_voi_lut_are_absent() -> None:
    empty = item()
    empty.add_new(0x00283002, "US", None)
    empty.add_new(0x00283006, "OW", b"")
    table = lut([4, 10, 8], bytes([0, 64, 128, 255]))
    resolved = resolve(image(VOILUTSequence=[empty, table, Dataset(), table]))[0]
    assert (resolved.columns["voi_lut"], resolved.columns["voi_lut_count"]) == (0, 2)
    assert [t.data.tolist() for t in resolved.lookups if isinstance(t, LookupTable)] == [
        [0, 64, 128, 255]
    ] * 2
    nothing = resolve(image(VOILUTSequence=[empty]))[0]
    assert "voi_lut" not in nothing.columns


def test_a_damaged_voi_lut_is_told_and_a_damaged_modality_lut_is_an_error() -> None:
    broken = lut([100, 0, 16], bytes(8))
    resolved, _, notices = resolve(image(VOILUTSequence=[broken]))
    assert "voi_lut" not in resolved.columns
    assert "LUTData" in notices[0]
    with pytest.raises(HeaderError, match=r"\(0028,3006\) LUTData"):
        resolve(image(ModalityLUTSequence=[broken]))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_palettes(syntax: str) -> None:
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset = image(
        PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8, BitsStored=8, HighBit=7
    )
    for number, color in enumerate(("Red", "Green", "Blue")):
        name = f"{color}PaletteColorLookupTable"
        setattr(dataset, f"{name}Descriptor", [3, 10, 16])
        entries = np.array([number, 0, 0xFFFF], f"{order}u2")
        setattr(dataset, f"{name}Data", entries.tobytes())
    resolved = resolve(dataset, syntax=syntax)[0]
    assert resolved.columns["palette"] == 0
    tables = [table for table in resolved.lookups if isinstance(table, LookupTable)]
    assert [t.data.tolist() for t in tables] == [[k, 0, 65535] for k in range(3)]
    assert {t.first_mapped for t in tables} == {10}


def test_equal_colors_are_three_tables_and_segments_are_expanded() -> None:
    dataset = image(
        PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8, BitsStored=8, HighBit=7
    )
    segments = np.array([0, 1, 0, 1, 4, 65280], "<u2").tobytes()
    for color in ("Red", "Green", "Blue"):
        setattr(dataset, f"{color}PaletteColorLookupTableDescriptor", [5, 0, 16])
        setattr(dataset, f"Segmented{color}PaletteColorLookupTableData", segments)
    resolved = resolve(dataset)[0]
    assert len(resolved.lookups) == 3
    for table in resolved.lookups:
        assert isinstance(table, LookupTable)
        assert table.data.tolist() == [0, 16320, 32640, 48960, 65280]


def test_a_missing_palette_is_told() -> None:
    resolved, _, notices = resolve(image(PhotometricInterpretation="PALETTE COLOR"))
    assert "palette" not in resolved.columns
    assert "palette" in notices[0]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("signed", "vr", "value", "expected"),
    [
        (1, "US", 63536, -2000),
        (1, "SS", -2000, -2000),
        (0, "US", 63536, 63536),
        (0, "SS", -2000, 63536),
    ],
)
def test_padding_has_the_sign_of_the_pixels(
    syntax: str, signed: int, vr: str, value: int, expected: int
) -> None:
    dataset = image(PixelRepresentation=signed)
    dataset.add_new(0x00280120, vr, value)
    dataset.add_new(0x00280121, vr, value)
    found = columns(dataset, syntax=syntax)
    assert found["PixelPaddingValue"] == found["PixelPaddingRangeLimit"] == expected


def mapping(**values: Any) -> Dataset:
    units = item(CodeValue="[hnsf'U]", CodingSchemeDesignator="UCUM", CodeMeaning="HU")
    return item(MeasurementUnitsCodeSequence=[units], **values)


def test_real_world_value_maps() -> None:
    first = mapping(RealWorldValueSlope=1.0, RealWorldValueIntercept=-1024.0)
    first.add_new(0x00409216, "US", 0)
    first.add_new(0x00409211, "US", 4095)
    resolved = resolve(image(RealWorldValueMappingSequence=[first, mapping()]))[0]
    assert resolved.columns["real_world_value_map"] == 0
    assert resolved.lookups == [RealWorldValueMap(0, 4095, 1, -1024, "[hnsf'U]")]


def test_real_world_value_tables_and_signed_ranges() -> None:
    table = mapping(RealWorldValueLUTData=[0.5, 1.5, 2.5])
    table.add_new(0x00409216, "US", 65535)
    table.add_new(0x00409211, "US", 1)
    dataset = image(PixelRepresentation=1, RealWorldValueMappingSequence=[table])
    (found,) = resolve(dataset)[0].lookups
    assert isinstance(found, RealWorldValueMap)
    assert found.data is not None
    assert (found.first, found.last, found.data.tolist()) == (-1, 1, [0.5, 1.5, 2.5])
    assert math.isnan(found.slope)


def test_a_real_world_value_map_without_range_is_told() -> None:
    dataset = image(RealWorldValueMappingSequence=[mapping(RealWorldValueSlope=1.0)])
    resolved, _, notices = resolve(dataset)
    assert resolved.lookups == []
    assert "RealWorldValueMappingSequence" in notices[0]


def pet(**values: Any) -> Dataset:
    drug = item(
        RadiopharmaceuticalStartTime="100000",
        RadionuclideTotalDose="370000000",
        RadionuclideHalfLife="6586.2",
    )
    dataset = image(
        Modality="PT",
        Units="BQML",
        CorrectedImage=["ATTN", "DECY"],
        DecayCorrection="START",
        PatientWeight="70",
        SeriesTime="110000",
        AcquisitionTime="110000",
        RadiopharmaceuticalInformationSequence=[drug],
    )
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def test_pet_has_a_factor_or_the_reason_why_not() -> None:
    assert columns(pet())["suv_factor"] == pytest.approx(2.7633668e-4, rel=1e-7)
    found = columns(pet(PatientWeight=""))
    assert "suv_factor" not in found
    assert found["suv_problem"] == "PatientWeight (0010,1030) is missing"


@pytest.mark.parametrize("block", [0x10, 0x42])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_private_factors_are_found_by_their_creator(block: int, syntax: str) -> None:
    dataset = pet(Units="CNTS")
    dataset.add_new(0x70530000 | block, "LO", "Philips PET Private Group")
    dataset.add_new(0x70530000 | block << 8, "DS", "0.000551")
    assert columns(dataset, syntax=syntax)["suv_factor"] == 0.000551
    dataset[0x70530000 | block].value = "Somebody else"
    assert "suv_factor" not in columns(dataset, syntax=syntax)


# Functional groups


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_per_frame_then_shared_then_the_main_data_set(syntax: str) -> None:
    def rescale(slope: float) -> dict[str, Any]:
        return {"RescaleSlope": slope, "RescaleIntercept": 0, "RescaleType": "US"}

    dataset = image(2, RescaleSlope=4, RescaleIntercept=0)
    assert columns(dataset, syntax=syntax)["RescaleSlope"] == 4
    dataset.SharedFunctionalGroupsSequence = shared(PixelValueTransformationSequence=rescale(3))
    assert columns(dataset, syntax=syntax)["RescaleSlope"] == 3
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        PixelValueTransformationSequence=[rescale(2), None]
    )
    assert columns(dataset, syntax=syntax)["RescaleSlope"] == [2, 3]


def test_macros_are_taken_whole() -> None:
    table = lut([4, 10, 8], bytes([0, 64, 128, 255]))
    dataset = image(2, WindowCenter=63, WindowWidth=75)
    dataset.SharedFunctionalGroupsSequence = shared(
        FrameVOILUTSequence={"WindowCenter": 40, "WindowWidth": 400},
        PixelMeasuresSequence={"PixelSpacing": [1, 1], "SliceThickness": 5},
    )
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        FrameVOILUTSequence=[{"VOILUTSequence": [table]}, None],
        PixelMeasuresSequence=[{"PixelSpacing": [2, 2]}, None],
    )
    found = columns(dataset)
    assert found["voi_lut"] == [0, -1]
    assert found["voi_lut_count"] == [1, -1]
    np.testing.assert_array_equal(found["WindowCenter"], [math.nan, 40])
    assert found["PixelSpacing"] == [(2, 2), (1, 1)]
    assert found["SliceThickness"] == 5  # of the place, it is completed from the shared item


def test_frames_without_a_macro_have_the_value_of_the_main_data_set() -> None:
    dataset = image(3, WindowCenter=63, WindowWidth=75, RescaleSlope=4, RescaleIntercept=1)
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        FrameVOILUTSequence=[None, {"WindowCenter": 64, "WindowWidth": 80}, None],
        PixelValueTransformationSequence=[None, None, {"RescaleSlope": 2, "RescaleIntercept": 0}],
    )
    found = columns(dataset)
    assert found["WindowCenter"] == [63, 64, 63]
    assert found["RescaleSlope"] == [4, 4, 2]


def test_items_beyond_the_frames_are_ignored_and_missing_ones_leave_missing() -> None:
    positions = [{"ImagePositionPatient": [0, 0, z]} for z in range(3)]
    dataset = image(1, PerFrameFunctionalGroupsSequence=per_frame(PlanePositionSequence=positions))
    resolved, _, notices = resolve(dataset)
    assert resolved.columns["ImagePositionPatient"] == (0, 0, 0)
    assert "3 items for 1 frame; those beyond are ignored" in notices[0]

    dataset = image(
        4,
        RescaleSlope=9,
        PerFrameFunctionalGroupsSequence=per_frame(PlanePositionSequence=positions),
    )
    resolved, _, notices = resolve(dataset)
    assert resolved.columns["ImagePositionPatient"][:3] == [(0, 0, 0), (0, 0, 1), (0, 0, 2)]
    assert all(map(math.isnan, resolved.columns["ImagePositionPatient"][3]))
    assert resolved.columns["RescaleSlope"] == 9
    assert "3 items for 4 frames; frames beyond have none" in notices[0]


@pytest.mark.parametrize("text", ["2024", "202401", "20240131", "20240131+0100"])
def test_a_date_without_a_time_is_valid_and_has_no_time_of_day(text: str) -> None:
    resolved, _, notices = resolve(image(AcquisitionDateTime=text))
    assert "AcquisitionTime" not in resolved.columns
    assert notices == []
    dataset = image(2)
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        FrameContentSequence=[{"FrameAcquisitionDateTime": text}] * 2
    )
    resolved, _, notices = resolve(dataset)
    assert notices == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR DT")
def test_what_is_no_date_and_time_is_told() -> None:
    _, _, notices = resolve(image(AcquisitionDateTime="20241399"))
    assert "expected a date and time; taken as absent" in notices[0]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("count", [3, 40])
def test_attributes_of_frames(syntax: str, count: int) -> None:
    """The same for few frames, converted one by one, and for many, converted at once."""
    frames = range(count)
    dataset = image(count, ImageType=["ORIGINAL", "PRIMARY"], AcquisitionNumber="1")
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        FrameContentSequence=[
            {
                "StackID": "A",
                "InStackPositionNumber": k + 1,
                "TemporalPositionIndex": 2 * k,
                "DimensionIndexValues": [1, k + 1],
                "FrameAcquisitionDateTime": f"20200101{10:02}0000.{k:06}",
                "FrameAcquisitionNumber": k,
            }
            for k in frames
        ],
        PlanePositionSequence=[{"ImagePositionPatient": [0.5, -1, k]} for k in frames],
        MREchoSequence=[{"EffectiveEchoTime": 1.5 * k} for k in frames],
        MRDiffusionSequence=[{"DiffusionBValue": 100.0 * k} for k in frames],
        MRImageFrameTypeSequence=[
            {"FrameType": ["ORIGINAL", "PRIMARY", "M"], "ComplexImageComponent": "MAGNITUDE"}
            for k in frames
        ],
        CardiacSynchronizationSequence=[
            {"NominalPercentageOfCardiacPhase": 5.0 * k, "NominalCardiacTriggerDelayTime": k + 0.5}
            for k in frames
        ],
        FrameVOILUTSequence=[{"WindowCenter": k, "WindowWidth": k + 1} for k in frames],
        SegmentIdentificationSequence=[{"ReferencedSegmentNumber": k + 1} for k in frames],
        DerivationImageSequence=[
            {"SourceImageSequence": [item(ReferencedSOPInstanceUID=f"1.2.{k}")]} for k in frames
        ],
    )
    resolved, _, notices = resolve(dataset, syntax=syntax)
    expected = {
        "StackID": "A",
        "InStackPositionNumber": [k + 1 for k in frames],
        "TemporalPositionIndex": [2 * k for k in frames],
        "DimensionIndexValues": [f"1\\{k + 1}" for k in frames],
        "AcquisitionNumber": list(frames),
        "AcquisitionTime": [36000 + k * 1e-6 for k in frames],
        "time": [k * 1e-3 for k in frames],
        "ImagePositionPatient": [(0.5, -1, k) for k in frames],
        "EchoTime": [1.5 * k for k in frames],
        "DiffusionBValue": [100 * k for k in frames],
        "ImageType": "ORIGINAL\\PRIMARY\\M",
        "ComplexImageComponent": "MAGNITUDE",
        "NominalPercentageOfCardiacPhase": [5 * k for k in frames],
        "TriggerTime": [k + 0.5 for k in frames],
        "WindowCenter": list(frames),
        "WindowWidth": [k + 1 for k in frames],
        "SegmentNumber": [k + 1 for k in frames],
        "ReferencedSOPInstanceUID": [f"1.2.{k}" for k in frames],
    }
    for name, values in expected.items():
        if isinstance(values, list) and isinstance(values[0], float):
            np.testing.assert_allclose(resolved.columns[name], values, rtol=0, atol=1e-9)
        else:
            assert resolved.columns[name] == values, name
    assert notices == []


def test_malformed_values_among_many_frames_are_missing() -> None:
    groups: list[dict[str, Any] | None] = [{"ImagePositionPatient": [0, 0, k]} for k in range(40)]
    groups[7] = {"ImagePositionPatient": [0, 0]}
    groups[8] = {"ImagePositionPatient": None}
    dataset = image(40, PerFrameFunctionalGroupsSequence=per_frame(PlanePositionSequence=groups))
    resolved, _, notices = resolve(dataset)
    found = np.array(resolved.columns["ImagePositionPatient"])
    assert np.isnan(found[[7, 8]]).all()
    assert np.isfinite(np.delete(found, [7, 8], 0)).all()
    assert len(notices) == 1


def test_windows_of_many_frames_with_lists_and_odd_widths() -> None:
    groups: list[dict[str, Any] | None] = [
        {"WindowCenter": k, "WindowWidth": 10} for k in range(40)
    ]
    groups[3] = {"WindowCenter": [1, 2], "WindowWidth": [3, 4]}
    groups[4] = {"WindowCenter": 1, "WindowWidth": 0}
    groups[5] = {"WindowCenter": 1, "WindowWidth": 10, "VOILUTFunction": "SIGMOID"}
    dataset = image(40, PerFrameFunctionalGroupsSequence=per_frame(FrameVOILUTSequence=groups))
    resolved, _, notices = resolve(dataset)
    assert resolved.columns["WindowCenter"][2:7] == [2, 1, 1, 1, 6]
    assert resolved.columns["WindowWidth"][2:7] == [10, 3, 0, 10, 10]
    assert resolved.columns["windows"][2:5] == ["", "1.0\\3.0\\2.0\\4.0", ""]
    assert resolved.columns["VOILUTFunction"][4:7] == ["", "SIGMOID", ""]
    assert len(notices) == 1


# Geometry and time

AXIAL = [1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("vector", [[0, 2.5, 5], [10, 12.5, 15]])
def test_dose_planes(vector: list[float]) -> None:
    dataset = image(
        3,
        Modality="RTDOSE",
        GridFrameOffsetVector=vector,
        ImagePositionPatient=[1, 2, 10],
        ImageOrientationPatient=AXIAL,
    )
    assert columns(dataset)["ImagePositionPatient"] == [(1, 2, 10), (1, 2, 12.5), (1, 2, 15)]


def test_relative_dose_planes_follow_the_normal() -> None:
    dataset = image(
        2,
        Modality="RTDOSE",
        GridFrameOffsetVector=[0, 3],
        ImagePositionPatient=[1, 2, 10],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],  # coronal: x cross -z is y
    )
    assert columns(dataset)["ImagePositionPatient"] == [(1, 2, 10), (1, 5, 10)]


def test_dose_planes_without_a_usable_vector_have_no_position() -> None:
    dataset = image(
        2,
        Modality="RTDOSE",
        GridFrameOffsetVector=[7, 9],
        ImagePositionPatient=[1, 2, 10],
        ImageOrientationPatient=AXIAL,
    )
    resolved, _, notices = resolve(dataset)
    first, second = resolved.columns["ImagePositionPatient"]
    assert first == (1, 2, 10)
    assert all(map(math.isnan, second))
    assert "GridFrameOffsetVector" in notices[0]


def nuclear(kind: str) -> Dataset:
    detector = item(ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=AXIAL)
    return image(
        3,
        Modality="NM",
        ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"],
        SliceVector=[1, 2, 3],
        SpacingBetweenSlices=4,
        DetectorInformationSequence=[detector],
    )


def test_slices_of_a_reconstruction_have_positions() -> None:
    found = columns(nuclear("RECON TOMO"))
    assert found["ImagePositionPatient"] == [(0, 0, 0), (0, 0, 4), (0, 0, 8)]
    assert found["ImageOrientationPatient"] == tuple(AXIAL)


@pytest.mark.parametrize("kind", ["STATIC", "DYNAMIC", "TOMO"])
def test_other_nuclear_frames_have_none(kind: str) -> None:
    assert "ImagePositionPatient" not in columns(nuclear(kind))


@pytest.mark.parametrize(
    ("sequence", "keyword", "values"),
    [
        ("PixelMeasuresSequence", "SpacingBetweenSlices", [4, 5]),
        ("PlaneOrientationSequence", "ImageOrientationPatient", [AXIAL, [0, 1, 0, 0, 0, 1]]),
    ],
)
@pytest.mark.parametrize("modality", ["NM", "RTDOSE"])
def test_planes_are_not_placed_by_what_differs_from_frame_to_frame(
    modality: str, sequence: str, keyword: str, values: list[Any]
) -> None:
    dataset = image(
        2,
        Modality=modality,
        ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO"],
        SliceVector=[1, 2],
        GridFrameOffsetVector=[0, 3],
        SpacingBetweenSlices=3,
        ImagePositionPatient=[1, 2, 10],
        ImageOrientationPatient=AXIAL,
        PerFrameFunctionalGroupsSequence=per_frame(**{sequence: [{keyword: v} for v in values]}),
    )
    placed = columns(dataset).get("ImagePositionPatient", [(math.nan,)])
    if modality == "RTDOSE" and keyword == "SpacingBetweenSlices":
        assert placed == [(1, 2, 10), (1, 2, 13)]  # the vector alone says where dose planes are
    else:
        assert all(map(math.isnan, placed[-1]))


def tiled(frames: int, **values: Any) -> Dataset:
    return image(
        frames,
        Modality="SM",
        Rows=256,
        Columns=256,
        TotalPixelMatrixColumns=500,
        TotalPixelMatrixRows=300,
        PixelData=b"",
        **({"DimensionOrganizationType": "TILED_FULL"} | values),
    )


def test_full_tiles_run_along_columns_then_rows() -> None:
    found = columns(tiled(4))
    assert found["tile_column"] == [1, 257, 1, 257]
    assert found["tile_row"] == [1, 1, 257, 257]


def test_full_tiles_run_through_planes_then_optical_paths() -> None:
    paths = [item(OpticalPathIdentifier="a"), item(OpticalPathIdentifier="b")]
    dataset = tiled(16, TotalPixelMatrixFocalPlanes=2, OpticalPathSequence=paths)
    found = columns(dataset)
    assert found["tile_column"] == [1, 257] * 8
    assert found["InStackPositionNumber"] == ([1] * 4 + [2] * 4) * 2
    assert found["OpticalPathIdentifier"] == ["a"] * 8 + ["b"] * 8


def test_a_part_of_a_concatenation_begins_at_its_offset() -> None:
    part = {
        "ConcatenationUID": "1.2.9",
        "InConcatenationNumber": 2,
        "InConcatenationTotalNumber": 2,
        "ConcatenationFrameOffsetNumber": 2,
    }
    found = columns(tiled(2, **part))
    assert (found["tile_column"], found["tile_row"]) == ([1, 257], [257, 257])
    assert {name: found[name] for name in part} == part


def test_tiles_that_do_not_fit_have_no_place() -> None:
    resolved, _, notices = resolve(tiled(5))
    assert "tile_column" not in resolved.columns
    assert "TILED_FULL" in notices[0]


def test_sparse_tiles_say_where_they_are() -> None:
    dataset = tiled(2)
    dataset.DimensionOrganizationType = "TILED_SPARSE"
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        PlanePositionSlideSequence=[
            {"ColumnPositionInTotalImagePixelMatrix": c, "RowPositionInTotalImagePixelMatrix": 1}
            for c in (257, 1)
        ]
    )
    found = columns(dataset)
    assert (found["tile_column"], found["tile_row"]) == ([257, 1], 1)
    assert found["DimensionOrganizationType"] == "TILED_SPARSE"


def test_tiles_say_which_level_of_which_slide_they_are_of() -> None:
    dataset = tiled(
        2,
        DimensionOrganizationType="TILED_SPARSE",
        PyramidUID="1.2.3.4",
        ContainerIdentifier="S-17",
        SpecimenLabelInImage="NO",
        ImageOrientationSlide=[0, -1, 0, -1, 0, 0],
        ImagedVolumeWidth=12.5,
        ImagedVolumeHeight=7.5,
        RecommendedAbsentPixelCIELabValue=[0xFFFF, 0x8080, 0x8080],
        TotalPixelMatrixOriginSequence=[
            item(XOffsetInSlideCoordinateSystem=20.5, YOffsetInSlideCoordinateSystem=40)
        ],
    )
    positions = [{"ZOffsetInSlideCoordinateSystem": z} for z in (0, 1.5)]
    dataset.PerFrameFunctionalGroupsSequence = per_frame(PlanePositionSlideSequence=positions)
    found = columns(dataset)
    expected = {
        "PyramidUID": "1.2.3.4",
        "ContainerIdentifier": "S-17",
        "SpecimenLabelInImage": "NO",
        "ImageOrientationSlide": (0, -1, 0, -1, 0, 0),
        "ImagedVolumeWidth": 12.5,
        "ImagedVolumeHeight": 7.5,
        "RecommendedAbsentPixelCIELabValue": (0xFFFF, 0x8080, 0x8080),
        "TotalPixelMatrixRows": 300,
        "TotalPixelMatrixColumns": 500,
        "total_pixel_matrix_origin": (20.5, 40),
        "ZOffsetInSlideCoordinateSystem": [0, 1.5],
    }
    assert {name: found[name] for name in expected} == expected


def test_an_origin_without_both_offsets_is_none() -> None:
    half = [item(XOffsetInSlideCoordinateSystem=20.5)]
    assert "total_pixel_matrix_origin" not in columns(tiled(4, TotalPixelMatrixOriginSequence=half))


def test_times_of_frames() -> None:
    assert columns(image(4, FrameTimeVector=[0, 33, 34, 33]))["time"] == [0, 33, 67, 100]
    assert columns(image(3, FrameTime=33))["time"] == [0, 33, 66]
    both = {"FrameTime": 40, "FrameTimeVector": [0, 33]}
    assert columns(image(2, **both))["time"] == [0, 33]
    assert columns(image(2, FrameIncrementPointer=0x00181063, **both))["time"] == [0, 40]
    assert "time" not in columns(image(2))


def test_a_short_frame_time_vector_leaves_nan() -> None:
    resolved, _, notices = resolve(image(3, FrameTimeVector=[0, 33]))
    np.testing.assert_array_equal(resolved.columns["time"], [0, 33, math.nan])
    assert "FrameTimeVector has 2 values for 3 frames" in notices[0]


# Columns of the user

SEX = Tag(0x00100040, "CS", "text")
AGE = Tag(0x00101010, "AS", "text")
FLIP = Tag(0x00181314, "DS", "float64")
SERIES = Tag(0x00200011, "IS", "int64")
NAME = Tag(0x00100010, "PN", "text")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_user_columns(syntax: str) -> None:
    dataset = image(
        PatientSex="F", FlipAngle="12.5", SeriesNumber="4", SpecificCharacterSet="ISO_IR 192"
    )
    dataset.PatientName = "Müller^Jürgen"
    tags = {"PatientSex": SEX, "PatientAge": AGE, "FlipAngle": FLIP, "SeriesNumber": SERIES}
    found = columns(dataset, syntax=syntax, tags={**tags, "PatientName": NAME})
    assert found["PatientSex"] == "F"
    assert "PatientAge" not in found
    assert (found["FlipAngle"], found["SeriesNumber"]) == (12.5, 4)
    assert found["PatientName"] == "Müller^Jürgen"


def test_user_columns_follow_the_functional_groups() -> None:
    dataset = image(3, RepetitionTime="100")
    time = Tag(0x00180080, "DS", "float64")
    assert columns(dataset, tags={"RepetitionTime": time})["RepetitionTime"] == 100
    dataset.PerFrameFunctionalGroupsSequence = per_frame(
        FrameContentSequence=[
            {"FrameComments": "a"},
            {"FrameComments": "b"},
            {"StackID": "1"},
        ]
    )
    comments = Tag(0x00209158, "LT", "text")
    found = columns(dataset, tags={"FrameComments": comments})
    assert found["FrameComments"] == ["a", "b", ""]


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: float(f"{x:.6g}")),
            st.integers(-(2**31), 2**31 - 1),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_per_frame_numbers_come_back(values: list[tuple[float, int]]) -> None:
    """Few or many, repeated or not: each frame gets its own."""
    dataset = image(
        len(values),
        PerFrameFunctionalGroupsSequence=per_frame(
            PlanePositionSequence=[{"ImagePositionPatient": [x, 0, x]} for x, _ in values],
            PlanePositionSlideSequence=[
                {"ColumnPositionInTotalImagePixelMatrix": n} for _, n in values
            ],
        ),
    )
    resolved, pixel, notices = resolve(dataset)
    assert notices == []
    assert pixel.rows == 2
    for name, expected in (
        ("ImagePositionPatient", [(x, 0, x) for x, _ in values]),
        ("tile_column", [n for _, n in values]),
    ):
        found = resolved.columns[name]
        assert (found if isinstance(found, list) else [found] * len(values)) == expected
