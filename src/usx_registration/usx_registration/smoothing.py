"""Smoothing of class beliefs along a surface: labels change at gaps, steps and creases, not within a smooth patch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, diags, identity
from scipy.sparse.linalg import cg
from scipy.spatial import cKDTree

Array = NDArray[np.float64]

NEIGHBOURS = 12
SPACING_FACTOR = 1.3
CREASE = 0.15
STEP_MM = 0.8


def smooth_along_surface(points: Array, normals: Array, belief: Array, data_weight: float = 0.5) -> Array:
    """(N, L) beliefs spread over the points (N, 3), mm, with unit normals (N, 3).

    Solves (data_weight I + Laplacian) x = data_weight belief, the random walk with restart from the given belief
    (Grady, IEEE TPAMI 2006); an edge counts less with its length, with the angle of the normals and with the step
    off the tangent plane. ``data_weight``: small is smooth.
    """
    if len(points) <= NEIGHBOURS:
        return belief
    laplacian = surface_laplacian(points, normals)
    system = laplacian + data_weight * identity(len(points))
    columns = [cg(system, data_weight * belief[:, i], rtol=1e-4, maxiter=300)[0] for i in range(belief.shape[1])]
    return np.stack(columns, axis=1)


def surface_laplacian(points: Array, normals: Array) -> coo_matrix:
    """(N, N) sparse graph Laplacian of the neighbourhood graph."""
    count = len(points)
    distance, index = cKDTree(points).query(points, k=NEIGHBOURS + 1)
    spacing = SPACING_FACTOR * float(np.median(distance[:, 1]))
    first = np.repeat(np.arange(count), NEIGHBOURS)
    second = index[:, 1:].ravel()
    bend = 1.0 - np.abs(np.einsum("ni,ni->n", normals[first], normals[second]))
    edge = points[second] - points[first]
    step = np.abs(np.einsum("ni,ni->n", edge, normals[first] + normals[second])) / 2.0
    weight = np.exp(-0.5 * (distance[:, 1:].ravel() / spacing) ** 2 - bend / CREASE - 0.5 * (step / STEP_MM) ** 2)
    graph = coo_matrix((weight, (first, second)), shape=(count, count)).tocsr()
    graph = (graph + graph.T) / 2.0
    return diags(np.asarray(graph.sum(axis=1)).ravel()) - graph
