"""A shape model from registered vertebrae of people: means, modes, level poses, calibrated spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.transforms import Matrix, invert
from usx_completion.contact import separate
from usx_completion.leave_one_out import LeftOut, leave_one_out
from usx_completion.people import People, Statistics, along_normals, analyse
from usx_completion.rigid import rotation_vector
from usx_completion.shape_model import ShapeModel
from usx_completion.spine_sampler import (
    REFERENCE,
    SamplerSettings,
    SpineSampler,
    make_sampler,
    sample_model_spine,
)
from usx_completion.spread_calibration import calibrate, mode_correlation

PSEUDO_PEOPLE = 4.0
CENTRE_SEED = 900_000  # apart from the seeds that anybody looks at
MIRROR = np.array([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])  # of a rotation vector and a translation, left for right


@dataclass(frozen=True)
class MeshModel:
    """The model, the statistics behind it, and how people left out fared."""

    model: ShapeModel
    statistics: Statistics
    left_out: LeftOut


def learn(people: People, posed: NDArray[np.bool_], prior: ShapeModel, modes: int, mode_counts: tuple[int, ...]
          ) -> MeshModel:
    """A model of the people. ``prior``: the model whose topology they were registered with.

    ``posed`` (N,): rows whose pose in their frame means something. What few people tell badly leans on more: a level's
    spread of a mode on the pooled one, level poses on the prior's (as if it were 4 people). A level that nobody gives
    takes the prior's mean. Raises UsxError with fewer than three people.
    """
    statistics = analyse(people, prior.body, modes)
    means = np.where(np.isnan(statistics.means), prior.means, statistics.means)
    left_out = leave_one_out(people, prior.body, prior.faces, (*mode_counts, len(statistics.values)))
    step_mean, step_sd = _moments(_steps(people, statistics, posed), prior.step_mean, prior.step_sd)
    tilt_mean, tilt_sd = _moments(_tilts(people, statistics, posed), prior.tilt_mean, prior.tilt_sd)
    model = ShapeModel(
        faces=prior.faces, means=means, body=prior.body,
        modes=(statistics.directions * statistics.values[:, None]).reshape(len(statistics.values), -1, 3),
        mode_sd=_mode_sd(people, statistics), mode_correlation=mode_correlation(people, statistics),
        residual_sd=_residual_sd(left_out, means, prior.faces), step_mean=step_mean, step_sd=step_sd,
        tilt_mean=tilt_mean, tilt_sd=tilt_sd)
    return MeshModel(centre_steps(calibrate(settle(model), left_out)), statistics, left_out)


def settle(model: ShapeModel) -> ShapeModel:
    """The model with mean steps that give way where the mean vertebrae would run into each other."""
    sampler = make_sampler(model, SamplerSettings(modes=0.0, process=0.0, posture=0.0))
    poses = sampler.poses(model.means, np.random.default_rng(0))
    poses, _ = separate(model.means, sampler.normals(model.means), poses, REFERENCE)
    return replace(model, step_mean=np.stack([step_between(*pair) for pair in pairwise(poses)]))


def centre_steps(model: ShapeModel, count: int = 40, rounds: int = 2) -> ShapeModel:
    """The model whose sampled spines have its mean steps about x and in y and z, after bones have given way.

    Bones give way to one side more than to the other: to the front, and down. That is measured on ``count`` spines and
    taken off.
    """
    columns, off = [0, 4, 5], np.zeros((len(LEVELS) - 1, 3))
    for _ in range(rounds):
        sampler = make_sampler(model)
        steps = [sampled_steps(sampler, CENTRE_SEED + number) for number in range(count)]
        off -= (np.mean(steps, axis=0) - model.step_mean)[:, columns]
        turn, back, up = (tuple(column) for column in off.T.tolist())
        model = replace(model, spread=replace(model.spread, step_turn_rad=turn, step_back_mm=back, step_up_mm=up))
    return model


def sampled_steps(sampler: SpineSampler, seed: int) -> NDArray[np.float64]:
    """(L - 1, 6) steps from level to level of a sampled spine; see `step_between`."""
    poses = sample_model_spine(sampler, seed).vertebra_to_patient.values()
    return np.stack([step_between(*pair) for pair in pairwise(poses)])


def step_between(upper: Matrix, lower: Matrix) -> NDArray[np.float64]:
    """(6,) rotation vector and translation (mm) of the lower level in the upper one's frame; poses to any frame."""
    relative = invert(upper) @ lower
    return np.r_[rotation_vector(relative[:3, :3]), relative[:3, 3]]


