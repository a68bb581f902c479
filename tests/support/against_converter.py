"""`python -m tests.support.against_converter FOLDER ...`: volumes of real series beside those of dcm2niix.

Each folder that has files of its own is given to both. A volume of the converter (one time point of a file, of two
slices or more) is delivered when one of ours has its voxels at its place, within 0.01 mm at the corners. What has
its voxels at another place is told with the distance: the converter takes the step between the first two slices for
all, so that where positions are rounded ours is the right one, which ends where the last file says (PS3.3
C.7.6.2.1.1). Ours that the converter does not have are told, too, and are to be looked at. Ends with 1 where less
than `--least` percent are delivered.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np

from dicomtorch import DicomVolumes
from dicomtorch.errors import DicomTorchError
from tests.support.converter import Converted, Floats, converted, corners, read_nifti, turned_to


class Ours(NamedTuple):
    """One of our volumes: voxels (x, y, z, 1) as stored and as modality values, and its affine to RAS."""

    stored: Any
    modality: Any
    affine: Floats


class Outcome(NamedTuple):
    """What became of one folder: numbers of volumes, and what we left out and why."""

    converter: int
    delivered: int
    elsewhere: int
    others: int
    why: str


def folders(roots: Sequence[Path]) -> Iterator[Path]:
    """Every folder below that holds files."""
    for root in roots:
        for folder, _, files in sorted(os.walk(root)):
            if files:
                yield Path(folder)


def their_volumes(folder: Path, output: Path) -> list[tuple[Converted, int]]:
    """Volumes of two slices or more that the converter makes, also where it fails at some of the files."""
    with contextlib.suppress(subprocess.CalledProcessError):
        converted(folder, output)
    made = [_as_stored(path) for path in sorted(output.glob("*.nii"))]
    gray = [one for one in made if one.voxels.dtype.names is None and one.voxels.shape[2] > 1]
    return [(one, time) for one in gray for time in range(one.voxels.shape[3])]


def _as_stored(path: Path) -> Converted:
    """A file of the converter before its slope: for some it takes that of private elements."""
    image: Any = nibabel.load(path)
    voxels = image.dataobj.get_unscaled()
    return read_nifti(path)._replace(voxels=np.atleast_3d(voxels).reshape(*voxels.shape[:3], -1))


def our_volumes(folder: Path) -> tuple[list[Ours], str]:
    """What we make of a folder, and what was left out."""
    stored = DicomVolumes(folder, values="stored", on_gap="warn", refresh=True)
    modality = DicomVolumes(stored.index, values="modality", on_gap="warn")
    made = []
    for number in range(len(stored)):
        image, meta = stored[number][:2]
        affine = meta["affine_ras"].numpy()[:, [2, 1, 0, 3]]
        made.append(Ours(_turned(image), _turned(modality[number][0]), affine))
    return made, stored.stacks.reasons()


def _turned(image: Any) -> Any:
    """(C, D, H, W) to (x, y, z, 1); of colour the first channel."""
    return np.transpose(image[:1].numpy(), (3, 2, 1, 0))


def distance(expected: Converted, time: int, ours: Ours) -> float | None:
    """How far apart the corners of both are, in mm; `None` where voxels differ."""
    voxels = expected.voxels[..., time : time + 1]
    if sorted(voxels.shape[:3]) != sorted(ours.stored.shape[:3]):
        return None
    stored, affine = turned_to(expected.affine, ours.stored, ours.affine)
    if stored.shape != voxels.shape:
        return None
    scaled, _ = turned_to(expected.affine, ours.modality, ours.affine)
    if not np.array_equal(stored, voxels) and not np.allclose(scaled, voxels, 1e-5, 1e-3):
        return None
    apart = corners(affine, stored.shape) - corners(expected.affine, voxels.shape)
    return float(np.abs(apart).max())


def outcome(folder: Path) -> Outcome:
    """Both over the files of one folder, without those of the folders in it."""
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as alone:
        for path in folder.iterdir():  # copies: the converter goes down into folders
            if path.is_file():
                shutil.copy(path, alone)
        wanted = their_volumes(Path(alone), Path(made))
        left: list[Ours] = []
        try:
            left, why = our_volumes(Path(alone))
        except DicomTorchError as error:
            why = str(error)
    delivered = elsewhere = 0
    for one, time in wanted:
        apart = [distance(one, time, mine) for mine in left]
        known = [(far, k) for k, far in enumerate(apart) if far is not None]
        if not known:
            continue
        far, k = min(known)
        del left[k]
        delivered += far <= 0.01
        elsewhere += far > 0.01
        if far > 0.01:
            why = f"the voxels of a volume of the converter, {far:.2f} mm apart. {why}"
    return Outcome(len(wanted), delivered, elsewhere, len(left), why)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.against_converter", description=__doc__
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--least", type=float, default=98.0, help="percent; default: %(default)s")
    options = parser.parse_args()
    total = np.zeros(4, np.int64)
    for folder in folders(options.folders):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = outcome(folder)
        total += found[:4]
        if any(found[:4]):
            said = f"{found.delivered} of {found.converter}, {found.elsewhere} elsewhere"
            print(f"{said}, {found.others} others: {folder}", flush=True)
            if found.delivered < found.converter or found.others:
                print("    " + found.why.replace("\n", "\n    "), flush=True)
    share = 100 * total[1] / max(total[0], 1)
    print(
        f"{total[1]} of {total[0]} volumes of the converter ({share:.1f} %), "
        f"{total[2]} elsewhere, {total[3]} that it does not have"
    )
    return int(share < options.least)


if __name__ == "__main__":
    sys.exit(main())
