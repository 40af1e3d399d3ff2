"""DICOM files and radiographs made on the spot, with a truth that does not come from the code under test."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from usx_xray.geometry import XrayGeometry
from usx_xray.seeds import Seed

COUNTER = itertools.count(10**9)


def generate_uid() -> str:
    """Unique, and always of the same length, so that files of the same content have the same size."""
    return f"1.2.826.0.1.3680043.8.498.{next(COUNTER)}"


def new_file(modality: str, pixels: np.ndarray, **attributes: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = {"CT": "1.2.840.10008.5.1.4.1.1.2"}.get(modality, "1.2.840.10008.5.1.4.1.1.1.1")
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID = "Verysecret^Person", "ID-424242"
    dataset.Modality = modality
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = pixels.itemsize * 8
    dataset.BitsStored, dataset.HighBit = dataset.BitsAllocated, dataset.BitsAllocated - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    return dataset


@pytest.fixture
def dx_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a DX file; keyword arguments set (None: delete) attributes."""
    def make(pixels: np.ndarray | None = None, name: str = "x.dcm", **attributes: Any) -> Path:
        pixels = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) if pixels is None else pixels
        geometry = {"DistanceSourceToDetector": "1100", "DistanceSourceToPatient": "750",
                    "ImagerPixelSpacing": ["0.3", "0.2"]}
        dataset = new_file("DX", pixels, **{**geometry, **{k: v for k, v in attributes.items() if v is not None}})
        for key in (key for key, value in attributes.items() if value is None):
            del dataset[key]
        path = tmp_path / name
        dataset.save_as(path, enforce_file_format=True)
        return path
    return make


def ct_slice(values_hu: np.ndarray, position: tuple[float, float, float], series: str, **attributes: Any) -> Dataset:
    stored = (values_hu + 1024).astype(np.uint16)
    plain = {"SeriesInstanceUID": series, "RescaleSlope": "1", "RescaleIntercept": "-1024", "PixelSpacing": ["1", "1"],
             "ImagePositionPatient": [str(v) for v in position], "ImageOrientationPatient": list("100010")}
    return new_file("CT", stored, **{**plain, **attributes})


@pytest.fixture
def ct_folder(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes a volume (z, y, x) of Hounsfield units as slices with shuffled names; returns the files by position."""
    def make(volume: np.ndarray, spacing: float = 1.0, folder: str = "ct", **attributes: Any) -> list[Path]:
        (tmp_path / folder).mkdir()
        series = generate_uid()
        names = np.random.default_rng(3).permutation(len(volume))
        paths = []
        for index, values in enumerate(volume):
            path = tmp_path / folder / f"{names[index]:04d}.dcm"
            ct_slice(values, (-10.0, -20.0, 30.0 + spacing * index), series, **attributes).save_as(
                path, enforce_file_format=True)
            paths.append(path)
        return paths
    return make


@dataclass
class Radiograph:
    pixels: np.ndarray
    geometry: XrayGeometry
    outlines: list[np.ndarray]  # pixels (column, row)
    seeds: list[Seed]


def body_outline(centre: np.ndarray, angle: float, depth: float, height: float) -> np.ndarray:
    """A rounded box with slightly concave sides, mm; analytic, dense."""
    t = np.linspace(0.0, 2.0 * np.pi, 400, endpoint=False)
    power = 0.35
    u = depth / 2.0 * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** power
    v = height / 2.0 * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** power
    v = v * (1.0 - 0.08 * (1.0 - (2.0 * u / depth) ** 2))
    u = u * (1.0 - 0.06 * (1.0 - (2.0 * v / height) ** 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([u, v]) @ turn.T + centre


def paint(shape: tuple[int, int], outline: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(outline * 256).astype(np.int32)[:, None]], 1, shift=8)
    return mask.astype(np.float32)


@pytest.fixture(scope="session")
def make_radiograph() -> Callable[..., Radiograph]:
    """A lateral lumbar view without any simulator: five bodies on a curve, arches behind, gradient, noise."""
    def make(seed: int = 0, noise: float = 0.05, rotation: float = 0.0, jitter: float = 0.0,
             size: tuple[int, int] = (900, 700)) -> Radiograph:
        rng = np.random.default_rng(seed)
        geometry = XrayGeometry((3600.0, 3600.0), ((size[1] - 1) / 2.0, (size[0] - 1) / 2.0), 750.0, 1080.0)
        pixels = np.zeros(size, np.float32)
        outlines, seeds = [], []
        turn = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
        for index in range(5):
            y = (index - 2) * 35.0
            centre = turn @ np.array([6.0 * np.cos(y / 50.0), y])
            tilt = rotation + np.radians(-7.0 * (index - 2)) * 0.8
            plane = body_outline(centre, tilt, 34.0 + rng.normal(), 27.0 + rng.normal())
            outline = plane * 4.8 + np.array(geometry.principal_point)  # 3600 px / 750 mm
            pixels += paint(size, outline)
            for side in (-4.0, 5.0):  # pedicle and articular mass behind the body
                behind = centre + turn @ np.array([-24.0, side - 3.0])
                pixels += 0.5 * paint(size, body_outline(behind, tilt, 14.0, 8.0) * 4.8 + geometry.principal_point)
            shift = rng.normal(size=2)
            shift *= jitter / np.linalg.norm(shift)
            click = (centre + shift) * 4.8 + np.array(geometry.principal_point)
            outlines.append(outline)
            seeds.append(Seed(20 + index, float(click[0]), float(click[1])))
        pixels = cv2.GaussianBlur(pixels, (0, 0), 2.0)
        columns = np.linspace(-1.0, 1.0, size[1], dtype=np.float32)
        pixels = pixels + 1.5 * columns[None, :] ** 2 + rng.normal(size=size).astype(np.float32) * noise
        return Radiograph(pixels.astype(np.float32), geometry, outlines, seeds)
    return make
