"""`build_shape_model --meshes DIR`: a shape model of real people, with a report of how good it is."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from usx_common.errors import UsxError
from usx_completion.mesh_build import BuildSettings, Registered, register_subjects, registered_only
from usx_completion.mesh_model import MeshModel, generated_share, learn
from usx_completion.mesh_model_quality import (
    Table,
    compactness_table,
    explained_table,
    generalisation_table,
    joint_table,
    landmark_table,
    registration_table,
    specificity_table,
    spread_table,
)
from usx_completion.mesh_subjects import read_subjects
from usx_completion.shape_model import load_shape_model, save_shape_model

MODE_COUNTS = (0, 5, 10, 20, 30, 40)
KEPT_FOR_TESTS = ("verse008", "verse009")  # throughout the project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of building from meshes."""
    group = parser.add_argument_group("building from meshes of real people")
    group.add_argument("--meshes", type=Path, metavar="DIR", help="folder of one folder a person with L1..L5 as PLY or "
                       "STL, all or some, mm, closed; a folder named ...meanN is the mean of N people")
    group.add_argument("--axes", choices=("RAS", "LPS"), default="RAS", help="axes of the meshes (RAS)")
    group.add_argument("--exclude", nargs="*", default=[], metavar="SUBJECT", help="folders left out, or SUBJECT/LEVEL")
    group.add_argument("--test", nargs="*", metavar="SUBJECT", help="folders left out, on which the finished model is "
                       f"then measured ({' '.join(KEPT_FOR_TESTS)} where there; without a name: none)")
    group.add_argument("--augment-parametric", type=int, default=0, metavar="N", help="spines of the phantom's "
                       "generator that add modes (0); each vertebra of them counts a quarter, and not in the means")
    group.add_argument("--no-mirror", action="store_true", help="do not learn from mirrored copies")
    group.add_argument("--outlier", type=float, default=3.5, help="leave out vertebrae whose shape is farther from "
                       "their level's mean than the median by so many robust standard deviations (3.5; inf keeps all)")
    group.add_argument("--largest-mean", type=int, default=20, help="a mean of more people counts as so many (20)")
    group.add_argument("--cache", type=Path, default=Path("out/registrations"), help="folder that keeps registrations "
                       "for the next time (out/registrations)")
    group.add_argument("--report", type=Path, metavar="DIR", help="write the report's tables (CSV) and pictures there")
    group.add_argument("--licence", default="as the meshes it was built from", help="licence and attribution to store")


def build_from_meshes(options: argparse.Namespace, console: Console) -> None:
    """Read, register, learn, report and save. Raises UsxError for input that no model can be learned from."""
    if not options.outlier > 0.0:
        raise UsxError(f"--outlier {options.outlier} must be above 0")
    asked = options.test or []
    options.exclude = [name for name in options.exclude if name not in asked]
    subjects = read_subjects(options.meshes, options.axes, options.exclude)
    options.test = tested_names([subject.name for subject in subjects], options.test, options.meshes)
    tested = [subject for subject in subjects if subject.name in options.test]
    subjects = [subject for subject in subjects if subject.name not in options.test]
    prior, _ = load_shape_model()
    settings = BuildSettings(not options.no_mirror, options.largest_mean, options.outlier, options.jobs, options.cache)
    registered = register_subjects(subjects, prior, settings, options.augment_parametric)
    for name, reason in registered.dropped:
        console.print(f"left out as an outlier: {name}, {reason}")
    console.print(f"{_people(registered)} people, {_count(registered)} vertebrae; learning")
    learned = learn(registered.people, registered.posed, prior, options.modes, MODE_COUNTS)
    tables = quality(registered, learned)
    if tested:
        tables["test"] = explained_table(registered_only(tested, prior, settings), learned.model)
    for name, table in tables.items():
        _print(console, name, table)
    if options.report is not None:
        write_report(options.report, tables, registered, learned)
    save_shape_model(options.out, learned.model, metadata(options, registered, learned))


