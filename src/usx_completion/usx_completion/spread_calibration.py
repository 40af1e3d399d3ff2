"""Amplitudes of sampled shapes from people kept out of the model: see `usx_completion.spread.Spread`.

The measure, for one vertebra: rigidly aligned to its level's mean, the mean over the vertices of the absolute distance
along the mean's normals, in mm, (a) to the mean, (b) to its projection on the modes. Real people are measured with
mean and modes of the *other* people (leave one subject out), sampled ones with those of the whole model. Sampled
shapes are scaled until both agree on every level: (b) fixes the smooth field, then (a) the modes. Few people give a
level, so that its numbers are first drawn to those of all vertebrae.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from usx_common.levels import LEVELS
from usx_common.transforms import apply
from usx_completion.leave_one_out import LeftOut, mean_error
from usx_completion.people import People, Statistics
from usx_completion.rigid import align
from usx_completion.shape_model import ShapeModel
from usx_completion.spine_sampler import SpineSampler, make_sampler
from usx_completion.spread import Spread

WIDTHS_MM = (30.0, 16.0, 8.0, 5.0, 3.0)
CALIBRATION_SEED = 77
LARGEST_CORRELATION = 0.95


@dataclass(frozen=True)
class Amplitude:
    """(L,) mean distance along the normal in mm to the mean, and to what the modes explain; see the module."""

    to_mean_mm: NDArray[np.float64]
    left_over_mm: NDArray[np.float64]


def real_amplitude(left_out: LeftOut) -> Amplitude:
    """Of people left out; its numbers of modes must begin with 0 and end with all. A level nobody gives: the mean."""
    found = left_out.by_level(left_out.normal_mm)
    found = np.where(np.isnan(found), np.nanmean(found, axis=0), found)
    return Amplitude(found[:, 0], found[:, -1])


def goal_amplitude(left_out: LeftOut, pseudo: float = 5.0) -> Amplitude:
    """What sampled shapes are scaled to: each level's amplitude of people left out, drawn to that of all vertebrae.

    ``pseudo``: how many vertebrae the latter counts for; two or three people do not tell a level's spread.
    """
    real, pooled = real_amplitude(left_out), left_out.normal_mm.mean(axis=0)
    counts = np.array([np.sum(left_out.levels == level) for level in range(len(LEVELS))])
    return Amplitude(*((counts * own + pseudo * pooled[column]) / (counts + pseudo)
                       for own, column in ((real.to_mean_mm, 0), (real.left_over_mm, -1))))


def sampled_amplitude(sampler: SpineSampler, count: int, seed: int = CALIBRATION_SEED) -> Amplitude:
    """Of ``count`` people drawn from the sampler."""
    model, random = sampler.model, np.random.default_rng(seed)
    directions = sampler.modes / np.linalg.norm(sampler.modes, axis=1, keepdims=True)
    sums = np.zeros((2, len(LEVELS)))
    for _ in range(count):
        for level, shape in enumerate(sampler.shapes(random)):
            mean = model.means[level]
            offset = (apply(align(shape, mean), shape) - mean).astype(np.float32).ravel()
            rest = offset - (directions @ offset) @ directions
            sums[0, level] += mean_error(offset.reshape(-1, 3), mean, model.faces)[1]
            sums[1, level] += mean_error(rest.reshape(-1, 3), mean, model.faces)[1]
    return Amplitude(*(sums / count))


def calibrate(model: ShapeModel, left_out: LeftOut, count: int = 60) -> ShapeModel:
    """The model with the spread at which sampled shapes are as far from it as people left out are."""
    goal = goal_amplitude(left_out)
    widths, shares = kernel_shares(left_out, model.means.mean(axis=0))
    levels = len(LEVELS)
    spread = Spread(widths, shares, (1.0,) * levels, between_levels(left_out), (0.0,) * levels,
                    tuple(map(float, goal.to_mean_mm)), tuple(map(float, goal.left_over_mm)))
    unit = sampled_amplitude(make_sampler(replace(model, spread=spread)), count)
    process = goal.left_over_mm / unit.left_over_mm
    spread = replace(spread, process_sd_mm=tuple(map(float, process)))
    field_only = (unit.to_mean_mm * process) ** 2
    scale = np.ones(levels)
    for _ in range(4):
        spread = replace(spread, mode_scale=tuple(map(float, scale)))
        found = sampled_amplitude(make_sampler(replace(model, spread=spread)), count)
        # squares add: what the modes must give beside the smooth field
        wanted = np.maximum(goal.to_mean_mm**2 - field_only, 0.01)
        given = np.maximum(found.to_mean_mm**2 - field_only, 0.01)
        scale = np.clip(scale * np.sqrt(wanted / given), 0.0, 5.0)
    return replace(model, spread=replace(spread, mode_scale=tuple(map(float, scale))))


def kernel_shares(left_out: LeftOut, points: NDArray, sample: int = 500
                  ) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Widths of Gaussian kernels and their shares of the variance, fitted to the covariance of what is left over.

    The products of offsets at two of the ``points`` (V, 3) are averaged by their distance and written as a sum of
    kernels with non-negative weights (the variogram fit of geostatistics; Cressie, Statistics for Spatial Data, 1993).
    """
    chosen = np.random.default_rng(0).choice(len(points), min(sample, len(points)), replace=False)
    distance = np.linalg.norm(points[chosen, None] - points[None, chosen], axis=2)
    offsets = left_out.offsets[:, chosen]
    products = np.einsum("nvi,nwi->vw", offsets, offsets) / (3.0 * len(offsets))
    edges = np.r_[np.arange(0.0, 12.0, 1.5), np.arange(12.0, 63.0, 3.0)]  # finer where narrow kernels fall off
    centres, values = [], []
    for low, high in pairwise(edges):
        inside = (distance > low) & (distance <= high)
        if inside.any():
            centres.append(distance[inside].mean())
            values.append(products[inside].mean())
    design = np.exp(-0.5 * (np.asarray(centres)[:, None] / np.asarray(WIDTHS_MM)) ** 2)
    weights, _ = nnls(design, np.asarray(values))
    if not weights.sum() > 0.0:
        return (WIDTHS_MM[1],), (1.0,)
    kept = weights > 0.02 * weights.sum()
    shares = weights[kept] / weights[kept].sum()
    return tuple(np.asarray(WIDTHS_MM)[kept].tolist()), tuple(shares.tolist())


