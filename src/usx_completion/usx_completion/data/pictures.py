"""Pictures of what the presets do: whole spines and single inputs over the true bones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from usx_common.drawing import FROM_BEHIND, FROM_LEFT, View, draw_meshes, draw_points, save_small
from usx_common.levels import LEVELS, label_of_level
from usx_completion.data.examination import Examination, LevelSample
from usx_completion.data.spine_sample import SpineSample

BONE, OWN, NEIGHBOUR, CLUTTER, XRAY, OUTLINE = "#d9d2c3", "#1f6fb4", "#e08214", "#c51b1b", "#74b36a", "#1b6b2a"
LEVEL_COLOURS = ("#1f6fb4", "#e08214", "#3c8f3c", "#8e44ad", "#00a3a3")
VIEWS = (("from behind", FROM_BEHIND), ("from the left", FROM_LEFT))


def draw_spines(path: Path, shown: list[tuple[str, SpineSample, Examination]]) -> None:
    """Seen points coloured by the level they lie on (red: clutter), X-ray bodies in green, over the true bones."""
    figure, grid = plt.subplots(1, 2 * len(shown), figsize=(6.4 * len(shown), 6.0))
    for number, (name, sample, observed) in enumerate(shown):
        for side, (title, view) in enumerate(VIEWS):
            axes = grid[2 * number + side]
            draw_meshes(axes, [sample.meshes[level] for level in LEVELS], [BONE] * len(LEVELS), view)
            for level in LEVELS:
                _cloud(axes, observed.bodies[level].filled[::6], XRAY, view, 0.5)
                _cloud(axes, observed.bodies[level].outline, OUTLINE, view, 1.5)
            points, owners = observed.seen.points[::3], observed.seen.owners[::3]
            for index, colour in enumerate(LEVEL_COLOURS):
                _cloud(axes, points[owners == 20 + index], colour, view, 0.8)
            _cloud(axes, points[owners == 0], CLUTTER, view, 1.2)
            axes.set_title(f"{name}, {title}", fontsize=10)
            _frame(axes, sample, LEVELS, view, 14.0)
    handles = [_dot(colour, level) for colour, level in zip(LEVEL_COLOURS, LEVELS, strict=True)]
    figure.legend(handles=[*handles, _dot(CLUTTER, "no bone"), _dot(OUTLINE, "X-ray")], ncol=7, loc="lower center",
                  frameon=False, fontsize=9)
    _save(figure, path)


def draw_inputs(path: Path, shown: list[tuple[str, SpineSample, LevelSample]]) -> None:
    """One level's normalised input back in mm, over its true mesh: own points, neighbours' points, clutter, X-ray."""
    figure, grid = plt.subplots(2, len(shown), figsize=(5.0 * len(shown), 6.8), squeeze=False)
    for column, (name, sample, level_sample) in enumerate(shown):
        mine, frame = level_sample.input, level_sample.input.normalisation
        points = frame.invert(mine.partial)
        own = mine.owners == label_of_level(level_sample.level)
        for row, (title, view) in enumerate(VIEWS):
            axes = grid[row, column]
            draw_meshes(axes, [sample.meshes[level_sample.level]], [BONE], view)
            _cloud(axes, frame.invert(mine.filled)[::3], XRAY, view, 0.8)
            _cloud(axes, frame.invert(mine.outline), OUTLINE, view, 3.0)
            _cloud(axes, points[own], OWN, view, 1.4)
            _cloud(axes, points[~own & (mine.owners > 0)], NEIGHBOUR, view, 1.4)
            _cloud(axes, points[mine.owners == 0], CLUTTER, view, 2.0)
            axes.set_title(f"{name}: {level_sample.level} {title}", fontsize=10)
            _frame(axes, sample, (level_sample.level,), view, 18.0)
    handles = [_dot(OWN, "on this vertebra"), _dot(NEIGHBOUR, "on a neighbour"), _dot(CLUTTER, "on no bone"),
               _dot(OUTLINE, "X-ray body")]
    figure.legend(handles=handles, ncol=4, loc="lower center", frameon=False, fontsize=9)
    _save(figure, path)


def _cloud(axes: Axes, points: NDArray, colour: str, view: View, size: float) -> None:
    if len(points):
        draw_points(axes, np.asarray(points), colour, view, size)


def _frame(axes: Axes, sample: SpineSample, levels: Sequence[str], view: View, margin_mm: float) -> None:
    """The same limits in every picture of the same bones; stray points beyond them are cut off."""
    flat = view.project(np.concatenate([sample.meshes[level].vertices for level in levels]))
    low, high = flat.min(axis=0) - margin_mm, flat.max(axis=0) + margin_mm
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])


def _dot(colour: str, text: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=colour, markersize=5, label=text)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout(rect=(0, 0.04, 1, 1), pad=0.4)
    save_small(figure, path, 80)
    plt.close(figure)
