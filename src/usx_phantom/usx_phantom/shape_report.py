"""shape_report: measures sampled spines as anatomists do and compares them with published sizes."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh
from usx_common.processes import one_thread_pool
from usx_phantom import shape_report_pictures as pictures
from usx_phantom import shape_statistics as statistics
from usx_phantom.mesh_import import AXES
from usx_phantom.shape_statistics import Row, SampledSpine, ShapeRow

DESCRIPTION = """Sample spines, measure every vertebra's mesh the way anatomists and radiologists do, and compare mean
and spread with published values. Writes morphometry.csv, shapes.csv, table.md, morphometry.png and samples.png. A row
is within when its mean lies within one published SD and its spread within a factor 1.5 of the published one."""
EXAMPLES = """examples:
  shape_report --out out/shapes                               200 spines, two processes, a few minutes
  shape_report --out out/shapes --samples 20                  a quick look
  shape_report --out out/shapes --meshes DIR1 DIR2 ...        and a picture beside real vertebrae (RAS, mm)
With USX_DATA set, real vertebrae for the picture and the mean of 87 patients are taken from its folder shapes."""
MEAN_OF_87 = "clouthier_mean87"


@dataclass(frozen=True)
class Report:
    """What a run found: rows of the two CSV files, and level -> distance (mm) of the mean sample to 87 patients'."""

    rows: list[Row]
    shapes: list[ShapeRow]
    to_mean_of_87: dict[str, float]


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("shape_report", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for tables and pictures")
    p.add_argument("--samples", type=int, default=200, metavar="N", help="number of spines (default 200)")
    p.add_argument("--seed", type=int, default=1000, help="seed of the first spine (default 1000)")
    p.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default 2)")
    p.add_argument("--meshes", type=Path, nargs="*", default=[], metavar="DIR",
                   help="folders of real vertebrae L1..L5 (.ply, mm), shown beside sampled ones")
    p.add_argument("--axes", choices=sorted(AXES), default="RAS", help="axes of --meshes (default RAS)")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def _check(options: argparse.Namespace) -> None:
    if not 2 <= options.samples <= 100000:
        raise UsxError(f"--samples {options.samples}: must be 2 to 100000, a spread needs two")
    if not 0 <= options.seed < 2**31:
        raise UsxError(f"--seed {options.seed}: must be 0 to 2147483647")
    if not 1 <= options.jobs <= 64:
        raise UsxError(f"--jobs {options.jobs}: must be 1 to 64")
    for folder in options.meshes:
        if not folder.is_dir():
            raise UsxError(f"--meshes {folder}: no such folder")
    if options.out.exists() and not options.out.is_dir():
        raise UsxError(f"--out {options.out} is a file: choose a folder")


