"""Slides that tests write: whole slide images in levels, with pixels that tests know."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

from tests.support.phantoms import encapsulated, group, write

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
Pixels = npt.NDArray[Any]
Places = Sequence[tuple[int, int]]


def tissue(rows: int, columns: int, seed: int = 0) -> Pixels:
    """(rows, columns, 3) uint8: white glass with a pink and a violet blob of grainy tissue."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns] / np.array([rows, columns])[:, None, None]
    pixels = np.full((rows, columns, 3), 243.0)
    for cy, cx, radius, color in (
        (0.35, 0.3, 0.22, (214, 120, 170)),
        (0.65, 0.7, 0.22, (110, 70, 160)),
    ):
        pixels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = color
    noisy = pixels + rng.normal(0, 6, pixels.shape)
    return np.asarray(noisy.clip(0, 255).astype(np.uint8))


def halved(pixels: Pixels, times: int = 1) -> Pixels:
    """A level with half the rows and columns: means of four pixels."""
    for _ in range(times):
        rows, columns = (n // 2 * 2 for n in pixels.shape[:2])
        even = pixels[:rows, :columns].astype(np.float64)
        quarters = [even[a::2, b::2] for a in (0, 1) for b in (0, 1)]
        pixels = np.rint(sum(quarters) / 4).astype(np.uint8)
    return pixels


def tiles_of(pixels: Pixels, tile: int, places: Places, beyond: int = 17) -> list[Pixels]:
    """Squares that begin at `places` (row, column from 0); what is beyond the picture has the value `beyond`."""
    shape = (pixels.shape[0] + 4 * tile, pixels.shape[1] + 4 * tile, *pixels.shape[2:])
    wide = np.full(shape, beyond, pixels.dtype)
    wide[: pixels.shape[0], : pixels.shape[1]] = pixels
    return [wide[r : r + tile, c : c + tile] for r, c in places]


def every_place(pixels: Pixels, tile: int) -> list[tuple[int, int]]:
    """Where the tiles of TILED_FULL begin, in their order."""
    rows, columns = pixels.shape[:2]
    return [(r, c) for r in range(0, rows, tile) for c in range(0, columns, tile)]


def level(
    pixels: Pixels,
    tile: int = 16,
    spacing: float = 0.0005,
    *,
    number: int = 1,
    places: Places | None = None,
    encode: Callable[[Pixels], bytes] | None = None,
    syntax: str = ExplicitVRLittleEndian,
    **attributes: Any,
) -> Dataset:
    """One level of a slide as a multi-frame image.

    Args:
        pixels: The total pixel matrix; (n, rows, columns, 3) for several optical paths in one TILED_FULL file.
        tile: Rows and columns of a tile.
        spacing: Millimetres.
        number: Instance Number; instances of one number have one SOPInstanceUID.
        places: Rows and columns, from 0, of the tiles of a TILED_SPARSE file; `None`: TILED_FULL.
        encode: A tile -> its code stream.
        syntax: Of the code streams.
        **attributes: Of the data set.
    """
    paths = pixels if pixels.ndim == 4 else pixels[None]
    where = every_place(paths[0], tile) if places is None else places
    frames = [frame for each in paths for frame in tiles_of(each, tile, where)]
    dataset = _data_set(paths[0], tile, spacing, number)
    dataset.NumberOfFrames = len(frames)
    dataset.OpticalPathSequence = Items([_optical_path(k) for k in range(len(paths))])
    dataset.NumberOfOpticalPaths = len(paths)
    if places is not None:
        dataset.DimensionOrganizationType = "TILED_SPARSE"
        dataset.PerFrameFunctionalGroupsSequence = Items([_place(*place) for place in places])
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    shared = dataset.get("SharedFunctionalGroupsSequence")
    if shared:
        shared[0].WholeSlideMicroscopyImageFrameTypeSequence[0].FrameType = list(dataset.ImageType)
    if encode is not None:
        return encapsulated(dataset, [encode(frame) for frame in frames], syntax)
    dataset.PixelData = b"".join(frame.tobytes() for frame in frames)
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    dataset["PixelData"].VR = "OB"
    return dataset


def _data_set(pixels: Pixels, tile: int, spacing: float, number: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian)
    dataset.file_meta.MediaStorageSOPClassUID = UID(WHOLE_SLIDE)
    dataset.SOPClassUID = WHOLE_SLIDE
    dataset.SOPInstanceUID = f"1.2.826.0.1.7.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    given = {
        "StudyInstanceUID": "1.2.826.0.1.5",
        "SeriesInstanceUID": "1.2.826.0.1.6",
        "FrameOfReferenceUID": "1.2.826.0.1.8",
        "PatientID": "patient-1",
        "PatientName": "",
        "PatientBirthDate": "",
        "PatientSex": "F",
        "StudyDate": "20260101",
        "StudyTime": "120000",
        "StudyID": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "Modality": "SM",
        "InstanceNumber": number,
        "ImageType": ["ORIGINAL" if number == 1 else "DERIVED", "PRIMARY", "VOLUME", "NONE"],
        "ContainerIdentifier": "S-17",
        "VolumetricProperties": "VOLUME",
        "SpecimenLabelInImage": "NO",
        "BurnedInAnnotation": "NO",
        "FocusMethod": "AUTO",
        "ExtendedDepthOfField": "NO",
        "LossyImageCompression": "00",
        "AcquisitionDateTime": "20260101120000",
        "ContentDate": "20260101",
        "ContentTime": "120000",
        "Manufacturer": "none",
        "ManufacturerModelName": "none",
        "DeviceSerialNumber": "0",
        "SoftwareVersions": "0",
        "ImagedVolumeWidth": pixels.shape[1] * spacing,
        "ImagedVolumeHeight": pixels.shape[0] * spacing,
        "ImagedVolumeDepth": 0.001,
        "TotalPixelMatrixRows": pixels.shape[0],
        "TotalPixelMatrixColumns": pixels.shape[1],
        "TotalPixelMatrixFocalPlanes": 1,
        "TotalPixelMatrixOriginSequence": Items(
            [group(XOffsetInSlideCoordinateSystem=21.5, YOffsetInSlideCoordinateSystem=40.25)]
        ),
        "ImageOrientationSlide": [0, -1, 0, -1, 0, 0],
        "DimensionOrganizationType": "TILED_FULL",
        "Rows": tile,
        "Columns": tile,
        "SamplesPerPixel": 3 if pixels.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "SharedFunctionalGroupsSequence": Items(
            [
                group(
                    PixelMeasuresSequence=Items(
                        [group(PixelSpacing=[spacing, spacing], SliceThickness=0.001)]
                    ),
                    WholeSlideMicroscopyImageFrameTypeSequence=Items(
                        [group(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])]
                    ),
                    OpticalPathIdentificationSequence=Items([group(OpticalPathIdentifier="0")]),
                )
            ]
        ),
    }
    if pixels.ndim == 3:
        given["PlanarConfiguration"] = 0
    for keyword, value in given.items():
        setattr(dataset, keyword, value)
    return dataset


