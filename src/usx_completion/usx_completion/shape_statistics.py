"""From registered meshes to a statistical shape model: alignment, principal components, generalisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import Matrix, apply, invert, make_transform
from usx_completion.rigid import align, rotation_matrix, rotation_vector
from usx_completion.shape_model import ShapeModel


@dataclass(frozen=True)
class AlignedSpines:
    """Registered spines in level frames. S spines, L levels, V vertices.

    ``local`` (S, L, V, 3) vertices in the level's frame, mm; ``means`` (L, V, 3); ``level_to_spine`` (S, L, 4, 4).
    """

    local: NDArray[np.float64]
    means: NDArray[np.float64]
    level_to_spine: NDArray[np.float64]


def align_spines(registered: NDArray, body: NDArray[np.bool_], rounds: int = 4) -> AlignedSpines:
    """Generalised Procrustes alignment per level, rigid (size stays in the shape): (S, L, V, 3) in frame spine, mm.

    Each mean is turned so that its endplates are level and moved so that the body's centroid is the origin.
    """
    spines, levels = registered.shape[:2]
    means = registered[0].copy()
    poses = np.tile(np.eye(4), (spines, levels, 1, 1))
    for level in range(levels):
        mean = registered[0, level]
        for _ in range(rounds):
            moved = np.stack([apply(align(shape, mean), shape) for shape in registered[:, level]])
            mean = moved.mean(axis=0)
        means[level] = apply(upright(mean, body), mean)
        poses[:, level] = [align(means[level], shape) for shape in registered[:, level]]
    local = np.empty_like(registered)
    for spine in range(spines):
        for level in range(levels):
            local[spine, level] = apply(invert(poses[spine, level]), registered[spine, level])
    return AlignedSpines(local, means, poses)


def upright(vertices: NDArray, body: NDArray[np.bool_]) -> Matrix:
    """(4, 4) rigid transform to the level's frame: body centroid at the origin, body axis along z, y posterior.

    The body's axis joins the centres of its lower and upper thirds as its principal directions see them: the mid-plane
    between both endplates becomes horizontal about x. Rotation about y and z is left as it is.
    """
    points = vertices[body]
    centroid = points.mean(axis=0)
    centred = points - centroid
    upper, lower = centred[centred[:, 2] > 0], centred[centred[:, 2] <= 0]
    slopes = [np.polyfit(half[:, 1], half[:, 2], 1, w=np.abs(half[:, 2]))[0] for half in (upper, lower)]
    angle = -np.arctan(np.mean(slopes))
    rotation = rotation_matrix(np.array([angle, 0.0, 0.0]))
    return make_transform(rotation, -rotation @ centroid)


def build_model(aligned: AlignedSpines, faces: NDArray[np.int32], body: NDArray[np.bool_], modes: int) -> ShapeModel:
    """Pooled principal components of all levels' residuals, with each level's own standard deviations."""
    spines, levels, vertices, _ = aligned.local.shape
    residuals = (aligned.local - aligned.means).reshape(spines, levels, 3 * vertices)
    directions, values = principal_components(residuals.reshape(spines * levels, -1), modes)
    scores = residuals @ directions.T / values
    rest = residuals - (scores * values) @ directions
    rest = rest.reshape(spines, levels, vertices, 3)
    normals = np.stack([vertex_normals(Mesh(mean, faces)) for mean in aligned.means])
    residual_sd = np.sqrt(np.mean(np.einsum("slvi,lvi->slv", rest, normals) ** 2, axis=0))
    step_mean, step_sd = _moments(_steps(aligned.level_to_spine))
    tilt_mean, tilt_sd = _moments(_tilts(aligned.level_to_spine))
    return ShapeModel(
        faces=faces, means=aligned.means, modes=(directions * values[:, None]).reshape(len(values), vertices, 3),
        mode_sd=scores.std(axis=0), mode_correlation=_between_levels(scores), residual_sd=residual_sd, body=body,
        step_mean=step_mean, step_sd=step_sd, tilt_mean=tilt_mean, tilt_sd=tilt_sd,
    )


def principal_components(rows: NDArray, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal directions (K, D) and standard deviations (K,) of rows (N, D) about zero, largest first."""
    values, vectors = np.linalg.eigh(rows @ rows.T)
    order = np.argsort(values)[::-1][: min(count, len(rows) - 1)]
    order = order[values[order] > 1e-9 * max(values.max(), 1e-30)]
    directions = (vectors[:, order].T @ rows) / np.sqrt(values[order])[:, None]
    signs = np.sign(directions[np.arange(len(order)), np.abs(directions).argmax(axis=1)])
    return directions * signs[:, None], np.sqrt(values[order] / len(rows))


