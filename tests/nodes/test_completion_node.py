"""completion_node over the wire: its answer, newest-wins, refusals and counters, saving."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time as Stamp
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import read_mesh
from usx_common.ros import conversion, interface
from usx_common.transforms import identity
from usx_completion import output
from usx_completion.node import CompletionNode
from usx_completion.parameters import WEIGHTS
from usx_completion.placement import usual_step
from usx_completion.shape_model import PACKAGED, load_shape_model
from usx_completion.simulated_partial import PartialCloud, simulate_partial


class Bench:
    """The node under test and a peer that plays registration_node and the viewers."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        words = ["--ros-args", *(w for name, value in parameters.items() for w in ("-p", f"{name}:={value}"))]
        rclpy.init(args=words)
        self.node = CompletionNode()
        self.peer = Node("peer")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.peer)
        self.clouds: list[PointCloud2] = []
        self.meshes: list[MarkerArray] = []
        self.texts: list[MarkerArray] = []
        self.statuses: dict[str, Any] = {}
        self.peer.create_subscription(PointCloud2, "spine/completed", self.clouds.append, interface.LATCHED)
        self.peer.create_subscription(MarkerArray, "spine/meshes", self.meshes.append, interface.LATCHED)
        self.peer.create_subscription(MarkerArray, "spine/labels", self.texts.append, interface.LATCHED)
        self.peer.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.publisher = self.peer.create_publisher(PointCloud2, "spine/partial", interface.LATCHED)
        self.save = self.peer.create_client(Trigger, "completion_node/save")
        assert self.wait(lambda: self.publisher.get_subscription_count() > 0, 20.0)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.statuses |= {status.name: status for status in message.status}

    def wait(self, done: Callable[[], bool], seconds: float = 60.0) -> bool:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
        return done()

    def send(self, message: PointCloud2) -> None:
        self.publisher.publish(message)

    def account(self) -> dict[str, int]:
        status = self.statuses.get("completion_node: spine/partial")
        names = ("received", "used", "pending", "rejected")
        return {v.key: int(v.value) for v in status.values if v.key.startswith(names)} if status else {}

    def settled(self, count: int) -> bool:
        return self.account().get("received") == count and self.account().get("pending") == 0

    def state(self) -> str:
        status = self.statuses.get("completion_node: state")
        return status.message if status else ""

    def close(self) -> None:
        self.node.close()
        self.node.destroy_node()
        self.peer.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**parameters: Any) -> Bench:
        made.append(Bench(parameters))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def partial() -> PartialCloud:
    """Partial cloud of a stack of mean vertebrae: quick to make, and its truth is known."""
    model = load_shape_model()[0]
    pose, meshes = identity(), {}
    for index, level in enumerate(LEVELS):
        meshes[level] = model.instance(level, np.array([1.0, -0.8])).transformed(pose)
        if index + 1 < len(LEVELS):
            pose = pose @ usual_step(model, index)
    return simulate_partial(meshes)


def message(partial: PartialCloud, seconds: int, frame: str = "spine", **changed: Any) -> PointCloud2:
    fields = {"points": partial.points, "label": partial.labels, "source": partial.sources, **changed}
    points = fields.pop("points")
    return conversion.fields_to_cloud(points, frame, Stamp(sec=seconds), **fields)


