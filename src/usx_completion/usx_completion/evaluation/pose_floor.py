"""What the examination's own errors cost: the true bones themselves, moved rigidly onto what ultrasound shows of them.

Drift of the tracking, calibration, speed of sound and breathing put the whole cloud beside the bone. Nobody who sees
only the cloud can tell, so a method that knew every shape would still be this far off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.levels import LEVELS, SOURCE_ULTRASOUND
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.evaluation.case import Case
from usx_completion.metrics import PARTS, SampledSurface, mean_surface_distances
from usx_completion.point_to_plane import onto_points

OWN_MM = 5.0  # farther points are not of this bone
SCALES_MM = (4.0, 3.0, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5)
FEWEST = 60


@dataclass(frozen=True)
class FloorRow:
    """``assd_mm``: part -> mean symmetric surface distance, mm, of a true bone that was moved, to where it is."""

    dataset: str
    level: str
    assd_mm: dict[str, float]


def floor_of(case: Case) -> list[FloorRow]:
    """Rows of the levels of which enough is seen."""
    points = case.given.points[case.given.sources == SOURCE_ULTRASOUND]
    levels = [level for level in LEVELS if level in case.truth]
    gaps = np.stack([cKDTree(case.truth[level].vertices).query(points)[0] for level in levels], axis=1)
    rows = []
    for index, level in enumerate(levels):
        own = points[(gaps.argmin(axis=1) == index) & (gaps[:, index] < OWN_MM)]
        if len(own) >= FEWEST:
            truth = case.truth[level]
            moved = SampledSurface.of(truth.transformed(_motion(truth, own)))
            rows.append(FloorRow(case.dataset, level, mean_surface_distances(SampledSurface.of(truth), moved)))
    return rows


def _motion(truth: Mesh, points: NDArray) -> NDArray[np.float64]:
    return onto_points(truth.vertices, vertex_normals(truth), points, np.eye(4), SCALES_MM)


def floor_table(rows: Sequence[FloorRow]) -> list[list[str]]:
    """Lines of a dataset, its number of bones, and arch, body and whole in mm."""
    lines = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        mine = [row.assd_mm for row in rows if row.dataset == dataset]
        lines.append([dataset, str(len(mine)), *(f"{np.nanmean([row[part] for row in mine]):.2f}"
                                                 for part in ("arch", "body", PARTS[0]))])
    return lines
