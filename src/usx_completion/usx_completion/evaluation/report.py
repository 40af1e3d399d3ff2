"""Everything that an evaluation writes: CSV files, table.md, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from usx_completion.evaluation import pictures, robustness, significance
from usx_completion.evaluation.floors import FloorRow
from usx_completion.evaluation.methods import shape_of
from usx_completion.evaluation.running import Evaluator, Job, Work
from usx_completion.evaluation.scoring import METRICS, VertebraRow, answer
from usx_completion.evaluation.shape_spread import SpreadRow
from usx_completion.evaluation.summary import TABLE_COLUMNS, SummaryRow, best_method, by_level, summarise, write_csv
from usx_completion.evaluation.tables import (
    coverage_table,
    glance_table,
    level_table,
    main_table,
    robustness_table,
    significance_table,
    yardsticks,
)

VERTEBRA_COLUMNS = ("dataset", "case", "subject", "deformation", "level", "method", "part", "unit_mm", *METRICS, "note")
LEVEL_COLUMNS = ("dataset", "method", "level", "n", *METRICS)
INDEPENDENCE = """Wilcoxon signed-rank test (two-sided, paired over vertebrae, not corrected for their number) of each
method against the dataset's reference; Shapiro-Wilk of the differences beside it: below 0.05 they are not normal, and
a t-test would not do. Vertebrae of one person, and postures of the same person, are not independent: with {people}
real people the p-values of real data are far too small, and say no more than that a difference is consistent within
them. All metrics: significance.csv."""


@dataclass(frozen=True)
class Report:
    """What was measured: rows, rows by robustness condition, spread of the true shapes, what figures are to be read
    beside, notes on what was left out, the reference method ("": each dataset's best)."""

    rows: Sequence[VertebraRow]
    robustness: Mapping[str, Sequence[VertebraRow]]
    spread: Sequence[SpreadRow]
    floor: Sequence[FloorRow]
    notes: Sequence[str]
    reference: str


def write_report(out: Path, report: Report, work: Work) -> list[SummaryRow]:
    """Write all files into ``out``; returns the rows of table.csv."""
    plt.switch_backend("Agg")
    summary, levels = summarise(report.rows), by_level(report.rows)
    comparisons = significance.compare_methods(report.rows, report.reference)
    points = robustness.curve_points(report.robustness)
    write_csv(out / "table.csv", TABLE_COLUMNS, (row.flat() for row in summary))
    write_csv(out / "per_vertebra.csv", VERTEBRA_COLUMNS, (row.flat() for row in report.rows))
    write_csv(out / "per_level.csv", LEVEL_COLUMNS, (row.flat() for row in levels))
    write_csv(out / "significance.csv", significance.COLUMNS, (row.flat() for row in comparisons))
    pictures.draw_boxes(out / "table.png", report.rows)
    shown = extremes(report, work)
    if shown:
        pictures.draw_cases(out / "cases.png", shown)
    people = len({row.subject for row in report.rows if row.dataset.startswith("real")})
    text = ["# Evaluation", "", "Research use only; not a medical device.", "",
            "Mean ± standard deviation over vertebrae. n (-k): k vertebrae had no answer.", "", "## At a glance", "",
            *glance_table(summary), "", "## Every part", "", *main_table(summary), "",
            *(f"* {note}" for note in report.notes), "", "![errors](table.png)", "", "## By level", "",
            *level_table(levels), "", "## Differences", "", INDEPENDENCE.format(people=people or "few"), "",
            *significance_table(comparisons), ""]
    for yardstick in yardsticks(report.spread, report.floor):
        text += yardstick.markdown()
    if shown:
        text += ["## Best and worst", "", "![best and worst](cases.png)", ""]
    if points:
        write_csv(out / "robustness.csv", robustness.COLUMNS, (point.flat() for point in points))
        pictures.draw_robustness(out / "robustness.png", points)
        text += ["## Robustness", "", *robustness_table(points), "", "![robustness](robustness.png)", ""]
        coverage = coverage_table(points)
        if coverage:
            text += ["## Sigma with worse input", "", *coverage, ""]
    (out / "table.md").write_text("\n".join(text), encoding="utf-8")
    return summary


def extremes(report: Report, work: Work) -> list[pictures.Shown]:
    """The best and the worst vertebra (surface distance) of each dataset's reference method."""
    evaluator = Evaluator(work.plans, work.methods, work.options)
    shown = []
    for index, plan in enumerate(work.plans):
        name = report.reference or best_method(report.rows, plan.name)
        mine = [row for row in report.rows if (row.dataset, row.method, row.part) == (plan.name, name, "whole")
                and np.isfinite(row.metrics.assd_mm)]
        if not mine:
            continue
        ordered = sorted(mine, key=lambda row: row.metrics.assd_mm)
        method = next(method for method in evaluator.methods if method.name == name)
        for word, row in (("best", ordered[0]), ("worst", ordered[-1])):
            case = evaluator.case(Job(index, row.case))
            prediction = shape_of(answer(case, method)[0][row.level])
            title = f"{plan.name}: {word}\n{row.subject} {row.level}, {name}\n{row.metrics.assd_mm:.2f} mm"
            shown.append(pictures.Shown(title, row.level, case.given, case.truth[row.level], prediction))
    return shown
