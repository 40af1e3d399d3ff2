"""Where a network reads and writes on the template: nodes among the vertices, and the clusters that are its tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.clouds import farthest_points
from usx_common.errors import UsxError
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.shape_model import ShapeModel

NEIGHBOURS = 4


@dataclass(frozen=True)
class NodeSet:
    """``vertices`` (M,): the template vertices that are nodes; ``cluster`` (M,): the token of each, 0 .. T - 1.

    ``spread_rows`` (V, 4) and ``spread_weights`` (V, 4): a vertex moves as this mean of its nearest nodes does.
    ``token_rows`` (M, 3) and ``token_weights`` (M, 3): the same from the clusters' middles to the nodes.
    """

    vertices: NDArray[np.int64]
    cluster: NDArray[np.int64]
    spread_rows: NDArray[np.int64]
    spread_weights: NDArray[np.float32]
    token_rows: NDArray[np.int64]
    token_weights: NDArray[np.float32]

    @property
    def tokens(self) -> int:
        """T, the number of clusters."""
        return int(self.cluster.max()) + 1


def choose_nodes(model: ShapeModel, count: int, tokens: int) -> NodeSet:
    """``count`` nodes spread evenly over the mean of all levels, in ``tokens`` clusters. Always the same ones.

    Raises UsxError when there are not that many vertices, or more tokens than nodes.
    """
    places = model.means.mean(axis=0)
    if not 8 <= tokens <= count <= len(places):
        raise UsxError(f"{count} nodes in {tokens} clusters cannot be chosen among {len(places)} vertices: "
                       "8 <= clusters <= nodes <= vertices")
    # a thin lamina has two sides: the normal, worth some millimetres, keeps them apart
    sided = np.concatenate([places, 6.0 * vertex_normals(Mesh(places, model.faces))], axis=1)
    nodes = np.sort(farthest_points(sided, count))
    middles = nodes[farthest_points(sided[nodes], tokens)]
    spread_rows, spread_weights = _nearest(sided, sided[nodes], NEIGHBOURS)
    token_rows, token_weights = _nearest(sided[nodes], sided[middles], 3)
    return NodeSet(nodes, token_rows[:, 0], spread_rows, spread_weights, token_rows, token_weights)


def _nearest(queries: NDArray, places: NDArray, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and weights, falling with the squared distance, of the nearest places to each query."""
    distance, rows = cKDTree(places).query(queries, k=count)
    closeness = 1.0 / (distance**2 + 0.25)
    return rows.astype(np.int64), (closeness / closeness.sum(axis=1, keepdims=True)).astype(np.float32)