def _place(row: int, column: int, height: float = 0.0, path: str = "0") -> Dataset:
    """The functional groups of a sparse tile."""
    position = group(
        ColumnPositionInTotalImagePixelMatrix=column + 1,
        RowPositionInTotalImagePixelMatrix=row + 1,
        XOffsetInSlideCoordinateSystem=0,
        YOffsetInSlideCoordinateSystem=0,
        ZOffsetInSlideCoordinateSystem=height,
    )
    return group(
        PlanePositionSlideSequence=Items([position]),
        FrameContentSequence=Items([group(DimensionIndexValues=[row + 1, column + 1])]),
        OpticalPathIdentificationSequence=Items([group(OpticalPathIdentifier=path)]),
    )


def sparse_groups(places: Sequence[tuple[int, int, float, str]]) -> Items:
    """Per-frame functional groups of tiles: row, column, height in micrometres, optical path."""
    return Items([_place(*place) for place in places])


def _optical_path(number: int) -> Dataset:
    illumination = group(
        CodeValue="111744", CodingSchemeDesignator="DCM", CodeMeaning="Brightfield illumination"
    )
    color = group(CodeValue="414298005", CodingSchemeDesignator="SCT", CodeMeaning="Full Spectrum")
    return group(
        OpticalPathIdentifier=str(number),
        IlluminationTypeCodeSequence=Items([illumination]),
        IlluminationColorCodeSequence=Items([color]),
    )


def jpeg(frame: Pixels) -> bytes:
    """A tile as baseline JPEG, in YBR_FULL_422."""
    import imagecodecs

    return bytes(imagecodecs.jpeg8_encode(frame, level=90, subsampling="422"))


JPEG: dict[str, Any] = {
    "encode": jpeg,
    "syntax": "1.2.840.10008.1.2.4.50",
    "PhotometricInterpretation": "YBR_FULL_422",
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": 5,
    "LossyImageCompressionMethod": "ISO_10918_1",
}
"""What makes the tiles of a level JPEG."""


def write_slide(
    folder: Path,
    rows: int = 100,
    columns: int = 76,
    tile: int = 16,
    levels: int = 3,
    **options: Any,
) -> Pixels:
    """A slide in levels of halved resolution, one file each, numbered from the coarsest; returns the finest level."""
    name = options.pop("name", "level")
    whole = tissue(rows, columns, zlib.crc32(str(folder.name).encode()))
    for k in range(levels):
        dataset = level(halved(whole, k), tile, 0.0005 * 2**k, number=levels - k, **options)
        write(dataset, folder / f"{name}{levels - k}.dcm")
    return whole
