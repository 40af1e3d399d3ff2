"""Exact distance from points to a triangle mesh."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.errors import UsxError
from usx_common.meshes import Mesh

MOST_CELLS_ALONG = 48


def surface_distances(points: NDArray, mesh: Mesh) -> NDArray[np.float64]:
    """(N,) distance in mm of each of ``points`` (N, 3) to the nearest point of the surface of ``mesh``.

    As `nearest_faces`, which raises the same.
    """
    return nearest_faces(points, mesh)[0]


def nearest_faces(points: NDArray, mesh: Mesh) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(N,) distance in mm of each of ``points`` (N, 3) to the surface of ``mesh``, and the face that is nearest.

    Exact to rounding: every triangle whose bounding sphere could be nearer is tested (closest point of a triangle
    after Ericson, Real-Time Collision Detection, 2005, section 5.1.5); a grid of the triangles' centres tells which
    those are. Raises UsxError for a mesh without faces.
    """
    if len(mesh.faces) == 0:
        raise UsxError("the mesh has no faces to measure distances to")
    points = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
    corners = np.ascontiguousarray(mesh.vertices[mesh.faces])
    centres = corners.mean(axis=1)
    radii = np.linalg.norm(corners - centres[:, None], axis=2).max(axis=1)
    face_of_vertex = np.full(len(mesh.vertices), -1, dtype=np.int64)
    face_of_vertex[mesh.faces.ravel()] = np.repeat(np.arange(len(mesh.faces)), 3)
    used = np.flatnonzero(face_of_vertex >= 0)
    upper, vertex = cKDTree(mesh.vertices[used]).query(points)
    low, cell, shape, order, starts = _grid(centres, radii)
    squared, faces = _nearest(points, corners[order], centres[order], radii[order], starts, shape, low, cell,
                              upper**2, float(radii.max()))
    found = np.where(faces >= 0, order[faces], face_of_vertex[used[vertex]])
    return np.sqrt(squared), found


def _grid(centres: NDArray, radii: NDArray) -> tuple[NDArray, float, NDArray, NDArray, NDArray]:
    """Low corner and width of the cells, their number along each axis, faces by cell, and where each cell starts."""
    low = centres.min(axis=0)
    extent = float(np.ptp(centres, axis=0).max())
    cell = max(extent / MOST_CELLS_ALONG, 2.0 * float(np.median(radii)), 1e-9)
    index = np.floor((centres - low) / cell).astype(np.int64)
    shape = index.max(axis=0) + 1
    key = (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2]
    order = np.argsort(key, kind="stable")
    starts = np.searchsorted(key[order], np.arange(int(shape.prod()) + 1))
    return low, cell, shape, order, starts


@numba.njit(cache=True, error_model="numpy")
def _nearest(points: NDArray, corners: NDArray, centres: NDArray, radii: NDArray, starts: NDArray, shape: NDArray,
             low: NDArray, cell: float, upper: NDArray, largest: float
             ) -> tuple[NDArray, NDArray]:  # pragma: no cover - compiled
    squared = upper.copy()
    faces = np.full(len(points), -1, np.int64)
    first, last = np.empty(3, np.int64), np.empty(3, np.int64)
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        best = squared[i]
        reach = np.sqrt(best)
        for a in range(3):
            from_low = points[i, a] - low[a]
            # cells beyond the grid hold nothing, however far away the point is
            first[a] = int(min(max(np.floor((from_low - reach - largest) / cell), 0.0), float(shape[a])))
            last[a] = int(max(min(np.floor((from_low + reach + largest) / cell), float(shape[a] - 1)), -1.0))
        for gx in range(first[0], last[0] + 1):
            for gy in range(first[1], last[1] + 1):
                row = (gx * shape[1] + gy) * shape[2]
                for f in range(starts[row + first[2]], starts[row + max(last[2] + 1, first[2])]):
                    dx, dy, dz = x - centres[f, 0], y - centres[f, 1], z - centres[f, 2]
                    limit = reach + radii[f]
                    if dx * dx + dy * dy + dz * dz >= limit * limit:
                        continue
                    distance = _squared_to_triangle(x, y, z, corners[f])
                    if distance < best:
                        best = distance
                        faces[i] = f
                        reach = np.sqrt(best)
        squared[i] = best
    return squared, faces


@numba.njit(cache=True, error_model="numpy")
def _squared_to_triangle(x: float, y: float, z: float, t: NDArray) -> float:  # pragma: no cover - compiled
    abx, aby, abz = t[1, 0] - t[0, 0], t[1, 1] - t[0, 1], t[1, 2] - t[0, 2]
    acx, acy, acz = t[2, 0] - t[0, 0], t[2, 1] - t[0, 1], t[2, 2] - t[0, 2]
    apx, apy, apz = x - t[0, 0], y - t[0, 1], z - t[0, 2]
    d1 = abx * apx + aby * apy + abz * apz
    d2 = acx * apx + acy * apy + acz * apz
    ab2 = abx * abx + aby * aby + abz * abz
    ac2 = acx * acx + acy * acy + acz * acz
    abac = abx * acx + aby * acy + abz * acz
    d3, d4 = d1 - ab2, d2 - abac
    d5, d6 = d1 - abac, d2 - ac2
    if d1 <= 0.0 and d2 <= 0.0:
        v, w = 0.0, 0.0
    elif d3 >= 0.0 and d4 <= d3:
        v, w = 1.0, 0.0
    elif d6 >= 0.0 and d5 <= d6:
        v, w = 0.0, 1.0
    else:
        vc = d1 * d4 - d3 * d2
        vb = d5 * d2 - d1 * d6
        va = d3 * d6 - d5 * d4
        if vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
            v, w = d1 / (d1 - d3), 0.0
        elif vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
            v, w = 0.0, d2 / (d2 - d6)
        elif va <= 0.0 and d4 - d3 >= 0.0 and d5 - d6 >= 0.0:
            w = (d4 - d3) / ((d4 - d3) + (d5 - d6))
            v = 1.0 - w
        else:
            v, w = vb / (va + vb + vc), vc / (va + vb + vc)
    rx, ry, rz = apx - v * abx - w * acx, apy - v * aby - w * acy, apz - v * abz - w * acz
    return rx * rx + ry * ry + rz * rz
