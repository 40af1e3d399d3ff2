"""Low-rank Gaussian processes of smooth displacements on a set of points.

The idea of Gaussian process morphable models (Lüthi et al., IEEE TPAMI 40(8), 2018): a smooth unknown displacement is
written as ``basis @ coefficients`` with independent standard normal coefficients, one set per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Kernel:
    """A Gaussian kernel: displacement of standard deviation ``sd_mm`` per axis that varies over ``width_mm``."""

    width_mm: float
    sd_mm: float


def low_rank_basis(points: NDArray, kernels: Sequence[Kernel], rank: int, tolerance: float = 1e-3
                   ) -> NDArray[np.float64]:
    """(N, R) basis in mm, R <= ``rank``, with ``basis @ basis.T`` close to the sum of the kernels on ``points`` (N, 3).

    Greedy pivoted Cholesky factorisation: the next pivot is the point of largest remaining variance (lowest index on
    a tie), and it ends when that is below ``tolerance`` times the largest variance. Deterministic.
    """
    points = np.asarray(points, dtype=np.float64)
    remaining = np.full(len(points), sum(kernel.sd_mm**2 for kernel in kernels))
    limit = tolerance * remaining[0] if len(points) else 0.0
    basis = np.zeros((len(points), min(rank, len(points))))
    for column in range(basis.shape[1]):
        pivot = int(np.argmax(remaining))
        if remaining[pivot] <= limit:
            return basis[:, :column]
        covariance = _covariance(points, points[pivot], kernels)
        basis[:, column] = (covariance - basis[:, :column] @ basis[pivot, :column]) / np.sqrt(remaining[pivot])
        remaining = np.maximum(remaining - basis[:, column] ** 2, 0.0)
    return basis


def _covariance(points: NDArray, centre: NDArray, kernels: Sequence[Kernel]) -> NDArray[np.float64]:
    squared = np.sum((points - centre) ** 2, axis=1)
    return sum((kernel.sd_mm**2 * np.exp(-0.5 * squared / kernel.width_mm**2) for kernel in kernels),
               np.zeros(len(points)))
