"""How sure the network may say it is: what its sigma is multiplied by, learned on spines that it was not trained on.

The network tells where on a vertebra it is less sure. How far off whole examinations are, from tracking, calibration
or a moving patient, shows in how closely the answer lies on the points: the factor is ``scale * residual ** power``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.meshes import Mesh, vertex_normals
from usx_completion.surface_distance import surface_distances

ONE_SIGMA, TWO_SIGMA = 0.6827, 0.9545  # shares of normal errors
NEAR_MM = 4.0  # farther points are not of this bone
RESIDUALS_MM = (0.1, 3.0)
FEWEST = 30


@dataclass(frozen=True)
class SigmaFactor:
    """By what a level's sigma is multiplied, from the ``residual`` of its answer in mm."""

    scale: float = 1.0
    power: float = 0.0

    def of(self, residual: float) -> float:
        """The factor; residuals that are not usual count as the nearest that is."""
        return float(self.scale * np.clip(residual, *RESIDUALS_MM) ** self.power)


def offsets_near(mesh: Mesh, points: NDArray) -> NDArray[np.float64]:
    """(M,) how far those of the ultrasound points (N, 3) that lie near an answer are along its normals, mm."""
    gaps, rows = cKDTree(mesh.vertices).query(points, distance_upper_bound=NEAR_MM)
    near = np.isfinite(gaps)
    return np.einsum("ni,ni->n", points[near] - mesh.vertices[rows[near]], vertex_normals(mesh)[rows[near]])


def residual_of(offsets: NDArray) -> float:
    """Median distance of `offsets_near`, mm; 1 where there are hardly any."""
    return float(np.median(np.abs(offsets))) if len(offsets) >= FEWEST else 1.0


def scaled_errors(answer: Mesh, sigma: NDArray, truth: Mesh) -> NDArray[np.float64]:
    """(V,) distance of each vertex of an answer to the true surface over its ``sigma`` (V,)."""
    return surface_distances(answer.vertices, truth) / sigma


def fit_factor(scaled: list[NDArray], residuals: list[float]) -> SigmaFactor:
    """From the `scaled_errors` and `residual_of` of many levels: the power by least squares of what each level needs,
    the scale between what 68.3 % of all errors within one sigma ask for and 95.5 % within two: real errors have longer
    tails than normal ones, and neither share is to be far off."""
    usual = np.clip(residuals, *RESIDUALS_MM)
    needed = np.log([np.quantile(level, ONE_SIGMA) for level in scaled])
    power = float(np.polyfit(np.log(usual), needed, 1)[0]) if np.ptp(usual) > 0.05 else 0.0
    rest = np.concatenate([level / residual**power for level, residual in zip(scaled, usual, strict=True)])
    one, two = np.quantile(rest, (ONE_SIGMA, TWO_SIGMA))
    return SigmaFactor(float(np.sqrt(one * two / 2.0)), power)


def calibrate(scaled: list[NDArray], residuals: list[float]) -> dict[str, float]:
    """The factor as figures of a validation, with the shares of errors that are then within one and two sigma."""
    factor = fit_factor(scaled, residuals)
    within = np.concatenate([level / factor.of(residual) for level, residual in zip(scaled, residuals, strict=True)])
    return {**{f"sigma_{name}": value for name, value in asdict(factor).items()},
            "within_sigma": float(np.mean(within <= 1.0)), "within_two_sigma": float(np.mean(within <= 2.0))}


def factor_of(card: Mapping[str, str]) -> SigmaFactor:
    """The factor that was found in the validation which a file's card tells of; 1 where there was none."""
    try:
        figures = json.loads(card["validation"])
        return SigmaFactor(float(figures["sigma_scale"]), float(figures.get("sigma_power", 0.0)))
    except (KeyError, ValueError, TypeError):
        return SigmaFactor()
