"""compounding_node: images and poses in; bone surface, live slice and coverage out."""

from __future__ import annotations

import time

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from tf2_ros import StaticTransformBroadcaster
from visualization_msgs.msg import MarkerArray

from usx_common.counters import StreamCounters
from usx_common.rates import RateMeter
from usx_common.ros import conversion, interface
from usx_common.ros.node_support import ERROR, OK, WARN, Diagnostics, declare_parameters, run
from usx_common.worker import Worker
from usx_compounding import parameters
from usx_compounding.bone_surface import SurfacePoints
from usx_compounding.calibration import display_frame
from usx_compounding.cells import CellKind
from usx_compounding.compounding import make_engine
from usx_compounding.coverage import Coverage
from usx_compounding.frame_tree import FrameTree, check_frame_name
from usx_compounding.live import Command, LiveSweep
from usx_compounding.matching import TimedFrame
from usx_compounding.pose_buffer import PoseSample
from usx_compounding.saving import save_volume
from usx_compounding.sweep import SlicePoints, Sweep, warm_up

COLOURS = {"dense": (0.2, 0.8, 0.3, 0.5), "sparse": (0.95, 0.75, 0.1, 0.7), "gap": (0.9, 0.15, 0.1, 0.9)}
FROZEN_AFTER_S = 2.0
TICK_S = 0.1
NO_POINTS = SurfacePoints(np.empty((0, 3)), np.empty(0, np.float32))
# None may be lost while the machine stalls or kernels are compiled for some seconds; poses come at 100 Hz and more.
TF_STREAM = QoSProfile(depth=2000)
IMAGE_STREAM = QoSProfile(depth=250)


