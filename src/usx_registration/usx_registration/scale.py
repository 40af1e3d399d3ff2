"""Scale of the ultrasound against the CBCT along each patient axis: a wrong calibration shows here first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_common.clouds import voxel_downsample
from usx_registration.rigid import geman_mcclure, spread
from usx_registration.surfaces import Surface

Array = NDArray[np.float64]


def axis_scales(points: Array, target: Surface, source_to_target: Array,
                iterations: int = 10) -> tuple[Array, Array]:
    """Factors (3,) that the points (N, 3), mm, must be stretched by along the target's axes, and their standard
    deviations (3,), from a fit of rigid motion and scale together, begun at a rigid registration.

    Matching again at every step matters: with the matches held, points cling to where they already are.
    """
    moved = transforms.apply(source_to_target, spread(points, 4000))
    centre = moved.mean(axis=0)
    local = moved - centre
    state = np.zeros(9)  # small rotation, translation, log of the scales
    covariance = np.full((9, 9), np.inf)
    for _ in range(iterations):
        stretched = local * np.exp(state[6:])
        current = stretched + np.cross(state[:3], stretched) + centre + state[3:6]
        distance, index = target.tree.query(current)
        normals = target.normals[index]
        weights = geman_mcclure(distance, 1.5)
        offsets = np.einsum("ni,ni->n", target.points[index] - current, normals)
        rows = np.hstack([np.cross(current - centre, normals), normals, stretched * normals])
        information = rows.T @ (weights[:, None] * rows) + 1e-6 * np.eye(9)
        state = state + np.linalg.solve(information, rows.T @ (weights * offsets))
        variance = float(weights @ offsets**2 / max(weights.sum(), 1.0))
        independent = len(voxel_downsample(moved, 3.0)) / len(moved)
        covariance = variance / independent * np.linalg.inv(information)
    return np.exp(state[6:]), np.sqrt(np.diag(covariance)[6:])
