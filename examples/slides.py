"""A classifier of tissue on tiles of a whole slide image that this script makes.

    python examples/slides.py
    python examples/slides.py slides --epochs 5          # keeps the slides in a folder

Two slides are written, each in three levels, with two kinds of tissue that lie in different places. One is trained on,
the other one tells how well that went; bare glass is left out. The label of a tile comes from where it is on the glass.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dicomtorch import DicomSlides, DicomTiles, FrameMeta

TILE = 32
SPACING = 0.0005  # millimetres
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
Pixels = npt.NDArray[np.uint8]


class Network(nn.Module):
    """Takes (B, 3, H, W), uint8."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)),
        )

    def forward(self, tiles: Tensor) -> Tensor:
        scores: Tensor = self.layers(tiles.float() / 127.5 - 1)
        return scores


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not any(folder.rglob("*.dcm")):
            for number in range(2):
                write_slide(folder / f"slide{number}", number)
        train_and_validate(folder, args)


def train_and_validate(folder: Path, args: argparse.Namespace) -> None:
    slides = DicomSlides(folder)
    print(slides)
    # With more slides: slides.index.split([0.8, 0.2]), which keeps patients apart.
    train, validation = (
        DicomTiles(slides[k : k + 1], TILE, mpp=0.5, tissue=0.5, target=kind) for k in range(2)
    )
    print(train)
    loader = DataLoader(train, args.batch_size, shuffle=True)
    torch.manual_seed(args.seed)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for epoch in range(args.epochs):
        model.train()
        for tiles, kinds in loader:
            loss = nn.functional.cross_entropy(model(tiles), kinds)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right = count = 0
        model.eval()
        with torch.no_grad():
            for tiles, kinds in DataLoader(validation, args.batch_size):
                right += int((model(tiles).argmax(1) == kinds).sum())
                count += len(tiles)
        print(f"epoch {epoch}  accuracy {right / count:.3f} of {count}", flush=True)


def kind(meta: FrameMeta) -> int:
    """Of the tissue: on the first slide kind 1 is on the left, on the second one on the right."""
    is_left = meta["column"] < 384
    return int(is_left == (meta["StudyInstanceUID"] == uid(0)))


def uid(number: int) -> str:
    return str(generate_uid(entropy_srcs=["dicomtorch example", str(number)]))


def picture(number: int, rows: int = 512, columns: int = 768) -> Pixels:
    """Glass with two pieces of tissue, of which one has dark spots (nuclei) close together."""
    generator = np.random.default_rng(number)
    y, x = np.mgrid[:rows, :columns]
    image = generator.normal(244, 3, (rows, columns, 3))
    for place, dense in ((0.25, number == 0), (0.75, number == 1)):
        inside = ((y - rows / 2) / 200) ** 2 + ((x - place * columns) / 150) ** 2 < 1
        image[inside] = generator.normal((222, 150, 190), 8, (int(inside.sum()), 3))
        spots = generator.random((rows // 4, columns // 4)) < (0.25 if dense else 0.05)
        nuclei = inside & np.kron(spots, np.ones((4, 4), bool))
        image[nuclei] = generator.normal((90, 60, 140), 10, (int(nuclei.sum()), 3))
    return np.asarray(image.clip(0, 255).astype(np.uint8))


def write_slide(folder: Path, number: int) -> None:
    """Three levels, each with half the rows and columns of the one before, in a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    image = picture(number)
    for k in range(3):
        level(image, SPACING * 2**k, number).save_as(
            folder / f"level{k}.dcm", enforce_file_format=True
        )
        quarters = np.stack([image[a::2, b::2] for a in (0, 1) for b in (0, 1)])
        image = np.asarray(quarters.mean(axis=0).astype(np.uint8))


def level(image: Pixels, spacing: float, number: int) -> Dataset:
    """One level as a VL Whole Slide Microscopy Image, TILED_FULL; its size is a multiple of that of tiles."""
    rows, columns = image.shape[:2]
    tiles = image.reshape(rows // TILE, TILE, columns // TILE, TILE, 3).swapaxes(1, 2)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UID(WHOLE_SLIDE)
    dataset.SOPClassUID = WHOLE_SLIDE
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    names = ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    for name in names:
        setattr(dataset, name, uid(number))
    dataset.PatientID, dataset.ContainerIdentifier = f"patient-{number}", f"slide-{number}"
    dataset.Modality, dataset.ImageType = "SM", ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = rows, columns
    dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin, measures, groups = Dataset(), Dataset(), Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 40
    dataset.TotalPixelMatrixOriginSequence = Sequence([origin])
    measures.PixelSpacing = [spacing, spacing]
    groups.PixelMeasuresSequence = Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence([groups])
    dataset.Rows = dataset.Columns = TILE
    dataset.NumberOfFrames = rows * columns // TILE**2
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = dataset.PixelRepresentation = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.add_new("PixelData", "OB", tiles.tobytes())
    return dataset


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where slides are, or go")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
