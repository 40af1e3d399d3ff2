"""xray_node: X-rays and CT series in, vertebral bodies and CT bone out."""

from __future__ import annotations

import sys
import time
from array import array

import message_filters
import numpy as np
from geometry_msgs.msg import Point
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from usx_common.ros import conversion, interface
from usx_common.ros.node_support import OK, WARN, Diagnostics, declare_parameters, run
from usx_xray.pairing import PendingImages
from usx_xray.parameters import TABLE
from usx_xray.station import BoneResult, XrayResult, XrayStation

POLL_PERIOD_S = 0.25
STATUS_PERIOD_S = 0.5
WAITING_IMAGES = 10
IMAGE_ENCODINGS = ("mono8", "mono16", "rgb8")


class XrayNode(Node):
    """Topics and parameters as in docs/xray.md; all work is done by XrayStation, on its own thread."""

    def __init__(self) -> None:
        super().__init__("xray_node")
        self._station: XrayStation | None = None
        values = declare_parameters(self, TABLE, lambda changes: self._station and self._station.change(changes))
        self._image = self.create_publisher(Image, "xray/image", interface.LATCHED)
        self._camera = self.create_publisher(CameraInfo, "xray/camera_info", interface.LATCHED)
        self._labels = self.create_publisher(Image, "xray/labels", interface.LATCHED)
        self._bodies = self.create_publisher(PointCloud2, "xray/bodies", interface.LATCHED)
        self._bone = self.create_publisher(PointCloud2, "cbct/bone", interface.LATCHED)
        self._station = XrayStation(values, self._publish, self.get_logger().warning)
        self._pending = PendingImages(self._station.images, WAITING_IMAGES)
        self._subscribe()
        self._diagnostics = Diagnostics(self, "xray")
        self._watch(self._station)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(POLL_PERIOD_S, self._station.poll, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._show_status, clock=steady)

    def close(self) -> None:
        """End the worker thread and the listener."""
        if self._station is not None:
            self._station.close()

    def _subscribe(self) -> None:
        # An image whose camera_info never comes would vanish in the synchroniser: each is counted at its arrival.
        image = message_filters.Subscriber(self, Image, "xray/image_raw", qos_profile=interface.SENSOR_STREAM)
        camera = message_filters.Subscriber(self, CameraInfo, "xray/camera_info", qos_profile=interface.SENSOR_STREAM)
        image.registerCallback(self._note_image)
        self._pairs = message_filters.TimeSynchronizer([image, camera], WAITING_IMAGES)
        self._pairs.registerCallback(self._take_image)
        self.create_subscription(Point, "xray/image_mouse_left", self._take_click, interface.COMMAND)

    def _watch(self, station: XrayStation) -> None:
        self._diagnostics.watch(station.files, latency=station.latency)
        self._diagnostics.watch(station.images)
        self._diagnostics.watch(station.clicks)
        if station.server is not None:
            self._diagnostics.watch(station.server.objects)
            self._diagnostics.watch(station.server.associations)

    def _show_status(self) -> None:
        assert self._station is not None
        self._pending.expire(time.monotonic())
        status = self._station.status()
        self._diagnostics.set_state(OK if status.fine else WARN, status.text, **status.facts)

    def _note_image(self, image: Image) -> None:
        self._pending.arrived(conversion.stamp_nanoseconds(image.header.stamp), time.monotonic())

    def _take_image(self, image: Image, camera: CameraInfo) -> None:
        assert self._station is not None
        stamp = conversion.stamp_nanoseconds(image.header.stamp)
        if not self._pending.paired(stamp):
            return
        try:
            interface.check_image(image, IMAGE_ENCODINGS)
            interface.check_camera_info(camera)
        except interface.InvalidMessage as error:
            self._station.images.rejected(error.reason)
            return
        self._station.add_image(conversion.image_to_array(image), np.array(camera.k).reshape(3, 3),
                                stamp)

    def _take_click(self, click: Point) -> None:
        assert self._station is not None
        self._station.add_click(click.x, click.y)

    def _publish(self, result: XrayResult | BoneResult) -> None:
        if isinstance(result, BoneResult):
            stamp = conversion.to_stamp(result.stamp_ns)
            self._bone.publish(conversion.fields_to_cloud(result.points, "cbct", stamp))
            return
        stamp = conversion.to_stamp(result.image.stamp_ns)
        self._image.publish(conversion.array_to_image(result.image.as_uint16(), "mono16", "xray", stamp))
        self._camera.publish(camera_info(result, stamp))
        if result.points is not None and result.label_pixels is not None:
            self._labels.publish(conversion.array_to_image(result.label_pixels, "mono8", "xray", stamp))
            self._bodies.publish(conversion.fields_to_cloud(result.points, "xray", stamp, label=result.labels))


def camera_info(result: XrayResult, stamp: object) -> CameraInfo:
    """camera_info of an X-ray: K, and P = [K 0]; there is no distortion."""
    k = result.image.geometry.camera_matrix
    message = CameraInfo(distortion_model="plumb_bob")
    message.header.frame_id, message.header.stamp = "xray", stamp
    message.height, message.width = result.image.pixels.shape
    message.d = array("d", [0.0] * 5)
    message.k = k.reshape(-1)
    message.r = np.eye(3).reshape(-1)
    message.p = np.column_stack([k, np.zeros(3)]).reshape(-1)
    return message


def main(args: list[str] | None = None) -> int:
    """Run the node until it is stopped."""
    return run(XrayNode, args)


if __name__ == "__main__":
    sys.exit(main())
