"""Tables of an index for others: expressions over them, hashed UIDs, files to share."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.errors import OptionError, escaped
from dicomtorch.index.columns import ColumnData, Texts, to_arrow
from dicomtorch.index.drafts import whole_file
from dicomtorch.model.schema import Column
from dicomtorch.model.shown import CODED, shown, shown_uid

HASHED = (
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "ReferencedSOPInstanceUID",
    "PyramidUID",
    "ConcatenationUID",
)
"""UIDs that identify (PS3.15 table E.1-1)."""

_SHARED = """
    file frame offset length fragments bit_offset true_length span_rule SOPClassUID patient image_pixel
    TransferSyntaxUID Rows Columns SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit
    PixelRepresentation PlanarConfiguration pixel_data_vr frame_values RescaleSlope RescaleIntercept RescaleType
    modality_lut voi_lut voi_lut_count WindowCenter WindowWidth windows VOILUTFunction PresentationLUTShape palette
    PixelPresentation PixelPaddingValue PixelPaddingRangeLimit real_world_value_map DoseGridScaling SegmentationType
    MaximumFractionalValue SegmentNumber suv_factor ImagePositionPatient ImageOrientationPatient PixelSpacing
    SliceThickness SpacingBetweenSlices tile_column tile_row ZOffsetInSlideCoordinateSystem
    DimensionOrganizationType TotalPixelMatrixRows TotalPixelMatrixColumns total_pixel_matrix_origin
    ImageOrientationSlide ImagedVolumeWidth ImagedVolumeHeight SpecimenLabelInImage
    RecommendedAbsentPixelCIELabValue InConcatenationNumber
    InConcatenationTotalNumber ConcatenationFrameOffsetNumber Modality InstanceNumber AcquisitionNumber
    InStackPositionNumber TemporalPositionIndex FrameTime time TriggerTime EchoTime DiffusionBValue
    NominalPercentageOfCardiacPhase ComplexImageComponent KVP BurnedInAnnotation RecognizableVisualFeatures
