"""Is a method different from the reference? Wilcoxon signed-rank over paired vertebrae, Shapiro-Wilk beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import shapiro, wilcoxon

from usx_common.errors import UsxError
from usx_completion.evaluation.scoring import VertebraRow
from usx_completion.evaluation.summary import MAIN, best_method, grouped

SMALLEST = 6
COLUMNS = ("dataset", "reference", "method", "part", "metric", "pairs", "difference", "wilcoxon_p", "shapiro_p")


@dataclass(frozen=True)
class Comparison:
    """``difference``: mean of method - reference over ``pairs`` vertebrae; two-sided p-value of the signed-rank test
    that it is symmetric about 0; p-value of Shapiro-Wilk that the differences are normal. nan below 6 pairs."""

    dataset: str
    reference: str
    method: str
    part: str
    metric: str
    pairs: int
    difference: float
    wilcoxon_p: float
    shapiro_p: float

    def flat(self) -> dict[str, object]:
        """Keys as in ``COLUMNS``."""
        return {column: getattr(self, column) for column in COLUMNS}


def compare_methods(rows: Sequence[VertebraRow], reference: str = "") -> list[Comparison]:
    """Every method of every dataset against ``reference`` ("": the dataset's best), by part and metric.

    Only vertebrae that both completed count. Raises UsxError for a reference that no row has.
    """
    groups = grouped(rows)
    methods = {method for _, method, _ in groups}
    if reference and reference not in methods:
        raise UsxError(f"the reference {reference!r} is none of the methods evaluated: {', '.join(sorted(methods))}")
    best = {dataset: reference or best_method(rows, dataset) for dataset in dict.fromkeys(key[0] for key in groups)}
    result = []
    for (dataset, method, part), mine in groups.items():
        other = groups.get((dataset, best[dataset], part))
        if method != best[dataset] and other is not None:
            result += [_compared(metric, mine, other) for metric in MAIN]
    return result


def _compared(metric: str, rows: Sequence[VertebraRow], reference: Sequence[VertebraRow]) -> Comparison:
    known = {row.vertebra: getattr(row.metrics, metric) for row in reference}
    pairs = [(getattr(row.metrics, metric), known[row.vertebra]) for row in rows if row.vertebra in known]
    both = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    both = both[np.isfinite(both).all(axis=1)]
    difference = both[:, 0] - both[:, 1]
    mean = float(difference.mean()) if len(difference) else float("nan")
    first, other = rows[0], reference[0]
    return Comparison(first.dataset, other.method, first.method, first.part, metric, len(difference), mean,
                      *_p_values(difference))


def _p_values(difference: NDArray[np.float64]) -> tuple[float, float]:
    if len(difference) < SMALLEST:
        return float("nan"), float("nan")
    if not np.any(difference):
        return 1.0, float("nan")
    normal = shapiro(difference).pvalue if np.ptp(difference) > 0 else np.nan
    return float(wilcoxon(difference).pvalue), float(normal)
