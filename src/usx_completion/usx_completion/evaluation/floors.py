"""What figures are to be read beside: what the examination's own errors cost, and what it does not tell of a shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from usx_completion.evaluation.case import Case
from usx_completion.evaluation.pose_floor import moved_bones, own_points
from usx_completion.evaluation.shape_floor import told_exactly
from usx_completion.metrics import PartMetrics, SampledSurface, compare

POSE, SHAPE = "pose", "shape"
TITLES = {POSE: "true bones moved rigidly onto what ultrasound shows of them",
          SHAPE: "the shape model told without error where all that is seen of these bones lies"}


@dataclass(frozen=True)
class FloorRow:
    """``kind``: one of `TITLES`; ``metrics``: part -> how far such a bone is from the true one."""

    dataset: str
    level: str
    kind: str
    metrics: dict[str, PartMetrics]


def floors_of(case: Case, surfaces: Mapping[str, SampledSurface]) -> list[FloorRow]:
    """Rows of the levels of which enough is seen and whose unit is known; ``surfaces``: level -> true surface."""
    own = {level: points for level, points in own_points(case).items() if np.isfinite(case.units[level])}
    moved = moved_bones(case, own)
    return [FloorRow(case.dataset, level, kind, compare(surfaces[level], SampledSurface.of(bone), case.units[level]))
            for kind, bones in ((POSE, moved), (SHAPE, told_exactly(case, moved, own)))
            for level, bone in bones.items()]