"""
_FORMULA_LETTERS: Final = "=+@\t\r\n-"
_FORMULA = rf"\A([{_FORMULA_LETTERS}])"
_BEGINS_FORMULA = np.isin(np.arange(256), list(_FORMULA_LETTERS.encode()))
_ROWS: Final = 1 << 16  # of a CSV file that are made together
SHARED = frozenset(_SHARED.split())
"""Columns that identify nobody; free text, dates and times are not among them."""


def evaluate(
    expression: pc.Expression, table: Callable[[Sequence[str]], pa.Table], names: Sequence[str]
) -> npt.NDArray[Any]:
    """What an expression gives for each row; nulls are false.

    Args:
        expression: Over columns.
        table: Gives a table of the columns named.
        names: Of all columns.

    Raises:
        OptionError: It is no expression, or not over these columns.
    """
    from pyarrow import dataset

    if not isinstance(expression, pc.Expression):
        raise OptionError(
            f"filter takes a function of the index or an expression of pyarrow.compute; got "
            f"{type(expression).__name__}. A boolean array goes to select"
        )
    text = str(expression)
    used = table([name for name in names if name in text])  # a few too many at worst
    decoded = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in used.columns
    ]
    used = pa.table(decoded, names=used.column_names)
    try:
        found = dataset.dataset(used).to_table(columns={"result": expression}).column("result")
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise OptionError(f"the expression cannot be evaluated over the index: {error}") from error
    if pa.types.is_boolean(found.type):
        found = found.fill_null(False)
    return np.asarray(found.to_numpy())


def arrow_table(columns: Mapping[str, ColumnData], kinds: Sequence[Column]) -> pa.Table:
    """Columns as an Arrow table, over the same memory where nothing was selected.

    Who gets a table of some patients must not find the others among the values of its columns.
    """
    own = {k: data.compact() if isinstance(data, Texts) else data for k, data in columns.items()}
    return pa.Table.from_batches([to_arrow(own, kinds)])


def with_paths(
    table: pa.Table, files: npt.NDArray[Any], path_of: Callable[[int], bytes]
) -> pa.Table:
    """The table with a first column `path`.

    Args:
        table: One row a frame.
        files: The file of each.
        path_of: The path of a file.
    """
    numbers, inverse = np.unique(files, return_inverse=True)
    paths = [escaped(path_of(number)) for number in numbers.tolist()]
    return table.add_column(0, "path", pa.array(paths, pa.large_string()).take(pa.array(inverse)))


def shared_names(names: Sequence[str], keep: Sequence[str]) -> list[str]:
    """Those of the columns `names` that may be shared, `keep` among them.

    Raises:
        OptionError: There is no column of `keep`.
    """
    absent = [name for name in keep if name not in names]
    if absent:
        raise OptionError(f"keep: there is no column {', '.join(absent)}")
    return [name for name in names if name in SHARED or name in HASHED or name in keep]


def deidentified(
    table: pa.Table, keep: Sequence[str], hashed_uid: Callable[[str], str]
) -> pa.Table:
    """The table of `shared_names` with hashes for UIDs, and without values that the standard does not name."""
    return _hashed(withhold(table, keep), hashed_uid)


def hash_uids(table: pa.Table, salt: bytes | None = None) -> pa.Table:
    """The table with another UID in place of each that identifies: the same one for the same, if the salt is.

    Args:
        table: Some of the columns of an index.
        salt: Any bytes; `None`: a random one, so that nobody can repeat the hashes.
    """
    return _hashed(table, UIDHash(salt))


def _hashed(table: pa.Table, hashed_uid: Callable[[str], str]) -> pa.Table:
    for k, name in enumerate(table.column_names):
        if name in HASHED:
            column = table.column(name).combine_chunks()
            values = [hashed_uid(uid) for uid in column.dictionary.to_pylist()]
            hashed = pa.array(values, pa.large_string()).take(column.indices)
            table = table.set_column(k, name, hashed)
    return table


def withhold(table: pa.Table, keep: Sequence[str] = ()) -> pa.Table:
    """The table with VR and length in place of coded values and UIDs that the standard does not have.

    Args:
        table: Some of the columns of an index.
        keep: Columns that stay as they are.
    """
    for k, name in enumerate(table.column_names):
        rule = _RULES.get(name)
        if rule is not None and name not in keep:
            column = table.column(name).combine_chunks()
            values = [rule(value) for value in column.dictionary.to_pylist()]
            table = table.set_column(
                k, name, pa.array(values, pa.large_string()).take(column.indices)
            )
    return table


_RULES: Final[dict[str, Callable[[str], str]]] = {
    **{name: partial(shown, name) for name in CODED},
    "SOPClassUID": shown_uid,
    "TransferSyntaxUID": shown_uid,
}


class UIDHash:
    """Another UID in place of each: the same one for the same, if the salt is. One scheme for tables and samples.

    Args:
        salt: Any bytes, to be kept secret; `None`: random ones, so that nobody can repeat the hashes.

    Raises:
        OptionError: The salt is something else.
    """

    def __init__(self, salt: bytes | None = None) -> None:
        if salt is not None and not isinstance(salt, bytes):
            raise OptionError(f"salt must be bytes; got {type(salt).__name__}")
        self._key = hashlib.blake2b(secrets.token_bytes(32) if salt is None else salt).digest()

    def __call__(self, uid: str) -> str:
        """The UID for a UID, "" for ""; of several, between which there is a backslash, each for itself."""
        # A UUID of the kind for hashes (version 8) as PS3.5 B.2 writes one.
        if "\\" in uid:
            return "\\".join(map(self, uid.split("\\")))
        digest = hashlib.blake2b(uid.encode(), digest_size=16, key=self._key).digest()
        number = int.from_bytes(digest, "big")
        number = number & ~(0xF << 76) | 8 << 76
        number = number & ~(3 << 62) | 2 << 62
        return f"2.25.{number}" if uid else ""


def write_table(tables: Callable[[int], Iterator[pa.Table]], path: Path) -> None:
    """Writes `.csv`, `.parquet` or `.arrow`, which appears whole or not at all and which its owner alone may read.

    In CSV several numbers are joined with a backslash, as DICOM does, and text that a spreadsheet would take for a
    formula (it begins with =, +, -, @, a tab or a line break) has a quotation mark in front.

    Args:
        tables: Gives the rows in tables of at most so many, one at least.
        path: Of the file.

    Raises:
        OptionError: The suffix is none of these.
        OSError: It could not be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet", ".arrow"):
        raise OptionError(f"export writes .csv, .parquet or .arrow; got {path.suffix!r}")
    with whole_file(path) as file:
        if suffix == ".csv":
            _write_csv(tables(_ROWS), file)
        else:
            (table,) = tables(sys.maxsize)
            _write(table, file, suffix)


