"""Sections of closed triangle meshes by planes, and what can be read off them: pieces, chords, free distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from usx_common.meshes import Mesh

# A plane through vertices has no clean section; it is moved by this much (mm), far below what is measured.
_NUDGE = 1e-6


@dataclass(frozen=True)
class Section:
    """Outlines where a plane cuts a mesh: `segments` (N, 2, 2) mm in the plane, `pieces` (N,) outline each is of."""

    segments: np.ndarray
    pieces: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """(N, 2) one end of every segment: each point of the outlines once."""
        return self.segments[:, 0]

    def piece(self, number: int) -> np.ndarray:
        """(K, 2) points of one outline."""
        return self.segments[self.pieces == number, 0]

    def crossings(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Sorted distances (K,) mm, positive ones only, at which the ray meets an outline; empty where it does not.

        `origin`, `direction`: (2,); the direction need not be of unit length, distances are in mm.
        """
        unit = np.asarray(direction, float) / np.linalg.norm(direction)
        a, b = self.segments[:, 0] - origin, self.segments[:, 1] - origin
        side_a, side_b = a[:, 1] * unit[0] - a[:, 0] * unit[1], b[:, 1] * unit[0] - b[:, 0] * unit[1]
        cut = (side_a > 0.0) != (side_b > 0.0)
        share = side_a[cut] / (side_a[cut] - side_b[cut])
        along = a[cut] @ unit + share * ((b - a)[cut] @ unit)
        return np.sort(along[along > 0.0])


def section(mesh: Mesh, axis: int, value: float) -> Section:
    """The outlines of `mesh` in the plane where coordinate `axis` (0, 1 or 2) is `value` mm.

    Points keep the order of the two other coordinates. Empty where the plane misses the mesh.
    """
    kept = [i for i in range(3) if i != axis]
    height = mesh.vertices[:, axis] - (value + _NUDGE)
    above = height[mesh.faces] > 0.0
    cut = above.any(1) & ~above.all(1)
    faces, above = mesh.faces[cut], above[cut]
    ends, names = [], []
    for i, j in ((0, 1), (1, 2), (2, 0)):
        a, b = faces[:, i], faces[:, j]
        low, high = np.minimum(a, b), np.maximum(a, b)
        share = height[low] / np.where(height[low] == height[high], 1.0, height[low] - height[high])
        point = mesh.vertices[low] + share[:, None] * (mesh.vertices[high] - mesh.vertices[low])
        ends.append(point[:, kept])
        names.append(low.astype(np.int64) * len(mesh.vertices) + high)
    crossed = np.stack([above[:, 0] != above[:, 1], above[:, 1] != above[:, 2], above[:, 2] != above[:, 0]], 1)
    order = np.argsort(~crossed, axis=1, kind="stable")[:, :2]
    rows = np.arange(len(faces))[:, None]
    segments = np.stack(ends, 1)[rows, order]
    edges = np.stack(names, 1)[rows, order]
    return Section(segments, _pieces(edges))


def _pieces(edges: np.ndarray) -> np.ndarray:
    """Number of the outline of each segment (N,) from the mesh edges (N, 2) that its ends lie on."""
    if not len(edges):
        return np.zeros(0, np.int64)
    found, index = np.unique(edges, return_inverse=True)
    index = index.reshape(edges.shape)
    links = csr_matrix((np.ones(len(edges)), (index[:, 0], index[:, 1])), shape=(len(found),) * 2)
    return np.asarray(connected_components(links, directed=False)[1][index[:, 0]], np.int64)
