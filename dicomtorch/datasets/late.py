"""Stored values that became a batch already, as other values: what `DicomFrames.to_values` does."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dicomtorch.datasets.standardize import Standardization
from dicomtorch.errors import OptionError
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels.batch import convert
from dicomtorch.reader.context import ContextReader
from dicomtorch.reader.reader import FrameReader


class LateValues:
    """Converts stored values of the frames of one reader; remembers how, for each set of options."""

    def __init__(self) -> None:
        self._readers: dict[PixelOptions, FrameReader] = {}

    def of(
        self,
        reader: FrameReader | ContextReader,
        batch: Tensor,
        positions: Sequence[int],
        options: PixelOptions,
        standard: Standardization | None,
    ) -> tuple[Tensor, list[AppliedVOI]]:
        """Other values of a batch (B, C, H, W) of stored ones.

        Args:
            reader: What read them.
            batch: As it came.
            positions: Of its frames.
            options: What is asked for.
            standard: What its channels are freed of in the end.

        Raises:
            OptionError: The reader does not give stored values as the files have them.
            PixelValueError: The values cannot be made of a frame.
        """
        own = reader.options
        if isinstance(reader, ContextReader):
            raise OptionError("to_values needs a dataset with context=0")
        if own.values != "stored" or own.size is not None or own.padding != "keep":
            raise OptionError(
                f'to_values needs a dataset with values="stored", size=None and padding="keep"; this one has '
                f"values={own.values!r}, size={own.size}, padding={own.padding!r}"
            )
        if len(batch) != len(positions):
            raise OptionError(f"meta is of {len(positions)} frames, images are {len(batch)}")
        late = self._readers.get(options)
        if late is None:
            late = self._readers[options] = reader.with_options(options)
        result, applied = convert(batch, late.conversions(positions))
        if standard is not None:
            standard.apply(result, 1)
        return result, applied