def _write_csv(tables: Iterable[pa.Table], file: Any) -> None:
    """Text takes many times the memory of a column: some rows at a time."""
    from pyarrow import csv

    flat = map(_flat, tables)
    first = next(flat)
    with csv.CSVWriter(file, first.schema) as writer:
        for table in itertools.chain([first], flat):
            writer.write_table(table)


def _write(table: pa.Table, file: Any, suffix: str) -> None:
    if suffix == ".parquet":
        from pyarrow import parquet

        parquet.write_table(table, file)
    else:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)


def _flat(table: pa.Table) -> pa.Table:
    """The table as columns that a CSV file can hold."""
    for k, column in enumerate(table.columns):
        if pa.types.is_fixed_size_list(column.type):
            column = _joined(column.combine_chunks(), column.type.list_size)
        elif pa.types.is_dictionary(column.type):
            column = _harmless(column.cast(column.type.value_type))
        elif pa.types.is_large_string(column.type):
            column = _harmless(column)
        table = table.set_column(k, table.column_names[k], column)
    return table


def _joined(lists: Any, width: int) -> pa.Array:
    """Numbers of each row with backslashes between them; each number is written once."""
    bits = np.asarray(lists.flatten()).view(np.int64).reshape(-1, width)
    if len(bits) and (bits == bits[0]).all():
        return _texts(bits[:1]).take(pa.array(np.zeros(len(bits), np.int64)))
    return _texts(bits)


def _texts(bits: npt.NDArray[np.int64]) -> pa.Array:
    known, numbers = np.unique(bits, return_inverse=True)
    texts = pa.array(list(map(repr, known.view(np.float64).tolist())), pa.large_string())
    parts = [texts.take(pa.array(part)) for part in numbers.reshape(bits.shape).T]
    return pc.binary_join_element_wise(*parts, pa.scalar("\\", pa.large_string()))


def _harmless(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text that no spreadsheet runs: whoever writes a file can write `=HYPERLINK(...)` into its attributes."""
    if not any(map(_has_formula, text.chunks)):  # nearly always, and known in a tenth of the time
        return text
    return pc.replace_substring_regex(text, _FORMULA, r"'\1")


def _has_formula(text: Any) -> bool:
    """Whether some text begins as a formula does."""
    width = np.dtype(np.int64 if pa.types.is_large_string(text.type) else np.int32)
    _, offsets, letters = text.buffers()
    if not len(text) or letters is None:
        return False
    ends: npt.NDArray[np.int64] = np.frombuffer(offsets, width)
    ends = ends[text.offset : text.offset + len(text) + 1]
    firsts = ends[:-1][ends[1:] > ends[:-1]]
    return bool(_BEGINS_FORMULA[np.frombuffer(letters, np.uint8)[firsts]].any())
