"""What no method can avoid: what the examination's own errors cost, and what it does not tell of a shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usx_completion.evaluation.case import Case
from usx_completion.evaluation.pose_floor import moved_bones
from usx_completion.evaluation.shape_floor import told_exactly
from usx_completion.metrics import PartMetrics, SampledSurface, compare

POSE, SHAPE = "pose", "shape"
TITLES = {POSE: "true bones moved rigidly onto what ultrasound shows of them",
          SHAPE: "the shape model told without error where all that is seen of these bones lies"}
COLUMNS = ("arch / body", "n", "CD-T x1e4", "F1", "EMD x1e4", "ASSD mm", "whole, mm")


@dataclass(frozen=True)
class FloorRow:
    """``kind``: one of `TITLES`; ``metrics``: part -> how far such a bone is from the true one."""

    dataset: str
    level: str
    kind: str
    metrics: dict[str, PartMetrics]


def floors_of(case: Case) -> list[FloorRow]:
    """Rows of the levels of which enough is seen."""
    moved = moved_bones(case)
    rows = []
    for kind, bones in ((POSE, moved), (SHAPE, told_exactly(case, moved))):
        for level, bone in bones.items():
            metrics = compare(SampledSurface.of(case.truth[level]), SampledSurface.of(bone), case.units[level])
            rows.append(FloorRow(case.dataset, level, kind, metrics))
    return rows


def floor_table(rows: Sequence[FloorRow], kind: str) -> list[list[str]]:
    """Lines of a dataset, its number of bones, and means."""
    lines = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        mine = [row.metrics for row in rows if (row.dataset, row.kind) == (dataset, kind)]
        if mine:
            lines.append([dataset, str(len(mine)), *(
                " / ".join(_mean(mine, part, metric, digits) for part in ("arch", "body"))
                for metric, digits in (("cd_t_e4", 1), ("f1", 2), ("emd_e4", 0), ("assd_mm", 2))),
                _mean(mine, "whole", "assd_mm", 2)])
    return lines


def _mean(rows: Sequence[dict[str, PartMetrics]], part: str, metric: str, digits: int) -> str:
    values = [getattr(row[part], metric) for row in rows]
    return f"{np.nanmean(values):.{digits}f}" if np.isfinite(values).any() else "-"