@pytest.mark.parametrize("method", ["shape_model", "usx"])
def test_a_partial_spine_is_answered_with_cloud_meshes_and_labels_of_its_stamp(bench, partial, tmp_path, method):
    b = bench(method=method, save_folder=str(tmp_path / "meshes"))
    b.send(message(partial, 5))
    assert b.wait(lambda: bool(b.clouds and b.meshes and b.texts))
    cloud = b.clouds[-1]
    assert cloud.header.stamp.sec == 5 and cloud.header.frame_id == "spine"
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "label", "sigma"]
    fields = conversion.cloud_to_fields(cloud)
    assert set(fields["label"]) == {20, 21, 22, 23, 24} and 0 < fields["sigma"].max() < 0.02
    triangles = [m for m in b.meshes[-1].markers if m.type == Marker.TRIANGLE_LIST and m.action == Marker.ADD]
    assert [m.ns for m in triangles] == list(LEVELS)
    assert all(len(m.points) % 3 == 0 and m.header.stamp.sec == 5 for m in triangles)
    assert len({(m.color.r, m.color.g, m.color.b) for m in triangles}) == 5
    assert [m.text[:2] for m in b.texts[-1].markers if m.type == Marker.TEXT_VIEW_FACING] == list(LEVELS)
    assert b.wait(lambda: b.settled(1) and "completed L1" in b.state())

    future = b.save.call_async(Trigger.Request())
    assert b.wait(future.done) and future.result().success
    assert read_mesh(tmp_path / "meshes" / "L5.ply").is_watertight


@pytest.mark.parametrize("method", ["shape_model", "usx"])
def test_bad_clouds_are_counted_by_reason_and_the_node_lives_on(bench, partial, method):
    b = bench(method=method)
    count = len(partial.points)
    line = np.column_stack([np.zeros(count), np.zeros(count), np.linspace(-90, 90, count)])
    bad = {
        "empty": message(PartialCloud(np.empty((0, 3)), np.empty(0), np.empty(0)), 1),
        "too_few_points": message(PartialCloud(partial.points[:1], partial.labels[:1], partial.sources[:1]), 2),
        "no_extent": message(partial, 3, points=line),
        "wrong_frame_id": message(partial, 4, frame="world"),
        "unknown_label": message(partial, 5, label=partial.labels + 30),
        "unknown_source": message(partial, 6, source=partial.sources + 5),
        "missing_field": conversion.fields_to_cloud(partial.points, "spine", Stamp(sec=7)),
        "no_stamp": message(partial, 0),
    }
    nothing = message(partial, 8, points=np.full_like(partial.points, np.nan))
    for number, one in enumerate([*bad.values(), nothing]):
        b.send(one)
        assert b.wait(lambda seen=number: b.settled(seen + 1), 20.0)
    assert b.account()["rejected.too_few_points"] == 2
    assert all(b.account()[f"rejected.{reason}"] >= 1 for reason in bad)
    assert b.account()["used"] == 0 and not b.clouds

    b.send(message(partial, 9))
    assert b.wait(lambda: bool(b.clouds))
    assert b.wait(lambda: "completed L1" in b.state())
    b.send(message(partial, 9))
    assert b.wait(lambda: b.account().get("rejected.duplicate") == 1, 20.0)
    b.node._diagnostics.publish()
    assert b.wait(lambda: b.settled(11)) and "completed L1" in b.state()  # the good answer still stands

    no_folder = b.save.call_async(Trigger.Request())
    assert b.wait(no_folder.done)
    assert not no_folder.result().success and "save_folder" in no_folder.result().message


def test_what_is_said_of_a_good_answer_comes_back_with_it(bench, partial):
    b = bench()
    b.send(message(partial, 5))
    assert b.wait(lambda: b.settled(1) and "completed L1" in b.state())
    b.send(message(partial, 6, label=partial.labels + 30))
    assert b.wait(lambda: b.settled(2) and "refused" in b.state())
    b.send(message(partial, 5))
    assert b.wait(lambda: b.settled(3) and "completed L1" in b.state())
    assert b.account()["rejected.duplicate"] == 1 and b.account()["used"] == 1


def test_rows_that_are_dropped_may_hold_anything(bench, partial):
    b = bench()
    points, label = partial.points.copy(), partial.labels.astype(float)
    points[7], label[7] = np.nan, np.nan
    b.send(message(partial, 5, points=points, label=label))
    assert b.wait(lambda: b.settled(1) and "completed L1" in b.state())
    assert b.account() == {"received": 1, "used": 1, "pending": 0}


