"""Pictures of simulated radiographs and CBCTs: from a CT beside its label map, planes, and the law of the noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from usx_common.volumes import Volume
from usx_phantom.xray import Radiograph

MARK = "#ffb347"


def draw_radiographs(pictures: dict[str, Radiograph], centres: dict[str, NDArray[np.float64]], path: Path) -> Path:
    """Radiographs side by side, each with its title; small crosses at the true `centres` (3,) mm in the last one."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(5.2 * len(pictures), 6.9), facecolor="black", squeeze=False)
    for axis, (title, radiograph) in zip(axes[0], pictures.items(), strict=True):
        show(axis, radiograph)
        axis.set_title(title, color="white", fontsize=11)
    last = list(pictures.values())[-1]
    for level, centre in centres.items():
        column, row = last.project(centre[None])[0]
        axes[0, -1].plot(column, row, "+", color=MARK, markersize=8)
        axes[0, -1].text(column + last.pixels.shape[1] * 0.03, row, level, color=MARK, va="center", fontsize=9)
    return save(figure, path)


def show(axis: Axes, radiograph: Radiograph) -> None:
    """One radiograph with the letters of its directions."""
    axis.imshow(radiograph.pixels, cmap="gray", interpolation="antialiased")
    axis.axis("off")
    first, second = radiograph.patient_orientation
    axis.text(0.98, 0.03, first, color="white", transform=axis.transAxes, ha="right", fontsize=9)
    axis.text(0.03, 0.03, second, color="white", transform=axis.transAxes, fontsize=9)


def draw_planes(volume: Volume, centre: NDArray[np.float64], path: Path) -> Path:
    """Axial, sagittal and coronal planes of a CBCT through `centre` (3,) mm, window -350 to 1150 HU."""
    x, y, z = np.clip(np.rint((centre - volume.grid.origin) / volume.grid.spacing).astype(int), 0,
                      np.array(volume.grid.size) - 1)
    planes = {"axial": volume.values[z], "sagittal": volume.values[::-1, :, x], "coronal": volume.values[::-1, y]}
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.2), facecolor="black")
    for axis, (title, plane) in zip(axes, planes.items(), strict=True):
        axis.imshow(plane, cmap="gray", vmin=-350, vmax=1150, interpolation="antialiased")
        axis.set_title(title, color="white", fontsize=11)
        axis.axis("off")
    return save(figure, path)


def save(figure: plt.Figure, path: Path) -> Path:
    """Write a figure on its own background and close it."""
    figure.tight_layout()
    figure.savefig(path, dpi=80, facecolor=figure.get_facecolor())
    plt.close(figure)
    return path
