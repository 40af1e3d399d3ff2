"""One level's deformable vertebra: modes of the shape model, anisotropic size, and a smooth Gaussian process.

The Gaussian process lets the fit reach shapes outside the span of what the modes learned from; its amplitude is a
statement about how far a real person may be from them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.gaussian_process import Kernel, low_rank_basis
from usx_completion.shape_model import ShapeModel


@dataclass(frozen=True)
class FlexibilitySettings:
    """``modes``: how many of the model's are used, widened by ``mode_scale``; ``size_sd``: relative, per axis."""

    modes: int = 40
    mode_scale: float = 1.1
    size_sd: float = 0.05
    size_correlation: float = 0.8
    kernels: tuple[Kernel, ...] = (Kernel(30.0, 2.2), Kernel(14.0, 1.1))
    rank: int = 100


@dataclass(frozen=True)
class LevelShape:
    """Vertices ``mean + basis @ c`` (mm, level frame) with standard normal c.

    ``basis`` (V, 3, P) float32, columns: ``shared`` ones that neighbouring levels have in common (modes, then size per
    axis; ``correlation`` of each), then the Gaussian process. ``leftover_sd`` (V,): along the normal, not in the basis.
    """

    level: str
    mean: NDArray[np.float64]
    faces: NDArray[np.int32]
    basis: NDArray[np.float32]
    correlation: NDArray[np.float64]
    leftover_sd: NDArray[np.float64]
    body: NDArray[np.int64]

    @property
    def shared(self) -> int:
        """Number of leading columns that are correlated between levels."""
        return len(self.correlation)

    def vertices(self, coefficients: NDArray) -> NDArray[np.float64]:
        """(V, 3) local vertices for the leading coefficients given."""
        count = len(coefficients)
        if count == 0:
            return self.mean.copy()
        flat = self.basis.reshape(-1, self.basis.shape[2])[:, :count]
        return self.mean + (flat @ coefficients.astype(np.float32)).reshape(-1, 3).astype(np.float64)

    def mesh(self, vertices: NDArray) -> Mesh:
        """The level's mesh with other vertices."""
        return Mesh(vertices, self.faces)


def level_shapes(model: ShapeModel, settings: FlexibilitySettings | None = None) -> dict[str, LevelShape]:
    """The deformable vertebra of every level."""
    settings = settings or FlexibilitySettings()
    return {level: _level_shape(model, index, settings) for index, level in enumerate(LEVELS)}


def _level_shape(model: ShapeModel, index: int, settings: FlexibilitySettings) -> LevelShape:
    mean = model.means[index]
    count = min(settings.modes, model.mode_count)
    modes = model.modes * (settings.mode_scale * model.mode_sd[index])[:, None, None]
    size = np.zeros((3, len(mean), 3))
    for axis in range(3):
        size[axis, :, axis] = settings.size_sd * mean[:, axis]
    smooth = low_rank_basis(mean, settings.kernels, settings.rank)
    per_axis = (smooth[:, None, :, None] * np.eye(3)[None, :, None, :]).reshape(len(mean), 3, -1)
    columns = np.concatenate([np.moveaxis(modes[:count], 0, 2), np.moveaxis(size, 0, 2), per_axis], axis=2)
    normals = vertex_normals(Mesh(mean, model.faces))
    unused = np.einsum("kvi,vi->kv", modes[count:], normals)
    truncated = np.maximum(sum(kernel.sd_mm**2 for kernel in settings.kernels) - np.sum(smooth**2, axis=1), 0.0)
    leftover = np.sqrt(model.residual_sd[index] ** 2 + np.sum(unused**2, axis=0) + truncated)
    correlation = np.concatenate([model.mode_correlation[:count], np.full(3, settings.size_correlation)])
    return LevelShape(LEVELS[index], mean, model.faces, np.ascontiguousarray(columns, dtype=np.float32), correlation,
                      leftover, np.flatnonzero(model.xray_bodies[index]))
