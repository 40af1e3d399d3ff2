"""Where the probe has been: outlines of the frames, coloured by the gap to the frame before."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHADES = ("dense", "sparse", "gap")
DENSE_VOXELS, SPARSE_VOXELS = 2.0, 6.0  # hole filling bridges up to nine


@dataclass(frozen=True)
class CoverageSummary:
    """``frames`` in the sweep, ``length`` of the way of the image centre (mm), ``largest_gap`` between frames (mm)."""

    frames: int
    length: float
    largest_gap: float

    def __str__(self) -> str:
        return f"{self.frames} frames over {self.length:.0f} mm, largest gap {self.largest_gap:.1f} mm"


class Coverage:
    """Keeps the outline of every frame, in the volume's frame, mm, in the order of their times. One thread at a time.

    Length and largest gap are kept up with every frame, so that a summary of a long sweep costs nothing.
    """

    def __init__(self, spacing: float) -> None:
        self._spacing = spacing
        self._stamps: list[int] = []
        self._outlines: list[NDArray[np.float64]] = []
        self._centres: list[NDArray[np.float64]] = []
        self._gaps: list[float] = []  # to the frame before; 0 for the first
        self._length = self._largest = 0.0

    def __len__(self) -> int:
        return len(self._outlines)

    def add(self, stamp: int, outline: NDArray[np.float64]) -> None:
        """Add a frame: ``outline`` (points, 3) mm, closed; ``stamp`` in ns puts late frames in their place."""
        index = bisect.bisect_right(self._stamps, stamp)
        split = self._gaps[index] if index < len(self._gaps) else 0.0  # the gap that a late frame closes in part
        self._stamps.insert(index, stamp)
        self._outlines.insert(index, outline)
        self._centres.insert(index, outline[:-1].mean(axis=0))
        self._gaps.insert(index, self._gap_before(index))
        new = [self._gaps[index]]
        if index + 1 < len(self._gaps):
            self._gaps[index + 1] = self._gap_before(index + 1)
            new.append(self._gaps[index + 1])
        self._length += sum(new) - split
        self._largest = max(self._gaps) if split and split == self._largest else max(self._largest, *new)

    def summary(self) -> CoverageSummary:
        """Figures of the whole sweep."""
        return CoverageSummary(len(self._outlines), self._length, self._largest)

    def segments(self, at_most: int = 150) -> dict[str, NDArray[np.float64]]:
        """(n, 2, 3) line segments in mm for each of SHADES; of a long sweep every k-th outline and all gaps."""
        stride = max(len(self._outlines) // at_most, 1)
        shades: dict[str, list[NDArray[np.float64]]] = {shade: [] for shade in SHADES}
        for number, (outline, gap) in enumerate(zip(self._outlines, self._gaps, strict=True)):
            voxels = gap / self._spacing
            shade = SHADES[int(voxels > DENSE_VOXELS) + int(voxels > SPARSE_VOXELS)]
            if number % stride == 0 or shade == "gap":
                shades[shade].append(np.stack([outline[:-1], outline[1:]], axis=1))
        return {shade: np.concatenate(parts) if parts else np.empty((0, 2, 3)) for shade, parts in shades.items()}

    def centre(self) -> NDArray[np.float64]:
        """(3,) middle of the newest frame, mm."""
        return self._centres[-1]

    def _gap_before(self, index: int) -> float:
        return float(np.linalg.norm(self._centres[index] - self._centres[index - 1])) if index else 0.0
