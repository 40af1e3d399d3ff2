"""Iso-surface of a sampled field as a closed triangle mesh (marching cubes).

Lorensen and Cline, SIGGRAPH 1987. The case table is derived, not copied: on each face of a cube the crossings are
joined so that inside corners stay apart, a rule both neighbours of the face agree on, so surfaces are always closed.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit

from usx_common.errors import UsxError
from usx_common.meshes import Mesh

# Corner c of a cube sits at bits (x, y, z) = (c & 1, c >> 1 & 1, c >> 2 & 1).
EDGES = tuple((a, a | axis) for axis in (1, 2, 4) for a in range(8) if not a & axis)
# Corners of each face, counter-clockwise seen from outside.
FACES = ((0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6))
MAX_TRIANGLES = 6


def _face_edges(face: int) -> list[int]:
    corners = FACES[face]
    return [EDGES.index(tuple(sorted((corners[i], corners[(i + 1) % 4])))) for i in range(4)]


def _loops(inside: int) -> list[list[int]]:
    """Closed polygons of crossed edges for one pattern of inside corners (bit c = corner c)."""
    successor: dict[int, int] = {}
    for face, corners in enumerate(FACES):
        edges = _face_edges(face)
        is_in = [bool(inside >> c & 1) for c in corners]
        for i in range(4):
            if is_in[i] or not is_in[(i + 1) % 4]:
                continue
            last = (i + 1) % 4
            while is_in[(last + 1) % 4]:
                last = (last + 1) % 4
            successor[edges[i]] = edges[last]
    loops = []
    while successor:
        start, edge = next(iter(successor.items()))
        loop = [start]
        del successor[start]
        while edge != start:
            loop.append(edge)
            edge = successor.pop(edge)
        loops.append(loop)
    return loops


def _fan(loop: list[int]) -> list[tuple[int, int, int]]:
    """Triangles of a polygon, from the corner whose diagonals lie least often in a face of the cube."""
    faces_of = [{f for f in range(6) if e in _face_edges(f)} for e in range(12)]
    n = len(loop)

    def in_face(start: int) -> int:
        return sum(bool(faces_of[loop[start]] & faces_of[loop[(start + i) % n]]) for i in range(2, n - 1))

    s = min(range(n), key=in_face)
    return [(loop[s], loop[(s + i) % n], loop[(s + i + 1) % n]) for i in range(1, n - 1)]


@cache
def case_table() -> np.ndarray:
    """(256, 3 MAX_TRIANGLES) int8: edges of the triangles of each pattern, filled up with -1."""
    table = np.full((256, 3 * MAX_TRIANGLES), -1, np.int8)
    for inside in range(256):
        edges = [edge for loop in _loops(inside) for triangle in _fan(loop) for edge in triangle]
        table[inside, : len(edges)] = edges
    return table


@njit(cache=True)
def _march(values: np.ndarray, table: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nx, ny, nz = values.shape
    ids = np.full((nx, ny, nz, 3), -1, np.int32)
    vertices = np.empty((1024, 3))
    faces = np.empty((2048, 3), np.int32)
    vertex_count, face_count = 0, 0
    for i in range(nx - 1):
        for j in range(ny - 1):
            for k in range(nz - 1):
                pattern = 0
                for c in range(8):
                    if values[i + (c & 1), j + (c >> 1 & 1), k + (c >> 2 & 1)] < 0.0:
                        pattern |= 1 << c
                if pattern == 0 or pattern == 255:
                    continue
                column = 0
                while column < table.shape[1] and table[pattern, column] >= 0:
                    if face_count == faces.shape[0]:
                        faces = np.concatenate((faces, np.empty_like(faces)))
                    for corner in range(3):
                        a, b = edges[table[pattern, column + corner]]
                        ax, ay, az = i + (a & 1), j + (a >> 1 & 1), k + (a >> 2 & 1)
                        axis = 0 if b - a == 1 else (1 if b - a == 2 else 2)
                        if ids[ax, ay, az, axis] < 0:
                            if vertex_count == vertices.shape[0]:
                                vertices = np.concatenate((vertices, np.empty_like(vertices)))
                            va = values[ax, ay, az]
                            vb = values[i + (b & 1), j + (b >> 1 & 1), k + (b >> 2 & 1)]
                            # Staying off the corners avoids triangles of no area.
                            t = min(max(va / (va - vb), 0.02), 0.98)
                            vertices[vertex_count, 0] = ax
                            vertices[vertex_count, 1] = ay
                            vertices[vertex_count, 2] = az
                            vertices[vertex_count, axis] += t
                            ids[ax, ay, az, axis] = vertex_count
                            vertex_count += 1
                        faces[face_count, corner] = ids[ax, ay, az, axis]
                    face_count += 1
                    column += 3
    return vertices[:vertex_count].copy(), faces[:face_count].copy()


def iso_surface(values: np.ndarray, origin: np.ndarray, spacing: float) -> Mesh:
    """Zero level of `values` (x, y, z), negative inside, as a closed Mesh with outward normals.

    `origin` (3,) is the position of node (0, 0, 0), `spacing` the distance of nodes, both mm.
    Raises UsxError where there is no surface, or where it leaves the grid (it would be open).
    """
    values = np.ascontiguousarray(values)
    if values.ndim != 3 or min(values.shape) < 2:
        raise UsxError(f"a field of shape {values.shape} has no cells: give at least 2 x 2 x 2 nodes")
    border = [values[0], values[-1], values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1]]
    if any((side < 0).any() for side in border):
        raise UsxError("the surface leaves the grid: make the grid larger")
    vertices, faces = _march(values, case_table(), np.array(EDGES, np.int64))
    if not len(faces):
        raise UsxError("the field is positive everywhere: there is no surface")
    return Mesh(np.asarray(origin, float) + spacing * vertices, faces)
