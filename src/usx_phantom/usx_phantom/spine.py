"""Lumbar spines: five sampled vertebrae stacked with discs and lordosis, in patient coordinates (LPS, mm)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.spatial.transform import Rotation

from usx_common import transforms
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_phantom.sampling import sample_subject, sample_vertebra
from usx_phantom.surface_detail import DetailSettings, lip_displacements, sample_lips, smooth_field
from usx_phantom.template import DEFAULT_SPACING, carried_mesh
from usx_phantom.vertebra import Solid, VertebraShape, mean_vertebra

# Smallest space between bones of neighbouring levels (cartilage of a facet joint).
JOINT_GAP = 1.6
# Bones that would run deeper into each other are drawn anew (mm); shallower ones give way at the joint.
CLASH_LIMIT = 2.0
# The mean spine is that of patients, whose discs are lower (7.1 mm on the average of L2 to L5, Clouthier 2023) than the
# published ones: the space between two bodies is stretched by this, L1-L2 .. L4-L5.
DISC_STRETCH = (0.87, 1.0, 1.12, 1.33)


@dataclass(frozen=True)
class SpineSettings:
    """Spread of a spine: `amplitude` scales all shape spreads; angles in degrees, lengths in mm (SD)."""

    amplitude: float = 1.0
    lordosis_sd: float = 6.0
    tilt_sd: float = 1.2
    bend_sd: float = 1.5
    disc_sd: float = 1.7
    warp_sd: float = 0.55
    warp_length: float = 14.0
    detail: DetailSettings = field(default_factory=DetailSettings)


@dataclass(frozen=True)
class Spine:
    """A lumbar spine in patient coordinates (LPS mm).

    `meshes`: level -> Mesh. `vertebra_to_patient`: level -> (4, 4) rigid; a vertebra's own frame has its origin at
    the centre of the body, x = left, y = posterior, z = cranial.
    """

    meshes: dict[str, Mesh]
    vertebra_to_patient: dict[str, np.ndarray]

    def local(self, level: str) -> Mesh:
        """The mesh of `level` in its own frame."""
        return self.meshes[level].transformed(transforms.invert(self.vertebra_to_patient[level]))


def sample_spine(seed: int, settings: SpineSettings | None = None, spacing: float = DEFAULT_SPACING) -> Spine:
    """A random spine; the same seed and settings give the same bytes.

    Meshes of a level have the same faces for every seed and corresponding vertices. `spacing` (mm) is that of the
    templates. The middle of L3's body is near the origin.
    """
    settings = settings or SpineSettings()
    rng = np.random.default_rng(np.random.SeedSequence([0x5350494E, int(seed)]))
    shapes, poses = _draw(settings, rng)
    meshes = _meshes(shapes, poses, spacing)
    meshes = {level: mesh.transformed(transforms.invert(poses[level])) for level, mesh in meshes.items()}
    return Spine(_detailed(meshes, shapes, poses, settings, rng), poses)


def _detailed(meshes: dict[str, Mesh], shapes: dict[str, VertebraShape], poses: dict[str, np.ndarray],
              settings: SpineSettings, rng: np.random.Generator) -> dict[str, Mesh]:
    """Meshes in patient coordinates, from those in the vertebrae's frames: with osteophytes, warp and roughness."""
    detail, score = settings.detail, float(rng.normal())
    vertices = []
    for level, mesh in meshes.items():
        lips = sample_lips(detail, score, rng)
        moved = mesh.vertices + settings.amplitude * lip_displacements(mesh.vertices, shapes[level], lips)
        vertices.append(transforms.apply(poses[level], moved))
    points = np.concatenate(vertices)
    noise = smooth_field(points, rng, settings.amplitude * settings.warp_sd, settings.warp_length)
    for sd, length in zip(detail.roughness, detail.roughness_length, strict=True):
        noise += smooth_field(points, rng, settings.amplitude * sd, length)
    parts = np.split(points + noise, np.cumsum([len(mesh.vertices) for mesh in meshes.values()])[:-1])
    return {level: Mesh(part, mesh.faces) for (level, mesh), part in zip(meshes.items(), parts, strict=True)}


def _draw(settings: SpineSettings, rng: np.random.Generator
          ) -> tuple[dict[str, VertebraShape], dict[str, np.ndarray]]:
    """Shapes and poses of a person whose bones hardly touch; the best of 24 where none is good."""
    best, least = None, np.inf
    for _ in range(24):
        subject = sample_subject(rng)
        shapes = {level: sample_vertebra(level, subject, rng, settings.amplitude) for level in LEVELS}
        poses = _stack(shapes, settings, rng)
        depth = clash_depth(shapes, poses)
        if depth < least:
            best, least = (shapes, poses), depth
        if depth < CLASH_LIMIT:
            break
    assert best is not None
    return best


