"""Elements to numbers and texts of a column."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from dicomtorch.dicom.elements import Element, floats, integers, texts
from dicomtorch.dicom.tags import KEYWORDS, describe
from dicomtorch.errors import HeaderError
from dicomtorch.scanner.resolve.suv import is_date_only, parse_date_time, seconds_of_day

TAGS: Final = {keyword: tag for keyword, (tag, _) in KEYWORDS.items()}
_BINARY: Final = frozenset(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OW"))
_NUMERIC: Final = _BINARY | {"DS", "IS"}
# A malformed one of these must not pass for absent: every value of the image is made with it.
_VITAL: Final = frozenset(TAGS[k] for k in ("RescaleSlope", "RescaleIntercept", "DoseGridScaling"))
_MOST_REMEMBERED: Final = 1 << 16
_RANGES: Final = {"int32": range(-(1 << 31), 1 << 31), "int64": range(-(1 << 63), 1 << 63)}
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
                midnight) or "moment" (a `datetime`; `None` for a date alone).
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
        r"""The values of many elements, converted in one call; `None` where each has to be looked at.

        The Window Centers `b"40"`, `b"50"` and `b"60"` of three frames (DS) are converted as one element
        `b"40\50\60"`; the Pixel Spacings `b"0.5\0.6"` of three frames as one of six numbers, cut into pairs again.
        """
        width = _width(kind, elements[0])
        joined = _joined(elements, width) if width else None
        if joined is None:
            return None
        convert = floats if kind.startswith("float64") else integers
        numbers: list[Any] = list(convert(joined, self.big_endian))
        if len(numbers) != width * len(elements) or not all(map(_finite, numbers)):
            return None
        if kind == "int32" and not all(n in _RANGES[kind] for n in (min(numbers), max(numbers))):
            return None
        if kind == "text":
            numbers = list(map(str, numbers))
        elif width == 1:
            return numbers
        parts = zip(*[iter(numbers)] * width, strict=True)  # `width` numbers at a time
        return ["\\".join(part) for part in parts] if kind == "text" else list(parts)

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
            if moment is None and not is_date_only(text):
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


def _width(kind: str, element: Element) -> int:
    """How many numbers an element of a column of `kind` has; 0 if these are not converted together."""
    if kind == "text":
        return len(element[1]) // 4 if element[0] == "UL" else 0
    if kind.endswith("]"):
        return int(kind[8:-1])
    return 1 if kind in ("int32", "float64") else 0


def _joined(elements: list[Element], width: int) -> Element | None:
    """One element with the values of all; `None` if they differ in VR, or in how many numbers they have."""
    vr = elements[0][0]
    values: list[bytes] = [element[1] for element in elements]
    if any(element[0] != vr for element in elements):
        return None
    if vr in ("DS", "IS"):
        alike = all(value.count(b"\\") == width - 1 for value in values)
        return (vr, b"\\".join(values)) if alike else None
    alike = bool(values[0]) and all(len(value) == len(values[0]) for value in values)
    return (vr, b"".join(values)) if alike else None


def _exactly(numbers: list[Any], width: int) -> list[Any]:
    """`numbers` if they are `width` finite ones, or none."""
    if numbers and (len(numbers) != width or not all(map(_finite, numbers))):
        raise _MalformedError("one number" if width == 1 else f"{width} numbers")
    return numbers


def _finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _shortest(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


def tags_of(*names: Iterable[str]) -> frozenset[int]:
    """The tags of keywords."""
    return frozenset(TAGS[keyword] for keyword in (k for group in names for k in group))
