"""The bone channel of a volume thinned to a surface: one point where the response peaks along the beams."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

BRICK = 16


@dataclass(frozen=True)
class SurfacePoints:
    """``points``: (n, 3) mm in the volume's frame; ``intensity``: (n,) float32 bone response, 0 .. 255."""

    points: NDArray[np.float64]
    intensity: NDArray[np.float32]


@dataclass(frozen=True)
class BoneChannel:
    """A bone channel compounded with nearest and maximum.

    ``cells``: (z, y, x) int16 response + 1 of a region whose first voxel is ``low`` (x, y, z); ``spacing``: mm;
    ``bricks``: (n, 3) x, y, z of the blocks of BRICK voxels of the lattice in which any response lies, in order: only
    these are searched.
    """

    cells: NDArray[np.int16]
    low: tuple[int, int, int]
    spacing: float
    bricks: NDArray[np.int64]


def thin(channel: BoneChannel, beam: NDArray[np.float64], threshold: float = 60.0) -> SurfacePoints:
    """Surface points of a bone channel. ``beam``: (3,) mean direction of the beams in the volume's frame.

    A voxel counts when its response reaches ``threshold`` and is not exceeded one and two voxels up and down the beam;
    the peak is refined by a parabola. Points with fewer than three others within two voxels along every axis are
    speckle and dropped.
    """
    length = float(np.linalg.norm(beam))
    direction = np.array([0.0, 0.0, -1.0]) if length < 1e-9 else np.asarray(beam, dtype=np.float64) / length
    corners = channel.bricks * BRICK - np.array(channel.low)
    voxels, shifts, intensity = _peaks(channel.cells, corners, direction, np.int16(np.ceil(threshold)) + np.int16(1))
    points = voxels[:, ::-1] + shifts[:, None] * direction
    return SurfacePoints((points + np.array(channel.low, dtype=np.float64)) * channel.spacing, intensity)


@numba.njit(inline="always")
def _along(cells, z, y, x, direction, steps):  # type: ignore[no-untyped-def]
    """Response + 1 at the voxel nearest to a place some steps along the beam; 0 outside."""
    a, b = int(np.rint(z + steps * direction[2])), int(np.rint(y + steps * direction[1]))
    c = int(np.rint(x + steps * direction[0]))
    if 0 <= a < cells.shape[0] and 0 <= b < cells.shape[1] and 0 <= c < cells.shape[2]:
        return float(cells[a, b, c])
    return 0.0


@numba.njit(inline="always")
def _is_peak(cells, z, y, x, direction):  # type: ignore[no-untyped-def]
    here = float(cells[z, y, x])
    return (here > _along(cells, z, y, x, direction, -1.0) and here >= _along(cells, z, y, x, direction, 1.0)
            and here > _along(cells, z, y, x, direction, -2.0) and here >= _along(cells, z, y, x, direction, 2.0))


@numba.njit(inline="always")
def _is_alone(keep, z, y, x):  # type: ignore[no-untyped-def]
    found = -1
    for a in range(max(z - 2, 0), min(z + 3, keep.shape[0])):
        for b in range(max(y - 2, 0), min(y + 3, keep.shape[1])):
            for c in range(max(x - 2, 0), min(x + 3, keep.shape[2])):
                found += keep[a, b, c]
    return found < 3


@numba.njit(cache=True, nogil=True)
def _candidates(cells, corners, direction, threshold):  # type: ignore[no-untyped-def]
    """(n, 3) voxels (z, y, x) of the peaks, and a mask of them."""
    keep = np.zeros(cells.shape, dtype=np.bool_)
    found = np.empty((1024, 3), dtype=np.int64)
    count = 0
    for brick in range(len(corners)):
        x0, y0, z0 = corners[brick]
        for z in range(max(z0, 0), min(z0 + BRICK, cells.shape[0])):
            for y in range(max(y0, 0), min(y0 + BRICK, cells.shape[1])):
                for x in range(max(x0, 0), min(x0 + BRICK, cells.shape[2])):
                    if cells[z, y, x] < threshold or not _is_peak(cells, z, y, x, direction):
                        continue
                    if count == len(found):
                        longer = np.empty((2 * count, 3), dtype=np.int64)
                        longer[:count] = found
                        found = longer
                    found[count, 0], found[count, 1], found[count, 2] = z, y, x
                    keep[z, y, x] = True
                    count += 1
    return found[:count], keep


@numba.njit(cache=True, nogil=True)
def _peaks(cells, corners, direction, threshold):  # type: ignore[no-untyped-def]
    """(n, 3) voxels (z, y, x), (n,) shift along the beam in voxels, (n,) response."""
    found, keep = _candidates(cells, corners, direction, threshold)
    count = len(found)
    voxels = np.empty((count, 3), dtype=np.float64)
    shifts, intensity = np.empty(count, dtype=np.float64), np.empty(count, dtype=np.float32)
    kept = 0
    for number in range(count):
        z, y, x = found[number]
        if _is_alone(keep, z, y, x):
            continue
        here = float(cells[z, y, x])
        up, down = _along(cells, z, y, x, direction, -1.0), _along(cells, z, y, x, direction, 1.0)
        curve = up - 2.0 * here + down
        voxels[kept, 0], voxels[kept, 1], voxels[kept, 2] = z, y, x
        shifts[kept] = min(max(0.5 * (up - down) / curve, -0.5), 0.5) if curve < 0.0 else 0.0
        intensity[kept] = here - 1.0
        kept += 1
    return voxels[:kept], shifts[:kept], intensity[:kept]
