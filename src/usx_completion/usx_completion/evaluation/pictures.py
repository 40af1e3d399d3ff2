"""Pictures of an evaluation: errors by method, robustness curves, the worst and the best vertebrae."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from usx_common.drawing import AMBIENT, FROM_BEHIND, FROM_LEFT, LIGHT, View, draw_points, finish, save_small
from usx_common.levels import SOURCE_ULTRASOUND, label_of_level
from usx_common.meshes import Mesh
from usx_completion.evaluation.case import CaseInput
from usx_completion.evaluation.robustness import CurvePoint
from usx_completion.evaluation.scoring import VertebraRow
from usx_completion.evaluation.summary import grouped, values_of
from usx_completion.evaluation.tables import TITLES
from usx_completion.metrics import sampled

COLOURS = ("#8c8c8c", "#e0a030", "#c8602a", "#6aa84f", "#45818e", "#3d6fb4", "#7a4fa3", "#c0266b")
MOST_MM = 4.0
BOXED = ("assd_mm", "cd_t_e4")


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour for each method, in the order of the tables."""
    return {method: COLOURS[index % len(COLOURS)] for index, method in enumerate(methods)}


def draw_boxes(path: Path, rows: Sequence[VertebraRow]) -> None:
    """Box plots over whole vertebrae: surface distance and CD-T, by dataset and method."""
    groups = grouped(rows)
    datasets, methods = (list(dict.fromkeys(key[index] for key in groups)) for index in (0, 1))
    colours = method_colours(methods)
    figure, grid = plt.subplots(len(BOXED), 1, figsize=(max(6.5, 2.6 * len(datasets)), 6.4), squeeze=False)
    for axes, metric in zip(grid[:, 0], BOXED, strict=True):
        for place, dataset in enumerate(datasets):
            for index, method in enumerate(methods):
                values = values_of(groups.get((dataset, method, "whole"), []), metric)
                values = values[np.isfinite(values)]
                if len(values):
                    _box(axes, values, place + 0.8 * ((index + 0.5) / len(methods) - 0.5), 0.62 / len(methods),
                         colours[method])
        axes.set_xticks(range(len(datasets)), datasets)
        axes.set_xlim(-0.5, len(datasets) - 0.5)
        axes.set_ylim(bottom=0.0)
        axes.set_ylabel(f"{TITLES[metric]}, whole vertebra")
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [plt.Line2D([], [], color=colours[method], linewidth=6, label=method) for method in methods]
    figure.legend(handles=handles, ncol=len(methods), loc="upper center", frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    _save(figure, path)


def _box(axes: Axes, values: NDArray, place: float, width: float, colour: str) -> None:
    axes.boxplot(values, positions=[place], widths=width, patch_artist=True, manage_ticks=False,
                 boxprops={"facecolor": colour, "edgecolor": "#333333", "linewidth": 0.7},
                 medianprops={"color": "black"}, whiskerprops={"linewidth": 0.7}, capprops={"linewidth": 0.7},
                 flierprops={"marker": ".", "markersize": 4, "markerfacecolor": colour, "markeredgewidth": 0})


def draw_robustness(path: Path, points: Sequence[CurvePoint]) -> None:
    """Surface distance against how bad the input is: a curve each for what has an amount, bars for the rest."""
    methods = list(dict.fromkeys(point.method for point in points))
    colours = method_colours(methods)
    clean = {point.method: point.assd_mm for point in points if point.condition == "clean"}
    curves = [curve for curve in dict.fromkeys(point.curve for point in points) if curve not in ("clean", "other")]
    others = list(dict.fromkeys(point.condition for point in points if point.curve == "other"))
    figure, grid = plt.subplots(2, max((len(curves) + 1) // 2, 1) + 1, figsize=(12.5, 6.4))
    panels = list(grid[:, :-1].ravel())
    for axes, curve in zip(panels, curves, strict=False):
        for method in methods:
            mine = sorted([(0.0, clean[method]), *((point.amount, point.assd_mm) for point in points
                                                   if point.method == method and point.curve == curve)])
            axes.plot(*zip(*mine, strict=True), color=colours[method], marker="o", markersize=3.5, label=method)
        _frame(axes, curve)
    for axes in panels[len(curves):]:
        axes.set_axis_off()
    wide = figure.add_subplot(grid[0, -1].get_gridspec()[:, -1])
    for axes in grid[:, -1]:
        axes.remove()
    names = ["clean", *others]
    for index, method in enumerate(methods):
        by = {point.condition: point.assd_mm for point in points if point.method == method}
        wide.barh(np.arange(len(names)) + 0.8 * ((index + 0.5) / len(methods) - 0.5), [by[name] for name in names],
                  height=0.75 / len(methods), color=colours[method])
    wide.set_yticks(range(len(names)), names, fontsize=8)
    wide.invert_yaxis()
    wide.set_xlabel("ASSD mm, whole")
    wide.spines[["top", "right"]].set_visible(False)
    handles = [plt.Line2D([], [], color=colours[method], linewidth=4, label=method) for method in methods]
    figure.legend(handles=handles, ncol=len(methods), loc="upper center", frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    _save(figure, path)


def _frame(axes: Axes, curve: str) -> None:
    axes.set_xlabel(curve)
    axes.set_ylabel("ASSD mm, whole")
    axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


@dataclass(frozen=True)
class Shown:
    """A vertebra to draw: its title, level, input, truth and what a method made of it. mm, frame spine."""

    title: str
    level: str
    given: CaseInput
    truth: Mesh
    prediction: Mesh | NDArray[np.float64]


def draw_cases(path: Path, shown: Sequence[Shown], columns: int = 4) -> None:
    """For each vertebra the true surface coloured by its distance to the prediction, from behind and from the left; the
    level's ultrasound points in blue, the outline of the body in the X-ray in green."""
    blocks = -(-len(shown) // columns)
    figure, grid = plt.subplots(2 * blocks, columns, figsize=(3.0 * columns, 5.0 * blocks + 0.6), squeeze=False)
    colours = ScalarMappable(Normalize(0.0, MOST_MM), plt.get_cmap("YlOrRd"))
    for axes in grid.ravel():
        axes.set_axis_off()
    for number, one in enumerate(shown):
        block, column = divmod(number, columns)
        distance = sampled(one.prediction).nearest(one.truth.vertices)[0]
        shades = colours.to_rgba(distance[one.truth.faces].mean(axis=1))[:, :3]
        for row, view in enumerate((FROM_BEHIND, FROM_LEFT)):
            axes = grid[2 * block + row, column]
            _shaded(axes, one.truth, shades, view)
            _input(axes, one, view)
            flat = view.project(one.truth.vertices)
            axes.set_xlim(flat[:, 0].min() - 6, flat[:, 0].max() + 6)
            axes.set_ylim(flat[:, 1].min() - 6, flat[:, 1].max() + 6)
        grid[2 * block, column].set_title(one.title, fontsize=8)
    figure.subplots_adjust(0.01, 0.08, 0.99, 0.95, wspace=0.03, hspace=0.2)
    bar = figure.add_axes((0.3, 0.05, 0.4, 0.012))
    figure.colorbar(colours, cax=bar, orientation="horizontal")
    bar.set_title("distance of the true surface to the prediction, mm", fontsize=8)
    bar.tick_params(labelsize=7)
    _save(figure, path)


def _input(axes: Axes, one: Shown, view: View) -> None:
    mine = (one.given.labels == label_of_level(one.level)) & (one.given.sources == SOURCE_ULTRASOUND)
    points = one.given.points[mine]
    if len(points):
        draw_points(axes, points[:: max(len(points) // 400, 1)], "#1f6fb4", view, 1.5)
    level_input = one.given.inputs.get(one.level)
    if view is FROM_LEFT and level_input is not None and len(level_input.outline):
        outline = level_input.normalisation.invert(level_input.outline)
        flat = view.project(np.concatenate([outline, outline[:1]]))
        axes.plot(flat[:, 0], flat[:, 1], color="#1b6b2a", linewidth=1.2)


def _save(figure: plt.Figure, path: Path) -> None:
    save_small(figure, path, 80, 200)
    plt.close(figure)


def _shaded(axes: Axes, mesh: Mesh, colours: NDArray, view: View) -> None:
    """A mesh with one colour (3,) a face: painter's algorithm, Lambert shading."""
    corners = view.project(mesh.vertices)[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    facing = (normals[:, 2] > 0) & (length > 0)
    light = normals[facing] / length[facing, None] @ (LIGHT / np.linalg.norm(LIGHT))
    shade = (AMBIENT + (1 - AMBIENT) * np.clip(light, 0, 1))[:, None] * colours[facing]
    order = np.argsort(corners[facing][:, :, 2].mean(axis=1), kind="stable")
    axes.add_collection(PolyCollection(list(corners[facing][order][:, :, :2]), facecolors=shade[order],
                                       edgecolors=shade[order], linewidths=0.15))
    finish(axes)
