"""Pose and size of each vertebral body seen in a lateral X-ray, from its labelled points."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.levels import LEVEL_NAMES

Array = NDArray[np.float64]

MIN_POINTS = 12
TRIMMED_PERCENT = 1.0


class BadBodies(UsxError):
    """Vertebral bodies that cannot be measured."""


@dataclass(frozen=True)
class Outline:
    """One body in the sagittal plane. ``centre`` (2,) mm, unit ``up`` (2,) towards cranial and ``back`` (2,) towards
    posterior, ``height`` and ``depth`` in mm along them."""

    centre: Array
    up: Array
    back: Array
    height: float
    depth: float


@dataclass(frozen=True)
class Body:
    """One body in space: ``body_to_spine`` (4, 4) mm (axes x left, y posterior, z cranial of the body, origin at its
    centre), ``height`` and ``depth`` mm, ``spacing``: mm to the neighbours' centres, on average (nan for a lone
    body)."""

    body_to_spine: Array
    height: float
    depth: float
    spacing: float


def measure_outlines(points: Array, labels: NDArray, cranial: Array, posterior: Array) -> dict[int, Outline]:
    """Outlines of the bodies in a plane, from cranial to caudal.

    ``points``: (N, 2) mm, ``labels``: (N,) VerSe numbers; points of other labels are left out. ``cranial`` and
    ``posterior``: (2,) rough directions in the plane. A body's axes are those of the tightest rectangle within 30
    degrees of the line through its neighbours. Raises BadBodies when no level has enough points or when the levels
    do not follow one another from cranial to caudal.
    """
    groups = {label: points[labels == label] for label in LEVEL_NAMES if np.sum(labels == label) >= MIN_POINTS}
    if not groups:
        raise BadBodies(f"no vertebral body with {MIN_POINTS} points or more among the {len(points)} X-ray points")
    centres = np.array([group.mean(axis=0) for group in groups.values()])
    _check_order(centres @ cranial, list(groups))
    outlines = {}
    for i, (label, group) in enumerate(groups.items()):
        chord = centres[max(i - 1, 0)] - centres[min(i + 1, len(centres) - 1)]
        tangent = chord / np.linalg.norm(chord) if len(centres) > 1 else np.asarray(cranial, dtype=np.float64)
        outlines[label] = _tightest(group, tangent, posterior)
    return outlines


def _check_order(heights: Array, labels: list[int]) -> None:
    if np.any(np.diff(heights) >= 0):
        names = ", ".join(f"{LEVEL_NAMES[label]} at {height:.0f} mm" for label, height in zip(labels, heights,
                                                                                            strict=True))
        raise BadBodies(f"the vertebral bodies do not follow one another from cranial to caudal: {names}; check the "
                        "seeds' labels, the patient axes and the X-ray's pose")


def _tightest(group: Array, tangent: Array, posterior: Array) -> Outline:
    best: tuple[float, Outline] | None = None
    for angle in np.radians(np.arange(-30.0, 30.1, 1.0)):
        cosine, sine = np.cos(angle), np.sin(angle)
        up = np.array([cosine * tangent[0] - sine * tangent[1], sine * tangent[0] + cosine * tangent[1]])
        back = np.array([up[1], -up[0]])
        back = back if back @ posterior > 0 else -back
        low, high = np.percentile(group @ np.stack([up, back], axis=1),
                                  [TRIMMED_PERCENT, 100.0 - TRIMMED_PERCENT], axis=0)
        size, middle = high - low, (high + low) / 2.0
        if best is None or size.prod() < best[0]:
            outline = Outline(middle[0] * up + middle[1] * back, up, back, float(size[0]), float(size[1]))
            best = float(size.prod()), outline
    assert best is not None
    return best[1]


def measure_bodies(points: Array, labels: NDArray) -> dict[int, Body]:
    """Bodies in space from X-ray points (N, 3), mm, frame ``spine`` (LPS), with labels (N,). Errors as above.

    A lateral X-ray tells nothing about turns out of its plane: the left axis of a body is that of the spine frame,
    made perpendicular.
    """
    outlines = measure_outlines(points[:, 1:], labels, np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    spacings = mean_spacings([outline.centre for outline in outlines.values()])
    bodies = {}
    for (label, outline), spacing in zip(outlines.items(), spacings, strict=True):
        up = np.array([0.0, *outline.up])
        back = np.array([0.0, *outline.back])
        axes = np.stack([np.cross(back, up), back, up], axis=1)
        origin = np.array([np.median(points[labels == label, 0]), *outline.centre])
        bodies[label] = Body(transforms.make_transform(axes, origin), outline.height, outline.depth, spacing)
    return bodies


def mean_spacings(centres: list[Array]) -> list[float]:
    """Mean distance of each centre to the ones before and after it, mm; nan for a lone one."""
    if len(centres) < 2:
        return [float("nan")] * len(centres)
    gaps = [float(np.linalg.norm(b - a)) for a, b in pairwise(centres)]
    return [float(np.mean(gaps[max(i - 1, 0): i + 1])) for i in range(len(centres))]
