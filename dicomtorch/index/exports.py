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

from dicomtorch.errors import OptionError, SourceError, escaped, printable
from dicomtorch.index.columns import ColumnData, Texts, to_arrow
from dicomtorch.index.csv_text import write_csv
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
_LINES: Final = 1 << 14  # of a CSV file that are made together
_ROW_GROUP: Final = 1 << 17  # rows of a Parquet file that are
_OTHER_BITS: Final = ~(0xF << 76 | 3 << 62)
_HASHED_KIND: Final = 8 << 76 | 2 << 62
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


def deidentified(table: pa.Table, keep: Sequence[str], hashed_uid: UIDHash) -> pa.Table:
    """The table of `shared_names` with hashes for UIDs, and without values that the standard does not name."""
    return _hashed(withhold(table, keep), hashed_uid)


def hash_uids(table: pa.Table, salt: bytes | None = None) -> pa.Table:
    """The table with another UID in place of each that identifies: the same one for the same, if the salt is.

    Args:
        table: Some of the columns of an index.
        salt: Any bytes; `None`: a random one, so that nobody can repeat the hashes.
    """
    return _hashed(table, UIDHash(salt))


def _hashed(table: pa.Table, hashed_uid: UIDHash) -> pa.Table:
    return _replaced(
        table, [name for name in table.column_names if name in HASHED], hashed_uid.of_all
    )


def withhold(table: pa.Table, keep: Sequence[str] = ()) -> pa.Table:
    """The table with VR and length in place of coded values and UIDs that the standard does not have.

    Args:
        table: Some of the columns of an index.
        keep: Columns that stay as they are.
    """
    for name, rule in _RULES.items():
        if name in table.column_names and name not in keep:
            table = _replaced(table, [name], partial(map, rule))
    return table


def _replaced(
    table: pa.Table, names: Sequence[str], other: Callable[[list[str]], Iterable[str]]
) -> pa.Table:
    """The table with other distinct values in some of its columns."""
    for name in names:
        k = table.column_names.index(name)
        column = table.column(name).combine_chunks()
        values = pa.array(list(other(column.dictionary.to_pylist())), pa.large_string())
        column = pa.DictionaryArray.from_arrays(column.indices, values)
        table = table.set_column(k, table.field(k).with_type(column.type), column)
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
        return self.of_all([uid])[0]

    def of_all(self, uids: Iterable[str]) -> list[str]:
        """The same for each of many."""
        keyed = hashlib.blake2b(digest_size=16, key=self._key)  # what the key makes is made once
        return [
            _uid_of(keyed.copy(), uid)
            if "\\" not in uid
            else "\\".join(_uid_of(keyed.copy(), one) for one in uid.split("\\"))
            for uid in uids
        ]


def _uid_of(keyed: hashlib.blake2b, uid: str) -> str:
    """A UUID of the kind for hashes (version 8) as PS3.5 B.2 writes one."""
    keyed.update(uid.encode())
    number = int.from_bytes(keyed.digest(), "big") & _OTHER_BITS | _HASHED_KIND
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
        SourceError: There is no such folder.
        OSError: It could not be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet", ".arrow"):
        raise OptionError(f"export writes .csv, .parquet or .arrow; got {path.suffix!r}")
    if not path.parent.is_dir():
        raise SourceError(
            f"export: there is no folder {printable(path.parent)} to write {printable(path.name)} into; make it first"
        )
    with whole_file(path) as file:
        if suffix == ".csv":
            write_csv(tables(_LINES), file)
        elif suffix == ".parquet":
            _write_parquet(tables(_ROW_GROUP), file)
        else:
            # The parts of such a file cannot have dictionaries of their own.
            (table,) = tables(sys.maxsize)
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)


def _write_parquet(tables: Iterator[pa.Table], file: Any) -> None:
    from pyarrow import parquet

    first = next(tables)
    with parquet.ParquetWriter(file, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)
