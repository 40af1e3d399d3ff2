"""A partial spine as the network takes it, and its true vertices where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS, UNKNOWN_LABEL, label_of_level
from usx_completion.correction.start import starting_poses
from usx_completion.observation import SpineObservation
from usx_completion.outline import BINS, Outline, XrayPlane
from usx_completion.placement import all_poses
from usx_completion.shape_model import ShapeModel

MOST_POINTS = 4500


class NothingPlaced(UsxError):
    """No level can be placed; ``reasons``: level -> sentence."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(sorted(set(reasons.values()))) or "no level could be placed")
        self.reasons = dict(reasons)


@dataclass(frozen=True)
class Scene:
    """One spine; L = 5 levels, N ultrasound points, mm, frame spine.

    ``points`` (N, 3) float32; ``labels`` (N,) int8, 0 unknown or 1 .. 5; ``outlines`` and ``outline_normals``
    (L, 72, 2) float32 in the X-ray's plane (zeros where ``shown`` (L,) is false); ``plane`` (4, 3): its origin, then
    its normal, posterior and cranial axis; ``poses`` (L, 4, 4) where the prior starts; ``placed`` (L,) whether the
    level was placed by what is seen of it.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int8]
    outlines: NDArray[np.float32]
    outline_normals: NDArray[np.float32]
    shown: NDArray[np.bool_]
    plane: NDArray[np.float32]
    poses: NDArray[np.float64]
    placed: NDArray[np.bool_]


def make_scene(model: ShapeModel, observation: SpineObservation, smallest_level: int = 60
               ) -> tuple[Scene, dict[str, str]]:
    """The scene of an observation and the reasons (level -> sentence) for levels that could not be placed.

    ``smallest_level``: points that a level must have. Where no level has them, the X-ray is taken alone, and the scene
    has no points.

    Raises NothingPlaced when no level can be placed.
    """
    placement = starting_poses(model, observation, smallest_level)
    if not placement.poses and observation.outlines:
        observation = without_ultrasound(observation)
        placement = starting_poses(model, observation, smallest_level)
    if not placement.poses:
        raise NothingPlaced(placement.reasons)
    outlines = np.zeros((len(LEVELS), BINS, 2), np.float32)
    normals = np.zeros_like(outlines)
    shown = np.zeros(len(LEVELS), bool)
    plane = np.zeros((4, 3), np.float32)
    plane[1:] = np.eye(3)
    if observation.plane is not None:
        plane[0], plane[1:] = observation.plane.origin, observation.plane.axes
    for level, outline in observation.outlines.items():
        index = LEVELS.index(level)
        outlines[index], normals[index], shown[index] = outline.points, outline.normals, True
    points, labels = thinned(observation.points, observation.labels)
    scene = Scene(points.astype(np.float32), levels_of(labels), outlines, normals, shown, plane,
                  all_poses(model, placement.poses), np.array([level in placement.poses for level in LEVELS]))
    return scene, placement.reasons


def without_ultrasound(observation: SpineObservation) -> SpineObservation:
    """The X-ray alone."""
    return replace(observation, points=np.zeros((0, 3)), labels=np.zeros(0, np.int64))


def observation_of(scene: Scene) -> SpineObservation:
    """The observation that a scene was made of, as far as the scene tells."""
    first = label_of_level(LEVELS[0])
    labels = np.where(scene.labels == 0, UNKNOWN_LABEL, scene.labels.astype(np.int64) + first - 1)
    outlines = {level: Outline(scene.outlines[k].astype(np.float64), scene.outline_normals[k].astype(np.float64),
                               scene.outlines[k].mean(axis=0).astype(np.float64))
                for k, level in enumerate(LEVELS) if scene.shown[k]}
    plane = XrayPlane(scene.plane[0].astype(np.float64), scene.plane[1:].astype(np.float64)) if outlines else None
    return SpineObservation(scene.points.astype(np.float64), labels, plane, outlines)


def thinned(points: NDArray, labels: NDArray, most: int = MOST_POINTS) -> tuple[NDArray, NDArray]:
    """At most ``most`` of the points with their labels, evenly from their order."""
    if len(points) <= most:
        return points, labels
    rows = np.linspace(0, len(points) - 1, most).astype(np.int64)
    return points[rows], labels[rows]


def levels_of(labels: NDArray) -> NDArray[np.int8]:
    """(N,) 1 .. 5 for labels 20 .. 24, 0 for unknown."""
    first = label_of_level(LEVELS[0])
    return np.where(labels == UNKNOWN_LABEL, 0, labels.astype(np.int64) - first + 1).astype(np.int8)
