"""Distances between point clouds in the paper's unit: CD-T, CD-P, F1 and density-aware CD.

Both clouds are (N, 3) and (M, 3) in the same unit; values are not yet multiplied by 1e4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.errors import UsxError

F1_THRESHOLD = 0.01
DENSITY_ALPHA = 1000.0


@dataclass(frozen=True)
class Nearest:
    """Nearest neighbours both ways: distances ``to_prediction`` (N,) of the truth's points and ``to_truth`` (M,) of the
    prediction's, with the indices ``in_prediction`` (N,) and ``in_truth`` (M,) of the neighbours."""

    to_prediction: NDArray[np.float64]
    to_truth: NDArray[np.float64]
    in_prediction: NDArray[np.int64]
    in_truth: NDArray[np.int64]

    @classmethod
    def of(cls, truth: NDArray, prediction: NDArray) -> Nearest:
        """Of two clouds. Raises UsxError when one is empty."""
        if len(truth) == 0 or len(prediction) == 0:
            raise UsxError(f"cannot compare clouds of {len(truth)} and {len(prediction)} points")
        to_prediction, in_prediction = cKDTree(prediction).query(truth)
        to_truth, in_truth = cKDTree(truth).query(prediction)
        return cls(to_prediction, to_truth, in_prediction, in_truth)

    @property
    def chamfer_t(self) -> float:
        """CD-T, as `chamfer_t`."""
        return float(np.mean(self.to_prediction**2) + np.mean(self.to_truth**2))

    @property
    def chamfer_p(self) -> float:
        """CD-P, as `chamfer_p`."""
        return float(0.5 * (np.mean(self.to_prediction) + np.mean(self.to_truth)))

    def f1(self, threshold: float = F1_THRESHOLD) -> float:
        """F1, as `f1_score`."""
        recall, precision = np.mean(self.to_prediction < threshold), np.mean(self.to_truth < threshold)
        return float(2.0 * recall * precision / (recall + precision)) if recall + precision > 0 else 0.0

    def density_aware(self, alpha: float = DENSITY_ALPHA) -> float:
        """Density-aware CD, as `density_aware_chamfer`."""
        return 0.5 * (_shared_out(self.to_prediction, self.in_prediction, len(self.to_truth), alpha)
                      + _shared_out(self.to_truth, self.in_truth, len(self.to_prediction), alpha))


def chamfer_t(truth: NDArray, prediction: NDArray) -> float:
    """CD-T: mean squared distance truth to prediction + the reverse (units squared)."""
    return Nearest.of(truth, prediction).chamfer_t


def chamfer_p(truth: NDArray, prediction: NDArray) -> float:
    """CD-P: half the sum of the two directed mean distances (units)."""
    return Nearest.of(truth, prediction).chamfer_p


def f1_score(truth: NDArray, prediction: NDArray, threshold: float = F1_THRESHOLD) -> float:
    """Harmonic mean of the shares of points nearer than ``threshold`` (units) to the other cloud; 0 when none is."""
    return Nearest.of(truth, prediction).f1(threshold)


def density_aware_chamfer(truth: NDArray, prediction: NDArray, alpha: float = DENSITY_ALPHA) -> float:
    """Density-aware chamfer distance, 0 (equal clouds) to 1: every point gives 1 - exp(-alpha d^2) / n.

    d: distance to its nearest point in the other cloud, n: how many points have that same one as their nearest, in
    proportion to the clouds' sizes. T. Wu et al., "Density-aware Chamfer Distance as a Comprehensive Metric for Point
    Cloud Completion", NeurIPS 2021 (arXiv 2111.12702); alpha and the square as in the authors' published code.
    """
    return Nearest.of(truth, prediction).density_aware(alpha)


def _shared_out(distances: NDArray, neighbours: NDArray, others: int, alpha: float) -> float:
    crowd = np.bincount(neighbours, minlength=others)[neighbours]
    share = np.minimum(max(len(distances) / others, 1.0), crowd) / crowd
    return float(np.mean(1.0 - share * np.exp(-alpha * distances**2)))
