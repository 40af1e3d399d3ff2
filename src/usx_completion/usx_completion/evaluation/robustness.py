"""Error against how bad the input is, by method: the points of the robustness curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from usx_completion.evaluation.perturb import ABOVE, CONDITIONS
from usx_completion.evaluation.scoring import VertebraRow

COLUMNS = ("dataset", "condition", "curve", "amount", "method", "n", "left_out", "assd_mm", "assd_mm_sd", "cd_t_e4",
           "cd_t_e4_sd", "arch_cd_t_e4", "body_cd_t_e4", "assd_change", "cd_t_change", "within_sigma",
           "within_two_sigma")


@dataclass(frozen=True)
class CurvePoint:
    """One method under one condition: mean and SD over whole vertebrae, and CD-T of arch and body.

    ``assd_change``, ``cd_t_change``: mean over the mean of the same bones by the same method with the input as it was,
    minus 1; only bones completed under both count. ``within_sigma``, ``within_two_sigma``: shares of errors that sigma
    covers, not a number for methods without one.
    """

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
    assd_change: float
    cd_t_change: float
    within_sigma: float
    within_two_sigma: float

    def flat(self) -> dict[str, object]:
        """Keys as in ``COLUMNS``."""
        return {column: getattr(self, column) for column in COLUMNS}


def curve_points(rows: Mapping[str, Sequence[VertebraRow]]) -> list[CurvePoint]:
    """Points of rows by condition, conditions and methods in their order of appearance."""
    points = []
    clean = {method: [row for row in rows.get("clean", []) if row.method == method and row.part == "whole"
                      and np.isfinite(row.metrics.assd_mm)] for row in rows.get("clean", []) for method in [row.method]}
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
                _mean_sd(parts["body"], "cd_t_e4")[0],
                *(_change(whole, clean.get(method, []), metric, condition.levels_off)
                  for metric in ("assd_mm", "cd_t_e4")),
                *(_mean_sd(whole, share)[0] for share in ("within_sigma", "within_two_sigma"))))
    return points


def _change(rows: Sequence[VertebraRow], clean: Sequence[VertebraRow], metric: str, renamed: bool) -> float:
    """Relative change of the mean over the bones that both have; ``renamed``: a bone has the name of the one above."""
    before = {(row.case, ABOVE.get(row.level, "") if renamed else row.level): getattr(row.metrics, metric)
              for row in clean}
    pairs = np.asarray([(getattr(row.metrics, metric), before[row.case, row.level]) for row in rows
                        if (row.case, row.level) in before])
    return float(pairs[:, 0].mean() / pairs[:, 1].mean() - 1.0) if len(pairs) else float("nan")


def _mean_sd(rows: Sequence[VertebraRow], metric: str) -> tuple[float, float]:
    values = np.asarray([getattr(row.metrics, metric) for row in rows])
    return (float(values.mean()), float(values.std())) if len(values) else (float("nan"), float("nan"))
