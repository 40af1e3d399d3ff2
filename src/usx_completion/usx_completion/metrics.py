"""How far a completed vertebra is from the true one: the paper's metrics and surface distances.

Definitions of CD-T, CD-P, F1 and EMD: Wen et al. (US-X Complete, arXiv 2511.15600) as coded by its authors, in units
of the left-right extent of the level's partial cloud + 30 mm. Every value is taken on 4,096 points per surface
(furthest point sampling of 40,000 area-uniform ones); EMD on 1,024 of them with exact assignment, where the authors
use an auction whose result may be off by up to 40 in the printed unit. Surface distances are exact point-to-triangle
distances in mm, from the sampled points of one surface to the other surface. A prediction may be a bare cloud: then
the distances from the truth go to its points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.clouds import estimate_normals, finite_rows
from usx_common.errors import UsxError
from usx_common.meshes import Mesh, sample_surface
from usx_completion.cloud_metrics import (
    F1_THRESHOLD,
    Nearest,
    chamfer_p,
    chamfer_t,
    density_aware_chamfer,
    f1_score,
)
from usx_completion.data.sampling_points import farthest_points_fast
from usx_completion.earth_mover import EMD_POINTS, earth_mover, earth_mover_by_auction
from usx_completion.surface_distance import nearest_faces

__all__ = ["COLUMNS", "EMD_POINTS", "F1_THRESHOLD", "PARTS", "Nearest", "PartMetrics", "SampledCloud",
           "SampledSurface", "chamfer_p", "chamfer_t", "compare", "coverage", "density_aware_chamfer", "earth_mover",
           "earth_mover_by_auction", "f1_score", "level_rows", "mean_surface_distances", "part_masks",
           "sampled", "surface_points", "unit_of_partial", "write_metrics_csv"]

PARTS = ("whole", "arch", "body")
COLUMNS = ("level", "part", "assd_mm", "hd95_mm", "cd_t_e4", "f1", "emd_e4", "unit_mm", "placed_mean_assd_mm")
UNIFORM_POINTS = 40_000
SURFACE_POINTS = 4_096
UNIT_MARGIN_MM = 30.0
SEED = 20251115


def surface_points(mesh: Mesh, seed: int = SEED) -> NDArray[np.float64]:
    """(4096, 3) points evenly spread over the mesh, mm: furthest points of 40,000 area-uniform ones, fixed seed."""
    uniform = sample_surface(mesh, UNIFORM_POINTS, seed)
    return uniform[farthest_points_fast(uniform, SURFACE_POINTS)]


def unit_of_partial(partial_points: NDArray) -> float:
    """Length in mm of one metric unit: left-right (x) extent of the level's partial cloud + 30 mm.

    Raises UsxError for an empty cloud.
    """
    if len(partial_points) == 0:
        raise UsxError("the partial cloud of this level is empty; its unit of length is unknown")
    x = np.asarray(partial_points)[:, 0]
    return float(x.max() - x.min() + UNIT_MARGIN_MM)


@dataclass(frozen=True)
class SampledSurface:
    """A mesh (mm, frame spine) and its 4,096 evaluation points (mm)."""

    mesh: Mesh
    points: NDArray[np.float64]

    @classmethod
    def of(cls, mesh: Mesh) -> SampledSurface:
        """The mesh with its points of ``surface_points``."""
        return cls(mesh, surface_points(mesh))

    @cached_property
    def normals(self) -> NDArray[np.float64]:
        """(N, 3) unit normals of the surface at its points."""
        return self.nearest(self.points)[1]

    def nearest(self, points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) distances in mm of points (N, 3) to the surface, and its unit normals (N, 3) at the nearest places."""
        distances, faces = nearest_faces(points, self.mesh)
        corners = self.mesh.vertices[self.mesh.faces[faces]]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return distances, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)


@dataclass(frozen=True)
class SampledCloud:
    """A prediction without faces: at most 4,096 ``points`` (N, 3) mm, frame spine; distances to it go to points."""

    points: NDArray[np.float64]

    @classmethod
    def of(cls, points: NDArray) -> SampledCloud:
        """The cloud, or 4,096 furthest points of a larger one.

        Raises UsxError for fewer than 16 points, another shape, or numbers that are not finite.
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) < 16:
            raise UsxError(f"a predicted cloud of shape {points.shape} cannot be compared; it must be (N, 3), N >= 16")
        if not finite_rows(points).all():
            raise UsxError("the predicted cloud holds numbers that are not finite")
        return cls(points if len(points) <= SURFACE_POINTS else points[farthest_points_fast(points, SURFACE_POINTS)])

    @cached_property
    def normals(self) -> NDArray[np.float64]:
        """(N, 3) unit normals of either sign, by principal components of 16 neighbours."""
        return estimate_normals(self.points)

    def nearest(self, points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) distances in mm of points (N, 3) to the nearest of the cloud, and that one's normals (N, 3)."""
        distances, index = cKDTree(self.points).query(points)
        return distances, self.normals[index]


def sampled(prediction: Mesh | NDArray) -> SampledSurface | SampledCloud:
    """A predicted mesh or cloud (N, 3), mm, ready to be compared. Raises UsxError for one that cannot be."""
    if isinstance(prediction, Mesh):
        if not finite_rows(prediction.vertices).all():
            raise UsxError("the predicted mesh has vertices that are not finite numbers")
        return SampledSurface.of(prediction)
    return SampledCloud.of(prediction)


@dataclass(frozen=True)
class PartMetrics:
    """Metrics of one part; CD and EMD x1e4; ``dcd`` and ``normal_consistency`` 0 .. 1. ``nan`` where a part has no
    predicted points. ``within_sigma``, ``within_two_sigma``: see `coverage`; nan where a method tells no sigma."""

    assd_mm: float
    hd95_mm: float
    cd_t_e4: float
    cd_p_e4: float
    f1: float
    emd_e4: float
    dcd: float
    normal_consistency: float
    within_sigma: float = float("nan")
    within_two_sigma: float = float("nan")


