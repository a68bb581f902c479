"""Private attributes, found by their creator (PS3.5 section 7.8.1)."""

from __future__ import annotations

from typing import Any

from dicomtorch.dicom.elements import Element, Group
from dicomtorch.dicom.tags import PRIVATE
from dicomtorch.scanner.resolve.conversions import Context


def private_element(elements: Group, name: str, context: Context) -> tuple[int, Element] | None:
    """(tag, element) of an attribute of `PRIVATE`; `None` if its creator or it is not there."""
    group, creator, number, vr = PRIVATE[name]
    first = group << 16
    # Nearly every writer takes the first blocks, so that these are looked at first.
    for block in range(0x10, 0x100):
        tag = first | block << 8 | number
        found = elements.get(tag)
        if found is None:
            continue
        element = elements.get(first | block)
        if element is None or not isinstance(element[1], bytes) or context.text(element) != creator:
            continue
        return tag, ((vr, found[1]) if found[0] in ("", "UN") else found)
    return None


def private_value(
    elements: Group, name: str, kind: str, context: Context, notices: list[str]
) -> Any:
    """The value of an attribute of `PRIVATE`, `None` if it is absent, empty or malformed."""
    found = private_element(elements, name, context)
    return None if found is None else context.convert(found[0], kind, found[1], notices)
