"""Colours of the view: one per level, grey for intensities, a sequential map for uncertainty."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVEL_NAMES, SOURCE_XRAY

Rgb = tuple[int, int, int]
LEVEL_COLOURS: dict[str, Rgb] = {"L1": (224, 164, 88), "L2": (127, 176, 105), "L3": (91, 155, 213),
                                 "L4": (199, 125, 186), "L5": (217, 105, 95)}
UNKNOWN_COLOUR: Rgb = (170, 170, 170)
BONE_COLOUR: Rgb = (255, 232, 190)
CBCT_COLOUR: Rgb = (120, 130, 150)
XRAY_COLOUR: Rgb = (255, 165, 40)
# Five points of the viridis map (CC0, van der Walt and Smith): even steps of lightness, readable for the colour-blind.
_UNCERTAINTY = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], float)


def uniform(colour: Rgb, count: int) -> NDArray[np.uint8]:
    """(count, 3) times the same colour."""
    return np.tile(np.array(colour, np.uint8), (count, 1))


def of_labels(labels: NDArray) -> NDArray[np.uint8]:
    """(N, 3) colours of VerSe labels (N,)."""
    colours = uniform(UNKNOWN_COLOUR, len(labels))
    for label, name in LEVEL_NAMES.items():
        colours[np.round(labels) == label] = LEVEL_COLOURS[name]
    return colours


def of_partial(labels: NDArray, sources: NDArray) -> NDArray[np.uint8]:
    """(N, 3) colours of a partial cloud: the level's colour, and orange for what the X-ray saw."""
    colours = of_labels(labels)
    colours[np.round(sources) == SOURCE_XRAY] = XRAY_COLOUR
    return colours


def of_intensity(intensity: NDArray) -> NDArray[np.uint8]:
    """(N, 3) greys of intensities 0 .. 255 (N,)."""
    grey = np.clip(intensity, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, None], 3, axis=1)


def of_uncertainty(sigma_mm: NDArray, full_mm: float = 3.0) -> NDArray[np.uint8]:
    """(N, 3) colours of standard deviations in mm (N,): dark at 0, yellow at ``full_mm`` and above."""
    place = np.clip(np.nan_to_num(sigma_mm, nan=full_mm) / full_mm, 0, 1) * (len(_UNCERTAINTY) - 1)
    channels = [np.interp(place, np.arange(len(_UNCERTAINTY)), _UNCERTAINTY[:, i]) for i in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)
