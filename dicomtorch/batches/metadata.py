"""Index row -> the metadata of a sample: one allow-list, one fixed type per key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Never, overload

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dicomtorch.batches import meta_keys as keys
from dicomtorch.errors import MetaKeyError
from dicomtorch.index.columns import as_list
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.shown import CODED, shown

DEFAULT_KEYS = (
    "frame",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "patient",
    "Modality",
    "InstanceNumber",
    "Rows",
    "Columns",
    "PhotometricInterpretation",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "Units",
    "FrameTime",
    "BurnedInAnnotation",
)
"""Columns of the index that every sample has. Names, dates, PatientID and free text are not among them."""


_CLOSE = 0.75  # how alike keys are of which one may be meant


class FrameMeta(dict[str, Any]):
    """Metadata of one frame, or of a batch once collated: an ordinary dict.

    Keys of one frame: `index` (position in the dataset's index) and `requested_index` (differs where
    `on_error="replace"` put another frame in), `frame` (from 0 in its file), the keywords of `DEFAULT_KEYS`,
    `voi`, `WindowCenter` and `WindowWidth` (how display values were made, see `attributes.AppliedVOI`), and the tags
    asked for and the columns joined to the index. Where there are sheets of several slices (Siemens mosaics, UIH
    VFRAME), `mosaic` is the number of slices in the frame, 0 for others. What is missing is -1, nan, (nan, ...) or "".
    A coded value that the standard does not have is withheld (`model.shown`), unless `tags` name its attribute.

    Type checkers know the types of the fixed keys; other keys are `Any`.
    """

    if TYPE_CHECKING:
        # A TypedDict would refuse the keys of tags and joined columns. Nothing matches the first signature; without one
        # that takes any `str` before the others, mypy refuses `{**meta}`.
        @overload
        def __getitem__(self, key: str, never: Never, /) -> Any: ...
        @overload
        def __getitem__(self, key: keys.Integers, /) -> int: ...
        @overload
        def __getitem__(self, key: keys.Numbers, /) -> float: ...
        @overload
        def __getitem__(self, key: keys.Strings, /) -> str: ...
        @overload
        def __getitem__(self, key: keys.Pairs, /) -> tuple[float, float]: ...
        @overload
        def __getitem__(self, key: keys.Triples, /) -> tuple[float, float, float]: ...
        @overload
        def __getitem__(self, key: keys.Sixes, /) -> _Six: ...
        @overload
        def __getitem__(self, key: keys.Fours, /) -> tuple[float, float, float, float]: ...
        @overload
        def __getitem__(self, key: keys.IntegerFours, /) -> tuple[int, int, int, int]: ...
        @overload
        def __getitem__(self, key: keys.IntegerPairs, /) -> tuple[int, int]: ...
        @overload
        def __getitem__(self, key: keys.IntegerSixes, /) -> tuple[int, int, int, int, int, int]: ...
        @overload
        def __getitem__(self, key: keys.ManyIntegers, /) -> tuple[int, ...]: ...
        @overload
        def __getitem__(self, key: keys.ManyNumbers, /) -> tuple[float, ...]: ...
        @overload
        def __getitem__(self, key: keys.ManyStrings, /) -> tuple[str, ...]: ...
        @overload
        def __getitem__(self, key: keys.Tensors, /) -> Tensor: ...
        @overload
        def __getitem__(self, key: str, /) -> Any: ...
        def __getitem__(self, key: str, /, *never: Any) -> Any: ...

    def __missing__(self, key: object) -> Any:
        close = difflib.get_close_matches(str(key), self, 1, _CLOSE)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        advice = "an attribute of the files is asked for with tags=, a label comes with index.join"
        if isinstance(key, str) and key.isidentifier():
            advice = f"an attribute of the files is asked for with tags=[{key!r}], a label comes with index.join"
        raise MetaKeyError(f"meta has no {key!r}{hint} ({advice})")


if TYPE_CHECKING:
    _Six = tuple[float, float, float, float, float, float]
    _InBatch = (
        keys.Integers
        | keys.Numbers
        | keys.Pairs
        | keys.Triples
        | keys.Sixes
        | keys.Fours
        | keys.IntegerFours
        | keys.IntegerPairs
        | keys.IntegerSixes
        | keys.ManyIntegers
        | keys.ManyNumbers
        | keys.Tensors
        | keys.Starts
    )

    class BatchMeta(FrameMeta):
        """Metadata of a batch: numbers are tensors, texts lists."""

        @overload  # type: ignore[override]
        def __getitem__(self, key: str, never: Never, /) -> Any: ...
        @overload
        def __getitem__(self, key: _InBatch, /) -> Tensor: ...
        @overload
        def __getitem__(self, key: keys.Strings, /) -> list[str]: ...
        @overload
        def __getitem__(self, key: keys.ManyStrings, /) -> list[tuple[str, ...]]: ...
        @overload
        def __getitem__(self, key: str, /) -> Any: ...
        def __getitem__(self, key: str, /, *never: Any) -> Any: ...

else:
    BatchMeta = FrameMeta  # what collation makes; only checkers tell them apart


MetaColumns = dict[str, npt.NDArray[Any] | list[Any]]
"""Metadata of several frames by key: one row for each frame. Texts are lists; numbers too, where no batch is made."""


class MetadataReader:
    """Makes `FrameMeta` for positions of one index.

    Args:
        index: Whose positions.
        tags: Further columns of it.
    """

    def __init__(self, index: FrameIndex, tags: Sequence[str] = ()) -> None:
        self._index = index
        self._keys = tuple(dict.fromkeys((*DEFAULT_KEYS, *index.joined, *tags)))
        self._withheld = {
            name: withheld
            for name in DEFAULT_KEYS
            if name in CODED and name not in tags and (withheld := _withheld(index, name))
        }

        self._has_sheets = any(index.column("mosaic").values)

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that it takes."""
        return self._keys

    def of(
        self,
        positions: Sequence[int],
        applied: Sequence[AppliedVOI],
        requested: Sequence[int],
        *,
        listed: bool = False,
    ) -> MetaColumns:
        """Metadata of several frames.

        Args:
            positions: In the index, not negative.
            applied: How each was made display values.
            requested: The positions that were asked for.
            listed: Numbers as lists of Python's, for `metas_of`.
        """
        at = np.array(positions, np.int64)
        columns: MetaColumns
        if listed:
            columns = {"index": at.tolist(), "requested_index": list(map(int, requested))}
            columns |= self._index.gather_all(self._keys, at)
        else:
            columns = {"index": at, "requested_index": np.array(requested, np.int64)}
            columns |= {name: self._index.values(name, at) for name in self._keys}
        if self._has_sheets:
            tiles = self._index.values("mosaic", at)
            columns["mosaic"] = np.array([max(text.count("\\") - 1, 0) // 3 for text in tiles])
        for name, withheld in self._withheld.items():
            columns[name] = [withheld.get(value, value) for value in columns[name]]
        columns["voi"] = [voi.voi for voi in applied]
        for name, values in (
            ("WindowCenter", [float(voi.window_center) for voi in applied]),
            ("WindowWidth", [float(voi.window_width) for voi in applied]),
        ):
            columns[name] = values if listed else np.array(values, np.float64)
        return columns


def _withheld(index: FrameIndex, name: str) -> dict[str, str]:
    """What stands for the values of a coded attribute that are not to be shown; mostly there are none."""
    texts = [value.decode() for value in index.column(name).values]
    return {text: said for text in texts if (said := shown(name, text)) != text}


def metas_of(columns: MetaColumns) -> list[FrameMeta]:
    """One `FrameMeta` for each row."""
    lists = [as_list(values) for values in columns.values()]
    if lists and len(lists[0]) == 1:
        return [FrameMeta(zip(columns, (each for (each,) in lists), strict=True))]
    rows = zip(*lists, strict=True)
    return [FrameMeta(zip(columns, row, strict=True)) for row in rows]