def tested_names(found: Sequence[str], asked: Sequence[str] | None, folder: Path) -> list[str]:
    """Folders kept for tests among those ``found``; a BIDS name (sub-verse008) is meant by verse008 too.

    ``asked``: None for those that the project keeps, as far as they are there. Raises UsxError for one that is not.
    """
    wanted = KEPT_FOR_TESTS if asked is None else asked
    by_name = {name.removeprefix("sub-"): name for name in found}
    missing = sorted(name for name in wanted if name.removeprefix("sub-") not in by_name)
    if missing and asked is not None:
        raise UsxError(f"{folder} has no {', '.join(missing)} to test on")
    return [by_name[name.removeprefix("sub-")] for name in wanted if name not in missing]


def quality(registered: Registered, learned: MeshModel) -> dict[str, Table]:
    """The report's tables by name."""
    return {
        "registration": registration_table(registered, learned.model, learned.statistics.local),
        "landmarks": landmark_table(registered, learned.model),
        "generalisation": generalisation_table(learned),
        "specificity": specificity_table(registered, learned),
        "compactness": compactness_table(learned.model),
        "spread": spread_table(learned),
        "joints": joint_table(learned.model),
    }


def write_report(folder: Path, tables: dict[str, Table], registered: Registered, learned: MeshModel) -> None:
    """One CSV file a table, and the pictures."""
    from usx_completion import mesh_model_pictures as pictures  # matplotlib is slow to load

    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            writer.writerows([f"{value:.4f}" if isinstance(value, float) else value for value in row]
                             for row in table.rows)
    pictures.overlays(folder / "shape-model-overlay.png", registered, learned)
    pictures.samples(folder / "shape-model-samples.png", registered, learned)
    pictures.spines(folder / "shape-model-spines.png", learned)
    pictures.curves(folder / "shape-model-curves.png", learned)


def metadata(options: argparse.Namespace, registered: Registered, learned: MeshModel) -> dict[str, str]:
    """What the file says about itself."""
    from importlib.metadata import version

    people, spread = registered.people, learned.model.spread
    names, means = (sorted({registered.names[row].split("/")[0] for row in
                            np.flatnonzero((people.groups == 0) & ((people.mode_weights > 0.0) == single))})
                    for single in (True, False))
    modes, share = generated_share(people, learned.statistics)
    return {"seeds": "none: built from meshes", "count": str(_people(registered)), "subjects": " ".join(names),
            "mean_shapes": " ".join(means),
            "left_out": " ".join([*options.exclude, *options.test, *(name for name, _ in registered.dropped)]),
            "vertebrae": str(_count(registered)), "mirrored": str(not options.no_mirror),
            "generated_spines": str(options.augment_parametric),
            "generated_modes": f"{modes} of {learned.model.mode_count} modes owe more than half of their variance to "
                               f"generated spines, {share:.0%} of the variance of all; their size is people's",
            "generator_version": f"usx_completion {version('usx_completion')} build_shape_model --meshes",
            "amplitude": "mean distance along the normal, mm, L1..L5: to the mean "
                         + " ".join(f"{value:.2f}" for value in spread.to_mean_mm) + "; left over by the modes "
                         + " ".join(f"{value:.2f}" for value in spread.left_over_mm),
            "units": "mm, axes LPS", "licence": options.licence}


def _count(registered: Registered) -> int:
    people = registered.people
    return int(np.sum((people.groups == 0) & (people.copies == 0) & (people.mode_weights > 0.0)))


def _people(registered: Registered) -> int:
    people = registered.people
    return len(np.unique(people.subjects[(people.groups == 0) & (people.mode_weights > 0.0)]))


def _print(console: Console, name: str, table: Table) -> None:
    """The short tables whole; of the long ones what sums them up."""
    rows = table.rows
    if name == "registration":
        rows = rows[-1:]
    elif name == "compactness":
        rows = [row for row in rows if row[0] in (1, 2, 5, 10, 20, 30, 40, 60, 80)]
    console.print(f"\n{name}: " + ", ".join(table.columns), highlight=False)
    for row in rows:
        console.print("  " + "  ".join(f"{value:7.3f}" if isinstance(value, float) else f"{value!s:>7}"
                                       for value in row), highlight=False)
