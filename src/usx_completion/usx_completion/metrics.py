"""How far a completed vertebra is from the true one: the paper's metrics and surface distances.

Definitions of CD-T, CD-P, F1 and EMD: Wen et al. (US-X Complete, arXiv 2511.15600) as coded by its authors, in units
of the left-right extent of the level's partial cloud + 30 mm. Every value is taken on 4,096 points per surface
(furthest point sampling of 40,000 area-uniform ones); EMD on 1,024 of them with exact assignment, where the authors
use an auction whose result may be off by up to 40 in the printed unit. Surface distances are exact point-to-triangle
distances in mm, from the sampled points of one surface to the other surface.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from usx_common.clouds import farthest_points
from usx_common.errors import UsxError
from usx_common.meshes import Mesh, sample_surface
from usx_completion.surface_distance import surface_distances

PARTS = ("whole", "arch", "body")
COLUMNS = ("level", "part", "assd_mm", "hd95_mm", "cd_t_e4", "f1", "emd_e4", "unit_mm", "placed_mean_assd_mm")
UNIFORM_POINTS = 40_000
SURFACE_POINTS = 4_096
EMD_POINTS = 1_024
F1_THRESHOLD = 0.01
UNIT_MARGIN_MM = 30.0
SEED = 20251115


def surface_points(mesh: Mesh, seed: int = SEED) -> NDArray[np.float64]:
    """(4096, 3) points evenly spread over the mesh, mm: furthest points of 40,000 area-uniform ones, fixed seed."""
    uniform = sample_surface(mesh, UNIFORM_POINTS, seed)
    return uniform[farthest_points(uniform, SURFACE_POINTS)]


def unit_of_partial(partial_points: NDArray) -> float:
    """Length in mm of one metric unit: left-right (x) extent of the level's partial cloud + 30 mm.

    Raises UsxError for an empty cloud.
    """
    if len(partial_points) == 0:
        raise UsxError("the partial cloud of this level is empty; its unit of length is unknown")
    x = np.asarray(partial_points)[:, 0]
    return float(x.max() - x.min() + UNIT_MARGIN_MM)


def chamfer_t(truth: NDArray, prediction: NDArray) -> float:
    """CD-T: mean squared distance truth to prediction + the reverse (units squared; not yet x1e4)."""
    to_prediction, to_truth = _directed(truth, prediction)
    return float(np.mean(to_prediction**2) + np.mean(to_truth**2))


def chamfer_p(truth: NDArray, prediction: NDArray) -> float:
    """CD-P: half the sum of the two directed mean distances (units; not yet x1e4)."""
    to_prediction, to_truth = _directed(truth, prediction)
    return float(0.5 * (np.mean(to_prediction) + np.mean(to_truth)))


def f1_score(truth: NDArray, prediction: NDArray, threshold: float = F1_THRESHOLD) -> float:
    """Harmonic mean of the shares of points nearer than ``threshold`` (units) to the other cloud; 0 when none is."""
    to_prediction, to_truth = _directed(truth, prediction)
    recall, precision = np.mean(to_prediction < threshold), np.mean(to_truth < threshold)
    return float(2.0 * recall * precision / (recall + precision)) if recall + precision > 0 else 0.0


def earth_mover(truth: NDArray, prediction: NDArray, count: int = EMD_POINTS) -> float:
    """EMD: mean distance (units) of the exact one-to-one assignment between ``count`` furthest points of each cloud.

    Clouds with fewer points are compared on as many as both have.
    """
    count = min(count, len(truth), len(prediction))
    truth = truth[farthest_points(truth, count)]
    prediction = prediction[farthest_points(prediction, count)]
    cost = cdist(truth, prediction)
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())


@dataclass(frozen=True)
class SampledSurface:
    """A mesh (mm, frame spine) and its 4,096 evaluation points (mm)."""

    mesh: Mesh
    points: NDArray[np.float64]

    @classmethod
    def of(cls, mesh: Mesh) -> SampledSurface:
        """The mesh with its points of ``surface_points``."""
        return cls(mesh, surface_points(mesh))


@dataclass(frozen=True)
class PartMetrics:
    """Metrics of one part; CD and EMD x1e4. ``nan`` where a part has no predicted points."""

    assd_mm: float
    hd95_mm: float
    cd_t_e4: float
    cd_p_e4: float
    f1: float
    emd_e4: float


def part_masks(truth: NDArray, points: NDArray) -> dict[str, NDArray[np.bool_]]:
    """Masks over ``points`` (N, 3) of whole, arch (behind the plane) and body; the plane is the mean y of ``truth``.

    Frame spine: y points posterior.
    """
    arch = points[:, 1] > truth[:, 1].mean()
    return {"whole": np.ones(len(points), dtype=bool), "arch": arch, "body": ~arch}


def compare(truth: SampledSurface, prediction: SampledSurface, unit_mm: float) -> dict[str, PartMetrics]:
    """Metrics of whole, arch and body; surfaces in frame spine, mm. Raises UsxError for a unit that is not positive.

    The plane cuts both clouds; surface distances of a part go from its points to the whole of the other surface, so
    that the cut itself adds nothing. ``hd95_mm`` is the larger of the two directed 95th percentiles.
    """
    if not unit_mm > 0:
        raise UsxError(f"the unit of length is {unit_mm} mm; it must be positive")
    truth_masks = part_masks(truth.points, truth.points)
    prediction_masks = part_masks(truth.points, prediction.points)
    to_prediction = surface_distances(truth.points, prediction.mesh)
    to_truth = surface_distances(prediction.points, truth.mesh)
    result = {}
    for part in PARTS:
        mine, theirs = truth_masks[part], prediction_masks[part]
        clouds = truth.points[mine] / unit_mm, prediction.points[theirs] / unit_mm
        result[part] = _part(clouds, to_prediction[mine], to_truth[theirs])
    return result


def level_rows(level: str, truth: Mesh, completed: Mesh, placed_mean: Mesh, unit_mm: float) -> list[dict[str, object]]:
    """The three rows (whole, arch, body) of metrics.csv for one level; keys as in ``COLUMNS``.

    All meshes in mm, frame spine; ``placed_mean`` is the mean shape merely placed, which the completion must beat.
    """
    sampled_truth, sampled = SampledSurface.of(truth), SampledSurface.of(completed)
    scores = compare(sampled_truth, sampled, unit_mm)
    baseline = mean_surface_distances(sampled_truth, SampledSurface.of(placed_mean))
    rows: list[dict[str, object]] = []
    for part in PARTS:
        score = scores[part]
        rows.append({"level": level, "part": part, "assd_mm": score.assd_mm, "hd95_mm": score.hd95_mm,
                     "cd_t_e4": score.cd_t_e4, "f1": score.f1, "emd_e4": score.emd_e4, "unit_mm": unit_mm,
                     "placed_mean_assd_mm": baseline[part]})
    return rows


def mean_surface_distances(truth: SampledSurface, prediction: SampledSurface) -> dict[str, float]:
    """Mean symmetric surface distance in mm of each part, as in ``compare`` but without the other metrics."""
    truth_masks = part_masks(truth.points, truth.points)
    prediction_masks = part_masks(truth.points, prediction.points)
    to_prediction = surface_distances(truth.points, prediction.mesh)
    to_truth = surface_distances(prediction.points, truth.mesh)
    return {part: _symmetric_mean(to_prediction[truth_masks[part]], to_truth[prediction_masks[part]]) for part in PARTS}


def write_metrics_csv(path: Path, rows: Iterable[dict[str, object]]) -> None:
    """Write metrics.csv: the header of ``COLUMNS``, numbers with four decimals."""
    lines = [",".join(COLUMNS)]
    for row in rows:
        values = (row[column] for column in COLUMNS)
        lines.append(",".join(value if isinstance(value, str) else f"{value:.4f}" for value in values))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _directed(truth: NDArray, prediction: NDArray) -> tuple[NDArray, NDArray]:
    if len(truth) == 0 or len(prediction) == 0:
        raise UsxError(f"cannot compare clouds of {len(truth)} and {len(prediction)} points")
    return cKDTree(prediction).query(truth)[0], cKDTree(truth).query(prediction)[0]


def _symmetric_mean(to_prediction: NDArray, to_truth: NDArray) -> float:
    if len(to_prediction) == 0 or len(to_truth) == 0:
        return float("nan")
    return float(0.5 * (to_prediction.mean() + to_truth.mean()))


def _part(clouds: tuple[NDArray, NDArray], to_prediction: NDArray, to_truth: NDArray) -> PartMetrics:
    truth, prediction = clouds
    if len(truth) == 0 or len(prediction) == 0:
        return PartMetrics(*([float("nan")] * 6))
    hd95 = max(np.percentile(to_prediction, 95), np.percentile(to_truth, 95))
    return PartMetrics(
        assd_mm=_symmetric_mean(to_prediction, to_truth),
        hd95_mm=float(hd95),
        cd_t_e4=1e4 * chamfer_t(truth, prediction),
        cd_p_e4=1e4 * chamfer_p(truth, prediction),
        f1=f1_score(truth, prediction),
        emd_e4=1e4 * earth_mover(truth, prediction),
    )
