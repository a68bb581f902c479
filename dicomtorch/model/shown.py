"""What of a header may be shown to people: the one rule for reports, exports, messages, captions and notebooks.

Text gets into wrong attributes: an editor shifts columns, a gateway writes the name into Modality. A value of a coded
attribute is therefore shown only if it is one that the standard names for that attribute, or, for Image Type, one of a
list that comes with the package; of any other only VR and length. UIDs are shown if they are of the standard
(`syntaxes`). Numbers about pixels, geometry and lookup tables are shown as they are; names, dates, identifiers and free
text never, so they have no entry here.
"""

from __future__ import annotations

from typing import Final

from dicomtorch.model.syntaxes import uid_name


def _terms(text: str) -> frozenset[str]:
    return frozenset(text.split())


_YES_OR_NO: Final = frozenset(("YES", "NO"))

# PS3.3 C.7.3.1.1.1, with those that were retired, and SC, which much software writes.
_MODALITIES: Final = _terms(
    """
    ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL
    IVOCT IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG
    RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN
    TEXTUREMAP TG US VA XA XAPROTOCOL XC AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF SC
    """
)

_PHOTOMETRIC_INTERPRETATIONS: Final = frozenset(
    # PS3.3 C.7.6.3.1.2, with those that were retired.
    (
        *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "XYB", "HSV", "ARGB", "CMYK"),
        *("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"),
    )
)

# PS3.3 C.8.9.1.1.3 (PET), and Dose Units (C.8.8.3), which the index keeps in the same column.
_UNITS: Final = _terms(
    """
    CNTS NONE CM2 CM2ML PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS PROPCPS MLMINML MLML GML
    STDDEV GY RELATIVE
    """
)

# PS3.3 C.7.6.1.1.2, what the modules of CT, MR, PET, NM, XA, MG, US, slides and the enhanced objects
# add, and what scanners write that says how an image was made.
_IMAGE_TYPES: Final = _terms(
    """
    ORIGINAL DERIVED MIXED PRIMARY SECONDARY AXIAL LOCALIZER VOLUME OVERVIEW LABEL THUMBNAIL RESAMPLED NONE
    OTHER QUANTITY FILTERED ANGIO CARDIAC CARDIAC_GATED CARDIAC_CTA CARDRESP_GATED DYNAMIC FLUOROSCOPY MOTION
    PERFUSION PRE_CONTRAST POST_CONTRAST RESP_GATED REST STATIC STRESS VELOCITY VASCULAR WHOLE_BODY ATTENUATION
    MAX MIN MEAN AVERAGE MAX_IP MIN_IP MPR MULTIPLICATION ADDITION DIVISION SUBTRACTION ENERGY_PROP_WT
    CURVED_MPR PROJECTION STACKED_PROJECTION VOLUME_RENDERED SURFACE_RENDERED 3D MAXIP MINIP MIP
    PROJECTION_IMAGE REFORMATTED BINARY CSA DIFFUSION DIFFUSION_ANISO FLOW_ENCODED FLUID_ATTENUATED LOOK_LOCKER
    M_MODE METABOLITE_MAPS MULTIECHO PROTON_DENSITY REALTIME SPECTROSCOPY STIR TAGGING TEMPERATURE T1 T2 T2_STAR
    TOF PHASE_CONTRAST BLACK_BLOOD CINE WHITE_BLOOD MAGNITUDE PHASE PHASE_MAP REAL IMAGINARY COMPLEX ADC FA
    TRACEW DEC ISOTROPIC EXPONENTIAL CBF CBV MTT TTP RCBF RCBV TMAX RELCBF RELCBV MTR STANDARD EMISSION
    TRANSMISSION TOMO GATED RECON WHOLE BODY RECON_TOMO RECON_GATED_TOMO GATED_TOMO DUALHEAD SINGLE_PLANE
    BIPLANE SINGLE_A SINGLE_B BIPLANE_A BIPLANE_B LEFT RIGHT CC MLO TOMOSYNTHESIS TOMO_PROJ TOMO_2D TOMO_SCOUT
    GENERATED_2D STEREO_VIEW PORTAL SIMULATOR DRR RADIOGRAPH BLANK RTIMAGE ND NORM DIS2D DIS3D FM FFE SE IR M P
    R I O W F IP OP FAT WATER IN_PHASE OUT_PHASE FAT_FRACTION MOSAIC MFSPLIT M_FFE M_SE M_IR M_PCA P_FFE P_PCA
    PCA FIELD_MAP B0 B1 T1_MAP T2_MAP SWI SUB MSUM PROPELLER HELICAL SEQUENTIAL SCOUT TOPOGRAM CT_SOM5 CT_SOM7
    SPI DUAL_ENERGY MONOENERGETIC VIRTUAL_NONCONTRAST
    NORMAL EPI PARALLEL NON_PARALLEL PROCESSED DOSEINFO ACQUIRED_DOSE VFRAME CSAPARALLEL
    ABDOMINAL BREAST CARDIOLOGY CHEST ENDOCAVITARY ENDORECTAL ENDOVAGINAL EPICARDIAL GYNECOLOGY INTRACARDIAC
    INTRAOPERATIVE INTRAVASCULAR MUSCULOSKELETAL OBSTETRICAL OPHTHALMIC PEDIATRIC PELVIC RETROPERITONEAL SCROTAL
    TEE TRANSCRANIAL TTE 0001 0002 0004 0008 0010 0011 0020 0040 0080 0100
    """
) | frozenset(
    (
        *(
            "SINGLE PLANE",
            "SINGLE A",
            "SINGLE B",
            "BIPLANE A",
            "BIPLANE B",
            "WHOLE BODY",
            "SMALL PARTS",
        ),
        *("RECON TOMO", "GATED TOMO", "RECON GATED TOMO", "PROJECTION IMAGE", "FETAL HEART"),
        *("NEONATAL HEAD", "CSA MPR", "CT_SOM5 SEQ", "CT_SOM5 SPI", "CT_SOM5 TOP", "CT_SOM7 SPI"),
    )
)

