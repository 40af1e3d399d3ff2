"""Lumbar spines: five sampled vertebrae stacked with discs and lordosis, in patient coordinates (LPS, mm)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from usx_common import transforms
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals

from usx_phantom.sampling import sample_subject, sample_vertebra
from usx_phantom.template import DEFAULT_SPACING, carried_mesh
from usx_phantom.vertebra import VertebraShape, mean_vertebra

# Smallest space between bones of neighbouring levels (facet joint cartilage is 1-2 mm thick on each side).
JOINT_GAP = 1.0


@dataclass(frozen=True)
class SpineSettings:
    """Spread of a spine: `amplitude` scales all shape spreads; angles in degrees, lengths in mm (SD)."""

    amplitude: float = 1.0
    lordosis_sd: float = 6.0
    tilt_sd: float = 1.2
    bend_sd: float = 1.5
    disc_sd: float = 0.09
    warp_sd: float = 0.45
    warp_length: float = 14.0


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
    subject = sample_subject(rng)
    shapes = {level: sample_vertebra(level, subject, rng, settings.amplitude) for level in LEVELS}
    poses = _stack(shapes, settings, rng)
    meshes = {}
    for level, shape in shapes.items():
        mesh = carried_mesh(shape, level, spacing)
        warped = mesh.vertices + smooth_noise(mesh.vertices, settings, rng)
        meshes[level] = Mesh(warped, mesh.faces).transformed(poses[level])
    return Spine(separate(meshes), poses)


def mean_spine(spacing: float = DEFAULT_SPACING) -> Spine:
    """The mean vertebrae in their mean places."""
    shapes = {level: mean_vertebra(level).shape for level in LEVELS}
    still = SpineSettings(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    poses = _stack(shapes, still, np.random.default_rng(0))
    meshes = {level: carried_mesh(shapes[level], level, spacing).transformed(poses[level]) for level in LEVELS}
    return Spine(separate(meshes), poses)


def _stack(shapes: dict[str, VertebraShape], settings: SpineSettings, rng: np.random.Generator
           ) -> dict[str, np.ndarray]:
    """Poses of the vertebrae: mean places, stretched to the bodies' heights, bent more or less."""
    means = [mean_vertebra(level) for level in LEVELS]
    more = np.radians(settings.lordosis_sd) * np.clip(rng.normal(), -2.0, 2.0)
    spread = np.linspace(-0.5, 0.5, len(LEVELS))
    noise = np.radians(settings.tilt_sd) * rng.normal(size=len(LEVELS))
    extra = more * spread + noise
    bends = np.radians(settings.bend_sd) * rng.normal(size=(len(LEVELS), 2))
    disc = np.exp(settings.disc_sd * rng.normal(size=len(LEVELS)) + 0.05 * rng.normal())
    centres = [np.zeros(3)]
    for i in range(1, len(LEVELS)):
        step = np.array([0.0, *(np.subtract(means[i].centre, means[i - 1].centre))])
        mean_bone = means[i].shape.body[2] + means[i - 1].shape.body[2]
        bone = shapes[LEVELS[i]].body[2] + shapes[LEVELS[i - 1]].body[2]
        length = np.linalg.norm(step)
        new_length = bone + (length - mean_bone) * disc[i]
        turn = Rotation.from_euler("xy", [0.5 * (extra[i] + extra[i - 1]), 0.5 * (bends[i, 0] + bends[i - 1, 0])])
        centres.append(centres[-1] + turn.apply(step / length * new_length))
    middle = centres[2]
    poses = {}
    for i, level in enumerate(LEVELS):
        rotation = Rotation.from_euler("xyz", [means[i].tilt + extra[i], bends[i, 0], bends[i, 1]])
        poses[level] = transforms.make_transform(rotation.as_matrix(), centres[i] - middle)
    return poses


def smooth_noise(points: np.ndarray, settings: SpineSettings, rng: np.random.Generator, waves: int = 96) -> np.ndarray:
    """Displacements (N, 3) mm of a smooth Gaussian random field (random Fourier features, Rahimi and Recht 2007)."""
    frequencies = rng.normal(size=(waves, 3)) / settings.warp_length
    phases = rng.uniform(0.0, 2.0 * np.pi, waves)
    weights = rng.normal(size=(waves, 3)) * np.sqrt(2.0 / waves) * settings.warp_sd * settings.amplitude
    return np.cos(points @ frequencies.T + phases) @ weights


def separate(meshes: dict[str, Mesh], gap: float = JOINT_GAP, rounds: int = 6) -> dict[str, Mesh]:
    """Push touching surfaces of neighbouring levels apart until `gap` mm lie between them; both give way by half."""
    vertices = {level: mesh.vertices.copy() for level, mesh in meshes.items()}
    for _ in range(rounds):
        normals = {level: vertex_normals(Mesh(vertices[level], meshes[level].faces)) for level in LEVELS}
        pushes = {level: np.zeros_like(vertices[level]) for level in LEVELS}
        for upper, lower in zip(LEVELS[:-1], LEVELS[1:], strict=True):
            for a, b in ((upper, lower), (lower, upper)):
                rows, push = _push(vertices[a], vertices[b], normals[b], gap)
                pushes[a][rows] += push
        if not any(push.any() for push in pushes.values()):
            break
        for level in LEVELS:
            vertices[level] += pushes[level]
    return {level: Mesh(vertices[level], meshes[level].faces) for level in LEVELS}


def _push(moving: np.ndarray, other: np.ndarray, normals: np.ndarray, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `moving` nearer than `gap` to, or inside, the other surface, and their way out by half (mm)."""
    low, high = other.min(0) - gap, other.max(0) + gap
    near = np.flatnonzero(((moving >= low) & (moving <= high)).all(1))
    if not len(near):
        return near, np.zeros((0, 3))
    distance, nearest = cKDTree(other).query(moving[near])
    outward = normals[nearest]
    signed = ((moving[near] - other[nearest]) * outward).sum(1)
    # A vertex deep inside has its nearest surface far away; one outside beyond the gap needs nothing.
    close = (signed < gap) & (distance < 10.0) & ((signed < 0.0) | (distance < 2.0 * gap))
    return near[close], (0.55 * (gap - signed[close]))[:, None] * outward[close]
