"""Recordings as rosbag2 (mcap) without ROS: images, joint states and TF of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from usx_common import transforms

STORE = get_typestore(Stores.ROS2_JAZZY)
NEVER = QosTime(2147483647, 4294967295)
BAG_VERSION: Literal[9] = 9


def _qos(depth: int, durability: QosDurability) -> Qos:
    return Qos(QosHistory.KEEP_LAST, depth, QosReliability.RELIABLE, durability, NEVER, NEVER,
               QosLiveliness.AUTOMATIC, NEVER, False)


STREAM = _qos(50, QosDurability.VOLATILE)
LATCHED = _qos(1, QosDurability.TRANSIENT_LOCAL)


@dataclass(frozen=True)
class Edge:
    """One TF edge: the (4, 4) transform from `child` to `parent`, mm."""

    parent: str
    child: str
    child_to_parent: np.ndarray


def _type(name: str) -> Any:
    return STORE.types[name]


def stamp_of(nanoseconds: int) -> Any:
    """builtin_interfaces/Time of whole nanoseconds."""
    return _type("builtin_interfaces/msg/Time")(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def _header(nanoseconds: int, frame: str) -> Any:
    return _type("std_msgs/msg/Header")(stamp=stamp_of(nanoseconds), frame_id=frame)


def image_message(pixels: np.ndarray, nanoseconds: int, frame: str) -> bytes:
    """CDR of a mono8 sensor_msgs/Image of `pixels` (rows, columns) uint8."""
    rows, columns = pixels.shape
    message = _type("sensor_msgs/msg/Image")(header=_header(nanoseconds, frame), height=rows, width=columns,
                                             encoding="mono8", is_bigendian=0, step=columns,
                                             data=np.ascontiguousarray(pixels).reshape(-1))
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))


def joints_message(names: Sequence[str], position: np.ndarray, velocity: np.ndarray, nanoseconds: int) -> bytes:
    """CDR of a sensor_msgs/JointState; rad and rad/s."""
    message = _type("sensor_msgs/msg/JointState")(
        header=_header(nanoseconds, ""), name=list(names), position=np.asarray(position, np.float64),
        velocity=np.asarray(velocity, np.float64), effort=np.zeros(0))
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/JointState"))


def tf_message(edges: Iterable[Edge], nanoseconds: int) -> bytes:
    """CDR of a tf2_msgs/TFMessage; millimetres become metres here."""
    vector, quaternion = _type("geometry_msgs/msg/Vector3"), _type("geometry_msgs/msg/Quaternion")
    stamped = []
    for edge in edges:
        translation, rotation = transforms.to_quaternion(edge.child_to_parent)
        x, y, z = (float(v) for v in translation * 1e-3)
        qx, qy, qz, qw = (float(v) for v in rotation)
        transform = _type("geometry_msgs/msg/Transform")(translation=vector(x=x, y=y, z=z),
                                                         rotation=quaternion(x=qx, y=qy, z=qz, w=qw))
        stamped.append(_type("geometry_msgs/msg/TransformStamped")(
            header=_header(nanoseconds, edge.parent), child_frame_id=edge.child, transform=transform))
    message = _type("tf2_msgs/msg/TFMessage")(transforms=stamped)
    return bytes(STORE.serialize_cdr(message, "tf2_msgs/msg/TFMessage"))


class SweepBag:
    """A bag with /us/image_raw, /joint_states, /tf and /tf_static, written in the order of the receive times."""

    TOPICS: ClassVar = {
        "/us/image_raw": ("sensor_msgs/msg/Image", STREAM),
        "/joint_states": ("sensor_msgs/msg/JointState", STREAM),
        "/tf": ("tf2_msgs/msg/TFMessage", STREAM),
        "/tf_static": ("tf2_msgs/msg/TFMessage", LATCHED),
    }

    def __init__(self, folder: Path) -> None:
        """`folder` must not exist; it becomes the bag. Use as a context manager."""
        self._writer = Writer(folder, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> SweepBag:
        self._writer.open()
        for topic, (kind, qos) in self.TOPICS.items():
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=STORE,
                                                                   offered_qos_profiles=[qos])
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, topic: str, nanoseconds: int, data: bytes) -> None:
        """Add one serialised message received at `nanoseconds`."""
        self._writer.write(self._connections[topic], nanoseconds, data)