class CompoundingNode(Node):
    """See docs/nodes.md for its interface.

    The services have threads of their own: one waits while a save runs, one answers meanwhile (a second save is
    refused), and one is left for everything else, which stays in the node's mutually exclusive default group.
    """

    executor_threads = 3

    def __init__(self) -> None:
        for distribution in ("nearest", "linear"):  # before anybody can see the node and send frames
            warm_up(CellKind(distribution, "mean"))
        super().__init__("compounding_node")
        self._values = declare_parameters(self, parameters.TABLE)
        self._names = {key: check_frame_name(self._values[key], key)
                       for key in ("world_frame", "probe_frame", "image_frame", "volume_frame")}
        settings = parameters.live_settings(self._values)
        self._engine = make_engine(self._values["engine"], self._values["threads"], self._values["device"])
        self._tree = FrameTree(self._names["world_frame"], self._names["probe_frame"], settings.gates)
        self._diagnostics = Diagnostics(self)
        self._frame_rate, self._pose_rate = RateMeter(), RateMeter()
        self._frames = StreamCounters("us/image_raw")
        self._poses = StreamCounters("us/pose" if self._values["pose_source"] == "topic" else "/tf")
        self._live = LiveSweep(settings, self._engine, self, self._save, self._frames, self._poses)
        self._diagnostics.watch(self._frames, self._frame_rate, self._live.latency)
        self._diagnostics.watch(self._poses, self._pose_rate)
        self._sequence = 0
        self._advertise()
        self._broadcast_static()
        self._worker: Worker[None] = Worker(lambda _: self._live.process(), "compounding", on_error=self._on_error)
        self._subscribe()
        self._timer = self.create_timer(TICK_S, self._on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _advertise(self) -> None:
        self._bone = self.create_publisher(PointCloud2, "us/bone", interface.LATCHED)
        self._slice = self.create_publisher(PointCloud2, "us/slice", interface.LATEST)
        self._coverage = self.create_publisher(MarkerArray, "us/coverage", interface.LATCHED)
        group = ReentrantCallbackGroup()  # their callbacks only hand a request to the worker and wait
        self._services = [self.create_service(Trigger, f"~/{name}", lambda request, response, n=name:
                                              self._on_command(n, response), callback_group=group)
                          for name in ("start", "stop", "reset", "save")]

    def _subscribe(self) -> None:
        self.create_subscription(Image, "us/image_raw", self._on_image, IMAGE_STREAM)
        if self._values["pose_source"] == "topic":
            self.create_subscription(PoseStamped, "us/pose", self._on_pose, interface.SENSOR_STREAM)
            return
        self.create_subscription(TFMessage, "/tf", self._on_tf, TF_STREAM)
        self.create_subscription(TFMessage, "/tf_static", self._on_tf_static, interface.LATCHED_MANY)

    def _broadcast_static(self) -> None:
        names, stamp = self._names, self.get_clock().now().to_msg()
        volume_to_world = np.reshape(self._values["volume_to_world"], (4, 4))
        transforms = [conversion.matrix_to_transform_stamped(volume_to_world, names["world_frame"],
                                                             names["volume_frame"], stamp)]
        calibration = parameters.image_to_probe(self._values)
        if calibration is not None:
            transforms.append(conversion.matrix_to_transform_stamped(display_frame(calibration), names["probe_frame"],
                                                                     names["image_frame"], stamp))
        self._static = StaticTransformBroadcaster(self)
        self._static.sendTransform(transforms)

    # -- in -------------------------------------------------------------------------------------------------------

    def _on_image(self, message: Image) -> None:
        self._frames.received()
        self._frame_rate.tick(time.monotonic())
        try:
            interface.check_image(message, ("mono8", "rgb8"))
        except interface.InvalidMessage as error:
            self._reject(self._frames, error)
            return
        self._sequence += 1
        stamp = conversion.stamp_nanoseconds(message.header.stamp)
        self._live.offer_frame(TimedFrame(stamp, self._sequence, conversion.image_to_array(message)))
        self._worker.submit(None)

    def _on_pose(self, message: PoseStamped) -> None:
        self._poses.received()
        try:
            interface.check_stamp(message.header.stamp, "pose")
            interface.check_frame_id(message.header.frame_id.lstrip("/"), self._names["world_frame"], "pose")
            interface.check_vector(message.pose.position, "position")
            interface.check_quaternion(message.pose.orientation, "orientation")
        except interface.InvalidMessage as error:
            self._reject(self._poses, error)
            return
        stamp = conversion.stamp_nanoseconds(message.header.stamp)
        self._offer(PoseSample(stamp, conversion.pose_to_matrix(message.pose)))

    def _on_tf(self, message: TFMessage) -> None:
        for transform in message.transforms:
            if not self._tree.wants(transform.child_frame_id):
                continue
            try:
                interface.check_stamp(transform.header.stamp, "transform")
                interface.check_transform(transform.transform)
            except interface.InvalidMessage as error:
                self._poses.received()
                self._reject(self._poses, error)
                continue
            stamp = conversion.stamp_nanoseconds(transform.header.stamp)
            self._tree.add(transform.header.frame_id, transform.child_frame_id, stamp,
                           conversion.transform_to_matrix(transform.transform))
        for sample in self._tree.samples():
            self._poses.received()
            self._offer(sample)

    def _on_tf_static(self, message: TFMessage) -> None:
        for transform in message.transforms:
            try:
                interface.check_transform(transform.transform)
            except interface.InvalidMessage as error:
                self.get_logger().warning(f"static transform of '{transform.child_frame_id}' is left out: {error}")
                continue
            self._tree.set_fixed(transform.header.frame_id, transform.child_frame_id,
                                 conversion.transform_to_matrix(transform.transform))

    def _offer(self, sample: PoseSample) -> None:
        self._pose_rate.tick(time.monotonic())
        self._live.offer_pose(sample)
        self._worker.submit(None)

    def _reject(self, counters: StreamCounters, error: interface.InvalidMessage) -> None:
        counters.rejected(error.reason)
        self.get_logger().warning(f"left out: {error}", throttle_duration_sec=5.0)

    def _on_command(self, command: Command, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._live.call(command, lambda: self._worker.submit(None), timeout=60.0)
        self.get_logger().info(response.message)
        return response

    def _on_tick(self) -> None:
        self._worker.submit(None)
        level, text = self._state()
        self._diagnostics.set_state(level, text, **self._live.facts())

    def _on_error(self, item: None, error: Exception) -> None:
        self.get_logger().error(f"compounding failed: {error!r}")

    # -- out ------------------------------------------------------------------------------------------------------

    def bone(self, points: SurfacePoints, stamp: int) -> None:
        """Publish the bone surface (called by the worker)."""
        self._bone.publish(conversion.fields_to_cloud(points.points, self._names["volume_frame"],
                                                      conversion.to_stamp(stamp), intensity=points.intensity))

    def slice(self, points: SlicePoints, stamp: int) -> None:
        """Publish the live frame in space (called by the worker)."""
        self._slice.publish(conversion.fields_to_cloud(points.points, self._names["volume_frame"],
                                                       conversion.to_stamp(stamp), intensity=points.intensity))

    def coverage(self, coverage: Coverage, stamp: int) -> None:
        """Publish where the probe has been (called by the worker)."""
        frame, when = self._names["volume_frame"], conversion.to_stamp(stamp)
        markers = [conversion.line_marker(segments, frame, when, ("coverage", number), COLOURS[shade])
                   for number, (shade, segments) in enumerate(coverage.segments().items())]
        markers.append(conversion.text_marker(str(coverage.summary()), coverage.centre(), frame, when, ("summary", 0)))
        self._coverage.publish(MarkerArray(markers=markers))

    def cleared(self, stamp: int) -> None:
        """Replace what is latched: no bone, no outlines (called by the worker)."""
        frame, when = self._names["volume_frame"], conversion.to_stamp(stamp)
        self._coverage.publish(MarkerArray(markers=[conversion.delete_all_marker(frame, when)]))
        self.bone(NO_POINTS, stamp)

    def _save(self, sweep: Sweep, number: int) -> str:
        """Write the files (called by a thread of its own; parameters may change meanwhile)."""
        values = dict(self._values)
        name = values["save_name"] or f"sweep_{number:03d}_{sweep.newest_stamp}"
        folder, kind = values["save_folder"], values["save_format"]
        bone = save_volume(folder, f"{name}_bone", kind, sweep.bone_volume())
        grey = save_volume(folder, name, kind, sweep.grey_volume(values["hole_filling"], values["hole_reach"]))
        return f"saved {grey} ({sweep.frames} frames, grey levels) and {bone.name} (bone response)"

    def _state(self) -> tuple[bytes, str]:
        live = self._live
        if live.settings.sweep is None:
            return ERROR, "no calibration: set the parameter image_to_probe"
        if live.trouble:
            return ERROR, live.trouble
        if live.state == "sweeping":
            if live.still_seconds() >= FROZEN_AFTER_S:
                return WARN, "the pose does not change: the probe is at rest, or its tracker is frozen"
            return OK, f"sweep {live.number} under way"
        if live.state == "stopped":
            return OK, "stopped; frames are left out until ~/start"
        if self._values["pose_source"] == "tf" and self._tree.missing():
            return WARN, self._tree.missing()
        return OK, "waiting for frames" if live.state == "waiting" else f"sweep {live.number} complete"

    def close(self) -> None:
        """End the worker and account for what is left."""
        self._worker.close()
        self._live.close()
        self._engine.close()


def main() -> int:
    """Entry point of ``compounding_node``."""
    return run(CompoundingNode)
