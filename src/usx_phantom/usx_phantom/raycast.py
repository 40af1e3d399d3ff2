"""First hits of rays with triangle meshes: a bounding-volume tree walked by a compiled kernel.

Source of the triangle test: Moeller and Trumbore, "Fast, minimum storage ray/triangle intersection", 1997.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from usx_common.errors import UsxError
from usx_common.meshes import Mesh, vertex_normals

LEAF_FACES = 4
STACK_DEPTH = 64  # median splits halve the faces: 2^60 of them would fit


class BadSurface(UsxError):
    """Meshes that no ray can be cast against."""


@dataclass(frozen=True)
class RayHits:
    """What N rays met first: `distance` (N,) mm (inf where nothing), `normal` (N, 3) unit outward, smooth
    across faces (zero where nothing), `mesh` (N,) index into the meshes given (-1 where nothing)."""

    distance: NDArray[np.float64]
    normal: NDArray[np.float64]
    mesh: NDArray[np.int32]


@dataclass(frozen=True)
class TriangleTree:
    """Triangles sorted into a binary tree of boxes; build it with `TriangleTree.build`.

    The arrays are public because compiled kernels of this package take them: `boxes` (M, 6) low and high corner per
    node, `links` (M, 2) = (second child, 0) for inner nodes whose first child follows them, (first triangle, count)
    for leaves; `corners` (F, 9), `normals` (F, 9) vertex normals, `owner` (F,) mesh of each triangle.
    """

    boxes: NDArray[np.float64]
    links: NDArray[np.int32]
    corners: NDArray[np.float64]
    normals: NDArray[np.float64]
    owner: NDArray[np.int32]

    @classmethod
    def build(cls, meshes: Sequence[Mesh]) -> TriangleTree:
        """Tree over all faces of `meshes` (one common frame, mm). Raises BadSurface when there is none to hit."""
        if sum(len(mesh.faces) for mesh in meshes) == 0:
            raise BadSurface("no mesh has a face: there is no bone to cast rays against")
        corners = np.concatenate([mesh.vertices[mesh.faces].reshape(-1, 9) for mesh in meshes])
        if not np.isfinite(corners).all():
            raise BadSurface("a mesh has vertices that are not finite numbers")
        normals = np.concatenate([vertex_normals(mesh)[mesh.faces].reshape(-1, 9) for mesh in meshes])
        owner = np.repeat(np.arange(len(meshes), dtype=np.int32), [len(mesh.faces) for mesh in meshes])
        order, boxes, links = _build(corners)
        return cls(boxes, links, corners[order], normals[order], owner[order])

    def cast(self, origins: ArrayLike, directions: ArrayLike, reach: float = np.inf) -> RayHits:
        """First hits of rays from `origins` (N, 3) along unit `directions` (N, 3) within `reach` mm."""
        origins = np.ascontiguousarray(origins, dtype=np.float64)
        directions = np.ascontiguousarray(directions, dtype=np.float64)
        if origins.shape != directions.shape or origins.ndim != 2 or origins.shape[1] != 3:
            raise BadSurface(f"rays of shapes {origins.shape} and {directions.shape}; both must be (N, 3)")
        return RayHits(*_cast(self.boxes, self.links, self.corners, self.normals, self.owner,
                              origins, directions, reach))


@numba.njit(cache=True)
def _build(corners):  # type: ignore[no-untyped-def]
    """Split triangles at the median of their longest axis, depth first."""
    count = corners.shape[0]
    low = np.empty((count, 3))
    high = np.empty((count, 3))
    for f in range(count):
        for a in range(3):
            low[f, a] = min(corners[f, a], corners[f, 3 + a], corners[f, 6 + a])
            high[f, a] = max(corners[f, a], corners[f, 3 + a], corners[f, 6 + a])
    order = np.arange(count)
    boxes = np.empty((2 * count, 6))
    links = np.zeros((2 * count, 2), dtype=np.int32)
    stack = np.empty((STACK_DEPTH, 3), dtype=np.int64)  # start, end, parent that waits for this second child
    stack[0] = (0, count, -1)
    top, nodes = 1, 0
    while top > 0:
        top -= 1
        start, end, parent = stack[top]
        node = nodes
        nodes += 1
        if parent >= 0:
            links[parent, 0] = node
        for a in range(3):
            boxes[node, a] = low[order[start:end], a].min()
            boxes[node, 3 + a] = high[order[start:end], a].max()
        if end - start <= LEAF_FACES:
            links[node] = (start, end - start)
            continue
        axis = np.argmax(boxes[node, 3:] - boxes[node, :3])
        part = order[start:end].copy()
        order[start:end] = part[np.argsort(low[part, axis] + high[part, axis], kind="mergesort")]
        middle = (start + end) // 2
        stack[top] = (middle, end, node)
        stack[top + 1] = (start, middle, -1)
        top += 2
    return order, boxes[:nodes].copy(), links[:nodes].copy()


@numba.njit(cache=True, nogil=True)
def _enters(box, origin, inverse, reach):  # type: ignore[no-untyped-def]
    near, far = 0.0, reach
    for a in range(3):
        t0 = (box[a] - origin[a]) * inverse[a]
        t1 = (box[3 + a] - origin[a]) * inverse[a]
        near = max(near, min(t0, t1))
        far = min(far, max(t0, t1))
    return near <= far


@numba.njit(cache=True, nogil=True)
def _meet(corner, origin, direction):  # type: ignore[no-untyped-def]
    """Distance and barycentric weights (of the second and third corner) where a ray meets a triangle, or inf."""
    e1x, e1y, e1z = corner[3] - corner[0], corner[4] - corner[1], corner[5] - corner[2]
    e2x, e2y, e2z = corner[6] - corner[0], corner[7] - corner[1], corner[8] - corner[2]
    px = direction[1] * e2z - direction[2] * e2y
    py = direction[2] * e2x - direction[0] * e2z
    pz = direction[0] * e2y - direction[1] * e2x
    determinant = e1x * px + e1y * py + e1z * pz
    if abs(determinant) < 1e-14:
        return np.inf, 0.0, 0.0
    sx, sy, sz = origin[0] - corner[0], origin[1] - corner[1], origin[2] - corner[2]
    u = (sx * px + sy * py + sz * pz) / determinant
    qx, qy, qz = sy * e1z - sz * e1y, sz * e1x - sx * e1z, sx * e1y - sy * e1x
    v = (direction[0] * qx + direction[1] * qy + direction[2] * qz) / determinant
    t = (e2x * qx + e2y * qy + e2z * qz) / determinant
    if u < -1e-12 or v < -1e-12 or u + v > 1.0 + 1e-12 or t < 0.0:
        return np.inf, 0.0, 0.0
    return t, u, v


@numba.njit(cache=True, nogil=True)
def cast_one(boxes, links, corners, origin, direction, reach):  # type: ignore[no-untyped-def]
    """(distance, triangle, u, v) of the first hit of one ray; (inf, -1, 0, 0) for none. For compiled callers."""
    inverse = np.empty(3)
    for a in range(3):
        component = direction[a]
        if abs(component) < 1e-12:
            component = 1e-12
        inverse[a] = 1.0 / component
    best, face, best_u, best_v = reach, -1, 0.0, 0.0
    stack = np.empty(STACK_DEPTH, dtype=np.int32)
    stack[0] = 0
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        if not _enters(boxes[node], origin, inverse, best):
            continue
        if links[node, 1] == 0:
            stack[top] = links[node, 0]
            stack[top + 1] = node + 1
            top += 2
            continue
        for f in range(links[node, 0], links[node, 0] + links[node, 1]):
            t, u, v = _meet(corners[f], origin, direction)
            if t < best:
                best, face, best_u, best_v = t, f, u, v
    if face < 0:
        best = np.inf
    return best, face, best_u, best_v


@numba.njit(cache=True, nogil=True)
def _cast(boxes, links, corners, normals, owner, origins, directions, reach):  # type: ignore[no-untyped-def]
    count = origins.shape[0]
    distance = np.empty(count)
    normal = np.zeros((count, 3))
    mesh = np.full(count, -1, dtype=np.int32)
    for i in range(count):
        t, face, u, v = cast_one(boxes, links, corners, origins[i], directions[i], reach)
        distance[i] = t
        if face < 0:
            continue
        mesh[i] = owner[face]
        for a in range(3):
            normal[i, a] = (1 - u - v) * normals[face, a] + u * normals[face, 3 + a] + v * normals[face, 6 + a]
        length = np.sqrt(normal[i, 0] ** 2 + normal[i, 1] ** 2 + normal[i, 2] ** 2)
        if length > 0.0:
            normal[i] /= length
    return distance, normal, mesh
