"""A scene for the X-ray simulators from a CT and its label map on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.volumes import Volume, VolumeGrid, read_volume
from usx_phantom.density import MOST_VOXELS
from usx_phantom.phantom_scene import SKIN_CLEARANCE
from usx_phantom.scene import SkinSurface

NOT_SCANNED = -1024.0  # HU
FINEST = 0.5  # mm, voxels are not made smaller


@dataclass(frozen=True)
class CtScene:
    """Label map, skin and CT (HU, None: not used) of one patient, mm, frame `cbct` (LPS, axis aligned)."""

    labelmap: Volume
    skin: SkinSurface
    intensities: Volume | None


def read_ct_scene(ct: Path, labelmap: Path) -> CtScene:
    """Scene of a CT (HU) and a label map in any orientation. Raises UsxError naming the file that cannot be used."""
    volume, labels = read_volume(ct), read_volume(labelmap)
    if not np.isfinite(labels.values).all() or labels.values.min() < 0:
        raise UsxError(f"label map {labelmap} holds values that are not finite or negative; labels are whole numbers")
    if not (labels.values > 0).any():
        raise UsxError(f"label map {labelmap} is empty: there is no bone to image")
    finest = max(float(volume.grid.spacing.min()), FINEST)
    aligned = axis_aligned(labels, finest, sitk.sitkNearestNeighbor, 0.0)
    aligned = Volume(aligned.values.astype(np.uint8), aligned.grid)
    return CtScene(aligned, skin_over(aligned), axis_aligned(volume, finest, sitk.sitkLinear, NOT_SCANNED))


def axis_aligned(volume: Volume, spacing: float, interpolator: int, fill: float) -> Volume:
    """A volume on the patient's axes, isotropic `spacing` mm; `fill` where it says nothing. Raises UsxError where that
    would be too large."""
    grid = volume.grid
    corners = np.array(np.meshgrid(*[(0.0, n - 1.0) for n in grid.size])).reshape(3, -1)
    world = (grid.direction * grid.spacing) @ corners + grid.origin[:, None]
    low, high = world.min(axis=1), world.max(axis=1)
    size = np.floor((high - low) / spacing + 1e-6).astype(int) + 1
    if size.prod() > MOST_VOXELS:
        raise UsxError(f"a volume of {size.tolist()} voxels of {spacing:g} mm is too large; at most {MOST_VOXELS}")
    image = sitk.GetImageFromArray(volume.values.astype(np.float32))
    image.SetOrigin(grid.origin.tolist())
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection(grid.direction.reshape(-1).tolist())
    made = sitk.Resample(image, size.tolist(), sitk.Transform(), interpolator, low.tolist(), [spacing] * 3,
                         np.eye(3).reshape(-1).tolist(), fill)
    return Volume(sitk.GetArrayFromImage(made), VolumeGrid(low, np.full(3, spacing), tuple(size.tolist())))


def skin_over(labelmap: Volume) -> SkinSurface:
    """Skin over the hindmost labelled voxels: a parabola along the back, nowhere nearer than SKIN_CLEARANCE mm."""
    points = _labelled(labelmap)
    heights = np.arange(points[:, 2].min() + 5.0, points[:, 2].max(), 8.0)
    slabs = [points[np.abs(points[:, 2] - height) < 5.0] for height in heights]
    tips = np.array([slab[slab[:, 1].argmax()] for slab in slabs if len(slab)])
    x0, z0 = float(np.median(points[:, 0])), float(points[:, 2].mean())
    c2, c1, _ = np.polyfit(tips[:, 2] - z0, tips[:, 1], 2) if len(tips) > 4 else (0.0, 0.0, 0.0)
    c2 = float(np.clip(0.6 * c2, -8e-4, 8e-4))
    shape = SkinSurface(x0, z0, (0.0, float(c1), c2))
    c0 = float((points[:, 1] - shape.height(points[:, 0], points[:, 2])).max()) + SKIN_CLEARANCE
    return SkinSurface(x0, z0, (c0, float(c1), c2))


def _labelled(labelmap: Volume) -> NDArray[np.float64]:
    z, y, x = np.nonzero(labelmap.values)
    return np.stack([x, y, z], axis=1) * labelmap.grid.spacing + labelmap.grid.origin