def test_an_answer_that_is_late_for_the_end_is_counted_and_not_published(bench, partial, monkeypatch):
    b = bench()
    complete = b.node._method.complete

    def late(*arguments):
        result = complete(*arguments)
        b.node._closed = True
        return result

    monkeypatch.setattr(b.node._method, "complete", late)
    b.send(message(partial, 5))
    assert b.wait(lambda: b.settled(1))
    assert b.account() == {"received": 1, "used": 0, "pending": 0, "rejected.closed": 1} and not b.clouds


@pytest.mark.parametrize("stage", ["completed_cloud", "describe"])
def test_what_failed_is_counted_once_and_may_come_again(bench, partial, monkeypatch, stage):
    b = bench()
    with monkeypatch.context() as patch:
        patch.setattr(output, stage, lambda completion: 1 / 0)
        b.send(message(partial, 5))
        assert b.wait(lambda: "division by zero" in b.state() and b.settled(1))
    assert b.account() == {"received": 1, "used": 0, "pending": 0, "rejected.failed": 1}
    b.send(message(partial, 5))
    assert b.wait(lambda: b.settled(2) and b.account()["used"] == 1)


@pytest.mark.parametrize("method", ["shape_model", "usx"])
def test_the_newest_partial_wins_and_gives_the_answer_it_would_give_alone(bench, partial, method):
    alone = bench(method=method)
    alone.send(message(partial, 30))
    assert alone.wait(lambda: bool(alone.clouds))
    expected = bytes(alone.clouds[-1].data)
    alone.close()

    b = bench(method=method)
    for second in range(1, 8):
        keep = np.arange(len(partial.points)) % (second + 2) != 0
        b.send(message(PartialCloud(partial.points[keep], partial.labels[keep], partial.sources[keep]), second))
        b.wait(lambda: False, 0.1)  # let it arrive: a latched topic keeps only the last
    b.send(message(partial, 30))
    assert b.wait(lambda: bool(b.clouds) and b.clouds[-1].header.stamp.sec == 30)
    assert b.wait(lambda: b.account().get("received", 0) > 1 and b.account()["pending"] == 0)
    account = b.account()
    assert account["rejected.superseded"] >= 1
    assert account["received"] == account["used"] + account["rejected.superseded"]
    assert bytes(b.clouds[-1].data) == expected


@pytest.mark.parametrize("method", ["shape_model", "usx"])
def test_without_an_xray_and_without_five_processes_it_says_why(bench, partial, method):
    b = bench(method=method)
    keep = (partial.sources == 0) & (partial.points[:, 2] > np.median(partial.points[:, 2]))
    some = PartialCloud(partial.points[keep], np.zeros(keep.sum()), partial.sources[keep])
    b.send(message(some, 3))
    assert b.wait(lambda: "cannot be told" in b.state())
    assert b.account()["used"] == 1
    assert b.clouds[-1].width * b.clouds[-1].height == 0


def test_corrupt_weights_and_bad_parameters_are_refused_at_start(tmp_path):
    (tmp_path / PACKAGED.name).write_bytes(PACKAGED.read_bytes()[:1000])
    (tmp_path / WEIGHTS.name).write_bytes(WEIGHTS.read_bytes()[:-4] + b"none")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / WEIGHTS.name).write_bytes(PACKAGED.read_bytes())
    for parameters, words in (({"method": "shape_model", "model_folder": str(tmp_path)}, "cannot be read"),
                              ({"method": "shape_model", "model_folder": str(tmp_path / "none")}, "does not exist"),
                              ({"model_folder": str(tmp_path / "none")}, "do not exist"),
                              ({"model_folder": str(tmp_path)}, "SHA-256"),
                              ({"model_folder": str(foreign)}, "is needed"), ({"device": "tpu"}, "device"),
                              ({"voxel_size": "0.1"}, "voxel_size"), ({"method": "magic"}, "method")):
        rclpy.init(args=["--ros-args", *(w for n, v in parameters.items() for w in ("-p", f"{n}:={v}"))])
        try:
            with pytest.raises(UsxError, match=words):
                CompletionNode()
        finally:
            rclpy.try_shutdown()
