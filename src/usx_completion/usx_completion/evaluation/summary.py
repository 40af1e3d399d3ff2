"""From vertebrae to tables: mean and standard deviation by dataset, method and part, and by level."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_completion.evaluation.scoring import METRICS, VertebraRow
from usx_completion.metrics import PARTS

MAIN = ("cd_t_e4", "f1", "emd_e4", "assd_mm", "hd95_mm")
FURTHER = METRICS[len(MAIN):]
TABLE_COLUMNS = ("dataset", "method", "part", "n", *MAIN, *(f"{name}_sd" for name in MAIN), *FURTHER,
                 *(f"{name}_sd" for name in FURTHER), "left_out")


@dataclass(frozen=True)
class SummaryRow:
    """One row of table.csv: of ``n`` vertebrae the mean and the population SD of every metric; ``left_out`` more had no
    answer (or no point in that part)."""

    dataset: str
    method: str
    part: str
    n: int
    left_out: int
    mean: dict[str, float]
    sd: dict[str, float]

    def flat(self) -> dict[str, object]:
        """Keys as in ``TABLE_COLUMNS``."""
        return {"dataset": self.dataset, "method": self.method, "part": self.part, "n": self.n, **self.mean,
                **{f"{name}_sd": value for name, value in self.sd.items()}, "left_out": self.left_out}


def summarise(rows: Sequence[VertebraRow]) -> list[SummaryRow]:
    """Rows in the order in which datasets, methods and parts first appear."""
    return [_summary(dataset, method, part, mine) for (dataset, method, part), mine in grouped(rows).items()]


def grouped(rows: Iterable[VertebraRow]) -> dict[tuple[str, str, str], list[VertebraRow]]:
    """Rows by dataset, method and part; datasets and methods in the order of their first row."""
    found: dict[tuple[str, str, str], list[VertebraRow]] = {}
    for row in rows:
        found.setdefault((row.dataset, row.method, row.part), []).append(row)
    datasets, methods = (list(dict.fromkeys(key[index] for key in found)) for index in (0, 1))
    order = sorted(found, key=lambda key: (datasets.index(key[0]), methods.index(key[1]), PARTS.index(key[2])))
    return {key: found[key] for key in order}


def values_of(rows: Iterable[VertebraRow], metric: str) -> NDArray[np.float64]:
    """(N,) values of a metric; nan where there is none."""
    return np.asarray([getattr(row.metrics, metric) for row in rows], dtype=np.float64)


def _summary(dataset: str, method: str, part: str, rows: Sequence[VertebraRow]) -> SummaryRow:
    known = [row for row in rows if np.isfinite(row.metrics.assd_mm)]
    mean, sd = {}, {}
    for name in METRICS:
        values = values_of(known, name)
        mean[name], sd[name] = (float(values.mean()), float(values.std())) if known else (np.nan, np.nan)
    return SummaryRow(dataset, method, part, len(known), len(rows) - len(known), mean, sd)


@dataclass(frozen=True)
class LevelRow:
    """Mean of the metrics of one level by one method, whole vertebrae."""

    dataset: str
    method: str
    level: str
    n: int
    mean: dict[str, float]

    def flat(self) -> dict[str, object]:
        """One level of keys."""
        return {"dataset": self.dataset, "method": self.method, "level": self.level, "n": self.n, **self.mean}


def by_level(rows: Sequence[VertebraRow]) -> list[LevelRow]:
    """Rows of whole vertebrae by dataset, method and level."""
    result = []
    for (dataset, method, part), mine in grouped(rows).items():
        if part != "whole":
            continue
        for level in LEVELS:
            known = [row for row in mine if row.level == level and np.isfinite(row.metrics.assd_mm)]
            if known:
                mean = {name: float(values_of(known, name).mean()) for name in METRICS}
                result.append(LevelRow(dataset, method, level, len(known), mean))
    return result


def best_method(rows: Sequence[VertebraRow], dataset: str) -> str:
    """The method with the lowest mean surface distance over the whole vertebrae that every method completed (or, where
    there are none such, over its own)."""
    whole = {method: {row.vertebra: row.metrics.assd_mm for row in mine if np.isfinite(row.metrics.assd_mm)}
             for (name, method, part), mine in grouped(rows).items() if name == dataset and part == "whole"}
    common = set.intersection(*(set(values) for values in whole.values()))
    means = {}
    for method, values in whole.items():
        mine = [value for key, value in values.items() if key in common or not common]
        means[method] = float(np.mean(mine)) if mine else np.inf
    return min(means, key=lambda method: means[method])


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, object]]) -> None:
    """Write rows; numbers with four decimals (p-values with four digits), nan as an empty field."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(column, row[column]) for column in columns] for row in rows)


def _cell(column: str, value: object) -> object:
    if not isinstance(value, float):
        return value
    if not np.isfinite(value):
        return ""
    return f"{value:.4g}" if column.endswith("_p") else f"{value:.4f}"
