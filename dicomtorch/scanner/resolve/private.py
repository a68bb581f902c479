"""Private attributes, found by their creator (PS3.5 section 7.8.1)."""

from __future__ import annotations

from typing import Any, Final

from dicomtorch.dicom.elements import Element, Group
from dicomtorch.dicom.tags import PRIVATE
from dicomtorch.scanner.resolve.conversions import TAGS, Context

_CREATORS: Final = frozenset(
    group << 16 | block
    for group in {group for group, *_ in PRIVATE.values()}
    for block in range(0x10, 0x100)
)
"""Every tag that a creator of an attribute of `PRIVATE` can have."""

_NONE: Final[Element] = ("", b"")
_CSA_CREATOR: Final = 0x00290010
CSA_HEADER: Final = 0x00291010
"""Where the image header of a Siemens scanner is that has the first block."""

_CSA_MAGIC: Final = b"SV10"
_B_VALUE: Final = 0x0019100C

Blocks = dict[tuple[int, str], list[int]]
"""(group, creator) -> the blocks that it has reserved."""


def private_blocks(elements: Group, context: Context) -> Blocks:
    """The blocks of a data set that may hold attributes of `PRIVATE`."""
    found: Blocks = {}
    for tag in [tag for tag in elements if tag in _CREATORS]:
        creator = context.convert(tag, "text", elements[tag], [])  # remembered
        if creator is not None:
            found.setdefault((tag >> 16, creator), []).append(tag & 0xFF)
    return found


def private_element(elements: Group, name: str, blocks: Blocks) -> tuple[int, Element] | None:
    """(tag, element) of an attribute of `PRIVATE`; `None` if its creator or it is not there."""
    group, creator, number, vr = PRIVATE[name]
    for block in blocks.get((group, creator), ()):
        tag = group << 16 | block << 8 | number
        found = elements.get(tag)
        if found is not None:
            return tag, ((vr, found[1]) if found[0] in ("", "UN") else found)
    return None


def needs_large(elements: Group) -> bool:
    """Whether attributes of `LARGE` say something about an image: of a sheet, or of diffusion by an old scanner."""
    kind = elements.get(TAGS["ImageType"], _NONE)[1]
    if not isinstance(kind, bytes):
        return False
    if b"MOSAIC" in kind:
        return True
    return b"DIFFUSION" in kind and _CSA_CREATOR in elements and _B_VALUE not in elements


class Private:
    """The private attributes of one data set.

    Args:
        elements: The data set.
        context: Converts its values.
        notices: Gets a line for what is malformed.
    """

    def __init__(self, elements: Group, context: Context, notices: list[str]) -> None:
        self.elements = elements
        self.context = context
        self.notices = notices
        self.blocks = private_blocks(elements, context)

    def element(self, name: str) -> Element | None:
        """The element of an attribute of `PRIVATE`."""
        found = private_element(self.elements, name, self.blocks)
        return None if found is None else found[1]

    def csa_header(self) -> bytes:
        """The image header of a Siemens scanner, empty if there is none.

        Programs that remove identifiers take away the names of creators and leave what they created. A header in the
        first block, which nobody reserves then, is taken if it begins as one.
        """
        found = self.element("SiemensCSAImageHeader")
        if found is not None:
            return found[1] if isinstance(found[1], bytes) else b""
        alone = self.elements.get(CSA_HEADER, _NONE)[1]
        if _CSA_CREATOR in self.elements or not isinstance(alone, bytes):
            return b""
        return alone if alone.startswith(_CSA_MAGIC) else b""

    def value(self, name: str, kind: str) -> Any:
        """The value of an attribute of `PRIVATE`, `None` if it is absent, empty or malformed."""
        found = private_element(self.elements, name, self.blocks)
        if found is None:
            return None
        return self.context.convert(found[0], kind, found[1], self.notices)
