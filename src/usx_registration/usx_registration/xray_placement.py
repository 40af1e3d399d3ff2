"""Placing a lateral X-ray in the ultrasound's space when no device transform is known.

First the rule of US-X Complete (arXiv 2511.15600, section on real data): of the oriented box about the ultrasound's
bone the second principal axis is left-right, and the X-ray lies in the plane through the midpoint of the two lateral
extremes. Then shift and in-plane rotation are refined so that the ultrasound's bone agrees with the X-ray:
the mean posterior surface of each level, placed on the bodies seen in the X-ray, must meet the ultrasound points.
The bounding box is a start, not a promise: the shift to the side is refined as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_common.clouds import principal_axes
from usx_common.errors import UsxError
from usx_common.levels import LEVEL_NAMES
from usx_registration.bodies import MIN_POINTS, BadBodies, measure_bodies
from usx_registration.posterior_template import place_template
from usx_registration.rigid import RigidResult, RigidSettings, register, spread, truncated_cost
from usx_registration.surfaces import Surface, make_surface

Array = NDArray[np.float64]

LATERAL_TILT_DEG = 15.0
FREE = (True, False, False, True, True, True)


class BadPlacement(UsxError):
    """An X-ray that cannot be placed."""


@dataclass(frozen=True)
class MidPlane:
    """Plane of the X-ray: ``normal`` (3,) unit, towards the patient's left, and a ``point`` (3,) in it, mm."""

    normal: Array
    point: Array


@dataclass(frozen=True)
class Placement:
    """``xray_to_spine`` (4, 4) mm; ``fit``: how the ultrasound meets the surfaces expected behind the bodies;
    ``beam_to_left``: whether the beam runs from the patient's right to the left."""

    xray_to_spine: Array
    fit: RigidResult
    beam_to_left: bool


def mid_plane(points: Array) -> MidPlane:
    """The paper's rule for ultrasound bone points (N, 3), mm, frame ``spine`` (LPS).

    1 % of the points are cut off at either lateral end before the extremes are taken. Where the second principal
    axis is more than 15 degrees off the patient's left (a sweep shorter than the spine is wide, or one side only),
    the patient's axis is taken instead.
    """
    _, axes, _ = principal_axes(points)
    normal = axes[1] * (1.0 if axes[1][0] >= 0 else -1.0)
    if normal[0] < np.cos(np.radians(LATERAL_TILT_DEG)):
        normal = np.array([1.0, 0.0, 0.0])
    low, high = np.percentile(points @ normal, [1.0, 99.0])
    middle = np.median(points, axis=0)
    return MidPlane(normal, middle + ((low + high) / 2.0 - middle @ normal) * normal)


def place_xray(points: Array, xray_points: Array, labels: NDArray, beam: str = "auto",
               settings: RigidSettings | None = None) -> Placement:
    """Pose of the X-ray from ultrasound points (N, 3), mm, frame ``spine``, and the bodies' points (M, 3), mm, frame
    ``xray`` (x along columns, y along rows, z along the beam), with VerSe ``labels`` (M,).

    ``beam``: ``left`` (towards the patient's left), ``right``, or ``auto``: whichever agrees better.
    Raises BadPlacement or BadBodies when the bodies cannot be measured; the caller judges the fit's numbers.
    """
    if beam not in ("auto", "left", "right"):
        raise BadPlacement(f"X-ray beam {beam!r} is unknown; it must be auto, left or right")
    settings = settings or RigidSettings(
        inlier=5.0, fine_scales=(6.0, 5.0, 5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0), fine_points=3000, free=FREE)
    plane = mid_plane(points)
    directions = {"auto": (True, False), "left": (True,), "right": (False,)}[beam]
    candidates, problems = [], []
    for to_left in directions:
        try:
            candidates.append(_place(points, xray_points, labels, plane, to_left, settings))
        except BadBodies as error:
            problems.append(str(error))
    if not candidates:
        raise BadBodies(problems[0])
    return min(candidates, key=lambda candidate: candidate.fit.cost)


def _place(points: Array, xray_points: Array, labels: NDArray, plane: MidPlane, to_left: bool,
           settings: RigidSettings) -> Placement:
    film_to_xray = film_axes(xray_points, labels, to_left)
    film_points = transforms.apply(transforms.invert(film_to_xray), xray_points)
    surfaces = place_template(measure_bodies(film_points, labels))
    target = make_surface(np.concatenate(list(surfaces.values())), [0.0, 1.0, 0.0], 2.0)
    spine_to_film = _first_guess(points, target.points, plane)
    starts = _promising(points, target, spine_to_film)
    fit = register(points, target, spine_to_film, np.array([0.0, 0.0, 1.0]), settings, starts)
    xray_to_spine = transforms.invert(film_to_xray @ fit.source_to_target)
    return Placement(xray_to_spine, fit, to_left)


def _promising(points: Array, target: Surface, guess: Array, count: int = 8) -> list[Array]:
    """The best starts of a grid of shifts about the guess, at least 12 mm apart.

    A sweep that misses an end of the spine, or noise beside it, moves middles and extremes by centimetres.
    """
    few = spread(points, 400)
    grid = [transforms.make_transform(np.eye(3), [x, y, z]) @ guess
            for x in np.arange(-30.0, 31.0, 7.5) for y in (-10.0, 0.0, 10.0) for z in np.arange(-56.0, 57.0, 8.0)]
    costs = np.array([truncated_cost(few, target, start, 8.0) for start in grid])
    chosen: list[Array] = []
    for i in np.argsort(costs, kind="stable"):
        if all(np.linalg.norm(grid[i][:3, 3] - other[:3, 3]) > 12.0 for other in chosen):
            chosen.append(grid[i])
        if len(chosen) == count:
            break
    return chosen


def film_axes(xray_points: Array, labels: NDArray, to_left: bool) -> Array:
    """(4, 4) ``film_to_xray``: axes left, posterior and cranial of the patient in the optical frame, mm, origin at
    the mean of the bodies.

    Cranial follows the line through the bodies' centres; the beam's direction decides the side on which posterior is.
    With a single body cranial is up in the image.
    """
    known = [label for label in LEVEL_NAMES if np.sum(labels == label) >= MIN_POINTS]
    if not known:
        raise BadBodies(f"no vertebral body with {MIN_POINTS} points or more among the {len(labels)} X-ray points")
    centres = np.array([xray_points[labels == label].mean(axis=0) for label in known])
    cranial = np.array([0.0, -1.0, 0.0])
    if len(known) > 1:
        cranial = (centres[0] - centres[-1]) * [1.0, 1.0, 0.0]
        cranial /= np.linalg.norm(cranial)
    left = np.array([0.0, 0.0, 1.0 if to_left else -1.0])
    posterior = np.cross(cranial, left)
    return transforms.make_transform(np.stack([left, posterior, cranial], axis=1), centres.mean(axis=0))


def _first_guess(points: Array, template: Array, plane: MidPlane) -> Array:
    """``spine_to_film``: planes together, the middles of both posterior surfaces at the same height and depth."""
    left = plane.normal
    cranial = np.array([0.0, 0.0, 1.0]) - left[2] * left
    cranial /= np.linalg.norm(cranial)
    spine_to_film = np.stack([left, np.cross(cranial, left), cranial])
    turned = points @ spine_to_film.T
    middle = np.array([
        float(plane.point @ left), np.median(turned[:, 1]), np.mean(np.percentile(turned[:, 2], [2, 98]))])
    goal = np.array([0.0, np.median(template[:, 1]), np.mean(np.percentile(template[:, 2], [2, 98]))])
    return transforms.make_transform(spine_to_film, goal - middle)