def part_masks(truth: NDArray, points: NDArray) -> dict[str, NDArray[np.bool_]]:
    """Masks over ``points`` (N, 3) of whole, arch (behind the plane) and body; the plane is the mean y of ``truth``.

    Frame spine: y points posterior.
    """
    arch = points[:, 1] > truth[:, 1].mean()
    return {"whole": np.ones(len(points), dtype=bool), "arch": arch, "body": ~arch}


def coverage(truth: SampledSurface, vertices: NDArray, sigma: NDArray) -> dict[str, tuple[float, float]]:
    """Part -> shares of the predicted ``vertices`` (V, 3) mm whose distance to the true surface is within one and two
    of their ``sigma`` (V,) mm; 0.683 and 0.954 where the errors are normal and sigma is their spread."""
    scaled = truth.nearest(vertices)[0] / np.maximum(sigma, 1e-9)
    masks = part_masks(truth.points, vertices)
    return {part: (_share(scaled[mask] <= 1.0), _share(scaled[mask] <= 2.0)) for part, mask in masks.items()}


def _share(agrees: NDArray) -> float:
    return float(agrees.mean()) if len(agrees) else float("nan")


@dataclass(frozen=True)
class _Directed:
    """From one side's points to the other side: distances (N,) mm, and |cosine| (N,) between the normals there."""

    distance: NDArray[np.float64]
    agreement: NDArray[np.float64]

    @classmethod
    def of(cls, source: SampledSurface | SampledCloud, target: SampledSurface | SampledCloud) -> _Directed:
        distance, normals = target.nearest(source.points)
        return cls(distance, np.abs(np.einsum("ni,ni->n", source.normals, normals)))

    def chosen(self, rows: NDArray[np.bool_]) -> _Directed:
        return _Directed(self.distance[rows], self.agreement[rows])


def compare(truth: SampledSurface, prediction: SampledSurface | SampledCloud, unit_mm: float,
            emd: bool = True) -> dict[str, PartMetrics]:
    """Metrics of whole, arch and body; surfaces in frame spine, mm. Raises UsxError for a unit that is not positive.

    The plane cuts both clouds; surface distances of a part go from its points to the whole of the other surface, so
    that the cut itself adds nothing. ``hd95_mm`` is the larger of the two directed 95th percentiles.
    ``normal_consistency``: mean |cosine| between the normals of a point and of the nearest place on the other surface,
    both ways (Mescheder et al., Occupancy Networks, CVPR 2019). Without ``emd`` that one, the slowest, is nan.
    """
    if not unit_mm > 0:
        raise UsxError(f"the unit of length is {unit_mm} mm; it must be positive")
    truth_masks = part_masks(truth.points, truth.points)
    prediction_masks = part_masks(truth.points, prediction.points)
    there, back = _Directed.of(truth, prediction), _Directed.of(prediction, truth)
    result = {}
    for part in PARTS:
        mine, theirs = truth_masks[part], prediction_masks[part]
        clouds = truth.points[mine] / unit_mm, prediction.points[theirs] / unit_mm
        result[part] = _part(clouds, there.chosen(mine), back.chosen(theirs), emd)
    return result


def level_rows(level: str, truth: Mesh, completed: Mesh, placed_mean: Mesh, unit_mm: float) -> list[dict[str, object]]:
    """The three rows (whole, arch, body) of metrics.csv for one level; keys as in ``COLUMNS``.

    All meshes in mm, frame spine; ``placed_mean`` is the mean shape merely placed, which the completion must beat.
    """
    sampled_truth = SampledSurface.of(truth)
    scores = compare(sampled_truth, SampledSurface.of(completed), unit_mm)
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
    to_prediction, to_truth = prediction.nearest(truth.points)[0], truth.nearest(prediction.points)[0]
    return {part: _symmetric_mean(to_prediction[truth_masks[part]], to_truth[prediction_masks[part]]) for part in PARTS}


def write_metrics_csv(path: Path, rows: Iterable[dict[str, object]]) -> None:
    """Write metrics.csv: the header of ``COLUMNS``, numbers with four decimals."""
    lines = [",".join(COLUMNS)]
    for row in rows:
        values = (row[column] for column in COLUMNS)
        lines.append(",".join(value if isinstance(value, str) else f"{value:.4f}" for value in values))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _symmetric_mean(to_prediction: NDArray, to_truth: NDArray) -> float:
    if len(to_prediction) == 0 or len(to_truth) == 0:
        return float("nan")
    return float(0.5 * (to_prediction.mean() + to_truth.mean()))


def _part(clouds: tuple[NDArray, NDArray], there: _Directed, back: _Directed, emd: bool) -> PartMetrics:
    truth, prediction = clouds
    if len(truth) == 0 or len(prediction) == 0:
        return PartMetrics(*([float("nan")] * len(fields(PartMetrics))))
    hd95 = max(np.percentile(there.distance, 95), np.percentile(back.distance, 95))
    nearest = Nearest.of(truth, prediction)
    return PartMetrics(
        assd_mm=_symmetric_mean(there.distance, back.distance),
        hd95_mm=float(hd95),
        cd_t_e4=1e4 * nearest.chamfer_t,
        cd_p_e4=1e4 * nearest.chamfer_p,
        f1=nearest.f1(),
        emd_e4=1e4 * earth_mover(truth, prediction) if emd else float("nan"),
        dcd=nearest.density_aware(),
        normal_consistency=_symmetric_mean(there.agreement, back.agreement),
    )
