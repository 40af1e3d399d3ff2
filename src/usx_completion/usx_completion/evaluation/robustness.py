"""Error against how bad the input is, by method: the points of the robustness curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from usx_completion.evaluation.perturb import CONDITIONS
from usx_completion.evaluation.scoring import VertebraRow

COLUMNS = ("dataset", "condition", "curve", "amount", "method", "n", "left_out", "assd_mm", "assd_mm_sd", "cd_t_e4",
           "cd_t_e4_sd", "arch_cd_t_e4", "body_cd_t_e4")


@dataclass(frozen=True)
class CurvePoint:
    """One method under one condition: mean and SD over whole vertebrae, and CD-T of arch and body."""

    dataset: str
    condition: str
    curve: str
    amount: float
    method: str
    n: int
    left_out: int
    assd_mm: float
    assd_mm_sd: float
    cd_t_e4: float
    cd_t_e4_sd: float
    arch_cd_t_e4: float
    body_cd_t_e4: float

    def flat(self) -> dict[str, object]:
        """Keys as in ``COLUMNS``."""
        return {column: getattr(self, column) for column in COLUMNS}


def curve_points(rows: Mapping[str, Sequence[VertebraRow]]) -> list[CurvePoint]:
    """Points of rows by condition, conditions and methods in their order of appearance."""
    points = []
    for name, every in rows.items():
        for method in dict.fromkeys(row.method for row in every):
            mine = [row for row in every if row.method == method]
            parts = {part: [row for row in mine if row.part == part and np.isfinite(row.metrics.assd_mm)]
                     for part in ("whole", "arch", "body")}
            whole = parts["whole"]
            condition = CONDITIONS[name]
            points.append(CurvePoint(
                mine[0].dataset, name, condition.curve, condition.amount, method, len(whole),
                sum(row.part == "whole" for row in mine) - len(whole), *_mean_sd(whole, "assd_mm"),
                *_mean_sd(whole, "cd_t_e4"), _mean_sd(parts["arch"], "cd_t_e4")[0],
                _mean_sd(parts["body"], "cd_t_e4")[0]))
    return points


def _mean_sd(rows: Sequence[VertebraRow], metric: str) -> tuple[float, float]:
    values = np.asarray([getattr(row.metrics, metric) for row in rows])
    return (float(values.mean()), float(values.std())) if len(values) else (float("nan"), float("nan"))
