"""Pictures of a shape model of people: templates over the meshes they were bent onto, samples beside real ones."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import trimesh
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from usx_common.drawing import FROM_BEHIND, FROM_LEFT, OBLIQUE, draw_meshes, save_small
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import invert
from usx_completion.mesh_build import Registered
from usx_completion.mesh_model import MeshModel
from usx_completion.mesh_model_quality import compactness_table
from usx_completion.spine_sampler import make_sampler, sample_model_spine

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BONE, SAMPLED, LINE = "#d8c8a6", "#a9bfd6", "#c0392b"
COLOURS = 48


def overlays(path: Path, registered: Registered, learned: MeshModel, count: int = 6) -> None:
    """Sections of meshes (grey) and of the templates bent onto them (red): mid-plane above, across the body below."""
    people = registered.people
    rows = np.flatnonzero((people.groups == 0) & (people.copies == 0) & (people.mode_weights > 0.0))
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    figure, axes = plt.subplots(2, len(rows), figsize=(2.3 * len(rows), 4.6), squeeze=False)
    for column, row in enumerate(rows):
        back = invert(learned.statistics.poses[row])
        target = registered.targets[row].transformed(back)
        template = Mesh(learned.statistics.local[row], learned.model.faces)
        for line, (normal, shown) in enumerate((((1.0, 0.0, 0.0), (1, 2)), ((0.0, 0.0, 1.0), (0, 1)))):
            section(axes[line, column], target, normal, shown, "#555555", 2.2)
            section(axes[line, column], template, normal, shown, LINE, 0.8)
            axes[line, column].set_aspect("equal")
            axes[line, column].set_axis_off()
        axes[1, column].invert_yaxis()
        axes[0, column].set_title(registered.names[row], fontsize=8)
    _save(figure, path)


def section(axes: Axes, mesh: Mesh, normal: tuple[float, float, float], shown: tuple[int, int], colour: str,
            width: float) -> None:
    """Where a plane through the origin cuts a mesh; ``shown``: the two coordinates drawn."""
    lines = trimesh.intersections.mesh_plane(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False),
                                             np.asarray(normal), np.zeros(3))
    axes.add_collection(LineCollection(list(lines[:, :, list(shown)]), colors=colour, linewidths=width,
                                       capstyle="round"))
    axes.autoscale_view()


def samples(path: Path, registered: Registered, learned: MeshModel, count: int = 6) -> None:
    """Real vertebrae of people (upper rows) and sampled ones (lower rows), of the same levels."""
    people = registered.people
    real = np.flatnonzero((people.groups == 0) & (people.copies == 0) & (people.mode_weights > 0.0))
    real = real[np.linspace(1, len(real) - 1, min(count, len(real))).astype(int)]
    sampler = make_sampler(learned.model)
    figure, axes = plt.subplots(4, len(real), figsize=(1.9 * len(real), 6.0), squeeze=False)
    for column, row in enumerate(real):
        level = LEVELS[people.levels[row]]
        mesh = registered.targets[row].transformed(invert(learned.statistics.poses[row]))
        drawn = sample_model_spine(sampler, 100 + column).local(level)
        for line, (shape, colour) in enumerate(((mesh, BONE), (drawn, SAMPLED))):
            draw_meshes(axes[2 * line, column], [shape], [colour], OBLIQUE)
            draw_meshes(axes[2 * line + 1, column], [shape], [colour], FROM_LEFT)
        axes[0, column].set_title(f"real, {level}", fontsize=8)
        axes[2, column].set_title(f"sampled, {level}", fontsize=8)
    _save(figure, path)


def spines(path: Path, learned: MeshModel, count: int = 6) -> None:
    """Whole sampled spines from behind and from the left."""
    sampler = make_sampler(learned.model)
    figure, axes = plt.subplots(2, count, figsize=(1.7 * count, 6.0), squeeze=False)
    colours = [SAMPLED, "#8fa9c4", SAMPLED, "#8fa9c4", SAMPLED]
    for column in range(count):
        meshes = list(sample_model_spine(sampler, column).meshes.values())
        draw_meshes(axes[0, column], meshes, colours, FROM_BEHIND)
        draw_meshes(axes[1, column], meshes, colours, FROM_LEFT)
    _save(figure, path)


def curves(path: Path, learned: MeshModel) -> None:
    """Error left over by number of modes, and the variance they hold."""
    left_out, model = learned.left_out, learned.model
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.0))
    for name, values in (("vertex to vertex", left_out.vertex_mm), ("along the normal", left_out.normal_mm)):
        left.plot(left_out.mode_counts, values.mean(axis=0), marker="o", label=name)
    left.set(xlabel="modes", ylabel="mm left over, person left out", ylim=(0.0, None))
    left.legend(fontsize=8)
    right.plot(*np.asarray(compactness_table(model).rows).T)
    right.set(xlabel="modes", ylabel="share of variance", ylim=(0.0, 1.0))
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout(pad=0.4)
    save_small(figure, path, 90, COLOURS)
    plt.close(figure)