@dataclass(frozen=True)
class Generalisation:
    """Mean error in mm over left-out spines, for each number of modes; along normals, and vertex to vertex."""

    mode_counts: tuple[int, ...]
    vertex_mm: NDArray[np.float64]
    normal_mm: NDArray[np.float64]


def generalisation(aligned: AlignedSpines, faces: NDArray[np.int32], mode_counts: tuple[int, ...],
                   folds: int = 5) -> Generalisation:
    """Error left when spines kept out of the principal components are projected on them (k-fold by spine)."""
    spines, levels, vertices, _ = aligned.local.shape
    residuals = (aligned.local - aligned.means).reshape(spines, levels, 3 * vertices)
    normals = np.stack([vertex_normals(Mesh(mean, faces)) for mean in aligned.means])
    folds = min(folds, spines)
    vertex, normal = np.zeros((folds, len(mode_counts))), np.zeros((folds, len(mode_counts)))
    for fold in range(folds):
        held = np.arange(spines) % folds == fold
        directions, _ = principal_components(residuals[~held].reshape(-1, 3 * vertices), max(mode_counts))
        scores = residuals[held] @ directions.T
        for column, count in enumerate(mode_counts):
            rest = residuals[held] - scores[..., :count] @ directions[:count]
            rest = rest.reshape(-1, levels, vertices, 3)
            vertex[fold, column] = np.linalg.norm(rest, axis=-1).mean()
            normal[fold, column] = np.abs(np.einsum("slvi,lvi->slv", rest, normals)).mean()
    return Generalisation(mode_counts, vertex.mean(axis=0), normal.mean(axis=0))


def compactness(model: ShapeModel) -> NDArray[np.float64]:
    """(K,) share of the modelled variance that the first 1 .. K modes hold."""
    variance = np.sum(model.modes.reshape(model.mode_count, -1) ** 2, axis=1) * np.mean(model.mode_sd**2, axis=0)
    return np.cumsum(variance) / variance.sum()


def _between_levels(scores: NDArray) -> NDArray[np.float64]:
    """(K,) mean correlation of a mode's coefficient between two levels of the same spine, within 0 .. 0.95."""
    levels = scores.shape[1]
    result = []
    for mode in range(scores.shape[2]):
        matrix = np.corrcoef(scores[:, :, mode].T)
        result.append(np.nanmean(matrix[np.triu_indices(levels, 1)]))
    return np.clip(np.nan_to_num(result), 0.0, 0.95)


def _steps(poses: NDArray) -> NDArray[np.float64]:
    """(S, L - 1, 6) rotation vector and translation of each next caudal level in the frame of the level above."""
    steps = np.zeros((poses.shape[0], poses.shape[1] - 1, 6))
    for spine, chain in enumerate(poses):
        for level in range(len(chain) - 1):
            relative = invert(chain[level]) @ chain[level + 1]
            steps[spine, level] = np.r_[rotation_vector(relative[:3, :3]), relative[:3, 3]]
    return steps


def _tilts(poses: NDArray) -> NDArray[np.float64]:
    return np.stack([[rotation_vector(pose[:3, :3]) for pose in chain] for chain in poses])


def _moments(values: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return values.mean(axis=0), values.std(axis=0)
