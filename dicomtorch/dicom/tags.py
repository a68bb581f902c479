"""The attributes that the package reads, their tags and value representations (PS3.6 section 6).

A small table instead of the whole dictionary: importing it costs nothing, and it is all that reading Implicit VR needs.
"""

from __future__ import annotations

from typing import Final

KEYWORDS: Final[dict[str, tuple[int, str]]] = {
    # File meta.
    "TransferSyntaxUID": (0x00020010, "UI"),
    # Identity.
    "SpecificCharacterSet": (0x00080005, "CS"),
    "SOPClassUID": (0x00080016, "UI"),
    "SOPInstanceUID": (0x00080018, "UI"),
    "SeriesInstanceUID": (0x0020000E, "UI"),
    "StudyInstanceUID": (0x0020000D, "UI"),
    "FrameOfReferenceUID": (0x00200052, "UI"),
    "PatientID": (0x00100020, "LO"),
    "IssuerOfPatientID": (0x00100021, "LO"),
    "Modality": (0x00080060, "CS"),
    "ImageType": (0x00080008, "CS"),
    "Manufacturer": (0x00080070, "LO"),
    "ImageComments": (0x00204000, "LT"),
    "BurnedInAnnotation": (0x00280301, "CS"),
    "RecognizableVisualFeatures": (0x00280302, "CS"),
    # Where the frames are: cine, concatenations, offset tables.
    "NumberOfFrames": (0x00280008, "IS"),
    "FrameIncrementPointer": (0x00280009, "AT"),
    "FrameTime": (0x00181063, "DS"),
    "FrameTimeVector": (0x00181065, "DS"),
    "CineRate": (0x00180040, "IS"),
    "RecommendedDisplayFrameRate": (0x00082144, "IS"),
    "ConcatenationUID": (0x00209161, "UI"),
    "InConcatenationNumber": (0x00209162, "US"),
    "InConcatenationTotalNumber": (0x00209163, "US"),
    "ConcatenationFrameOffsetNumber": (0x00209228, "UL"),
    "SOPInstanceUIDOfConcatenationSource": (0x00200242, "UI"),
    "ExtendedOffsetTable": (0x7FE00001, "OV"),
    "ExtendedOffsetTableLengths": (0x7FE00002, "OV"),
    "EncapsulatedPixelDataValueTotalLength": (0x7FE00003, "UV"),
    "PixelDataProviderURL": (0x00287FE0, "UR"),
    # Image Pixel Module.
    "SamplesPerPixel": (0x00280002, "US"),
    "PhotometricInterpretation": (0x00280004, "CS"),
    "PlanarConfiguration": (0x00280006, "US"),
    "Rows": (0x00280010, "US"),
    "Columns": (0x00280011, "US"),
    "BitsAllocated": (0x00280100, "US"),
    "BitsStored": (0x00280101, "US"),
    "HighBit": (0x00280102, "US"),
    "PixelRepresentation": (0x00280103, "US"),
    "PixelPaddingValue": (0x00280120, "US"),
    "PixelPaddingRangeLimit": (0x00280121, "US"),
    "FloatPixelPaddingValue": (0x00280122, "FL"),
    "DoubleFloatPixelPaddingValue": (0x00280123, "FD"),
    "FloatPixelPaddingRangeLimit": (0x00280124, "FL"),
    "DoubleFloatPixelPaddingRangeLimit": (0x00280125, "FD"),
    "LossyImageCompression": (0x00282110, "CS"),
    "RedPaletteColorLookupTableDescriptor": (0x00281101, "US"),
    "GreenPaletteColorLookupTableDescriptor": (0x00281102, "US"),
    "BluePaletteColorLookupTableDescriptor": (0x00281103, "US"),
    "RedPaletteColorLookupTableData": (0x00281201, "OW"),
    "GreenPaletteColorLookupTableData": (0x00281202, "OW"),
    "BluePaletteColorLookupTableData": (0x00281203, "OW"),
    "SegmentedRedPaletteColorLookupTableData": (0x00281221, "OW"),
    "SegmentedGreenPaletteColorLookupTableData": (0x00281222, "OW"),
    "SegmentedBluePaletteColorLookupTableData": (0x00281223, "OW"),
    # Values.
    "RescaleSlope": (0x00281053, "DS"),
    "RescaleIntercept": (0x00281052, "DS"),
    "RescaleType": (0x00281054, "LO"),
    "ModalityLUTSequence": (0x00283000, "SQ"),
    "LUTDescriptor": (0x00283002, "US"),
    "LUTData": (0x00283006, "OW"),
    "ModalityLUTType": (0x00283004, "LO"),
    "WindowCenter": (0x00281050, "DS"),
    "WindowWidth": (0x00281051, "DS"),
    "VOILUTFunction": (0x00281056, "CS"),
    "VOILUTSequence": (0x00283010, "SQ"),
    "PresentationLUTShape": (0x20500020, "CS"),
    "PixelPresentation": (0x00089205, "CS"),
    "RealWorldValueMappingSequence": (0x00409096, "SQ"),
    "RealWorldValueFirstValueMapped": (0x00409216, "US"),
    "RealWorldValueLastValueMapped": (0x00409211, "US"),
    "DoubleFloatRealWorldValueFirstValueMapped": (0x00409214, "FD"),
    "DoubleFloatRealWorldValueLastValueMapped": (0x00409213, "FD"),
    "RealWorldValueSlope": (0x00409225, "FD"),
    "RealWorldValueIntercept": (0x00409224, "FD"),
    "RealWorldValueLUTData": (0x00409212, "FD"),
    "MeasurementUnitsCodeSequence": (0x004008EA, "SQ"),
    "CodeValue": (0x00080100, "SH"),
    "LongCodeValue": (0x00080119, "UC"),
    "URNCodeValue": (0x00080120, "UR"),
    "DoseGridScaling": (0x3004000E, "DS"),
    "DoseUnits": (0x30040002, "CS"),
    "DoseType": (0x30040004, "CS"),
    "SegmentationType": (0x00620001, "CS"),
    "MaximumFractionalValue": (0x0062000E, "US"),
    "SegmentSequence": (0x00620002, "SQ"),
    "SegmentNumber": (0x00620004, "US"),
    "SegmentLabel": (0x00620005, "LO"),
    "SegmentAlgorithmType": (0x00620008, "CS"),
    "SegmentedPropertyCategoryCodeSequence": (0x00620003, "SQ"),
    "SegmentedPropertyTypeCodeSequence": (0x0062000F, "SQ"),
    "SegmentedPropertyTypeModifierCodeSequence": (0x00620011, "SQ"),
    "AnatomicRegionSequence": (0x00082218, "SQ"),
    "CodingSchemeDesignator": (0x00080102, "SH"),
    "CodeMeaning": (0x00080104, "LO"),
    "TrackingUID": (0x00620021, "UI"),
    "SpatialLocationsPreserved": (0x0028135A, "CS"),
    # Structure sets.
    "StructureSetDate": (0x30060008, "DA"),
    "StructureSetTime": (0x30060009, "TM"),
    "ReferencedFrameOfReferenceSequence": (0x30060010, "SQ"),
    "RTReferencedStudySequence": (0x30060012, "SQ"),
    "RTReferencedSeriesSequence": (0x30060014, "SQ"),
    "ContourImageSequence": (0x30060016, "SQ"),
    "StructureSetROISequence": (0x30060020, "SQ"),
    "ROINumber": (0x30060022, "IS"),
    "ReferencedFrameOfReferenceUID": (0x30060024, "UI"),
    "ROIName": (0x30060026, "LO"),
    "ROIGenerationAlgorithm": (0x30060036, "CS"),
    "ROIContourSequence": (0x30060039, "SQ"),
    "ContourSequence": (0x30060040, "SQ"),
    "ContourGeometricType": (0x30060042, "CS"),
    "NumberOfContourPoints": (0x30060046, "IS"),
    "ContourData": (0x30060050, "DS"),
    "RTROIObservationsSequence": (0x30060080, "SQ"),
    "ReferencedROINumber": (0x30060084, "IS"),
    "RTROIInterpretedType": (0x300600A4, "CS"),
    # Geometry.
    "ImagePositionPatient": (0x00200032, "DS"),
    "ImageOrientationPatient": (0x00200037, "DS"),
    "PixelSpacing": (0x00280030, "DS"),
    "SliceThickness": (0x00180050, "DS"),
    "SpacingBetweenSlices": (0x00180088, "DS"),
    "SliceLocation": (0x00201041, "DS"),
    "GridFrameOffsetVector": (0x3004000C, "DS"),
    "SliceVector": (0x00540080, "US"),
    "NumberOfSlices": (0x00540081, "US"),
    "DetectorInformationSequence": (0x00540022, "SQ"),
    "EnergyWindowVector": (0x00540010, "US"),
    "DetectorVector": (0x00540020, "US"),
    "PhaseVector": (0x00540030, "US"),
    "RotationVector": (0x00540050, "US"),
    "RRIntervalVector": (0x00540060, "US"),
    "TimeSlotVector": (0x00540070, "US"),
    "AngularViewVector": (0x00540090, "US"),
    "TimeSliceVector": (0x00540100, "US"),
    # Slides.
    "DimensionOrganizationType": (0x00209311, "CS"),
    "TotalPixelMatrixColumns": (0x00480006, "UL"),
    "TotalPixelMatrixRows": (0x00480007, "UL"),
    "TotalPixelMatrixFocalPlanes": (0x00480303, "UL"),
    "TotalPixelMatrixOriginSequence": (0x00480008, "SQ"),
    "XOffsetInSlideCoordinateSystem": (0x0040072A, "DS"),
    "YOffsetInSlideCoordinateSystem": (0x0040073A, "DS"),
    "ZOffsetInSlideCoordinateSystem": (0x0040074A, "DS"),
    "ImageOrientationSlide": (0x00480102, "DS"),
    "ImagedVolumeWidth": (0x00480001, "FL"),
    "ImagedVolumeHeight": (0x00480002, "FL"),
    "PyramidUID": (0x00080019, "UI"),
    "ContainerIdentifier": (0x00400512, "LO"),
    "RecommendedAbsentPixelCIELabValue": (0x00480015, "US"),
    "NumberOfOpticalPaths": (0x00480302, "UL"),
    "OpticalPathSequence": (0x00480105, "SQ"),
    "OpticalPathIdentifier": (0x00480106, "SH"),
    "OpticalPathIdentificationSequence": (0x00480207, "SQ"),
    "PlanePositionSlideSequence": (0x0048021A, "SQ"),
    "ColumnPositionInTotalImagePixelMatrix": (0x0048021E, "SL"),
    "RowPositionInTotalImagePixelMatrix": (0x0048021F, "SL"),
    "SpecimenLabelInImage": (0x00480010, "CS"),
    # Functional groups.
    "SharedFunctionalGroupsSequence": (0x52009229, "SQ"),
    "PerFrameFunctionalGroupsSequence": (0x52009230, "SQ"),
    "PixelMeasuresSequence": (0x00289110, "SQ"),
    "PlanePositionSequence": (0x00209113, "SQ"),
    "PlaneOrientationSequence": (0x00209116, "SQ"),
    "PlanePositionVolumeSequence": (0x0020930E, "SQ"),
    "PlaneOrientationVolumeSequence": (0x0020930F, "SQ"),
    "ImagePositionVolume": (0x00209301, "FD"),
    "ImageOrientationVolume": (0x00209302, "FD"),
    "PixelValueTransformationSequence": (0x00289145, "SQ"),
    "FrameVOILUTSequence": (0x00289132, "SQ"),
    "FrameContentSequence": (0x00209111, "SQ"),
    "FrameAcquisitionNumber": (0x00209156, "US"),
    "FrameReferenceDateTime": (0x00189151, "DT"),
    "FrameAcquisitionDateTime": (0x00189074, "DT"),
    "FrameAcquisitionDuration": (0x00189220, "FD"),
    "StackID": (0x00209056, "SH"),
    "InStackPositionNumber": (0x00209057, "UL"),
    "TemporalPositionIndex": (0x00209128, "UL"),
    "TemporalPositionSequence": (0x00209310, "SQ"),
    "TemporalPositionTimeOffset": (0x0020930D, "FD"),
    "DimensionIndexValues": (0x00209157, "UL"),
    "DimensionIndexSequence": (0x00209222, "SQ"),
    "DimensionIndexPointer": (0x00209165, "AT"),
    "FunctionalGroupPointer": (0x00209167, "AT"),
    "MREchoSequence": (0x00189114, "SQ"),
    "EffectiveEchoTime": (0x00189082, "FD"),
    "MRDiffusionSequence": (0x00189117, "SQ"),
    "DiffusionBValue": (0x00189087, "FD"),
    "DiffusionDirectionality": (0x00189075, "CS"),
    "DiffusionGradientDirectionSequence": (0x00189076, "SQ"),
    "DiffusionGradientOrientation": (0x00189089, "FD"),
    "MRModifierSequence": (0x00189115, "SQ"),
    "InversionTimes": (0x00189079, "FD"),
    "InPlanePhaseEncodingDirection": (0x00181312, "CS"),
    "ImageDataTypeSequence": (0x00189807, "SQ"),
    "DataType": (0x00189808, "CS"),
    "MRTimingAndRelatedParametersSequence": (0x00189112, "SQ"),
    "RepetitionTime": (0x00180080, "DS"),
    "FlipAngle": (0x00181314, "DS"),
    "CardiacSynchronizationSequence": (0x00189118, "SQ"),
    "NominalPercentageOfCardiacPhase": (0x00209241, "FL"),
    "NominalCardiacTriggerDelayTime": (0x00209153, "FD"),
    "ActualCardiacTriggerDelayTime": (0x00209252, "FD"),
    "RespiratorySynchronizationSequence": (0x00209253, "SQ"),
    "NominalPercentageOfRespiratoryPhase": (0x00209245, "FL"),
    "MRImageFrameTypeSequence": (0x00189226, "SQ"),
    "CTImageFrameTypeSequence": (0x00189329, "SQ"),
    "PETFrameTypeSequence": (0x00189751, "SQ"),
    "WholeSlideMicroscopyImageFrameTypeSequence": (0x00400710, "SQ"),
    "XAXRFFrameCharacteristicsSequence": (0x00189412, "SQ"),
    "FrameType": (0x00089007, "CS"),
    "ComplexImageComponent": (0x00089208, "CS"),
    "CTAcquisitionTypeSequence": (0x00189301, "SQ"),
    "AcquisitionType": (0x00189302, "CS"),
    "CTReconstructionSequence": (0x00189314, "SQ"),
    "ConvolutionKernel": (0x00181210, "SH"),
    "CTXRayDetailsSequence": (0x00189325, "SQ"),
    "KVP": (0x00180060, "DS"),
    "ContrastBolusUsageSequence": (0x00189341, "SQ"),
    "SegmentIdentificationSequence": (0x0062000A, "SQ"),
    "ReferencedSegmentNumber": (0x0062000B, "US"),
    "DerivationImageSequence": (0x00089124, "SQ"),
    "SourceImageSequence": (0x00082112, "SQ"),
    "ReferencedImageSequence": (0x00081140, "SQ"),
    "ReferencedSOPClassUID": (0x00081150, "UI"),
    "ReferencedSOPInstanceUID": (0x00081155, "UI"),
    "ReferencedFrameNumber": (0x00081160, "IS"),
    "ReferencedSeriesSequence": (0x00081115, "SQ"),
    "ReferencedInstanceSequence": (0x0008114A, "SQ"),
    # What separates frames at one position.
    "InstanceNumber": (0x00200013, "IS"),
    "SeriesNumber": (0x00200011, "IS"),
    "AcquisitionNumber": (0x00200012, "IS"),
    "TemporalPositionIdentifier": (0x00200100, "IS"),
    "NumberOfTemporalPositions": (0x00200105, "IS"),
    "TriggerTime": (0x00181060, "DS"),
    "EchoTime": (0x00180081, "DS"),
    "EchoNumbers": (0x00180086, "IS"),
    "InversionTime": (0x00180082, "DS"),
    "ImageIndex": (0x00541330, "US"),
    "ContrastBolusAgent": (0x00180010, "LO"),
    "AcquisitionDate": (0x00080022, "DA"),
    "AcquisitionTime": (0x00080032, "TM"),
    "AcquisitionDateTime": (0x0008002A, "DT"),
    "ContentDate": (0x00080023, "DA"),
    "ContentTime": (0x00080033, "TM"),
    "SeriesDate": (0x00080021, "DA"),
    "SeriesTime": (0x00080031, "TM"),
    "StudyDate": (0x00080020, "DA"),
    "StudyTime": (0x00080030, "TM"),
    # PET.
    "Units": (0x00541001, "CS"),
    "CorrectedImage": (0x00280051, "CS"),
    "DecayCorrection": (0x00541102, "CS"),
    "DecayFactor": (0x00541321, "DS"),
    "SUVType": (0x00541006, "CS"),
    "CountsSource": (0x00541002, "CS"),
    "PatientWeight": (0x00101030, "DS"),
    "PatientSize": (0x00101020, "DS"),
    "PatientSex": (0x00100040, "CS"),
    "FrameReferenceTime": (0x00541300, "DS"),
    "ActualFrameDuration": (0x00181242, "IS"),
    "RadiopharmaceuticalInformationSequence": (0x00540016, "SQ"),
    "RadiopharmaceuticalStartTime": (0x00181072, "TM"),
    "RadiopharmaceuticalStartDateTime": (0x00181078, "DT"),
    "RadiopharmaceuticalStopTime": (0x00181073, "TM"),
    "RadionuclideTotalDose": (0x00181074, "DS"),
    "RadionuclideHalfLife": (0x00181075, "DS"),
    # DICOMDIR.
    "DirectoryRecordSequence": (0x00041220, "SQ"),
    "DirectoryRecordType": (0x00041430, "CS"),
    "ReferencedFileID": (0x00041500, "CS"),
    "ReferencedSOPInstanceUIDInFile": (0x00041511, "UI"),
    # Pixel data.
    "FloatPixelData": (0x7FE00008, "OF"),
    "DoubleFloatPixelData": (0x7FE00009, "OD"),
    "PixelData": (0x7FE00010, "OW"),
}
"""Keyword -> (tag, VR). Where the standard leaves a choice: US for "US or SS", OW for "OB or OW" and "US or OW"."""

