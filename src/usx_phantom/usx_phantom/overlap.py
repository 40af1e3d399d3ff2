"""How deep neighbouring bones run into each other: signed distances to closed meshes.

The sign comes from angle-weighted pseudo-normals (Baerentzen and Aanaes, IEEE TVCG 11(3), 2005), which is exact at
faces, edges and corners alike. The nearest triangle is sought among those at the nearest vertices, so meshes should
be even, as those of marching cubes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh

NEAREST_VERTICES = 4
# Points so far (mm) above the tangent plane of the nearest vertex are outside, whatever the surface does nearby.
SURELY_OUTSIDE = 1.2


class OpenBone(UsxError):
    """A mesh that has no inside."""


class BoneSurface:
    """A closed mesh that answers signed distances; build it once, it serves any number of poses."""

    def __init__(self, mesh: Mesh, name: str = "the mesh") -> None:
        """Raises OpenBone naming `name` when the mesh has holes or no faces."""
        self._face_normals, self._edge_normals, self._vertex_normals, closed = _pseudo_normals(mesh)
        if not closed:
            raise OpenBone(f"{name} is not closed: fill its holes, or make it anew from the segmentation")
        self.mesh = mesh
        self.low, self.high = mesh.vertices.min(0), mesh.vertices.max(0)
        self._tree = cKDTree(mesh.vertices)
        topology = _topology_of(mesh)
        self._start, self._incident = topology.start, topology.incident

    def signed_distance(self, points: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) mm, negative inside, and the (N, 3) unit directions in which it grows; `points` (N, 3) mm."""
        points = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
        if not len(points):
            return np.zeros(0), np.zeros((0, 3))
        near = self._tree.query(points, k=min(NEAREST_VERTICES, len(self.mesh.vertices)))[1]
        return _signed(points, near.reshape(len(points), -1), self._start, self._incident, self.mesh.vertices,
                       self.mesh.faces, self._face_normals, self._edge_normals, self._vertex_normals)

    def deepest(self, points: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Depth (mm) of the deepest of `points` (N, 3) mm inside, and the unit direction out; 0 and zeros if none is.

        Folded faces mislead pseudo-normals, so the deepest is confirmed by its winding number.
        """
        boxed = points[((points > self.low) & (points < self.high)).all(1)]
        if len(boxed):
            nearest = self._tree.query(boxed)[1]
            above = np.einsum("ij,ij->i", boxed - self.mesh.vertices[nearest], self._vertex_normals[nearest])
            boxed = boxed[above < SURELY_OUTSIDE]
        distance, outward = self.signed_distance(boxed)
        for row in np.argsort(distance):
            if distance[row] >= 0.0:
                break
            if _winding(boxed[row], self.mesh.vertices, self.mesh.faces) != 0:
                return float(-distance[row]), outward[row]
        return 0.0, np.zeros(3)


def penetration(a: BoneSurface, b: BoneSurface, a_to_b: NDArray[np.float64] | None = None) -> float:
    """Penetration depth (mm) of two bones: how deep the deepest vertex of either lies in the other, 0 when apart.

    `a_to_b`: (4, 4) rigid, where `a` is not in the frame of `b` already.
    """
    pose = np.eye(4) if a_to_b is None else a_to_b
    first = b.deepest(transforms.apply(pose, a.mesh.vertices))[0]
    return max(first, a.deepest(transforms.apply(transforms.invert(pose), b.mesh.vertices))[0])


def overlaps(meshes: dict[str, Mesh]) -> dict[tuple[str, str], float]:
    """Penetration depth (mm) of each pair of neighbouring levels of `meshes` (one frame, mm): (upper, lower) -> depth.

    Raises OpenBone naming the level whose mesh is not closed.
    """
    levels = [level for level in LEVELS if level in meshes]
    bones = {level: BoneSurface(meshes[level], level) for level in levels}
    return {(upper, lower): penetration(bones[upper], bones[lower]) for upper, lower in pairwise(levels)
            if LEVELS.index(lower) - LEVELS.index(upper) == 1}


@dataclass(frozen=True)
class _Topology:
    """Pairs (E, 2) of half edges (face * 3 + corner) that meet, whether every edge has two faces that run along it in
    opposite directions, and the faces around each vertex: ``incident[start[v]:start[v + 1]]``."""

    pairs: NDArray[np.int64]
    closed: bool
    start: NDArray[np.int64]
    incident: NDArray[np.int64]


def _topology_of(mesh: Mesh) -> _Topology:
    return _topology(np.ascontiguousarray(mesh.faces, np.int64).tobytes(), len(mesh.vertices))


@lru_cache(maxsize=8)  # thousands of sampled spines share the faces of one template
def _topology(faces: bytes, vertices: int) -> _Topology:
    corners = np.frombuffer(faces, np.int64).reshape(-1, 3)
    ends = np.stack([corners, np.roll(corners, -1, axis=1)], -1).reshape(-1, 2)
    keys = ends.min(1) * vertices + ends.max(1)
    order = np.argsort(keys, kind="stable")
    pairs = order.reshape(-1, 2) if len(order) % 2 == 0 else order[:-1].reshape(-1, 2)
    same = keys[pairs[:, 0]] == keys[pairs[:, 1]]
    opposite = ends[pairs[:, 0], 0] == ends[pairs[:, 1], 1]
    once = np.diff(keys[pairs[:, 0]]) > 0
    closed = bool(len(order) % 2 == 0 and same.all() and opposite.all() and once.all())
    around = np.argsort(corners.reshape(-1), kind="stable") // 3
    start = np.concatenate([[0], np.cumsum(np.bincount(corners.reshape(-1), minlength=vertices))])
    return _Topology(pairs, closed, start.astype(np.int64), around.astype(np.int64))


def _pseudo_normals(mesh: Mesh) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], bool]:
    """Unit normals of faces (F, 3), pseudo-normals of their edges (F, 3, 3), unit ones of vertices (V, 3), and whether
    every edge has two faces that run along it in opposite directions."""
    if not len(mesh.faces):
        return np.zeros((0, 3)), np.zeros((0, 3, 3)), np.zeros_like(mesh.vertices), False
    corners = mesh.vertices[mesh.faces]
    ahead, back = np.roll(corners, -1, axis=1) - corners, np.roll(corners, 1, axis=1) - corners
    across: NDArray[np.float64] = np.cross(ahead[:, 0], back[:, 0])
    normals = _unit(across)
    topology = _topology_of(mesh)
    pairs, closed = topology.pairs, topology.closed
    edges = np.repeat(normals, 3, axis=0)
    sums = edges[pairs[:, 0]] + edges[pairs[:, 1]]
    edges[pairs[:, 0]] = sums
    edges[pairs[:, 1]] = sums
    sizes = np.linalg.norm(ahead, axis=2) * np.linalg.norm(back, axis=2)
    cosines = np.einsum("fcd,fcd->fc", ahead, back) / np.maximum(sizes, 1e-30)
    weighted = (np.arccos(np.clip(cosines, -1.0, 1.0))[:, :, None] * normals[:, None]).reshape(-1, 3)
    flat = mesh.faces.reshape(-1)
    vertex = np.zeros_like(mesh.vertices)
    for i in range(3):
        vertex[:, i] = np.bincount(flat, weighted[:, i], len(vertex))
    return normals, edges.reshape(-1, 3, 3), _unit(vertex), closed


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0.0)


@numba.njit(cache=True)
def _closest(p, a, b, c):  # type: ignore[no-untyped-def]
    """Closest point of a triangle and its place: 0 face, 1-3 the edge that starts at a, b, c, 4-6 a, b, c.

    Ericson, Real-Time Collision Detection, 2005, section 5.1.5.
    """
    ab, ac, ap = b - a, c - a, p - a
    d1, d2 = ab @ ap, ac @ ap
    if d1 <= 0.0 and d2 <= 0.0:
        return a, 4
    bp = p - b
    d3, d4 = ab @ bp, ac @ bp
    if d3 >= 0.0 and d4 <= d3:
        return b, 5
    vc = d1 * d4 - d3 * d2
    if vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
        return a + d1 / (d1 - d3) * ab, 1
    cp = p - c
    d5, d6 = ab @ cp, ac @ cp
    if d6 >= 0.0 and d5 <= d6:
        return c, 6
    vb = d5 * d2 - d1 * d6
    if vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
        return a + d2 / (d2 - d6) * ac, 3
    va = d3 * d6 - d5 * d4
    if va <= 0.0 and d4 - d3 >= 0.0 and d5 - d6 >= 0.0:
        return b + (d4 - d3) / ((d4 - d3) + (d5 - d6)) * (c - b), 2
    total = va + vb + vc
    return a + ab * (vb / total) + ac * (vc / total), 0


@numba.njit(cache=True)
def _signed(points, near, start, incident, vertices, faces, face_n, edge_n, vertex_n):  # type: ignore[no-untyped-def]
    distance = np.empty(len(points))
    outward = np.zeros((len(points), 3))
    for i in range(len(points)):
        p = points[i]
        best, sign = np.inf, 1.0
        way = np.zeros(3)
        normal = np.zeros(3)
        for j in range(near.shape[1]):
            for k in range(start[near[i, j]], start[near[i, j] + 1]):
                f = incident[k]
                q, place = _closest(p, vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]])
                away = p - q
                squared = away @ away
                if squared < best:
                    best = squared
                    way = away
                    if place == 0:
                        normal = face_n[f]
                    elif place < 4:
                        normal = edge_n[f, place - 1]
                    else:
                        normal = vertex_n[faces[f, place - 4]]
        if way @ normal < 0.0:
            sign = -1.0
        distance[i] = sign * np.sqrt(best)
        outward[i] = sign * way / max(np.sqrt(best), 1e-12)
    return distance, outward


@numba.njit(cache=True)
def _winding(point, vertices, faces):  # type: ignore[no-untyped-def]
    """Signed number of faces above a point: 0 outside a closed mesh, folded or not.

    The ray is shifted by a hundred-thousandth of a millimetre so that it hardly ever meets an edge.
    """
    x, y, z = point[0] + 1.234e-5, point[1] + 2.345e-5, point[2]
    count = 0
    for f in range(len(faces)):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        if (max(a[0], b[0], c[0]) < x or min(a[0], b[0], c[0]) > x or max(a[1], b[1], c[1]) < y
                or min(a[1], b[1], c[1]) > y or max(a[2], b[2], c[2]) < z):
            continue
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0.0:
            continue
        u = ((b[0] - x) * (c[1] - y) - (b[1] - y) * (c[0] - x)) / area
        v = ((c[0] - x) * (a[1] - y) - (c[1] - y) * (a[0] - x)) / area
        w = 1.0 - u - v
        if u >= 0.0 and v >= 0.0 and w >= 0.0 and u * a[2] + v * b[2] + w * c[2] > z:
            count += 1 if area > 0.0 else -1
    return count
