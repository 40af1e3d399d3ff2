"""viewer_node: shows in a browser what RViz would show."""

from __future__ import annotations

import sys

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_ros import Buffer, TransformException, TransformListener
from visualization_msgs.msg import MarkerArray

from usx_common.counters import StreamCounters
from usx_common.ros import conversion, interface
from usx_common.ros.node_support import OK, Diagnostics, declare_parameters, run
from usx_common.worker import Worker
from usx_viewer.panel import Panel, Status
from usx_viewer.parameters import TABLE
from usx_viewer.scene import Scene
from usx_viewer.server import start_server
from usx_viewer.view import FRAMES, View

CLOUDS = {"us/bone": ("x", "y", "z", "intensity"), "us/slice": ("x", "y", "z", "intensity"),
          "cbct/bone": ("x", "y", "z"), "xray/bodies": ("x", "y", "z", "label"),
          "spine/partial": ("x", "y", "z", "label", "source"),
          "spine/completed": ("x", "y", "z", "label", "sigma")}
FRAME_PERIOD_S = 0.2


class ViewerNode(Node):
    """Subscribes to every result; a worker per topic hands the newest to the browser."""

    def __init__(self) -> None:
        super().__init__("viewer_node")
        self.values = declare_parameters(self, TABLE)
        self._server = start_server(self.values["host"], self.values["port"])
        scene = Scene(self._server)
        self.view = View(scene, Panel(self._server, scene), self.values)
        self._diagnostics = Diagnostics(self)
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, self)
        self._workers: list[Worker] = []
        for topic in CLOUDS:
            profile = interface.LATEST if topic == "us/slice" else interface.LATCHED
            self._subscribe(PointCloud2, topic, profile, self._show_cloud)
        self._subscribe(Image, "xray/image", interface.LATCHED, self._show_image)
        self._subscribe(CameraInfo, "xray/camera_info", interface.LATCHED, self._show_camera)
        self._subscribe(MarkerArray, "spine/meshes", interface.LATCHED, self._show_meshes)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._timer = self.create_timer(FRAME_PERIOD_S, self._look_up, clock=Clock(clock_type=ClockType.STEADY_TIME))
        address = f"http://{self.values['host']}:{self.values['port']}"
        self._diagnostics.set_state(OK, f"open {address} in a browser")

    def close(self) -> None:
        """Stop the workers and the web server."""
        for worker in self._workers:
            worker.close()
        self._server.stop()

    def _subscribe(self, kind: type, topic: str, profile: object, show: object) -> None:
        counters = self._diagnostics.watch(StreamCounters(topic))

        def handle(message: object) -> None:
            show(topic, message)
            counters.used()

        def failed(_: object, error: Exception) -> None:
            counters.rejected(getattr(error, "reason", "not_shown"))
            self.get_logger().warning(f"{topic}: {error}")

        worker: Worker = Worker(handle, topic, on_drop=lambda _: counters.rejected("superseded"), on_error=failed)
        self._workers.append(worker)

        def receive(message: object) -> None:
            counters.received()
            worker.submit(message)

        self.create_subscription(kind, topic, receive, profile)

    def _show_cloud(self, topic: str, message: PointCloud2) -> None:
        interface.check_cloud(message, CLOUDS[topic])
        self.view.show_cloud(topic, message.header.frame_id, conversion.cloud_points_mm(message),
                             conversion.cloud_to_fields(message))

    def _show_image(self, topic: str, message: Image) -> None:
        interface.check_image(message, ("mono8", "mono16"))
        self.view.show_xray(message.header.frame_id, conversion.image_to_array(message))

    def _show_camera(self, topic: str, message: CameraInfo) -> None:
        interface.check_camera_info(message)
        self.view.set_camera(message.k)

    def _show_meshes(self, topic: str, message: MarkerArray) -> None:
        for marker in message.markers:
            if marker.action == marker.DELETEALL:
                self.view.clear_completed()
            elif marker.type == marker.TRIANGLE_LIST:
                corners = [(p.x, p.y, p.z) for p in marker.points]
                self.view.show_completed(marker.header.frame_id, f"{marker.ns} {marker.id} {marker.text}", corners)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        streams = [s for s in message.status if not s.name.endswith(": state")]
        for status in message.status:
            if status.name.endswith(": state"):
                node = status.name.removesuffix(": state")
                lines = tuple(f"{s.name.removeprefix(node + ': ')}: {s.message}" for s in streams)
                self.view.show_state(node, Status(_severity(status), status.message, lines))

    def _look_up(self) -> None:
        self.view.mark_silent()
        for frame in FRAMES:
            try:
                found = self._buffer.lookup_transform(self.values["root_frame"], frame, Time())
            except TransformException:
                continue
            self.view.set_pose(frame, conversion.transform_to_matrix(found.transform))


def _severity(status: DiagnosticStatus) -> int:
    level = status.level
    return level[0] if isinstance(level, bytes) else int(level)


def main() -> int:
    """Entry point."""
    return run(ViewerNode)


if __name__ == "__main__":
    sys.exit(main())
