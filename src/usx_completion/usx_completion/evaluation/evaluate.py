"""Command line: every method on every test set, with tables, statistics, pictures and robustness."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from usx_common.errors import UsxError
from usx_completion.evaluation.datasets import DatasetPlan, Wanted, plan_datasets
from usx_completion.evaluation.floors import FloorRow
from usx_completion.evaluation.methods import FACTORIES, MethodOptions, chosen_names, open_methods
from usx_completion.evaluation.perturb import CONDITIONS, QUICK_CONDITIONS
from usx_completion.evaluation.report import Report, write_report
from usx_completion.evaluation.running import Job, Work, run_jobs
from usx_completion.evaluation.scoring import VertebraRow
from usx_completion.evaluation.settings import PACKAGED_SETTINGS, EvaluationSettings, read_settings
from usx_completion.evaluation.shape_spread import SpreadRow
from usx_completion.evaluation.tables import terminal_tables, yardsticks
from usx_completion.shape_model import PACKAGED_REAL

DESCRIPTION = """Measure how well methods complete vertebrae, on spines that no model has learned from: spines of the
shape model and real people, each examined as in the paper and as devices behave, and whole acquisitions that went
through the nodes. Nothing is trained. What the figures mean: docs/evaluation.md."""
EXAMPLES = """examples:
  evaluate --out out/evaluation                       all but acquisitions; 10 minutes on two cores
  evaluate --out out/quick --quick                    few spines, under 3 minutes
  evaluate --out out/ssm --methods mean SSM+GP --datasets real-paper --no-robustness
  evaluate --out out/mine --meshes people/            also your own people: people/NAME/L1.ply .. L5.ply, mm, RAS
  evaluate --out out/demo --datasets acquisition --acquisition out/demo out/seed7

Real people (verse008, verse009) are looked for in $USX_DATA/shapes. OUT gets table.md, table.csv, per_vertebra.csv,
per_level.csv, significance.csv, robustness.csv, table.png, cases.png and robustness.png."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("evaluate", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    p.add_argument("--quick", action="store_true", help="few spines: to see that all works")
    p.add_argument("--datasets", nargs="+", default=[], metavar="NAME", help="synthetic-paper, synthetic-realistic, "
                   "real-paper, real-realistic, acquisition, meshes (all that can be made)")
    p.add_argument("--methods", nargs="+", default=[], metavar="NAME",
                   help=f"{', '.join(FACTORIES)} (all that can run)")
    p.add_argument("--meshes", type=Path, metavar="DIR", help="also people of this folder: one sub-folder each, L1..L5 "
                   "as PLY or STL in mm; gives rows DIR-paper and DIR-realistic. Models may have learned from them")
    p.add_argument("--axes", choices=("RAS", "LPS"), default="RAS", help="axes of --meshes (RAS)")
    p.add_argument("--acquisition", nargs="+", type=Path, default=[], metavar="DIR",
                   help="folders that `usx run usx_bringup demo --out DIR` wrote")
    p.add_argument("--shape-model", type=Path, default=PACKAGED_REAL, metavar="FILE", help="shape model of mean, SSM "
                   "and SSM+GP (the packaged one of real people): one built without a person, to leave that one out")
    p.add_argument("--weights", type=Path, metavar="DIR", help="folder of usx.safetensors, "
                   "paper_small_ef_lf.safetensors .. (the packaged ones)")
    p.add_argument("--device", default="cpu", help="device of networks: cpu or cuda (cpu)")
    p.add_argument("--reference", default="", metavar="METHOD", help="method that the others are tested against (the "
                   "best of each dataset)")
    p.add_argument("--no-robustness", action="store_true", help="leave the robustness curves out")
    p.add_argument("--settings", type=Path, default=PACKAGED_SETTINGS, metavar="FILE.yaml",
                   help="splits, seeds and counts (the packaged ones)")
    p.add_argument("--jobs", type=int, default=2, help="processes (2); the results do not depend on it")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


