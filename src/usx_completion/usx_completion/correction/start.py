"""Where the prior is put before the network corrects it: usual vertebrae, placed by the X-ray or by the ultrasound."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS, label_of_level
from usx_common.transforms import Matrix, make_transform
from usx_completion.observation import SpineObservation
from usx_completion.placement import Placement, all_poses, place, within_plane
from usx_completion.point_to_plane import onto_points
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import ShapeModel
from usx_completion.sideways import seen_side

SCALES_MM = (15.0, 12.0, 10.0, 8.0, 6.0, 5.0, 4.0, 4.0)
CLOSE_MM = (8.0, 6.0, 5.0, 4.0)
LOOSE_MM = 6.0  # by how much a level's place may differ from that of the spine as a whole


def starting_poses(model: ShapeModel, observation: SpineObservation, smallest_level: int = 60) -> Placement:
    """``level_to_spine`` of every level that can be told, and the reasons for the others.

    With outlines of bodies as `placement.place` does, or by these alone where there is no ultrasound at all; without,
    by the labels of the ultrasound, each level by its own points; without labels by the five spinous processes.
    """
    if observation.outlines and len(observation.points) == 0:
        missing = dict.fromkeys((level for level in LEVELS if level not in observation.outlines),
                                "neither ultrasound nor a body in the X-ray")
        return Placement({level: within_plane(model, observation, level) for level in observation.outlines},
                         {**missing, **observation.reasons})
    labelled = {level: observation.count(label_of_level(level)) for level in LEVELS}
    if observation.outlines or not any(count >= smallest_level for count in labelled.values()):
        return _onto_arches(model, observation, place(model, observation, smallest_level), labelled, smallest_level)
    seen = {LEVELS.index(level): observation.points[observation.labels == label_of_level(level)]
            for level in LEVELS if labelled[level] >= smallest_level}
    poses = {LEVELS[index]: pose for index, pose in _by_own_points(model, seen).items()}
    reasons = {level: f"{labelled[level]} ultrasound points after thinning; {smallest_level} are needed"
               for level in LEVELS if level not in poses}
    return Placement(poses, {**observation.reasons, **reasons})


def _onto_arches(model: ShapeModel, observation: SpineObservation, placed: Placement, labelled: Mapping[str, int],
                 smallest: int) -> Placement:
    """Bodies placed by the X-ray alone leave the tilt about it and left-right open: the level's own points tell."""
    poses = dict(placed.poses)
    for level, pose in placed.poses.items():
        if labelled[level] >= smallest:
            points = observation.points[observation.labels == label_of_level(level)]
            side = seen_side(model, LEVELS.index(level), pose)
            poses[level] = onto_points(*side, points, np.eye(4), CLOSE_MM) @ pose
    return Placement(poses, placed.reasons)


def _by_own_points(model: ShapeModel, seen: Mapping[int, NDArray]) -> dict[int, Matrix]:
    """The mean spine moved as a whole onto points seen from behind; then every level onto its own.

    As a whole first, because processes look alike from level to level: one level alone may settle on its neighbour.
    """
    chain = mean_chain(model)
    sides = {index: seen_side(model, index, chain[index]) for index in seen}
    gaps = {index: _middle(points) - _middle(sides[index][0]) for index, points in seen.items()}
    common = np.median(list(gaps.values()), axis=0)
    poses = {}
    for index, points in seen.items():
        start = common + np.clip(gaps[index] - common, -LOOSE_MM, LOOSE_MM)
        motion = onto_points(*sides[index], points, make_transform(np.eye(3), start), SCALES_MM)
        poses[index] = motion @ chain[index]
    return poses


def mean_chain(model: ShapeModel) -> NDArray[np.float64]:
    """(L, 4, 4) usual poses of the levels, the middle one at the origin with its usual tilt."""
    middle = len(LEVELS) // 2
    pose = make_transform(rotation_matrix(model.tilt_mean[middle]), np.zeros(3))
    return all_poses(model, {LEVELS[middle]: pose})


def _middle(points: NDArray) -> NDArray[np.float64]:
    low, high = np.quantile(points, [0.05, 0.95], axis=0)
    return 0.5 * (low + high)
