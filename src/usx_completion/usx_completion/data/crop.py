"""Which part of the spine's partial cloud is one vertebra's input.

The paper takes a box around the true vertebra, which tells a network the height and depth of what it has to guess. The
other rules need nothing that an examination does not give: mean vertebrae placed on the bodies seen in the X-ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_completion.data.mean_chain import MeanChain, meet_points, placed_means
from usx_completion.data.observed import SeenPoints, XrayBody
from usx_completion.data.setting_checks import check_settings
from usx_completion.data.spine_sample import SpineSample

RULES = ("truth", "placed_mean", "nearest_mean")


@dataclass(frozen=True)
class CropSettings:
    """``rule``: the box of the "truth", the box of the "placed_mean", or points nearer to this level's placed mean
    than to another's ("nearest_mean") and within ``reach_mm``. ``margin_mm``: added to each side of a box in x, y, z;
    ``jitter_mm``: SD of each level's place, an imperfect split (not with "truth")."""

    rule: str = "truth"
    margin_mm: tuple[float, float, float] = (10.0, 0.0, 0.0)
    jitter_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    reach_mm: float = 12.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UsxError(f"crop rule {self.rule!r} is unknown; known are {', '.join(RULES)}")
        check_settings(self, {"margin_mm": (0.0, 100.0), "jitter_mm": (0.0, 30.0), "reach_mm": (1.0, 100.0)})


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


def placed_boxes(seen: SeenPoints, bodies: Mapping[str, XrayBody], chain: MeanChain, settings: CropSettings,
                 random: np.random.Generator) -> dict[str, Box]:
    """Boxes of the mean vertebrae placed on the X-ray's bodies: from the observations and the population alone."""
    placed = placed_means(seen, bodies, chain, settings.jitter_mm, random)
    margin = np.asarray(settings.margin_mm)
    return {level: Box(vertices.min(axis=0) - margin, vertices.max(axis=0) + margin)
            for level, vertices in placed.items()}


def observed_rows(seen: SeenPoints, bodies: Mapping[str, XrayBody], chain: MeanChain, settings: CropSettings,
                  random: np.random.Generator) -> dict[str, NDArray[np.bool_]]:
    """Level -> (N,) mask of its points by the rules that do not know the truth."""
    if settings.rule != "nearest_mean":
        boxes = placed_boxes(seen, bodies, chain, settings, random)
        return {level: box.holds(seen.points) for level, box in boxes.items()}
    placed = placed_means(seen, bodies, chain, settings.jitter_mm, random)
    arches = [placed[level][~body][::2] for level, body in zip(LEVELS, chain.bodies, strict=True)]
    tree = cKDTree(np.concatenate(arches))
    numbers = np.r_[np.repeat(np.arange(len(LEVELS)), [len(arch) for arch in arches]), -1]
    _, nearest = tree.query(meet_points(tree, seen.points), distance_upper_bound=settings.reach_mm)
    return {level: numbers[nearest] == index for index, level in enumerate(LEVELS)}
