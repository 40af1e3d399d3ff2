"""How sure the network may say it is: its sigma made honest, as learned on spines that it was not trained on.

The network and the polishing after it tell where on a vertebra they are less sure, but exaggerate: small sigmas are too
small and large ones too large, so a power of them is taken. How far off whole examinations are, from tracking,
calibration or a moving patient, shows in how closely the answer lies on the points, its residual: levels are grouped by
it, each group has a factor, and between the groups the factor is interpolated. Answers to an X-ray alone have no
residual, and a factor of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.errors import UsxError
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.plausibility import FEWEST, NEAR_MM
from usx_completion.surface_distance import surface_distances

ONE_SIGMA, TWO_SIGMA = 0.6827, 0.9545  # shares of normal errors
FIRST_COUNTS = 2.0 / 3.0  # of the first share against the second: misses of 5 and of 3 % are equally bad, and a factor
# that is wrong by a little changes the first 2.2 times as much: (2.2 x 3 / 5)^2 to 1, rounded
GROUPS = 3
LEVELS_PER_GROUP = 20
BINS = 8  # of sigma, to find the power
POWERS = (0.3, 1.5)  # what a validation may ask for
LEAST_MM = 1e-3
WIDEST_MM = 3.0  # larger ones are as wrong as this one: they are too few to tell
ALIKE = 1.05  # residuals that differ by less


@dataclass(frozen=True)
class SigmaScale:
    """Sigma in mm that holds: a factor times sigma to the ``power``, with ``factors`` at the ``residuals`` (mm,
    ascending) of groups of answers, and ``unseen`` of answers to no ultrasound. Raises UsxError for numbers that no
    validation gives."""

    power: float = 1.0
    residuals: tuple[float, ...] = (1.0,)
    factors: tuple[float, ...] = (1.0,)
    unseen: float = 1.0

    def __post_init__(self) -> None:
        numbers = np.array([self.power, *self.residuals, *self.factors, self.unseen])
        if not (np.isfinite(numbers).all() and (numbers > 0.0).all()):
            raise UsxError(f"power {self.power}, residuals {self.residuals}, factors {self.factors} and {self.unseen} "
                           "of sigma must be finite and above 0")
        if not self.residuals or len(self.residuals) != len(self.factors) or (np.diff(self.residuals) <= 0.0).any():
            raise UsxError(f"residuals {self.residuals} must ascend, and have a factor of sigma each: {self.factors}")

    def of(self, sigma: NDArray, residual: float | None) -> NDArray:
        """(V,) mm of a level's sigma (V,) and its residual in mm, None without ultrasound; one beyond the groups counts
        as the nearest."""
        if residual is None:
            return self.unseen * _powered(sigma, self.power)
        factor = np.interp(np.log(max(residual, 1e-6)), np.log(self.residuals), self.factors)
        return factor * _powered(sigma, self.power)


def _powered(sigma: NDArray, power: float) -> NDArray[np.float64]:
    sigma = np.maximum(sigma, LEAST_MM)
    return sigma * np.minimum(sigma, WIDEST_MM) ** (power - 1.0)


def offsets_near(mesh: Mesh, points: NDArray) -> NDArray[np.float64]:
    """(M,) how far those of the ultrasound points (N, 3) that lie near an answer are along its normals, mm."""
    gaps, rows = cKDTree(mesh.vertices).query(points, distance_upper_bound=NEAR_MM)
    near = np.isfinite(gaps)
    return np.einsum("ni,ni->n", points[near] - mesh.vertices[rows[near]], vertex_normals(mesh)[rows[near]])


def residual_of(offsets: NDArray) -> float:
    """Median distance of `offsets_near`, of which there is at least one, mm."""
    return float(np.median(np.abs(offsets)))


@dataclass(frozen=True)
class Judged:
    """A level's answer beside the truth: distance (V,) mm of each vertex to the true surface, ``sigma`` (V,) mm as it
    was told, and `residual_of` the answer, None for one to an X-ray alone."""

    errors: NDArray[np.float64]
    sigma: NDArray[np.float64]
    residual: float | None

    @staticmethod
    def of(answer: Mesh, sigma: NDArray, points: NDArray, truth: Mesh) -> Judged | None:
        """Of an answer to the ultrasound ``points`` (N, 3), all mm and in one frame; None where too few are near, for
        then it is not given. (Nor are answers that are not believed for other reasons, but these are few.)"""
        offsets = offsets_near(answer, points)
        if 0 < len(points) and len(offsets) < FEWEST:
            return None
        residual = residual_of(offsets) if len(points) else None
        return Judged(surface_distances(answer.vertices, truth), np.asarray(sigma, np.float64), residual)


def fit_scale(judged: Sequence[Judged]) -> SigmaScale:
    """What many levels ask for, in groups of as many levels each by their residual; groups that are alike in it are
    one, and so are all where levels are few. Some must have been seen by ultrasound."""
    ordered = sorted((level for level in judged if level.residual is not None), key=_residual)
    count = int(np.clip(len(ordered) // LEVELS_PER_GROUP, 1, GROUPS))
    groups: list[list[Judged]] = []
    for rows in np.array_split(np.arange(len(ordered)), count):
        group = [ordered[row] for row in rows]
        if groups and _middle(group) < ALIKE * _middle(groups[-1]):
            groups[-1] += group
        else:
            groups.append(group)
    power = _power(groups)
    factors = [_factor(group, power) for group in groups]
    unseen = [level for level in judged if level.residual is None]
    return SigmaScale(power, tuple(map(_middle, groups)), tuple(factors),
                      _factor(unseen, power) if unseen else factors[-1])


def _residual(level: Judged) -> float:
    assert level.residual is not None
    return level.residual


def _factor(group: Sequence[Judged], power: float) -> float:
    return max(_needed(_errors(group) / _powered(_sigmas(group), power)), LEAST_MM)


def _middle(group: Sequence[Judged]) -> float:
    return max(float(np.median([_residual(level) for level in group])), 1e-6)


def _errors(group: Sequence[Judged]) -> NDArray[np.float64]:
    return np.concatenate([level.errors for level in group])


def _sigmas(group: Sequence[Judged]) -> NDArray[np.float64]:
    return np.concatenate([level.sigma for level in group])


def _power(groups: Sequence[Sequence[Judged]]) -> float:
    """Slope of the error's spread over sigma, both logarithms, from bins of sigma within each group; 1 where sigma is
    the same everywhere."""
    products, squares = 0.0, 0.0
    for group in groups:
        errors, sigmas = _errors(group), np.maximum(_sigmas(group), LEAST_MM)
        bins = np.array_split(np.argsort(sigmas, kind="stable"), BINS)
        told = np.array([np.log(sigmas[rows]).mean() for rows in bins])
        true = np.log([max(_needed(errors[rows]), 1e-9) for rows in bins])
        products += float((told - told.mean()) @ (true - true.mean()))
        squares += float((told - told.mean()) @ (told - told.mean()))
    alike = squares < 0.01 * BINS * len(groups)  # 10 % up or down
    return 1.0 if alike else float(np.clip(products / squares, *POWERS))


def _needed(scaled: NDArray) -> float:
    """Between the factors for which 68.3 % of errors lie within one sigma and 95.5 % within two: real errors have
    longer tails than normal ones, and neither share is to be far off."""
    one, two = np.quantile(scaled, (ONE_SIGMA, TWO_SIGMA))
    return float(one**FIRST_COUNTS * (two / 2.0) ** (1.0 - FIRST_COUNTS))


def calibrate(judged: Sequence[Judged]) -> dict[str, float]:
    """The scale as figures of a validation, with the shares of errors that are then within one and two sigma, those of
    answers to an X-ray alone apart ("deaf"); no figures where nothing was answered."""
    if all(level.residual is None for level in judged):
        return {}
    scale = fit_scale(judged)
    figures = {"sigma_power": scale.power, "sigma_factor_unseen": scale.unseen}
    for number, (residual, factor) in enumerate(zip(scale.residuals, scale.factors, strict=True), start=1):
        figures |= {f"residual_{number}": residual, f"sigma_factor_{number}": factor}
    for name, seen in (("", True), ("deaf_", False)):
        scaled = [level.errors / scale.of(level.sigma, level.residual) for level in judged
                  if (level.residual is not None) is seen]
        if scaled:
            within = np.concatenate(scaled)
            figures |= {f"{name}within_sigma": float(np.mean(within <= 1.0)),
                        f"{name}within_two_sigma": float(np.mean(within <= 2.0))}
    return figures


def scale_of(card: Mapping[str, str]) -> SigmaScale:
    """The scale that was found in the validation which a file's card tells of. Raises UsxError where it tells none."""
    try:
        figures = json.loads(card["validation"])
        numbers = [number for number in range(1, GROUPS + 1) if f"residual_{number}" in figures]
        residuals, factors = (tuple(float(figures[f"{name}_{number}"]) for number in numbers)
                              for name in ("residual", "sigma_factor"))
        return SigmaScale(float(figures["sigma_power"]), residuals, factors, float(figures["sigma_factor_unseen"]))
    except UsxError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise UsxError("its card tells no scale of sigma (sigma_power, sigma_factor_unseen, residual_1, "
                       f"sigma_factor_1, .. in validation: {type(error).__name__} {error})") from error
