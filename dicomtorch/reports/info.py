"""What is in one file or one index, attribute by attribute, without anything that identifies a patient."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import format_count
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import SPAN_RULES
from dicomtorch.model.report import CLASS_NAMES, ScanReport
from dicomtorch.model.shown import CODED, shown
from dicomtorch.reader.forecast import forecast_in_order, is_remote
from dicomtorch.reports.page import PLAIN, Page, Sentence, table
from dicomtorch.reports.summary import summarize
from dicomtorch.reports.text import findings_blocks, format_bytes

_MOST_VALUES = 4  # of one attribute in text; JSON has all
_RULES = {
    "native": "native pixel data, one after the other",
    "single_frame": "one frame in the file, which has all fragments",
    "extended_offset_table": "Extended Offset Table",
    "basic_offset_table": "Basic Offset Table",
    "one_fragment_per_frame": "no table, as many fragments as frames",
    "markers": "no table, start and end markers of the code streams",
}

_BATCH = 32  # frames that are asked for together
_ORDERS = {
    "random": "Epoch at random",
    "grouped": f"Epoch in order, batches of {_BATCH}",
}

Show = Callable[[Any], str]


def _number(value: Any) -> str:
    absent = value == -1 if isinstance(value, np.integer) else math.isnan(value)
    return "" if absent else f"{value:.10g}"


def _numbers(value: Any) -> str:
    return "" if math.isnan(value[0]) else " \\ ".join(f"{number:.6g}" for number in value)


def _present(value: Any) -> str:
    return "yes" if value >= 0 else ""


SECTIONS: dict[str, dict[str, Show]] = {
    "Image pixel": {
        "Rows": str,
        "Columns": str,
        "SamplesPerPixel": str,
        "PhotometricInterpretation": str,
        "BitsAllocated": str,
        "BitsStored": str,
        "HighBit": str,
        "PixelRepresentation": lambda value: "signed" if value else "unsigned",
        "PlanarConfiguration": _number,
        "pixel_data_vr": str,
    },
    "Values": {
        "RescaleSlope": _number,
        "RescaleIntercept": _number,
        "RescaleType": str,
        "Units": str,
        "modality_lut": _present,
        "WindowCenter": _number,
        "WindowWidth": _number,
        "windows": str,
        "VOILUTFunction": str,
        "voi_lut": _present,
        "PresentationLUTShape": str,
        "palette": _present,
        "PixelPresentation": str,
        "PixelPaddingValue": _number,
        "PixelPaddingRangeLimit": _number,
        "real_world_value_map": _present,
        "DoseGridScaling": _number,
        "SegmentationType": str,
        "MaximumFractionalValue": _number,
        "suv_problem": str,
    },
    "Geometry": {
        "PixelSpacing": _numbers,
        "SliceThickness": _number,
        "SpacingBetweenSlices": _number,
        "ImageOrientationPatient": _numbers,
        "FrameTime": _number,
    },
    "Kind": {
        "ImageType": str,
        "BurnedInAnnotation": str,
        "RecognizableVisualFeatures": str,
    },
}
"""The columns that are shown, and how; none of them identifies anybody."""


def describe(
    index: FrameIndex, report: ScanReport, *, redact_paths: bool = False
) -> dict[str, Any]:
    """What is in an index, ready for `json.dumps`.

    Args:
        index: The frames.
        report: The files.
        redact_paths: Leaves paths out.

    Returns:
        What `summarize` gives, and:
            attributes: Per section and attribute a list of `value` and `frames`, the most frequent first; "" is
                absent.
            positions: Number of `distinct` ImagePositionPatient, `lowest` and `highest` of each coordinate in mm, and
                the `frames` that have one.
            location: Per rule by which frames were found, `rule` and `frames`.
            claimed_frames: Sum of what headers claim, of files that do.
            deflated_files: Files whose data set is deflated.
            epoch: Of frames on a server, what an epoch asks for in `random` order, frame by frame, and `grouped`, in
                the order of the index in batches of 32: `requests`, `bytes`, and `unsized` frames, whose size only
                their answer tells; `None` for files of this machine.
    """
    claimed = np.asarray(index.files["claimed_frames"])[_files_of(index)]
    return {
        **summarize(index, report, redact_paths=redact_paths),
        "attributes": {
            section: {
                name: _values(index.column(name), name, show) for name, show in columns.items()
            }
            for section, columns in SECTIONS.items()
        },
        "positions": _positions(index),
        "location": [
            {"rule": SPAN_RULES[int(rule)], "frames": int(frames)}
            for rule, frames in zip(
                *np.unique(np.asarray(index.column("span_rule")), return_counts=True), strict=True
            )
        ],
        "claimed_frames": int(claimed[claimed >= 0].sum()),
        "deflated_files": int(np.sum(np.asarray(index.files["deflated"])[_files_of(index)] == 1)),
        "epoch": _epoch(index) if is_remote(index) else None,
    }


def _epoch(index: FrameIndex) -> dict[str, dict[str, int]]:
    orders = {"random": 1, "grouped": _BATCH}
    return {name: forecast_in_order(index, size)._asdict() for name, size in orders.items()}


def _files_of(index: FrameIndex) -> npt.NDArray[np.int64]:
    return np.unique(np.asarray(index.column("file"))).astype(np.int64)


def _values(column: Any, name: str, show: Show) -> list[dict[str, Any]]:
    """Distinct values as text with their numbers of frames."""
    counts: Counter[str] = Counter()
    if isinstance(column, Texts):
        codes, frames = np.unique(column.codes, return_counts=True)
        for code, count in zip(codes.tolist(), frames.tolist(), strict=True):
            value = column.value(code)
            counts[shown(name, value) if name in CODED else value] += count
    else:
        numbers = np.asarray(column)
        width = numbers.shape[1] if numbers.ndim > 1 else 1
        # `np.unique` keeps rows with nan apart.
        absent = np.isnan(numbers.reshape(len(numbers), width)).any(axis=1)
        if absent.any():
            counts[""] = int(absent.sum())
        values, frames = np.unique(numbers[~absent], axis=0, return_counts=True)
        for value, count in zip(values, frames.tolist(), strict=True):
            counts[show(value)] += count
    return [{"value": value, "frames": frames} for value, frames in counts.most_common()]


def _positions(index: FrameIndex) -> dict[str, Any]:
    positions = np.asarray(index.column("ImagePositionPatient"), np.float64)
    positions = positions[~np.isnan(positions).any(axis=1)]
    if not len(positions):
        return {"distinct": 0, "lowest": None, "highest": None, "frames": 0}
    return {
        "distinct": len(np.unique(positions, axis=0)),
        "lowest": positions.min(axis=0).tolist(),
        "highest": positions.max(axis=0).tolist(),
        "frames": len(positions),
    }


def format_info(found: dict[str, Any], page: Page = PLAIN) -> str:
    """The same as text for a terminal; attributes that no frame has are left out."""
    blocks = [table(("", ""), _overview(found))]
    for section, attributes in found["attributes"].items():
        rows = [
            (name, _listed(values))
            for name, values in attributes.items()
            if any(entry["value"] for entry in values)
        ]
        if section == "Geometry" and found["positions"]["frames"]:
            rows.append(("ImagePositionPatient", _extent(found)))
        if rows:
            blocks.append(table((section, ""), rows))
    burned_in = found["attributes"]["Kind"]["BurnedInAnnotation"]
    if found["frames"] and not any(entry["value"] for entry in burned_in):
        text = "BurnedInAnnotation is absent: text burned into the pixels is not ruled out."
        blocks.append(Sentence(text, 0))
    return page.render(blocks + findings_blocks(found["findings"]))


def _overview(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("Files", _counts(found["files"])), ("Frames", f"{found['frames']:,}")]
    if not found["frames"]:
        return rows
    claimed = found["claimed_frames"]
    if claimed and sum(found["files"].values()) == 1:
        rows[1] = ("Frames", f"{found['frames']:,} (the header claims {claimed:,})")
    backends = sorted({entry["backend"] or "nothing" for entry in found["decoding"]})
    rows += [
        ("Pixel data", format_bytes(found["pixel_data_bytes"])),
        ("Modality", _listed(_named(found["modalities"]))),
        ("SOP class", _listed(_named(found["sop_classes"]))),
        ("Transfer syntax", _listed(_named(found["transfer_syntaxes"]))),
        ("Decoded by", ", ".join(backends)),
    ]
    rows += [("", entry["reason"]) for entry in found["decoding"] if entry["reason"]]
    places = [
        {"value": _RULES[entry["rule"]], "frames": entry["frames"]} for entry in found["location"]
    ]
    rows.append(("Frames found by", _listed(places)))
    for name, words in _ORDERS.items() if found["epoch"] else ():
        rows.append((words, _asked(found["epoch"][name])))
    if found["deflated_files"]:
        files = format_count(found["deflated_files"], "file")
        rows.append(("Deflated", f"{files}: each is inflated as a whole to read one frame"))
    return rows


def _asked(epoch: dict[str, int]) -> str:
    unsized = (
        f", and what {format_count(epoch['unsized'], 'compressed frame')} take"
        if epoch["unsized"]
        else ""
    )
    return f"{format_count(epoch['requests'], 'request')}, {format_bytes(epoch['bytes'])}{unsized}"


def _extent(found: dict[str, Any]) -> str:
    positions = found["positions"]
    lowest, highest = _numbers(positions["lowest"]), _numbers(positions["highest"])
    absent = found["frames"] - positions["frames"]
    missing = f"; {format_count(absent, 'frame')} without" if absent else ""
    if positions["distinct"] == 1:
        return f"{lowest}{missing}"
    return f"{positions['distinct']:,} different, {lowest} to {highest}{missing}"


def _counts(files: dict[str, int]) -> str:
    return "; ".join(f"{CLASS_NAMES[name]}: {n:,}" for name, n in files.items() if n) or "none"


def _named(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"value": entry["name"], "frames": entry["frames"]} for entry in entries]


def _listed(values: Sequence[dict[str, Any]]) -> str:
    """One value alone, several with how many frames have each."""
    if len(values) == 1:
        return str(values[0]["value"]) or "(absent)"
    parts = [
        f"{entry['value'] or '(absent)'}: {entry['frames']:,}" for entry in values[:_MOST_VALUES]
    ]
    more = f"; {len(values) - _MOST_VALUES:,} more" if len(values) > _MOST_VALUES else ""
    return "; ".join(parts) + more
