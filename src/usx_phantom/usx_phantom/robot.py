"""The KUKA LBR iiwa 14: forward and inverse kinematics, limits, and its names in TF.

Numbers of lbr-stack/lbr_fri_ros2_stack, lbr_description/urdf/iiwa14 (commit 218d723, Apache-2.0); lengths here in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from usx_common import transforms
from usx_common.errors import UsxError

JOINTS = 7
# Origin of each joint in its parent link (mm) and its axis.
ORIGINS = np.array([[0, 0, 147.5], [0, -10, 212.5], [0, 10, 228], [0, 10.5, 192], [0, -10.5, 207.5],
                    [0, -70.7, 192.5], [0, 70.7, 91.0]])
AXES = np.array([[0, 0, 1], [0, 1, 0], [0, 0, 1], [0, -1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1.0]])
FLANGE_MM = 35.0
_CROSS = np.array([[[0, -z, y], [z, 0, -x], [-y, x, 0]] for x, y, z in AXES])
POSITION_LIMITS = np.radians([170, 120, 170, 120, 170, 120, 175.0])
VELOCITY_LIMITS = np.radians([85, 85, 100, 75, 130, 135, 135.0])


class BadRobotTarget(UsxError):
    """A pose or trajectory that the robot cannot follow."""


@dataclass(frozen=True)
class RobotNames:
    """Frame and joint names, and how often the driver publishes."""

    root: str
    links: tuple[str, ...]
    flange: str
    joints: tuple[str, ...]
    rate_hz: float


NAMING = {
    # lbr_fri_ros2_stack, rolling (218d723)
    "rolling": RobotNames("lbr_floating_link", tuple(f"lbr_link_{i}" for i in range(8)), "lbr_link_ee",
                          tuple(f"lbr_A{i}" for i in range(1, 8)), 100.0),
    # lbr_fri_ros2_stack, humble v2.1.2 (cca24ae)
    "humble": RobotNames("lbr/world", tuple(f"lbr/link_{i}" for i in range(8)), "lbr/link_ee",
                         tuple(f"A{i}" for i in range(1, 8)), 200.0),
}


def joint_transforms(q: np.ndarray) -> list[np.ndarray]:
    """Seven (4, 4) child-to-parent transforms for joint angles `q` (7,), rad; mm."""
    c, s = np.cos(q), np.sin(q)
    steps = np.zeros((JOINTS, 4, 4))
    # Rodrigues' formula, all joints at once.
    steps[:, :3, :3] = np.eye(3) + s[:, None, None] * _CROSS + (1.0 - c)[:, None, None] * (_CROSS @ _CROSS)
    steps[:, :3, 3] = ORIGINS
    steps[:, 3, 3] = 1.0
    return list(steps)


def flange_transform() -> np.ndarray:
    """(4, 4) from the flange (link_ee) to link_7, mm."""
    return transforms.make_transform(np.eye(3), [0.0, 0.0, FLANGE_MM])


def forward(q: np.ndarray) -> np.ndarray:
    """(4, 4) from the flange (link_ee) to the base (link_0), mm."""
    pose = np.eye(4)
    for step in joint_transforms(q):
        pose = pose @ step
    return pose @ flange_transform()


def jacobian(q: np.ndarray) -> np.ndarray:
    """(6, 7): flange velocity (mm/s) and angular velocity (rad/s) per joint velocity, in the base frame."""
    pose, origins, axes = np.eye(4), [], []
    for step, axis in zip(joint_transforms(q), AXES, strict=True):
        pose = pose @ step
        origins.append(pose[:3, 3])
        axes.append(pose[:3, :3] @ axis)
    tip = (pose @ flange_transform())[:3, 3]
    return np.array([np.concatenate([np.cross(a, tip - o), a]) for a, o in zip(axes, origins, strict=True)]).T


def inverse(target: np.ndarray, start: np.ndarray, tolerance_mm: float = 1e-5) -> np.ndarray:
    """Joint angles (7,) within the limits whose flange pose is `target` (4, 4), near `start` (7,).

    Newton steps of least length, so that the redundant joint stays near `start`; where they fail or leave the limits,
    bounded least squares (scipy). Raises BadRobotTarget when the pose is out of reach: it then says by how much.
    """
    q = _newton(target, start)
    if q is not None and (np.abs(q) <= POSITION_LIMITS).all():
        return q
    lever, pull = 300.0, 1e-4  # mm per rad, so that angles and lengths weigh alike

    def residual(q: np.ndarray) -> np.ndarray:
        pose = forward(q)
        turn = Rotation.from_matrix(target[:3, :3] @ pose[:3, :3].T).as_rotvec()
        return np.concatenate([target[:3, 3] - pose[:3, 3], lever * turn, pull * (q - start)])

    def slope(q: np.ndarray) -> np.ndarray:
        j = jacobian(q)
        return np.concatenate([-j[:3], -lever * j[3:], pull * np.eye(JOINTS)])

    inner = np.clip(start, -POSITION_LIMITS + 1e-6, POSITION_LIMITS - 1e-6)
    result = least_squares(residual, inner, jac=slope, bounds=(-POSITION_LIMITS, POSITION_LIMITS), xtol=1e-15,
                           ftol=1e-15, gtol=1e-12, max_nfev=200)
    miss = residual(result.x)[:6]
    if np.linalg.norm(miss[:3]) > max(tolerance_mm, 1e-3) or np.linalg.norm(miss[3:]) > 1e-3 * lever:
        where, far = np.round(target[:3, 3], 1).tolist(), np.linalg.norm(miss[:3])
        turn = np.degrees(np.linalg.norm(miss[3:]) / lever)
        raise BadRobotTarget(f"flange position {where} mm is out of the robot's reach (by {far:.1f} mm, "
                             f"{turn:.1f} degrees): move the patient nearer")
    return result.x


def _newton(target: np.ndarray, start: np.ndarray, steps: int = 20) -> np.ndarray | None:
    q = np.array(start, float)
    for _ in range(steps):
        pose = forward(q)
        miss = np.concatenate([target[:3, 3] - pose[:3, 3],
                               Rotation.from_matrix(target[:3, :3] @ pose[:3, :3].T).as_rotvec()])
        if np.abs(miss[:3]).max() < 1e-9 and np.abs(miss[3:]).max() < 1e-11:
            return q
        q = q + np.linalg.lstsq(jacobian(q), miss, rcond=1e-6)[0]
        if not np.isfinite(q).all() or np.abs(q).max() > 10.0:
            return None
    return q if np.abs(miss[:3]).max() < 1e-6 and np.abs(miss[3:]).max() < 1e-8 else None


def check_velocities(q: np.ndarray, times: np.ndarray) -> None:
    """Raises BadRobotTarget when joint angles (T, 7) at `times` (T,) s break a position or velocity limit."""
    over = np.abs(q).max(0) > POSITION_LIMITS
    if over.any():
        joint = int(np.argmax(over))
        raise BadRobotTarget(f"joint A{joint + 1} would turn to {np.degrees(np.abs(q[:, joint]).max()):.1f} degrees; "
                             f"its limit is {np.degrees(POSITION_LIMITS[joint]):.0f}")
    speed = np.abs(np.diff(q, axis=0)) / np.diff(times)[:, None]
    share = (speed / VELOCITY_LIMITS).max(0)
    if (share > 1.0).any():
        joint = int(np.argmax(share))
        raise BadRobotTarget(f"joint A{joint + 1} would turn at {share[joint]:.2f} times its greatest speed: "
                             "make the sweep longer")
