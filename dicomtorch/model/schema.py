"""The columns of an index: names, kinds and what stands for "missing". There are no nulls.

A name in CamelCase is the DICOM keyword whose value it holds, resolved for the frame (per-frame, then shared functional
group, then top level); a name in snake_case is ours.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

VERSION = 3
"""Raised whenever a column is added, dropped or means something else; an index of another version is rebuilt."""

Kind = Literal[
    "int8", "int32", "int64", "float64", "float64[2]", "float64[3]", "float64[6]", "text", "bytes"
]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: As in the table.
        kind: "text" is dictionary-encoded UTF-8 with int32 codes, "float64[n]" a fixed-size list.
    """

    name: str
    kind: Kind

    @property
    def missing(self) -> Any:
        """What stands for an absent value: -1, nan, a tuple of nan, "" or b""."""
        if self.kind == "text":
            return ""
        if self.kind == "bytes":
            return b""
        if self.kind == "float64":
            return math.nan
        if self.width > 1:
            return (math.nan,) * self.width
        return -1

    @property
    def width(self) -> int:
        """Numbers per row."""
        return int(self.kind[8:-1]) if self.kind.endswith("]") else 1

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of one number, int32 for the codes of text."""
        if self.kind == "text":
            return np.dtype(np.int32)
        if self.kind == "bytes":
            return np.dtype(object)
        return np.dtype(self.kind.partition("[")[0])


_WIDTH = 100  # of a terminal


class Columns(tuple[Column, ...]):
    """The columns of a table; shown are their names, by kind."""

    __slots__ = ()

    def __repr__(self) -> str:
        names: dict[str, list[str]] = {}
        for column in self:
            names.setdefault(column.kind, []).append(column.name)
        width = max(map(len, names), default=0) + 2
        return "\n".join(
            textwrap.fill(
                " ".join(some),
                _WIDTH,
                initial_indent=kind.ljust(width),
                subsequent_indent=" " * width,
                break_long_words=False,
            )
            for kind, some in names.items()
        )


def _columns(**kinds: Kind) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for name, kind in kinds.items())


FRAMES = _columns(
    # Where the frame is. `file` is a row of the files table, `frame` counts from 0 inside its file.
    file="int32",
    frame="int32",
    offset="int64",
    length="int64",
    fragments="int32",
    bit_offset="int8",
    true_length="int64",
    span_rule="int8",  # position in attributes.SPAN_RULES
    # Whose it is.
    SOPInstanceUID="text",
    SeriesInstanceUID="text",
    StudyInstanceUID="text",
    FrameOfReferenceUID="text",
    SOPClassUID="text",
    PatientID="text",
    IssuerOfPatientID="text",
    patient="int32",  # dense number of the patient in this index; the study where PatientID is empty
    # Image Pixel Module; `image_pixel` numbers the distinct ones, `pixel_data_vr` is OB, OW, OF or OD.
    image_pixel="int32",
    TransferSyntaxUID="text",
    Rows="int32",
    Columns="int32",
    SamplesPerPixel="int8",
    PhotometricInterpretation="text",
    BitsAllocated="int8",
    BitsStored="int8",
    HighBit="int8",
    PixelRepresentation="int8",
    PlanarConfiguration="int8",
    pixel_data_vr="text",
    frame_values="int32",  # numbers the distinct combinations of the Image Pixel Module and the values below
    # Values. A `*_lut` is a row of the lookup table; palette, palette + 1, palette + 2 are red, green, blue.
    RescaleSlope="float64",
    RescaleIntercept="float64",
    RescaleType="text",
    Units="text",
    modality_lut="int32",
    voi_lut="int32",
    voi_lut_count="int32",
    WindowCenter="float64",  # the first window
    WindowWidth="float64",
    windows="text",  # all of them, "c\\w\\c\\w", where there is more than one
    VOILUTFunction="text",
    PresentationLUTShape="text",
    palette="int32",
    PixelPresentation="text",
    PixelPaddingValue="float64",
    PixelPaddingRangeLimit="float64",
    real_world_value_map="int32",
    DoseGridScaling="float64",
    SegmentationType="text",
    MaximumFractionalValue="int32",
    SegmentNumber="int32",
    ReferencedSOPInstanceUID="text",
    suv_factor="float64",  # modality values times this are SUVbw
    suv_problem="text",  # or why there is none: the keyword to blame and a reason
    # What `suv_factor` is made of when a series is whole; moments in seconds after the injection, no dates.
    suv_at_injection="float64",
    suv_half_life="float64",
    suv_series_start="float64",
    suv_acquisition="float64",
    suv_scan_start="float64",  # where Series Time does not say when the scan began; nan: `suv_problem` says why not
    # Geometry, in millimetres, patient coordinates (LPS).
    ImagePositionPatient="float64[3]",
    ImageOrientationPatient="float64[6]",
    PixelSpacing="float64[2]",
    SliceThickness="float64",
    SpacingBetweenSlices="float64",
    coordinates="text",  # "VOLUME" where position and orientation are in the Volume Frame of Reference, else ""
    mosaic="text",  # rows and columns of a tile, and the position of each slice of a sheet: "r\\c\\x\\y\\z\\x\\y\\z..."
    # Slides (PS3.3 C.8.12.4, C.7.6.17.3): the level that a tile is of, and where on the glass that is.
    tile_column="int32",  # Column and Row Position In Total Image Pixel Matrix, from 1
    tile_row="int32",
    ZOffsetInSlideCoordinateSystem="float64",  # in micrometres, of tiles that say it
    OpticalPathIdentifier="text",
    DimensionOrganizationType="text",
    TotalPixelMatrixRows="int32",
    TotalPixelMatrixColumns="int32",
    total_pixel_matrix_origin="float64[2]",  # X and Y Offset In Slide Coordinate System, in millimetres
    ImageOrientationSlide="float64[6]",
    ImagedVolumeWidth="float64",  # in millimetres
    ImagedVolumeHeight="float64",
    PyramidUID="text",
    ContainerIdentifier="text",
    SpecimenLabelInImage="text",
    RecommendedAbsentPixelCIELabValue="float64[3]",  # as it is encoded, 0 to 65535
    # Parts of one multi-frame image (PS3.3 C.7.6.16.2.2.4).
    ConcatenationUID="text",
    InConcatenationNumber="int32",
    InConcatenationTotalNumber="int32",
    ConcatenationFrameOffsetNumber="int64",
    # What separates frames at one position.
    Modality="text",
    ImageType="text",
    InstanceNumber="int32",
    AcquisitionNumber="int32",
    StackID="text",
    InStackPositionNumber="int32",
    TemporalPositionIndex="int32",
    DimensionIndexValues="text",
    dimension="text",  # DimensionIndexValues without those that count positions
    FrameTime="float64",  # nominal, ms
    time="float64",  # of this frame since the first of its file, ms
    AcquisitionTime="float64",  # seconds since midnight
    ContentTime="float64",  # the same
    FrameReferenceTime="float64",  # ms
    TriggerTime="float64",
    EchoTime="float64",
    EchoNumbers="int32",
    InversionTime="float64",
    FlipAngle="float64",
    DiffusionBValue="float64",
    DiffusionGradientOrientation="float64[3]",  # patient coordinates (LPS); nan where there is no direction
    diffusion_source="text",  # whose private elements gave these two, "" for the standard ones
    NominalPercentageOfCardiacPhase="float64",
    NominalPercentageOfRespiratoryPhase="float64",
    TimeSlotVector="int32",  # Nuclear Medicine: a value for each frame
    RRIntervalVector="int32",
    PhaseVector="int32",
    EnergyWindowVector="int32",
    DetectorVector="int32",
    DataType="text",  # of ultrasound
    ComplexImageComponent="text",
    ConvolutionKernel="text",
    ContrastBolusAgent="text",
    KVP="float64",
    # Warnings.
    BurnedInAnnotation="text",
    RecognizableVisualFeatures="text",
)

FILES = _columns(
    # Which bytes: a file or an object, and what tells that it is still the one that was read.
    path="bytes",  # below the root of the index, as the file system has it; of a member "archive!/name"
    size="int64",  # -1: not known
    mtime_ns="int64",  # -1: it could not be opened, 0: not known
    inode="int64",  # 0: not known
    version="text",  # of an object in a store (ETag), "" of a file
    # Where in an archive: offsets of frames count in the archive, or in the inflated member.
    container="int8",  # position in schema.CONTAINERS
    member="text",  # its name in the archive
    member_offset="int64",  # of its first byte in the archive, and how many there are
    member_length="int64",
    member_size="int64",  # when inflated
    member_crc="int64",  # CRC-32 of a deflated member
    # What was read.
    deflated="int8",  # 1: the data set is deflated, spans are offsets into the inflated bytes
    file_class="int8",  # position in attributes.FILE_CLASSES
    reason="text",
    notices="text",  # what was odd, "; " between two
    first_row="int64",  # -1 without frames
    frames="int64",  # rows of the frames table
    claimed_frames="int64",  # NumberOfFrames as the header says, -1 if absent
    mask_object="bytes",  # of a SEG or RTSTRUCT: its segments, references and contours, see mask_object.MaskObject
    found_frames="int64",  # that the pixel data hold, which may be more than are claimed, -1 if nobody looked
)

CONTAINERS = ("none", "stored", "deflated", "web")
"""What `files["container"]` numbers: a plain file or object, a member of an archive as it is or deflated, and an
instance whose frames a DICOMweb server sends one by one."""

MEMBER_MARK = b"!/"
"""Stands between the path of an archive and the name of a member in `files["path"]`."""

LOOKUPS = _columns(
    kind="text",  # "lut" or "real_world_value_map"
    first_mapped="float64",
    last_mapped="float64",
    bits="int32",
    slope="float64",
    intercept="float64",
    units="text",
    data="bytes",  # little endian uint16 for a LUT, float64 in a real world value map
)

FRAME_COLUMNS = {column.name: column for column in FRAMES}

IMAGE_PIXEL = (
    "TransferSyntaxUID",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "pixel_data_vr",
)
"""The columns that make an `ImagePixel`, in the order of its fields."""

FRAME_VALUES = (
    "image_pixel",
    "Modality",
    "SOPClassUID",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "modality_lut",
    "voi_lut",
    "voi_lut_count",
    "WindowCenter",
    "WindowWidth",
    "windows",
    "VOILUTFunction",
    "PresentationLUTShape",
    "palette",
    "PixelPresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "real_world_value_map",
    "DoseGridScaling",
    "SegmentationType",
    "MaximumFractionalValue",
    "suv_factor",
    "suv_problem",
)
"""The columns that make a `FrameValues`."""

LUT_COLUMNS = ("modality_lut", "voi_lut", "palette", "real_world_value_map")
"""The columns that number rows of the lookup table."""
