"""Robust rigid motion of a surface onto points: point to plane (Chen and Medioni, 1992), held near where it begins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.transforms import Matrix, apply, invert, make_transform
from usx_completion.rigid import rotation_matrix

TURN_SD_RAD, MOVE_SD_MM = 0.1, 5.0
INDEPENDENT = 60.0  # points of one surface share their error: they count as so many


def onto_points(places: NDArray, directions: NDArray, points: NDArray, motion: Matrix, scales: tuple[float, ...]
                ) -> Matrix:
    """(4, 4) motion of surface ``places`` (V, 3) with normals ``directions`` (V, 3) onto ``points`` (N, 3), mm.

    Begins at ``motion``; one step for each of ``scales``, mm, beyond which a distance counts less and less.
    """
    tree, middle = cKDTree(places), places.mean(axis=0)
    turned, moved = np.zeros(3), np.zeros(3)
    for scale in scales:
        local = apply(invert(motion), points)
        gap, nearest = tree.query(local)
        normal = directions[nearest]
        depth = np.einsum("ni,ni->n", local - places[nearest], normal)
        weight = 1.0 / (1.0 + (gap / scale) ** 2)
        jacobian = np.concatenate([np.cross(places[nearest] - middle, normal), normal], axis=1)
        share = INDEPENDENT / max(weight.sum(), 1.0)
        prior = np.r_[np.full(3, 1.0 / TURN_SD_RAD**2), np.full(3, 1.0 / MOVE_SD_MM**2)]
        system = share * jacobian.T @ (weight[:, None] * jacobian) + np.diag(prior)
        step = np.linalg.solve(system, share * jacobian.T @ (weight * depth) - prior * np.r_[turned, moved])
        turned, moved = turned + step[:3], moved + step[3:]
        about = make_transform(np.eye(3), middle)
        motion = motion @ about @ make_transform(rotation_matrix(step[:3]), step[3:]) @ invert(about)
    return motion
