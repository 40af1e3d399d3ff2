"""A patient who moved between the ultrasound sweep and the X-ray: another posture, another place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_common import transforms
from usx_common.levels import LEVELS, label_of_level
from usx_common.volumes import Volume
from usx_phantom.posture import PostureChange
from usx_phantom.scene import Scene
from usx_phantom.spine_chain import PostureDifference, SpineChain
from usx_phantom.trouble import Trouble
from usx_phantom.voxels import label_meshes

SEED = 0x4D4F5645
# How likely people turn which way (flexion, bending, rotation), and how large rotation's part may be: discs of the
# lumbar spine hardly rotate.
WAYS = np.array([1.0, 0.5, 0.2])
MOST_ROTATION = 0.5
# Discs share the turn unevenly: SD (degrees) of each disc's own wedging, as a part of the whole turn and at most.
WEDGING_SHARE, WEDGING = 0.1, 0.6
# How fast the influence of a bone fades into the soft tissue beside it, mm.
FADE = 8.0
NODE_MM = 3.0  # distance of the deformation's nodes
BONE_MM = 2.0  # how finely bones are told from soft tissue when distances are measured


@dataclass(frozen=True)
class PatientMotion:
    """What a patient did: bent the spine, which the body's outline does not follow, then moved by `shift` (3,) mm."""

    bending: PostureDifference
    shift: NDArray[np.float64]

    @property
    def whole(self) -> PostureDifference:
        """How each vertebra moved, shift included."""
        return self.bending.then(transforms.make_transform(np.eye(3), self.shift))

    @property
    def message(self) -> str:
        """One line on what could not be done as wanted; empty where all was."""
        return f"motion before the X-ray: {self.bending.message}" if self.bending.message else ""


def draw_motion(scene: Scene, trouble: Trouble, seed: int) -> PatientMotion | None:
    """Posture change in which L1 turns by `trouble.motion` degrees against L5, then a shift of the whole patient by
    `trouble.motion_shift` mm, both in a random direction that `seed` chooses; None where both are 0.

    Bones that would overlap make discs turn less; see `message`.
    """
    if trouble.motion == 0.0 and trouble.motion_shift == 0.0:
        return None
    rng = np.random.default_rng(np.random.SeedSequence([SEED, int(seed)]))
    change = drawn_change(rng, trouble.motion)
    way = rng.normal(size=3)
    return PatientMotion(SpineChain(scene.meshes).bend(change), trouble.motion_shift * way / np.linalg.norm(way))


def drawn_change(rng: np.random.Generator, degrees: float) -> PostureChange:
    """Posture change by `degrees` (0 to 30) of L1 against L5 in a random direction; wedging of discs adds up to 0."""
    way = WAYS * rng.normal(size=3)
    most = MOST_ROTATION * float(np.linalg.norm(way[:2]))
    way[2] = np.clip(way[2], -most, most)
    flexion, bending, rotation = (float(v) for v in degrees * way / np.linalg.norm(way))
    wedging = min(WEDGING_SHARE * degrees, WEDGING) * np.clip(rng.normal(size=(4, 2)), -2.5, 2.5)
    wedging -= wedging.mean(0)
    return PostureChange(flexion, bending, rotation, wedging=tuple((float(a), float(b)) for a, b in wedging))


def moved_scene(scene: Scene, motion: PatientMotion) -> Scene:
    """The scene after the motion: the spine bent and all of the patient shifted, CT and skin too; the table stays."""
    bent = motion.bending.meshes(scene.meshes)
    labels = label_meshes(bent, float(scene.labelmap.grid.spacing[0]))
    image = None if scene.intensities is None else warped(scene.intensities, labels, motion.bending)
    return replace(scene, meshes=motion.whole.meshes(scene.meshes), labelmap=_shifted(labels, motion.shift),
                   skin=scene.skin.shifted(motion.shift),
                   intensities=None if image is None else _shifted(image, motion.shift))


def _shifted(volume: Volume, shift: NDArray[np.float64]) -> Volume:
    return Volume(volume.values, replace(volume.grid, origin=volume.grid.origin + shift))


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
