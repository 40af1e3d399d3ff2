"""A patient's CT as the simulators want it: in patient axes, with the air behind the back taken for soft tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom.scan_files import BadScan, read_scan
from usx_phantom.scene import SkinSurface

STEP = 1.0  # mm
UNSEEN, DARKEST = -32768, -1024  # HU; whatever is darker than the darkest was mixed with the unseen
SOFT_TISSUE, FAT, AIR_BELOW = 40, -90, -400  # HU
# Compact and cancellous bone together lie well above this; soft tissue lies at 20 to 70.
LEAST_BONE_HU = 100.0
MOST_VOXELS = 200_000_000
# The CT's own skin is believed where it is seen over most of the back and is smooth.
LEAST_SKIN_SHARE, MOST_ROUGHNESS = 0.6, 4.0
# Lying on the back presses it flat: skin nearer than this (mm) to the bones is lifted (least of adults lying prone).
LEAST_CLEARANCE = 12.0


def read_ct(path: Path, labels: Volume) -> Volume:
    """CT of `path` as int16 HU, direction identity, 1 mm, in the file's own world (LPS mm).

    `labels`: its label map. Raises BadScan naming the file when it does not hold the labelled bones or they are not
    bright in it: another patient's scan, another unit than HU, an affine that was lost.
    """
    scan = read_scan(path)
    if not np.isfinite(scan.values).all():
        raise BadScan(f"{path} holds voxels that are no finite numbers")
    bone = labels.values > 0
    inside = resampled(scan, labels.grid, UNSEEN)[bone]
    seen = inside >= DARKEST
    if seen.mean() < 0.98:
        raise BadScan(f"{path} holds {seen.mean():.0%} of the labelled bone: it is not the scan of this label map, "
                      "or one of the two has lost its affine")
    shell = ndimage.binary_dilation(bone, iterations=6) & ~ndimage.binary_dilation(bone, iterations=3)
    around = resampled(scan, labels.grid, UNSEEN)[shell]
    bright, dark = float(inside[seen].mean()), float(np.median(around[around >= DARKEST]))
    if not (LEAST_BONE_HU < bright < 2000.0 and bright > dark + 50.0):
        raise BadScan(f"{path} has {bright:.0f} in the labelled bone and {dark:.0f} around it; a CT in Hounsfield "
                      "units has 150 to 500 and about 30: is it the scan of this label map?")
    grid = axis_grid(path, scan.grid)
    return Volume(resampled(scan, grid, UNSEEN), grid)


def axis_grid(path: Path, grid: VolumeGrid) -> VolumeGrid:
    """Grid of STEP mm with direction identity that holds all of `grid`. Raises BadScan where it would be too large."""
    ends = np.stack(np.meshgrid(*[(0.0, n - 1.0) for n in grid.size], indexing="ij"), -1).reshape(-1, 3)
    corners = ends @ (grid.direction * grid.spacing).T + grid.origin
    low = np.floor(corners.min(0) / STEP) * STEP
    size = np.ceil((corners.max(0) - low) / STEP).astype(int) + 1
    if np.prod(size.astype(float)) > MOST_VOXELS:
        raise BadScan(f"{path} spans {' x '.join(f'{STEP * n:.0f}' for n in size)} mm: crop it to the lumbar spine")
    return VolumeGrid(low, np.full(3, STEP), (int(size[0]), int(size[1]), int(size[2])))


def resampled(volume: Volume, grid: VolumeGrid, outside: int) -> NDArray[np.int16]:
    """int16 values (z, y, x) of `volume` on another grid of the same world, linear between voxels."""
    image = sitk.GetImageFromArray(np.clip(volume.values, DARKEST, 32767).astype(np.float32))
    image.SetOrigin(volume.grid.origin.tolist())
    image.SetSpacing(volume.grid.spacing.tolist())
    image.SetDirection(volume.grid.direction.reshape(-1).tolist())
    result = sitk.Resample(image, [int(n) for n in grid.size], sitk.Transform(), sitk.sitkLinear,
                           grid.origin.tolist(), grid.spacing.tolist(), grid.direction.reshape(-1).tolist(),
                           float(outside), sitk.sitkFloat32)
    return np.rint(sitk.GetArrayFromImage(result)).astype(np.int16)


def behind_the_back(ct: Volume) -> NDArray[np.bool_]:
    """(z, y, x): air and table behind the patient, from the last plane forward to the first body voxel."""
    body = ndimage.binary_opening(ct.values > AIR_BELOW, iterations=2)
    pieces, count = ndimage.label(body)
    if count == 0:
        return np.zeros(ct.values.shape, bool)
    body = pieces == 1 + int(np.bincount(pieces.reshape(-1))[1:].argmax())
    body = ndimage.binary_dilation(body, iterations=1) & (ct.values > AIR_BELOW)
    return ~np.asarray(np.logical_or.accumulate(body[:, ::-1], axis=1))[:, ::-1]


def filled(ct: Volume) -> Volume:
    """`ct` with soft tissue where the scanner saw nothing and fat where it saw air or a table behind the back."""
    behind = behind_the_back(ct)
    values = ct.values.copy()
    values[behind] = FAT
    values[ndimage.binary_dilation(ct.values < DARKEST)] = SOFT_TISSUE
    return Volume(values, ct.grid)


def skin_of(ct: Volume, meshes: dict[str, Mesh]) -> SkinSurface | None:
    """The back's skin as the CT shows it over L1 to L5 (LPS mm), or None where it does not show it reliably.

    A parabola each way is fitted to the border of the body, and lifted to LEAST_CLEARANCE above the bones.
    """
    border = behind_the_back(ct)
    rows = ct.grid.size[1] - border.sum(1)
    first_behind = np.take_along_axis(ct.values, np.minimum(rows, ct.grid.size[1] - 1)[:, None], axis=1)[:, 0]
    seen = border[:, -1] & (rows > 0) & (first_behind >= DARKEST)
    z, x = np.meshgrid(np.arange(ct.grid.size[2]), np.arange(ct.grid.size[0]), indexing="ij")
    points = np.stack([x, rows - 0.5, z], -1) * ct.grid.spacing + ct.grid.origin
    tips = np.array([meshes[level].vertices[meshes[level].vertices[:, 1].argmax()] for level in LEVELS])
    x0, z0 = float(tips[:, 0].mean()), float(tips[:, 2].mean())
    over = ((np.abs(points[..., 0] - x0) < 35.0) & (points[..., 2] > meshes["L5"].vertices[:, 2].min())
            & (points[..., 2] < meshes["L1"].vertices[:, 2].max()))
    if (seen & over).sum() < LEAST_SKIN_SHARE * max(over.sum(), 1):
        return None
    x, y, z = points[seen & over].T
    s, across = z - z0, (x - x0) ** 2
    terms = np.column_stack([np.ones_like(s), s, s**2, -across])
    solution = np.linalg.lstsq(terms, y, rcond=None)[0]
    if np.sqrt(np.mean((terms @ solution - y) ** 2)) > MOST_ROUGHNESS:
        return None
    c1, c2, bow = float(solution[1]), float(np.clip(solution[2], -8e-4, 8e-4)), float(np.clip(solution[3], 0.0, 2e-3))
    flat = SkinSurface(x0, z0, (0.0, c1, c2), bow)
    bones = np.concatenate([mesh.vertices for mesh in meshes.values()])
    needed = float((bones[:, 1] - flat.height(bones[:, 0], bones[:, 2])).max()) + LEAST_CLEARANCE
    return SkinSurface(x0, z0, (max(float(np.median(y - flat.height(x, z))), needed), c1, c2), bow)
