"""Spines drawn from a statistical shape model, and postures of the same bones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_completion.data.layout import UNKNOWN_LICENCE
from usx_completion.data.spine_sample import SpineSample, change_posture
from usx_completion.shape_model import PACKAGED, PACKAGED_REAL, ShapeModel, load_shape_model
from usx_completion.spine_sampler import SamplerSettings, make_sampler, sample_model_spine
from usx_phantom.posture import PostureSpread

NAMES = {PACKAGED: "model", PACKAGED_REAL: "real"}  # of the packaged models' subjects


class ModelSpines:
    """Spines drawn from a shape model, with corresponding vertices.

    Every ``deformations`` numbers are one subject, the first in its own posture; a subject's name tells the model, so
    that people of two models are never taken for one. Raises BadModel for a bad file.
    """

    people = None

    def __init__(self, first_seed: int = 0, deformations: int = 1, path: Path = PACKAGED,
                 settings: SamplerSettings | None = None) -> None:
        model, metadata = load_shape_model(path)
        self._sampler = make_sampler(model, settings)
        self._bodies = dict(zip(LEVELS, model.xray_bodies, strict=True))
        self._hash = metadata["sha256"]
        self._licence = metadata.get("licence") or UNKNOWN_LICENCE
        self._prefix = NAMES.get(path) or f"model{self._hash[:8]}"
        self._first, self._deformations = first_seed, deformations

    @property
    def model(self) -> ShapeModel:
        """The shape model that is sampled."""
        return self._sampler.model

    @property
    def faces(self) -> NDArray[np.int32]:
        """(F, 3) triangles that all samples share."""
        return self.model.faces

    @property
    def name(self) -> str:
        """The model's hash and the settings."""
        return (f"model {self._hash[:16]} first {self._first} deformations {self._deformations} "
                f"{self._sampler.settings}")

    @property
    def licence(self) -> str:
        """What the model's metadata say of the shapes it was learned from."""
        return self._licence

    def subject(self, index: int) -> str:
        """Name of the subject of a spine."""
        return f"{self._prefix}-{self._first + index // self._deformations}"

    def sample(self, index: int) -> SpineSample:
        """The spine of a number."""
        spine = sample_model_spine(self._sampler, self._first + index // self._deformations)
        sample = SpineSample(spine.meshes, spine.vertebra_to_patient, self.subject(index),
                             self._bodies, corresponding=True)
        deformation = index % self._deformations
        if deformation == 0:
            return sample
        return replace(change_posture(sample, PostureSpread(), self._first + index), deformation=deformation)
