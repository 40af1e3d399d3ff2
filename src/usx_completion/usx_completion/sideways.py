"""Where levels are from left to right, which a lateral X-ray does not tell: by the arches that ultrasound shows.

The middle of a level's own points is a first guess; where one side of it is hidden, the guess is off by half the width
of a vertebra. The five levels stand nearly on a line, and the arches of all of them must lie on the points.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.levels import LEVELS, label_of_level
from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import Matrix, apply
from usx_completion.observation import SpineObservation
from usx_completion.shape_model import ShapeModel

FACING_BACK = 0.3  # y of a normal that ultrasound can meet
OFF_LINE_MM = 5.0  # a level farther from the line of the others than this is put onto it
LINE_SCALE_MM = 3.0
SHIFTS_MM = np.arange(-24.0, 24.1, 3.0)
FAR_MM = 6.0  # beyond, a point is of something else
MOST_POINTS = 1500


def moved_sideways(model: ShapeModel, observation: SpineObservation, poses: Mapping[str, Matrix]
                   ) -> dict[str, Matrix]:
    """Poses moved along the X-ray's normal: outliers onto the line of the others, then all alike to where the arches
    lie nearest to the points."""
    if not poses or observation.plane is None:
        return dict(poses)
    normal = observation.plane.axes[0]
    moved = {level: _moved(poses[level], step * normal) for level, step in _onto_line(observation, poses).items()}
    sides = np.concatenate([seen_side(model, LEVELS.index(level), pose)[0] for level, pose in moved.items()])
    step = _step(sides, observation.points, normal)
    return {level: _moved(pose, step * normal) for level, pose in moved.items()}


def seen_side(model: ShapeModel, index: int, pose: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places and normals of the mean vertebra's arch where it looks backwards at a pose.

    The body's back wall does so too, but taken for the arch it would pull the vertebra back by the canal's depth.
    """
    mean = apply(pose, model.means[index])
    normals = vertex_normals(Mesh(mean, model.faces))
    behind = (normals[:, 1] > FACING_BACK) & ~model.body
    return mean[behind], normals[behind]


def _onto_line(observation: SpineObservation, poses: Mapping[str, Matrix]) -> dict[str, float]:
    """Level -> how far it has to go to the line through all of them (weighted by their points), 0 when it is near."""
    assert observation.plane is not None
    places = np.stack([pose[:3, 3] for pose in poses.values()]) - observation.plane.origin
    across, along = places @ observation.plane.axes[0], places @ observation.plane.axes[2]
    counts = np.array([observation.count(label_of_level(level)) for level in poses], float)
    weights = counts.copy()
    columns = np.stack([np.ones_like(along), along], axis=1)[:, :2 if len(poses) > 2 else 1]
    for _ in range(10):
        root = np.sqrt(weights)[:, None]
        line = columns @ np.linalg.lstsq(root * columns, root[:, 0] * across, rcond=None)[0]
        weights = counts / (1.0 + ((across - line) / LINE_SCALE_MM) ** 2) + 1e-9
    return {level: float(gap) if abs(gap) > OFF_LINE_MM else 0.0
            for level, gap in zip(poses, line - across, strict=True)}


def _step(sides: NDArray, points: NDArray, normal: NDArray) -> float:
    """Which of the steps along ``normal`` brings ``sides`` (V, 3) nearest to points (N, 3), mm; the smallest of equal
    ones."""
    few = points[:: max(1, len(points) // MOST_POINTS)]
    tree = cKDTree(sides)
    order = SHIFTS_MM[np.argsort(np.abs(SHIFTS_MM), kind="stable")]
    gaps = [np.minimum(tree.query(few - step * normal, distance_upper_bound=FAR_MM)[0], FAR_MM).mean()
            for step in order]
    return float(order[int(np.argmin(gaps))])


def _moved(pose: Matrix, by: NDArray) -> Matrix:
    result = pose.copy()
    result[:3, 3] += by
    return result
