"""One rectangle per body so that neighbours agree: sizes alike, discs between them, a smooth line of bodies.

Viterbi's algorithm over the candidates of each level, from cranial to caudal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_xray.box_fit import Box


@dataclass(frozen=True)
class ChainPrior:
    """How much neighbours may differ (one standard deviation): size as a logarithm of the ratio, tilt in rad, disc
    height in mm; ``weight`` in the units of the boxes' scores."""

    height_ratio: float = 0.12
    depth_ratio: float = 0.09
    tilt: float = float(np.radians(13.0))
    disc: float = 8.5
    disc_sigma: float = 4.0
    weight: float = 0.15


def choose_chain(candidates: list[list[Box]], adjacent: list[bool], prior: ChainPrior | None = None) -> list[Box]:
    """One box of each list, the sum of scores largest. ``adjacent[i]``: lists i and i + 1 are neighbour levels."""
    prior = prior or ChainPrior()
    totals = np.array([box.score for box in candidates[0]])
    back: list[NDArray[np.int64]] = []
    for above, below, neighbours in zip(candidates, candidates[1:], adjacent, strict=False):
        pair = np.array([[_agreement(first, second, neighbours, prior) for second in below] for first in above])
        joint = totals[:, None] + pair
        back.append(joint.argmax(axis=0))
        totals = joint.max(axis=0) + np.array([box.score for box in below])
    chosen = [int(totals.argmax())]
    for pointers in reversed(back):
        chosen.append(int(pointers[chosen[-1]]))
    return [boxes[index] for boxes, index in zip(candidates, reversed(chosen), strict=True)]


def _agreement(above: Box, below: Box, neighbours: bool, prior: ChainPrior) -> float:
    cost = (np.log(above.height / below.height) / prior.height_ratio) ** 2
    cost += (np.log(above.depth / below.depth) / prior.depth_ratio) ** 2
    if neighbours:
        tilt = np.arctan2(_cross(above.axes[1], below.axes[1]), above.axes[1] @ below.axes[1])
        cost += (tilt / prior.tilt) ** 2
        end_above = above.centre + above.axes[1] * above.height / 2.0
        end_below = below.centre - below.axes[1] * below.height / 2.0
        direction = above.axes[1] + below.axes[1]
        disc = float((end_below - end_above) @ direction / np.linalg.norm(direction))
        cost += ((disc - prior.disc) / prior.disc_sigma) ** 2
    return -prior.weight * float(cost)


def _cross(first: NDArray, second: NDArray) -> float:
    return float(first[0] * second[1] - first[1] * second[0])
