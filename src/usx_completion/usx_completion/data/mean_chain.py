"""The usual spine, placed by what an examination shows: the bodies in the X-ray and the middle of the ultrasound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.levels import LEVELS
from usx_common.transforms import Matrix, make_transform
from usx_completion.data.observed import SeenPoints, XrayBody
from usx_completion.data.xray_cloud import bodies_by_level
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import ShapeModel


@dataclass(frozen=True)
class MeanChain:
    """The usual spine: ``means`` level vertices (L, V, 3) mm with the masks ``bodies`` (L, V) of what the X-ray shows,
    and ``tilts`` (L,): rotation of each level about x relative to the line through its neighbours' bodies, rad."""

    means: NDArray[np.float64]
    bodies: NDArray[np.bool_]
    tilts: NDArray[np.float64]

    @classmethod
    def of(cls, model: ShapeModel) -> MeanChain:
        """The mean shapes, steps and tilts of a shape model."""
        pose = make_transform(rotation_matrix(model.tilt_mean[0]), np.zeros(3))
        chain: list[Matrix] = [pose]
        for step in model.step_mean:
            chain.append(chain[-1] @ make_transform(rotation_matrix(step[:3]), step[3:]))
        about_x = np.array([np.arctan2(matrix[2, 1], matrix[1, 1]) for matrix in chain])
        centres = np.stack([matrix[:3, 3] for matrix in chain])
        return cls(model.means, model.xray_bodies, about_x - chain_angles(centres))


def chain_angles(centres: NDArray) -> NDArray[np.float64]:
    """(L,) angle about x, rad, of the line through each level's neighbours (L, 3 centres, cranial first) to z."""
    ahead = np.gradient(centres, axis=0)
    return np.arctan2(ahead[:, 1], -ahead[:, 2])


def placed_means(seen: SeenPoints, bodies: Mapping[str, XrayBody], chain: MeanChain, jitter_mm: Sequence[float],
                 random: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Level -> (V, 3) vertices of the mean vertebra, mm, frame of the points: its body where the X-ray shows one,
    tilted as the line of bodies is, amid the ultrasound from left to right, and ``jitter_mm`` (SD) off."""
    centres = bodies_by_level(bodies)
    tilts = chain.tilts + chain_angles(centres)
    placed = {}
    for index, level in enumerate(LEVELS):
        turned = chain.means[index] @ rotation_matrix(np.array([tilts[index], 0.0, 0.0])).T
        body = turned[chain.bodies[index]]
        offset = centres[index] - 0.5 * (body.min(axis=0) + body.max(axis=0))
        offset[0] = _middle(seen.points, centres[index])
        placed[level] = turned + offset + np.asarray(jitter_mm) * random.standard_normal(3)
    return placed


def meet_points(tree: cKDTree, points: NDArray, steps: int = 8, near_mm: float = 10.0) -> NDArray[np.float64]:
    """Points (N, 3) mm moved as a whole towards the points of ``tree``: iterated closest points, translation only."""
    few = points[:: max(len(points) // 500, 1)]
    shift = np.zeros(3)
    for _ in range(steps):
        distance, nearest = tree.query(few + shift)
        close = distance < near_mm
        if close.sum() < 10:
            break
        shift = shift + np.mean(tree.data[nearest[close]] - few[close] - shift, axis=0)
    return points + shift


def _middle(points: NDArray, centre: NDArray, reach_mm: float = 22.0) -> float:
    """Left-right middle of the ultrasound behind a body; that of the whole sweep where little was seen there."""
    near = points[np.abs(points[:, 2] - centre[2] + 10.0) < reach_mm, 0]
    x = near if len(near) >= 100 else points[:, 0]
    return float(np.quantile(x, (0.03, 0.97)).mean()) if len(x) else float(centre[0])