def make_report(options: argparse.Namespace, console: Console) -> Report:
    """Sample, measure and compare; `options` as of `parser`."""
    seeds = range(options.seed, options.seed + options.samples)
    columns = (TextColumn("{task.description:22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, disable=options.quiet) as progress, _workers(options.jobs) as pool:
        task = progress.add_task("sampling, measuring", total=len(seeds))
        spines: list[SampledSpine] = []
        for spine in _each(pool, statistics.sampled_spine, seeds):
            spines.append(spine)
            progress.advance(task)
        means = {level: statistics.mean_sample(level, [spine.aligned[level] for spine in spines]) for level in LEVELS}
        work = [(level, index, spine.aligned[level], means[level]) for index, spine in enumerate(spines)
                for level in LEVELS]
        task = progress.add_task("distances to the mean", total=len(work))
        distances: dict[tuple[str, int], float] = {}
        for (level, index, *_), distance in zip(work, _each(pool, statistics.distance_to_mean, work), strict=True):
            distances[level, index] = distance
            progress.advance(task)
    shapes = [ShapeRow(level, seeds[index], distances[level, index], *spine.checks[level])
              for level in LEVELS for index, spine in enumerate(spines)]
    return Report(statistics.compare_with_published([spine.measures for spine in spines]), shapes,
                  _to_mean_of_87(means))


@contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes of one thread each, as the samples are what runs side by side; none for one job."""
    if jobs == 1:
        yield None
        return
    with one_thread_pool(jobs) as pool:
        yield pool


def _each(pool: ProcessPoolExecutor | None, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    if pool is None:
        return map(function, items)
    return pool.map(function, items, chunksize=max(1, min(5, len(items) // 8)))


def _to_mean_of_87(means: dict[str, Mesh]) -> dict[str, float]:
    folder = data_folder()
    if folder is None or not (folder / MEAN_OF_87).is_dir():
        return {}
    found = {}
    for level, mean in means.items():
        path = folder / MEAN_OF_87 / f"{level}.ply"
        if path.is_file():
            found[level] = statistics.distance_after_fit(mean, read_mesh(path).transformed(AXES["RAS"]))
    return found


def data_folder() -> Path | None:
    """Folder of real shapes that the environment variable USX_DATA leads to, where there is one."""
    folder = Path(os.environ.get("USX_DATA", "")) / "shapes"
    return folder if os.environ.get("USX_DATA") and folder.is_dir() else None


def write_tables(report: Report, out: Path) -> None:
    """morphometry.csv, shapes.csv and table.md in the folder `out`."""
    with (out / "morphometry.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("measure", "level", "mean", "sd", "published_mean", "published_sd", "within"))
        writer.writerows((r.measure, r.level, f"{r.mean:.3f}", f"{r.sd:.3f}", f"{r.published_mean:.3f}",
                          f"{r.published_sd:.3f}", str(r.within).lower()) for r in report.rows)
    with (out / "shapes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("level", "sample", "to_population_mean_mm", "asymmetry_mm", "watertight", "genus"))
        writer.writerows((s.level, s.sample, f"{s.to_population_mean:.4f}", f"{s.asymmetry:.4f}",
                          str(s.watertight).lower(), s.genus) for s in report.shapes)
    (out / "table.md").write_text(statistics.markdown(report.rows, report.shapes, report.to_mean_of_87),
                                  encoding="utf-8")


def print_tables(report: Report, console: Console) -> None:
    """The two tables on the terminal, at most 100 columns wide."""
    table = Table("measure, mm", *LEVELS, title="mean and SD of the samples (published)", box=None, pad_edge=False)
    for cells in statistics.grid(report.rows):
        table.add_row(*cells)
    console.print(table)
    table = Table("shapes", *LEVELS, box=None, pad_edge=False)
    for cells in statistics.shape_grid(report.shapes, report.to_mean_of_87):
        table.add_row(*cells)
    console.print(table)
    outside = [f"{r.measure} {r.level}" for r in report.rows if not r.within]
    console.print(f"{len(report.rows) - len(outside)} of {len(report.rows)} measures are within"
                  + (f"; outside: {', '.join(outside)}" if outside else ""))


def real_vertebrae(options: argparse.Namespace) -> list[tuple[str, Mesh]]:
    """Real vertebrae for the picture: from --meshes or USX_DATA, else none. Raises UsxError for empty folders."""
    if options.meshes:
        real = pictures.real_vertebrae(options.meshes, options.axes)
        if not real:
            raise UsxError(f"--meshes: none of L1.ply to L5.ply is in {', '.join(str(f) for f in options.meshes)}")
        return real
    data = data_folder()
    return [] if data is None else pictures.real_of_data(data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; exit status 2 for bad input."""
    options = parser().parse_args(arguments)
    console = Console(width=100) if not sys.stdout.isatty() else Console()
    try:
        _check(options)
        real = real_vertebrae(options)
        options.out.mkdir(parents=True, exist_ok=True)
        report = make_report(options, console)
        write_tables(report, options.out)
        print_tables(report, console)
        plt.switch_backend("Agg")
        pictures.morphometry_picture(options.out / "morphometry.png", report.rows)
        pictures.samples_picture(options.out / "samples.png", options.seed, real)
        if not report.to_mean_of_87:
            console.print("no comparison with the mean of 87 patients: USX_DATA names no folder that holds it")
    except UsxError as error:
        print(f"shape_report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
