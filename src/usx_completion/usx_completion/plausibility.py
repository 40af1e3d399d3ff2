"""Which answers are not to be believed: those that contradict what was seen, each other, or say so themselves.

The bounds were chosen on simulated examinations, made worse too (X-ray 10 mm off, half of the ultrasound missing, noise
of 2 mm): wide enough for all but the few answers there that are wrong by centimetres. Those are meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.levels import LEVELS, UNKNOWN_LABEL, label_of_level
from usx_common.transforms import Matrix, invert
from usx_completion.completed import CompletedLevel
from usx_completion.placement import usual_step
from usx_completion.shape_model import ShapeModel

NEAR_MM = 4.0  # farther points are not of this bone
AROUND_MM = 10.0
LEAST_SHARE = 0.6
MOST_SIGMA_MM = 10.0
STEP_MM = 20.0  # from where the neighbour expects it
FEWEST = 30  # points to go by


def doubts(model: ShapeModel, levels: Mapping[str, CompletedLevel], points: NDArray, labels: NDArray
           ) -> dict[str, str]:
    """Level -> why its answer is not to be believed. ``points`` (N, 3) mm of the ultrasound, in the answers' frame,
    none for an X-ray alone; ``labels`` (N,)."""
    found = {}
    for level, share in _shares(levels, points, labels).items():
        if share < LEAST_SHARE:
            found[level] = (f"only {100.0 * share:.0f} % of its ultrasound points are within {NEAR_MM:g} mm of the "
                            f"answer; {100.0 * LEAST_SHARE:.0f} % are needed")
    for level, answer in levels.items():
        sigma = float(np.median(answer.sigma))
        if level not in found and sigma > MOST_SIGMA_MM:
            found[level] = f"sigma is {sigma:.0f} mm; {MOST_SIGMA_MM:g} are the most"
    return found | _out_of_line(model, {name: answer for name, answer in levels.items() if name not in found})


def _shares(levels: Mapping[str, CompletedLevel], points: NDArray, labels: NDArray) -> dict[str, float]:
    """Share of each level's points that lie near its answer; of one without labels, those around its answer that are
    nearer to it than to others, not too far around, for a neighbour may not be answered. Levels with few points are not
    judged."""
    trees = {level: cKDTree(answer.mesh.vertices) for level, answer in levels.items()}
    unknown = points[labels == UNKNOWN_LABEL]
    gaps = np.array([tree.query(unknown)[0] for tree in trees.values()]).reshape(len(trees), len(unknown))
    shares = {}
    for row, (level, tree) in enumerate(trees.items()):
        own = points[labels == label_of_level(level)]
        around = (gaps[row] < AROUND_MM) & (gaps[row] <= gaps.min(axis=0))
        distance = tree.query(own)[0] if len(own) >= FEWEST else gaps[row][around]
        if len(distance) >= FEWEST:
            shares[level] = float(np.mean(distance < NEAR_MM))
    return shares


def _out_of_line(model: ShapeModel, levels: Mapping[str, CompletedLevel]) -> dict[str, str]:
    """Levels that do not lie where the others expect them: those outside of the largest set that is in line, of several
    the straightest. All of them, where that set is not more than half, for then nobody knows which are right."""
    names = [level for level in LEVELS if level in levels]
    poses = {level: levels[level].level_to_spine for level in names}
    sets = [some for count in range(len(names) + 1) for some in combinations(names, count)
            if all(_off(model, poses, *pair) <= _most(*pair) for pair in pairwise(some))]
    kept = min(sets, key=lambda some: (-len(some), sum(_off(model, poses, *pair) for pair in pairwise(some))))
    if 2 * len(kept) <= len(names):
        kept = ()
    return {level: _told(model, poses, level, kept or names) for level in names if level not in kept}


def _told(model: ShapeModel, poses: Mapping[str, Matrix], level: str, others: Sequence[str]) -> str:
    other = min((name for name in others if name != level), key=lambda name: _apart(level, name))
    off = _off(model, poses, *sorted((level, other)))
    if off <= _most(level, other):
        return "the levels contradict each other"
    return f"it lies {off:.0f} mm from where {other} has it"


def _apart(first: str, second: str) -> int:
    return abs(LEVELS.index(second) - LEVELS.index(first))


def _most(first: str, second: str) -> float:
    """mm; steps vary by themselves, so over several of them the bound grows as their square root."""
    return STEP_MM * float(np.sqrt(_apart(first, second)))


def _off(model: ShapeModel, poses: Mapping[str, Matrix], upper: str, lower: str) -> float:
    """How far, mm, each of two levels is from where usual steps lead from the other: the larger one, for a level that
    is turned over lies right for the one above it."""
    usual = np.eye(4)
    for index in range(LEVELS.index(upper), LEVELS.index(lower)):
        usual = usual @ usual_step(model, index)
    there = invert(poses[upper]) @ poses[lower]
    return max(float(np.linalg.norm((motion - expected)[:3, 3]))
               for motion, expected in ((there, usual), (invert(there), invert(usual))))
