"""posture_report: how far spines bend before bones meet, as a table, and what postures look like, as a picture."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from usx_common.drawing import save_small
from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_phantom.mesh_import import AXES, read_spine
from usx_phantom.phantom_pictures import VIEWS, draw
from usx_phantom.posture import PostureChange, random_change
from usx_phantom.spine import sample_spine
from usx_phantom.spine_chain import SpineChain

DESCRIPTION = """Bend spines in stated postures and in random ones, and tell how much of each disc's turn its bones
allowed and how deep neighbours lie in each other before and after. Writes postures.csv and phantom_postures.png."""
EXAMPLES = """examples:
  posture_report --out out/postures                           four sampled spines
  posture_report --out out/postures --meshes verse004 verse009  your own L1..L5 (.ply or .stl, mm)
"""
RANDOM = 4
STATED = {
    "flexion 20": PostureChange(flexion=20.0), "extension 10": PostureChange(flexion=-10.0),
    "bending 15": PostureChange(bending=15.0), "rotation 6": PostureChange(rotation=6.0),
    "scoliosis 25": PostureChange(scoliosis=25.0), "S-curve 20": PostureChange(scoliosis=20.0, double=True),
}
COLUMNS = ("spine", "posture", "disc", "taken", "turn_deg", "overlap_before_mm", "overlap_after_mm")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("posture_report", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the table and the picture")
    p.add_argument("--meshes", type=Path, nargs="*", default=[], metavar="DIR", help="folders with L1..L5 instead")
    p.add_argument("--axes", choices=sorted(AXES), default="RAS", help="axes of --meshes (default RAS)")
    p.add_argument("--count", type=int, default=4, help="sampled spines without --meshes (default 4)")
    return p


def bend(name: str, meshes: dict[str, Mesh], seed: int) -> list[dict[str, object]]:
    """Rows of postures.csv of one spine: the stated postures and RANDOM random ones."""
    chain = SpineChain(meshes)
    before = chain.bend(PostureChange()).overlap
    changes = {**STATED, **{f"random {i}": random_change(100 * seed + i) for i in range(RANDOM)}}
    rows: list[dict[str, object]] = []
    for posture, change in changes.items():
        difference = chain.bend(change)
        turns = difference.disc_turns()
        for disc, taken in difference.taken.items():
            values = (name, posture, disc, f"{taken:.3f}", f"{turns[disc]:.2f}", f"{before[disc]:.3f}",
                      f"{difference.overlap[disc]:.3f}")
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def summary(rows: list[dict[str, object]]) -> Table:
    """By posture: how many discs turned as wanted, the mean share, and the deepest overlaps."""
    table = Table(title="discs of all spines")
    for column in ("posture", "turned as wanted", "mean share", "deepest overlap before, mm", "after, mm"):
        table.add_column(column, justify="left" if column == "posture" else "right")
    names = list(dict.fromkeys(str(row["posture"]).split(" ")[0] if "random" in str(row["posture"])
                               else str(row["posture"]) for row in rows))
    for name in names:
        mine = [row for row in rows if str(row["posture"]).startswith(name)]
        taken, before, after = (np.array([float(str(row[key])) for row in mine])
                                for key in ("taken", "overlap_before_mm", "overlap_after_mm"))
        table.add_row(name, f"{(taken >= 1.0).mean():.0%}", f"{taken.mean():.2f}", f"{before.max():.2f}",
                      f"{after.max():.2f}")
    return table


def picture(path: Path, meshes: dict[str, Mesh]) -> None:
    """The spine as it is and in the stated postures, from behind and from the right."""
    chain = SpineChain(meshes)
    postures = {"as it is": PostureChange(), **STATED}
    figure, grid = plt.subplots(2, len(postures), figsize=(2.0 * len(postures), 7.4))
    for column, (name, change) in enumerate(postures.items()):
        bones = list(chain.bend(change).meshes(meshes).values())
        for row, view in enumerate(("from behind", "from the right")):
            draw(grid[row, column], bones, *VIEWS[view])
        grid[0, column].set_title(name, fontsize=10)
    figure.subplots_adjust(0.0, 0.0, 1.0, 0.95, 0.02, 0.02)
    save_small(figure, path, 64, 48)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, or 2 for bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    console = Console()
    try:
        if not 1 <= options.count <= 1000:
            raise UsxError(f"--count {options.count}: must be 1 to 1000")
        options.out.mkdir(parents=True, exist_ok=True)
        sources: list[Path | int] = options.meshes or list(range(options.count))
        rows: list[dict[str, object]] = []
        shown: dict[str, Mesh] = {}
        for number, source in enumerate(track(sources, "bending", console=console)):
            meshes = sample_spine(source).meshes if isinstance(source, int) else read_spine(source, options.axes)
            shown = shown or meshes
            rows += bend(source.name if isinstance(source, Path) else f"seed {source}", meshes, number)
        with (options.out / "postures.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        picture(options.out / "phantom_postures.png", shown)
    except (UsxError, OSError) as error:
        print(f"posture_report: {error}", file=sys.stderr)
        return 2
    console.print(summary(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
