"""Where the probe has been: outlines of the frames, coloured by the gap to the frame before."""

from __future__ import annotations

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
    """Keeps the outline of every frame, in the volume's frame, mm, and its time."""

    def __init__(self, spacing: float) -> None:
        self._spacing = spacing
        self._outlines: list[tuple[int, NDArray[np.float64]]] = []

    def __len__(self) -> int:
        return len(self._outlines)

    def add(self, stamp: int, outline: NDArray[np.float64]) -> None:
        """Add a frame: ``outline`` (points, 3) mm, closed; ``stamp`` in ns puts late frames in their place."""
        self._outlines.append((stamp, outline))

    def summary(self) -> CoverageSummary:
        """Figures of the whole sweep."""
        gaps = self._gaps([outline for _, outline in self._in_time()])
        return CoverageSummary(len(self._outlines), float(gaps.sum()), float(gaps.max(initial=0.0)))

    def segments(self, at_most: int = 150) -> dict[str, NDArray[np.float64]]:
        """(n, 2, 3) line segments in mm for each of SHADES; of a long sweep every k-th outline and all gaps."""
        outlines = [outline for _, outline in self._in_time()]
        gaps = np.concatenate([[0.0], self._gaps(outlines)]) / self._spacing
        stride = max(len(outlines) // at_most, 1)
        shades: dict[str, list[NDArray[np.float64]]] = {shade: [] for shade in SHADES}
        for number, (outline, gap) in enumerate(zip(outlines, gaps, strict=True)):
            shade = SHADES[int(gap > DENSE_VOXELS) + int(gap > SPARSE_VOXELS)]
            if number % stride == 0 or shade == "gap":
                shades[shade].append(np.stack([outline[:-1], outline[1:]], axis=1))
        return {shade: np.concatenate(parts) if parts else np.empty((0, 2, 3)) for shade, parts in shades.items()}

    def centre(self) -> NDArray[np.float64]:
        """(3,) middle of the newest frame, mm."""
        return self._in_time()[-1][1][:-1].mean(axis=0)

    def _in_time(self) -> list[tuple[int, NDArray[np.float64]]]:
        return sorted(self._outlines, key=lambda item: item[0])

    @staticmethod
    def _gaps(outlines: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        if len(outlines) < 2:
            return np.zeros(0)
        return np.linalg.norm(np.diff([outline[:-1].mean(axis=0) for outline in outlines], axis=0), axis=1)
