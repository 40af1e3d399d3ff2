"""The SpinePhantomFreehand sweep, the volumes that PLUS made of it, and the comparison that every result must pass.

Nothing here uses the compounding code: poses come from the header by regular expressions, pixels from SimpleITK,
and the exact mean from float64 numpy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

IMAGE_TO_PROBE = np.array([-0.00157821, 0.0785919, -0.00803285, 15.3978, -0.0839128, 0.00372697, 0.0153803, 49.5705,
                           0.0159024, 0.00714276, 0.0803604, -8.63446, 0, 0, 0, 1]).reshape(4, 4)
REFERENCES = {"mean": "vtkVolumeReconstructorTestNNMEANvolumeRef.mha",
              "maximum": "vtkVolumeReconstructorMaximum1OutputCompare.mha",
              "filled": "SpinePhantomFreehandReconstructed.mha"}
LIMITS = {"mean": 0.9985, "maximum": 0.9990}
SPACING = 0.5
BOX = np.array([[-74.522, 165.573, 29.072], [-1.363, 218.227, 80.998]])


@dataclass(frozen=True)
class Oracle:
    """``images``: (21, 616, 820); ``image_to_reference``: (21, 4, 4), pixels to mm."""

    images: np.ndarray
    image_to_reference: np.ndarray


def load(folder: Path) -> Oracle:
    path = folder / "sweeps" / "SpinePhantomFreehand.igs.mha"
    header = path.read_bytes().split(b"ElementDataFile")[0].decode("latin-1")
    probe, reference = _transforms(header, "ProbeToTracker"), _transforms(header, "ReferenceToTracker")
    matrices = np.linalg.inv(reference) @ probe @ IMAGE_TO_PROBE
    return Oracle(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), matrices)


def _transforms(header: str, name: str) -> np.ndarray:
    found = re.findall(rf"Seq_Frame\d+_{name}Transform = (.*)", header)
    return np.array([np.array(text.split(), dtype=float).reshape(4, 4) for text in found])


def reference(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(z, y, x) values and the origin of a reference volume."""
    image = sitk.ReadImage(str(folder / "sweeps" / REFERENCES[name]))
    assert np.allclose(image.GetSpacing(), SPACING)
    return sitk.GetArrayFromImage(image), np.array(image.GetOrigin())


def on_reference(values: np.ndarray, origin: np.ndarray, wanted: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A (z, y, x) volume of the same spacing shifted by whole voxels onto a reference's grid, zeros where it ends."""
    shift = (np.asarray(origin) - wanted) / SPACING
    assert np.abs(shift - np.rint(shift)).max() < 0.01, f"the grids differ by parts of a voxel: {shift}"
    out = np.zeros(shape, dtype=values.dtype)
    source, target = [], []
    for offset, have, want in zip(np.rint(shift).astype(int)[::-1], values.shape, shape, strict=True):
        first, last = max(offset, 0), min(offset + have, want)
        if last <= first:
            return out
        source.append(slice(first - offset, last - offset))
        target.append(slice(first, last))
    out[tuple(target)] = values[tuple(source)]
    return out


def hit_in_both(values: np.ndarray, hit: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Correlation, and the share of the reference's non-zero voxels that were hit."""
    both = hit & (expected > 0)
    if both.sum() < 100:
        return 0.0, 0.0
    correlation = np.corrcoef(values[both].astype(float), expected[both])[0, 1]
    return float(correlation), float(both.sum() / (expected > 0).sum())


def exact_mean(oracle: Oracle, origin: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(mean, count) by float64 coordinates and numpy sums, one frame after the other; nearest voxel, floor(q + 0.5)."""
    total, count = np.zeros(int(np.prod(shape))), np.zeros(int(np.prod(shape)), dtype=np.int64)
    rows, columns = np.indices(oracle.images.shape[1:]).reshape(2, -1)
    pixels = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)]).astype(float)
    for image, matrix in zip(oracle.images, oracle.image_to_reference, strict=True):
        x, y, z = np.floor(((matrix @ pixels)[:3] - origin[:, None]) / SPACING + 0.5).astype(int)
        inside = (x >= 0) & (y >= 0) & (z >= 0) & (x < shape[2]) & (y < shape[1]) & (z < shape[0])
        voxel = ((z * shape[1] + y) * shape[2] + x)[inside]
        total += np.bincount(voxel, weights=image.reshape(-1)[inside], minlength=total.size)
        count += np.bincount(voxel, minlength=count.size)
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return mean.reshape(shape), count.reshape(shape)
