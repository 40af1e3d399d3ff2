"""From millimetres to the network's unit and back, by the input alone.

The rule of the paper: one unit is the left-right extent of the level's partial ultrasound + 30 mm, the origin its
centroid. The truth has no part in it, so the same numbers can be worked out for a patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from usx_common.clouds import finite_rows
from usx_common.errors import UsxError
from usx_common.transforms import Matrix, make_transform


@dataclass(frozen=True)
class NormalisationSettings:
    """``extent_margin_mm`` is added to the left-right extent. ``quantile``: share of the points beyond either end of
    the extent (0: the paper's, the outermost points count; a little above 0 is proof against clutter)."""

    extent_margin_mm: float = 30.0
    quantile: float = 0.0
    smallest_extent_mm: float = 5.0


@dataclass(frozen=True)
class Normalisation:
    """``normalised = (mm - origin_mm) * scale``; ``origin_mm`` (3,), ``scale`` in units per mm."""

    origin_mm: NDArray[np.float64]
    scale: float

    @property
    def unit_mm(self) -> float:
        """Length of one unit in mm."""
        return 1.0 / self.scale

    @property
    def normalised_to_mm(self) -> Matrix:
        """(4, 4) similarity from normalised coordinates to the frame of the points, mm."""
        return make_transform(np.eye(3) / self.scale, self.origin_mm)

    def apply(self, points_mm: ArrayLike) -> NDArray[np.float64]:
        """(N, 3) normalised points of points in mm."""
        return (np.asarray(points_mm, dtype=np.float64) - self.origin_mm) * self.scale

    def invert(self, normalised: ArrayLike) -> NDArray[np.float64]:
        """(N, 3) points in mm of normalised ones; exact but for rounding (below 1e-4 mm for float32 clouds)."""
        return np.asarray(normalised, dtype=np.float64) / self.scale + self.origin_mm


def normalisation_of(partial_mm: ArrayLike, settings: NormalisationSettings | None = None) -> Normalisation:
    """Normalisation of a level's partial ultrasound (N, 3), mm, x = left-right: the only thing it depends on.

    Raises UsxError for a cloud that is empty, not finite, or without left-right extent.
    """
    settings = settings or NormalisationSettings()
    points = np.asarray(partial_mm, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise UsxError(f"a partial cloud of shape {points.shape} cannot be normalised; it must be (N, 3) with N > 0")
    if not finite_rows(points).all():
        raise UsxError("the partial cloud holds numbers that are not finite; drop those points first")
    origin = points.mean(axis=0)
    left, right = np.quantile(points[:, 0] - origin[0], (settings.quantile, 1.0 - settings.quantile))
    if right - left < settings.smallest_extent_mm:
        raise UsxError(f"the partial cloud is {right - left:.2g} mm wide from left to right; at least "
                       f"{settings.smallest_extent_mm:g} mm are needed (are the units metres?)")
    return Normalisation(origin, 1.0 / float(right - left + settings.extent_margin_mm))
