"""Spines drawn from a statistical shape model, and postures of the same bones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import Matrix, apply, make_transform
from usx_completion.data.spine_sample import PostureSettings, SpineSample, change_posture
from usx_completion.gaussian_process import Kernel, low_rank_basis
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_model import PACKAGED, ShapeModel, load_shape_model


@dataclass(frozen=True)
class ModelSettings:
    """Spread of sampled spines: ``mode_scale`` of the modes' SD; ``kernels`` of the smooth field added to them, whose
    ``rank`` is kept; ``size_sd`` relative; ``step_scale`` of the SD of the poses."""

    mode_scale: float = 1.0
    kernels: tuple[Kernel, ...] = (Kernel(25.0, 0.55), Kernel(12.0, 0.45), Kernel(7.0, 0.3))
    rank: int = 120
    size_sd: float = 0.02
    step_scale: float = 0.7


class ModelSpines:
    """Spines drawn from a shape model: modes correlated between levels, a smooth field, and the model's usual poses.

    Every ``deformations`` numbers are one subject, the first in its own posture. Raises BadModel for a bad file.
    """

    def __init__(self, first_seed: int = 0, deformations: int = 1, path: Path = PACKAGED,
                 settings: ModelSettings | None = None) -> None:
        self._model, metadata = load_shape_model(path)
        self._settings = settings or ModelSettings()
        self._hash = metadata["sha256"]
        self._first, self._deformations = first_seed, deformations
        self._basis = [low_rank_basis(mean, self._settings.kernels, self._settings.rank) for mean in self._model.means]

    @property
    def model(self) -> ShapeModel:
        """The shape model that is sampled."""
        return self._model

    @property
    def faces(self) -> NDArray[np.int32]:
        """(F, 3) triangles that all samples share."""
        return self._model.faces

    @property
    def name(self) -> str:
        """The model's hash and the settings."""
        return f"model {self._hash[:16]} first {self._first} deformations {self._deformations} {self._settings}"

    def subject(self, index: int) -> str:
        """Name of the subject of a spine."""
        return f"model-{self._first + index // self._deformations}"

    def sample(self, index: int) -> SpineSample:
        """The spine of a number."""
        seed = self._first + index // self._deformations
        random = np.random.default_rng(np.random.SeedSequence([0x4D4F4445, seed]))
        shapes = self._shapes(random)
        poses = self._poses(random)
        meshes = {level: Mesh(apply(poses[level], shape), self._model.faces)
                  for level, shape in zip(LEVELS, shapes, strict=True)}
        sample = SpineSample(meshes, poses, self.subject(index), dict.fromkeys(LEVELS, self._model.body), True)
        deformation = index % self._deformations
        if deformation == 0:
            return sample
        return replace(change_posture(sample, PostureSettings(), self._first + index), deformation=deformation)

    def _shapes(self, random: np.random.Generator) -> list[NDArray[np.float64]]:
        model, settings = self._model, self._settings
        shared = random.standard_normal(model.mode_count)
        size = random.normal(0.0, settings.size_sd, 3)
        shapes = []
        for index in range(len(LEVELS)):
            own = random.standard_normal(model.mode_count)
            weights = np.sqrt(model.mode_correlation) * shared + np.sqrt(1.0 - model.mode_correlation) * own
            weights = np.clip(weights, -2.5, 2.5) * settings.mode_scale * model.mode_sd[index]
            field = self._basis[index] @ random.standard_normal((self._basis[index].shape[1], 3))
            scale = 1.0 + size + random.normal(0.0, 0.3 * settings.size_sd, 3)
            shapes.append((model.means[index] + np.einsum("k,kvi->vi", weights, model.modes) + field) * scale)
        return shapes

    def _poses(self, random: np.random.Generator) -> dict[str, Matrix]:
        model, scale = self._model, self._settings.step_scale
        tilt = model.tilt_mean[0] + 0.5 * scale * model.tilt_sd[0] * random.standard_normal(3)
        chain = [make_transform(rotation_matrix(tilt), np.zeros(3))]
        for mean, spread in zip(model.step_mean, model.step_sd, strict=True):
            step = mean + scale * spread * random.standard_normal(6)
            chain.append(chain[-1] @ make_transform(rotation_matrix(step[:3]), step[3:]))
        return dict(zip(LEVELS, chain, strict=True))