VRS: Final[dict[int, str]] = dict(KEYWORDS.values())
"""Tag -> VR, of the same attributes."""

PIXEL_DATA_TAGS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
"""Float, Double Float and plain Pixel Data: where a header ends."""

LOCATED: Final = frozenset((0x30060050,))
"""Values that are not read but located: (offset, length, first bytes) stands for them in a header."""

PRIVATE: Final[dict[str, tuple[int, str, int, str]]] = {
    "PhilipsSUVScaleFactor": (0x7053, "Philips PET Private Group", 0x00, "DS"),
    "PhilipsActivityConcentrationScaleFactor": (0x7053, "Philips PET Private Group", 0x09, "DS"),
    "GEPETScanDateTime": (0x0009, "GEMS_PETD_01", 0x0D, "DT"),
    "SiemensBValue": (0x0019, "SIEMENS MR HEADER", 0x0C, "IS"),
    "SiemensDiffusionGradientDirection": (0x0019, "SIEMENS MR HEADER", 0x0E, "FD"),
    "SiemensNumberOfImagesInMosaic": (0x0019, "SIEMENS MR HEADER", 0x0A, "US"),
    "SiemensCSAImageHeader": (0x0029, "SIEMENS CSA HEADER", 0x10, "OB"),
    "GEBValue": (0x0043, "GEMS_PARM_01", 0x39, "IS"),
    "GEDiffusionDirectionX": (0x0019, "GEMS_ACQU_01", 0xBB, "DS"),
    "GEDiffusionDirectionY": (0x0019, "GEMS_ACQU_01", 0xBC, "DS"),
    "GEDiffusionDirectionZ": (0x0019, "GEMS_ACQU_01", 0xBD, "DS"),
    "PhilipsBValue": (0x2001, "Philips Imaging DD 001", 0x03, "FL"),
    "PhilipsDiffusionDirectionRL": (0x2005, "Philips MR Imaging DD 001", 0xB0, "FL"),
    "PhilipsDiffusionDirectionAP": (0x2005, "Philips MR Imaging DD 001", 0xB1, "FL"),
    "PhilipsDiffusionDirectionFH": (0x2005, "Philips MR Imaging DD 001", 0xB2, "FL"),
    "UIHBValue": (0x0065, "Image Private Header", 0x09, "FD"),
    "UIHDiffusionGradientDirection": (0x0065, "Image Private Header", 0x37, "FD"),
    "UIHNumberOfSlices": (0x0065, "Image Private Header", 0x50, "DS"),
    "UIHSliceSequence": (0x0065, "Image Private Header", 0x51, "SQ"),
}
"""Our name -> (group, private creator, element within the creator's block, VR), PS3.5 section 7.8."""

