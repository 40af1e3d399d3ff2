"""Where the levels are at first: from the bodies in the X-ray, or from the spinous processes in the ultrasound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from usx_common.levels import LEVELS, label_of_level
from usx_common.transforms import Matrix, make_transform

from usx_completion.observation import SpineObservation
from usx_completion.outline import Outline, silhouette
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import ShapeModel


@dataclass(frozen=True)
class Placement:
    """Initial ``level_to_spine`` of the levels that could be told, and why the others could not."""

    poses: dict[str, Matrix]
    reasons: dict[str, str]


def place(model: ShapeModel, observation: SpineObservation, smallest_level: int = 60) -> Placement:
    """Initial poses. With an X-ray: every level whose body was outlined. Without: five spinous processes must show."""
    if not observation.outlines:
        return _from_spinous_processes(model, observation)
    poses: dict[str, Matrix] = {}
    reasons = dict(observation.reasons)
    for level in LEVELS:
        seen = observation.count(label_of_level(level))
        if level not in observation.outlines:
            reasons.setdefault(level, "no body in the X-ray")
        elif seen < smallest_level:
            reasons[level] = f"{seen} ultrasound points after thinning; {smallest_level} are needed"
        else:
            poses[level] = _from_outline(model, observation, level)
    return Placement(poses, reasons)


def _from_outline(model: ShapeModel, observation: SpineObservation, level: str) -> Matrix:
    """Pose of a level: in the X-ray's plane from its outline, across it from the ultrasound's middle."""
    plane = observation.plane
    assert plane is not None  # outlines exist only in a plane
    index = LEVELS.index(level)
    body = model.means[index][model.body]
    tilt, position = best_tilt(body, observation.outlines[level], model.tilt_mean[index, 0])
    rotation = plane.axes.T @ rotation_matrix(np.array([tilt, 0.0, 0.0]))
    origin = plane.origin + position @ plane.axes[1:]
    mine = observation.points[observation.labels == label_of_level(level)]
    middle = 0.5 * (np.quantile(mine[:, 0], 0.02) + np.quantile(mine[:, 0], 0.98))
    origin = origin + plane.axes[0] * (middle - origin[0]) / plane.axes[0, 0]
    return make_transform(rotation, origin)


def best_tilt(body: NDArray, outline: Outline, usual: float) -> tuple[float, NDArray[np.float64]]:
    """Rotation about left-right (rad) and place (2,) in the plane at which the body's silhouette fits the outline.

    2-D iterated closest points with scale from several tilts about the ``usual`` one; the scale is thrown away.
    """
    tree = cKDTree(outline.points)
    best = (np.inf, usual, outline.centre)
    for offset in np.radians([-24.0, -12.0, 0.0, 12.0, 24.0]):
        angle, factor, place_ = usual + offset, 1.0, outline.centre.copy()
        flat = (body @ rotation_matrix(np.array([angle, 0.0, 0.0])).T)[:, 1:]
        place_ = outline.centre - 0.5 * (flat.min(axis=0) + flat.max(axis=0))
        for _ in range(12):
            flat = (body @ rotation_matrix(np.array([angle, 0.0, 0.0])).T)[:, 1:]
            rim = flat[silhouette(flat)] * factor
            distance, nearest = tree.query(rim + place_)
            goal = outline.points[nearest]
            centred, goal_centred = rim - rim.mean(axis=0), goal - goal.mean(axis=0)
            cross = np.sum(centred[:, 0] * goal_centred[:, 1] - centred[:, 1] * goal_centred[:, 0])
            dot = np.sum(centred * goal_centred)
            angle += np.arctan2(cross, dot)
            factor *= np.hypot(cross, dot) / np.sum(centred**2)
            turn = np.array([[dot, -cross], [cross, dot]]) / np.hypot(cross, dot)
            place_ = goal.mean(axis=0) - turn @ rim.mean(axis=0)
        error = float(np.mean(distance**2)) + 4.0 * (angle - usual) ** 2
        if error < best[0]:
            best = (error, float(angle), place_)
    return best[1], best[2]


def _from_spinous_processes(model: ShapeModel, observation: SpineObservation) -> Placement:
    """Not told yet without an X-ray."""
    return Placement({}, {level: "without an X-ray the level cannot be told" for level in LEVELS})
