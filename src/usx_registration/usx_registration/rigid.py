"""Rigid registration of an ultrasound bone cloud to a bone surface: robust point-to-plane ICP from many starts.

Point-to-plane ICP: Chen and Medioni, Image and Vision Computing 1992; the Geman-McClure weight with a scale that
shrinks step by step: graduated non-convexity (Blake and Zisserman 1987; Yang et al., IEEE RA-L 2020). Ultrasound
points without a partner (soft tissue, clutter) lose their weight instead of pulling the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from usx_common import transforms
from usx_common.clouds import voxel_downsample
from usx_registration.surfaces import BadSurface, Surface

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RigidSettings:
    """Starts are shifted along the spine by ``shifts`` (mm). Scales are those of the robust weight, mm, one iteration
    each at least; ``inlier`` (mm) tells a matched point; ``level`` (mm) is the shift from which two results differ
    by a level rather than by noise; ``free``: which of the rotations about and the shifts along the target's axes
    may change."""

    shifts: tuple[float, ...] = (0.0, -12.0, 12.0, -24.0, 24.0, -36.0, 36.0)
    coarse_scales: tuple[float, ...] = (14.0, 12.0, 10.0, 8.0, 8.0, 6.0, 6.0, 5.0, 4.0, 4.0, 3.0, 3.0)
    fine_scales: tuple[float, ...] = (4.0, 3.0, 2.5, 2.0, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5)
    coarse_points: int = 1200
    fine_points: int = 6000
    inlier: float = 2.0
    level: float = 15.0
    finalists: int = 3
    free: tuple[bool, ...] = (True,) * 6


@dataclass(frozen=True)
class RigidResult:
    """``source_to_target`` (4, 4) mm; distances are those of all source points to the target surface.

    ``residuals``: (M,) mm, point-to-plane distances of the inliers; ``inliers``: (N,) mask over the source points;
    ``cost``: mean squared distance, truncated at ``inlier``, mm2; ``runner_up``: cost of the best result at least a
    level away divided by ``cost`` (inf when there is none); ``shift``: mm along the spine from the initial guess;
    ``covariance``: (6, 6) of (rotation vector in rad, translation in mm) about ``pivot`` (3,) in the target frame.
    """

    source_to_target: Array
    residuals: Array
    inliers: NDArray[np.bool_]
    cost: float
    runner_up: float
    shift: float
    covariance: Array
    pivot: Array

    @property
    def overlap(self) -> float:
        """Share of the source points that lie on the target surface."""
        return float(self.inliers.mean())

    @property
    def median(self) -> float:
        """Median residual of the inliers, mm."""
        return float(np.median(self.residuals)) if len(self.residuals) else float("inf")

    @property
    def p95(self) -> float:
        """95th percentile of the inliers' residuals, mm."""
        return float(np.percentile(self.residuals, 95)) if len(self.residuals) else float("inf")


def register(points: Array, target: Surface, initial: Array, cranial: Array,
             settings: RigidSettings = RigidSettings(), starts: list[Array] | None = None) -> RigidResult:
    """Register ``points`` (N, 3), mm, to ``target``, from the guess ``initial`` (source to target, 4x4, mm).

    ``cranial``: (3,) direction of the spine in the target frame, along which the starts are spread so that a guess
    that slipped by a level is found out; or the ``starts`` themselves. Deterministic. Raises
    BadSurface for fewer than 50 points.
    """
    if len(points) < 50:
        raise BadSurface(f"{len(points)} ultrasound points are too few to register; 50 or more are needed")
    coarse = spread(points, settings.coarse_points)
    candidates = []
    if starts is None:
        starts = [transforms.make_transform(np.eye(3), np.asarray(cranial) * shift) @ initial
                  for shift in settings.shifts]
    for start in starts:
        pose = align(coarse, target, start, settings.coarse_scales, settings.free)
        candidates.append((truncated_cost(coarse, target, pose, settings.inlier), pose))
    finalists = _distinct(candidates, points.mean(axis=0), settings)
    refined = [refine(points, target, pose, settings) for _, pose in finalists]
    refined.sort(key=lambda item: item[0])
    return _result(points, target, initial, np.asarray(cranial), refined, settings)


def update(points: Array, target: Surface, current: Array, cranial: Array,
           settings: RigidSettings = RigidSettings()) -> RigidResult:
    """Follow up ``register`` with more points, from its result: the fine stage alone. Same arguments and errors."""
    if len(points) < 50:
        raise BadSurface(f"{len(points)} ultrasound points are too few to register; 50 or more are needed")
    return _result(points, target, current, np.asarray(cranial),
                   [refine(points, target, current, settings)], settings)


def spread(points: Array, count: int) -> Array:
    """About ``count`` points spread evenly over the cloud: thinned by voxels, then every n-th of the sorted rest."""
    thin = voxel_downsample(points, 1.5) if len(points) > count else points
    if len(thin) <= count:
        return thin
    return thin[np.linspace(0, len(thin) - 1, count).round().astype(int)]


