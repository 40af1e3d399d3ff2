"""Picture of the ultrasound report: real and simulated frames side by side, and the mean profile across the bone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from usx_phantom.frame_measures import FrameSet, Measures


def draw_comparison(sets: list[FrameSet], measures: list[Measures], path: Path) -> None:
    """Three frames of every set as scan lines with the bone found in them, and the mean profiles of all sets."""
    figure, axes = plt.subplots(len(sets), 4, figsize=(16, 4.2 * len(sets)), squeeze=False)
    for row, frames, measured in zip(axes, sets, measures, strict=True):
        for axis, number in zip(row, np.linspace(0, len(frames.lines) - 1, 3).astype(int), strict=False):
            _show(axis, frames, measured, int(number))
        for other, theirs in zip(sets, measures, strict=True):
            row[3].plot(theirs.depth, theirs.profile, linewidth=2.5 if other is frames else 0.8, label=other.name)
        row[3].set_xlabel("mm behind the bone line")
        row[3].set_ylabel("mean grey")
        row[3].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _show(axis: Axes, frames: FrameSet, measured: Measures, number: int) -> None:
    lines = frames.lines[number]
    size = (lines.shape[0] * frames.line_mm, lines.shape[1] * frames.sample_mm)
    axis.imshow(lines.T, cmap="gray", vmin=0, vmax=255, extent=(0.0, size[0], size[1], 0.0))
    bone = measured.bones[number]
    if bone is not None:
        found = np.flatnonzero(bone >= 0)
        axis.plot((found + 0.5) * frames.line_mm, bone[found] * frames.sample_mm - 2.0, ".", color="orange",
                  markersize=1.5)
    axis.set_title(f"{frames.name}, frame {number}", fontsize=9)
