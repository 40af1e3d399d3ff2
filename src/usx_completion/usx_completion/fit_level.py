"""Gauss-Newton pieces of one level: its state, the equations its data give, and what they say about uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import Matrix, make_transform
from usx_completion.level_shape import LevelShape
from usx_completion.outline import Outline, XrayPlane, silhouette
from usx_completion.rigid import rotation_matrix, rotation_vector

POSE = 6


@dataclass(frozen=True)
class LevelState:
    """Pose ``level_to_spine`` (4, 4) and standard normal ``coefficients`` (<= P,) of one level, with what follows
    from them in frame spine: ``local`` and ``vertices`` (V, 3), ``normals`` (V, 3)."""

    shape: LevelShape
    level_to_spine: Matrix
    coefficients: NDArray[np.float64]
    local: NDArray[np.float64]
    vertices: NDArray[np.float64]
    normals: NDArray[np.float64]

    @classmethod
    def at(cls, shape: LevelShape, level_to_spine: Matrix, coefficients: NDArray) -> LevelState:
        """The state of a pose and coefficients."""
        local = shape.vertices(coefficients)
        vertices = local @ level_to_spine[:3, :3].T + level_to_spine[:3, 3]
        return cls(shape, level_to_spine, coefficients, local, vertices, vertex_normals(Mesh(vertices, shape.faces)))

    def mesh(self) -> Mesh:
        """The level's mesh in frame spine, mm."""
        return self.shape.mesh(self.vertices)

    def jacobian(self, rows: NDArray, directions: NDArray, columns: int) -> NDArray[np.float64]:
        """(N, 6 + columns) derivative of ``directions`` . vertex for vertices ``rows`` and unit directions (N, 3).

        Pose part: left rotation about the level's origin (rad), then translation (mm).
        """
        rotation = self.level_to_spine[:3, :3]
        arms = self.local[rows] @ rotation.T
        pose = np.hstack([np.cross(arms, directions), directions])
        if columns == 0:
            return pose
        turned = (directions @ rotation).astype(np.float32)
        shape = (turned[:, None, :] @ self.shape.basis[rows, :, :columns])[:, 0]
        return np.hstack([pose, shape.astype(np.float64)])

    def moved(self, step: NDArray) -> LevelState:
        """The state after a Gauss-Newton step (6 + columns,)."""
        rotation = rotation_matrix(step[:3]) @ self.level_to_spine[:3, :3]
        pose = make_transform(rotation, self.level_to_spine[:3, 3] + step[3:POSE])
        return LevelState.at(self.shape, pose, self.coefficients + step[POSE:])

    def with_columns(self, columns: int) -> LevelState:
        """The state with ``columns`` coefficients in play: cut, or filled with zeros."""
        coefficients = np.zeros(columns)
        kept = min(columns, len(self.coefficients))
        coefficients[:kept] = self.coefficients[:kept]
        return LevelState.at(self.shape, self.level_to_spine, coefficients)


@dataclass
class Equations:
    """Normal equations of a level's step x and the shared X-ray displacement s: matrix x + coupling s = right, and
    coupling^T x + shared s = shared_right. ``cost`` is the weighted sum of squares."""

    matrix: NDArray[np.float64]
    right: NDArray[np.float64]
    coupling: NDArray[np.float64]
    shared: NDArray[np.float64]
    shared_right: NDArray[np.float64]

    @classmethod
    def empty(cls, columns: int) -> Equations:
        """Equations without any data yet."""
        size = POSE + columns
        return cls(np.zeros((size, size)), np.zeros(size), np.zeros((size, 3)), np.zeros((3, 3)), np.zeros(3))

    def add(self, jacobian: NDArray, residual: NDArray, weights: NDArray) -> None:
        """Rows jacobian x = residual with weights (inverse variances)."""
        scaled = jacobian * np.sqrt(weights)[:, None]
        self.matrix += scaled.T @ scaled
        self.right += jacobian.T @ (weights * residual)

    def add_shared(self, jacobian: NDArray, shared: NDArray, residual: NDArray, weights: NDArray) -> None:
        """Rows jacobian x + shared s = residual."""
        self.add(jacobian, residual, weights)
        self.coupling += jacobian.T @ (weights[:, None] * shared)
        self.shared += shared.T @ (weights[:, None] * shared)
        self.shared_right += shared.T @ (weights * residual)


def add_points(equations: Equations, state: LevelState, pairs: tuple[NDArray, NDArray, NDArray], columns: int) -> None:
    """Point-to-plane rows: ``pairs`` = model vertices (N,), points (N, 3), weights (N,)."""
    rows, points, weights = pairs
    normals = state.normals[rows]
    residual = np.einsum("ni,ni->n", normals, points - state.vertices[rows])
    equations.add(state.jacobian(rows, normals, columns), residual, weights)


