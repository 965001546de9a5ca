"""What the pages talk of, small: the configs, a finished run, one's own images and scans."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from jernih.config import load_config
from jernih.data.images import write_png
from jernih.pipeline import Pipeline
from jernih.randomness import generator
from tests.docs.pages import ROOT

SIZE = 32


def prepare(folder: Path) -> Path:
    """Fill the folder that the pages' code runs in."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    phantom = folder / "configs" / "phantom.yaml"
    phantom.write_text(yaml.safe_dump(_small(yaml.safe_load(phantom.read_text()))))
    own_images(folder)
    _scans(folder / "scans", folder / "scans.csv")
    Pipeline(load_config(phantom), out=folder / "runs" / "phantom").run()
    return folder


def own_images(folder: Path) -> None:
    """Photographs, and a folder of labelled images."""
    for number in range(12):
        colours = torch.rand(3, 40, 50, generator=generator("photo", number))
        write_png(folder / "photos" / f"photo-{number}.png", colours)
    _class_folders(folder / "my-images")


def _small(config: dict[str, Any]) -> dict[str, Any]:
    """The embedded default with few small images and a minute less training."""
    config["sample"]["source"] |= {"images": 120, "size": SIZE}
    config["sample"]["split"] |= {"val": 0.25}
    config["modify"]["size"] = SIZE
    model = config["model"]
    model["classifier_training"] |= {"epochs": 2}
    model["purifier_training"] |= {"epochs": 1}
    model["purifier"] |= {"widths": [4]}
    return config


def _class_folders(folder: Path) -> None:
    """Bright and dark images, which any classifier can tell apart."""
    for label, middle in (("cats", 0.35), ("dogs", 0.65)):
        for number in range(40):
            noise = torch.rand(3, SIZE, SIZE, generator=generator(label, number)) * 0.3 - 0.15
            write_png(folder / label / f"{label}-{number:02d}.png", noise + middle)


def _scans(folder: Path, labels: Path) -> None:
    """Radiographs of 12 bits with a window, and the table that says who is ill."""
    folder.mkdir()
    rows = []
    for number in range(80):
        ill = number % 2
        rng = np.random.default_rng(number)
        pixels = rng.integers(500 + 700 * ill, 2500 + 700 * ill, (SIZE, SIZE), dtype=np.uint16)
        scan = Dataset()
        scan.file_meta = FileMetaDataset()
        scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        scan.SOPClassUID = ComputedRadiographyImageStorage
        scan.SOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        scan.PatientID = f"p{number:02d}"
        scan.Rows = scan.Columns = SIZE
        scan.SamplesPerPixel, scan.PhotometricInterpretation = 1, "MONOCHROME2"
        scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation = 16, 12, 11, 0
        scan.WindowCenter, scan.WindowWidth = 2000, 3000
        scan.PixelData = pixels.tobytes()
        scan.save_as(folder / f"p{number:02d}.dcm", enforce_file_format=True)
        rows.append((f"p{number:02d}", ill))
    with labels.open("w", newline="") as stream:
        csv.writer(stream).writerows([("patientId", "Target"), *rows])
