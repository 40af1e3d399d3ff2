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
from usx_completion.gaussian_process import Kernel, low_rank_basis
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import PACKAGED, ShapeModel, load_shape_model
from usx_phantom.spine import Spine

REFERENCE = LEVELS.index("L3")
STREAM = 0x53414D50  # keeps these draws apart from those of other generators with the same seed


@dataclass(frozen=True)
class SamplerSettings:
    """``modes``, ``process`` and ``posture`` scale the spread of modes, smooth field and level poses (1: as people).

    A spine whose bones run more than ``overlap_mm`` into each other, after poses and joint surfaces have given way,
    gets new poses; after ``attempts`` the best is taken. ``rank``: functions of the smooth field per axis.
    """

    modes: float = 1.0
    process: float = 1.0
    posture: float = 1.0
    overlap_mm: float = 0.8
    attempts: int = 6
    rank: int = 160

    def __post_init__(self) -> None:
        for name in ("modes", "process", "posture"):
            if not 0.0 <= getattr(self, name) <= 5.0:
                raise UsxError(f"the sampler's {name} {getattr(self, name)} must be within 0 .. 5 (1: as people)")
        if not 0.0 < self.overlap_mm <= 20.0:
            raise UsxError(f"the sampler's overlap_mm {self.overlap_mm} must be above 0 and at most 20")
        if not 1 <= self.attempts <= 100 or not 1 <= self.rank <= 2000:
            raise UsxError(f"the sampler's attempts {self.attempts} must be within 1 .. 100, rank {self.rank} "
                           "within 1 .. 2000")


@dataclass(frozen=True)
class SpineSampler:
    """What sampling needs, worked out once. L levels, V vertices, K modes, R functions of the smooth field.

    ``modes`` (K, 3 V) and ``basis`` (V, R), float32: of unit variance per axis; ``rigid`` (L, 3 V, 6) orthonormal
    small motions that the smooth field must not contain; ``incidence`` (V, F): which faces a vertex has; ``plates``:
    rows of the upper and lower end plates; ``step_sd`` (L - 1, 6): what is left of the steps' spread when the heights
    of the bodies are known.
    """

    model: ShapeModel
    settings: SamplerSettings
    modes: NDArray[np.float32]
    basis: NDArray[np.float32]
    rigid: NDArray[np.float32]
    incidence: sparse.csr_matrix
    plates: tuple[NDArray[np.int64], NDArray[np.int64]]
    step_sd: NDArray[np.float64]

    def shapes(self, random: np.random.Generator) -> NDArray[np.float64]:
        """(L, V, 3) one person's vertebrae, each in its level's frame, mm."""
        model, spread = self.model, self.model.spread
        count = len(LEVELS)
        scores = _shared(random, count, model.mode_correlation) * model.mode_sd
        scores *= self.settings.modes * np.asarray(spread.mode_scale)[:, None]
        correlation = np.full(3 * self.basis.shape[1], spread.process_correlation)
        weights = _shared(random, count, correlation).reshape(count, -1, 3).astype(np.float32)
        # einsum, not @: BLAS rounds float32 sums otherwise with another number of threads
        fields = np.einsum("vr,rc->vc", self.basis, np.moveaxis(weights, 0, 1).reshape(self.basis.shape[1], -1))
        fields = np.moveaxis(fields.reshape(-1, count, 3), 1, 0).reshape(count, -1, 1)
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
    basis = low_rank_basis(centre, kernels, settings.rank)
    modes = model.modes.reshape(model.mode_count, -1)
    plates = _plates(model)
    rigid = np.stack([_rigid_motions(mean) for mean in model.means])
    corners = model.faces.ravel()
    incidence = sparse.csr_matrix((np.ones(len(corners)), (corners, np.arange(len(corners)) // 3)))
    return SpineSampler(model=model, settings=settings, modes=modes.astype(np.float32),
                        basis=basis.astype(np.float32), rigid=rigid.astype(np.float32), incidence=incidence,
                        plates=plates, step_sd=_step_sd(model, plates))


def load_sampler(path: Path = PACKAGED, settings: SamplerSettings | None = None) -> SpineSampler:
    """A sampler of the model in a file. Raises BadModel when the file is no shape model."""
    return make_sampler(load_shape_model(path)[0], settings)


def sample_model_spine(sampler: SpineSampler | ShapeModel, seed: int) -> Spine:
    """A spine of five vertebrae: meshes L1..L5 and their poses, mm, LPS, the middle of L3's body at the origin.

    All meshes have the model's faces, and vertices that correspond. The same sampler and seed give the same bytes.
    A ``ShapeModel`` is taken too, with default settings; that costs the making of a sampler at every call.
    """
    if isinstance(sampler, ShapeModel):
        sampler = make_sampler(sampler)
    random = np.random.default_rng(np.random.SeedSequence([STREAM, int(seed)]))
    shapes = sampler.shapes(random)
    settings, faces = sampler.settings, sampler.model.faces
    normals = sampler.normals(shapes)
    best, least = (shapes, np.empty((0, 4, 4))), np.inf
    for _ in range(settings.attempts):
        poses, _ = separate(shapes, normals, sampler.poses(shapes, random), REFERENCE)
        fitted, depth = fit_joints(shapes, normals, poses)
        if depth < least:
            best, least = (fitted, poses), depth
        if depth <= settings.overlap_mm:
            break
    return Spine({level: Mesh(apply(pose, shape), faces) for level, shape, pose in zip(LEVELS, *best, strict=True)},
                 dict(zip(LEVELS, best[1], strict=True)))


def _shared(random: np.random.Generator, levels: int, correlation: NDArray) -> NDArray[np.float64]:
    """(levels, K) standard normal numbers; any two levels are correlated by ``correlation`` (K,)."""
    common, own = random.standard_normal(len(correlation)), random.standard_normal((levels, len(correlation)))
    return np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * own


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


def _step_sd(model: ShapeModel, plates: tuple[NDArray, NDArray]) -> NDArray[np.float64]:
    """(L - 1, 6) spread of the steps without what the heights of the modes' bodies add along z (0.5 mm at least)."""
    height = model.modes[:, plates[0], 2].mean(axis=1) - model.modes[:, plates[1], 2].mean(axis=1)
    by_level = height * model.mode_sd
    upper, lower = by_level[:-1], by_level[1:]
    variance = 0.25 * np.sum(upper**2 + lower**2 + 2.0 * model.mode_correlation * upper * lower, axis=1)
    result = model.step_sd.copy()
    result[:, 5] = np.sqrt(np.maximum(result[:, 5] ** 2 - variance, 0.25))
    return result
