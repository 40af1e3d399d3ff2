"""numpy arrays in millimetres to and from ROS messages in metres.

Received arrays are read-only views. Sequences of bytes are filled through ``array.array``: assigning ``bytes`` to a
real rclpy message is checked element by element and takes milliseconds to minutes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Transform, TransformStamped
from numpy.typing import NDArray
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.meshes import Mesh

MM_PER_M = 1000.0
NANOSECONDS = 1_000_000_000
LUMA = np.array([77, 150, 29], np.uint16)  # ITU-R BT.601 in 1/256: their sum is 256
ENCODINGS = {"mono8": (np.uint8, 1), "mono16": (np.uint16, 1), "rgb8": (np.uint8, 3)}
Color = Sequence[float]


def stamp_nanoseconds(stamp: Time) -> int:
    """Nanoseconds of a message's time."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def stamp_seconds(stamp: Time) -> float:
    """Seconds of a message's time."""
    return stamp_nanoseconds(stamp) / NANOSECONDS


def to_stamp(nanoseconds: int) -> Time:
    """Message time of whole nanoseconds."""
    seconds, rest = divmod(int(nanoseconds), NANOSECONDS)
    return Time(sec=seconds, nanosec=rest)


def image_to_array(message: Image) -> NDArray:
    """(H, W) uint8 or uint16 pixels of a mono8, mono16 or rgb8 image; rgb8 becomes its luma.

    A view of the message where its bytes allow. The message must have passed ``interface.check_image``.
    """
    kind, channels = ENCODINGS[message.encoding]
    itemsize = np.dtype(kind).itemsize
    rows = np.frombuffer(memoryview(message.data), np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : message.width * channels * itemsize]
    if channels == 3:
        colour = pixels.reshape(message.height, message.width, 3)
        return ((colour.astype(np.uint16) @ LUMA) >> 8).astype(np.uint8)
    if itemsize == 1:
        return pixels
    values = np.ascontiguousarray(pixels).view(">u2" if message.is_bigendian else "<u2")
    return values.astype(np.uint16, copy=False)


def array_to_image(pixels: NDArray, encoding: str, frame_id: str, stamp: Time) -> Image:
    """Image of (H, W) or (H, W, 3) pixels; ``encoding`` is one of ENCODINGS. Raises UsxError when they do not fit."""
    if encoding not in ENCODINGS:
        raise UsxError(f"image encoding {encoding!r} is not supported; supported are {', '.join(ENCODINGS)}")
    kind, channels = ENCODINGS[encoding]
    expected = 3 if channels == 3 else 2
    if pixels.ndim != expected or pixels.dtype != kind:
        raise UsxError(f"pixels of shape {pixels.shape} and type {pixels.dtype} do not make a {encoding} image")
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, is_bigendian=0,
                    step=pixels.shape[1] * channels * np.dtype(kind).itemsize)
    message.header.frame_id, message.header.stamp = frame_id, stamp
    message.data = _bytes(pixels)
    return message


def fields_to_cloud(points_mm: NDArray, frame_id: str, stamp: Time, **extra: NDArray) -> PointCloud2:
    """Packed float32 cloud: x y z in metres, then the extra fields in the order given, (N,) each, already in SI."""
    names = ["x", "y", "z", *extra]
    packed = np.empty((len(points_mm), len(names)), "<f4")
    packed[:, :3] = np.asarray(points_mm).reshape(-1, 3) / MM_PER_M
    for column, values in enumerate(extra.values(), start=3):
        packed[:, column] = values
    message = PointCloud2(height=1, width=len(packed), is_bigendian=False, point_step=4 * len(names),
                          row_step=4 * len(names) * len(packed), is_dense=bool(np.isfinite(packed).all()))
    message.header.frame_id, message.header.stamp = frame_id, stamp
    message.fields = [PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
                      for i, name in enumerate(names)]
    message.data = _bytes(packed)
    return message


def cloud_to_fields(message: PointCloud2) -> dict[str, NDArray[np.float32]]:
    """Each float32 field of a cloud, (N,), in SI. The message must have passed ``interface.check_cloud``."""
    raw = np.frombuffer(memoryview(message.data), np.uint8)
    rows = raw.reshape(message.height, message.row_step)[:, : message.width * message.point_step]
    records = rows.reshape(-1, message.point_step)
    order = ">f4" if message.is_bigendian else "<f4"
    return {field.name: np.ascontiguousarray(records[:, field.offset : field.offset + 4]).view(order).reshape(-1)
            for field in message.fields if field.datatype == PointField.FLOAT32}


