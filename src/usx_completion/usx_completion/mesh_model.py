"""A shape model from registered vertebrae of people: means, modes, level poses, calibrated spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.transforms import invert
from usx_completion.leave_one_out import LeftOut, leave_one_out
from usx_completion.people import People, Statistics, along_normals, analyse
from usx_completion.rigid import rotation_vector
from usx_completion.shape_model import ShapeModel
from usx_completion.spread_calibration import calibrate, mode_correlation

PSEUDO_PEOPLE = 8.0
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
    spread of a mode on the pooled one, level poses on the prior's (as if it were 8 people). A level that nobody gives
    takes the prior's mean. Raises UsxError with fewer than three people.
    """
    statistics = analyse(people, prior.body, modes)
    means = np.where(np.isnan(statistics.means), prior.means, statistics.means)
    left_out = leave_one_out(people, prior.body, prior.faces, (*mode_counts, len(statistics.values)))
    step_mean, step_sd = _moments(*_steps(people, statistics, posed), prior.step_mean, prior.step_sd)
    tilt_mean, tilt_sd = _moments(*_tilts(people, statistics, posed), prior.tilt_mean, prior.tilt_sd)
    model = ShapeModel(
        faces=prior.faces, means=means, body=prior.body,
        modes=(statistics.directions * statistics.values[:, None]).reshape(len(statistics.values), -1, 3),
        mode_sd=_mode_sd(people, statistics), mode_correlation=mode_correlation(people, statistics),
        residual_sd=_residual_sd(people, statistics, means, prior.faces), step_mean=step_mean, step_sd=step_sd,
        tilt_mean=tilt_mean, tilt_sd=tilt_sd)
    return MeshModel(calibrate(model, left_out), statistics, left_out)


def _mode_sd(people: People, statistics: Statistics, pseudo: float = 5.0) -> NDArray[np.float64]:
    """(L, K) standard deviation of a mode's coefficient on each level, drawn to the pooled one, which is 1."""
    result = np.ones((len(LEVELS), len(statistics.values)))
    for level in range(len(LEVELS)):
        weights = np.where(people.levels == level, people.mode_weights, 0.0)
        if weights.sum() > 0.0:
            count = len(np.unique(people.subjects[weights > 0.0]))
            own = weights @ statistics.scores**2 / weights.sum()
            result[level] = np.sqrt((count * own + pseudo) / (count + pseudo))
    return result


def _residual_sd(people: People, statistics: Statistics, means: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """(L, V) what the modes leave over along the normal, of the rows learned from."""
    rest = statistics.residuals - (statistics.residuals @ statistics.directions.T) @ statistics.directions
    result = np.zeros(means.shape[:2])
    for level, mean in enumerate(means):
        weights = np.where((people.levels == level) & (people.groups == 0), people.mode_weights, 0.0)
        if weights.sum() > 0.0:
            squares = along_normals(rest.reshape(len(rest), -1, 3), mean, faces) ** 2
            result[level] = np.sqrt(weights @ squares / weights.sum())
    return result


def _steps(people: People, statistics: Statistics, posed: NDArray) -> tuple[list[NDArray], list[NDArray]]:
    """For each gap, (n, 6) steps to the next caudal level (rotation vector, translation) and their weights (n,)."""
    steps, weights = [], []
    for level in range(len(LEVELS) - 1):
        found, counts = [], []
        for row in np.flatnonzero(posed & (people.groups == 0) & (people.levels == level)):
            below = np.flatnonzero((people.subjects == people.subjects[row]) & (people.copies == people.copies[row])
                                   & (people.levels == level + 1))
            for other in below:
                relative = invert(statistics.poses[row]) @ statistics.poses[other]
                found.append(np.r_[rotation_vector(relative[:3, :3]), relative[:3, 3]])
                counts.append(people.mean_weights[row])
        steps.append(np.reshape(found, (-1, 6)))
        weights.append(np.asarray(counts))
    return steps, weights


def _tilts(people: People, statistics: Statistics, posed: NDArray) -> tuple[list[NDArray], list[NDArray]]:
    """For each level, (n, 3) rotation vectors of its frame in the patient's axes, and their weights (n,)."""
    rows = [np.flatnonzero(posed & (people.groups == 0) & (people.levels == level)) for level in range(len(LEVELS))]
    return ([np.reshape([rotation_vector(statistics.poses[row][:3, :3]) for row in level], (-1, 3)) for level in rows],
            [people.mean_weights[level] for level in rows])


def _moments(found: list[NDArray], weights: list[NDArray], mean: NDArray, sd: NDArray
             ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted moments of each list entry (n, D), with a symmetrised prior (L, D) as so many people more."""
    mean = 0.5 * (mean + MIRROR[: mean.shape[1]] * mean)
    means, sds = np.empty_like(mean), np.empty_like(sd)
    for row, (values, counts) in enumerate(zip(found, weights, strict=True)):
        counts = np.minimum(counts, PSEUDO_PEOPLE)  # a mean of many people is one observation of how they lay
        total = PSEUDO_PEOPLE + counts.sum()
        means[row] = (PSEUDO_PEOPLE * mean[row] + counts @ values) / total
        squares = PSEUDO_PEOPLE * (sd[row] ** 2 + (mean[row] - means[row]) ** 2) + counts @ (values - means[row]) ** 2
        sds[row] = np.sqrt(squares / total)
    return means, sds
