"""The ROS edge: conversions against hand-made messages, and the table of messages that must be refused."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Quaternion, Transform, TransformStamped, Vector3
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_common.ros import conversion, interface

STAMP = Time(sec=12, nanosec=345)


def image(pixels: np.ndarray, encoding: str, padding: int = 0, bigendian: int = 0) -> Image:
    rows = pixels.reshape(pixels.shape[0], -1)
    raw = [row.tobytes() + b"\xee" * padding for row in rows]
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=len(raw[0]),
                    is_bigendian=bigendian)
    message.header.stamp, message.header.frame_id = STAMP, "us_image"
    message.data = array("B", b"".join(raw))
    return message


@pytest.mark.parametrize("padding", [0, 5])
def test_grey_images_come_out_as_they_are(padding):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9), np.uint8)
    message = image(pixels, "mono8", padding)
    interface.check_image(message)
    np.testing.assert_array_equal(conversion.image_to_array(message), pixels)


def test_16_bit_images_of_both_byte_orders():
    pixels = np.random.default_rng(1).integers(0, 65536, (5, 4), np.uint16)
    for order, flag in (("<u2", 0), (">u2", 1)):
        message = image(pixels.astype(order), "mono16", padding=3, bigendian=flag)
        interface.check_image(message, ("mono16",))
        np.testing.assert_array_equal(conversion.image_to_array(message), pixels)


def test_colour_becomes_luma():
    pixels = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0]]], np.uint8)
    luma = conversion.image_to_array(image(pixels, "rgb8"))
    np.testing.assert_allclose(luma[0], [255, 0, 0.299 * 255, 0.587 * 255], atol=1.5)


def test_image_round_trip_and_what_does_not_fit():
    for pixels, encoding in ((np.arange(6, dtype=np.uint8).reshape(2, 3), "mono8"),
                             (np.arange(6, dtype=np.uint16).reshape(2, 3) * 9000, "mono16")):
        message = conversion.array_to_image(pixels, encoding, "xray", STAMP)
        interface.check_image(message, (encoding,))
        np.testing.assert_array_equal(conversion.image_to_array(message), pixels)
        assert message.header.frame_id == "xray" and conversion.stamp_nanoseconds(message.header.stamp) == 12000000345
    for pixels, encoding in ((np.zeros((2, 3), np.uint16), "mono8"), (np.zeros((2, 3, 3), np.uint8), "mono8"),
                             (np.zeros((2, 3), np.uint8), "bgr8")):
        with pytest.raises(UsxError):
            conversion.array_to_image(pixels, encoding, "xray", STAMP)


def test_cloud_round_trip_is_packed_float32_metres():
    points = np.random.default_rng(2).normal(size=(50, 3)) * 100
    sigma = np.linspace(0, 1e-3, 50)
    message = conversion.fields_to_cloud(points, "spine", STAMP, label=np.full(50, 21.0), sigma=sigma)
    interface.check_cloud(message, ("x", "y", "z", "label", "sigma"), "spine")
    assert [f.name for f in message.fields] == ["x", "y", "z", "label", "sigma"] and message.point_step == 20
    raw = np.frombuffer(bytes(message.data), "<f4").reshape(-1, 5)
    np.testing.assert_allclose(raw[:, :3], points / 1000, rtol=1e-6)
    np.testing.assert_allclose(conversion.cloud_points_mm(message), points, rtol=1e-6)
    np.testing.assert_allclose(conversion.cloud_to_fields(message)["sigma"], np.linspace(0, 1e-3, 50), atol=1e-9)


def test_clouds_of_other_drivers_with_padding_and_other_fields():
    record = np.zeros((2, 3), [("rgb", "<u4"), ("z", "<f4"), ("x", "<f4"), ("y", "<f4"), ("gap", "V3")])
    record["x"], record["y"], record["z"] = 1.0, 2.0, [[3, 4, 5], [6, 7, 8]]
    message = PointCloud2(height=2, width=3, point_step=record.itemsize, row_step=3 * record.itemsize)
    message.header.stamp, message.header.frame_id = STAMP, "camera"
    offsets = {"rgb": (0, PointField.UINT32), "z": (4, 7), "x": (8, 7), "y": (12, 7)}
    message.fields = [PointField(name=n, offset=o, datatype=t, count=1) for n, (o, t) in offsets.items()]
    message.data = array("B", record.tobytes())
    interface.check_cloud(message)
    np.testing.assert_allclose(conversion.cloud_points_mm(message)[:, 2], [3000, 4000, 5000, 6000, 7000, 8000])
    assert "rgb" not in conversion.cloud_to_fields(message)


def test_an_empty_cloud_is_a_cloud():
    message = conversion.fields_to_cloud(np.empty((0, 3)), "spine", STAMP, label=np.empty(0))
    interface.check_cloud(message, ("x", "label"))
    assert conversion.cloud_points_mm(message).shape == (0, 3)


@given(st.floats(-3, 3), st.tuples(*[st.floats(-900, 900)] * 3))
def test_transform_round_trip_in_metres(angle, translation):
    matrix = transforms.make_transform(transforms.rotation_about_axis([1, 2, 3], angle), translation)
    message = conversion.matrix_to_transform_stamped(matrix, "world", "us_probe", STAMP)
    assert isinstance(message, TransformStamped) and message.child_frame_id == "us_probe"
    assert message.transform.translation.x == pytest.approx(translation[0] / 1000)
    interface.check_transform(message.transform)
    np.testing.assert_allclose(conversion.transform_to_matrix(message.transform), matrix, atol=1e-6)


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_keep_their_nanoseconds(nanoseconds):
    assert conversion.stamp_nanoseconds(conversion.to_stamp(nanoseconds)) == nanoseconds


def test_mesh_marker_holds_every_triangle_in_metres():
    mesh = Mesh(np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10.0]]), np.array([[0, 1, 2], [0, 3, 1]]))
    marker = conversion.mesh_marker(mesh, "spine", STAMP, ("vertebra", 20), (1, 0, 0, 0.5))
    assert (marker.type, marker.id, marker.color.a, len(marker.points)) == (marker.TRIANGLE_LIST, 20, 0.5, 6)
    assert (marker.points[4].x, marker.points[4].z) == (0.0, pytest.approx(0.01))
    lines = conversion.line_marker(np.array([[[0, 0, 0], [5, 0, 0]]]), "us_volume", STAMP, ("path", 0), (0, 1, 0, 1))
    assert lines.type == lines.LINE_LIST and len(lines.points) == 2
    text = conversion.text_marker("L1", np.array([1.0, 2.0, 3.0]), "spine", STAMP, ("names", 20))
    assert text.text == "L1" and text.pose.position.z == pytest.approx(0.003)


def changed_image(**changes: object) -> Image:
    message = image(np.zeros((4, 6), np.uint8), "mono8")
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(("changes", "reason"), [
    ({"encoding": "bgr8"}, "wrong_encoding"), ({"encoding": ""}, "wrong_encoding"), ({"width": 0}, "wrong_size"),
    ({"height": 20000}, "wrong_size"), ({"step": 5}, "wrong_step"), ({"step": 7}, "wrong_data_size"),
    ({"data": array("B")}, "wrong_data_size"), ({"height": 5}, "wrong_data_size"), ({"encoding": "rgb8"}, "wrong_step"),
])
def test_bad_images_are_refused_with_their_reason(changes, reason):
    with pytest.raises(interface.InvalidMessage) as caught:
        interface.check_image(changed_image(**changes))
    assert caught.value.reason == reason


XYZ = [PointField(name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate("xyz")]


def changed_cloud(**changes: object) -> PointCloud2:
    message = conversion.fields_to_cloud(np.zeros((3, 3)), "us_volume", STAMP)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(("changes", "reason"), [
    ({"fields": []}, "missing_field"), ({"width": 4}, "wrong_data_size"), ({"row_step": 20}, "wrong_data_size"),
    ({"point_step": 8}, "wrong_field"), ({"data": array("B")}, "wrong_data_size"),
    ({"fields": [PointField(name=n, offset=0, datatype=8, count=1) for n in "xyz"]}, "wrong_field"),
    ({"width": 10_000_000}, "too_many_points"),
    ({"fields": [*XYZ, PointField(name="ring", offset=10, datatype=7, count=1)]}, "wrong_field"),
    ({"fields": [*XYZ, PointField(name="shape", offset=4, datatype=7, count=2)]}, "wrong_field"),
    ({"fields": [*XYZ, PointField(name="x", offset=4, datatype=7, count=1)]}, "wrong_field"),
])
def test_bad_clouds_are_refused_with_their_reason(changes, reason):
    with pytest.raises(interface.InvalidMessage) as caught:
        interface.check_cloud(changed_cloud(**changes), frame_id="us_volume")
    assert caught.value.reason == reason


def test_frames_and_stamps_are_checked():
    message = changed_cloud()
    for frame, reason in (("", "no_frame_id"), ("camera", "wrong_frame_id")):
        message.header.frame_id = frame
        with pytest.raises(interface.InvalidMessage) as caught:
            interface.check_cloud(message, frame_id="us_volume")
        assert caught.value.reason == reason
    for stamp, reason in ((Time(), "no_stamp"), (Time(sec=1, nanosec=2_000_000_000), "bad_stamp"),
                          (Time(sec=-1), "bad_stamp")):
        with pytest.raises(interface.InvalidMessage) as caught:
            interface.check_stamp(stamp)
        assert caught.value.reason == reason


@pytest.mark.parametrize(("translation", "rotation", "reason"), [
    ((0, 0, float("nan")), (0, 0, 0, 1), "not_finite"), ((0, 0, 0), (0, 0, 0, float("inf")), "not_finite"),
    ((0, 0, 0), (0, 0, 0, 0), "bad_quaternion"), ((0, 0, 0), (0, 0, 0, 1.01), "bad_quaternion"),
])
def test_bad_transforms_are_refused(translation, rotation, reason):
    transform = Transform(translation=Vector3(**dict(zip("xyz", map(float, translation), strict=True))),
                          rotation=Quaternion(**dict(zip("xyzw", map(float, rotation), strict=True))))
    with pytest.raises(interface.InvalidMessage) as caught:
        interface.check_transform(transform)
    assert caught.value.reason == reason


def test_points_and_cameras_are_checked():
    with pytest.raises(interface.InvalidMessage, match="click"):
        interface.check_vector(Point(x=float("nan")), "click")
    info = CameraInfo(width=10, height=10, k=[100.0, 0.0, 5.0, 0.0, 100.0, 5.0, 0.0, 0.0, 1.0])
    info.header.stamp = STAMP
    interface.check_camera_info(info)
    for k in ([0.0] * 9, [100.0, 0.0, 5.0, 0.0, 100.0, 5.0, 0.0, 0.0, 0.0], [float("nan")] * 9):
        info.k = k
        with pytest.raises(interface.InvalidMessage):
            interface.check_camera_info(info)
    info.k, info.width = [100.0, 0.0, 5.0, 0.0, 100.0, 5.0, 0.0, 0.0, 1.0], 0
    with pytest.raises(interface.InvalidMessage):
        interface.check_camera_info(info)
