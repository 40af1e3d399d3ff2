"""A patient who moved between the ultrasound sweep and the X-ray: another posture, another place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_common import transforms
from usx_common.levels import LEVELS, label_of_level
from usx_common.volumes import Volume
from usx_phantom.posture import PostureChange, PostureSpread, random_change
from usx_phantom.scene import Scene
from usx_phantom.spine_chain import PostureDifference, SpineChain
from usx_phantom.trouble import Trouble
from usx_phantom.voxels import label_meshes

SEED = 0x4D4F5645
SPREAD = PostureSpread(flexion=1.0, bending=0.5, rotation=0.2, wedging=0.1)
# How fast the influence of a bone fades into the soft tissue beside it, mm.
FADE = 8.0
NODE_MM = 3.0  # distance of the deformation's nodes
BONE_MM = 2.0  # how finely bones are told from soft tissue when distances are measured


def draw_motion(scene: Scene, trouble: Trouble, seed: int) -> PostureDifference | None:
    """Posture change in which L1 turns by `trouble.motion` degrees against L5, then a shift of the whole patient by
    `trouble.motion_shift` mm, both in a random direction that `seed` chooses; None where both are 0.

    Bones that would overlap make discs turn less; see `message` of the result.
    """
    if trouble.motion == 0.0 and trouble.motion_shift == 0.0:
        return None
    rng = np.random.default_rng(np.random.SeedSequence([SEED, int(seed)]))
    change = random_change(rng, SPREAD)
    size = float(np.linalg.norm(change.disc_angles().sum(0)))
    difference = SpineChain(scene.meshes).bend(_scaled(change, trouble.motion / size))
    way = rng.normal(size=3)
    return difference.then(transforms.make_transform(np.eye(3), trouble.motion_shift * way / np.linalg.norm(way)))


def _scaled(change: PostureChange, factor: float) -> PostureChange:
    wedging = tuple((factor * a, factor * b) for a, b in change.wedging)
    return replace(change, flexion=factor * change.flexion, bending=factor * change.bending,
                   rotation=factor * change.rotation, scoliosis=factor * change.scoliosis, wedging=wedging)


def moved_scene(scene: Scene, difference: PostureDifference) -> Scene:
    """The scene after the motion: bones, label map and CT moved, skin and table where they were."""
    meshes = difference.meshes(scene.meshes)
    labels = label_meshes(meshes, float(scene.labelmap.grid.spacing[0]))
    intensities = None if scene.intensities is None else warped(scene.intensities, labels, difference)
    return replace(scene, meshes=meshes, labelmap=labels, intensities=intensities)


def warped(image: Volume, labels: Volume, difference: PostureDifference) -> Volume:
    """`image` (direction identity) after the motion, on its own grid; bones move rigidly, soft tissue between them.

    `labels`: the bones after the motion. Around each bone its motion fades over FADE mm into that of its neighbours
    (weights by inverse square distance: Little et al., "Deformations incorporating rigid structures", 1997).
    """
    grid = image.grid
    coarse = np.maximum(np.rint(NODE_MM / grid.spacing[::-1]), 1.0)
    nodes = [np.arange(-1, n // step + 3) * step for n, step in zip(grid.size[::-1], coarse, strict=True)]
    points = np.stack(np.meshgrid(*nodes, indexing="ij"), -1)[..., ::-1] * grid.spacing + grid.origin
    flat = points.reshape(-1, 3)
    total, shift = np.zeros(len(flat)), np.zeros_like(flat)
    stride = max(int(BONE_MM / labels.grid.spacing.max()), 1)
    bones, size = labels.values[::stride, ::stride, ::stride], stride * labels.grid.spacing
    index = ((flat - labels.grid.origin) / size)[:, ::-1]
    clipped = np.clip(index, 0.0, np.array(bones.shape) - 1.0)
    beyond = np.linalg.norm((index - clipped) * size[::-1], axis=1)
    for level in LEVELS:
        distance = np.asarray(ndimage.distance_transform_edt(bones != label_of_level(level), sampling=size[::-1]))
        near = ndimage.map_coordinates(distance, clipped.T, order=1) + beyond
        weight = 1.0 / (near / FADE + 1e-3) ** 2
        back = transforms.invert(difference.motions[level])
        shift += weight[:, None] * (transforms.apply(back, flat) - flat)
        total += weight
    field = (shift / total[:, None]).reshape(points.shape)
    return Volume(_pulled(image, field, coarse), grid)


def _pulled(image: Volume, field: NDArray[np.float64], coarse: NDArray[np.float64]) -> NDArray:
    """Values of `image` at each voxel's place plus `field` (nodes z, y, x every `coarse` voxels; mm), linear."""
    grid = image.grid
    source = image.values.astype(np.float32)
    result = np.empty_like(image.values)
    y, x = np.meshgrid(np.arange(grid.size[1]), np.arange(grid.size[0]), indexing="ij")
    for z in range(grid.size[2]):
        place = np.stack([np.full(y.shape, float(z)), y, x])
        node = place / coarse[:, None, None] + 1.0
        moved = np.stack([place[i] + ndimage.map_coordinates(field[..., 2 - i], node, order=1) / grid.spacing[2 - i]
                          for i in range(3)])
        values = ndimage.map_coordinates(source, moved, order=1, mode="nearest")
        result[z] = np.rint(values) if np.issubdtype(result.dtype, np.integer) else values
    return result