def cloud_points_mm(message: PointCloud2) -> NDArray[np.float64]:
    """(N, 3) points of a cloud in mm."""
    fields = cloud_to_fields(message)
    return np.stack([fields["x"], fields["y"], fields["z"]], axis=1).astype(np.float64) * MM_PER_M


def transform_to_matrix(transform: Transform) -> NDArray[np.float64]:
    """``child_to_parent`` (4, 4) in mm of a Transform message. Raises UsxError for a zero quaternion."""
    t, q = transform.translation, transform.rotation
    return transforms.from_quaternion([t.x * MM_PER_M, t.y * MM_PER_M, t.z * MM_PER_M], [q.x, q.y, q.z, q.w])


def pose_to_matrix(pose: Pose) -> NDArray[np.float64]:
    """``body_to_frame`` (4, 4) in mm of a Pose message. Raises UsxError for a zero quaternion."""
    p, q = pose.position, pose.orientation
    return transforms.from_quaternion([p.x * MM_PER_M, p.y * MM_PER_M, p.z * MM_PER_M], [q.x, q.y, q.z, q.w])


def matrix_to_transform_stamped(child_to_parent: NDArray[np.float64], parent: str, child: str,
                                stamp: Time) -> TransformStamped:
    """Transform message of a rigid (4, 4) matrix in mm."""
    translation, quaternion = transforms.to_quaternion(child_to_parent)
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id, message.header.stamp = parent, stamp
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = (float(v) / MM_PER_M for v in translation)
    q.x, q.y, q.z, q.w = (float(v) for v in quaternion)
    return message


def mesh_marker(mesh: Mesh, frame_id: str, stamp: Time, identity: tuple[str, int], rgba: Color) -> Marker:
    """TRIANGLE_LIST marker of a mesh in mm; ``identity`` is the marker's namespace and id.

    Corners at one vertex are one Point object: replace it, do not change it."""
    marker = _marker(Marker.TRIANGLE_LIST, frame_id, stamp, identity, rgba)
    places = [Point(x=x, y=y, z=z) for x, y, z in (mesh.vertices / MM_PER_M).tolist()]
    # triangles share the points of their vertices: a sixth of the objects, whose making took as long as a completion
    marker.points = [places[vertex] for vertex in mesh.faces.ravel().tolist()]
    return marker


def text_marker(text: str, position_mm: NDArray, frame_id: str, stamp: Time, identity: tuple[str, int],
                rgba: Color = (1.0, 1.0, 1.0, 1.0)) -> Marker:
    """Text, 8 mm high, that faces the viewer, at ``position_mm`` (3,)."""
    marker = _marker(Marker.TEXT_VIEW_FACING, frame_id, stamp, identity, rgba)
    marker.text, marker.scale.z = text, 0.008
    p = marker.pose.position
    p.x, p.y, p.z = (float(v) / MM_PER_M for v in position_mm)
    return marker


def line_marker(segments_mm: NDArray, frame_id: str, stamp: Time, identity: tuple[str, int], rgba: Color) -> Marker:
    """LINE_LIST marker, 0.5 mm wide, of segments (N, 2, 3) in mm."""
    marker = _marker(Marker.LINE_LIST, frame_id, stamp, identity, rgba)
    marker.scale.x = 0.0005
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in (np.reshape(segments_mm, (-1, 3)) / MM_PER_M).tolist()]
    return marker


def delete_all_marker(frame_id: str, stamp: Time) -> Marker:
    """Marker that removes all others of its topic."""
    marker = Marker(action=Marker.DELETEALL)
    marker.header.frame_id, marker.header.stamp = frame_id, stamp
    return marker


def _marker(kind: int, frame_id: str, stamp: Time, identity: tuple[str, int], rgba: Color) -> Marker:
    namespace, number = identity
    marker = Marker(type=kind, action=Marker.ADD, ns=namespace, id=number)
    marker.header.frame_id, marker.header.stamp = frame_id, stamp
    marker.pose.orientation.w = 1.0
    marker.scale.x = marker.scale.y = marker.scale.z = 1.0
    red, green, blue, alpha = (float(v) for v in rgba)
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
    return marker


def _bytes(values: NDArray) -> array:
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data
