"""registration_node: brings ultrasound, X-ray and CBCT into one joint space."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from builtin_interfaces.msg import Time as Stamp
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import PointCloud2
from tf2_ros import Buffer, StaticTransformBroadcaster, TransformException, TransformListener

from usx_common.counters import StreamCounters
from usx_common.rates import LatencyMeter, RateMeter
from usx_common.ros import conversion, interface
from usx_common.ros.node_support import OK, WARN, Diagnostics, declare_parameters, run
from usx_common.worker import Worker
from usx_registration import report
from usx_registration.joint_cloud import JointCloud
from usx_registration.parameters import TABLE, make_settings
from usx_registration.session import Edges, Inputs, Session

TRANSFORM_WAIT_S = 1.0
TRANSFORM_POLL_S = 0.05


@dataclass(frozen=True)
class Job:
    """A bone cloud to work on; ``counted``: it has just arrived, and is to be counted as used or rejected; ``sweep``:
    number of the sweep that it belongs to."""

    message: PointCloud2
    counted: bool
    sweep: int


class RegistrationNode(Node):
    """Keeps the newest of each input; one worker registers, the newest bone cloud wins."""

    def __init__(self) -> None:
        super().__init__("registration_node")
        self._values = declare_parameters(self, TABLE)
        self._session = Session(make_settings(self._values))
        self._diagnostics = Diagnostics(self)
        self._rate, self._latency = RateMeter(), LatencyMeter()
        self._bone = self._diagnostics.watch(StreamCounters("us/bone"), self._rate, self._latency)
        self._bodies = self._diagnostics.watch(StreamCounters("xray/bodies"))
        self._cbct = self._diagnostics.watch(StreamCounters("cbct/bone"))
        self._xray: report.Labelled = (None, None)
        self._cbct_points: report.Points = None
        self._last_bone: PointCloud2 | None = None
        self._sweep, self._session_sweep = 0, 0  # counted by the callbacks; the one that the worker is in
        self._told: set[tuple[str, str]] = set()
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, self)
        self._broadcaster = StaticTransformBroadcaster(self)
        self._publisher = self.create_publisher(PointCloud2, "spine/partial", interface.LATCHED)
        self._worker: Worker[Job] = Worker(self._work, "registration", on_drop=self._dropped, on_error=self._failed)
        self.create_subscription(PointCloud2, "us/bone", self._on_bone, interface.LATCHED)
        self.create_subscription(PointCloud2, "xray/bodies", self._on_bodies, interface.LATCHED)
        self.create_subscription(PointCloud2, "cbct/bone", self._on_cbct, interface.LATCHED)
        self._diagnostics.set_state(OK, report.waiting(self._session.settings))

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def _on_bone(self, message: PointCloud2) -> None:
        self._rate.tick()
        self._receive(message, self._bone, self._take_bone)

    def _on_bodies(self, message: PointCloud2) -> None:
        self._receive(message, self._bodies, self._take_bodies)

    def _on_cbct(self, message: PointCloud2) -> None:
        self._receive(message, self._cbct, self._take_cbct)

    def _take_bone(self, message: PointCloud2) -> None:
        interface.check_cloud(message, ("x", "y", "z"), self._values["volume_frame"])
        if 0 in (message.width, message.height):
            # Told apart here: in the worker's inbox the next cloud would take its place, and the reset were lost.
            self._sweep += 1
            self._last_bone = None
            raise interface.InvalidMessage("empty", "the cloud is empty: a new sweep begins")
        self._last_bone = message
        self._worker.submit(Job(message, counted=True, sweep=self._sweep))

    def _take_bodies(self, message: PointCloud2) -> None:
        interface.check_cloud(message, ("x", "y", "z", "label"))
        labels = conversion.cloud_to_fields(message)["label"]
        self._xray = report.finite_labelled(conversion.cloud_points_mm(message), labels)
        self._again()
        self._bodies.used()

    def _take_cbct(self, message: PointCloud2) -> None:
        interface.check_cloud(message, ("x", "y", "z"))
        self._cbct_points = conversion.cloud_points_mm(message)
        self._again()
        self._cbct.used()

    def _receive(self, message: PointCloud2, counters: StreamCounters, take: Callable[[PointCloud2], None]) -> None:
        """Count and take a message. No exception leaves: it would end the executor, and the node with it."""
        counters.received()
        try:
            take(message)
        except Exception as error:
            reason = error.reason if isinstance(error, interface.InvalidMessage) else "internal_error"
            counters.rejected(reason)
            if (counters.name, reason) not in self._told:
                self._told.add((counters.name, reason))
                self.get_logger().warning(f"{counters.name}: {error!r}" if reason == "internal_error" else
                                          f"{counters.name}: {error}")

    def _again(self) -> None:
        """Work on the last bone cloud once more, unless one is waiting anyway."""
        if self._last_bone is not None and not self._worker.waiting():
            self._worker.submit(Job(self._last_bone, counted=False, sweep=self._sweep))

    def _dropped(self, job: Job) -> None:
        if job.counted:
            self._bone.rejected("superseded")

    def _failed(self, job: Job, error: Exception) -> None:
        if job.counted:
            self._bone.rejected("internal_error")
        self._diagnostics.set_state(WARN, f"registration failed unexpectedly: {error!r}")

    def _work(self, job: Job) -> None:
        began = time.monotonic()
        if job.sweep != self._session_sweep:
            self._session.new_sweep()
            self._session_sweep = job.sweep
        points, labels = self._xray
        outcome = self._session.process(Inputs(
            bone=report.finite(conversion.cloud_points_mm(job.message)),
            stamp=conversion.stamp_nanoseconds(job.message.header.stamp), world_to_volume=self._world_to_volume(),
            cbct=self._cbct_points, bodies=points, labels=labels))
        if outcome.partial is not None:
            self._publish(outcome.partial, outcome.edges, job.message.header.stamp)
        self._latency.add(time.monotonic() - began)
        level = OK if report.is_good(outcome) else WARN
        self._diagnostics.set_state(level, report.sentence(outcome), **report.facts(outcome))
        # last, because _failed counts what raises above
        if job.counted and outcome.verdict.passed:
            self._bone.used()
        elif job.counted:
            self._bone.rejected(outcome.verdict.reason)

    def _world_to_volume(self) -> report.Points:
        """Matrix, or None; waits a moment, because the transform and the first cloud come at the same time."""
        if not report.needs_world(self._session.settings):
            return None
        deadline = time.monotonic() + TRANSFORM_WAIT_S
        while True:
            try:
                found = self._buffer.lookup_transform(self._values["volume_frame"], self._values["world_frame"], Time())
                return conversion.transform_to_matrix(found.transform)
            except TransformException:
                if time.monotonic() > deadline:
                    return None
                time.sleep(TRANSFORM_POLL_S)

    def _publish(self, partial: JointCloud, edges: Edges, stamp: Stamp) -> None:
        volume = self._values["volume_frame"]
        self._broadcaster.sendTransform([
            conversion.matrix_to_transform_stamped(pose, volume if parent == "us_volume" else parent, child, stamp)
            for (parent, child), pose in edges.items()])
        self._publisher.publish(conversion.fields_to_cloud(partial.points, "spine", stamp, label=partial.labels,
                                                           source=partial.sources))


def main() -> int:
    """Entry point."""
    return run(RegistrationNode)


if __name__ == "__main__":
    sys.exit(main())
