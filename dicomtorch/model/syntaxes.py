"""Transfer syntaxes and their families (PS3.6 table A-1), and the names of UIDs."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
DEFLATED_IMAGE_FRAME = "1.2.840.10008.1.2.8.1"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_SPECTRAL_SELECTION = "1.2.840.10008.1.2.4.53"
JPEG_FULL_PROGRESSION = "1.2.840.10008.1.2.4.55"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.110"
JPEG_XL_RECOMPRESSION = "1.2.840.10008.1.2.4.111"
JPEG_XL = "1.2.840.10008.1.2.4.112"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"

NATIVE = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    }
)
JPEG_DCT = frozenset({JPEG_BASELINE, JPEG_EXTENDED, JPEG_SPECTRAL_SELECTION, JPEG_FULL_PROGRESSION})
JPEG_LOSSLESS_FAMILY = frozenset({JPEG_LOSSLESS, JPEG_LOSSLESS_SV1})
JPEG_LS_FAMILY = frozenset({JPEG_LS_LOSSLESS, JPEG_LS_NEAR_LOSSLESS})
JPEG_2000_FAMILY = frozenset({JPEG_2000_LOSSLESS, JPEG_2000})
HTJ2K_FAMILY = frozenset({HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K})
JPEG_XL_FAMILY = frozenset({JPEG_XL_LOSSLESS, JPEG_XL_RECOMPRESSION, JPEG_XL})
# Of 100 to 106 there is a fragmentable form each.
VIDEO = frozenset(
    f"1.2.840.10008.1.2.4.{number}{fragmentable}"
    for number in range(100, 109)
    for fragmentable in ("", ".1")
    if not fragmentable or number <= 106
)
LOSSY = frozenset(
    JPEG_DCT | {JPEG_LS_NEAR_LOSSLESS, JPEG_2000, HTJ2K, JPEG_XL, JPEG_XL_RECOMPRESSION}
)
"""Syntaxes whose stream may be lossy; only the stream says whether it is."""

KNOWN_SYNTAXES: Final = (
    NATIVE
    | {RLE_LOSSLESS, ENCAPSULATED_UNCOMPRESSED, DEFLATED_IMAGE_FRAME}
    | JPEG_DCT
    | JPEG_LOSSLESS_FAMILY
    | JPEG_LS_FAMILY
    | JPEG_2000_FAMILY
    | HTJ2K_FAMILY
    | JPEG_XL_FAMILY
)
"""Transfer syntaxes of still images."""

_NAMES: Final = {
    IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
    EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    EXPLICIT_VR_BIG_ENDIAN: "Explicit VR Big Endian",
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "Deflated Explicit VR Little Endian",
    ENCAPSULATED_UNCOMPRESSED: "Encapsulated Uncompressed",
    DEFLATED_IMAGE_FRAME: "Deflated Image Frame",
    RLE_LOSSLESS: "RLE Lossless",
    JPEG_BASELINE: "JPEG Baseline",
    JPEG_EXTENDED: "JPEG Extended",
    JPEG_SPECTRAL_SELECTION: "JPEG Spectral Selection",
    JPEG_FULL_PROGRESSION: "JPEG Full Progression",
    JPEG_LOSSLESS: "JPEG Lossless",
    JPEG_LOSSLESS_SV1: "JPEG Lossless SV1",
    JPEG_LS_LOSSLESS: "JPEG-LS Lossless",
    JPEG_LS_NEAR_LOSSLESS: "JPEG-LS Near-lossless",
    JPEG_2000_LOSSLESS: "JPEG 2000 Lossless",
    JPEG_2000: "JPEG 2000",
    JPEG_XL_LOSSLESS: "JPEG XL Lossless",
    JPEG_XL_RECOMPRESSION: "JPEG XL JPEG Recompression",
    JPEG_XL: "JPEG XL",
    HTJ2K_LOSSLESS: "HTJ2K Lossless",
    HTJ2K_LOSSLESS_RPCL: "HTJ2K Lossless RPCL",
    HTJ2K: "HTJ2K",
    # Newer than the dictionary of pydicom.
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
}
"""Names shorter than those of the standard, as its keywords are, and names that pydicom lacks."""


@lru_cache(maxsize=256)
def uid_name(uid: str) -> str:
    """The name of a UID of the standard, a transfer syntax or a SOP class; "" for any other, which may be anything.

    No two UIDs have one name: what was retired says so.
    """
    known = _NAMES.get(uid)
    if known is not None:
        return known
    from pydicom import config
    from pydicom.uid import UID

    found = UID(uid, config.IGNORE)
    name = found.name if uid.startswith("1.2.840.10008.") else uid
    if not name or name == uid:
        return ""
    return f"{name} (Retired)" if found.is_retired else name
