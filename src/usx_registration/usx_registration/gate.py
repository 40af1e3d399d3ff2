"""The quality gate: which results may be published, and why others may not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_registration.rigid import RigidResult

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CoverageLimits:
    """Least number of ultrasound points, and their least extent along the spine in mm."""

    points: int = 300
    extent: float = 60.0


@dataclass(frozen=True)
class FitLimits:
    """Largest median and 95th percentile of the residuals (mm), least share of ultrasound points on the CBCT surface,
    largest deviation from scale 1 per axis, least ratio of the runner-up's cost, largest distance from the guess
    (mm)."""

    median: float = 1.5
    p95: float = 3.0
    overlap: float = 0.4
    scale: float = 0.06
    runner_up: float = 1.08
    shift: float = 45.0


@dataclass(frozen=True)
class Verdict:
    """``passed``; ``reason``: short name of the first failure; ``text``: all failures in words with their numbers;
    ``numbers``: every figure looked at, in mm or as a share."""

    passed: bool
    reason: str = ""
    text: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


def judge(checks: list[tuple[bool, str, str]], numbers: dict[str, float]) -> Verdict:
    """Verdict of (passed, reason, text of the failure) checks."""
    failed = [(reason, text) for passed, reason, text in checks if not passed]
    if not failed:
        return Verdict(True, numbers=numbers)
    return Verdict(False, failed[0][0], "; ".join(text for _, text in failed), numbers)


def extent_along(points: Array, direction: Array) -> float:
    """Extent in mm of the points (N, 3) along a direction, 1 % cut off at either end; 0 for no points."""
    if len(points) == 0:
        return 0.0
    low, high = np.percentile(points @ direction, [1.0, 99.0])
    return float(high - low)


def check_coverage(points: Array, cranial: Array, limits: CoverageLimits) -> Verdict:
    """Is there enough ultrasound bone, (N, 3) mm, spread along ``cranial`` (3,), to be registered?"""
    extent = extent_along(points, cranial)
    return judge([
        (len(points) >= limits.points, "too_few_points",
         f"{len(points)} ultrasound bone points, {limits.points} are needed"),
        (extent >= limits.extent, "too_short",
         f"the sweep shows {extent:.0f} mm of the spine, {limits.extent:.0f} mm are needed"),
    ], {"points": float(len(points)), "extent_mm": extent})


def check_fit(result: RigidResult, scales: Array, spreads: Array, limits: FitLimits) -> Verdict:
    """Is the registration to the CBCT good enough? ``scales``, ``spreads`` (3,): see ``scale.axis_scales``.

    A scale counts as wrong only where it is off by the limit and by three of its standard deviations.
    """
    worst = int(np.argmax(np.abs(scales - 1.0)))
    off = np.abs(scales - 1.0)
    scale_wrong = bool(np.any((off > limits.scale) & (off > 3.0 * spreads)))
    axis = ("left-right", "posterior", "cranial")[worst]
    return judge([
        (result.overlap >= limits.overlap, "low_overlap",
         f"{result.overlap:.0%} of the ultrasound points lie on the CBCT's bone, {limits.overlap:.0%} are needed"),
        (result.median <= limits.median, "large_residual",
         f"median residual {result.median:.2f} mm, at most {limits.median:.2f} mm is allowed"),
        (result.p95 <= limits.p95, "large_residual",
         f"95 % of the residuals reach {result.p95:.2f} mm, at most {limits.p95:.2f} mm is allowed"),
        (result.runner_up >= limits.runner_up, "ambiguous_level",
         f"a pose a level away fits almost as well (cost ratio {result.runner_up:.2f}, {limits.runner_up:.2f} is "
         "needed); sweep more of the spine"),
        (abs(result.shift) <= limits.shift, "far_from_guess",
         f"the fit lies {result.shift:+.0f} mm along the spine from the device chain's guess, at most "
         f"{limits.shift:.0f} mm is allowed"),
        (not scale_wrong, "wrong_scale",
         f"along {axis} the ultrasound is {1 / scales[worst]:.3f} times as large as the CBCT; check the calibration "
         "of probe and X-ray device"),
    ], fit_numbers(result, scales))


def fit_numbers(result: RigidResult, scales: Array) -> dict[str, float]:
    """Figures of a registration for reports: mm, shares, scales, and the standard deviation of its place."""
    deviations = np.sqrt(np.clip(np.diag(result.covariance), 0.0, None))
    return {"residual_median_mm": result.median, "residual_p95_mm": result.p95, "overlap": result.overlap,
            "runner_up": result.runner_up, "shift_mm": result.shift, "scale_left": float(scales[0]),
            "scale_posterior": float(scales[1]), "scale_cranial": float(scales[2]),
            "sd_translation_mm": float(np.linalg.norm(deviations[3:])),
            "sd_rotation_deg": float(np.degrees(np.linalg.norm(deviations[:3])))}
