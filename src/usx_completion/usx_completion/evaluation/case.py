"""One examination of one spine: what a method is given, and apart from it the truth it is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_completion.data.crop import CropSettings, true_boxes
from usx_completion.data.examination import Examination, LevelInput, level_inputs
from usx_completion.data.mean_chain import MeanChain
from usx_completion.data.normalisation import NormalisationSettings
from usx_completion.data.observed import XrayBody
from usx_completion.data.partial_spine import joined as joined_cloud
from usx_completion.data.partial_spine import labels_by_bodies
from usx_completion.data.presets import SampleSettings
from usx_completion.data.spine_sample import SpineSample


@dataclass(frozen=True)
class CaseInput:
    """All that a method may see of a case; frame spine, mm. It holds nothing of the truth.

    ``inputs``: level -> normalised input as the paper's network takes it (its ``owners`` are all 0), for the levels
    with enough points. ``points`` (N, 3) of the whole spine with ``labels`` (N,), 0 or 20..24, and ``sources`` (N,),
    0 ultrasound or 1 X-ray, as the completion node gets them. A method may use either. ``normalisation``: the rule by
    which the inputs were normalised.
    """

    inputs: Mapping[str, LevelInput]
    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]
    normalisation: NormalisationSettings = field(default_factory=NormalisationSettings)


@dataclass(frozen=True)
class Naming:
    """What named the ultrasound points of a simulated case: mean vertebrae of ``chain``, placed on the X-ray's
    ``bodies`` (mm, frame spine) with the errors of ``crop`` and ``seed``. Whoever moves the bodies names anew."""

    bodies: Mapping[str, XrayBody]
    chain: MeanChain
    crop: CropSettings
    seed: int

    def labels(self, points: NDArray) -> NDArray[np.int64]:
        """(N,) 0 or 20..24 of ultrasound points (N, 3)."""
        return labels_by_bodies(points, self.bodies, self.chain, self.crop, self.seed)


@dataclass(frozen=True)
class Case:
    """``given`` with the true meshes (level -> Mesh, mm, frame spine) and the level's metric unit in mm.

    ``number``: of the case in its dataset; ``subject``: the person; ``deformation``: which posture; ``naming``: of a
    simulated case.
    """

    dataset: str
    number: int
    subject: str
    deformation: int
    given: CaseInput
    truth: Mapping[str, Mesh]
    units: Mapping[str, float]
    naming: Naming | None = None


@dataclass(frozen=True)
class CaseName:
    """Which case of which dataset."""

    dataset: str
    number: int


def simulated_case(name: CaseName, sample: SpineSample, observed: Examination, settings: SampleSettings,
                   chain: MeanChain, seed: int) -> Case:
    """Case of an examined spine (truth and observation in one frame). The same arguments give the same bytes.

    The levels' inputs are cropped as the preset says (``paper``: the box of the truth, a leak that is the paper's);
    labels of the whole spine's points come from the placed mean vertebrae and never from the truth.
    """
    crop = settings.preset.crop
    boxes = true_boxes(sample, crop) if crop.rule == "truth" else None
    inputs = {level: _without_owners(mine)
              for level, mine in level_inputs(observed, settings, chain, seed, boxes).items()}
    naming = Naming(observed.bodies, chain, crop, seed)
    labels = naming.labels(observed.seen.points)
    bodies = {level: body.filled for level, body in observed.bodies.items()}
    given = replace(joined(inputs, observed.seen.points, labels, bodies), normalisation=settings.preset.normalisation)
    return Case(name.dataset, name.number, sample.subject, sample.deformation, given, sample.meshes,
                units_of(inputs, sample.meshes), naming)


def joined(inputs: Mapping[str, LevelInput], seen: NDArray, labels: NDArray, bodies: Mapping[str, NDArray]
           ) -> CaseInput:
    """Input of ultrasound points (N, 3) with labels (N,) and of the X-ray's filled bodies (level -> (M, 3)), mm."""
    return CaseInput(inputs, *joined_cloud(seen, labels, bodies))


def units_of(inputs: Mapping[str, LevelInput], truth: Mapping[str, Mesh]) -> dict[str, float]:
    """Level -> mm of one metric unit: that of its input; where too little was seen, the median of the other levels'."""
    known = {level: inputs[level].normalisation.unit_mm for level in LEVELS if level in inputs}
    middle = float(np.median(list(known.values()))) if known else float("nan")
    return {level: known.get(level, middle) for level in truth}


def _without_owners(mine: LevelInput) -> LevelInput:
    return replace(mine, owners=np.zeros_like(mine.owners))
