"""What crosses the wire: named QoS profiles, and the checks that every received message passes before it is used."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Quaternion, Transform, Vector3
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from usx_common.errors import UsxError
from usx_common.ros.conversion import ENCODINGS, NANOSECONDS

QUATERNION_TOLERANCE = 1e-3
MAX_IMAGE_SIDE = 16384
MAX_POINTS = 5_000_000


def _profile(depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE,
                      durability=durability)


# Depth >= rate x 0.2 s: a loaded machine stalls for that long, and what is overwritten meanwhile is lost.
SENSOR_STREAM = _profile(50)
LATEST = _profile(1)
COMMAND = _profile(10)
LATCHED = _profile(1, DurabilityPolicy.TRANSIENT_LOCAL)
LATCHED_MANY = _profile(100, DurabilityPolicy.TRANSIENT_LOCAL)  # several latched publishers on one topic: /tf_static


class InvalidMessage(UsxError):
    """A message that must not be used: ``reason`` is the short name under which it is counted."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def check_stamp(stamp: Time, name: str = "message") -> None:
    """Raise InvalidMessage for a time that is zero, negative or has too many nanoseconds."""
    if not 0 <= stamp.nanosec < NANOSECONDS or stamp.sec < 0:
        raise InvalidMessage("bad_stamp", f"{name} has the impossible time {stamp.sec} s + {stamp.nanosec} ns")
    if stamp.sec == 0 and stamp.nanosec == 0:
        raise InvalidMessage("no_stamp", f"{name} has no time; its driver must set header.stamp")


def check_frame_id(frame_id: str, expected: str | None = None, name: str = "message") -> None:
    """Raise InvalidMessage for an empty frame, or one that is not the expected."""
    if not frame_id:
        raise InvalidMessage("no_frame_id", f"{name} has an empty header.frame_id")
    if expected is not None and frame_id != expected:
        raise InvalidMessage("wrong_frame_id", f"{name} is in frame {frame_id!r}; expected is {expected!r}")


def check_image(message: Image, encodings: Collection[str] = ("mono8", "rgb8")) -> None:
    """Raise InvalidMessage for an image whose encoding, size, step or data do not fit together."""
    check_stamp(message.header.stamp, "image")
    if message.encoding not in encodings:
        raise InvalidMessage("wrong_encoding", f"image encoding {message.encoding!r} is not one of {sorted(encodings)}")
    if not (0 < message.width <= MAX_IMAGE_SIDE and 0 < message.height <= MAX_IMAGE_SIDE):
        raise InvalidMessage("wrong_size", f"image of {message.width} x {message.height} pixels; each side must be "
                                           f"1 .. {MAX_IMAGE_SIDE}")
    kind, channels = ENCODINGS[message.encoding]
    row = message.width * channels * np.dtype(kind).itemsize
    if message.step < row:
        raise InvalidMessage("wrong_step", f"image step {message.step} is less than the {row} bytes of a row")
    if len(message.data) != message.step * message.height:
        raise InvalidMessage("wrong_data_size", f"image holds {len(message.data)} bytes; step x height asks for "
                                                f"{message.step * message.height}")


def check_cloud(message: PointCloud2, fields: Collection[str] = ("x", "y", "z"), frame_id: str | None = None,
                max_points: int = MAX_POINTS) -> None:
    """Raise InvalidMessage for a cloud without these float32 fields, in another frame, too large or inconsistent.

    Float32 fields that were not asked for are checked alike, because ``conversion.cloud_to_fields`` reads all of them.
    Points that are not finite are legal in ROS (is_dense = false); users of the cloud leave them out.
    """
    check_stamp(message.header.stamp, "cloud")
    check_frame_id(message.header.frame_id, frame_id, "cloud")
    known = {field.name: field for field in message.fields}
    missing = [name for name in fields if name not in known]
    if missing:
        raise InvalidMessage("missing_field", f"cloud lacks the fields {missing}; it has {sorted(known)}")
    other = [name for name in fields if known[name].datatype != PointField.FLOAT32]
    if other:
        raise InvalidMessage("wrong_field", f"cloud fields {other} must be float32")
    _check_float_fields(message)
    count = message.width * message.height
    if count > max_points:
        raise InvalidMessage("too_many_points", f"cloud of {count} points; at most {max_points} are taken")
    if message.row_step < message.width * message.point_step or len(message.data) != message.row_step * message.height:
        raise InvalidMessage("wrong_data_size", f"cloud holds {len(message.data)} bytes; {message.height} rows of "
                                                f"{message.row_step} bytes are announced")


def _check_float_fields(message: PointCloud2) -> None:
    floats = [field for field in message.fields if field.datatype == PointField.FLOAT32]
    if len({field.name for field in floats}) < len(floats):
        raise InvalidMessage("wrong_field", f"cloud names a field twice: {sorted(field.name for field in floats)}")
    for field in floats:
        if field.offset + 4 > message.point_step:
            raise InvalidMessage("wrong_field", f"cloud field {field.name!r} at byte {field.offset} ends outside the "
                                                f"point step of {message.point_step} bytes")
        if field.count not in (0, 1):  # some drivers leave the count at 0
            raise InvalidMessage("wrong_field", f"cloud field {field.name!r} has {field.count} elements; must be 1")


def check_vector(vector: Vector3 | Point, name: str = "vector") -> None:
    """Raise InvalidMessage when a coordinate is not finite."""
    if not all(math.isfinite(v) for v in (vector.x, vector.y, vector.z)):
        raise InvalidMessage("not_finite", f"{name} ({vector.x}, {vector.y}, {vector.z}) is not finite")


def check_quaternion(quaternion: Quaternion, name: str = "quaternion") -> None:
    """Raise InvalidMessage when a quaternion is not finite or not of length 1."""
    norm = math.sqrt(quaternion.x**2 + quaternion.y**2 + quaternion.z**2 + quaternion.w**2)
    if not math.isfinite(norm):
        raise InvalidMessage("not_finite", f"{name} is not finite")
    if abs(norm - 1.0) > QUATERNION_TOLERANCE:
        raise InvalidMessage("bad_quaternion", f"{name} has length {norm:.6g}; it must be 1")


def check_transform(transform: Transform) -> None:
    """Raise InvalidMessage when a transform is not a finite rigid motion."""
    check_vector(transform.translation, "translation")
    check_quaternion(transform.rotation, "rotation")


def check_camera_info(message: CameraInfo) -> None:
    """Raise InvalidMessage when K is not the matrix of a pinhole camera, or the size is missing."""
    check_stamp(message.header.stamp, "camera_info")
    k = np.asarray(message.k, dtype=np.float64)
    if not np.isfinite(k).all() or k[0] <= 0 or k[4] <= 0 or not np.allclose(k[[3, 6, 7, 8]], [0, 0, 0, 1]):
        raise InvalidMessage("bad_camera_matrix", f"camera matrix {k.tolist()} is not that of a pinhole camera")
    if message.width == 0 or message.height == 0:
        raise InvalidMessage("wrong_size", f"camera_info says {message.width} x {message.height} pixels")
