"""Training scenes made harder: what goes wrong between a scanner, an X-ray and a registration.

One set of people serves many examples this way. Every number is a field of `AugmentSettings`; the draw of a seed is
always the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.transforms import make_transform
from usx_completion.correction.examples import Example
from usx_completion.correction.scene import Scene, observation_of
from usx_completion.correction.start import starting_poses
from usx_completion.data.setting_checks import check_settings
from usx_completion.outline import silhouette
from usx_completion.placement import all_poses
from usx_completion.rigid import align, rotation_matrix
from usx_completion.shape_model import ShapeModel

FEWEST_PLACED = 3
SIDES = np.array([[0.0, 1.0], [0.0, -1.0], [-1.0, 0.0], [1.0, 0.0]])  # above, below, front, back in the X-ray's plane
BACK = 3
ONTO = 4  # rounds of moving an outline onto a body


@dataclass(frozen=True)
class AugmentSettings:
    """mm, radians and probabilities. ``untouched``: all is seen as it was, but by a larger or smaller person; in the
    others, ``blind``: the X-ray is missing; ``deaf``: nearly all ultrasound is missing;
    ``truthful``: the X-ray's own displacement is taken away, so that noisy ultrasound is no sign of a displaced X-ray;
    ``displaced``: the X-ray is, half of these by up to ``xray_shift_most`` and ``xray_turn_most`` in any direction, the
    others by a little (SD); ``drawn``: outlines are drawn by another hand, each side of the bodies (above, below, in
    front, at the back) farther out or in, on all levels (``side_sd``) and on each (``side_level_sd``), the back, where
    pedicles and canal begin, by more (``back_sd``) and more from level to level (``back_trend_sd``); ``restarted``: the
    prior is placed anew by what is left; ``stretch_sd``: relative, of the whole spine along each axis."""

    stretch_sd: float = 0.04
    untouched: float = 0.3
    blind: float = 0.2
    body_hidden: float = 0.04
    truthful: float = 0.35
    displaced: float = 0.4
    xray_shift_sd: float = 1.2
    xray_turn_sd: float = 0.02
    xray_shift_most: float = 10.0
    xray_turn_most: float = 0.15
    plane_shift_sd: float = 4.0
    outline_scale_sd: float = 0.015
    drawn: float = 0.6
    side_sd: float = 0.5
    side_level_sd: float = 0.5
    back_sd: float = 0.7
    back_trend_sd: float = 0.5
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

    def __post_init__(self) -> None:
        shares = ("untouched", "blind", "body_hidden", "truthful", "displaced", "drawn", "thinned_least", "cut",
                  "stray", "unlabelled", "mislabelled", "deaf", "restarted")
        check_settings(self, {name: (0.0, 1.0 if name in shares else 1e3) for name in vars(self)})


def augmented(example: Example, settings: AugmentSettings, random: np.random.Generator, model: ShapeModel) -> Example:
    """Another look at the bones, of a larger or smaller person: the scene gets worse, and the prior starts where that
    leads."""
    example = stretched(example, 1.0 + settings.stretch_sd * random.standard_normal(3))
    if random.random() < settings.untouched:
        return replace(example, scene=_placed(model, example.scene, settings, random))
    scene, displaced = example.scene, example.displaced
    blind = random.random() < settings.blind
    if blind:
        scene = replace(scene, poses=example.blind_poses, shown=np.zeros_like(scene.shown))
    else:
        if random.random() < settings.truthful:
            scene, displaced = put_right(scene, example.vertices, model)
        scene, displaced = _xray(scene, displaced, settings, random)
        if random.random() < settings.drawn:
            scene = _drawn_otherwise(scene, settings, random)
    scene = _ultrasound(scene, settings, random, deaf=not blind and random.random() < settings.deaf)
    return Example(_placed(model, scene, settings, random), example.vertices, example.blind_poses, displaced)


def _placed(model: ShapeModel, scene: Scene, settings: AugmentSettings, random: np.random.Generator) -> Scene:
    """The scene with the prior placed anew by what is seen, or where it was, a little beside."""
    poses = _started(model, scene) if random.random() < settings.restarted else scene.poses
    return replace(scene, poses=_jittered(poses, settings, random))


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


def put_right(scene: Scene, vertices: NDArray, model: ShapeModel) -> tuple[Scene, NDArray[np.float32]]:
    """Every outline turned and moved onto the body that it shows, seen from where the X-ray says that it looked from,
    and what is left of its displacement (L, 2) mm."""
    outlines, normals = scene.outlines.astype(np.float64), scene.outline_normals.astype(np.float64)
    left = np.zeros((len(outlines), 2), np.float32)
    for k, body in enumerate(model.xray_bodies):
        flat = (vertices[k][body] - scene.plane[0]) @ scene.plane[2:].T
        rim = flat[silhouette(flat)]
        outlines[k] += _middle(rim) - _middle(outlines[k])
        for _ in range(ONTO):
            near = outlines[k][cKDTree(outlines[k]).query(rim)[1]]
            onto = align(np.pad(near, ((0, 0), (0, 1))), np.pad(rim, ((0, 0), (0, 1))))
            outlines[k] = outlines[k] @ onto[:2, :2].T + onto[:2, 3]
            normals[k] = normals[k] @ onto[:2, :2].T
        left[k] = _middle(rim) - _middle(outlines[k])
    return replace(scene, outlines=outlines.astype(np.float32), outline_normals=normals.astype(np.float32)), left


def _middle(outline: NDArray) -> NDArray:
    """Of the box around it."""
    return 0.5 * (outline.min(axis=-2) + outline.max(axis=-2))


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
    moved = _middle(outlines) - _middle(scene.outlines)
    plane = scene.plane.copy()
    plane[0] += settings.plane_shift_sd * random.standard_normal() * plane[1]
    return (replace(scene, outlines=outlines.astype(np.float32), shown=shown, plane=plane,
                    outline_normals=(scene.outline_normals @ turn.T).astype(np.float32)),
            (displaced - moved).astype(np.float32))


def _drawn_otherwise(scene: Scene, settings: AugmentSettings, random: np.random.Generator) -> Scene:
    """The outlines as another person or program would draw them. This is no displacement of the X-ray, though single
    sides look like one."""
    levels = len(scene.outlines)
    amounts = (settings.side_sd * random.standard_normal(len(SIDES))
               + settings.side_level_sd * random.standard_normal((levels, len(SIDES))))
    trend = np.arange(levels) - 0.5 * (levels - 1)
    amounts[:, BACK] += (settings.back_sd * random.standard_normal()
                         + settings.back_trend_sd * random.standard_normal() * trend)
    facing = np.maximum(scene.outline_normals @ SIDES.T, 0.0) ** 2
    outwards = np.einsum("lns,ls->ln", facing, amounts)
    moved = scene.outlines + outwards[..., None] * scene.outline_normals
    return replace(scene, outlines=moved.astype(np.float32))


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
