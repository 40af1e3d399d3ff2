"""Sampled vertebrae as meshes with corresponding vertices: the mean's mesh carried along by its parts.

Each vertex of the mean keeps its place relative to the parts near it (skinning) and is then moved onto the new
surface along the field's gradient. All samples of a level share their faces.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.sparse import csr_matrix, diags

from usx_common.meshes import Mesh
from usx_phantom.marching_cubes import iso_surface
from usx_phantom.vertebra import Solid, VertebraShape, mean_vertebra

DEFAULT_SPACING = 1.4
_SKIN_WIDTH = 2.0


def shape_mesh(shape: VertebraShape, spacing: float = DEFAULT_SPACING) -> Mesh:
    """Closed mesh of any shape by marching cubes on a grid of `spacing` mm (vertices do not correspond)."""
    solid = shape.solid()
    low, high = solid.bounds()
    nx, ny, nz = (int(n) + 1 for n in np.ceil((high - low) / spacing))
    return iso_surface(solid.grid(low, spacing, (nx, ny, nz)), low, spacing)


@cache
def template_mesh(level: str, spacing: float = DEFAULT_SPACING) -> Mesh:
    """Mesh of the mean of `level` in its own frame."""
    return shape_mesh(mean_vertebra(level).shape, spacing)


@cache
def _skinning(level: str, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (V, C + 1) of body and cones, and place (V, C, 4) within each cone of the mean."""
    solid = mean_vertebra(level).shape.solid()
    vertices = template_mesh(level, spacing).vertices
    places = _places(solid, vertices)
    nearness = np.linalg.norm(places[:, :, 1:], axis=2)
    radii = 0.5 * (solid.cones[:, 6:8].mean(1) + solid.cones[:, 8:10].mean(1))
    distances = (nearness - 1.0) * radii
    b = solid.body
    body = np.stack([vertices[:, 0] / b[0], vertices[:, 1] / b[1], vertices[:, 2] / b[2]], -1)
    body_distance = (np.abs(body).max(1) - 1.0) * b[2]
    all_distances = np.concatenate([body_distance[:, None], distances], axis=1)
    weights = np.exp(-(all_distances - all_distances.min(1, keepdims=True)) / _SKIN_WIDTH)
    return weights / weights.sum(1, keepdims=True), places


def _frames(solid: Solid) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    start, end, e1 = solid.cones[:, 0:3], solid.cones[:, 3:6], solid.cones[:, 10:13]
    length = np.linalg.norm(end - start, axis=1)
    axis = (end - start) / np.maximum(length, 1e-9)[:, None]
    return length, axis, e1, np.cross(axis, e1)


def _radii(solid: Solid, t: np.ndarray) -> np.ndarray:
    first = solid.cones[:, 6] + t * (solid.cones[:, 8] - solid.cones[:, 6])
    second = solid.cones[:, 7] + t * (solid.cones[:, 9] - solid.cones[:, 7])
    return np.stack([first, second, np.minimum(first, second)], -1)


def _places(solid: Solid, points: np.ndarray) -> np.ndarray:
    """(N, C, 4): position along each cone (0..1) and offsets from its axis in units of the local half axes."""
    length, axis, e1, e2 = _frames(solid)
    rel = points[:, None, :] - solid.cones[None, :, 0:3]
    along = np.einsum("nci,ci->nc", rel, axis)
    t = np.clip(along / np.maximum(length, 1e-9), 0.0, 1.0)
    rest = np.stack([np.einsum("nci,ci->nc", rel, e1), np.einsum("nci,ci->nc", rel, e2), along - t * length], -1)
    return np.concatenate([t[:, :, None], rest / _radii(solid, t)], axis=2)


def carried_mesh(shape: VertebraShape, level: str, spacing: float = DEFAULT_SPACING,
                 field: Callable[[np.ndarray], np.ndarray] | None = None) -> Mesh:
    """Mesh of `shape`, a sample of `level`, with the vertices and faces of the level's mean.

    `field`: what the vertices are moved onto, (N, 3) -> (N,) mm, where it is not the shape's own field alone.
    """
    template = template_mesh(level, spacing)
    weights, places = _skinning(level, spacing)
    solid, mean = shape.solid(), mean_vertebra(level).shape.solid()
    length, axis, e1, e2 = _frames(solid)
    rest = places[:, :, 1:] * _radii(solid, places[:, :, 0])
    moved = (solid.cones[None, :, 0:3] + (places[:, :, 0] * length + rest[:, :, 2])[:, :, None] * axis
             + rest[:, :, 0:1] * e1 + rest[:, :, 1:2] * e2)
    body = template.vertices * (solid.body[0:3] / mean.body[0:3])
    vertices = weights[:, 0:1] * body + np.einsum("nc,nci->ni", weights[:, 1:], moved)
    target = field or solid.field
    vertices = _onto_surface(target, vertices)
    return Mesh(_free_stuck(target, vertices, template.faces), template.faces)


def _free_stuck(field: Callable[[np.ndarray], np.ndarray], vertices: np.ndarray, faces: np.ndarray,
                tolerance: float = 0.05, rounds: int = 6) -> np.ndarray:
    """Draw vertices that found no surface (a tip wholly given way to a neighbour) back along the mesh."""
    average = None
    for _ in range(rounds):
        stuck = np.abs(field(vertices)) > tolerance
        if not stuck.any():
            break
        if average is None:
            pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
            links = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(vertices),) * 2)
            average = diags(1.0 / np.maximum(np.asarray(links.sum(1)).ravel(), 1.0)) @ links
        for _ in range(15):
            vertices[stuck] = (average @ vertices)[stuck]
        vertices[stuck] = _onto_surface(field, vertices[stuck], steps=6)
    return vertices


def _onto_surface(field: Callable[[np.ndarray], np.ndarray], vertices: np.ndarray, steps: int = 12,
                  h: float = 0.05, tolerance: float = 0.02) -> np.ndarray:
    """Newton steps onto the zero level, for the vertices that are not there yet."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    vertices = vertices.copy()
    rows = np.arange(len(vertices))
    for step in range(steps):
        values = field((vertices[rows] + h * corners[:, None]).reshape(-1, 3)).reshape(4, -1)
        gradient = np.einsum("cn,ci->ni", values, corners) / (4.0 * h)
        value = values.mean(0)
        slope = np.maximum((gradient**2).sum(1), 0.25)
        # Later steps are damped: near a crease they would jump from side to side.
        damping = 1.0 if step < 4 else 0.6
        vertices[rows] -= damping * np.clip(value / slope, -2.0, 2.0)[:, None] * gradient
        rows = rows[np.abs(value) > tolerance]
        if not len(rows):
            break
    return vertices