def add_outline(equations: Equations, state: LevelState, plane: XrayPlane, outline: Outline, shift: NDArray,
                settings: tuple[float, float, int]) -> None:
    """Rows that draw the silhouette of the model's body onto the X-ray's outline, moved by the shared ``shift`` (3,).

    ``shift``: translation (posterior, cranial, mm) and rotation (rad, about the plane's origin) of the X-ray.
    ``settings``: robust scale and standard deviation in mm, and number of shape columns. Left-right is free: the
    projection along the plane's normal does not see it.
    """
    scale, sigma, columns = settings
    moved, normals = moved_outline(outline, shift)
    flat = plane.flatten(state.vertices[state.shape.body])
    rim = silhouette(flat)
    offsets = moved[:, None, :] - flat[rim][None, :, :]
    along = np.einsum("kmi,ki->km", offsets, normals)
    squared = np.einsum("kmi,kmi->km", offsets, offsets)
    nearest = np.argmin(squared + 3.0 * along**2, axis=1)
    rows = state.shape.body[rim[nearest]]
    residual = along[np.arange(len(moved)), nearest]
    apart = np.sqrt(squared[np.arange(len(moved)), nearest])
    # neighbouring outline points see the same error of the segmentation: count one in three
    weights = (apart < 12.0) / (3.0 * sigma**2 * (1.0 + (residual / scale) ** 2))
    directions = normals @ plane.axes[1:]
    turn = normals[:, 1] * moved[:, 0] - normals[:, 0] * moved[:, 1]
    shared = -np.column_stack([normals, turn])
    equations.add_shared(state.jacobian(rows, directions, columns), shared, residual, weights)


def moved_outline(outline: Outline, shift: NDArray) -> tuple[NDArray, NDArray]:
    """Points and normals (M, 2) of the outline after the X-ray's displacement."""
    cosine, sine = np.cos(shift[2]), np.sin(shift[2])
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return outline.points @ rotation.T + shift[:2], outline.normals @ rotation.T


def add_pose_prior(equations: Equations, state: LevelState, expected: Matrix, sd: NDArray) -> None:
    """Rows that keep the pose near ``expected`` (4, 4); ``sd`` (6,): rotation (rad), translation (mm), in its axes."""
    axes = expected[:3, :3]
    turn = rotation_vector(state.level_to_spine[:3, :3] @ axes.T)
    away = state.level_to_spine[:3, 3] - expected[:3, 3]
    residual = -np.r_[axes.T @ turn, axes.T @ away]
    jacobian = np.zeros((POSE, len(equations.right)))
    jacobian[:3, :3], jacobian[3:, 3:POSE] = axes.T, axes.T
    used = np.isfinite(sd)
    equations.add(jacobian[used], residual[used], 1.0 / sd[used] ** 2)


def add_shape_prior(equations: Equations, state: LevelState, expected: NDArray, variance: NDArray) -> None:
    """Coefficients are normal about ``expected`` with ``variance``, both (columns,)."""
    index = np.arange(POSE, POSE + len(expected))
    equations.matrix[index, index] += 1.0 / variance
    equations.right[index] += (expected - state.coefficients) / variance


def solve_jointly(equations: list[Equations], shift: NDArray, shift_sd: NDArray) -> tuple[list[NDArray], NDArray]:
    """Steps of all levels and of the shared displacement: block elimination of the levels (Schur complement)."""
    shared = np.diag(1.0 / shift_sd**2)
    right = -shift / shift_sd**2
    factors = []
    for level in equations:
        factor = cho_factor(level.matrix, lower=True)
        shared = shared + level.shared - level.coupling.T @ cho_solve(factor, level.coupling)
        right = right + level.shared_right - level.coupling.T @ cho_solve(factor, level.right)
        factors.append(factor)
    step = np.linalg.solve(shared, right)
    pairs = zip(equations, factors, strict=True)
    return [cho_solve(factor, level.right - level.coupling @ step) for level, factor in pairs], step


def normal_variance(state: LevelState, equations: Equations, shared_covariance: NDArray) -> NDArray[np.float64]:
    """(V,) posterior variance in mm^2 of each vertex along its normal, for the Gaussian around the solution."""
    columns = len(equations.right) - POSE
    jacobian = state.jacobian(np.arange(len(state.vertices)), state.normals, columns)
    lower = np.linalg.cholesky(equations.matrix)
    own = np.sum(solve_triangular(lower, jacobian.T, lower=True) ** 2, axis=0)
    through = jacobian @ cho_solve((lower, True), equations.coupling)
    return own + np.einsum("vi,ij,vj->v", through, shared_covariance, through)
