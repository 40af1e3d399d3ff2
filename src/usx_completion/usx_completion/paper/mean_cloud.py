"""The least that a network must beat: one and the same cloud for every vertebra of a level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from usx_common.meshes import Mesh
from usx_completion.data.dataset import Dataset, Extras
from usx_completion.data.sampling_points import even_surface_points, farthest_points_fast
from usx_completion.metrics import chamfer_t

CANDIDATES = 12  # of the most central sample, where there is no correspondence to take a mean of
SURPLUS_SEED = 0


def mean_clouds(data: Dataset, count: int) -> dict[int, NDArray[np.float64]]:
    """Label -> (count, 3) normalised: the mean vertebra of a level's samples, each in its own normalised frame.

    Without template vertices it is the most central of a few of the level's samples.
    """
    means = {}
    for label in np.unique(data.labels):
        rows = data.labels == label
        level = data.chosen(rows)
        if level.extras is not None and level.extras.vertices is not None and level.extras.faces is not None:
            mesh = Mesh(_normalised_vertices(level.extras).mean(axis=0), level.extras.faces)
            means[int(label)] = even_surface_points(mesh, count, SURPLUS_SEED)
        else:
            means[int(label)] = _thin(_most_central(level.complete[:CANDIDATES]), count)
    return means


def _normalised_vertices(extras: Extras) -> NDArray[np.float64]:
    assert extras.vertices is not None
    to_normalised = np.linalg.inv(extras.normalised_to_spine)
    return extras.vertices @ to_normalised[:, :3, :3].transpose(0, 2, 1) + to_normalised[:, None, :3, 3]


def _most_central(clouds: NDArray) -> NDArray[np.float64]:
    thin = [_thin(cloud, 512) for cloud in clouds]
    costs = [sum(chamfer_t(one, other) for other in thin) for one in thin]
    return clouds[int(np.argmin(costs))]


def _thin(cloud: NDArray, count: int) -> NDArray[np.float64]:
    return cloud[farthest_points_fast(cloud, count)] if len(cloud) > count else cloud
