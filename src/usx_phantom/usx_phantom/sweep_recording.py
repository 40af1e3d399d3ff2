"""The bag of a sweep: robot states, transforms and frames in the order in which they were received."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_phantom import robot
from usx_phantom.bag_writing import Edge, SweepBag, image_message, joints_message, tf_message
from usx_phantom.scene import Scene
from usx_phantom.sweep import PROBE_TO_FLANGE, SweepSettings, Trajectory
from usx_phantom.trouble_plan import TroublePlan, in_order, receipts
from usx_phantom.ultrasound import UltrasoundSimulator

START = 1_750_000_000 * 10**9  # ns; recordings begin at the same moment so that a seed gives the same bytes
LEAD = 0.25  # s of robot state before the first and after the last frame
IMAGE_LATENCY, ROBOT_LATENCY = 15_000_000, 1_000_000  # ns from a stamp to its receipt
FRAMES = {"world": "world", "probe": "us_probe", "image": "us_image"}


@dataclass(frozen=True)
class Sweep:
    """A planned sweep: `naming` of the robot's frames, what goes wrong, and how late (s) frames are stamped."""

    settings: SweepSettings
    trajectory: Trajectory
    naming: str
    trouble: TroublePlan
    time_offset: float = 0.0


def frame_times(sweep: SweepSettings) -> NDArray[np.float64]:
    """Times (frames,) s since the start of the sweep at which frames are taken, rounded to whole nanoseconds."""
    return np.round((np.arange(sweep.frames) + 0.5) / sweep.frames * sweep.duration, 9)


def write_sweep(scene: Scene, folder: Path, sweep: Sweep, seed: int, progress: Callable[[int, int], None]) -> None:
    """Simulate the frames of `sweep` over `scene` and write the bag `folder`, which must not exist.

    `progress(done, total)` counts frames.
    """
    times = frame_times(sweep.settings)
    world_to_cbct = transforms.invert(scene.cbct_to_world)
    poses = [world_to_cbct @ sweep.trajectory.probe_to_world(time) for time in times]
    taken = [START + round(time * 1e9) for time in times]
    stamps = [time + round(sweep.time_offset * 1e9) for time in taken]
    simulator = UltrasoundSimulator(scene, seed=seed)

    def frames() -> Iterator[bytes]:
        for number, pixels in enumerate(simulator.frames(poses)):
            progress(number + 1, len(times))
            yield image_message(pixels, stamps[number], FRAMES["image"])

    received = receipts(sweep.trouble, taken, IMAGE_LATENCY)
    images = (("/us/image_raw", time, data) for time, _, data in in_order(received, frames()))
    with SweepBag(folder) as bag:
        first = START - int(LEAD * 1e9)
        bag.write("/tf_static", first, tf_message(static_edges(sweep), first))
        for message in heapq.merge(robot_states(sweep), images, key=lambda message: message[1]):
            bag.write(*message)


def robot_states(sweep: Sweep) -> Iterator[tuple[str, int, bytes]]:
    """Messages (topic, receive time ns, CDR) of /joint_states and /tf, a little longer than the sweep."""
    names = robot.NAMING[sweep.naming]
    duration = sweep.settings.duration
    steps = int(np.ceil((duration + 2.0 * LEAD) * names.rate_hz))
    for step in range(steps + 1):
        nanoseconds = round(step * 1e9 / names.rate_hz) - int(LEAD * 1e9)
        if sweep.trouble.in_gap(nanoseconds * 1e-9):
            continue
        time = float(np.clip(nanoseconds * 1e-9, 0.0, duration))
        stamp = START + nanoseconds
        q = sweep.trajectory.angles(time)
        joints = joints_message(names.joints, q, sweep.trajectory.velocities(time), stamp)
        yield "/joint_states", stamp + ROBOT_LATENCY, joints
        edges = [Edge(names.links[i], names.links[i + 1], matrix) for i, matrix in
                 enumerate(robot.joint_transforms(q))]
        yield "/tf", stamp + ROBOT_LATENCY, tf_message(edges, stamp)


def static_edges(sweep: Sweep) -> list[Edge]:
    """world -> robot root -> link_0, link_7 -> flange, flange -> us_probe."""
    names = robot.NAMING[sweep.naming]
    return [Edge(FRAMES["world"], names.root, sweep.trajectory.base_to_world),
            Edge(names.root, names.links[0], np.eye(4)),
            Edge(names.links[-1], names.flange, robot.flange_transform()),
            Edge(names.flange, FRAMES["probe"], PROBE_TO_FLANGE)]
