"""Helpers for point clouds: (N, 3) arrays in millimetres."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from usx_common.errors import UsxError

Points = NDArray[np.float64]


def finite_rows(points: NDArray) -> NDArray[np.bool_]:
    """(N,) mask of the rows whose numbers are all finite."""
    return np.isfinite(points).all(axis=1)


def bounds(points: NDArray) -> tuple[Points, Points]:
    """Smallest and largest corner (3,) of the axis-aligned box. Raises UsxError for an empty cloud."""
    if len(points) == 0:
        raise UsxError("the cloud is empty; it has no bounds")
    return np.min(points, axis=0), np.max(points, axis=0)


def voxel_downsample(points: NDArray, voxel_mm: float) -> Points:
    """Centroids (M, 3) of the points in each cubic voxel, sorted by voxel; the order of the input does not matter.

    Sums are taken over lexicographically sorted points, so the result is the same bit for bit for any input order.
    """
    if voxel_mm <= 0:
        raise UsxError(f"voxel size {voxel_mm} mm must be positive")
    points = np.asarray(points, dtype=np.float64)
    if len(points) == 0:
        return points.reshape(0, 3)
    keys = np.floor(points / voxel_mm).astype(np.int64)
    order = np.lexsort((points[:, 2], points[:, 1], points[:, 0], keys[:, 2], keys[:, 1], keys[:, 0]))
    keys, points = keys[order], points[order]
    starts = np.flatnonzero(np.r_[True, np.any(np.diff(keys, axis=0) != 0, axis=1)])
    counts = np.diff(np.r_[starts, len(points)])
    return np.add.reduceat(points, starts, axis=0) / counts[:, None]


def farthest_points(points: NDArray, count: int, start: int = 0) -> NDArray[np.int64]:
    """Indices (count,) of furthest point sampling, beginning with index ``start``; ties go to the lowest index.

    Raises UsxError when the cloud has fewer points than asked for.
    """
    if not 0 < count <= len(points):
        raise UsxError(f"cannot take {count} furthest points of a cloud of {len(points)}")
    return _farthest_points(np.ascontiguousarray(points, dtype=np.float64), count, start)


@numba.njit(cache=True)
def _farthest_points(points: NDArray, count: int, start: int) -> NDArray:  # pragma: no cover - compiled
    chosen = np.empty(count, np.int64)
    squared = np.full(len(points), np.inf)
    current = start
    for i in range(count):
        chosen[i] = current
        x, y, z = points[current, 0], points[current, 1], points[current, 2]
        best, best_distance = 0, -1.0
        for j in range(len(points)):
            dx, dy, dz = points[j, 0] - x, points[j, 1] - y, points[j, 2] - z
            distance = dx * dx + dy * dy + dz * dz
            if distance < squared[j]:
                squared[j] = distance
            if squared[j] > best_distance:
                best, best_distance = j, squared[j]
        current = best
    return chosen


def nearest_distances(from_points: NDArray, to_points: NDArray) -> Points:
    """(N,) distance in mm of each point of ``from_points`` to the nearest of ``to_points``."""
    if len(to_points) == 0:
        raise UsxError("no points to measure distances to")
    return cKDTree(to_points).query(from_points)[0]


def estimate_normals(points: NDArray, neighbours: int = 16) -> Points:
    """(N, 3) unit normals by principal component analysis of the nearest neighbours; the sign is arbitrary.

    Raises UsxError for fewer than three points.
    """
    if len(points) < 3:
        raise UsxError(f"normals need three points or more, not {len(points)}")
    _, index = cKDTree(points).query(points, k=min(neighbours, len(points)))
    local = points[index] - points[index].mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", local, local))
    return np.ascontiguousarray(vectors[:, :, 0])


def largest_cluster(points: NDArray, radius_mm: float) -> NDArray[np.bool_]:
    """(N,) mask of the largest set of points linked by steps of at most ``radius_mm``."""
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    pairs = cKDTree(points).query_pairs(radius_mm, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(points), len(points)))
    _, labels = connected_components(links, directed=False)
    return labels == np.argmax(np.bincount(labels))


def principal_axes(points: NDArray) -> tuple[Points, Points, Points]:
    """Centroid (3,), principal axes (3, 3) as rows from largest to smallest, and the extents (3,) along them, mm.

    The sign of each axis makes its largest component positive. Raises UsxError for fewer than three points.
    """
    if len(points) < 3:
        raise UsxError(f"principal axes need three points or more, not {len(points)}")
    centroid = points.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((points - centroid).T))
    axes = vectors.T[::-1].copy()
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(3), largest])[:, None]
    along = (points - centroid) @ axes.T
    return centroid, axes, along.max(axis=0) - along.min(axis=0)
