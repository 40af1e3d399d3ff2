"""The bone channel of a volume thinned to a surface: one point where the response peaks along the beams."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from usx_compounding.cells import COUNT_SHIFT, SUM_MASK


@dataclass(frozen=True)
class SurfacePoints:
    """``points``: (n, 3) mm in the volume's frame; ``intensity``: (n,) float32 mean response, 0 .. 255."""

    points: NDArray[np.float64]
    intensity: NDArray[np.float32]


def thin(cells: NDArray[np.int64], low: tuple[int, int, int], spacing: float, beam: NDArray[np.float64],
         threshold: float = 30.0) -> SurfacePoints:
    """Surface points of a bone channel compounded with nearest and mean.

    ``cells``: (z, y, x) packed counts and sums of a region whose first voxel is ``low``; ``spacing``: mm; ``beam``: (3,)
    mean direction of the beams in the volume's frame. A voxel counts when its mean response reaches ``threshold`` and is
    not exceeded one and two voxels up and down the beam; the peak is refined by a parabola. Voxels with fewer than three
    such neighbours within two voxels are speckle and dropped.
    """
    length = float(np.linalg.norm(beam))
    direction = np.array([0.0, 0.0, -1.0]) if length < 1e-9 else np.asarray(beam, dtype=np.float64) / length
    points, intensity = _peaks(np.ascontiguousarray(cells), direction, float(threshold))
    return SurfacePoints((points + np.array(low, dtype=np.float64)) * spacing, intensity)


@numba.njit(inline="always")
def _response(cells, z, y, x):  # type: ignore[no-untyped-def]
    if not (0 <= z < cells.shape[0] and 0 <= y < cells.shape[1] and 0 <= x < cells.shape[2]):
        return 0.0
    cell = cells[z, y, x]
    return (cell & SUM_MASK) / (cell >> COUNT_SHIFT) if cell > 0 else 0.0


@numba.njit(inline="always")
def _along(cells, z, y, x, direction, steps):  # type: ignore[no-untyped-def]
    """Response at the voxel nearest to a place some steps along the beam."""
    return _response(cells, int(np.rint(z + steps * direction[2])), int(np.rint(y + steps * direction[1])),
                     int(np.rint(x + steps * direction[0])))


@numba.njit(cache=True, nogil=True)
def _peaks(cells, direction, threshold):  # type: ignore[no-untyped-def]
    nz, ny, nx = cells.shape
    keep = np.zeros(cells.shape, dtype=np.bool_)
    count = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if cells[z, y, x] & SUM_MASK == 0:
                    continue
                here = _response(cells, z, y, x)
                if here < threshold:
                    continue
                up, down = _along(cells, z, y, x, direction, -1.0), _along(cells, z, y, x, direction, 1.0)
                if here > up and here >= down and here > _along(cells, z, y, x, direction, -2.0) \
                        and here >= _along(cells, z, y, x, direction, 2.0):
                    keep[z, y, x] = True
                    count += 1
    points = np.empty((count, 3), dtype=np.float64)
    intensity = np.empty(count, dtype=np.float32)
    kept = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if keep[z, y, x] and _neighbours(keep, z, y, x) >= 3:
                    here = _response(cells, z, y, x)
                    up, down = _along(cells, z, y, x, direction, -1.0), _along(cells, z, y, x, direction, 1.0)
                    curve = up - 2.0 * here + down
                    shift = 0.5 * (up - down) / curve if curve < 0.0 else 0.0
                    shift = min(max(shift, -0.5), 0.5)
                    points[kept, 0] = x + shift * direction[0]
                    points[kept, 1] = y + shift * direction[1]
                    points[kept, 2] = z + shift * direction[2]
                    intensity[kept] = here
                    kept += 1
    return points[:kept], intensity[:kept]


@numba.njit(inline="always")
def _neighbours(keep, z, y, x):  # type: ignore[no-untyped-def]
    found = -1
    for a in range(max(z - 2, 0), min(z + 3, keep.shape[0])):
        for b in range(max(y - 2, 0), min(y + 3, keep.shape[1])):
            for c in range(max(x - 2, 0), min(x + 3, keep.shape[2])):
                if keep[a, b, c]:
                    found += 1
    return found