_TERMS: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "Modality": ("CS", _MODALITIES),
    "ImageType": ("CS", _IMAGE_TYPES),
    "PhotometricInterpretation": ("CS", _PHOTOMETRIC_INTERPRETATIONS),
    "BurnedInAnnotation": ("CS", _YES_OR_NO),
    "RecognizableVisualFeatures": ("CS", _YES_OR_NO),
    "RescaleType": (  # PS3.3 C.11.1.1.2, and what PET and MR scanners write
        "LO",
        frozenset(
            ("OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT", "BQML", "normalized")
        ),
    ),
    "Units": ("CS", _UNITS),
    "VOILUTFunction": ("CS", frozenset(("LINEAR", "LINEAR_EXACT", "SIGMOID"))),
    "PresentationLUTShape": ("CS", frozenset(("IDENTITY", "INVERSE", "LIN OD"))),
    "PixelPresentation": ("CS", frozenset(("MONOCHROME", "COLOR", "MIXED", "TRUE_COLOR"))),
    "ComplexImageComponent": (
        "CS",
        frozenset(("MAGNITUDE", "PHASE", "REAL", "IMAGINARY", "MIXED")),
    ),
    "SegmentationType": ("CS", frozenset(("BINARY", "FRACTIONAL", "LABELMAP"))),
    "DimensionOrganizationType": (
        "CS",
        frozenset(("3D", "3D_TEMPORAL", "TILED_FULL", "TILED_SPARSE")),
    ),
    "SpecimenLabelInImage": ("CS", _YES_OR_NO),
    "pixel_data_vr": ("", frozenset(("OB", "OW", "OF", "OD"))),
}

CODED: Final = frozenset(_TERMS)
"""Columns of the index whose values `shown` knows."""


def shown(keyword: str, value: str) -> str:
    """A value of a coded attribute as it may be shown.

    Args:
        keyword: Of the attribute, one of `CODED`.
        value: As in the file; several are separated by a backslash. "" stays "".

    Returns:
        The value if the standard has it, else words with VR and length; of several values each for itself.
    """
    vr, terms = _TERMS[keyword]
    if not value or value in terms:
        return value
    if "\\" not in value:
        return withheld(vr, value)
    return "\\".join(
        part if not part or part in terms else withheld(vr, part) for part in value.split("\\")
    )


def shown_uid(uid: str) -> str:
    """A transfer syntax or SOP class as it may be shown: the UID if it is of the standard, else VR and length."""
    return uid if not uid or uid_name(uid) else withheld("UI", uid)


def named_uid(uid: str) -> str:
    """The name of a transfer syntax or SOP class, or VR and length; "" stays ""."""
    return uid_name(uid) or shown_uid(uid)


def withheld(vr: str, value: str) -> str:
    """What stands for a value that may be anything: its VR and length."""
    return f"(not a value of the standard: VR {vr}, length {len(value)})"