def clash_depth(shapes: dict[str, VertebraShape], poses: dict[str, np.ndarray]) -> float:
    """How deep (mm) the processes of neighbouring vertebrae would run into each other, from points in their cones."""
    solids = {level: shape.solid() for level, shape in shapes.items()}
    depth = 0.0
    for upper, lower in pairwise(LEVELS):
        for a, b in ((upper, lower), (lower, upper)):
            points = transforms.apply(transforms.invert(poses[b]) @ poses[a], _cone_points(solids[a]))
            depth = max(depth, float(-solids[b].field(points).min()))
    return depth


def _cone_points(solid: Solid) -> np.ndarray:
    """(N, 3) points on the axes of the cones and nearly on their surfaces."""
    cones = solid.cones
    axis = cones[:, 3:6] - cones[:, 0:3]
    e1 = cones[:, 10:13]
    e2 = np.cross(axis / np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-9), e1)
    points = []
    for t in (0.0, 0.5, 1.0):
        middle = cones[:, 0:3] + t * axis
        first = 0.9 * (cones[:, 6:7] + t * (cones[:, 8:9] - cones[:, 6:7])) * e1
        second = 0.9 * (cones[:, 7:8] + t * (cones[:, 9:10] - cones[:, 7:8])) * e2
        points += [middle, middle + first, middle - first, middle + second, middle - second]
    return np.concatenate(points)


def mean_spine(spacing: float = DEFAULT_SPACING) -> Spine:
    """The mean vertebrae in their mean places."""
    shapes = {level: mean_vertebra(level).shape for level in LEVELS}
    still = SpineSettings(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    poses = _stack(shapes, still, np.random.default_rng(0))
    return Spine(_meshes(shapes, poses, spacing), poses)


def _meshes(shapes: dict[str, VertebraShape], poses: dict[str, np.ndarray], spacing: float) -> dict[str, Mesh]:
    solids = {level: shape.solid() for level, shape in shapes.items()}
    return {level: carried_mesh(shapes[level], level, spacing, JointField(level, solids, poses)).transformed(pose)
            for level, pose in poses.items()}


def _stack(shapes: dict[str, VertebraShape], settings: SpineSettings, rng: np.random.Generator
           ) -> dict[str, np.ndarray]:
    """Poses of the vertebrae: mean places, stretched to the bodies' heights, bent more or less."""
    means = [mean_vertebra(level) for level in LEVELS]
    more = np.radians(settings.lordosis_sd) * np.clip(rng.normal(), -2.0, 2.0)
    spread = np.linspace(-0.5, 0.5, len(LEVELS))
    noise = np.radians(settings.tilt_sd) * rng.normal(size=len(LEVELS))
    extra = more * spread + noise
    bends = np.radians(settings.bend_sd) * rng.normal(size=(len(LEVELS), 2))
    scores = np.sqrt(0.4) * rng.normal() + np.sqrt(0.6) * rng.normal(size=len(LEVELS))
    taller = settings.disc_sd * np.clip(scores, -2.0, 2.2)
    centres = [np.zeros(3)]
    for i in range(1, len(LEVELS)):
        step = np.array([0.0, *(np.subtract(means[i].centre, means[i - 1].centre))])
        mean_bone = means[i].shape.body[2] + means[i - 1].shape.body[2]
        bone = shapes[LEVELS[i]].body[2] + shapes[LEVELS[i - 1]].body[2]
        length = np.linalg.norm(step)
        new_length = bone + (length - mean_bone) * DISC_STRETCH[i - 1] + taller[i]
        turn = Rotation.from_euler("xy", [0.5 * (extra[i] + extra[i - 1]), 0.5 * (bends[i, 0] + bends[i - 1, 0])])
        centres.append(centres[-1] + turn.apply(step / length * new_length))
    middle = centres[2]
    poses = {}
    for i, level in enumerate(LEVELS):
        rotation = Rotation.from_euler("xyz", [means[i].tilt + extra[i], bends[i, 0], bends[i, 1]])
        poses[level] = transforms.make_transform(rotation.as_matrix(), centres[i] - middle)
    return poses


class JointField:
    """Field of one vertebra among its neighbours, in its own frame.

    Where two bones would touch, both end `JOINT_GAP` / 2 before the surface that is equally deep in either: the
    joint surfaces fit each other and never overlap.
    """

    def __init__(self, level: str, solids: dict[str, Solid], poses: dict[str, np.ndarray]) -> None:
        self._own = solids[level]
        index = LEVELS.index(level)
        names = [LEVELS[i] for i in (index - 1, index + 1) if 0 <= i < len(LEVELS)]
        self._neighbours = [(solids[n], transforms.invert(poses[n]) @ poses[level]) for n in names]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Field (N,) mm at `points` (N, 3) mm."""
        own = self._own.field(points)
        result = own.copy()
        for solid, to_neighbour in self._neighbours:
            moved = transforms.apply(to_neighbour, points)
            low, high = solid.bounds()
            rows = np.flatnonzero(((moved >= low) & (moved <= high)).all(1))
            if len(rows):
                bisector = 0.5 * (own[rows] - solid.field(moved[rows]) + JOINT_GAP)
                near = np.maximum(1.0 - np.abs(result[rows] - bisector), 0.0)
                result[rows] = np.maximum(result[rows], bisector) + 0.25 * near**2
        return result
