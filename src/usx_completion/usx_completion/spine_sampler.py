"""Whole spines drawn from a shape model: modes, a smooth field for what the modes do not span, and level poses.

`sample_model_spine(sampler, seed)` is made for data sets: a `SpineSampler` holds what is worked out once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import Matrix, apply, invert, make_transform
from usx_completion.contact import fit_joints, separate
from usx_completion.gaussian_process import Kernel
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import PACKAGED, ShapeModel, load_shape_model
from usx_completion.smooth_field import SmoothField, shared
from usx_phantom.spine import Spine

REFERENCE = LEVELS.index("L3")
BEYOND_MENDING_MM = 4.0  # joints that still touch so deep seldom come to fit each other
STREAM = 0x53414D50  # keeps these draws apart from those of other generators with the same seed


@dataclass(frozen=True)
class SamplerSettings:
    """``modes``, ``process`` and ``posture`` scale the spread of modes, smooth field and level poses (1: as people).

    A spine whose bones run more than ``overlap_mm`` into each other, after poses and joint surfaces have given way,
    gets new poses; after ``attempts`` of them new bones, at most ``people`` times. ``rank``: functions of the wide
    kernels of the smooth field per axis.
    """

    modes: float = 1.0
    process: float = 1.0
    posture: float = 1.0
    overlap_mm: float = 0.8
    attempts: int = 4
    people: int = 20
    rank: int = 160

    def __post_init__(self) -> None:
        for name in ("modes", "process", "posture"):
            if not 0.0 <= getattr(self, name) <= 5.0:
                raise UsxError(f"the sampler's {name} {getattr(self, name)} must be within 0 .. 5 (1: as people)")
        if not 0.0 < self.overlap_mm <= 20.0:
            raise UsxError(f"the sampler's overlap_mm {self.overlap_mm} must be above 0 and at most 20")
        for name, most in (("attempts", 100), ("people", 1000), ("rank", 2000)):
            if not 1 <= getattr(self, name) <= most:
                raise UsxError(f"the sampler's {name} {getattr(self, name)} must be within 1 .. {most}")


@dataclass(frozen=True)
class SpineSampler:
    """What sampling needs, worked out once. L levels, V vertices, K modes.

    ``modes`` (K, 3 V) float32; ``field``: of unit variance per axis; ``rigid`` (L, 3 V, 6) orthonormal
    small motions that the smooth field must not contain; ``incidence`` (V, F): which faces a vertex has; ``plates``:
    rows of the upper and lower end plates; ``step_sd`` (L - 1, 6): what is left of the steps' spread when the heights
    of the bodies are known.
    """

    model: ShapeModel
    settings: SamplerSettings
    modes: NDArray[np.float32]
    field: SmoothField
    rigid: NDArray[np.float32]
    incidence: sparse.csr_matrix
    plates: tuple[NDArray[np.int64], NDArray[np.int64]]
    step_sd: NDArray[np.float64]

    def shapes(self, random: np.random.Generator) -> NDArray[np.float64]:
        """(L, V, 3) one person's vertebrae, each in its level's frame, mm."""
        model, spread = self.model, self.model.spread
        count = len(LEVELS)
        scores = shared(random, count, model.mode_correlation) * model.mode_sd
        scores *= self.settings.modes * np.asarray(spread.mode_scale)[:, None]
        # einsum, not @: BLAS rounds float32 sums otherwise with another number of threads
        fields = self.field.draw(random, count, spread.process_correlation)[..., None]
        fields -= np.einsum("lki,li->lk", self.rigid, np.einsum("lki,lkc->li", self.rigid, fields))[..., None]
        fields *= np.float32(self.settings.process) * np.asarray(spread.process_sd_mm, np.float32)[:, None, None]
        offsets = np.einsum("lk,kn->ln", scores.astype(np.float32), self.modes) + fields[..., 0]
        return model.means + offsets.reshape(count, -1, 3)

    def normals(self, shapes: NDArray) -> NDArray[np.float64]:
        """(L, V, 3) unit normals of vertices, outward."""
        faces = self.model.faces
        first, second = (shapes[:, faces[:, k]] - shapes[:, faces[:, 0]] for k in (1, 2))
        a, b, c = np.moveaxis(first, 2, 0)
        u, v, w = np.moveaxis(second, 2, 0)
        crossed = np.stack([b * w - c * v, c * u - a * w, a * v - b * u], axis=2)
        summed = np.stack([self.incidence @ level for level in crossed])
        return summed / np.maximum(np.linalg.norm(summed, axis=2, keepdims=True), 1e-30)

    def poses(self, shapes: NDArray, random: np.random.Generator) -> NDArray[np.float64]:
        """(L, 4, 4) ``vertebra_to_patient``: steps as the model's, longer for taller bodies; L3 at the origin."""
        model, posture = self.model, self.settings.posture
        tilt = model.tilt_mean[REFERENCE] + posture * model.tilt_sd[REFERENCE] * random.standard_normal(3)
        steps = model.step_mean + posture * self.step_sd * random.standard_normal(model.step_mean.shape)
        if model.spread.step_back_mm:
            spread = model.spread
            steps[:, [0, 4, 5]] += np.column_stack([spread.step_turn_rad, spread.step_back_mm, spread.step_up_mm])
        taller = self._heights(shapes) - self._heights(model.means)
        steps[:, 5] -= 0.5 * (taller[:-1] + taller[1:])
        poses = np.tile(np.eye(4), (len(LEVELS), 1, 1))
        poses[REFERENCE] = make_transform(rotation_matrix(tilt), np.zeros(3))
        for level in range(REFERENCE, len(LEVELS) - 1):
            poses[level + 1] = poses[level] @ _step(steps[level])
        for level in range(REFERENCE - 1, -1, -1):
            poses[level] = poses[level + 1] @ invert(_step(steps[level]))
        return poses

    def _heights(self, shapes: NDArray) -> NDArray[np.float64]:
        return shapes[:, self.plates[0], 2].mean(axis=1) - shapes[:, self.plates[1], 2].mean(axis=1)


