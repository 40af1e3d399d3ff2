"""How much of the truth the inputs show, and how much of them is something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usx_common.clouds import nearest_distances
from usx_common.levels import label_of_level
from usx_completion.data.examination import LevelSample

SEEN_MM = 1.5
FAR_MM = 3.0


@dataclass(frozen=True)
class VisibilityFigures:
    """Means over samples. ``arch_seen``, ``body_seen``: shares of the complete cloud's points (split at its mean y, the
    paper's rule) within 1.5 mm of a partial point; ``foreign``: share of partial points on another level; ``clutter``:
    on no bone; ``far``: more than 3 mm from the complete cloud; ``unit_mm``: length of one unit; ``count``: samples."""

    arch_seen: float
    body_seen: float
    foreign: float
    clutter: float
    far: float
    unit_mm: float
    count: int


def visibility_figures(samples: Sequence[LevelSample]) -> VisibilityFigures:
    """Figures of samples; distances to the truth are to its 4,096 points, about 0.9 mm from each other at least."""
    arch, body, foreign, clutter, far, unit = np.mean([_of(sample) for sample in samples], axis=0).tolist()
    return VisibilityFigures(arch, body, foreign, clutter, far, unit, len(samples))


def _of(sample: LevelSample) -> tuple[float, ...]:
    frame = sample.input.normalisation
    partial, complete = frame.invert(sample.input.partial), frame.invert(sample.complete)
    seen = nearest_distances(complete, partial) <= SEEN_MM
    arch = complete[:, 1] > complete[:, 1].mean()
    clutter = sample.input.owners == 0
    foreign = ~clutter & (sample.input.owners != label_of_level(sample.level))
    far = nearest_distances(partial, complete) > FAR_MM
    return (float(seen[arch].mean()), float(seen[~arch].mean()), float(foreign.mean()), float(clutter.mean()),
            float(far.mean()), frame.unit_mm)