def refine(points: Array, target: Surface, pose: Array, settings: RigidSettings) -> tuple[float, Array]:
    """(truncated cost in mm2, pose) after the fine stage."""
    fine = spread(points, settings.fine_points)
    pose = align(fine, target, pose, settings.fine_scales, settings.free)
    return truncated_cost(fine, target, pose, settings.inlier), pose


def align(points: Array, target: Surface, pose: Array, scales: tuple[float, ...],
          free: tuple[bool, ...] = (True,) * 6) -> Array:
    """One Gauss-Newton step of weighted point-to-plane ICP per scale; returns the new source-to-target pose.

    ``free``: as in RigidSettings; rotations are about the mean of the moved points.
    """
    unknown = np.flatnonzero(free)
    for scale in scales:
        moved = transforms.apply(pose, points)
        distance, index = target.tree.query(moved)
        weights = geman_mcclure(distance, scale)
        pivot = moved.mean(axis=0)
        normals = target.normals[index]
        rows = np.hstack([np.cross(moved - pivot, normals), normals])
        wanted = np.einsum("ni,ni->n", target.points[index] - moved, normals)
        step = np.zeros(6)
        step[unknown] = _solve(rows[:, unknown], wanted, weights)
        pose = _moved_about(pivot, step) @ pose
    return pose


def geman_mcclure(distance: Array, scale: float) -> Array:
    """(N,) weights in 0 .. 1 of distances (N,) in mm."""
    return np.asarray(1.0 / (1.0 + (distance / scale) ** 2) ** 2)


def truncated_cost(points: Array, target: Surface, pose: Array, limit: float) -> float:
    """Mean over the points of min(distance, limit)^2 to the target surface, mm2."""
    distance, _ = target.tree.query(transforms.apply(pose, points), distance_upper_bound=limit)
    return float(np.mean(np.minimum(distance, limit) ** 2))


def _solve(rows: Array, wanted: Array, weights: Array) -> Array:
    """Weighted least squares with a trace of damping, so that a direction without support stays put."""
    normal = rows.T @ (weights[:, None] * rows)
    normal += 1e-6 * np.diag(np.diag(normal)) + 1e-9 * np.eye(rows.shape[1])
    return np.asarray(np.linalg.solve(normal, rows.T @ (weights * wanted)))


def _moved_about(pivot: Array, step: Array) -> Array:
    rotation = Rotation.from_rotvec(step[:3]).as_matrix()
    return transforms.make_transform(rotation, pivot - rotation @ pivot + step[3:6])


def _distinct(candidates: list[tuple[float, Array]], middle: Array,
              settings: RigidSettings) -> list[tuple[float, Array]]:
    """The cheapest candidates that put the middle of the cloud at different places."""
    chosen: list[tuple[float, Array]] = []
    for cost, pose in sorted(candidates, key=lambda item: item[0]):
        place = transforms.apply(pose, middle)
        if all(np.linalg.norm(place - transforms.apply(other, middle)) > 5.0 for _, other in chosen):
            chosen.append((cost, pose))
        if len(chosen) == settings.finalists:
            break
    return chosen


def _result(points: Array, target: Surface, initial: Array, cranial: Array, refined: list[tuple[float, Array]],
            settings: RigidSettings) -> RigidResult:
    cost, pose = refined[0]
    middle = points.mean(axis=0)
    place = transforms.apply(pose, middle)
    rivals = [other for other, rival in refined[1:]
              if np.linalg.norm(transforms.apply(rival, middle) - place) > settings.level]
    moved = transforms.apply(pose, points)
    distance, index = target.tree.query(moved)
    inliers = distance <= settings.inlier
    offsets = np.einsum("ni,ni->n", target.points[index] - moved, target.normals[index])
    return RigidResult(
        source_to_target=transforms.nearest_rigid(pose), residuals=np.abs(offsets[inliers]), inliers=inliers,
        cost=cost, runner_up=min(rivals) / max(cost, 1e-9) if rivals else float("inf"),
        shift=float((place - transforms.apply(initial, middle)) @ cranial),
        covariance=_covariance(moved[inliers], target.normals[index[inliers]], offsets[inliers], place),
        pivot=place)


def _covariance(points: Array, normals: Array, offsets: Array, pivot: Array, correlated: float = 3.0) -> Array:
    """(6, 6) covariance of the pose, from the residuals' robust variance and the normal equations.

    Neighbouring ultrasound points share their error, so points within a cube of ``correlated`` mm count as one.
    """
    if len(points) < 12:
        return np.full((6, 6), np.inf)
    variance = (1.4826 * float(np.median(np.abs(offsets)))) ** 2
    independent = len(voxel_downsample(points, correlated)) / len(points)
    rows = np.hstack([np.cross(points - pivot, normals), normals])
    information = independent * rows.T @ rows + 1e-9 * np.eye(6)
    return np.asarray(max(variance, 1e-6) * np.linalg.inv(information))
