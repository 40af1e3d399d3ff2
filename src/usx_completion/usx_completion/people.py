"""Statistics of registered vertebrae of people who each give some levels only, with weights.

One row is one vertebra. A row counts in its level's mean and in the modes by two weights: the mean of many people
counts as many in the mean, and not at all in the modes, because the spread of those people is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import apply, invert
from usx_completion.rigid import align
from usx_completion.shape_statistics import upright


@dataclass(frozen=True)
class People:
    """N registered vertebrae of V corresponding vertices.

    ``shapes`` (N, V, 3) mm, in the frame each was read in; ``levels`` (N,) 0..4; ``subjects`` (N,) number of the
    person, mirrored copies included; ``copies`` (N,): 0 as read, 1 mirrored; ``groups`` (N,): 0 learned from, 1
    generated (with means of their own); ``mean_weights`` and ``mode_weights`` (N,).
    """

    shapes: NDArray[np.float64]
    levels: NDArray[np.int64]
    subjects: NDArray[np.int64]
    copies: NDArray[np.int64]
    groups: NDArray[np.int64]
    mean_weights: NDArray[np.float64]
    mode_weights: NDArray[np.float64]

    def rows(self, chosen: NDArray) -> People:
        """Only the rows that a mask or an index names."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Statistics:
    """``means`` (L, V, 3) mm in level frames (NaN for a level without rows); ``directions`` (K, 3 V) orthonormal and
    ``values`` (K,) their standard deviations; ``local`` (N, V, 3) the rows in their level's frame, and ``poses``
    (N, 4, 4) from there to where they were read; ``residuals`` (N, 3 V) about the mean of the row's group."""

    means: NDArray[np.float64]
    directions: NDArray[np.float64]
    values: NDArray[np.float64]
    local: NDArray[np.float64]
    poses: NDArray[np.float64]
    residuals: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """(N, K) coefficients in standard deviations."""
        return self.residuals @ self.directions.T / self.values


def analyse(people: People, body: NDArray[np.bool_], modes: int) -> Statistics:
    """Level means (rigid generalised Procrustes; size stays in the shape) and pooled principal components.

    Raises UsxError when fewer than two rows count in the modes.
    """
    if np.count_nonzero(people.mode_weights) < 2:
        raise UsxError("modes of variation need at least two vertebrae of different people")
    means = np.full((len(LEVELS), *people.shapes.shape[1:]), np.nan)
    local, poses = np.empty_like(people.shapes), np.empty((len(people.shapes), 4, 4))
    residuals = np.empty((len(people.shapes), people.shapes[0].size))
    for group in np.unique(people.groups):
        for level in range(len(LEVELS)):
            rows = np.flatnonzero((people.groups == group) & (people.levels == level))
            if len(rows) == 0:
                continue
            mean = weighted_mean_shape(people.shapes[rows], people.mean_weights[rows])
            mean = apply(upright(mean, body), mean)
            for row in rows:
                poses[row] = align(mean, people.shapes[row])
                local[row] = apply(invert(poses[row]), people.shapes[row])
                residuals[row] = (local[row] - mean).ravel()
            if group == 0:
                means[level] = mean
    directions, values = weighted_components(residuals, people.mode_weights, modes)
    return Statistics(means, directions, values, local, poses, residuals)


def weighted_mean_shape(shapes: NDArray, weights: NDArray, rounds: int = 5) -> NDArray[np.float64]:
    """(V, 3) weighted mean of shapes (N, V, 3) after rigid alignment to each other, lying as they do on average."""
    mean = shapes[int(np.argmax(weights))]
    share = weights / weights.sum()
    for _ in range(rounds):
        mean = np.einsum("n,nvi->vi", share, np.stack([apply(align(shape, mean), shape) for shape in shapes]))
    turns = Rotation.from_matrix(np.stack([align(mean, shape)[:3, :3] for shape in shapes]))
    return turns.mean(weights).apply(mean)


def weighted_components(rows: NDArray, weights: NDArray, count: int
                        ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal directions (K, D) and standard deviations (K,) of weighted rows (N, D) about zero, largest first."""
    used = weights > 0.0
    scaled = rows[used] * np.sqrt(weights[used] / weights.sum())[:, None]
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    order = np.argsort(values)[::-1][: min(count, int(used.sum()) - 1)]
    order = order[values[order] > 1e-9 * max(values.max(), 1e-30)]
    directions = (vectors[:, order].T @ scaled) / np.sqrt(values[order])[:, None]
    signs = np.sign(directions[np.arange(len(order)), np.abs(directions).argmax(axis=1)])
    return directions * signs[:, None], np.sqrt(values[order])


def along_normals(offsets: NDArray, mean: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """(..., V) part of offsets (..., V, 3) along the outward normals of the mean (V, 3), mm."""
    return np.einsum("...vi,vi->...v", offsets, vertex_normals(Mesh(mean, faces)))
