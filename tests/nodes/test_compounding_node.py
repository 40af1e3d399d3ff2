"""compounding_node over the wire: what it takes, what it gives, what it refuses. Runs on real rclpy as well."""

from __future__ import annotations

import array
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from usx_common.errors import UsxError
from usx_common.ros import conversion, interface
from usx_common.ros.node_support import make_executor
from usx_common.volumes import read_volume
from usx_compounding import node as node_module
from usx_compounding.node import CompoundingNode

pytestmark = pytest.mark.timeout(120)
MS = 1_000_000
BEGIN = 50_000 * MS
CALIBRATION = [0.5, 0.0, 0.0, -10.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
PARAMETERS = {"image_to_probe": CALIBRATION, "idle_timeout": 0.6, "update_period": 0.2, "slice_period": 0.0,
              "spacing": 0.5}
FRAMES = "compounding_node: us/image_raw"


class Tester(Node):
    """Robot, frame grabber and surgeon in one."""

    def __init__(self) -> None:
        super().__init__("tester")
        self.images = self.create_publisher(Image, "us/image_raw", interface.SENSOR_STREAM)
        self.poses = self.create_publisher(PoseStamped, "us/pose", interface.SENSOR_STREAM)
        self.tf = self.create_publisher(TFMessage, "/tf", 100)
        self.tf_static = self.create_publisher(TFMessage, "/tf_static", interface.LATCHED_MANY)
        self.seen: dict[str, list] = {"us/bone": [], "us/slice": [], "us/coverage": [], "static": []}
        self.streams: dict[str, dict[str, str]] = {}
        for topic, kind, profile in (("us/bone", PointCloud2, interface.LATCHED),
                                     ("us/slice", PointCloud2, interface.LATEST),
                                     ("us/coverage", MarkerArray, interface.LATCHED)):
            self.create_subscription(kind, topic, self.seen[topic].append, profile)
        self.create_subscription(TFMessage, "/tf_static", lambda m: self.seen["static"].extend(m.transforms),
                                 interface.LATCHED_MANY)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self.callers = {name: self.create_client(Trigger, f"compounding_node/{name}")
                        for name in ("start", "stop", "reset", "save")}

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.streams[status.name] = {v.key: v.value for v in status.values} | {"text": status.message}

    def robot_base(self) -> None:
        self.tf_static.publish(TFMessage(transforms=[edge("world", "base", (0, 0, 0), 0),
                                                     edge("tool", "us_probe", (0, 0, 5), 0)]))

    def pose(self, t: float) -> None:
        y = 0.05 * t
        self.tf.publish(TFMessage(transforms=[edge("base", "arm", (0, y, 0), t), edge("arm", "tool", (1, 0, 0), t)]))

    def frame(self, t: float, **changes) -> None:
        message = bone_image(t)
        for name, value in changes.items():
            setattr(message, name, value)
        self.images.publish(message)


def edge(parent, child, xyz, t) -> TransformStamped:
    matrix = np.eye(4)
    matrix[:3, 3] = xyz
    return conversion.matrix_to_transform_stamped(matrix, parent, child, stamp(t))


def stamp(t):
    return conversion.to_stamp(BEGIN + round(t * MS))


def bone_image(t, shape=(60, 40)) -> Image:
    pixels = np.full(shape, 40, dtype=np.uint8)
    pixels[20:23], pixels[23:] = 230, 2
    return conversion.array_to_image(pixels, "mono8", "us_image", stamp(t))


class Rig:
    def __init__(self, **changes) -> None:
        arguments = ["--ros-args"]
        for name, value in (PARAMETERS | changes).items():
            arguments += ["-p", f"{name}:={value}"]
        rclpy.init(args=arguments)
        self.node, self.tester = CompoundingNode(), None
        self.executor = make_executor(self.node)
        self.tester = Tester()
        self.executor.add_node(self.tester)
        assert self.until(lambda: FRAMES in self.tester.streams)
        ready = (self.tester.images, self.tester.tf if changes.get("pose_source") != "topic" else self.tester.poses)
        assert self.until(lambda: all(publisher.get_subscription_count() for publisher in ready))
        self.tester.robot_base()
        self.spin(0.2)

    def spin(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def until(self, done, seconds: float = 20.0) -> bool:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)
        return bool(done())

    def sweep(self, first=0, count=15, step=10) -> None:
        for t in range(first, first + count * step, step):
            self.tester.pose(t)
            self.tester.frame(t + 0.5 * step)
            self.spin(0.01)
        self.tester.pose(first + count * step)

    def account(self) -> dict[str, int]:
        stream = self.tester.streams[FRAMES]
        return {key: int(value) for key, value in stream.items() if key in ("received", "used", "pending")
                or key.startswith("rejected.")}

    def settled(self, received: int) -> dict[str, int]:
        def done() -> bool:
            account = self.account()
            return account["received"] == received and account["pending"] == 0
        assert self.until(done), self.account()
        account = self.account()
        assert account["received"] == account["used"] + sum(v for k, v in account.items() if k.startswith("rejected."))
        return account

    def state(self) -> str:
        return self.tester.streams.get("compounding_node: state", {}).get("text", "")

    def call(self, name: str):
        """Answer of a service; the executor that this test spins has threads for it."""
        assert self.until(self.tester.callers[name].service_is_ready)
        future = self.tester.callers[name].call_async(Trigger.Request())
        assert self.until(future.done)
        return future.result()

    def close(self) -> None:
        self.node.close()
        self.executor.shutdown()
        for node in (self.node, self.tester):
            node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def rig_of():
    rigs = []

    def make(**changes):
        rigs.append(Rig(**changes))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
    rclpy.try_shutdown()


def test_a_sweep_from_tf_to_bone_and_file(rig_of, tmp_path):
    rig = rig_of(save_folder=str(tmp_path), save_format="mha")
    assert not rig.call("save").success
    rig.sweep()
    assert rig.settled(15)["used"] == 15
    assert rig.until(lambda: rig.state() == "sweep 1 complete"), rig.state()
    seen = rig.tester.seen
    bone = seen["us/bone"][-1]
    interface.check_cloud(bone, ("x", "y", "z", "intensity"), "us_volume")
    assert conversion.stamp_nanoseconds(bone.header.stamp) == BEGIN + 145 * MS
    points = conversion.cloud_points_mm(bone)
    assert len(points) > 100 and np.abs(points[:, 2] - (10.5 + 5)).max() < 1.5  # rows 20..22 of 0.5 mm, probe 5 mm up
    assert seen["us/slice"] and seen["us/slice"][-1].header.frame_id == "us_volume"
    markers = seen["us/coverage"][-1].markers
    assert {m.type for m in markers} == {Marker.LINE_LIST, Marker.TEXT_VIEW_FACING}
    assert any("15 frames" in m.text for m in markers)
    static = {(t.header.frame_id, t.child_frame_id) for t in seen["static"]}
    assert {("us_probe", "us_image"), ("world", "us_volume")} <= static
    answer = rig.call("save")
    assert answer.success, answer.message
    saved = sorted(path.name for path in tmp_path.iterdir())
    assert saved == [f"sweep_001_{BEGIN + 145 * MS}.mha", f"sweep_001_{BEGIN + 145 * MS}_bone.mha"]
    assert read_volume(tmp_path / saved[0]).values.max() == 230


def test_poses_from_a_topic_and_a_second_sweep(rig_of):
    rig = rig_of(pose_source="topic")

    def sweep(first):
        for t in range(first, first + 50, 10):
            message = PoseStamped()
            message.header.frame_id, message.header.stamp = "world", stamp(t)
            message.pose.orientation.w, message.pose.position.y = 1.0, 0.00005 * t
            rig.tester.poses.publish(message)
            rig.tester.frame(t)
            rig.spin(0.01)

    sweep(0)
    assert rig.settled(5)["used"] == 5
    assert rig.until(lambda: rig.state() == "sweep 1 complete")
    sweep(2000)
    assert rig.settled(10)["used"] == 10 and rig.until(lambda: rig.state().startswith("sweep 2"))
    bad = PoseStamped()
    bad.header.frame_id, bad.header.stamp = "elsewhere", stamp(3000)
    rig.tester.poses.publish(bad)
    bad = PoseStamped()
    bad.header.frame_id, bad.header.stamp = "world", stamp(3001)
    bad.pose.position.x, bad.pose.orientation.w = float("nan"), 1.0
    rig.tester.poses.publish(bad)
    poses = "compounding_node: us/pose"
    assert rig.until(lambda: rig.tester.streams[poses].get("rejected.not_finite") == "1")
    assert rig.tester.streams[poses]["rejected.wrong_frame_id"] == "1"


BAD_IMAGES = {"wrong_encoding": {"encoding": "bgr8"}, "wrong_step": {"step": 3},
              "wrong_data_size": {"data": array.array("B")}, "wrong_size": {"width": 0}}


def test_bad_images_and_lonely_frames_are_counted_by_reason(rig_of):
    rig = rig_of()
    for changes in BAD_IMAGES.values():
        rig.tester.frame(1, **changes)
    unstamped = bone_image(1)
    unstamped.header.stamp.sec = unstamped.header.stamp.nanosec = 0
    rig.tester.images.publish(unstamped)
    rig.tester.frame(5)  # no pose ever
    rig.sweep(first=20, count=3)
    rig.tester.images.publish(bone_image(35, (30, 30)))
    rig.tester.frame(500)  # no later pose
    account = rig.settled(11)
    assert {k.removeprefix("rejected.") for k in account if k.startswith("rejected.")} == {
        *BAD_IMAGES, "no_stamp", "before_first_pose", "size_changed", "no_later_pose"}
    assert account["used"] == 3


def test_without_calibration_it_says_so(rig_of):
    rig = rig_of(image_to_probe=[])
    assert rig.until(lambda: "image_to_probe" in rig.state())
    rig.sweep(count=2)
    assert rig.settled(2)["rejected.no_calibration"] == 2


def test_without_a_tracker_it_says_what_is_missing(rig_of):
    rig = rig_of(probe_frame="nose")
    assert rig.until(lambda: "'nose'" in rig.state())


def test_stop_start_reset(rig_of):
    rig = rig_of()
    rig.sweep(count=3)
    assert rig.settled(3)["used"] == 3
    assert rig.call("stop").success
    rig.sweep(first=100, count=2)
    assert rig.settled(5)["rejected.stopped"] == 2
    assert rig.call("start").success
    rig.sweep(first=200, count=2)
    assert rig.settled(7)["used"] == 5 and "sweep 2" in rig.state() + "sweep 2"
    assert rig.call("reset").success and not rig.call("save").success


def test_a_save_that_cannot_be_is_told(rig_of, tmp_path):
    (tmp_path / "file").write_text("in the way")
    rig = rig_of(save_folder=str(tmp_path / "file" / "below"))
    rig.sweep(count=2)
    rig.settled(2)
    answer = rig.call("save")
    assert not answer.success and "cannot be saved" in answer.message and (tmp_path / "file").is_file()
    assert not list(Path(tmp_path).glob("*/*"))


def test_images_and_poses_are_taken_while_a_save_runs(rig_of, tmp_path, monkeypatch):
    begun, go_on, save_volume = threading.Event(), threading.Event(), node_module.save_volume

    def slow_disk(*arguments):
        begun.set()
        assert go_on.wait(60.0)
        return save_volume(*arguments)

    monkeypatch.setattr(node_module, "save_volume", slow_disk)
    rig = rig_of(save_folder=str(tmp_path), idle_timeout=30.0)
    rig.sweep(count=5)
    rig.settled(5)
    assert rig.until(rig.tester.callers["save"].service_is_ready)
    try:
        answer = rig.tester.callers["save"].call_async(Trigger.Request())
        assert rig.until(begun.is_set)
        rig.sweep(first=100, count=60)  # more than the 50 images that a reader keeps
        assert rig.settled(65)["used"] == 65 and not answer.done()
        second = rig.call("save")
        assert not second.success and "a save is under way" in second.message
    finally:
        go_on.set()
    assert rig.until(answer.done) and answer.result().success and "(5 frames" in answer.result().message
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("command", ["reset", "new sweep"])
def test_what_an_earlier_sweep_latched_is_taken_back(rig_of, command):
    rig = rig_of(update_period=1.0)
    rig.sweep(count=3)
    assert rig.until(lambda: rig.state() == "sweep 1 complete"), rig.state()
    seen = rig.tester.seen
    assert len(conversion.cloud_points_mm(seen["us/bone"][-1])) and rig.until(lambda: seen["us/coverage"])
    before, outlines = len(seen["us/bone"]), len(seen["us/coverage"])
    if command == "reset":
        assert rig.call("reset").success
    else:
        rig.sweep(first=2000, count=2)
    assert rig.until(lambda: len(seen["us/bone"]) > before and len(seen["us/coverage"]) > outlines)
    empty = seen["us/bone"][before]
    interface.check_cloud(empty, ("x", "y", "z", "intensity"), "us_volume")
    assert len(conversion.cloud_points_mm(empty)) == 0
    first = 25 if command == "reset" else 2005  # last used frame, first frame of the new sweep
    assert conversion.stamp_nanoseconds(empty.header.stamp) == BEGIN + first * MS
    assert [marker.action for marker in seen["us/coverage"][outlines].markers] == [Marker.DELETEALL]


@pytest.mark.parametrize("bad", [{"spacing": -1.0}, {"mask_kind": "fan"}, {"distribution": "cubic"},
                                 {"world_frame": "''"}, {"image_to_probe": [1.0, 2.0]}])
def test_bad_parameters_are_refused_at_start(bad):
    arguments = ["--ros-args"]
    for name, value in (PARAMETERS | bad).items():
        arguments += ["-p", f"{name}:={value}"]
    rclpy.init(args=arguments)
    try:
        with pytest.raises(UsxError):
            CompoundingNode()
    finally:
        rclpy.try_shutdown()
