"""Which element holds for which frame: functional groups and the main data set (PS3.3 C.7.6.16), and conversions.

A macro is taken whole: from the per-frame functional group, else the shared one, else the main data set; never merged
attribute by attribute, but where a macro of geometry is in both (`complete`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dicomtorch.dicom.elements import Element, Group
from dicomtorch.dicom.tags import describe
from dicomtorch.model.frame import LookupTable, RealWorldValueMap
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.schema import FRAME_COLUMNS
from dicomtorch.scanner.resolve.conversions import TAGS, Context

Macro = Group | list[Group | None] | None
"""A macro's item for all frames, or for each frame (`None`: the main data set's), or no group has it."""

NO_GROUP: Final = object()


class Frames:
    """The frames of one file while their columns are being made.

    Args:
        top: The main data set.
        pixel: Its Image Pixel Module.
        count: Frames.
        context: Converts its values.
        missing: What stands for an absent value in a column beyond those of the schema.

    Attributes:
        per_frame: Items of the Per-frame Functional Groups Sequence, at most `count`.
        shared: The item of the Shared Functional Groups Sequence.
        columns: Name of a column -> one value for all frames, or a list with one for each.
        lookups: What the `*_lut`, `palette` and `real_world_value_map` columns number.
        stored: What is in `lookups` already, and where.
        notices: What was odd.
    """

    def __init__(
        self,
        top: Group,
        pixel: ImagePixel,
        count: int,
        context: Context,
        missing: Callable[[str], Any],
    ) -> None:
        self.top = top
        self.pixel = pixel
        self.count = count
        self.context = context
        self.columns: dict[str, Any] = {}
        self.lookups: list[LookupTable | RealWorldValueMap] = []
        self.stored: dict[Any, Any] = {}
        self.notices: list[str] = []
        self._missing = missing
        items = self.items("PerFrameFunctionalGroupsSequence")
        self.per_frame = items[:count]
        self.shared: Group = next(iter(self.items("SharedFunctionalGroupsSequence")), {})
        if items and len(items) != count:
            tail = "those beyond are ignored" if len(items) > count else "frames beyond have none"
            self.tell_count("PerFrameFunctionalGroupsSequence", len(items), f"items; {tail}")

    def get(self, keyword: str, kind: str, group: Group | None = None) -> Any:
        """An attribute of the main data set or of `group`, `None` if it is absent, empty or malformed."""
        tag = TAGS[keyword]
        element = (self.top if group is None else group).get(tag)
        return None if element is None else self.context.convert(tag, kind, element, self.notices)

    def items(self, keyword: str, group: Group | None = None) -> list[Group]:
        """The items of a sequence of the main data set or of `group`."""
        element = (self.top if group is None else group).get(TAGS[keyword])
        return element[1] if element is not None and element[0] == "SQ" else []

    def put(self, name: str, value: Any) -> None:
        """Sets a column for all frames, unless `value` is `None`."""
        if value is not None:
            self.columns[name] = value

    def macro(self, *sequences: str | int, complete: bool = False) -> Macro:
        """The first of `sequences` (keywords or tags) that a functional group has.

        Args:
            *sequences: See above.
            complete: Whether a frame's item gets what it lacks from the shared one, which is illegal but written.
        """
        if not self.per_frame and not self.shared:
            return None
        for sequence in sequences:
            tag = TAGS[sequence] if isinstance(sequence, str) else sequence
            shared = _first_item(self.shared.get(tag), None)
            found = [group.get(tag) for group in self.per_frame]
            if any(found):
                groups = [_first_item(element, shared) for element in found]
                if complete and shared is not None:
                    groups = self._completed(groups, shared, tag)
                return groups + [shared] * (self.count - len(groups))
            if shared is not None:
                return shared
        return None

    def _completed(self, groups: list[Group | None], shared: Group, tag: int) -> list[Group | None]:
        if all(group is None or shared.keys() <= group.keys() for group in groups):
            return groups
        self.notices.append(
            f"{describe(tag)} is in the shared and in the per-frame functional groups, which contradicts itself; what "
            f"the frames lack of it is taken from the shared one"
        )
        return [group if group is None else {**shared, **group} for group in groups]

    def fill(self, name: str, tag: int, kind: str, macro: Group | list[Group | None]) -> None:
        """Sets a column from an attribute of a macro; frames without the macro keep the main data set's value."""
        notices = self.notices
        if isinstance(macro, dict):
            element = macro.get(tag)
            self.columns.pop(name, None)
            if element is not None:
                self.put(name, self.context.convert(tag, kind, element, notices))
            return
        missing = self.missing(name)
        elements, different = elements_of(macro, tag)
        values: dict[Any, Any] = {None: missing, NO_GROUP: self.columns.get(name, missing)}
        distinct = list(different - values.keys())
        if distinct:
            found = self.context.convert_many(tag, kind, distinct, notices)
            values.update(
                (element, missing if value is None else value)
                for element, value in zip(distinct, found, strict=True)
            )
        self.spread(name, [values[element] for element in elements])

    def spread(self, name: str, values: list[Any]) -> None:
        """Sets a column frame by frame; one value if all are the same."""
        first = values[0]
        same = all(value is first or value == first for value in values)
        self.columns[name] = first if same else values

    def missing(self, name: str) -> Any:
        """What stands for an absent value in a column."""
        column = FRAME_COLUMNS.get(name)
        return self._missing(name) if column is None else column.missing

    def tell_count(self, keyword: str, count: int, what: str = "values") -> None:
        """Notes that an attribute does not have one value or item for each frame."""
        frames = "1 frame" if self.count == 1 else f"{self.count} frames"
        first, _, rest = what.partition(";")
        tail = f";{rest}" if rest else ""
        self.notices.append(f"{describe(TAGS[keyword])} has {count} {first} for {frames}{tail}")


def elements_of(groups: list[Group | None], tag: int) -> tuple[list[Any], set[Any]]:
    """(an attribute's element in each group, the distinct ones); `NO_GROUP` where there is no group."""
    elements: list[Any] = [NO_GROUP if group is None else group.get(tag) for group in groups]
    try:
        return elements, set(elements)
    except TypeError:
        elements = [e if e is NO_GROUP else without_items(e) for e in elements]
        return elements, set(elements)


def without_items(element: Element | None) -> Element | None:
    """The element, its value empty if the file says that it is a sequence where it cannot be one."""
    return element if element is None or isinstance(element[1], bytes) else (element[0], b"")


def _first_item(element: Element | None, default: Group | None) -> Group | None:
    if element is not None and element[0] == "SQ" and element[1]:
        item: Group = element[1][0]
        return item
    return default
