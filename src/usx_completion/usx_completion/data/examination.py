"""One simulated examination of a true spine, and the five training samples made of it.

The observations are made first and the inputs from them alone (`level_inputs` is not given the truth, but for the
boxes where the paper's crop rule asks for them); the truth is then written in the frame that the input set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS, label_of_level
from usx_common.meshes import Mesh
from usx_common.transforms import Matrix, make_transform
from usx_completion.data.crop import Box, observed_rows, true_boxes
from usx_completion.data.mean_chain import MeanChain
from usx_completion.data.normalisation import Normalisation, normalisation_of
from usx_completion.data.observed import SeenPoints, XrayBody
from usx_completion.data.presets import Preset, SampleSettings
from usx_completion.data.sampling_points import even_surface_points, resample
from usx_completion.data.spine_sample import SpineSample, change_posture
from usx_completion.data.visibility_paper import PaperVisibility, see_from_behind
from usx_completion.data.visibility_realistic import sweep_over
from usx_completion.data.xray_cloud import CloudSizes, PaperXray, cone_beam_clouds, orthographic_clouds


@dataclass(frozen=True)
class Examination:
    """What was observed of a spine: ``seen`` by ultrasound, and one X-ray's ``bodies`` by level. mm, frame spine."""

    seen: SeenPoints
    bodies: Mapping[str, XrayBody]


@dataclass(frozen=True)
class LevelInput:
    """A level's input, normalised. ``partial`` (P, 3); ``owners`` (P,) 20..24 or 0 (truth, never an input);
    ``filled`` (Nx, 3) and ``outline`` (M, 3) of the body with ``outline_normals`` (M, 2); ``normalisation`` to mm."""

    partial: NDArray[np.float64]
    owners: NDArray[np.uint8]
    filled: NDArray[np.float64]
    outline: NDArray[np.float64]
    outline_normals: NDArray[np.float64]
    normalisation: Normalisation


@dataclass(frozen=True)
class LevelSample:
    """Input and truth of one vertebra. ``complete`` (P, 3) normalised like the input; ``level_to_spine`` (4, 4) mm;
    ``vertices`` (V, 3) mm, frame spine, of the template where the source has correspondence, else None."""

    level: str
    input: LevelInput
    complete: NDArray[np.float64]
    level_to_spine: Matrix
    vertices: NDArray[np.float64] | None
    subject: str
    deformation: int


def examine(sample: SpineSample, settings: SampleSettings, seed: int) -> Examination:
    """Simulate ultrasound and X-ray of a (centred) spine. The same arguments give the same bytes."""
    preset = settings.preset
    random = np.random.default_rng(np.random.SeedSequence([0x4558414D, seed]))
    if isinstance(preset.visibility, PaperVisibility):
        seen = see_from_behind(sample.meshes, preset.visibility, random)
    else:
        seen = sweep_over(sample.meshes, preset.visibility, random)
    bent = sample if preset.posture is None else change_posture(sample, preset.posture, int(random.integers(2**31)))
    return Examination(seen, _xray(bent, seen, preset, settings.xray, random))


def in_observed_frame(sample: SpineSample, observed: Examination) -> tuple[SpineSample, Examination]:
    """Truth and observation moved so that the origin is the mean of the points seen.

    ``examine`` wants it amid the true vertices, which no examination knows. Raises UsxError when nothing was seen.
    """
    if len(observed.seen.points) == 0:
        raise UsxError("the ultrasound shows no point of this spine")
    shift = -observed.seen.points.mean(axis=0)
    bodies = {level: XrayBody(body.filled + shift, body.outline + shift, body.normals)
              for level, body in observed.bodies.items()}
    return (sample.moved(dict.fromkeys(LEVELS, make_transform(np.eye(3), shift))),
            Examination(SeenPoints(observed.seen.points + shift, observed.seen.owners), bodies))


def _xray(sample: SpineSample, seen: SeenPoints, preset: Preset, sizes: CloudSizes, random: np.random.Generator
          ) -> dict[str, XrayBody]:
    if isinstance(preset.xray, PaperXray):
        return orthographic_clouds(sample, seen, preset.xray, sizes, random)
    return cone_beam_clouds(sample, seen, preset.xray, sizes, random)


def level_inputs(observed: Examination, settings: SampleSettings, chain: MeanChain, seed: int,
                 boxes: Mapping[str, Box] | None = None) -> dict[str, LevelInput]:
    """Inputs of the levels with enough points in their ``boxes``, or (None) by the rules that need no truth."""
    random = np.random.default_rng(np.random.SeedSequence([0x43524F50, seed]))
    if boxes is None:
        rows_of = observed_rows(observed.seen, observed.bodies, chain, settings.preset.crop, random)
    else:
        rows_of = {level: box.holds(observed.seen.points) for level, box in boxes.items()}
    drops = settings.drop_rules
    needed = settings.points if drops.sparse else drops.smallest
    inputs = {}
    for level in LEVELS:
        mine = observed.seen.chosen(rows_of[level])
        if len(mine.points) < needed:
            continue
        frame = normalisation_of(mine.points, settings.preset.normalisation)
        rows = resample(frame.apply(mine.points), settings.points)
        body = observed.bodies[level]
        inputs[level] = LevelInput(frame.apply(mine.points[rows]), mine.owners[rows], frame.apply(body.filled),
                                   frame.apply(body.outline), body.normals, frame)
    return inputs


def level_samples(observed: Examination, truth: SpineSample, settings: SampleSettings, chain: MeanChain, seed: int
                  ) -> list[LevelSample]:
    """Samples of the levels that are not dropped, L1 first."""
    boxes = true_boxes(truth, settings.preset.crop) if settings.preset.crop.rule == "truth" else None
    samples = []
    for level, mine in level_inputs(observed, settings, chain, seed, boxes).items():
        mesh = truth.meshes[level]
        if settings.drop_rules.oversized and np.ptp(mesh.vertices, axis=0).max() * mine.normalisation.scale >= 1.0:
            continue
        samples.append(_with_truth(level, mine, mesh, truth, settings.points, seed))
    return samples


def _with_truth(level: str, mine: LevelInput, mesh: Mesh, truth: SpineSample, points: int, seed: int) -> LevelSample:
    surface = even_surface_points(mesh, points, _surface_seed(seed, level))
    return LevelSample(level, mine, mine.normalisation.apply(surface), truth.level_to_spine[level],
                       mesh.vertices if truth.corresponding else None, truth.subject, truth.deformation)


def _surface_seed(seed: int, level: str) -> int:
    return int(np.random.SeedSequence([0x53555246, seed, label_of_level(level)]).generate_state(1)[0])
