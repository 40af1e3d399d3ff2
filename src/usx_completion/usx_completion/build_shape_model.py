"""Command line: build the statistical shape model from spines of the phantom's generator, or from real meshes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.processes import one_thread_pool
from usx_completion.build_from_meshes import add_arguments, build_from_meshes
from usx_completion.correspondence import Template, register
from usx_completion.shape_model import PACKAGED, ShapeModel, save_shape_model
from usx_completion.shape_statistics import AlignedSpines, align_spines, build_model, compactness, generalisation
from usx_completion.surface_distance import surface_distances
from usx_completion.template import make_template

DEMO_SEEDS = 1000
MODE_COUNTS = (0, 1, 5, 10, 20, 30, 40)
EXAMPLES = """examples:
  build_shape_model                                     # the packaged model: 100 spines, seeds 10000..10099
  build_shape_model --count 10 --out /tmp/small.safetensors --jobs 1
  build_shape_model --meshes $USX_DATA/shapes --test verse008 verse009 --out out/real.safetensors --report out/report
"""


@dataclass(frozen=True)
class BuildTask:
    """One spine to register: ``templates`` are the five levels' starting shapes on the common topology."""

    seed: int
    templates: dict[str, Mesh]
    spacing_mm: float


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(prog="build_shape_model", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="number of spines, each of five levels (100)")
    parser.add_argument("--first-seed", type=int, default=10_000, help="seeds are FIRST_SEED .. FIRST_SEED + COUNT - 1 "
                        f"(10000); seeds below {DEMO_SEEDS} belong to demonstrations and are refused")
    parser.add_argument("--modes", type=int, help="number of modes kept (40; from meshes 60)")
    parser.add_argument("--faces", type=int, default=5600, help="faces of the template (5600, about 2,800 vertices)")
    parser.add_argument("--spacing", type=float, default=1.4, help="grid spacing of the sampled meshes in mm (1.4)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--out", type=Path, help="file to write (the packaged model; from meshes it must be named)")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if options.meshes is not None and options.out is None:
        parser.error("--meshes needs --out FILE: the packaged model is made from generated spines")
    options.out = options.out or PACKAGED
    options.modes = options.modes if options.modes is not None else (60 if options.meshes is not None else 40)
    if options.first_seed < DEMO_SEEDS:
        parser.error(f"--first-seed {options.first_seed} is below {DEMO_SEEDS}: those seeds are kept for "
                     "demonstrations, which must show spines that the model has not seen")
    for name, low, high in (("count", 4, 10_000), ("modes", 1, 500), ("faces", 1000, 60_000), ("jobs", 1, 256),
                            ("augment_parametric", 0, 1000), ("largest_mean", 1, 100_000)):
        if not low <= getattr(options, name) <= high:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)} must be within {low} .. {high}")
    if not 0.4 <= options.spacing <= 3.0:
        parser.error(f"--spacing {options.spacing} must be within 0.4 .. 3.0 mm")
    return options


def sample(seed: int, spacing_mm: float) -> dict[str, Mesh]:
    """Level name -> Mesh of one generated spine, mm, LPS."""
    from usx_phantom.spine import sample_spine  # the node must not need the phantom

    return sample_spine(seed, spacing=spacing_mm).meshes


def register_spine(task: BuildTask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vertices (L, V, 3) of the templates bent onto the spine of ``task.seed``, and the error (L,) of each in mm."""
    meshes = sample(task.seed, task.spacing_mm)
    bent, errors = [], []
    for level in LEVELS:
        vertices = register(Template(task.templates[level]), meshes[level])
        back = surface_distances(meshes[level].vertices[::7], Mesh(vertices, task.templates[level].faces))
        bent.append(vertices)
        errors.append(float(back.mean()))
    return np.stack(bent), np.asarray(errors)


def build(options: argparse.Namespace, console: Console) -> tuple[ShapeModel, AlignedSpines]:
    """Sample, register and analyse; prints how good the correspondence is."""
    seeds = list(range(options.first_seed, options.first_seed + options.count))
    first = sample(seeds[0], options.spacing)
    template, body = make_template(first["L3"], options.faces)
    console.print(f"template: {len(template.vertices)} vertices ({int(body.sum())} in the body), "
                  f"{len(template.faces)} faces")
    with one_thread_pool(options.jobs) as pool:
        start = dict.fromkeys(LEVELS, template)
        early, _ = _run(pool, [BuildTask(seed, start, options.spacing) for seed in seeds[: 2 + options.jobs]],
                        "first pass")
        means = align_spines(early, body).means
        tuned = {level: Mesh(means[index], template.faces) for index, level in enumerate(LEVELS)}
        registered, errors = _run(pool, [BuildTask(seed, tuned, options.spacing) for seed in seeds], "registering")
    console.print(f"registration, distance of the sampled surface to the template: mean {errors.mean():.3f} mm, "
                  f"worst vertebra {errors.max():.3f} mm")
    aligned = align_spines(registered, body)
    return build_model(aligned, template.faces, body, options.modes), aligned


def report(model: ShapeModel, aligned: AlignedSpines, console: Console) -> None:
    """Print generalisation and compactness."""
    counts = tuple(count for count in MODE_COUNTS if count <= model.mode_count)
    general = generalisation(aligned, model.faces, counts)
    share = compactness(model)
    console.print("modes  left-out vertex error mm  along the normal mm  share of variance")
    for column, count in enumerate(counts):
        held = share[count - 1] if count else 0.0
        console.print(f"{count:5d}  {general.vertex_mm[column]:24.2f}  {general.normal_mm[column]:19.2f}  {held:17.3f}")
    console.print(f"correlation of the first five modes between levels: {np.round(model.mode_correlation[:5], 2)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse_arguments(arguments)
    console = Console()
    try:
        if options.meshes is not None:
            build_from_meshes(options, console)
        else:
            model, aligned = build(options, console)
            report(model, aligned, console)
            save_shape_model(options.out, model, _metadata(options))
    except (UsxError, OSError) as error:
        print(f"build_shape_model: {error}", file=sys.stderr)
        return 2
    console.print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.2f} MB)")
    return 0


def _run(pool: ProcessPoolExecutor, tasks: list[BuildTask], text: str) -> tuple[NDArray, NDArray]:
    results: Iterator[tuple[NDArray, NDArray]] = pool.map(register_spine, tasks)
    pairs = list(track(results, description=text, total=len(tasks)))
    return np.stack([vertices for vertices, _ in pairs]), np.stack([errors for _, errors in pairs])


def _metadata(options: argparse.Namespace) -> dict[str, str]:
    from importlib.metadata import version

    from usx_phantom.make_phantom import GENERATOR  # the node must not need the phantom

    return {"seeds": f"{options.first_seed}..{options.first_seed + options.count - 1}", "count": str(options.count),
            "generator_version": f"usx_phantom {version('usx_phantom')} sample_spine",
            "generator_revision": str(GENERATOR), "spacing_mm": f"{options.spacing:g}",
            "units": "mm, axes LPS", "licence": "Apache-2.0 (synthetic shapes only)"}


if __name__ == "__main__":
    sys.exit(main())
