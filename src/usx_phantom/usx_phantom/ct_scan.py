"""A patient's CT as the simulators want it: in patient axes, with the air behind the back taken for soft tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from usx_common.levels import LEVEL_NAMES
from usx_common.meshes import Mesh
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom.anatomy import levels_of
from usx_phantom.scan_files import BadScan, box_of, cropped, memory_watched, read_scan
from usx_phantom.scene import SkinSurface

STEP = 1.0  # mm
UNSEEN, DARKEST = -32768, -1024  # HU; whatever is darker than the darkest was mixed with the unseen
SOFT_TISSUE, FAT, AIR_BELOW = 40, -90, -400  # HU
# Compact and cancellous bone together lie well above this; soft tissue lies at 20 to 70.
LEAST_BONE_HU = 100.0
MOST_VOXELS = 100_000_000  # some 15 bytes each are needed
# What lies further than this (mm) from the labelled bones is not read: no simulator looks there.
MARGIN = 80.0
SHELL = (3, 6)  # voxels around the labelled bones between which soft tissue is looked for
# The CT's own skin is believed where it is seen over most of the back and is smooth.
LEAST_SKIN_SHARE, MOST_ROUGHNESS = 0.6, 4.0
# Lying on the back presses it flat: skin nearer than this (mm) to the bones is lifted (least of adults lying prone).
LEAST_CLEARANCE = 12.0


def read_ct(path: Path, labels: Volume) -> Volume:
    """CT of `path` around L1 to L5 as int16 HU, direction identity, 1 mm, in the file's own world (LPS mm).

    `labels`: its label map. Raises BadScan naming the file when it does not hold the labelled bones or they are not
    bright in it: another patient's scan, another unit than HU, an affine that was lost; or when memory runs out.
    """
    with memory_watched(path):
        bone = _lumbar(labels.values)
        low, high = box_of(bone, labels.grid)
        image, extent = _image_near(path, low, high)
        reach = (SHELL[1] + 1) * labels.grid.spacing.max()
        near = cropped(Volume(bone, labels.grid), low - reach, high + reach)
        _check_bone(path, near.values, resampled(image, near.grid, UNSEEN))
        grid = axis_grid(path, extent)
        return Volume(resampled(image, grid, UNSEEN), grid)


def _lumbar(labels: NDArray) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (labels >= min(LEVEL_NAMES)) & (labels <= max(LEVEL_NAMES))
    return result


def _image_near(path: Path, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[sitk.Image, VolumeGrid]:
    """Float image of what a file holds within MARGIN of a box, and its grid; the rest of the file is let go."""
    part = cropped(read_scan(path), low - MARGIN, high + MARGIN)
    if not np.isfinite(part.values).all():
        raise BadScan(f"{path} holds voxels that are no finite numbers")
    image = sitk.GetImageFromArray(np.clip(part.values, DARKEST, 32767).astype(np.float32))
    image.SetOrigin(part.grid.origin.tolist())
    image.SetSpacing(part.grid.spacing.tolist())
    image.SetDirection(part.grid.direction.reshape(-1).tolist())
    return image, part.grid


def _check_bone(path: Path, bone: NDArray[np.bool_], values: NDArray[np.int16]) -> None:
    """Raise BadScan unless the CT's `values` are there and bright where `bone` is, on one grid (z, y, x)."""
    inside = values[bone]
    seen = inside >= DARKEST
    if seen.mean() < 0.98:
        raise BadScan(f"{path} holds {seen.mean():.0%} of the labelled bone: it is not the scan of this label map, "
                      "or one of the two has lost its affine")
    shell = ndimage.binary_dilation(bone, iterations=SHELL[1]) & ~ndimage.binary_dilation(bone, iterations=SHELL[0])
    around = values[shell]
    bright, dark = float(inside[seen].mean()), float(np.median(around[around >= DARKEST]))
    if not (LEAST_BONE_HU < bright < 2000.0 and bright > dark + 50.0):
        raise BadScan(f"{path} has {bright:.0f} in the labelled bone and {dark:.0f} around it; a CT in Hounsfield "
                      "units has 150 to 500 and about 30: is it the scan of this label map?")


def axis_grid(path: Path, grid: VolumeGrid) -> VolumeGrid:
    """Grid of STEP mm with direction identity that holds all of `grid`. Raises BadScan where it would be too large."""
    ends = np.stack(np.meshgrid(*[(0.0, n - 1.0) for n in grid.size], indexing="ij"), -1).reshape(-1, 3)
    corners = ends @ (grid.direction * grid.spacing).T + grid.origin
    low = np.floor(corners.min(0) / STEP) * STEP
    size = np.ceil((corners.max(0) - low) / STEP).astype(int) + 1
    if np.prod(size.astype(float)) > MOST_VOXELS:
        raise BadScan(f"{path} spans {' x '.join(f'{STEP * n:.0f}' for n in size)} mm around the labels L1 to L5: "
                      "are they all of one spine?")
    return VolumeGrid(low, np.full(3, STEP), (int(size[0]), int(size[1]), int(size[2])))


def resampled(image: sitk.Image, grid: VolumeGrid, outside: int) -> NDArray[np.int16]:
    """int16 values (z, y, x) of `image` on a grid of the same world, linear between voxels."""
    result = sitk.Resample(image, [int(n) for n in grid.size], sitk.Transform(), sitk.sitkLinear,
                           grid.origin.tolist(), grid.spacing.tolist(), grid.direction.reshape(-1).tolist(),
                           float(outside), sitk.sitkFloat32)
    return np.rint(sitk.GetArrayViewFromImage(result)).astype(np.int16)


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
    """The back's skin over the `meshes` as the CT shows it (LPS mm), or None where it does not show it reliably.

    A parabola each way is fitted to the border of the body, and lifted to LEAST_CLEARANCE above the bones.
    """
    levels = levels_of(meshes)
    border = behind_the_back(ct)
    rows = ct.grid.size[1] - border.sum(1)
    first_behind = np.take_along_axis(ct.values, np.minimum(rows, ct.grid.size[1] - 1)[:, None], axis=1)[:, 0]
    seen = border[:, -1] & (rows > 0) & (first_behind >= DARKEST)
    z, x = np.meshgrid(np.arange(ct.grid.size[2]), np.arange(ct.grid.size[0]), indexing="ij")
    points = np.stack([x, rows - 0.5, z], -1) * ct.grid.spacing + ct.grid.origin
    tips = np.array([meshes[level].vertices[meshes[level].vertices[:, 1].argmax()] for level in levels])
    x0, z0 = float(tips[:, 0].mean()), float(tips[:, 2].mean())
    over = ((np.abs(points[..., 0] - x0) < 35.0) & (points[..., 2] > meshes[levels[-1]].vertices[:, 2].min())
            & (points[..., 2] < meshes[levels[0]].vertices[:, 2].max()))
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
