"""xray_node over topics: parameters, files, plain images, clicks, diagnostics. Written against rclpy alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from usx_common.errors import UsxError
from usx_common.ros import conversion, interface
from usx_xray.node import XrayNode

SEEDS = [(20 + index, 300.0 + 10.0 * index, 150.0 + 170.0 * index) for index in range(5)]
SID, SOD, SPACING = 1080.0, 750.0, 0.3


def radiograph() -> np.ndarray:
    """Five bright boxes of 34 x 27 mm around the seeds."""
    pixels = np.full((980, 640), 1000.0, np.float32)
    for _, column, row in SEEDS:
        pixels[int(row) - 65:int(row) + 65, int(column) - 82:int(column) + 82] = 2000.0
    pixels = cv2.GaussianBlur(pixels, (0, 0), 2.0) + np.random.default_rng(0).normal(size=pixels.shape) * 30.0
    return pixels.astype(np.uint16)


def write_xray(path: Path, **attributes: object) -> None:
    pixels = radiograph()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.Modality = "Verysecret^Person", "DX"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20260102", "030405"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.DistanceSourceToDetector, dataset.DistanceSourceToPatient = str(SID), str(SOD)
    dataset.ImagerPixelSpacing = [str(SPACING)] * 2
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


class Harness(Node):
    """Listens to all that the node publishes."""

    def __init__(self) -> None:
        super().__init__("xray_test_harness")
        self.got: dict[str, list] = {}
        for kind, topic in [(Image, "xray/image"), (CameraInfo, "xray/camera_info"), (Image, "xray/labels"),
                            (PointCloud2, "xray/bodies"), (PointCloud2, "cbct/bone")]:
            self.create_subscription(kind, topic, self.got.setdefault(topic, []).append, interface.LATCHED)
        self.status: dict[str, dict[str, str]] = {}
        self.create_subscription(DiagnosticArray, "/diagnostics", self._note, 10)
        self.image = self.create_publisher(Image, "xray/image_raw", interface.SENSOR_STREAM)
        self.camera = self.create_publisher(CameraInfo, "xray/camera_info", interface.SENSOR_STREAM)
        self.click = self.create_publisher(Point, "xray/image_mouse_left", interface.COMMAND)

    def _note(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.removeprefix("xray_node: ")
            self.status[name] = {"message": status.message, **{item.key: item.value for item in status.values}}


class Running:
    def __init__(self) -> None:
        self.node, self.harness = XrayNode(), Harness()
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.harness)
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.open = True
        self.thread.start()

    def _spin(self) -> None:
        while self.open:
            self.executor.spin_once(timeout_sec=0.05)

    def wait(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"did not happen: {self.harness.status}"
            time.sleep(0.05)

    def accounted(self, stream: str) -> dict[str, str]:
        """Counters of a stream once received = used + rejected."""
        def done() -> bool:
            return self.harness.status.get(stream, {}).get("pending") == "0"
        self.wait(done)
        return self.harness.status[stream]

    def close(self) -> None:
        self.open = False
        self.thread.join(10.0)
        self.node.close()
        self.node.destroy_node()
        self.harness.destroy_node()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def make(**parameters: object) -> Running:
        arguments = ["--ros-args"]
        for name, value in {"file_quiet_time": 0.2, **parameters}.items():
            arguments += ["-p", f"{name}:={value}"]
        rclpy.init(args=arguments)
        running.append(Running())
        return running[-1]
    yield make
    for item in running:
        item.close()
    rclpy.try_shutdown()


def seeds() -> dict[str, list]:
    return {"seed_labels": [s[0] for s in SEEDS], "seed_columns": [s[1] for s in SEEDS],
            "seed_rows": [s[2] for s in SEEDS]}


def test_watched_folder_to_bodies(start: Callable[..., Running], tmp_path: Path) -> None:
    write_xray(tmp_path / "a.dcm")
    (tmp_path / "b.txt").write_text("no DICOM")
    running = start(watch_folder=tmp_path, **seeds())
    got = running.harness.got
    running.wait(lambda: bool(got["xray/bodies"] and got["xray/labels"] and got["xray/camera_info"]))
    bodies = got["xray/bodies"][-1]
    assert bodies.header.frame_id == "xray"
    assert bodies.header.stamp.sec == 1767323045
    fields = conversion.cloud_to_fields(bodies)
    assert set(fields) == {"x", "y", "z", "label"} and set(fields["label"]) == {20.0, 21.0, 22.0, 23.0, 24.0}
    np.testing.assert_allclose(fields["z"], SOD * 1e-3)
    scale = SPACING * SOD / SID  # mm per pixel in the mid plane
    for label, column, row in SEEDS:
        mine = fields["label"] == label
        middle = np.array([fields["x"][mine].mean(), fields["y"][mine].mean()]) * 1e3
        np.testing.assert_allclose(middle, np.array([column - 319.5, row - 489.5]) * scale, atol=1.0)
    camera, image, labels = got["xray/camera_info"][-1], got["xray/image"][-1], got["xray/labels"][-1]
    np.testing.assert_allclose(np.array(camera.k).reshape(3, 3), [[3600, 0, 319.5], [0, 3600, 489.5], [0, 0, 1]])
    assert (image.encoding, image.width, image.height) == ("mono16", 640, 980)
    assert labels.encoding == "mono8" and conversion.image_to_array(labels)[490, 320] == 22
    running.wait(lambda: running.harness.status.get("files", {}).get("received") == "2")
    files = running.accounted("files")
    assert files["used"] == "1" and files["rejected.not_dicom"] == "1"
    assert "secret" not in str(running.harness.status)


def test_plain_images_and_clicks(start: Callable[..., Running]) -> None:
    running = start(source_to_midplane=SOD)
    harness = running.harness
    running.wait(lambda: harness.image.get_subscription_count() > 0 and harness.click.get_subscription_count() > 0)
    running.wait(lambda: harness.camera.get_subscription_count() > 0)
    camera = CameraInfo(height=980, width=640)
    camera.k = np.array([3600.0, 0, 319.5, 0, 3600.0, 489.5, 0, 0, 1])
    for number, encoding in enumerate(["mono16", "mono16", "32FC1"]):
        stamp = conversion.to_stamp((number + 1) * 10**9)
        image = conversion.array_to_image(radiograph(), "mono16", "xray", stamp)
        image.encoding = encoding
        camera.header.stamp, camera.header.frame_id = stamp, "xray"
        harness.image.publish(image)
        if number != 0:  # the first has no camera_info
            harness.camera.publish(camera)
    running.wait(lambda: bool(harness.got["xray/image"]))
    for _, column, row in SEEDS:
        harness.click.publish(Point(x=column, y=row))
    harness.click.publish(Point(x=-100.0, y=5.0))
    running.wait(lambda: any(len(set(conversion.cloud_to_fields(cloud)["label"])) == 5
                             for cloud in harness.got["xray/bodies"]))
    running.wait(lambda: harness.status.get("clicks", {}).get("received") == "6")
    clicks, images = running.accounted("clicks"), running.accounted("images")
    assert clicks["used"] == "5" and clicks["rejected.outside_image"] == "1"
    assert images["received"] == "3" and images["used"] == "1" and images["rejected.no_camera_info"] == "1"
    assert sum(int(value) for key, value in images.items() if key.startswith("rejected.")) == 2


def test_bad_parameters_name_themselves(start: Callable[..., Running]) -> None:
    for name, value in [("minimum_confidence", 2.0), ("seed_labels", [3]), ("dicom_port", 70000),
                        ("detector_spacing", [0.3])]:
        with pytest.raises(UsxError, match=name):
            start(**{name: value})
        rclpy.try_shutdown()
    running = start()
    (result,) = running.node.set_parameters([Parameter("body_point_spacing", value=99.0)])
    assert not result.successful and "body_point_spacing" in result.reason
    (result,) = running.node.set_parameters([Parameter("watch_folder", value="/tmp")])
    assert not result.successful and "watch_folder" in result.reason
