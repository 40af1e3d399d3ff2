"""Rigid and affine transforms of 3D points.

A matrix named ``a_to_b`` maps points of frame a to frame b: ``p_b = a_to_b @ p_a`` for column vectors. Points are
rows of (N, 3) arrays, in millimetres; matrices are (4, 4) float64. Quaternions are (x, y, z, w), as in ROS.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from usx_common.errors import UsxError

Matrix = NDArray[np.float64]


def identity() -> Matrix:
    """The (4, 4) identity."""
    return np.eye(4)


def make_transform(rotation: ArrayLike, translation: ArrayLike) -> Matrix:
    """(4, 4) matrix of a (3, 3) linear part and a (3,) translation in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(rotation, dtype=np.float64)
    matrix[:3, 3] = np.asarray(translation, dtype=np.float64)
    return matrix


def from_quaternion(translation: ArrayLike, quaternion: ArrayLike) -> Matrix:
    """(4, 4) rigid matrix of a translation in mm and a quaternion (x, y, z, w), normalised here.

    Raises UsxError for a quaternion that is zero or not finite.
    """
    xyzw = np.asarray(quaternion, dtype=np.float64)
    norm = float(np.linalg.norm(xyzw))
    if not np.isfinite(norm) or norm < 1e-12:
        raise UsxError(f"quaternion {xyzw.tolist()} describes no rotation; its norm must not be zero")
    return make_transform(Rotation.from_quat(xyzw / norm).as_matrix(), translation)


def to_quaternion(a_to_b: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Translation (3,) in mm and quaternion (4,) (x, y, z, w), w >= 0, of a rigid (4, 4) matrix."""
    quaternion = Rotation.from_matrix(a_to_b[:3, :3]).as_quat(canonical=True)
    return a_to_b[:3, 3].copy(), quaternion


def invert(a_to_b: Matrix) -> Matrix:
    """``b_to_a`` of an affine (4, 4) matrix. Raises UsxError when it cannot be inverted."""
    linear = a_to_b[:3, :3]
    if abs(np.linalg.det(linear)) < 1e-15:
        raise UsxError(f"matrix {np.asarray(a_to_b).tolist()} cannot be inverted; its axes are not independent")
    inverse = np.linalg.inv(linear)
    return make_transform(inverse, -inverse @ a_to_b[:3, 3])


def apply(a_to_b: Matrix, points: ArrayLike) -> NDArray[np.float64]:
    """Points (N, 3) or one point (3,) of frame a in frame b, mm."""
    return np.asarray(points, dtype=np.float64) @ a_to_b[:3, :3].T + a_to_b[:3, 3]


def rotate(a_to_b: Matrix, vectors: ArrayLike) -> NDArray[np.float64]:
    """Vectors (N, 3) or (3,) of frame a in frame b: the translation is left out."""
    return np.asarray(vectors, dtype=np.float64) @ a_to_b[:3, :3].T


def interpolate_screw(start: Matrix, end: Matrix, fraction: float) -> Matrix:
    """Pose at ``fraction`` (0 = start, 1 = end) of the constant screw motion from start to end.

    The motion ``start @ exp(fraction * log(start^-1 end))`` turns about and slides along one fixed axis; rotation and
    translation are coupled, so it does not depend on the frame in which the poses are written
    (Murray, Li, Sastry, A Mathematical Introduction to Robotic Manipulation, 1994, ch. 2).
    Both are rigid (4, 4) matrices, mm. A turn of exactly 180 degrees has two shortest screws; one is taken.
    """
    relative = invert(start) @ end
    rotation_vector = Rotation.from_matrix(relative[:3, :3]).as_rotvec()
    velocity = np.linalg.solve(_left_jacobian(rotation_vector), relative[:3, 3])
    part = fraction * rotation_vector
    step = make_transform(Rotation.from_rotvec(part).as_matrix(), _left_jacobian(part) @ (fraction * velocity))
    return start @ step


def _left_jacobian(rotation_vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) map from the screw's linear velocity to its displacement: the left Jacobian of SO(3)."""
    angle = float(np.linalg.norm(rotation_vector))
    x, y, z = rotation_vector
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    if angle < 1e-5:  # series: the closed form divides by angle^3
        return np.eye(3) + 0.5 * cross + cross @ cross / 6.0
    sine = (1.0 - np.cos(angle)) / angle**2
    cosine = (angle - np.sin(angle)) / angle**3
    return np.eye(3) + sine * cross + cosine * (cross @ cross)


def nearest_rigid(affine: Matrix) -> Matrix:
    """Rigid (4, 4) matrix nearest to an affine one in the Frobenius norm (orthogonal Procrustes); same translation.

    Raises UsxError when the linear part is singular or mirrors space.
    """
    linear = affine[:3, :3]
    if np.linalg.det(linear) <= 1e-15:
        raise UsxError(f"matrix {np.asarray(affine).tolist()} mirrors or flattens space; no rigid part is near it")
    left, _, right = np.linalg.svd(linear)
    return make_transform(left @ right, affine[:3, 3])


def is_rigid(matrix: Matrix, tolerance: float = 1e-6) -> bool:
    """Whether a (4, 4) matrix is a rotation with a translation, within ``tolerance`` per entry."""
    if matrix.shape != (4, 4) or not np.all(np.isfinite(matrix)):
        return False
    linear = matrix[:3, :3]
    orthonormal = np.allclose(linear @ linear.T, np.eye(3), atol=tolerance)
    return bool(orthonormal and np.linalg.det(linear) > 0 and np.allclose(matrix[3], [0, 0, 0, 1], atol=tolerance))


def rotation_angle(a_to_b: Matrix) -> float:
    """Angle in radians (0 .. pi) of the rotation in a rigid (4, 4) matrix."""
    return float(Rotation.from_matrix(a_to_b[:3, :3]).magnitude())


def rotation_about_axis(axis: ArrayLike, angle: float) -> NDArray[np.float64]:
    """(3, 3) rotation by ``angle`` radians about ``axis`` (any length but zero)."""
    direction = np.asarray(axis, dtype=np.float64)
    norm = float(np.linalg.norm(direction))
    if norm < 1e-12:
        raise UsxError(f"axis {direction.tolist()} has no direction")
    return Rotation.from_rotvec(direction / norm * angle).as_matrix()


def parse_matrix(numbers: Sequence[float] | ArrayLike, name: str = "matrix") -> Matrix:
    """(4, 4) affine matrix of 16 row-major numbers.

    Raises UsxError naming ``name`` when the count is wrong, a number is not finite, the last row is not 0 0 0 1,
    or the axes are not independent.
    """
    values = np.asarray(numbers, dtype=np.float64).reshape(-1)
    if values.size != 16:
        raise UsxError(f"{name} has {values.size} numbers; it must have 16 (row-major 4x4)")
    if not np.all(np.isfinite(values)):
        raise UsxError(f"{name} = {values.tolist()} holds a number that is not finite")
    matrix = values.reshape(4, 4)
    if not np.allclose(matrix[3], [0.0, 0.0, 0.0, 1.0], atol=1e-9):
        raise UsxError(f"{name} has last row {matrix[3].tolist()}; it must be 0 0 0 1 (are the numbers row-major?)")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-15:
        raise UsxError(f"{name} = {values.tolist()} has axes that are not independent")
    return matrix
