"""What the examination's own errors cost: the true bones themselves, moved rigidly onto what ultrasound shows of them.

Drift of the tracking, calibration, speed of sound and breathing put the whole cloud beside the bone. Nobody who sees
only the cloud can tell, so a method that knew every shape would still be this far off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.levels import LEVELS, SOURCE_ULTRASOUND
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.evaluation.case import Case
from usx_completion.point_to_plane import onto_points

OWN_MM = 5.0  # farther points are not of this bone
SCALES_MM = (4.0, 3.0, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5)
FEWEST = 60


def moved_bones(case: Case) -> dict[str, Mesh]:
    """The true bones of the levels of which enough is seen, mm, frame spine, where ultrasound shows them."""
    points = case.given.points[case.given.sources == SOURCE_ULTRASOUND]
    levels = [level for level in LEVELS if level in case.truth]
    gaps = np.stack([cKDTree(case.truth[level].vertices).query(points)[0] for level in levels], axis=1)
    moved = {}
    for index, level in enumerate(levels):
        own = points[(gaps.argmin(axis=1) == index) & (gaps[:, index] < OWN_MM)]
        if len(own) >= FEWEST:
            truth = case.truth[level]
            moved[level] = truth.transformed(_motion(truth, own))
    return moved


def _motion(truth: Mesh, points: NDArray) -> NDArray[np.float64]:
    return onto_points(truth.vertices, vertex_normals(truth), points, np.eye(4), SCALES_MM)
