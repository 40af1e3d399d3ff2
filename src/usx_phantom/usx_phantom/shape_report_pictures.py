"""Pictures of the shape report: sampled sizes against published ones, and sampled vertebrae beside real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh, volume
from usx_phantom.mesh_import import AXES
from usx_phantom.morphometry import anatomical_frame
from usx_phantom.phantom_pictures import VIEWS, draw, oblique
from usx_phantom.shape_statistics import Row
from usx_phantom.spine import sample_spine

# Of the VerSe data set: without fractures, from thin slices.
REAL = (("verse008", "L1"), ("verse004", "L2"), ("verse009", "L3"), ("verse008", "L4"), ("verse004", "L5"),
        ("verse009", "L1"), ("verse008", "L2"), ("verse004", "L3"), ("verse009", "L4"), ("verse008", "L5"))
SHOWN = len(REAL)


def morphometry_picture(path: Path, rows: Sequence[Row]) -> None:
    """Mean and SD of samples and of publications, one panel a measure."""
    measures = list(dict.fromkeys(row.measure for row in rows))
    figure, grid = plt.subplots(3, 5, figsize=(14, 8))
    for axes, measure in zip(grid.flat, measures, strict=False):
        _measure_panel(axes, measure, [row for row in rows if row.measure == measure])
    for axes in list(grid.flat)[len(measures):]:
        axes.axis("off")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower right", fontsize=10)
    _save(figure, path)


def _measure_panel(axes: Axes, measure: str, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    axes.errorbar([p - 0.12 for p in places], [r.published_mean for r in rows], [r.published_sd for r in rows],
                  fmt="s", color="0.55", capsize=4, label="published, mean and SD")
    axes.errorbar([p + 0.12 for p in places], [r.mean for r in rows], [r.sd for r in rows],
                  fmt="o", color="tab:blue", capsize=4, label="sampled, mean and SD")
    for place, row in zip(places, rows, strict=True):
        if not row.within:
            axes.plot(place + 0.12, row.mean, "o", color="tab:red")
    axes.set_xticks(list(places), [row.level for row in rows], fontsize=8)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_title(measure.replace("_", " ") + ", mm", fontsize=10)


def samples_picture(path: Path, seed: int, real: Sequence[tuple[str, Mesh]]) -> None:
    """Ten sampled vertebrae of mixed levels above as many real ones (name, LPS mesh), the same two views and light."""
    rows = 4 if real else 2
    figure, grid = plt.subplots(rows, SHOWN, figsize=(2.2 * SHOWN, 1.75 * rows), squeeze=False)
    for column, (_, level) in enumerate(REAL):
        mesh = sample_spine(seed + column, spacing=1.0).meshes[level]
        _column(grid[0:2, column], f"sampled {level}, seed {seed + column}", mesh)
    for column, (name, mesh) in enumerate(real[:SHOWN]):
        _column(grid[2:4, column], name, mesh)
    for axes in grid.flat:
        axes.axis("off")
    _save(figure, path)


def _column(column: np.ndarray, name: str, mesh: Mesh) -> None:
    own = mesh.transformed(anatomical_frame(mesh))
    for axes, page in zip(column, (oblique(), VIEWS["from behind"]), strict=True):
        draw(axes, [own], *page)
        axes.set_xlim(-56.0, 56.0)
    column[0].set_title(name, fontsize=8)


def real_vertebrae(folders: Sequence[Path], axes: str) -> list[tuple[str, Mesh]]:
    """Up to ten (name, LPS mesh) of mixed levels from folders with some of L1.ply .. L5.ply (mm, `axes`)."""
    there = [(folder, level) for level in LEVELS for folder in folders if (folder / f"{level}.ply").is_file()]
    by_level = [[one for one in there if one[1] == level] for level in LEVELS]
    mixed = [group[turn] for turn in range(len(folders)) for group in by_level if turn < len(group)]
    return [(f"{folder.name} {level}", _read(folder / f"{level}.ply", axes)) for folder, level in mixed[:SHOWN]]


def real_of_data(shapes: Path) -> list[tuple[str, Mesh]]:
    """The ten of `REAL` that are in the folder `shapes` of the development data (RAS, mm)."""
    paths = [(f"{subject} {level}", shapes / subject / f"{level}.ply") for subject, level in REAL]
    return [(name, _read(path, "RAS")) for name, path in paths if path.is_file()]


def _read(path: Path, axes: str) -> Mesh:
    mesh = read_mesh(path).transformed(AXES[axes])
    return mesh if volume(mesh) > 0.0 else Mesh(mesh.vertices, mesh.faces[:, ::-1])


def _save(figure: plt.Figure, path: Path) -> None:
    """A PNG file with 32 steps of each colour: half the size, and no step is seen on a shaded bone."""
    figure.tight_layout()
    figure.set_dpi(72)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    plt.imsave(path, np.where(pixels > 247, 255, pixels // 8 * 8 + 4).astype(np.uint8))
    plt.close(figure)