def make_sampler(model: ShapeModel | None = None, settings: SamplerSettings | None = None) -> SpineSampler:
    """A sampler of ``model`` (None: the packaged one). Takes about 0.1 s; keep it for all spines."""
    model = model or load_shape_model()[0]
    settings = settings or SamplerSettings()
    centre = model.means.mean(axis=0)
    kernels = [Kernel(width, float(np.sqrt(share)))
               for width, share in zip(model.spread.kernel_width_mm, model.spread.kernel_share, strict=True)]
    field = SmoothField.on(centre, kernels, settings.rank)
    modes = model.modes.reshape(model.mode_count, -1)
    plates = _plates(model)
    rigid = np.stack([_rigid_motions(mean) for mean in model.means])
    corners = model.faces.ravel()
    incidence = sparse.csr_matrix((np.ones(len(corners)), (corners, np.arange(len(corners)) // 3)))
    return SpineSampler(model=model, settings=settings, modes=modes.astype(np.float32),
                        field=field, rigid=rigid.astype(np.float32), incidence=incidence, plates=plates,
                        step_sd=_step_sd(model, field, plates))


def load_sampler(path: Path = PACKAGED, settings: SamplerSettings | None = None) -> SpineSampler:
    """A sampler of the model in a file. Raises BadModel when the file is no shape model."""
    return make_sampler(load_shape_model(path)[0], settings)


def sample_model_spine(sampler: SpineSampler | ShapeModel, seed: int) -> Spine:
    """A spine of five vertebrae: meshes L1..L5 and their poses, mm, LPS, the middle of L3's body at the origin.

    All meshes have the model's faces, and vertices that correspond. The same sampler and seed give the same bytes.
    A ``ShapeModel`` is taken too, with default settings; that costs the making of a sampler at every call. Raises
    UsxError when no draw keeps the bones clear of each other, which needs settings far wider than people.
    """
    if isinstance(sampler, ShapeModel):
        sampler = make_sampler(sampler)
    random = np.random.default_rng(np.random.SeedSequence([STREAM, int(seed)]))
    settings, faces = sampler.settings, sampler.model.faces
    least, beyond = np.inf, max(BEYOND_MENDING_MM, settings.overlap_mm)
    for attempt in range(settings.attempts * settings.people):
        if attempt % settings.attempts == 0:
            shapes = sampler.shapes(random)
            normals = sampler.normals(shapes)
        poses, depth = separate(shapes, normals, sampler.poses(shapes, random), REFERENCE, limit_mm=beyond)
        if depth <= beyond:
            fitted, depth = fit_joints(shapes, normals, poses, limit_mm=settings.overlap_mm)
        if depth <= settings.overlap_mm:
            return Spine({level: Mesh(apply(pose, shape), faces)
                          for level, shape, pose in zip(LEVELS, fitted, poses, strict=True)},
                         dict(zip(LEVELS, poses, strict=True)))
        least = min(least, depth)
    raise UsxError(f"spine {seed}: bones overlap by {least:.1f} mm at least in {settings.attempts * settings.people} "
                   f"draws ({settings.overlap_mm:g} mm are allowed): make the sampler's modes, process or posture "
                   "smaller, or overlap_mm larger")


def _step(numbers: NDArray) -> Matrix:
    return make_transform(rotation_matrix(numbers[:3]), numbers[3:])


def _rigid_motions(mean: NDArray) -> NDArray[np.float64]:
    """(3 V, 6) orthonormal basis of small translations and rotations of points (V, 3)."""
    centred = mean - mean.mean(axis=0)
    columns = [np.tile(axis, (len(mean), 1)) for axis in np.eye(3)] + [np.cross(axis, centred) for axis in np.eye(3)]
    return np.linalg.qr(np.stack([column.ravel() for column in columns], axis=1))[0]


def _plates(model: ShapeModel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the vertices of the upper and the lower end plate: of the body, looking up or down on L3's mean."""
    normals = vertex_normals(model.mean_mesh(LEVELS[REFERENCE]))
    return (np.flatnonzero(model.body & (normals[:, 2] > 0.85)), np.flatnonzero(model.body & (normals[:, 2] < -0.85)))


def _step_sd(model: ShapeModel, field: SmoothField, plates: tuple[NDArray, NDArray]) -> NDArray[np.float64]:
    """(L - 1, 6) spread of the steps without what the bodies' heights add along z, by modes and by the smooth field.

    0.5 mm at least.
    """
    spread = model.spread
    height = model.modes[:, plates[0], 2].mean(axis=1) - model.modes[:, plates[1], 2].mean(axis=1)
    modes = height * model.mode_sd * np.asarray(spread.mode_scale)[:, None]
    smooth = np.sqrt(field.variance_between(*plates)) * np.asarray(spread.process_sd_mm)[:, None]
    by_level = np.column_stack([modes, smooth])
    correlation = np.r_[model.mode_correlation, spread.process_correlation]
    upper, lower = by_level[:-1], by_level[1:]
    variance = 0.25 * np.sum(upper**2 + lower**2 + 2.0 * correlation * upper * lower, axis=1)
    result = model.step_sd.copy()
    result[:, 5] = np.sqrt(np.maximum(result[:, 5] ** 2 - variance, 0.25))
    return result
