"""What the examination does not tell of a shape: the shape model of real people, told without error what is seen.

Its modes and its smooth field are a Gaussian prior on a vertebra. Told how far along its normal every vertex lies that
ultrasound saw, and every one that is outermost in the X-ray, its mean is the most likely whole. Methods have points
without names and with noise instead, and do not know how the bone lies; but they see all levels at once, which here
tell nothing of each other. Linear: the pose is one of the unknowns, about where the whole true bone fits best.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from usx_common.errors import UsxError
from usx_common.levels import LEVELS, SOURCE_XRAY, label_of_level
from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import apply, invert
from usx_completion.correspondence import Template, register
from usx_completion.evaluation.case import Case
from usx_completion.evaluation.shape_spread import packaged_model
from usx_completion.outline import fit_plane, silhouette
from usx_completion.rigid import align
from usx_completion.shape_model import ShapeModel

SEEN_MM = 1.5  # a vertex was seen when a point is that near
TOLD_MM = 0.3  # standard deviation of what is told
POSE_MM = 5.0  # of the pose's three shifts and, 30 mm off, turns


def told_exactly(case: Case, bones: Mapping[str, Mesh], own: Mapping[str, NDArray]) -> dict[str, Mesh]:
    """The most likely whole of each of the ``bones`` (mm, frame spine), told what of it its ``own`` points (level ->
    (N, 3)) and the case's X-ray show."""
    xray = case.given.sources == SOURCE_XRAY
    across = _across(case.given.points[xray])
    shown = set(case.given.labels[xray].tolist())
    return {level: _completed(level, _corresponding(level, bone), cKDTree(own[level]),
                              across if label_of_level(level) in shown else None) for level, bone in bones.items()}


def _across(xray: NDArray) -> NDArray[np.float64] | None:
    """(2, 3) axes of the X-ray's plane; None without one."""
    try:
        return fit_plane(xray).axes[1:]
    except UsxError:
        return None


def _corresponding(level: str, bone: Mesh) -> NDArray[np.float64]:
    """(V, 3) vertices of the shape model's template on the bone."""
    model = packaged_model()
    if np.array_equal(bone.faces, model.faces):
        return bone.vertices
    return register(_templates()[LEVELS.index(level)], bone)


@lru_cache(maxsize=1)
def _templates() -> list[Template]:
    model = packaged_model()
    return [Template(Mesh(mean, model.faces)) for mean in model.means]


def _completed(level: str, bone: NDArray, points: cKDTree, across: NDArray | None) -> Mesh:
    model = packaged_model()
    index = LEVELS.index(level)
    mean = model.means[index]
    to_spine = align(mean, bone)
    local = apply(invert(to_spine), bone)
    normals = vertex_normals(Mesh(mean, model.faces))
    rows = np.flatnonzero(points.query(bone)[0] < SEEN_MM)
    directions = normals[rows]
    if across is not None:
        body = np.flatnonzero(model.xray_bodies[index])
        rim = body[silhouette(bone[body] @ across.T)]
        in_plane = across @ to_spine[:3, :3]
        facing = normals[rim] @ in_plane.T @ in_plane
        rows = np.concatenate([rows, rim])
        directions = np.concatenate([directions, facing / np.linalg.norm(facing, axis=1, keepdims=True)])
    told = np.einsum("ri,ri->r", (local - mean)[rows], directions)
    return Mesh(apply(to_spine, mean + _most_likely(model, index, rows, directions, told)), model.faces)


def _most_likely(model: ShapeModel, index: int, rows: NDArray, directions: NDArray, told: NDArray
                 ) -> NDArray[np.float64]:
    """(V, 3) mm: the prior's mean displacement, when ``rows`` go as far as they are ``told`` along ``directions``."""
    mean, spread = model.means[index], model.spread
    scaled = model.modes * (model.mode_sd[index] * spread.mode_scale[index])[:, None, None]
    columns = np.concatenate([scaled, POSE_MM * _motions(mean)])
    seen = np.einsum("kri,ri->rk", columns[:, rows], directions)

    def field(far: NDArray) -> NDArray[np.float64]:
        return spread.process_sd_mm[index] ** 2 * sum(
            (share * np.exp(-0.5 * far / width**2)
             for share, width in zip(spread.kernel_share, spread.kernel_width_mm, strict=True)), np.zeros_like(far))

    covariance = (field(cdist(mean[rows], mean[rows], "sqeuclidean")) * (directions @ directions.T)
                  + seen @ seen.T + TOLD_MM**2 * np.eye(len(rows)))
    weights = cho_solve(cho_factor(covariance, lower=True), told)
    smooth = field(cdist(mean, mean[rows], "sqeuclidean")) @ (weights[:, None] * directions)
    return smooth + np.einsum("kvi,k->vi", columns, seen.T @ weights)


def _motions(points: NDArray) -> NDArray[np.float64]:
    """(6, V, 3) shifts along the axes by one, turns about them by one 30 mm off."""
    centred = points - points.mean(axis=0)
    shifts = [np.broadcast_to(axis, points.shape) for axis in np.eye(3)]
    return np.stack([*shifts, *(np.cross(axis, centred) / 30.0 for axis in np.eye(3))])
