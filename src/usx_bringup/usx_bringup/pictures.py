"""The pictures of a report: sections of the volume, the X-ray with its bodies, the spine seen and completed."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from usx_common import drawing, transforms
from usx_common.levels import LEVEL_NAMES, SOURCE_XRAY
from usx_common.meshes import Mesh
from usx_common.volumes import Volume

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {"L1": "#e0a458", "L2": "#7fb069", "L3": "#5b9bd5", "L4": "#c77dba", "L5": "#d9695f"}
BONE = "#e8dcc0"
AXIS_NAMES = "xyz"
NEAR_SECTION_MM = 0.75


def draw_volume(path: Path, volume: Volume, bone_mm: NDArray) -> None:
    """Three sections through the middle of the bone surface; ``bone_mm`` (N, 3) in the volume file's frame, world."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.5), facecolor="black")
    size, spacing = np.array(volume.grid.size), volume.grid.spacing
    world_to_index = transforms.invert(volume.grid.index_to_world)
    bone = transforms.apply(world_to_index, bone_mm) if len(bone_mm) else np.empty((0, 3))
    middle = np.median(bone, axis=0) if len(bone) else (size - 1) / 2.0
    for axis, panel in enumerate(axes):
        across, up = [i for i in range(3) if i != axis]
        index = int(np.clip(round(middle[axis]), 0, size[axis] - 1))
        section = np.take(volume.values, index, axis=2 - axis)
        panel.imshow(section, cmap="gray", origin="lower", aspect=spacing[up] / spacing[across])
        near = np.abs(bone[:, axis] - index) * spacing[axis] < NEAR_SECTION_MM
        panel.scatter(bone[near, across], bone[near, up], s=3, c="#ff9f1c", linewidths=0)
        where = volume.grid.index_to_world[axis, axis] * index + volume.grid.origin[axis]
        title = f"{AXIS_NAMES[across]}{AXIS_NAMES[up]} at {AXIS_NAMES[axis]} = {where:.0f} mm"
        panel.set_title(title, color="white", y=0.96)
        panel.set_axis_off()
    _save(figure, path)


def draw_xray(path: Path, pixels: NDArray, labels: NDArray | None) -> None:
    """The radiograph, and over it the outline and name of each segmented body."""
    figure, panel = plt.subplots(figsize=(7.5, 7.5 * pixels.shape[0] / pixels.shape[1]), facecolor="black")
    low, high = np.percentile(pixels, [0.5, 99.5])
    panel.imshow(pixels, cmap="gray", vmin=low, vmax=high)
    for label, name in LEVEL_NAMES.items():
        mask = labels == label if labels is not None else np.zeros(1, bool)
        if mask.any():
            panel.contour(mask, [0.5], colors=[COLOURS[name]], linewidths=1.5)
            row, column = np.argwhere(mask).mean(axis=0)
            panel.text(column, row, name, color=COLOURS[name], ha="center", va="center", fontsize=12, weight="bold")
    panel.set_axis_off()
    _save(figure, path)


def draw_spine(path: Path, partial: tuple[NDArray, NDArray], completed: dict[str, Mesh],
               truth: dict[str, Mesh]) -> None:
    """Partial cloud (points mm, source), completed vertebrae and truth, from the left, from behind, and obliquely."""
    points, source = partial
    columns = ["seen by ultrasound (blue) and X-ray (orange)", "completed"] + (["truth"] if truth else [])
    views = {"from the left": drawing.FROM_LEFT, "from behind": drawing.FROM_BEHIND, "oblique": drawing.OBLIQUE}
    figure, axes = plt.subplots(len(views), len(columns), figsize=(5.5 * len(columns), 17), squeeze=False,
                                facecolor="white")
    everything = np.concatenate([mesh.vertices for mesh in (*completed.values(), *truth.values())])
    for row, (view_name, view) in zip(axes, views.items(), strict=True):
        xray = np.round(source) == SOURCE_XRAY
        drawing.draw_points(row[0], points[xray], "#e08e2b", view)
        drawing.draw_points(row[0], points[~xray], "#2f6fb0", view)
        drawing.draw_meshes(row[1], list(completed.values()), [COLOURS[name] for name in completed], view)
        if truth:
            drawing.draw_meshes(row[2], list(truth.values()), [BONE] * len(truth), view)
        flat = view.project(everything)[:, :2]
        for panel, title in zip(row, columns, strict=True):
            panel.set_xlim(flat[:, 0].min() - 5, flat[:, 0].max() + 5)
            panel.set_ylim(flat[:, 1].min() - 5, flat[:, 1].max() + 5)
            panel.set_title(f"{title}, {view_name}", fontsize=11)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=80, facecolor=figure.get_facecolor())
    plt.close(figure)
