"""completion_node as a process of its own: from the partial spine sent to the completed one received, over DDS."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import rclpy
from builtin_interfaces.msg import Time as Stamp
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

from usx_common.errors import UsxError
from usx_common.ros import conversion, interface
from usx_completion.simulated_partial import simulate_partial
from usx_phantom.spine import sample_spine

SEED, RUNS = 601, 10
START_S, ANSWER_S = 60.0, 20.0
USX = [sys.executable, "-m", "usx_runtime"] if find_spec("usx_runtime") else ["ros2"]


def run(device: str = "cpu") -> list[dict[str, object]]:
    """Rows for `python -m benchmarks`: seconds to the first answer and to the others, memory of the node."""
    domain = 215 + os.getpid() % 17
    command = [*USX, "run", "usx_completion", "completion_node", "--ros-args", "-p", f"device:={device}"]
    rclpy.init(domain_id=domain)
    asker = _Asker()
    process = subprocess.Popen(command, env={**os.environ, "ROS_DOMAIN_ID": str(domain)})
    try:
        times = [asker.ask(second, process) for second in range(1, RUNS + 2)]
        peak_mib = _peak_mib(process.pid)
    finally:
        asker.destroy_node()
        rclpy.try_shutdown()
        _end(process)
    name = f"completion_node on {device}"
    return [{"name": f"{name}: answer to the first partial spine", "value": times[0], "unit": "s"},
            {"name": f"{name}: answer to one, median of {RUNS}", "value": float(np.median(times[1:])), "unit": "s"},
            {"name": f"{name}: the slowest of them", "value": max(times[1:]), "unit": "s"},
            {"name": f"{name}: peak memory of its process", "value": peak_mib, "unit": "MiB"}]


class _Asker(Node):
    """Plays registration_node: sends a cloud, waits for the answer with its stamp."""

    def __init__(self) -> None:
        super().__init__("asker")
        self._partial = simulate_partial(dict(sample_spine(SEED).meshes))
        self._answered = 0
        self._publisher = self.create_publisher(PointCloud2, "spine/partial", interface.LATCHED)
        self._listener = self.create_subscription(PointCloud2, "spine/completed", self._on_answer, interface.LATCHED)
        self._spinner = SingleThreadedExecutor()
        self._spinner.add_node(self)

    def ask(self, second: int, process: subprocess.Popen[bytes]) -> float:
        """Seconds from sending the partial spine of this stamp until the answer to it is here."""
        partial, stamp = self._partial, Stamp(sec=second)
        self._wait(self._met, START_S, process, "the node did not come up")
        cloud = conversion.fields_to_cloud(partial.points, "spine", stamp, label=partial.labels, source=partial.sources)
        began = time.perf_counter()
        self._publisher.publish(cloud)
        self._wait(lambda: self._answered == second, ANSWER_S, process, f"no answer to cloud {second}")
        return time.perf_counter() - began

    def _met(self) -> bool:
        return self._publisher.get_subscription_count() > 0 and self.count_publishers("spine/completed") > 0

    def _on_answer(self, message: PointCloud2) -> None:
        self._answered = message.header.stamp.sec

    def _wait(self, done: Callable[[], bool], seconds: float, process: subprocess.Popen[bytes], failure: str) -> None:
        end = time.monotonic() + seconds
        while not done():
            if process.poll() is not None:
                raise UsxError(f"completion_node ended with {process.returncode}; its messages are above")
            if time.monotonic() > end:
                raise UsxError(f"{failure} within {seconds:g} s")
            self._spinner.spin_once(timeout_sec=0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(ANSWER_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
