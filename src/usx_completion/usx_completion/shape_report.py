"""Command line: how well a shape model completes known spines, as the markdown table of docs/completion.md.

Partial clouds are simulated from the meshes; the answer is compared with the meshes and with the mean shape placed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh
from usx_completion.completion import ShapeModelCompletion
from usx_completion.metrics import SampledSurface, mean_surface_distances
from usx_completion.shape_model import PACKAGED, load_shape_model
from usx_completion.simulated_partial import simulate_partial

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_column(folder: Path) -> dict[str, Mesh]:
    """L1..L5 of a folder of PLY meshes in mm, RAS, as LPS about their middle. Raises UsxError for a missing level."""
    meshes = {level: read_mesh(folder / f"{level}.ply").transformed(RAS_TO_LPS) for level in LEVELS}
    centre = np.mean([mesh.vertices.mean(axis=0) for mesh in meshes.values()], axis=0)
    return {level: Mesh(mesh.vertices - centre, mesh.faces) for level, mesh in meshes.items()}


def row(meshes: dict[str, Mesh], method: ShapeModelCompletion) -> list[tuple[float, float]]:
    """For each level: mean symmetric surface distance in mm of the fit, and of the mean shape placed."""
    partial = simulate_partial(meshes)
    answers = method.complete(partial.points, partial.labels, partial.sources), method.place_mean(
        partial.points, partial.labels, partial.sources)
    values = []
    for level in LEVELS:
        truth = SampledSurface.of(meshes[level])
        fitted, placed = (mean_surface_distances(truth, SampledSurface.of(answer.levels[level].mesh))["whole"]
                          if level in answer.levels else float("nan") for answer in answers)
        values.append((fitted, placed))
    return values


def _spines(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Mesh]]]:
    from usx_phantom.spine import sample_spine

    for seed in options.seeds:
        yield f"generated, seed {seed}", dict(sample_spine(seed).meshes)
    for folder in options.meshes:
        yield f"real, {folder.name}", read_column(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser("shape_report", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[601, 602, 603, 604],
                        help="spines of the phantom's generator; the model learned from seeds of 10000 and more")
    parser.add_argument("--meshes", type=Path, nargs="*", default=[], metavar="DIR",
                        help="folders with L1.ply .. L5.ply, mm, RAS")
    parser.add_argument("--model", type=Path, default=PACKAGED, metavar="FILE", help="shape model (the packaged one)")
    options = parser.parse_args(arguments)
    console = Console(width=200)
    try:
        method = ShapeModelCompletion(load_shape_model(options.model)[0])
        console.print("| spine | " + " | ".join(LEVELS) + " |")
        console.print("|---" * (1 + len(LEVELS)) + "|")
        for name, meshes in _spines(options):
            cells = [f"{fitted:.2f} / {placed:.2f}" for fitted, placed in row(meshes, method)]
            console.print(f"| {name} | " + " | ".join(cells) + " |", highlight=False)
    except UsxError as error:
        print(f"shape_report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
