"""Speed of the simulated images of a phantom: ultrasound frames of 640 x 480, radiograph, CBCT."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from usx_phantom import cbct, xray
from usx_phantom.phantom_scene import build_scene
from usx_phantom.spine import sample_spine
from usx_phantom.sweep import SweepSettings, path_pose
from usx_phantom.ultrasound import UltrasoundSimulator
from usx_phantom.ultrasound_torch import TorchUltrasound

FRAMES = 120
TORCH_FRAMES = 48


def run(device: str = "cpu") -> list[dict[str, Any]]:
    """Rows of frames per second (1 thread, all cores, torch on `device`) and of seconds per image; the goal is 30
    frames/s on 2 cores."""
    scene = build_scene(sample_spine(0).meshes, 0)
    simulator = UltrasoundSimulator(scene)
    poses = [path_pose(scene, SweepSettings(), float(fraction)) for fraction in np.linspace(0.1, 0.9, FRAMES)]
    simulator.frame(poses[0])  # compiles
    rows = []
    for threads in (1, os.cpu_count() or 1):
        seconds = _seconds(lambda threads=threads: list(simulator.frames(poses, threads=threads)))  # type: ignore[misc]
        rows.append({"name": f"phantom ultrasound 640x480, {threads} threads", "value": FRAMES / seconds,
                     "unit": "frames/s"})
    start = time.process_time()
    for number, pose in enumerate(poses):
        simulator.frame(pose, number)
    rows.append({"name": "phantom ultrasound 640x480, CPU time", "value": 1e3 * (time.process_time() - start) / FRAMES,
                 "unit": "ms/frame"})
    on_device = TorchUltrasound(simulator, device)
    on_device.frames(poses[:2])
    some = poses[:TORCH_FRAMES]
    rows.append({"name": f"phantom ultrasound 640x480, torch on {device}",
                 "value": TORCH_FRAMES / _seconds(lambda: on_device.frames(some).cpu()),
                 "unit": "frames/s"})
    xray.simulate_lateral(scene, xray.XraySettings(columns=64, rows=64))  # compiles
    rows.append({"name": "phantom radiograph 1024x1280", "value": _seconds(lambda: xray.simulate_lateral(scene)),
                 "unit": "s"})
    rows.append({"name": "phantom CBCT 1 mm", "value": _seconds(lambda: cbct.simulate(scene)), "unit": "s"})
    return rows


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
