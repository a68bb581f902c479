"""What `doctor` learns from the first bytes of one frame a file: whether code streams are what their label says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from dicomtorch.backends.base import BACKENDS, choose_backend, get_backend
from dicomtorch.backends.streams import SYNTAXES, other_process
from dicomtorch.errors import DicomTorchError, UnsupportedError, format_count
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.shown import named_uid
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.reports.checks import Level, Remark

_BEGINNING = 1 << 14  # bytes of a frame, within which its frame header begins
_PROGRESS_DELAY = 2.0  # seconds


def check_streams(index: FrameIndex) -> list[Remark]:
    """Reads the first bytes of one encapsulated frame of each file.

    Args:
        index: The frames.
    """
    fetcher = FrameFetcher(index)
    others: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    unread: list[int] = []
    for position in tqdm(
        _one_of_each_file(index),
        "doctor",
        unit="file",
        delay=_PROGRESS_DELAY,
        disable=None,
        leave=False,
    ):
        pixel = index.image_pixel(position)
        file = index.locate([position])[0].file
        try:
            process = other_process(
                fetcher.beginning(position, _BEGINNING), pixel.transfer_syntax_uid
            )
        except DicomTorchError:
            unread.append(file)
            continue
        if process:
            others[pixel.transfer_syntax_uid, process, _decoder(pixel, process)].append(file)
    remarks = [_mislabelled(index, *key, files) for key, files in others.items()]
    if unread:
        text = f"{format_count(len(unread), 'file')} cannot be read as indexed"
        advice = "`dicomtorch verify` gives the reason for each"
        remarks.append(
            Remark("unread", "problem", text, advice, _frames_in(index, unread), tuple(unread))
        )
    return remarks


def _one_of_each_file(index: FrameIndex) -> list[int]:
    """The first position of every file whose frames are code streams."""
    numbers = np.asarray(index.column("image_pixel"))
    kinds, examples = np.unique(numbers, return_index=True)
    encapsulated = [
        kind
        for kind, i in zip(kinds.tolist(), examples.tolist(), strict=True)
        if index.image_pixel(i).is_encapsulated
    ]
    if not encapsulated:
        return []
    _, first = np.unique(np.asarray(index.column("file")), return_index=True)
    chosen: list[int] = first[np.isin(numbers[first], encapsulated)].tolist()
    return chosen


def _decoder(pixel: ImagePixel, process: str) -> str:
    """What decodes such a stream under the label of `pixel`: "auto", the name of another backend, or "".

    "auto" chooses by the label, so that the choice may not be able to decode what the stream is.
    """
    real = replace(pixel, transfer_syntax_uid=min(SYNTAXES[process]))
    try:
        if choose_backend("auto", pixel).supports(real):
            return "auto"
    except UnsupportedError:
        pass
    able = (name for name in BACKENDS if get_backend(name).supports(real))
    return next((name for name in able if get_backend(name).supports(pixel)), "")


def _mislabelled(
    index: FrameIndex, syntax: str, process: str, decoder: str, files: list[int]
) -> Remark:
    text = (
        f"{format_count(len(files), 'file')} with TransferSyntaxUID {named_uid(syntax)}, but the code stream is "
        f"{process}"
    )
    advice = {
        "auto": "decoded as what it is; other readers may refuse it",
        "": "nothing installed decodes that; convert them",
    }.get(decoder, f'the default backend does not decode that, backend="{decoder}" does')
    level: Level = "note" if decoder == "auto" else "problem"
    return Remark("streams", level, text, advice, _frames_in(index, files), tuple(files))


def _frames_in(index: FrameIndex, files: Iterable[int]) -> int:
    return int(np.isin(np.asarray(index.column("file")), list(files)).sum())
