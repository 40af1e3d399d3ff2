"""The probe's way over the back, and the robot's joint angles that make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_phantom import robot
from usx_phantom.scene import Scene

PATTERNS = ("midline", "paramedian")
# us_probe -> flange: the probe hangs 172 mm below the flange in a slightly imperfect holder.
PROBE_TO_FLANGE = transforms.make_transform(
    transforms.rotation_about_axis([0.1, 1.0, 0.05], np.radians(1.5))
    @ transforms.rotation_about_axis([0.0, 0.0, 1.0], np.radians(90.0)), [4.0, -6.5, 172.0])
# Joint angles from which the search for the first pose starts: flange above the table, pointing down.
READY = np.radians([0.0, 25.0, 0.0, -85.0, 0.0, 70.0, 0.0])
KNOT_RATE_HZ = 10.0


@dataclass(frozen=True)
class SweepSettings:
    """`duration` s, `frame_rate` Hz; `pattern`: one pass in the middle, or two beside it that look inwards.

    `press`: how deep the probe's face is pressed into the skin (mm); `margin`: way beyond L1 and L5 (mm);
    `offset` (mm) and `angle` (degrees) of the paramedian passes.
    """

    duration: float = 11.0
    frame_rate: float = 30.0
    pattern: str = "midline"
    press: float = 6.0
    margin: float = 8.0
    offset: float = 16.0
    angle: float = 12.0

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise UsxError(f"sweep pattern {self.pattern!r}: must be one of {', '.join(PATTERNS)}")
        for name, low, high, unit in (("duration", 0.5, 120.0, "s"), ("frame_rate", 1.0, 120.0, "frames/s"),
                                      ("press", 0.0, 15.0, "mm"), ("margin", -20.0, 60.0, "mm")):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsxError(f"sweep {name} = {value} {unit}: must be {low:g} to {high:g}")

    @property
    def frames(self) -> int:
        """Number of frames in the sweep."""
        return max(round(self.duration * self.frame_rate), 2)


class Trajectory:
    """Joint angles as a smooth function of time, and the poses that follow from them."""

    def __init__(self, knots: np.ndarray, angles: np.ndarray, base_to_world: np.ndarray) -> None:
        self._spline = CubicSpline(knots, angles, bc_type="clamped")
        self.base_to_world = base_to_world

    def angles(self, time: float) -> np.ndarray:
        """(7,) rad at `time` s."""
        return self._spline(time)

    def velocities(self, time: float) -> np.ndarray:
        """(7,) rad/s at `time` s."""
        return self._spline(time, 1)

    def probe_to_world(self, time: float) -> np.ndarray:
        """(4, 4) mm pose of us_probe in world at `time` s."""
        return self.base_to_world @ robot.forward(self.angles(time)) @ PROBE_TO_FLANGE


def plan(scene: Scene, settings: SweepSettings, lift: Callable[[float], float] | None = None) -> Trajectory:
    """Joint trajectory of a sweep from above L1 to below L5, at rest at both ends.

    `lift(time)`: how far (mm) the probe is held above its way at `time` s.
    Raises BadRobotTarget when the robot cannot reach the back or would have to move too fast.
    """
    base_to_world = np.eye(4)
    knots = np.linspace(0.0, settings.duration, max(int(settings.duration * KNOT_RATE_HZ), 8) + 1)
    world_to_base = transforms.invert(base_to_world)
    angles, q = [], READY
    for time in knots:
        probe_to_cbct = path_pose(scene, settings, time / settings.duration)
        if lift is not None:
            probe_to_cbct[:3, 3] -= lift(time) * probe_to_cbct[:3, 2]
        target = world_to_base @ scene.cbct_to_world @ probe_to_cbct @ transforms.invert(PROBE_TO_FLANGE)
        q = robot.inverse(target, q)
        angles.append(q)
    trajectory = Trajectory(knots, np.array(angles), base_to_world)
    times = np.linspace(0.0, settings.duration, int(settings.duration * 100) + 1)
    robot.check_velocities(np.array([trajectory.angles(t) for t in times]), times)
    return trajectory


def path_pose(scene: Scene, settings: SweepSettings, fraction: float) -> np.ndarray:
    """(4, 4) us_probe -> cbct, mm, at `fraction` 0..1 of the sweep: face in the skin, beam pointing forward."""
    top = float(scene.meshes[LEVELS[0]].vertices[:, 2].max()) + settings.margin
    bottom = float(scene.meshes[LEVELS[-1]].vertices[:, 2].min()) - settings.margin
    if settings.pattern == "midline":
        z, side = top + (bottom - top) * _ease(fraction), 0.0
    else:
        # Down on the left, across, up on the right.
        leg = np.clip([fraction / 0.46, (fraction - 0.46) / 0.08, (fraction - 0.54) / 0.46], 0.0, 1.0)
        z = top + (bottom - top) * (_ease(leg[0]) - _ease(leg[2]))
        side = 1.0 - 2.0 * _ease(leg[1])
    x = scene.skin.x0 + side * settings.offset
    normal = np.array([0.0, 1.0, -float(scene.skin.slope(np.array(z)))])
    beam = -normal / np.linalg.norm(normal)
    tilt = transforms.rotation_about_axis([0.0, 0.0, 1.0], -side * np.radians(settings.angle))
    beam = tilt @ beam
    lateral = np.array([1.0, 0.0, 0.0])
    lateral -= beam * (lateral @ beam)
    lateral /= np.linalg.norm(lateral)
    rotation = np.column_stack([lateral, np.cross(beam, lateral), beam])
    face = np.array([x, float(scene.skin.height(np.array(x), np.array(z))), z]) + settings.press * beam
    return transforms.make_transform(rotation, face)


def _ease(fraction: float) -> float:
    """0 -> 1 at nearly constant speed, with smooth start and stop over a tenth of the way each."""
    ramp = 0.1
    f = float(np.clip(fraction, 0.0, 1.0))
    if f < ramp:
        part = _ramp(f / ramp) * ramp
    elif f > 1.0 - ramp:
        part = (1.0 - ramp) - _ramp((1.0 - f) / ramp) * ramp
    else:
        part = f - 0.5 * ramp
    return part / (1.0 - ramp)


def _ramp(s: float) -> float:
    """Integral of the smooth step 3 s^2 - 2 s^3: way while the speed rises from 0 to 1."""
    return s**3 - 0.5 * s**4
