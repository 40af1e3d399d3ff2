"""Where the levels are at first: from the bodies in the X-ray, or from the spinous processes in the ultrasound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.errors import UsxError
from usx_common.levels import LEVELS, UNKNOWN_LABEL, label_of_level
from usx_common.transforms import Matrix, invert, make_transform
from usx_completion.observation import SpineObservation
from usx_completion.outline import Outline, silhouette
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import ShapeModel
from usx_completion.sideways import moved_sideways
from usx_completion.spinous import spinous_tips, tip_of


@dataclass(frozen=True)
class Placement:
    """Initial ``level_to_spine`` of the levels that could be told, and why the others could not."""

    poses: dict[str, Matrix]
    reasons: dict[str, str]


def place(model: ShapeModel, observation: SpineObservation, smallest_level: int = 60) -> Placement:
    """Initial poses. With an X-ray: every level whose body was outlined. Without: five spinous processes must show.

    A level without an outline is placed by usual steps from the nearest above that has one, or else below.
    """
    if not observation.outlines:
        return _from_spinous_processes(model, observation)
    if not any(observation.count(label_of_level(level)) >= smallest_level for level in LEVELS):
        observation = _labelled_by_bodies(observation)
    poses: dict[str, Matrix] = {}
    reasons = dict(observation.reasons)
    enough = {level: observation.count(label_of_level(level)) >= smallest_level for level in LEVELS}
    for level in LEVELS:
        if not enough[level]:
            seen = observation.count(label_of_level(level))
            reasons[level] = f"{seen} ultrasound points after thinning; {smallest_level} are needed"
        elif level in observation.outlines:
            poses[level] = _from_outline(model, observation, level,
                                         observation.points[observation.labels == label_of_level(level)])
    poses = moved_sideways(model, observation, poses)
    bodies = {level: _from_outline(model, observation, level, observation.points)
              for level in observation.outlines if not enough[level] and len(observation.points)}
    if poses or bodies:
        chain = all_poses(model, {**bodies, **poses})
        poses |= {level: chain[index] for index, level in enumerate(LEVELS) if enough[level] and level not in poses}
    return Placement(poses, {level: reason for level, reason in reasons.items() if level not in poses})


def _labelled_by_bodies(observation: SpineObservation) -> SpineObservation:
    """Ultrasound points of unknown level labelled by the nearest body's height: an arch hangs about 10 mm below it."""
    plane = observation.plane
    assert plane is not None
    names = list(observation.outlines)
    heights = np.asarray([observation.outlines[name].centre[1] for name in names]) - 10.0
    nearest = np.argmin(np.abs(plane.flatten(observation.points)[:, 1, None] - heights[None, :]), axis=1)
    bodies, labels = np.asarray([label_of_level(name) for name in names]), observation.labels
    return replace(observation, labels=np.where(labels == UNKNOWN_LABEL, bodies[nearest], labels))


def all_poses(model: ShapeModel, poses: Mapping[str, Matrix]) -> NDArray[np.float64]:
    """(L, 4, 4): the poses given, and for missing levels those that follow from the usual step to a neighbour.

    ``poses`` must not be empty.
    """
    result: dict[int, Matrix] = {LEVELS.index(level): pose for level, pose in poses.items()}
    for index in range(1, len(LEVELS)):
        if index not in result and index - 1 in result:
            result[index] = result[index - 1] @ usual_step(model, index - 1)
    for index in range(len(LEVELS) - 2, -1, -1):
        if index not in result:
            result[index] = result[index + 1] @ invert(usual_step(model, index))
    return np.stack([result[index] for index in range(len(LEVELS))])


def usual_step(model: ShapeModel, index: int) -> Matrix:
    """Mean pose (4, 4) of the level below in the frame of level ``index``."""
    step = model.step_mean[index]
    return make_transform(rotation_matrix(step[:3]), step[3:])


def _from_outline(model: ShapeModel, observation: SpineObservation, level: str, seen: NDArray) -> Matrix:
    """Pose of a level: in the X-ray's plane from its outline, across it from the middle of the points ``seen``."""
    pose = within_plane(model, observation, level)
    assert observation.plane is not None  # outlines exist only in a plane
    normal = observation.plane.axes[0]
    middle = 0.5 * (np.quantile(seen[:, 0], 0.02) + np.quantile(seen[:, 0], 0.98))
    return make_transform(pose[:3, :3], pose[:3, 3] + normal * (middle - pose[0, 3]) / normal[0])


def within_plane(model: ShapeModel, observation: SpineObservation, level: str) -> Matrix:
    """Pose of a level whose outline is in the X-ray, by that alone: its middle is in the plane."""
    plane = observation.plane
    assert plane is not None
    index = LEVELS.index(level)
    body = model.means[index][model.xray_bodies[index]]
    tilt, position = best_tilt(body, observation.outlines[level], model.tilt_mean[index, 0])
    rotation = plane.axes.T @ rotation_matrix(np.array([tilt, 0.0, 0.0]))
    return make_transform(rotation, plane.origin + position @ plane.axes[1:])


def best_tilt(body: NDArray, outline: Outline, usual: float) -> tuple[float, NDArray[np.float64]]:
    """Rotation about left-right (rad) and place (2,) in the plane at which the body's silhouette fits the outline.

    2-D iterated closest points with scale from several tilts about the ``usual`` one; the scale is thrown away.
    """
    tree, sagittal = cKDTree(outline.points), np.ascontiguousarray(body[:, 1:])
    best = (np.inf, usual, outline.centre)
    for offset in np.radians([-24.0, -12.0, 0.0, 12.0, 24.0]):
        angle, factor, place_ = usual + offset, 1.0, outline.centre.copy()
        flat = _turned(sagittal, angle)
        place_ = outline.centre - 0.5 * (flat.min(axis=0) + flat.max(axis=0))
        for _ in range(12):
            flat = _turned(sagittal, angle)
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


def _turned(sagittal: NDArray, angle: float) -> NDArray[np.float64]:
    """Points (N, 2), y and z, turned about x by an angle in rad."""
    cos, sin = np.cos(angle), np.sin(angle)
    return sagittal @ np.array([[cos, sin], [-sin, cos]])


def _from_spinous_processes(model: ShapeModel, observation: SpineObservation) -> Placement:
    """Poses of L1 to L5 when exactly five spinous processes show; else the reason why the levels cannot be told."""
    try:
        tips = spinous_tips(observation.points)
    except UsxError as error:
        return Placement({}, dict.fromkeys(LEVELS, f"without an X-ray the levels cannot be told: {error}"))
    poses = {}
    for index, level in enumerate(LEVELS):
        rotation = rotation_matrix(model.tilt_mean[index])
        poses[level] = make_transform(rotation, tips[index] - tip_of(model.means[index] @ rotation.T))
    return Placement(poses, {"xray": "no usable X-ray: levels counted from the five spinous processes"})
