"""Closed meshes as label maps."""

from __future__ import annotations

import numpy as np
from numba import njit

from usx_common.errors import UsxError
from usx_common.levels import label_of_level
from usx_common.meshes import Mesh
from usx_common.volumes import Volume, VolumeGrid


@njit(cache=True)
def _crossings(corners: np.ndarray, size: np.ndarray, steps: np.ndarray) -> None:
    """Add +1 / -1 to the first voxel above each crossing of a triangle with a column of voxels along z."""
    for f in range(corners.shape[0]):
        ax, ay, az = corners[f, 0]
        bx, by, bz = corners[f, 1]
        cx, cy, cz = corners[f, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        sign = -1 if area > 0.0 else 1
        for i in range(max(int(np.ceil(min(ax, bx, cx))), 0), min(int(np.floor(max(ax, bx, cx))), size[0] - 1) + 1):
            for j in range(max(int(np.ceil(min(ay, by, cy))), 0),
                           min(int(np.floor(max(ay, by, cy))), size[1] - 1) + 1):
                u = ((bx - i) * (cy - j) - (by - j) * (cx - i)) / area
                v = ((cx - i) * (ay - j) - (cy - j) * (ax - i)) / area
                w = 1.0 - u - v
                if u < 0.0 or v < 0.0 or w < 0.0:
                    continue
                k = int(np.ceil(u * az + v * bz + w * cz))
                steps[i, j, min(max(k, 0), size[2])] += sign


def inside(mesh: Mesh, grid: VolumeGrid) -> np.ndarray:
    """Boolean (z, y, x): voxel centres inside a closed mesh with outward normals, mm; winding number not 0.

    Columns are shifted by a ten-thousandth of a voxel so that none meets an edge of a triangle exactly.
    """
    points = (mesh.vertices - grid.origin) @ grid.direction / grid.spacing + (1.234e-4, 2.345e-4, 0.0)
    size = np.array(grid.size, np.int64)
    steps = np.zeros((size[0], size[1], size[2] + 1), np.int16)
    _crossings(points[mesh.faces], size, steps)
    return (np.cumsum(steps[:, :, :-1], axis=2, dtype=np.int16) != 0).transpose(2, 1, 0)


def label_meshes(meshes: dict[str, Mesh], spacing: float = 0.8, margin: float = 10.0) -> Volume:
    """uint8 label map (labels 20..24 for L1..L5) of closed meshes, isotropic `spacing` mm, axes of the meshes.

    Where two meshes overlap the first level keeps the voxel. Raises UsxError for a spacing that is not sensible.
    """
    if not 0.1 <= spacing <= 10.0:
        raise UsxError(f"voxel spacing {spacing} mm: must be 0.1 to 10")
    low = np.min([m.vertices.min(0) for m in meshes.values()], axis=0) - margin
    high = np.max([m.vertices.max(0) for m in meshes.values()], axis=0) + margin
    low = np.floor(low / spacing) * spacing
    size = np.ceil((high - low) / spacing).astype(int) + 1
    grid = VolumeGrid(low, np.full(3, spacing), (int(size[0]), int(size[1]), int(size[2])))
    values = np.zeros(grid.size[::-1], np.uint8)
    for level, mesh in meshes.items():
        first = np.maximum(np.floor((mesh.vertices.min(0) - low) / spacing).astype(int) - 1, 0)
        last = np.minimum(np.ceil((mesh.vertices.max(0) - low) / spacing).astype(int) + 2, size)
        part = VolumeGrid(low + first * spacing, grid.spacing, tuple((last - first).tolist()))
        block = values[first[2]:last[2], first[1]:last[1], first[0]:last[0]]
        block[inside(mesh, part) & (block == 0)] = label_of_level(level)
    return Volume(values, grid)