def _mode_sd(people: People, statistics: Statistics, pseudo: float = 5.0) -> NDArray[np.float64]:
    """(L, K) standard deviation of a mode's coefficient on each level of real people, drawn to that of all levels.

    ``pseudo``: how many people the latter counts for. Generated spines (group 1) add modes, but do not tell their size.
    """
    real = np.where(people.groups == 0, people.mode_weights, 0.0)
    squares = statistics.scores**2
    pooled = real @ squares / real.sum()
    result = np.tile(np.sqrt(pooled), (len(LEVELS), 1))
    for level in range(len(LEVELS)):
        weights = np.where(people.levels == level, real, 0.0)
        if weights.sum() > 0.0:
            count = len(np.unique(people.subjects[weights > 0.0]))
            own = weights @ squares / weights.sum()
            result[level] = np.sqrt((count * own + pseudo * pooled) / (count + pseudo))
    return result


def generated_share(people: People, statistics: Statistics) -> tuple[int, float]:
    """Number of modes that owe more than half of their variance to generated spines, and their part of all variance."""
    energy = people.mode_weights[:, None] * (statistics.residuals @ statistics.directions.T) ** 2
    generated = energy[people.groups == 1].sum(axis=0)
    return int(np.sum(generated > 0.5 * energy.sum(axis=0))), float(generated.sum() / energy.sum())


def _residual_sd(left_out: LeftOut, means: NDArray, faces: NDArray, pseudo: float = 5.0) -> NDArray[np.float64]:
    """(L, V) root mean square along the normal of what the modes leave over of people left out, drawn to all levels'.

    ``pseudo``: how many vertebrae the latter counts for.
    """
    squares = np.stack([along_normals(offsets, means[level], faces) ** 2
                        for offsets, level in zip(left_out.offsets, left_out.levels, strict=True)])
    counts = np.array([np.sum(left_out.levels == level) for level in range(len(LEVELS))])[:, None]
    own = np.nan_to_num(left_out.by_level(squares))
    result: NDArray[np.float64] = np.sqrt((counts * own + pseudo * squares.mean(axis=0)) / (counts + pseudo))
    return result


@dataclass(frozen=True)
class _Observed:
    """``values`` (n, D), and the weights (n,) of each in the mean and in the spread."""

    values: NDArray[np.float64]
    mean_weights: NDArray[np.float64]
    spread_weights: NDArray[np.float64]


def _steps(people: People, statistics: Statistics, posed: NDArray) -> list[_Observed]:
    """For each gap the steps to the next caudal level: rotation vector and translation."""
    found = []
    for level in range(len(LEVELS) - 1):
        steps, uppers = [], []
        for row in np.flatnonzero(posed & (people.groups == 0) & (people.levels == level)):
            below = np.flatnonzero((people.subjects == people.subjects[row]) & (people.copies == people.copies[row])
                                   & (people.levels == level + 1))
            for other in below:
                steps.append(step_between(statistics.poses[row], statistics.poses[other]))
                uppers.append(row)
        found.append(_observed(steps, uppers, people, 6))
    return found


def _tilts(people: People, statistics: Statistics, posed: NDArray) -> list[_Observed]:
    """For each level the rotation vectors (3,) of its frame in the patient's axes."""
    rows = [np.flatnonzero(posed & (people.groups == 0) & (people.levels == level)) for level in range(len(LEVELS))]
    return [_observed([rotation_vector(statistics.poses[row][:3, :3]) for row in level], level, people, 3)
            for level in rows]


def _observed(values: list[NDArray], rows: Sequence[Any] | NDArray, people: People, size: int) -> _Observed:
    chosen = np.asarray(rows, dtype=int)
    return _Observed(np.reshape(values, (-1, size)), people.mean_weights[chosen], people.mode_weights[chosen])


def _moments(found: list[_Observed], mean: NDArray, sd: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean and standard deviation of each entry, with a symmetrised prior (L, D) as so many people more."""
    mean = 0.5 * (mean + MIRROR[: mean.shape[1]] * mean)
    means, sds = np.empty_like(mean), np.empty_like(sd)
    for row, observed in enumerate(found):
        counts = np.minimum(observed.mean_weights, PSEUDO_PEOPLE)  # a mean of many lay in one way only
        means[row] = (PSEUDO_PEOPLE * mean[row] + counts @ observed.values) / (PSEUDO_PEOPLE + counts.sum())
        squares = PSEUDO_PEOPLE * sd[row] ** 2 + observed.spread_weights @ (observed.values - means[row]) ** 2
        sds[row] = np.sqrt(squares / (PSEUDO_PEOPLE + observed.spread_weights.sum()))
    return means, sds