_NAMES: Final[dict[int, str]] = {tag: keyword for keyword, (tag, _) in KEYWORDS.items()}


def vr_of(tag: int) -> str:
    """The VR of a tag, "" if the standard has no such attribute."""
    known = VRS.get(tag)
    if known is not None:
        return known
    if tag >> 16 & 1:
        return _PRIVATE_VRS.get((tag >> 16, tag & 0xFF), "") if tag & 0xFF00 else "LO"
    from pydicom.datadict import dictionary_VR

    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return ""
    return {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}.get(
        vr, vr if len(vr) == 2 else ""
    )


_PRIVATE_VRS: Final = {(group, element): vr for group, _, element, vr in PRIVATE.values()}


def describe(tag: int) -> str:
    """How messages name an attribute: "(0028,0010) Rows"; the tag alone where `KEYWORDS` lacks it."""
    name = _NAMES.get(tag)
    number = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    return f"{number} {name}" if name else number


LARGE: Final = frozenset(("SiemensCSAImageHeader",))
"""Names of `PRIVATE` whose values are thousands of bytes, so that they are read where they are needed only."""


def private_tags(*, large: bool = False) -> frozenset[int]:
    """Every tag under which an attribute of `PRIVATE`, or its creator, can be: the block is free to choose.

    Args:
        large: Those of `LARGE`, else the others; creators are among both.
    """
    blocks = range(0x10, 0x100)
    return frozenset(
        tag
        for name, (group, _, element, _) in PRIVATE.items()
        for block in blocks
        for tag in (group << 16 | block, group << 16 | block << 8 | element)
        if tag & 0xFF00 == 0 or (name in LARGE) == large
    )
