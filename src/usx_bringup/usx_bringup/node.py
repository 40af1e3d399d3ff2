"""The two ROS programs of the bring-up: `when_ready` waits for nodes, `recorder` keeps the results of one sweep."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, TransformException, TransformListener
from visualization_msgs.msg import MarkerArray

from usx_bringup.results import Results
from usx_bringup.ros_command import resolve
from usx_common.errors import UsxError
from usx_common.ros import conversion, interface

CLOUDS = ("us/bone", "xray/bodies", "cbct/bone", "spine/partial", "spine/completed")
SAVING_NODES = ("compounding_node", "completion_node")
FRAMES = (("world", "us_volume"), ("us_volume", "spine"), ("us_volume", "cbct"), ("us_volume", "xray"))


class Recorder(Node):
    """Keeps the newest of every result and says when the last frame has been answered."""

    def __init__(self, results: Results) -> None:
        super().__init__("recorder")
        self.results = results
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, self)
        for topic in CLOUDS:
            self.create_subscription(PointCloud2, topic, lambda m, t=topic: self._on_cloud(t, m), interface.LATCHED)
        for topic in ("xray/image", "xray/labels"):
            self.create_subscription(Image, topic, lambda m, t=topic: self._on_image(t, m), interface.LATCHED)
        self.create_subscription(MarkerArray, "spine/meshes", self._on_meshes, interface.LATCHED)
        self.create_subscription(TFMessage, "/tf", self._on_tf, interface.SENSOR_STREAM)
        self.create_subscription(TFMessage, "/tf_static", self._on_tf, interface.LATCHED_MANY)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._savers = {name: self.create_client(Trigger, f"{name}/save") for name in SAVING_NODES}

    def _on_cloud(self, topic: str, message: PointCloud2) -> None:
        try:
            interface.check_cloud(message)
        except interface.InvalidMessage as error:
            self.get_logger().warning(f"{topic}: {error}")
            return
        self.results.add_cloud(topic, conversion.cloud_to_fields(message), message.header.frame_id,
                               conversion.stamp_nanoseconds(message.header.stamp))

    def _on_image(self, topic: str, message: Image) -> None:
        try:
            interface.check_image(message, tuple(conversion.ENCODINGS))
        except interface.InvalidMessage as error:
            self.get_logger().warning(f"{topic}: {error}")
            return
        self.results.add_image(topic, conversion.image_to_array(message).copy())

    def _on_meshes(self, message: MarkerArray) -> None:
        for marker in message.markers:
            if marker.action == marker.DELETEALL:
                self.results.clear_meshes()
            points = [(p.x, p.y, p.z) for p in marker.points]
            self.results.add_marker(marker.ns, marker.id, points)

    def _on_tf(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self.results.add_parent(transform.child_frame_id, transform.header.frame_id)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.results.add_status(status.name, status.message, {v.key: v.value for v in status.values})

    def look_at_graph(self) -> None:
        """Keep who publishes transforms."""
        for topic in ("/tf", "/tf_static"):
            infos = self.get_publishers_info_by_topic(topic)
            self.results.add_publishers(topic, [info.node_name for info in infos])

    def look_up_frames(self) -> None:
        """Keep the transforms that are known by now."""
        for parent, child in FRAMES:
            try:
                found = self._buffer.lookup_transform(parent, child, rclpy.time.Time())
            except TransformException:
                continue
            self.results.add_transform(parent, child, conversion.transform_to_matrix(found.transform))

    def save_all(self, timeout_s: float) -> None:
        """Ask each node to write its files; what they answer is kept with the results."""
        for name, client in self._savers.items():
            if not client.wait_for_service(timeout_sec=timeout_s):
                self.results.add_saved(name, False, "its save service did not answer")
                continue
            future = client.call_async(Trigger.Request())
            rclpy.spin_until_future_complete(self, future, timeout_sec=timeout_s)
            answer = future.result() if future.done() else None
            self.results.add_saved(name, bool(answer and answer.success), answer.message if answer else "no answer")


class Reporter:
    """Prints `progress RECEIVED WORDS` when that changed, for whoever watches the recorder."""

    def __init__(self) -> None:
        self._last = ""

    def tell(self, results: Results) -> None:
        """Print the line when it is news."""
        line = f"progress {results.account()['received']} {results.stage()}"
        if line != self._last:
            print(line, flush=True)
            self._last = line


def recorder() -> int:
    """Record the results of one sweep until its last frame is answered; exit code 1 when that takes too long."""
    parser = argparse.ArgumentParser(prog="recorder", description=recorder.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.npz and results.json")
    parser.add_argument("--frames", type=int, required=True, help="number of images that the bag holds")
    parser.add_argument("--last-stamp", type=int, required=True, help="stamp of the bag's last image, ns")
    parser.add_argument("--timeout", type=float, default=180.0, help="give up after so many seconds (default 180)")
    parser.add_argument("--quiet", type=float, default=3.0,
                        help="the answer is final when no newer one came for so many seconds (default 3)")
    parser.add_argument("--patience", type=float, default=30.0,
                        help="give up so many seconds after the last frame's last result (default 30)")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:])
    results = Results(options.frames, options.last_stamp)
    rclpy.init()
    node = Recorder(results)
    reporter = Reporter()
    deadline = time.monotonic() + options.timeout
    try:
        while rclpy.ok() and time.monotonic() < deadline and not results.settled(options.quiet):
            rclpy.spin_once(node, timeout_sec=0.5)
            reporter.tell(results)
            node.look_at_graph()
            if results.abandoned(options.patience):
                break
        node.look_up_frames()
        node.save_all(timeout_s=30.0)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        results.write(options.out)
        node.destroy_node()
        rclpy.try_shutdown()
    if not results.complete():
        print(f"error: {results.what_is_missing()}", file=sys.stderr)
    return 0 if results.complete() else 1


def wait_for_nodes(names: list[str], timeout_s: float) -> None:
    """Block until nodes of all these names are in the ROS graph. Raises UsxError naming those that did not come."""
    rclpy.init()
    node = Node("when_ready")
    deadline = time.monotonic() + timeout_s
    missing = set(names)
    try:
        while missing and rclpy.ok():
            rclpy.spin_once(node, timeout_sec=0.1)
            missing = set(names) - set(node.get_node_names())
            if time.monotonic() > deadline:
                raise UsxError(f"{', '.join(sorted(missing))} did not start within {timeout_s:g} s")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def when_ready() -> int:
    """Wait until nodes are in the ROS graph, then become the command after `--`."""
    parser = argparse.ArgumentParser(
        prog="when_ready", description=when_ready.__doc__,
        epilog="example: ros2 run usx_bringup when_ready --nodes compounding_node -- ros2 bag play ACQ/bag --clock")
    parser.add_argument("--nodes", nargs="+", required=True, help="names of the nodes to wait for")
    parser.add_argument("--timeout", type=float, default=90.0, help="give up after so many seconds (default 90)")
    parser.add_argument("--settle", type=float, default=1.0, help="seconds for topics to be matched (default 1)")
    words = remove_ros_args(sys.argv)[1:]
    end = words.index("--") if "--" in words else len(words)
    options, command = parser.parse_args(words[:end]), words[end + 1 :]
    if not command:
        parser.error("no command after --")
    try:
        command = resolve(command)
        wait_for_nodes(options.nodes, options.timeout)
        print(f"all nodes are there: {' '.join(options.nodes)}", flush=True)
    except UsxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    time.sleep(options.settle)
    os.execvp(command[0], command)
