"""Rectangles of frames, of which no more than their rows is read where rows lie one after the other."""

from __future__ import annotations

from dataclasses import replace

from dicomtorch.backends.base import Array, Backend
from dicomtorch.index.location import FrameLocation
from dicomtorch.model.image import ImagePixel
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.reader.open_files import OpenFiles
from dicomtorch.reader.rows import cut_columns, reads_rows, rows_of


def stored_rectangle(
    fetcher: FrameFetcher,
    where: FrameLocation,
    files: OpenFiles,
    pixel: ImagePixel,
    backend: Backend,
    rows: range,
    columns: range,
) -> Array:
    """What `FrameFetcher.stored` gives there; if the frame `reads_rows`, nothing else is read."""
    if not reads_rows(where, pixel):
        stored = fetcher.stored(where, files, pixel, backend)
        return stored[rows.start : rows.stop, columns.start : columns.stop]
    data = encoded_rectangle(fetcher, where, files, pixel, rows, columns)
    part = replace(pixel, rows=len(rows), columns=len(columns))
    return fetcher.decode(data, where, files, part, backend, None)


def encoded_rectangle(
    fetcher: FrameFetcher,
    where: FrameLocation,
    files: OpenFiles,
    pixel: ImagePixel,
    rows: range,
    columns: range,
) -> memoryview | bytes:
    """The bytes of a rectangle of a frame that `reads_rows`; see `FrameFetcher.read_encoded`."""
    offset, length = rows_of(where.span.offset, pixel, rows)
    span = where.span._replace(offset=offset, length=length)
    data = fetcher.read_encoded(where._replace(span=span), files, pixel)
    return data if len(columns) == pixel.columns else cut_columns(data, pixel, columns)
