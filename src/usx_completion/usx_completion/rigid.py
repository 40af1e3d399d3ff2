"""Closed-form rigid and similarity alignment of corresponding points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from usx_common.transforms import Matrix, make_transform


def align(source: NDArray, target: NDArray, weights: NDArray | None = None, scale: bool = False) -> Matrix:
    """``source_to_target`` (4, 4) of least weighted squares between corresponding rows (N, 3), mm.

    Rigid, or with ``scale`` a similarity (Umeyama, IEEE TPAMI 13(4), 1991).
    """
    weights = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    weights = weights / weights.sum()
    source_mean, target_mean = weights @ source, weights @ target
    centred_source, centred_target = source - source_mean, target - target_mean
    left, values, right = np.linalg.svd((centred_source * weights[:, None]).T @ centred_target)
    signs = np.ones(3)
    signs[2] = np.sign(np.linalg.det(left) * np.linalg.det(right))
    rotation = (right.T * signs) @ left.T
    factor = 1.0
    if scale:
        factor = float((values * signs).sum() / (weights @ np.sum(centred_source**2, axis=1)))
    return make_transform(factor * rotation, target_mean - factor * rotation @ source_mean)


def rotation_vector(rotation: NDArray) -> NDArray[np.float64]:
    """(3,) axis times angle in radians of a (3, 3) rotation."""
    return Rotation.from_matrix(rotation).as_rotvec()


def rotation_matrix(vector: NDArray) -> NDArray[np.float64]:
    """(3, 3) rotation of an axis times angle in radians."""
    return Rotation.from_rotvec(vector).as_matrix()
