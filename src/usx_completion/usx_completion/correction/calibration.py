"""How sure the network may say it is: one factor for sigma, by the errors on spines that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from usx_common.meshes import Mesh
from usx_completion.surface_distance import surface_distances

ONE_SIGMA = 0.6827  # share of normal errors


def scaled_errors(vertices: NDArray, sigma: NDArray, truth: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """(L * V,) distance of each predicted vertex of (L, V, 3) to the true surface (L, V, 3), mm, over its ``sigma``
    (L, V), mm."""
    parts = [surface_distances(mine.astype(np.float64), Mesh(true.astype(np.float64), faces)) / spread
             for mine, spread, true in zip(vertices, sigma, truth, strict=True)]
    return np.concatenate(parts)


def calibrate(scaled: NDArray) -> dict[str, float]:
    """``sigma_scale``: by which sigma is multiplied so that 68.3 % of errors are within it; ``within_two_sigma``: the
    share within twice that, 0.954 for normal errors."""
    scale = float(np.quantile(scaled, ONE_SIGMA))
    return {"sigma_scale": scale, "within_two_sigma": float(np.mean(scaled <= 2.0 * scale))}


def scale_of(card: Mapping[str, str]) -> float:
    """The factor that was found in the validation which a file's card tells of; 1 where there was none."""
    try:
        return float(json.loads(card["validation"])["sigma_scale"])
    except (KeyError, ValueError, TypeError):
        return 1.0
