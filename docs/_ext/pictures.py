"""Pictures of the pages that explain: made of files that come with pydicom, and drawn as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom.data import get_testdata_file

from dicomtorch import DicomFrames

VALUES = {
    "stored": ({"values": "stored"}, "the file's integers"),
    "modality": ({"values": "modality"}, "Hounsfield units"),
    "display": ({}, "no window in the file: its whole range"),
    "window": ({"window": (40, 400)}, "window=(40, 400)"),
}
STEPS = (
    ("frames[i]", "position, options, what an error becomes", "datasets"),
    ("index", "file, offset and length of the frame, numbers of its header", "index"),
    ("one read", "the bytes of this frame, and no others", "storage"),
    ("decode", "a guard compares the code stream with the header; then a backend", "backends"),
    (
        "stored values",
        "integers as the file has them; padding, planes and colour put right",
        "reader",
    ),
    ("modality values", "slope and intercept, or a table: Hounsfield units, SUV", "pixels"),
    ("display values", "window or VOI table, inversion: [0, 1], bright is high", "pixels"),
    ("size, normalize", "resized with the aspect kept, mean and deviation", "pixels"),
    ("image, meta", "a tensor (C, H, W) and a dict; a batch is made in one piece", "batches"),
)


def write(folder: Path) -> None:
    """All pictures, where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "frame.svg").write_text(way_of_a_frame(), encoding="utf-8")
    missing = [name for name in VALUES if not (folder / f"values-{name}.png").exists()]
    for name in missing:
        options, title = VALUES[name]
        draw(folder / f"values-{name}.png", options, title)


def draw(path: Path, options: dict[str, Any], title: str) -> None:
    """A slice with its values: the picture, and how often each value is there."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    image, _ = DicomFrames(str(get_testdata_file("CT_small.dcm")), **options)[0]
    values = image[0].numpy()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    drawn = left.imshow(values, cmap="gray", interpolation="nearest")
    left.axis("off")
    figure.colorbar(drawn, ax=left, shrink=0.9)
    right.hist(values.ravel(), bins=100, color="tab:gray")
    right.set(
        xlabel=title, yticks=[], title=f"{values.dtype}, {values.min():g} to {values.max():g}"
    )
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def way_of_a_frame() -> str:
    """Steps below each other, as SVG; narrow, so that it can be read on a telephone."""
    rows = []
    for k, (name, what, room) in enumerate(STEPS):
        y = 10 + 74 * k
        rows.append(
            f'<rect x="10" y="{y}" width="480" height="56" rx="6" fill="#eef3f9" stroke="#4a6a8c"/>'
            f'<text x="22" y="{y + 23}" font-weight="bold">{name}</text>'
            f'<text x="478" y="{y + 23}" text-anchor="end" fill="#4a6a8c">{room}/</text>'
            f'<text x="22" y="{y + 44}">{what}</text>'
        )
        if k:
            rows.append(
                f'<path d="M250 {y - 17} v10 m-5 -6 l5 6 l5 -6" stroke="#4a6a8c" fill="none"/>'
            )
    height = 74 * len(STEPS) + 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 500 {height}" width="500" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="14" fill="#1c2733"><title>The way of a frame</title>'
        f'<rect width="500" height="{height}" fill="#ffffff"/>{"".join(rows)}</svg>\n'
    )
