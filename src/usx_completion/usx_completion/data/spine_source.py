"""Where the true spines come from: the statistical model, the phantom's generator, or a folder of real meshes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_completion.data.mean_chain import MeanChain
from usx_completion.data.mesh_spines import MeshFolderSpines, ParametricSpines
from usx_completion.data.model_spines import ModelSpines
from usx_completion.data.spine_sample import SpineSample
from usx_completion.shape_model import PACKAGED, PACKAGED_REAL, load_shape_model

SPINES_PER_SEED = 10**6
FIRST_TEST_SEED = 1900  # 1900 .. 1999 are for tests: no model may learn from them
KEPT = f"{FIRST_TEST_SEED} .. 1999, the seeds kept for tests"
MODELS = {"model": PACKAGED, "real": PACKAGED_REAL}


class SpineSource(Protocol):
    """Anything that gives spines by number. A spine depends on the number alone, and so does its subject."""

    @property
    def name(self) -> str:
        """What the spines are and what sets them apart from another set: a hash, a folder, settings. One line."""

    @property
    def licence(self) -> str:
        """Licence, with attribution, of the shapes that the spines were made from; "unknown" where nothing tells."""

    @property
    def faces(self) -> NDArray[np.int32] | None:
        """(F, 3) triangles that all samples share; None without correspondence."""

    @property
    def people(self) -> Sequence[str] | None:
        """Names of all subjects where there are only so many; None where every number may bring another."""

    def subject(self, index: int) -> str:
        """Name of the subject of spine ``index``, without making the spine."""

    def sample(self, index: int) -> SpineSample:
        """Spine ``index`` (0, 1, ...)."""


@dataclass(frozen=True)
class SourceChoice:
    """``kind``: "real" (shape model of real people), "model" (shape model of generated spines), the path of another
    shape model (.safetensors), "parametric", or the path of a folder of people; ``deformations``: postures of each
    subject (1 for a folder, which shows its people in turn, each round in another posture)."""

    kind: str = "real"
    seed: int = 0
    deformations: int = 1
    axes: str = "RAS"


def open_source(choice: SourceChoice) -> SpineSource:
    """The source of a choice. Different seeds give different subjects. Raises UsxError for one that is unusable.

    Seed s takes the numbers from (s + 1) million on, so no subject is one of a demonstration or of the model's own.
    """
    if not 0 <= choice.seed < 2000:
        raise UsxError(f"seed {choice.seed} must be 0 to 1999")
    if not 1 <= choice.deformations <= 1000:
        raise UsxError(f"deformations {choice.deformations} must be 1 to 1000")
    first = (choice.seed + 1) * SPINES_PER_SEED
    if choice.kind in MODELS or choice.kind.endswith(".safetensors"):
        return ModelSpines(first, choice.deformations, MODELS.get(choice.kind, Path(choice.kind)))
    if choice.kind == "parametric":
        return ParametricSpines(first, choice.deformations)
    if not Path(choice.kind).is_dir():
        raise UsxError(f"source {choice.kind!r} is none of 'real', 'model', 'parametric', a shape model "
                       "(.safetensors) or a folder of people")
    if choice.deformations != 1:
        raise UsxError(f"deformations {choice.deformations} are for sampled spines; a folder's people come in turn, "
                       "each round in another posture: ask for more spines")
    return MeshFolderSpines(Path(choice.kind), choice.axes, first)


def mean_chain_of(source: SpineSource) -> MeanChain:
    """The usual spine of the population that a source draws from: its own model's, or the packaged one that was learned
    from the same kind of spines."""
    if isinstance(source, ModelSpines):
        return MeanChain.of(source.model)
    return MeanChain.of(load_shape_model(PACKAGED if isinstance(source, ParametricSpines) else PACKAGED_REAL)[0])
