"""What the examination's own errors cost: the true bones themselves, moved rigidly onto what ultrasound shows of them.

Drift of the tracking, calibration, speed of sound and breathing put the whole cloud beside the bone. Nobody who sees
only the cloud can tell, so a method that knew every shape would still be this far off.
"""

from __future__ import annotations

from collections.abc import Mapping

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


def own_points(case: Case) -> dict[str, NDArray[np.float64]]:
    """Level -> (N, 3) ultrasound points that lie nearest to its true bone, mm; levels of which enough is seen."""
    points = case.given.points[case.given.sources == SOURCE_ULTRASOUND]
    levels = [level for level in LEVELS if level in case.truth]
    gaps = np.stack([cKDTree(case.truth[level].vertices).query(points)[0] for level in levels], axis=1)
    own = {level: points[(gaps.argmin(axis=1) == index) & (gaps[:, index] < OWN_MM)]
           for index, level in enumerate(levels)}
    return {level: mine for level, mine in own.items() if len(mine) >= FEWEST}


def moved_bones(case: Case, own: Mapping[str, NDArray]) -> dict[str, Mesh]:
    """The true bones, mm, frame spine, where their `own_points` show them."""
    return {level: case.truth[level].transformed(_motion(case.truth[level], mine)) for level, mine in own.items()}


def _motion(truth: Mesh, points: NDArray) -> NDArray[np.float64]:
    return onto_points(truth.vertices, vertex_normals(truth), points, np.eye(4), SCALES_MM)
