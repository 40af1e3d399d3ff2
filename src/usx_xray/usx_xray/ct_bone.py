"""Surface of the bone in a CT: where the value crosses a threshold, with sub-voxel positions.

Crossings between neighbouring voxels are placed by linear interpolation (the vertices of marching cubes, without the
triangles). Small islands are left out, and so is what lies within the bone: marrow varies about any threshold, but
neither ultrasound nor a lateral X-ray shows it. The spinal canal is open at both ends and stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_common.clouds import voxel_downsample
from usx_common.volumes import Volume, VolumeGrid
from usx_xray.refusal import Refused


@dataclass(frozen=True)
class BoneSettings:
    """``threshold`` in Hounsfield units; lengths in mm, volumes in mm3; ``most_points`` bounds the cloud."""

    threshold: float = 250.0
    smallest_island: float = 500.0
    bridged_gap: float = 2.0
    point_spacing: float = 1.0
    finest_voxel: float = 0.7
    most_points: int = 200_000


def bone_surface(volume: Volume, settings: BoneSettings | None = None) -> NDArray[np.float64]:
    """(N, 3) points, mm, frame of the volume. Raises Refused where nothing, or everything, is above the threshold."""
    settings = settings or BoneSettings()
    volume = coarsened(volume, settings.finest_voxel)
    bone = _without_islands(volume, settings)
    share = float(bone.mean())
    if share == 0.0:
        raise Refused("no_bone", f"no bone above {settings.threshold:g} HU; lower cbct_bone_threshold, or check that "
                                 "the series holds Hounsfield units")
    if share > 0.6:
        raise Refused("no_bone", f"{share:.0%} of the volume is above {settings.threshold:g} HU; raise "
                                 "cbct_bone_threshold, or check that the series holds Hounsfield units")
    inside = _interior(bone, volume.grid, settings)
    indices = _crossings(volume.values, bone, inside, settings.threshold)
    points = indices @ volume.grid.index_to_world[:3, :3].T + volume.grid.origin
    spacing = settings.point_spacing
    thinned = voxel_downsample(points, spacing)
    while len(thinned) > settings.most_points:
        spacing *= 1.2
        thinned = voxel_downsample(points, spacing)
    return thinned


def coarsened(volume: Volume, finest: float) -> Volume:
    """Mean of blocks of voxels so that none is much finer than ``finest`` mm; the same volume where none is."""
    factors = np.maximum(np.floor(finest / volume.grid.spacing + 0.5).astype(int), 1)
    size = np.array(volume.grid.size) // factors
    if (factors == 1).all() or (size < 2).any():
        return volume
    fx, fy, fz = (int(factor) for factor in factors)
    nx, ny, nz = (int(count) for count in size)
    values = np.empty((nz, ny, nx), np.float32)
    for z in range(nz):
        block = volume.values[z * fz:(z + 1) * fz, :ny * fy, :nx * fx].reshape(fz, ny, fy, nx, fx)
        values[z] = block.mean(axis=(0, 2, 4), dtype=np.float32)
    origin = volume.grid.origin + volume.grid.index_to_world[:3, :3] @ ((factors - 1) / 2.0)
    return Volume(values, VolumeGrid(origin, volume.grid.spacing * factors, (nx, ny, nz), volume.grid.direction))


def _without_islands(volume: Volume, settings: BoneSettings) -> NDArray[np.bool_]:
    bone = volume.values >= settings.threshold
    labels, count = ndimage.label(bone)
    if count == 0:
        return bone
    voxels = np.bincount(labels.ravel())
    voxels[0] = 0
    large = voxels * float(np.prod(volume.grid.spacing)) >= settings.smallest_island
    return large[labels]


def _interior(bone: NDArray[np.bool_], grid: VolumeGrid, settings: BoneSettings) -> NDArray[np.bool_]:
    """Voxels within the bone: its thin cortex closed, enclosed marrow filled, one layer taken off."""
    reach = np.maximum(np.rint(settings.bridged_gap / grid.spacing).astype(int), 1)[::-1]
    ball = _ball(reach)
    padded = np.pad(bone, [(int(n), int(n)) for n in reach])
    closed = _eroded(~_eroded(~padded, ball), ball)[tuple(slice(int(n), -int(n)) for n in reach)] | bone
    solid = ndimage.binary_fill_holes(closed)
    return ndimage.binary_erosion(solid, ndimage.generate_binary_structure(3, 3))


def _eroded(mask: NDArray[np.bool_], structure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return ndimage.binary_erosion(mask, structure, border_value=1)


def _ball(reach: NDArray) -> NDArray[np.bool_]:
    z, y, x = np.ogrid[tuple(slice(-int(n), int(n) + 1) for n in reach)]
    return (z / reach[0]) ** 2 + (y / reach[1]) ** 2 + (x / reach[2]) ** 2 <= 1.0


def _crossings(values: NDArray, bone: NDArray[np.bool_], inside: NDArray[np.bool_],
               threshold: float) -> NDArray[np.float64]:
    """(N, 3) indices (x, y, z), fractional, where the bone's outer border lies between two neighbouring voxels."""
    found = [np.zeros((0, 3))]
    for axis in range(3):
        low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        border = (bone[low] != bone[high]) & ~(inside[low] | inside[high])
        where = np.argwhere(border)
        first = values[low][border].astype(np.float64)
        second = values[high][border].astype(np.float64)
        between = second != first
        fraction = np.where(between, (threshold - first) / np.where(between, second - first, 1.0), 0.5)
        places = where.astype(np.float64)
        places[:, axis] += np.clip(fraction, 0.0, 1.0)
        found.append(places[:, ::-1])
    return np.concatenate(found)