@dataclass
class Collected:
    """What the jobs gave: rows as they are, rows by condition, spread of the true shapes, what
    figures are to be read beside, notes on failed spines."""

    rows: list[VertebraRow] = field(default_factory=list)
    robustness: dict[str, list[VertebraRow]] = field(default_factory=dict)
    spread: list[SpreadRow] = field(default_factory=list)
    floor: list[FloorRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def planned_jobs(plans: Sequence[DatasetPlan], settings: EvaluationSettings, quick: bool, robustness: bool
                 ) -> list[Job]:
    """Every case as it is, then the robustness dataset's first cases under every condition."""
    jobs = [Job(index, number) for index, plan in enumerate(plans) for number in range(plan.cases)]
    wanted = settings.robustness
    where = [index for index, plan in enumerate(plans) if plan.name == wanted.dataset]
    if robustness and where:
        spines = min(wanted.quick_spines if quick else wanted.spines, plans[where[0]].cases)
        jobs += [Job(where[0], number, name) for name in (QUICK_CONDITIONS if quick else CONDITIONS)
                 for number in range(spines)]
    return jobs


def collect(work: Work, console: Console | None) -> Collected:
    """Run the jobs, with a progress bar on ``console``."""
    found = Collected()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console is None, transient=True) as progress:
        task = progress.add_task("evaluating", total=len(work.jobs))
        for result in run_jobs(work):
            job = result.job
            if job.condition:
                found.robustness.setdefault(job.condition, []).extend(result.rows)
            else:
                found.rows.extend(result.rows)
            found.spread.extend(result.spread)
            found.floor.extend(result.floor)
            if result.reason:
                found.notes.append(f"{work.plans[job.dataset].name}, spine {job.case} is left out: {result.reason}")
            progress.update(task, advance=1, description=job.condition or work.plans[job.dataset].name)
    return found


def evaluate(options: argparse.Namespace, console: Console) -> None:
    """Evaluate as the options say, write and print. Raises UsxError for bad input."""
    if not 1 <= options.jobs <= 256:
        raise UsxError(f"--jobs {options.jobs} must be within 1 .. 256")
    began = time.monotonic()
    settings = read_settings(options.settings)
    wanted = Wanted(options.datasets, options.meshes, options.axes, options.acquisition, options.quick)
    plans, notes = plan_datasets(settings, wanted)
    names = chosen_names(options.methods)
    reference = chosen_names([options.reference])[0] if options.reference else ""
    method_options = MethodOptions(options.shape_model, options.device, options.weights)
    methods, missing = open_methods(names, method_options)
    if not methods:
        raise UsxError("there is no method to evaluate: " + "; ".join(missing))
    available = [method.name for method in methods]
    if reference and reference not in available:
        raise UsxError(f"--reference {reference} is not among the methods evaluated: {', '.join(available)}")
    notes = [*(note for note in (getattr(method, "note", "") for method in methods) if note), *missing, *notes]
    for note in notes:
        console.print(note, highlight=False, markup=False)
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = planned_jobs(plans, settings, options.quick, not options.no_robustness)
    work = Work(plans, available, method_options, jobs, options.jobs)
    found = collect(work, None if options.quiet else console)
    for note in dict.fromkeys(found.notes):
        console.print(note, highlight=False, markup=False)
    if not found.rows:
        raise UsxError("no spine could be examined: " + found.notes[0])
    report = Report(found.rows, found.robustness, found.spread, found.floor, [*notes, *dict.fromkeys(found.notes)],
                    reference)
    summary = write_report(options.out, report, work)
    small = [yardstick.table() for yardstick in yardsticks(found.spread, found.floor)]
    for table in [*terminal_tables(summary), *small]:
        console.print(table)
    console.print(f"{options.out / 'table.md'}: all of it ({time.monotonic() - began:.0f} s)", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 done, 2 bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    try:
        evaluate(options, Console(width=None if sys.stdout.isatty() else 100))
    except (UsxError, OSError) as error:
        print(f"evaluate: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