def between_levels(left_out: LeftOut) -> float:
    """Correlation of what is left over between two levels of one person, over all pairs; within 0 .. 0.95."""
    products, sizes = 0.0, 0.0
    for subject in np.unique(left_out.subjects):
        offsets = left_out.offsets[left_out.subjects == subject].reshape(-1, left_out.offsets[0].size)
        gram = offsets @ offsets.T
        upper = np.triu_indices(len(gram), 1)
        products += float(gram[upper].sum())
        sizes += float(np.sqrt(np.outer(np.diag(gram), np.diag(gram)))[upper].sum())
    return float(np.clip(products / sizes, 0.0, LARGEST_CORRELATION)) if sizes > 0.0 else 0.0


def mode_correlation(people: People, statistics: Statistics, pseudo_pairs: float = 10.0) -> NDArray[np.float64]:
    """(K,) correlation of a mode's coefficient between two levels of one person, drawn to the mean of all modes.

    Real people alone tell; generated spines (group 1) do only where nobody gives two levels. ``pseudo_pairs``: how
    many pairs the mean of all modes counts for; few people give several levels.
    """
    scores = statistics.scores
    for group in (0, 1):
        products, squares, pairs = _pairs(people, scores, group)
        if pairs > 0.0:
            break
    else:
        return np.zeros(scores.shape[1])
    power = statistics.values**2
    common = float((products * power).sum() / (squares * power).sum())
    # a mode that these people hardly have (its squares are small) tells little of its own correlation
    found = (products + pseudo_pairs * common) / (squares + pseudo_pairs)
    return np.clip(found, 0.0, LARGEST_CORRELATION)


def _pairs(people: People, scores: NDArray, group: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Over all pairs of levels of one person, weighted: (K,) products and mean squares of scores, and the weight."""
    products, squares, pairs = np.zeros(scores.shape[1]), np.zeros(scores.shape[1]), 0.0
    for row in np.flatnonzero((people.groups == group) & (people.mode_weights > 0.0)):
        same = (people.subjects == people.subjects[row]) & (people.copies == people.copies[row])
        for other in np.flatnonzero(same & (np.arange(len(scores)) > row)):
            products += people.mode_weights[row] * scores[row] * scores[other]
            squares += people.mode_weights[row] * 0.5 * (scores[row] ** 2 + scores[other] ** 2)
            pairs += people.mode_weights[row]
    return products, squares, pairs
