"""Evenly spread points: furthest point sampling fast enough for data generation, and points on a surface."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.meshes import Mesh, sample_surface

CELLS_ALONG = 10


def farthest_points_fast(points: NDArray, count: int, start: int = 0) -> NDArray[np.int64]:
    """Indices (count,) of furthest point sampling of points (N, 3); the same as `usx_common.clouds.farthest_points`.

    Points are sorted into boxes; a box whose largest remaining distance is below its distance to the new point cannot
    change and is passed over, so the answer stays exact. The idea of boxes: Han et al., "QuickFPS", IEEE TCAD 42(11),
    2023. Raises UsxError when the cloud has fewer points than asked for, or numbers that are not finite.
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    if not 0 < count <= len(points):
        raise UsxError(f"cannot take {count} furthest points of a cloud of {len(points)}")
    if not 0 <= start < len(points):
        raise UsxError(f"point {start} to begin with is not one of the cloud's {len(points)}")
    if not np.isfinite(points).all():
        raise UsxError("the cloud holds numbers that are not finite; drop those points before sampling it")
    low = points.min(axis=0)
    cell = max(float(np.ptp(points, axis=0).max()) / CELLS_ALONG, 1e-12)
    index = np.floor((points - low) / cell).astype(np.int64)
    key = (index[:, 0] * (CELLS_ALONG + 1) + index[:, 1]) * (CELLS_ALONG + 1) + index[:, 2]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(key[order]) != 0, True])
    return _farthest_in_boxes(points[order], order, starts, count, int(np.flatnonzero(order == start)[0]))


def resample(points: NDArray, count: int) -> NDArray[np.int64]:
    """Indices (count,) of points (N, 3): furthest point sampling from the point farthest from the origin.

    A cloud with fewer points is repeated from its beginning until there are enough. Raises UsxError for an empty one.
    """
    if len(points) == 0:
        raise UsxError("an empty cloud cannot be sampled")
    if len(points) < count:
        return np.resize(np.arange(len(points)), count)
    return farthest_points_fast(points, count, int(np.argmax(np.einsum("ni,ni->n", points, points))))


def even_surface_points(mesh: Mesh, count: int, seed: int, surplus: int = 3) -> NDArray[np.float64]:
    """(count, 3) evenly spread points of a mesh, mm: furthest points of ``surplus`` times as many area-uniform ones."""
    dense = sample_surface(mesh, surplus * count, seed)
    return dense[farthest_points_fast(dense, count)]


@numba.njit(cache=True, nogil=True)
def _farthest_in_boxes(points: NDArray, order: NDArray, starts: NDArray, count: int, first: int
                       ) -> NDArray:  # pragma: no cover - compiled
    boxes = len(starts) - 1
    bounds = np.empty((boxes, 6))
    for b in range(boxes):
        for a in range(3):
            bounds[b, a] = points[starts[b]:starts[b + 1], a].min()
            bounds[b, 3 + a] = points[starts[b]:starts[b + 1], a].max()
    squared = np.full(len(points), np.inf)
    largest = np.full(boxes, np.inf)
    where = starts[:-1].copy()
    chosen = np.empty(count, np.int64)
    current = first
    for i in range(count):
        chosen[i] = order[current]
        x, y, z = points[current, 0], points[current, 1], points[current, 2]
        best, best_distance = 0, -1.0
        for b in range(boxes):
            ox = max(bounds[b, 0] - x, x - bounds[b, 3], 0.0)
            oy = max(bounds[b, 1] - y, y - bounds[b, 4], 0.0)
            oz = max(bounds[b, 2] - z, z - bounds[b, 5], 0.0)
            if ox * ox + oy * oy + oz * oz < largest[b]:
                top, at = -1.0, 0
                for j in range(starts[b], starts[b + 1]):
                    dx, dy, dz = points[j, 0] - x, points[j, 1] - y, points[j, 2] - z
                    distance = dx * dx + dy * dy + dz * dz
                    if distance < squared[j]:
                        squared[j] = distance
                    if squared[j] > top:
                        top, at = squared[j], j
                largest[b], where[b] = top, at
            if largest[b] > best_distance or (largest[b] == best_distance and order[where[b]] < order[best]):
                best, best_distance = where[b], largest[b]
        current = best
    return chosen
