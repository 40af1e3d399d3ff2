"""Triangles to pixels, and points near other points: the two compiled loops of the fast simulators."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, error_model="numpy")
def nearest_surface(vertices: NDArray, faces: NDArray, columns: int, rows: int
                    ) -> tuple[NDArray, NDArray]:  # pragma: no cover - compiled
    """Largest nearness per pixel centre and the face (-1: none) it belongs to, both (columns, rows).

    ``vertices`` (V, 3): column and row in pixels, and a nearness that is affine in them (inverse depth of a pinhole
    camera, or height of parallel rays). A face with a vertex of nearness -inf is left out. Scalars only in the loop.
    """
    nearness = np.full((columns, rows), -np.inf)
    owner = np.full((columns, rows), -1, np.int32)
    for f in range(len(faces)):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        bx, by, bz = vertices[j, 0], vertices[j, 1], vertices[j, 2]
        cx, cy, cz = vertices[k, 0], vertices[k, 1], vertices[k, 2]
        if min(az, bz, cz) == -np.inf:
            continue
        left, right = max(0.0, np.ceil(min(ax, bx, cx))), min(columns - 1.0, np.floor(max(ax, bx, cx)))
        low, high = max(0.0, np.ceil(min(ay, by, cy))), min(rows - 1.0, np.floor(max(ay, by, cy)))
        if left > right or low > high:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        for column in range(int(left), int(right) + 1):
            for row in range(int(low), int(high) + 1):
                v = ((column - ax) * (cy - ay) - (row - ay) * (cx - ax)) / area
                w = ((bx - ax) * (row - ay) - (by - ay) * (column - ax)) / area
                if v >= 0.0 and w >= 0.0 and v + w <= 1.0:
                    value = (1.0 - v - w) * az + v * bz + w * cz
                    if value > nearness[column, row]:
                        nearness[column, row] = value
                        owner[column, row] = f
    return nearness, owner


def near_any(points: NDArray, others: NDArray, radius: float) -> NDArray[np.bool_]:
    """(N,) whether a point (N, 3) lies within ``radius`` of any of ``others`` (M, 3); same unit."""
    if len(points) == 0 or len(others) == 0:
        return np.zeros(len(points), dtype=bool)
    low = np.minimum(points.min(axis=0), others.min(axis=0)) - radius
    size = np.floor((np.maximum(points.max(axis=0), others.max(axis=0)) - low) / radius).astype(np.int64) + 2
    cells = np.floor((others - low) / radius).astype(np.int64)
    key = (cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2]
    order = np.argsort(key, kind="stable")
    return _near_any(np.ascontiguousarray(points), others[order], key[order], low, size, radius)


@numba.njit(cache=True)
def _near_any(points: NDArray, others: NDArray, key: NDArray, low: NDArray, size: NDArray, radius: float
              ) -> NDArray:  # pragma: no cover - compiled
    result = np.zeros(len(points), np.bool_)
    limit = radius * radius
    for n in range(len(points)):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        ci, cj = int((x - low[0]) / radius), int((y - low[1]) / radius)
        ck = int((z - low[2]) / radius)
        for i in range(max(ci - 1, 0), ci + 2):
            for j in range(max(cj - 1, 0), cj + 2):
                base = (i * size[1] + j) * size[2]
                at = np.searchsorted(key, base + max(ck - 1, 0))
                while at < len(key) and key[at] <= base + ck + 1 and not result[n]:
                    dx, dy, dz = others[at, 0] - x, others[at, 1] - y, others[at, 2] - z
                    result[n] = dx * dx + dy * dy + dz * dz <= limit
                    at += 1
            if result[n]:
                break
    return result
