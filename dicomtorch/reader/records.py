"""Frames apart from their files: the bytes of one, with a record that says what they mean, and back to a tensor."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dicomtorch.backends.base import Backend, decoding
from dicomtorch.backends.guard import check_claim
from dicomtorch.errors import DecodeError, HeaderError, OptionError
from dicomtorch.model.frame import AppliedVOI, FrameValues
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.options import PixelOptions
from dicomtorch.model.record import from_record, number, to_record
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels.plan import Plan, make_plan
from dicomtorch.pixels.voi import SharedRange
from dicomtorch.reader.choice import ChosenBackends, Isolation
from dicomtorch.reader.reader import FrameReader

Contents = Literal["encoded", "stored"]

VERSION = 1
"""Of records."""

_MOST_RECIPES = 4096


def write_record(
    reader: FrameReader, position: int, contents: Contents, *, withhold: bool = True
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a frame, and what `RecordReader` needs besides.

    Args:
        reader: Of the index, with options for display values.
        position: In the index.
        contents: "encoded": as the file has them, the code stream or the native frame. "stored": decoded, as `.npy`.
        withhold: See `model.record.to_record`.

    Returns:
        The bytes, and a record that JSON can hold.

    Raises:
        DicomTorchError: The frame cannot be read or decoded; the message names it.
    """
    if contents == "stored":
        file = io.BytesIO()
        np.save(file, reader.read_stored(position), allow_pickle=False)
        data = file.getvalue()
    else:
        data = reader.read_encoded(position)
    values = reader.index.frame_values(position)
    record = {
        "version": VERSION,
        "contents": contents,
        "values": to_record(values, withhold=withhold),
    }
    shared = _dose_range(reader, position)
    return data, record if shared is None else {**record, "dose_range": shared}


def _dose_range(reader: FrameReader, position: int) -> list[float] | None:
    """The modality values that frames of one dose grid have in common as black and white."""
    (where,) = reader.index.locate([position])
    recipe = None
    if reader.index.frame_values(position).pixel in reader.fetcher.backends.chosen:
        recipe = reader.recipe(where)
    if recipe is None or "file" not in recipe.shares:
        return None
    shared = next(filter(None, reader.ranges.of(where, recipe.shares)))
    return [shared.low, shared.high]


class RecordReader:
    """Makes tensors of what `write_record` gave; no file of DICOM is read.

    Picklable, and safe to use from several threads.

    Args:
        options: What is asked of the pixels: nothing that several frames decide.
        backend: A name, "auto", or a `Backend`.
        isolation: See `ChosenBackends`.
        limits: What records may claim.

    Raises:
        OptionError: An option needs other frames, or their files.
    """

    def __init__(
        self,
        options: PixelOptions | None = None,
        backend: str | Backend = "auto",
        isolation: Isolation = None,
        limits: Limits = LIMITS,
    ) -> None:
        self.options = options or PixelOptions()
        if "series" in self.options.windows:
            raise OptionError(
                'window="series" needs the other frames of the series: read the index'
            )
        if self.options.decode != "exact":
            raise OptionError("decode='reduced' is for frames in their files: read the index")
        self._backend, self._isolation, self._limits = backend, isolation, limits
        self._recipes: dict[str, tuple[FrameValues, Plan, ChosenBackends]] = {}

    def read(self, data: bytes, record: Mapping[str, Any]) -> tuple[Tensor, AppliedVOI]:
        """The image (C, H, W) of a frame, and how it was made display values.

        Raises:
            DicomTorchError: The record is none, or the bytes are not what it says.
        """
        values, plan, backends = self._recipe(record)
        if record["contents"] == "stored":
            stored = _loaded(data, values)
        else:
            decoding.limits = self._limits
            try:
                stored = backends.of(values.pixel).decode(data, values.pixel, None)
            finally:
                decoding.limits = LIMITS
        return pixels.apply(stored, values, self.options, shared=_shared(record, plan), plan=plan)

    def _recipe(self, record: Mapping[str, Any]) -> tuple[FrameValues, Plan, ChosenBackends]:
        if record.get("version") != VERSION or record.get("contents") not in ("encoded", "stored"):
            raise HeaderError(
                f"this is no record of version {VERSION} of a frame; write the frames anew with FrameIndex.write"
            )
        try:
            key = json.dumps(record["values"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise HeaderError(
                f"this record has no values of a frame ({type(error).__name__}); write the frames anew with "
                "FrameIndex.write"
            ) from None
        known = self._recipes.get(key)
        if known is None:
            values = from_record(record["values"])
            check_claim(values.pixel, self._limits)
            backends = ChosenBackends(self._backend, [values.pixel], self._isolation)
            known = values, make_plan(values, self.options), backends
            if len(self._recipes) >= _MOST_RECIPES:
                self._recipes.clear()
            self._recipes[key] = known
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recipes": {}}


def _shared(record: Mapping[str, Any], plan: Plan) -> list[SharedRange | None] | None:
    """The mapping of each channel that frames of a dose grid have in common."""
    given = record.get("dose_range")
    if given is None or not any(mapping.kind == "range" for mapping in plan.channels):
        return None
    try:
        shared = SharedRange(number(given[0]), number(given[1]), "dose")
    except (TypeError, ValueError, LookupError) as error:
        raise HeaderError(
            f"the dose_range of this record is no pair of numbers ({type(error).__name__})"
        ) from error
    return [shared if mapping.kind == "range" else None for mapping in plan.channels]


def _loaded(data: bytes, values: FrameValues) -> npt.NDArray[Any]:
    try:
        stored: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DecodeError(f"these are no stored values ({type(error).__name__})") from error
    if stored.shape != values.pixel.shape:
        raise DecodeError(
            f"stored values have shape {stored.shape}; their record says {values.pixel.shape}"
        )
    return stored
