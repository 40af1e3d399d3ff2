"""Training scenes made harder: what goes wrong between a scanner, an X-ray and a registration.

One set of people serves many examples this way. Every number is a field of `AugmentSettings`; the draw of a seed is
always the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from usx_common.transforms import make_transform
from usx_completion.correction.examples import Example
from usx_completion.correction.scene import Scene, observation_of
from usx_completion.correction.start import all_poses, starting_poses
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import ShapeModel

FEWEST_PLACED = 3


@dataclass(frozen=True)
class AugmentSettings:
    """mm, radians and probabilities. ``blind``: the X-ray is missing; ``deaf``: nearly all ultrasound is missing;
    ``displaced``: the X-ray is, half of these by up to ``xray_shift_most`` and ``xray_turn_most`` in any direction, the
    others by a little (SD); ``restarted``: the prior is placed anew by what is left; ``stretch_sd``: relative, of the
    whole spine along each axis."""

    stretch_sd: float = 0.04
    blind: float = 0.2
    body_hidden: float = 0.04
    displaced: float = 0.4
    xray_shift_sd: float = 1.2
    xray_turn_sd: float = 0.02
    xray_shift_most: float = 10.0
    xray_turn_most: float = 0.15
    plane_shift_sd: float = 4.0
    outline_scale_sd: float = 0.015
    noise_most: float = 1.5
    thinned_least: float = 0.35
    cut: float = 0.25
    holes: int = 5
    hole_mm: float = 12.0
    stray: float = 0.03
    unlabelled: float = 0.1
    mislabelled: float = 0.04
    deaf: float = 0.03
    restarted: float = 0.7
    common_turn_sd: float = 0.03
    common_move_sd: float = 1.5
    level_turn_sd: float = 0.035
    level_move_sd: float = 1.2


def augmented(example: Example, settings: AugmentSettings, random: np.random.Generator, model: ShapeModel) -> Example:
    """Another look at the bones, of a larger or smaller person: the scene gets worse, and the prior starts where that
    leads."""
    example = stretched(example, 1.0 + settings.stretch_sd * random.standard_normal(3))
    scene, displaced = example.scene, example.displaced
    blind = random.random() < settings.blind
    if blind:
        scene = replace(scene, poses=example.blind_poses, shown=np.zeros_like(scene.shown))
    else:
        scene, displaced = _xray(scene, displaced, settings, random)
    scene = _ultrasound(scene, settings, random, deaf=not blind and random.random() < settings.deaf)
    poses = _started(model, scene) if random.random() < settings.restarted else scene.poses
    scene = replace(scene, poses=_jittered(poses, settings, random))
    return Example(scene, example.vertices, example.blind_poses, displaced)


def stretched(example: Example, factors: NDArray) -> Example:
    """Bones and all that is seen of them larger by ``factors`` (3,) along the axes of frame spine; the prior is not."""
    scene = example.scene
    axes = scene.plane[1:].astype(np.float64)
    in_plane = (axes * factors) @ axes.T  # by this the plane's coordinates grow: its axes are nearly those of the frame
    grow, turn = in_plane[1:, 1:], np.linalg.inv(in_plane[1:, 1:])
    normals = scene.outline_normals @ turn
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    plane = scene.plane.copy()
    plane[0] = plane[0] * factors
    return Example(replace(scene, points=(scene.points * factors).astype(np.float32), plane=plane,
                           outlines=(scene.outlines @ grow.T).astype(np.float32),
                           outline_normals=normals.astype(np.float32), poses=_farther(scene.poses, factors)),
                   (example.vertices * factors).astype(np.float32), _farther(example.blind_poses, factors),
                   (example.displaced @ grow.T).astype(np.float32))


def _farther(poses: NDArray, factors: NDArray) -> NDArray[np.float64]:
    result = poses.copy()
    result[:, :3, 3] *= factors
    return result


def _started(model: ShapeModel, scene: Scene) -> NDArray[np.float64]:
    """Where what is seen by now puts the levels; where it was before when they cannot be told any more."""
    found = starting_poses(model, observation_of(scene)).poses
    if len(found) < FEWEST_PLACED:
        return scene.poses
    return all_poses(model, found)


def _jittered(poses: NDArray, settings: AugmentSettings, random: np.random.Generator) -> NDArray[np.float64]:
    amount = random.random()
    middle = poses[:, :3, 3].mean(axis=0)
    about = make_transform(np.eye(3), middle)
    common = make_transform(rotation_matrix(amount * settings.common_turn_sd * random.standard_normal(3)),
                            amount * settings.common_move_sd * random.standard_normal(3))
    own = [make_transform(rotation_matrix(amount * settings.level_turn_sd * random.standard_normal(3)),
                          amount * settings.level_move_sd * random.standard_normal(3)) for _ in poses]
    return about @ common @ np.linalg.inv(about) @ poses @ np.stack(own)


def _xray(scene: Scene, displaced: NDArray, settings: AugmentSettings, random: np.random.Generator
          ) -> tuple[Scene, NDArray[np.float32]]:
    """The X-ray shifted and turned in its plane and out of it, a little too large, bodies missing."""
    shown = scene.shown & (random.random(len(scene.shown)) >= settings.body_hidden)
    if random.random() >= settings.displaced:
        return replace(scene, shown=shown), displaced
    if random.random() < 0.5:
        shift = settings.xray_shift_sd * random.standard_normal(2)
        angle = settings.xray_turn_sd * random.standard_normal()
    else:
        towards, amount = random.uniform(0.0, 2.0 * np.pi), random.random()
        shift = amount * settings.xray_shift_most * np.array([np.cos(towards), np.sin(towards)])
        angle = settings.xray_turn_most * random.uniform(-1.0, 1.0)
    size = 1.0 + settings.outline_scale_sd * random.standard_normal()
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = scene.outlines[scene.shown].mean(axis=(0, 1))
    outlines = (scene.outlines - middle) @ (size * turn).T + middle + shift
    moved = 0.5 * (outlines.min(axis=1) + outlines.max(axis=1) - scene.outlines.min(axis=1)
                   - scene.outlines.max(axis=1))
    plane = scene.plane.copy()
    plane[0] += settings.plane_shift_sd * random.standard_normal() * plane[1]
    return (replace(scene, outlines=outlines.astype(np.float32), shown=shown, plane=plane,
                    outline_normals=(scene.outline_normals @ turn.T).astype(np.float32)),
            (displaced - moved).astype(np.float32))


def _ultrasound(scene: Scene, settings: AugmentSettings, random: np.random.Generator, deaf: bool) -> Scene:
    """Points lost, moved, added, and given to the wrong level."""
    points, labels = scene.points.astype(np.float64), scene.labels.copy()
    keep = random.random(len(points)) < random.uniform(settings.thinned_least, 1.0)
    if random.random() < settings.cut:
        side = random.standard_normal(3) * [1.0, 0.3, 0.7]
        across = points @ (side / np.linalg.norm(side))
        keep &= across < np.quantile(across, random.uniform(0.6, 0.95))
    for _ in range(random.integers(0, settings.holes + 1)):
        centre = points[random.integers(len(points))]
        keep &= np.sum((points - centre) ** 2, axis=1) > random.uniform(0.3, 1.0) * settings.hole_mm**2
    if deaf:
        keep &= random.random(len(points)) < 0.05
    if keep.sum() < 100:
        keep[:] = True
    points, labels = points[keep], labels[keep]
    noise = random.uniform(0.0, settings.noise_most)
    points = points + noise * random.standard_normal(points.shape)
    if random.random() < 0.5:
        count = random.integers(0, int(settings.stray * len(points)) + 1)
        low, high = points.min(axis=0), points.max(axis=0)
        points = np.concatenate([points, random.uniform(low, high, (count, 3))])
        labels = np.concatenate([labels, random.integers(0, 6, count).astype(np.int8)])
    luck = random.random()
    if luck < settings.unlabelled:
        labels = np.zeros_like(labels)
    elif scene.shown.any() and luck < settings.unlabelled + settings.mislabelled:  # as if counted wrong by one; without
        # an X-ray to tell, the answer would be another spine
        step = random.choice([-1, 1])
        labels = np.where(labels > 0, np.clip(labels + step, 1, 5), 0).astype(np.int8)
    return replace(scene, points=points.astype(np.float32), labels=labels)
