"""The tables of an evaluation: in the terminal (100 columns), and as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from usx_common.levels import LEVELS
from usx_completion.evaluation import floors
from usx_completion.evaluation.floors import FloorRow
from usx_completion.evaluation.robustness import CurvePoint
from usx_completion.evaluation.shape_spread import SpreadRow, spread_table
from usx_completion.evaluation.significance import Comparison
from usx_completion.evaluation.summary import FURTHER, MAIN, LevelRow, SummaryRow
from usx_completion.metrics import PartMetrics

TITLES = {"cd_t_e4": "CD-T x1e4", "f1": "F1", "emd_e4": "EMD x1e4", "assd_mm": "ASSD mm", "hd95_mm": "HD95 mm",
          "cd_p_e4": "CD-P x1e4", "dcd": "DCD", "normal_consistency": "normals",
          "within_sigma": "in 1 sigma", "within_two_sigma": "in 2 sigma"}
DIGITS = {"cd_t_e4": 1, "f1": 2, "emd_e4": 0, "assd_mm": 2, "hd95_mm": 1, "cd_p_e4": 0, "dcd": 3,
          "normal_consistency": 3, "within_sigma": 2, "within_two_sigma": 2}
TESTED = ("cd_t_e4", "assd_mm")  # shown beside the table; significance.csv has all


def number(value: float, metric: str) -> str:
    """A value with the digits of its metric; a dash for none."""
    return f"{value:.{DIGITS[metric]}f}" if np.isfinite(value) else "-"


def with_sd(row: SummaryRow, metric: str) -> str:
    """Mean and standard deviation."""
    mean, sd = (number(values[metric], metric) for values in (row.mean, row.sd))
    return mean if mean == "-" else f"{mean} ± {sd}"


def count(row: SummaryRow) -> str:
    """How many vertebrae count, and how many were left out."""
    return f"{row.n}" if row.left_out == 0 else f"{row.n} (-{row.left_out})"


def terminal_tables(rows: Sequence[SummaryRow]) -> list[Table]:
    """One table a dataset, mean ± SD; fits 100 columns."""
    tables = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        table = Table(title=dataset, title_justify="left")
        table.add_column("method", no_wrap=True)
        table.add_column("part", no_wrap=True)
        table.add_column("n", justify="right", no_wrap=True)
        for metric in MAIN:
            table.add_column(TITLES[metric], justify="right", no_wrap=True)
        last = ""
        for row in (row for row in rows if row.dataset == dataset):
            if last and row.method != last:
                table.add_section()
            table.add_row("" if row.method == last else row.method, row.part, count(row),
                          *(with_sd(row, metric) for metric in MAIN))
            last = row.method
        tables.append(table)
    return tables


SPREAD_COLUMNS = ("distance along the normal, mm", *LEVELS, "mean")


FLOOR_METRICS = ("cd_t_e4", "f1", "emd_e4", "assd_mm")
FLOOR_COLUMNS = ("arch / body", "n", *(TITLES[metric] for metric in FLOOR_METRICS), "whole, mm")


def floor_table(rows: Sequence[FloorRow], kind: str) -> list[list[str]]:
    """Lines of a dataset, its number of bones, and means."""
    lines = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        mine = [row.metrics for row in rows if (row.dataset, row.kind) == (dataset, kind)]

        def mean(part: str, metric: str, mine: list[dict[str, PartMetrics]] = mine) -> str:
            values = [getattr(metrics[part], metric) for metrics in mine]
            return number(float(np.nanmean(values)) if np.isfinite(values).any() else float("nan"), metric)

        if mine:
            lines.append([dataset, str(len(mine)), *(f"{mean('arch', metric)} / {mean('body', metric)}"
                                                     for metric in FLOOR_METRICS), mean("whole", "assd_mm")])
    return lines


@dataclass(frozen=True)
class Yardstick:
    """A small table."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left")
        for index, name in enumerate(self.columns):
            table.add_column(name, justify="right" if index else "left", no_wrap=True)
        for line in self.lines:
            table.add_row(*line)
        return table

    def markdown(self) -> list[str]:
        """With its title."""
        rows = (self.columns, ["---"] * len(self.columns), *self.lines)
        return [f"## {self.title[0].upper()}{self.title[1:]}", "", *("| " + " | ".join(row) + " |" for row in rows), ""]


def yardsticks(spread: Sequence[SpreadRow], floor: Sequence[FloorRow]) -> list[Yardstick]:
    """What the figures are to be read beside: how far the synthetic test spines are from the mean, and what
    an examination tells; those that there is something to say of."""
    found = [
        Yardstick("spread of the synthetic test spines", SPREAD_COLUMNS, spread_table(spread) if spread else []),
        *(Yardstick(title, FLOOR_COLUMNS, floor_table(floor, kind)) for kind, title in floors.TITLES.items()),
    ]
    return [yardstick for yardstick in found if yardstick.lines]


