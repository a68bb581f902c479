"""Which element holds for which frame: functional groups and the main data set (PS3.3 C.7.6.16), and conversions.

A macro is taken whole: from the per-frame functional group, else the shared one, else the main data set; never merged
attribute by attribute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from dicomtorch.attributes import ImagePixel, LookupTable, RealWorldValueMap
from dicomtorch.elements import Element, Group, floats, integers, texts
from dicomtorch.errors import HeaderError
from dicomtorch.schema import FRAME_COLUMNS
from dicomtorch.suv import parse_date_time, seconds_of_day
from dicomtorch.tags import KEYWORDS, describe

TAGS: Final = {keyword: tag for keyword, (tag, _) in KEYWORDS.items()}

Macro = Group | list[Group | None] | None
"""A macro's item for all frames, or for each frame (`None`: the main data set's), or no group has it."""

_BINARY: Final = frozenset(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OW"))
_NUMERIC: Final = _BINARY | {"DS", "IS"}
# A malformed one of these must not pass for absent: every value of the image is made with it.
_VITAL: Final = frozenset(TAGS[k] for k in ("RescaleSlope", "RescaleIntercept", "DoseGridScaling"))
_MOST_REMEMBERED: Final = 1 << 16
_RANGES: Final = {"int32": range(-(1 << 31), 1 << 31), "int64": range(-(1 << 63), 1 << 63)}
NO_GROUP: Final = object()
_MANY: Final = 16  # values from which on converting them at once pays


def keywords(text: str) -> tuple[str, ...]:
    """The keywords in `text`, separated by spaces or line breaks."""
    return tuple(text.split())


class _MalformedError(ValueError):
    """A value that is not what its attribute should be; the text says what was expected."""


class Context:
    """Conversions for one byte order and character set, remembered by the bytes of the value.

    The files of a series have most values in common, so most are converted once.
    """

    def __init__(self, big_endian: bool, character_set: str) -> None:
        self.big_endian = big_endian
        self.character_set = character_set
        self._remembered: dict[Any, Any] = {}

    def convert(self, tag: int, kind: str, element: Element, notices: list[str]) -> Any:
        """The value of an element, `None` if it is empty or malformed; then a notice says so.

        Args:
            tag: Of the element.
            kind: A kind of `schema.Kind`, or "list" (of floats, nan for an empty one), "seconds" (since
                midnight) or "moment" (a `datetime`).
            element: As in the header.
            notices: Gets a line if the value is malformed.

        Raises:
            HeaderError: It is malformed, and every value of the image depends on it.
        """
        key = (tag, kind, element)
        try:
            value = self._remembered[key]
        except KeyError:
            value = self._remember(key, self._convert_or_error(kind, element))
        except TypeError:  # items where a value should be
            value = _MalformedError("a value")
        if isinstance(value, _MalformedError):
            vr, content = element
            text = f"{describe(tag)} has VR {vr or 'unknown'} and length {len(content)}"
            text = f"{text}; expected {value}"
            if tag in _VITAL:
                raise HeaderError(f"{text}, because every value of the image depends on it")
            notices.append(f"{text}; taken as absent")
            return None
        return value

    def convert_many(
        self, tag: int, kind: str, elements: list[Element], notices: list[str]
    ) -> list[Any]:
        """What `convert` gives for each of `elements`; numbers are converted all at once where they can be."""
        found = self._numbers_at_once(kind, elements) if len(elements) >= _MANY else None
        if found is not None:
            return found
        return [self.convert(tag, kind, element, notices) for element in elements]

    def _numbers_at_once(self, kind: str, elements: list[Element]) -> list[Any] | None:
        """The values of elements of one VR with one value each (`kind` says how wide), else `None`."""
        vr = elements[0][0]
        width = int(kind[8:-1]) if kind.endswith("]") else 1
        if kind == "text" and vr == "UL":
            width = len(elements[0][1]) // 4
        elif kind not in ("int32", "float64") and width == 1:
            return None
        if any(element[0] != vr for element in elements):
            return None
        values: list[bytes] = [element[1] for element in elements]
        if vr in ("DS", "IS"):
            if any(value.count(b"\\") != width - 1 for value in values):
                return None
            joined = (vr, b"\\".join(values))
        else:
            if not values[0] or any(len(value) != len(values[0]) for value in values):
                return None
            joined = (vr, b"".join(values))
        numbers: list[Any] = (
            floats(joined, self.big_endian)
            if kind.startswith("float64")
            else integers(joined, self.big_endian)
        )
        if len(numbers) != width * len(values) or not all(map(_finite, numbers)):
            return None
        if kind == "text":
            texts_ = list(map(str, numbers))
            return ["\\".join(texts_[k : k + width]) for k in range(0, len(texts_), width)]
        if kind == "int32" and not all(n in _RANGES[kind] for n in (min(numbers), max(numbers))):
            return None
        return numbers if width == 1 else list(zip(*[iter(numbers)] * width, strict=True))

    def text(self, element: Element) -> str:
        """The value as text; several are joined with a backslash."""
        if element[0] == "AT":
            return "\\".join(f"{tag or 0:08X}" for tag in integers(element, self.big_endian))
        if element[0] in _BINARY:
            return "\\".join(map(_shortest, self._numbers(element)))
        return "\\".join(texts(element, self.character_set))

    def _remember(self, key: Any, value: Any) -> Any:
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = value
        return value

    def _convert_or_error(self, kind: str, element: Element) -> Any:
        try:
            return self._convert(kind, element)
        except _MalformedError as error:
            return error

    def _convert(self, kind: str, element: Element) -> Any:
        if kind == "text":
            return self.text(element) or None
        if kind in ("seconds", "moment"):
            return self._time(kind, self.text(element))
        numbers = self._numbers(element)
        if kind == "list":
            return tuple(numbers)
        if kind == "float64":
            return next(iter(_exactly(numbers, 1)), None)
        if kind in ("int32", "int64"):
            whole = integers(element, self.big_endian) if numbers else []
            number = next(iter(_exactly(whole, 1)), None)
            if number is not None and number not in _RANGES[kind]:
                raise _MalformedError(f"an integer of {kind[3:]} bits")
            return number
        return tuple(_exactly(numbers, int(kind[8:-1]))) or None

    def _time(self, kind: str, text: str) -> Any:
        if not text:
            return None
        if kind == "moment":
            moment = parse_date_time(text)
            if moment is None:
                raise _MalformedError("a date and time")
            return moment
        seconds = seconds_of_day(text)
        if math.isnan(seconds):
            raise _MalformedError("a time of day")
        return seconds

    def _numbers(self, element: Element) -> list[float]:
        """The values of a numeric element, none if it is empty; an empty component of several is nan."""
        vr, value = element
        if vr not in _NUMERIC:
            raise _MalformedError("numbers")
        if vr in _BINARY or value.strip(b" \0\\"):
            return floats(element, self.big_endian)
        return []


def _exactly(numbers: list[Any], width: int) -> list[Any]:
    """`numbers` if they are `width` finite ones, or none."""
    if numbers and (len(numbers) != width or not all(map(_finite, numbers))):
        raise _MalformedError("one number" if width == 1 else f"{width} numbers")
    return numbers


def _finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _shortest(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


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

    def macro(self, *sequences: str | int) -> Macro:
        """The first of `sequences` (keywords or tags) that a functional group has."""
        if not self.per_frame and not self.shared:
            return None
        for sequence in sequences:
            tag = TAGS[sequence] if isinstance(sequence, str) else sequence
            shared = _first_item(self.shared.get(tag), None)
            found = [group.get(tag) for group in self.per_frame]
            if any(found):
                groups = [_first_item(element, shared) for element in found]
                return groups + [shared] * (self.count - len(groups))
            if shared is not None:
                return shared
        return None

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


def tags_of(*names: Iterable[str]) -> frozenset[int]:
    """The tags of keywords."""
    return frozenset(TAGS[keyword] for keyword in (k for group in names for k in group))
