"""What the pages speak of: `studies/`, `ct/`, `labels.csv` and so on, written where the code of a page runs."""

from __future__ import annotations

import csv
import itertools
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset

import dicomtorch
from examples import make_data, slides

sys.modules.setdefault("make_data", make_data)


def write(page: str, folder: Path) -> None:
    """The files of a page, below `folder`."""
    for build in WORLDS.get(page, ()):
        build(folder)


def studies(folder: Path, patients: int = 4) -> None:
    """496 frames of one shape: CT of four patients, and a loop; `labels.csv` by SOPInstanceUID; `image.dcm`."""
    make_data.write_ct(folder / "made", patients=patients, slices=9, size=32)
    move(folder / "made/images", folder / "studies")
    rng = np.random.default_rng(0)
    loop = make_data.image(
        rng.integers(0, 255, (460, 32, 32)).astype(np.uint8),
        "1.2.840.10008.5.1.4.1.1.3.1",
        "loop",
        Modality="US",
        FrameTime=33.3,
        **make_data.identity(77),
    )
    make_data.save(loop, folder / "studies/loop.dcm")
    first = pydicom.dcmread(next(iter(sorted((folder / "studies").rglob("*.dcm")))))
    first.PatientSex = "O"
    make_data.save(first, folder / "image.dcm")
    files = sorted((folder / "studies").rglob("*.dcm"))
    uids = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files]
    rows = [("SOPInstanceUID", "label"), *((uid, k % 2) for k, uid in enumerate(uids))]
    make_data.write_table(folder / "labels.csv", rows)


def slices(folder: Path) -> None:
    """`studies/` without its loop: 36 slices of one shape."""
    studies(folder)
    (folder / "studies/loop.dcm").unlink()


def labelled(name: str, *, labels: tuple[str, ...], folder: Path) -> None:
    """CT series of four patients with a SEG or an RTSTRUCT each, in the folder `name`."""
    make_data.write_segments(folder / "made", patients=4, slices=6, size=32)
    paths = sorted((folder / "made").rglob("mask.dcm"))
    for path, label in zip(paths, itertools.cycle(labels), strict=False):
        dataset = pydicom.dcmread(path)
        if dataset.Modality == "SEG":
            dataset.SegmentSequence[0].SegmentLabel = label
        else:
            dataset.StructureSetROISequence[0].ROIName = label
        dataset.save_as(path)
    move(folder / "made/images", folder / name)


def liver_and_tumour(folder: Path) -> None:
    """`ct/` with masks, and `nodules.csv` of points in it."""
    labelled("ct", labels=("liver", "tumour"), folder=folder)
    points(folder, "ct", "nodules.csv")


def points(
    folder: Path, of: str, name: str, *, columns: str = "SeriesInstanceUID x y z label"
) -> None:
    """A table with two points in each series of a folder."""
    series = {
        dataset.SeriesInstanceUID: dataset
        for path in sorted((folder / of).rglob("*.dcm"))
        if (dataset := pydicom.dcmread(path, stop_before_pixels=True)).Modality == "CT"
    }
    rows: list[tuple[object, ...]] = [tuple(columns.split())]
    for uid, one in series.items():
        x, y, z = (float(number) for number in one.ImagePositionPatient)
        rows += [(uid, x + 10, y + 9, z, 0), (uid, x + 12, y + 11, z, 1)]
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def of_a_challenge(folder: Path) -> None:
    """`annotations.csv`, as a challenge has it."""
    points(folder, "ct", "annotations.csv", columns="seriesuid coordX coordY coordZ label")


def echo(folder: Path) -> None:
    """Loops of three patients."""
    make_data.write_cines(folder / "made", patients=3, frames=40, size=24)
    move(folder / "made/images", folder / "echo")


def mammograms(folder: Path) -> None:
    """Two images of 1,600 x 1,400 with a window, `boxes.csv` and `coco.json`."""
    rows = [("SOPInstanceUID", "xmin", "ymin", "xmax", "ymax", "label")]
    coco: dict[str, list[object]] = {"images": [], "annotations": [], "categories": []}
    coco["categories"].append({"id": 1, "name": "mass"})
    for k in range(2):
        rng = np.random.default_rng(k)
        pixels = rng.integers(0, 4095, (1600, 1400)).astype(np.uint16)
        one = make_data.image(
            pixels,
            "1.2.840.10008.5.1.4.1.1.1.2",
            f"mammogram {k}",
            Modality="MG",
            WindowCenter=2000,
            WindowWidth=4000,
            **make_data.identity(k),
        )
        make_data.save(one, folder / f"mammograms/{k}.dcm")
        rows.append((one.SOPInstanceUID, "300", "400", "420", "500", str(k)))
        coco["images"].append({"id": k, "file_name": f"{k}.dcm", "width": 1400, "height": 1600})
        coco["annotations"].append(
            {"id": k, "image_id": k, "category_id": 1, "bbox": [300, 400, 512, 512]}
        )
    make_data.write_table(folder / "boxes.csv", rows)
    (folder / "coco.json").write_text(json.dumps(coco))


