"""Exact distance from points to a triangle mesh."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.errors import UsxError
from usx_common.meshes import Mesh


def surface_distances(points: NDArray, mesh: Mesh) -> NDArray[np.float64]:
    """(N,) distance in mm of each of ``points`` (N, 3) to the nearest point of the surface of ``mesh``.

    Exact to rounding: every triangle whose bounding sphere could be nearer is tested (closest point of a triangle
    after Ericson, Real-Time Collision Detection, 2005, section 5.1.5). Raises UsxError for a mesh without faces.
    """
    if len(mesh.faces) == 0:
        raise UsxError("the mesh has no faces to measure distances to")
    corners = np.ascontiguousarray(mesh.vertices[mesh.faces])
    centres = corners.mean(axis=1)
    radii = np.linalg.norm(corners - centres[:, None], axis=2).max(axis=1)
    used = np.unique(mesh.faces)
    points = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
    upper, _ = cKDTree(mesh.vertices[used]).query(points)
    return np.sqrt(_squared_distances(points, corners, centres, radii, upper**2))


@numba.njit(cache=True, error_model="numpy")
def _squared_distances(points: NDArray, corners: NDArray, centres: NDArray, radii: NDArray,
                       upper: NDArray) -> NDArray:  # pragma: no cover - compiled
    result = upper.copy()
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        best = result[i]
        reach = np.sqrt(best)
        for f in range(len(corners)):
            dx, dy, dz = x - centres[f, 0], y - centres[f, 1], z - centres[f, 2]
            limit = reach + radii[f]
            if dx * dx + dy * dy + dz * dz >= limit * limit:
                continue
            squared = _squared_to_triangle(x, y, z, corners[f])
            if squared < best:
                best = squared
                reach = np.sqrt(best)
        result[i] = best
    return result


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
