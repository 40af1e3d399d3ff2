"""Random smooth displacements of a vertebra's vertices: a mixture of Gaussian kernels, wide and narrow, drawn fast.

Wide kernels are drawn from a low-rank basis. Narrow ones would need a thousand functions; they are white noise of the
vertices smoothed by a kernel narrower by the square root of two, which vanishes a few millimetres away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from usx_completion.gaussian_process import Kernel, low_rank_basis

NARROW_MM = 10.0
SUPPORT = 3.0  # standard deviations of the smoothing kernel


@dataclass(frozen=True)
class SmoothField:
    """``wide`` (V, R) float32 and ``narrow`` (each (V, V) sparse, float32): times independent standard normal numbers
    they give the field along one axis; the sum has the kernels' variance."""

    wide: NDArray[np.float32]
    narrow: tuple[sparse.csr_matrix, ...]

    @staticmethod
    def on(points: NDArray, kernels: Sequence[Kernel], rank: int) -> SmoothField:
        """A field on points (V, 3), mm. ``rank``: functions of the wide kernels (V: no loss)."""
        wide = [kernel for kernel in kernels if kernel.width_mm >= NARROW_MM]
        narrow = tuple(_smoothing(points, kernel) for kernel in kernels if kernel.width_mm < NARROW_MM)
        basis = low_rank_basis(points, wide, rank) if wide else np.zeros((len(points), 0))
        return SmoothField(basis.astype(np.float32), narrow)

    def draw(self, random: np.random.Generator, levels: int, correlation: float) -> NDArray[np.float32]:
        """(levels, 3 V) fields of the levels of one person, any two of them correlated."""
        # einsum, not @: BLAS rounds float32 sums otherwise with another number of threads
        columns = np.einsum("vr,rc->vc", self.wide, _numbers(random, levels, self.wide.shape[1], correlation))
        for part in self.narrow:
            columns = columns + part @ _numbers(random, levels, part.shape[1], correlation)
        return np.moveaxis(columns.reshape(-1, levels, 3), 1, 0).reshape(levels, -1)

    def variance_between(self, first: NDArray, second: NDArray) -> float:
        """mm^2, of the difference between the mean displacements of two sets of vertices (rows) along one axis."""
        parts = [self.wide[first].mean(axis=0) - self.wide[second].mean(axis=0)]
        parts += [np.asarray(part[first].mean(axis=0) - part[second].mean(axis=0)) for part in self.narrow]
        return float(sum(np.sum(np.asarray(part, dtype=np.float64) ** 2) for part in parts))


def shared(random: np.random.Generator, levels: int, correlation: NDArray) -> NDArray[np.float64]:
    """(levels, K) standard normal numbers; any two levels are correlated by ``correlation`` (K,)."""
    common, own = random.standard_normal(len(correlation)), random.standard_normal((levels, len(correlation)))
    return np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * own


def _numbers(random: np.random.Generator, levels: int, count: int, correlation: float) -> NDArray[np.float32]:
    """(count, 3 levels): for each function its factors along the three axes, level after level."""
    drawn = shared(random, levels, np.full(3 * count, correlation)).reshape(levels, count, 3).astype(np.float32)
    return np.moveaxis(drawn, 0, 1).reshape(count, 3 * levels)


def _smoothing(points: NDArray, kernel: Kernel) -> sparse.csr_matrix:
    """(V, V) matrix S with ``S @ S.T`` close to the kernel on points (V, 3), and its variance exactly everywhere."""
    width = kernel.width_mm / np.sqrt(2.0)
    tree = cKDTree(points)
    pairs = tree.query_pairs(SUPPORT * width, output_type="ndarray")
    squared = np.sum((points[pairs[:, 0]] - points[pairs[:, 1]]) ** 2, axis=1)
    weights, every = np.exp(-0.5 * squared / width**2), np.arange(len(points))
    rows, columns = np.concatenate([pairs, pairs[:, ::-1], np.column_stack([every, every])]).T
    values = np.concatenate([weights, weights, np.ones(len(points))])
    matrix = sparse.csr_matrix((values, (rows, columns)), shape=(len(points), len(points)))
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    result = sparse.csr_matrix(sparse.diags(kernel.sd_mm / norms) @ matrix, dtype=np.float32)
    result.sort_indices()
    return result