def archive(folder: Path) -> None:
    """`study.zip`, and a folder beside it."""
    studies(folder)
    shutil.make_archive(str(folder / "study"), "zip", folder / "studies")


def sites(folder: Path) -> None:
    """`north.index` and `south.index`, of folders with four patients each."""
    for name in ("north", "south"):
        make_data.write_ct(folder / f"made-{name}", patients=4, slices=9, size=32)
        move(folder / f"made-{name}/images", folder / name)
        dicomtorch.scan(folder / name)[0].save(folder / f"{name}.index")


def glass(folder: Path) -> None:
    """Two slides with `labels.csv` by patient."""
    for number in range(4):
        slides.write_slide(folder / f"slides/{number}", number)
    rows = [("PatientID", "tumour"), *((f"patient-{k}", str(k % 2)) for k in range(4))]
    make_data.write_table(folder / "labels.csv", rows)


def everything(folder: Path) -> None:
    """What docstrings name."""
    for build in (glass, tables_by_patient, liver_and_tumour, echo, mammograms):
        build(folder)
    points(folder, "ct", "candidates.csv")


def move(source: Path, target: Path) -> None:
    """Renames, and makes the folder for it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def structures(folder: Path) -> None:
    """`studies/` and `ct/` with RTSTRUCT, or SEG in the first one too; a report with a mass."""
    labelled("studies", labels=("GTV 1", "heart", "lung_l", "heart"), folder=folder)
    labelled("ct", labels=("liver",), folder=folder)
    for path in list((folder / "ct").rglob("mask.dcm")):
        if pydicom.dcmread(path).Modality == "SEG":
            shutil.rmtree(path.parent)
    for path in (folder / "ct").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        if dataset.Modality == "CT":  # what a SEG of it repeats
            set_empty(dataset)
            dataset.save_as(path)
    report_of_a_mass(folder)


def set_empty(dataset: Dataset) -> None:
    """What objects that refer to an image repeat of it."""
    for keyword in ("PatientName", "PatientBirthDate", "StudyID", "AccessionNumber", "StudyTime"):
        setattr(dataset, keyword, "")
    dataset.PatientSex, dataset.ReferringPhysicianName, dataset.StudyDate = "O", "", "20240101"


def report_of_a_mass(folder: Path) -> None:
    """A structured report (TID 1500) of a region in one of the images of `studies/`."""
    hd = pytest.importorskip("highdicom")
    image = pydicom.dcmread(
        next(p for p in sorted((folder / "studies").rglob("*.dcm")) if p.stem.isdigit())
    )
    set_empty(image)
    observer = hd.sr.ObserverContext(
        hd.sr.CodedConcept("121007", "DCM", "Device"),
        hd.sr.DeviceObserverIdentifyingAttributes(hd.UID()),
    )
    mass = hd.sr.CodedConcept("4147007", "SCT", "Mass")
    corners = np.array([[8.0, 8], [20, 8], [20, 20], [8, 20], [8, 8]])
    region = hd.sr.ImageRegion(
        "POLYLINE", corners, hd.sr.SourceImageForRegion.from_source_image(image)
    )
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(hd.UID(), "finding"), referenced_region=region, finding_type=mass
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer),
        procedure_reported=mass,
        imaging_measurements=[group],
    )
    document = hd.sr.Comprehensive3DSR(
        [image], report[0], hd.UID(), 200, hd.UID(), 1, "maker", is_complete=True
    )
    document.save_as(folder / "studies/report.dcm")


def train(folder: Path) -> None:
    """`studies/` as `train/`, and its labels as a table."""
    slices(folder)
    move(folder / "studies", folder / "train")
    rows = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join(rows[:-1]) + "\n")


def tables_by_patient(folder: Path, copies: int = 0) -> None:
    """`studies/` of many patients, some pictures under two; `labels.csv` by patient, `train.csv` by file."""
    studies(folder, patients=16)
    for path in sorted((folder / "studies").rglob("*.dcm")):
        path.rename(path.with_name(f"{path.parent.name}-{path.name}"))
    for k, path in enumerate(sorted((folder / "studies").rglob("*.dcm"))[: 9 * copies : 9]):
        copy = pydicom.dcmread(path)
        for keyword, value in make_data.identity(900 + k).items():
            setattr(copy, keyword, value)
        copy.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["copy", str(k)])
        copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
        copy.save_as(path.with_name(f"copy-{path.name}"))
    files = sorted((folder / "studies").rglob("*.dcm"))
    patients = {str(pydicom.dcmread(path, stop_before_pixels=True).PatientID): 1 for path in files}
    rows = [("PatientID", "label"), *((name, k % 2) for k, name in enumerate(patients))]
    make_data.write_table(folder / "labels.csv", rows)
    make_data.write_table(
        folder / "train.csv", [("image_id", "grade"), *((p.stem, 3) for p in files)]
    )


def tables_with_copies(folder: Path) -> None:
    """The same with ten files that were copied under another name."""
    tables_by_patient(folder, copies=10)


def perfusion(folder: Path) -> None:
    """`mr/`: a study of two series, and one whose series has three volumes."""
    rng = np.random.default_rng(0)
    for patient, name, times in ((0, "T1 SAG", 1), (0, "FLAIR", 1), (1, "DCE", 3)):
        for time, k in itertools.product(range(times), range(6)):
            one = make_data.image(
                rng.integers(0, 1000, (24, 24)).astype(np.int16),
                "1.2.840.10008.5.1.4.1.1.4",
                f"mr {name} {time} {k}",
                Modality="MR",
                SeriesDescription=name,
                InstanceNumber=6 * time + k + 1,
                TriggerTime=1500 * time,
                FrameOfReferenceUID=f"1.2.3.{patient}",
                ImagePositionPatient=[0, 0, 4 * k],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[2, 2],
                **make_data.identity(patient, len(name)),
            )
            make_data.save(one, folder / f"mr/{name}/{time}-{k}.dcm")


WORLDS: dict[str, tuple[Callable[[Path], None], ...]] = {
    "README.md": (studies, liver_and_tumour, echo),
    "docs/index.md": (studies,),
    "docs/how-to/archives.md": (archive,),
    "docs/how-to/dicomweb.md": (studies,),
    "docs/how-to/distributed.md": (liver_and_tumour, studies),
    "docs/how-to/frames.md": (studies,),
    "docs/how-to/large.md": (mammograms,),
    "docs/how-to/loading.md": (studies,),
    "docs/how-to/masks.md": (structures,),
    "docs/how-to/remote.md": (slices,),
    "docs/how-to/planning.md": (sites,),
    "docs/how-to/sampling.md": (studies, echo, liver_and_tumour),
    "docs/how-to/selecting.md": (tables_with_copies,),
    "docs/how-to/slides.md": (glass,),
    "docs/how-to/viewer.md": (studies,),
    "docs/how-to/volumes.md": (liver_and_tumour, of_a_challenge, perfusion),
    "docs/start/coming-from.md": (train,),
    "docs/start/ten-minutes.md": (studies,),
}


def names(page: str) -> dict[str, object]:
    """What the text of a page takes for granted."""
    return NAMES[page]() if page in NAMES else {}


def with_frames() -> dict[str, object]:
    """Frames of `studies/`."""
    frames = dicomtorch.DicomFrames("studies/")
    return {"frames": frames}


def with_labels() -> dict[str, object]:
    """The same with labels."""
    index = dicomtorch.DicomFrames("studies/").index
    return {"frames": dicomtorch.DicomFrames(index.join("labels.csv", on="SOPInstanceUID"))}


def of_docstrings() -> dict[str, object]:
    """Frames, an index with a tag, part of it, and a UID of one frame."""
    frames = dicomtorch.DicomFrames("studies/", tags=["KVP"])
    uid = frames.index.column("SOPInstanceUID")[0]
    return {
        "frames": frames,
        "index": frames.index,
        "train": frames.index.split(0.8)[0],
        "pc": pyarrow.compute,
        "uid": uid,
    }


def with_loader() -> dict[str, object]:
    """The same, and a loader."""
    frames = dicomtorch.DicomFrames("studies/")
    return {"frames": frames, "loader": dicomtorch.FrameLoader(frames, 8)}


NAMES: dict[str, Callable[[], dict[str, object]]] = {
    "docs/how-to/frames.md": lambda: {"source": "studies"},
    "docs/how-to/loading.md": with_frames,
    "docs/how-to/sampling.md": with_labels,
    "docs/how-to/viewer.md": with_loader,
    "docs/how-to/masks.md": lambda: {
        "cross_entropy": lambda scores, masks: (scores, masks),
        "augment": lambda *sample: sample,
        "prediction": torch.ones((6, 32, 32), dtype=torch.uint8),
    },
    "docs/how-to/volumes.md": lambda: {
        "x": 4.0,
        "y": 4.0,
        "z": 3.0,
        "prediction": torch.ones((1, 32, 32, 8)),
    },
    "docs/how-to/privacy.md": lambda: {"logging": logging},
}