def glance_table(rows: Sequence[SummaryRow]) -> list[str]:
    """Markdown: a line for each dataset and method, arch / body, and the whole where its name stands."""
    split = ("cd_t_e4", "f1", "emd_e4", "assd_mm")
    lines = ["| arch / body | method | n | " + " | ".join(TITLES[name] for name in split)
             + " | ASSD mm, whole | HD95 mm, whole | in 1, 2 sigma |", "|---" * 10 + "|"]
    by = {(row.dataset, row.method, row.part): row for row in rows}
    for dataset, method in dict.fromkeys((row.dataset, row.method) for row in rows):
        arch, body, whole = (by[dataset, method, part] for part in ("arch", "body", "whole"))
        cells = [f"{number(arch.mean[name], name)} / {number(body.mean[name], name)}" for name in split]
        sure = [number(whole.mean[name], name) for name in ("within_sigma", "within_two_sigma")]
        cells += [with_sd(whole, "assd_mm"), number(whole.mean["hd95_mm"], "hd95_mm"),
                  "-" if "-" in sure else ", ".join(sure)]
        lines.append(f"| {dataset} | {method} | {count(whole)} | " + " | ".join(cells) + " |")
    return lines


def main_table(rows: Sequence[SummaryRow]) -> list[str]:
    """Markdown: every dataset, method and part, all metrics."""
    metrics = [*MAIN, *FURTHER]
    lines = ["| dataset | method | part | n | " + " | ".join(TITLES[name] for name in metrics) + " |",
             "|---" * (4 + len(metrics)) + "|"]
    for row in rows:
        cells = [row.dataset, row.method, row.part, count(row), *(with_sd(row, name) for name in metrics)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def level_table(rows: Sequence[LevelRow], metric: str = "assd_mm") -> list[str]:
    """Markdown: one metric by level, whole vertebrae."""
    lines = [f"| {TITLES[metric]}, whole | method | " + " | ".join(LEVELS) + " |", "|---" * (2 + len(LEVELS)) + "|"]
    for dataset, method in dict.fromkeys((row.dataset, row.method) for row in rows):
        mine = {row.level: row for row in rows if (row.dataset, row.method) == (dataset, method)}
        cells = [number(mine[level].mean[metric], metric) if level in mine else "-" for level in LEVELS]
        lines.append(f"| {dataset} | {method} | " + " | ".join(cells) + " |")
    return lines


def significance_table(rows: Sequence[Comparison]) -> list[str]:
    """Markdown: each method against the dataset's reference."""
    lines = ["| dataset | method against | part | pairs | metric | mean difference | Wilcoxon p | Shapiro-Wilk p |",
             "|---" * 8 + "|"]
    for row in rows:
        if row.metric in TESTED:
            difference = f"{row.difference:+.{DIGITS[row.metric]}f}" if np.isfinite(row.difference) else "-"
            lines.append(f"| {row.dataset} | {row.method} against {row.reference} | {row.part} | {row.pairs} | "
                         f"{TITLES[row.metric]} | {difference} | {_p(row.wilcoxon_p)} | {_p(row.shapiro_p)} |")
    return lines


def robustness_table(points: Sequence[CurvePoint]) -> list[str]:
    """Markdown: ASSD in mm (whole) under each condition, by method; beside it how much worse the same bones became."""
    methods = list(dict.fromkeys(point.method for point in points))
    lines = ["| ASSD mm, whole | " + " | ".join(methods) + " |", "|---" * (1 + len(methods)) + "|"]
    by = {(point.condition, point.method): point for point in points}
    for condition in dict.fromkeys(point.condition for point in points):
        cells = []
        for method in methods:
            point = by[condition, method]
            text = number(point.assd_mm, "assd_mm")
            if condition != "clean" and np.isfinite(point.assd_change):
                text += f" ({100 * point.assd_change:+.0f} %)"
            cells.append(text if point.left_out == 0 else f"{text}, {point.left_out} left out")
        lines.append(f"| {condition} | " + " | ".join(cells) + " |")
    return lines


def coverage_table(points: Sequence[CurvePoint]) -> list[str]:
    """Markdown: shares of errors within one and two sigma under each condition, of the methods that tell a sigma."""
    methods = [method for method in dict.fromkeys(point.method for point in points)
               if any(point.method == method and np.isfinite(point.within_sigma) for point in points)]
    lines = ["| in 1, 2 sigma, whole | " + " | ".join(methods) + " |", "|---" * (1 + len(methods)) + "|"]
    by = {(point.condition, point.method): point for point in points}
    for condition in dict.fromkeys(point.condition for point in points):
        found = [by[condition, method] for method in methods]
        cells = [f"{point.within_sigma:.2f}, {point.within_two_sigma:.2f}" if np.isfinite(point.within_sigma) else "-"
                 for point in found]
        lines.append(f"| {condition} | " + " | ".join(cells) + " |")
    return lines if methods else []


def _p(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
