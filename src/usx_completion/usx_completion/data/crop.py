"""Which part of the spine's partial cloud is one vertebra's input: an axis-aligned box.

The paper's box is the true vertebra's own, which tells a network the height and depth of what it has to guess. The
other rule needs nothing that an examination does not give: the mean vertebra placed on the body seen in the X-ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.transforms import Matrix, make_transform
from usx_completion.data.observed import SeenPoints, XrayBody
from usx_completion.data.spine_sample import SpineSample
from usx_completion.data.xray_cloud import bodies_by_level
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import ShapeModel

RULES = ("truth", "placed_mean")


@dataclass(frozen=True)
class CropSettings:
    """``rule``: "truth" or "placed_mean"; ``margin_mm``: added to each side in x, y, z; ``jitter_mm``: SD of the
    box's place, an imperfect split into levels (placed_mean only)."""

    rule: str = "truth"
    margin_mm: tuple[float, float, float] = (10.0, 0.0, 0.0)
    jitter_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UsxError(f"crop rule {self.rule!r} is unknown; known are {', '.join(RULES)}")


@dataclass(frozen=True)
class Box:
    """Corners (3,) in mm."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def holds(self, points: NDArray) -> NDArray[np.bool_]:
        """(N,) mask of the points in the box, its faces included."""
        return np.all((points >= self.low) & (points <= self.high), axis=1)


def true_boxes(sample: SpineSample, settings: CropSettings) -> dict[str, Box]:
    """The boxes of the true meshes, pushed out by the margin: the paper's rule, a leak of the truth's extents."""
    margin = np.asarray(settings.margin_mm)
    return {level: Box(sample.meshes[level].vertices.min(axis=0) - margin,
                       sample.meshes[level].vertices.max(axis=0) + margin) for level in LEVELS}


@dataclass(frozen=True)
class MeanChain:
    """The usual spine: ``means`` level vertices (L, V, 3) mm with the ``body`` mask (V,), and ``tilts`` (L,): rotation
    of each level about x relative to the line through its neighbours' bodies, rad."""

    means: NDArray[np.float64]
    body: NDArray[np.bool_]
    tilts: NDArray[np.float64]

    @classmethod
    def of(cls, model: ShapeModel) -> MeanChain:
        """The mean shapes, steps and tilts of a shape model."""
        pose = make_transform(rotation_matrix(model.tilt_mean[0]), np.zeros(3))
        chain: list[Matrix] = [pose]
        for step in model.step_mean:
            chain.append(chain[-1] @ make_transform(rotation_matrix(step[:3]), step[3:]))
        about_x = np.array([np.arctan2(matrix[2, 1], matrix[1, 1]) for matrix in chain])
        return cls(model.means, model.body, about_x - chain_angles(np.stack([matrix[:3, 3] for matrix in chain])))


def chain_angles(centres: NDArray) -> NDArray[np.float64]:
    """(L,) angle about x, rad, of the line through each level's neighbours (L, 3 centres, cranial first) to z."""
    ahead = np.gradient(centres, axis=0)
    return np.arctan2(ahead[:, 1], -ahead[:, 2])


def placed_boxes(seen: SeenPoints, clouds: Mapping[str, XrayBody], chain: MeanChain, settings: CropSettings,
                 random: np.random.Generator) -> dict[str, Box]:
    """Boxes of the mean vertebrae placed on the X-ray's bodies: from the observations and the population alone."""
    centres = bodies_by_level(clouds)
    tilts = chain.tilts + chain_angles(centres)
    margin = np.asarray(settings.margin_mm)
    boxes = {}
    for index, level in enumerate(LEVELS):
        turned = chain.means[index] @ rotation_matrix(np.array([tilts[index], 0.0, 0.0])).T
        body = turned[chain.body]
        offset = centres[index] - 0.5 * (body.min(axis=0) + body.max(axis=0))
        offset[0] = _middle(seen.points, centres[index])
        offset = offset + np.asarray(settings.jitter_mm) * random.standard_normal(3)
        boxes[level] = Box(turned.min(axis=0) + offset - margin, turned.max(axis=0) + offset + margin)
    return boxes


def _middle(points: NDArray, centre: NDArray, reach_mm: float = 22.0) -> float:
    """Left-right middle of the ultrasound behind a body; that of the whole sweep where little was seen there."""
    near = points[np.abs(points[:, 2] - centre[2] + 10.0) < reach_mm, 0]
    x = near if len(near) >= 100 else points[:, 0]
    return float(np.quantile(x, (0.03, 0.97)).mean()) if len(x) else float(centre[0])
