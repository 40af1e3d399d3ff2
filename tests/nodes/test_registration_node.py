"""registration_node over the wire: what it publishes for which inputs, its counters, and its words when it refuses."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time as Stamp
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from tf2_msgs.msg import TFMessage
from tf2_ros import StaticTransformBroadcaster

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.ros import conversion, interface
from usx_registration import report
from usx_registration.node import RegistrationNode

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from spine_scene import as_ultrasound, phantom_scene

LPS_IN_WORLD = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # rows: world x y z; prone patient
CBCT_TO_WORLD = transforms.make_transform(LPS_IN_WORLD, [500.0, 20.0, 130.0])
GUESS = CBCT_TO_WORLD @ transforms.make_transform(transforms.rotation_about_axis([1, 1, 0], 0.04), [3.0, -2.0, 3.0])
WORLD_TO_VOLUME = transforms.make_transform(np.eye(3), [-450.0, 40.0, -60.0])
XRAY_TO_CBCT = transforms.make_transform(np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
                                         [-700.0, 20.0, 0.0])
PATIENT = {"patient_cranial_axis": [0.0, 1.0, 0.0], "patient_posterior_axis": [0.0, 0.0, 1.0]}
DEVICE = {**PATIENT, "cbct_to_world": GUESS.ravel().tolist(), "xray_to_cbct": XRAY_TO_CBCT.ravel().tolist()}


def arguments(parameters: dict[str, Any]) -> list[str]:
    words = ["--ros-args"]
    for name, value in parameters.items():
        words += ["-p", f"{name}:={value}"]
    return words


class Bench:
    """The node under test and a peer that plays the other nodes."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        rclpy.init(args=arguments(parameters))
        self.node = RegistrationNode()
        self.peer = Node("peer")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.peer)
        self.partial: list[PointCloud2] = []
        self.edges: dict[str, tuple[str, np.ndarray]] = {}
        self.statuses: dict[str, Any] = {}
        self.peer.create_subscription(PointCloud2, "spine/partial", self.partial.append, interface.LATCHED)
        self.peer.create_subscription(TFMessage, "/tf_static", self._on_tf, interface.LATCHED)
        self.peer.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.publishers = {topic: self.peer.create_publisher(PointCloud2, topic, interface.LATCHED)
                           for topic in ("us/bone", "xray/bodies", "cbct/bone")}
        self._broadcaster = StaticTransformBroadcaster(self.peer)

    def _on_tf(self, message: TFMessage) -> None:
        for t in message.transforms:
            self.edges[t.child_frame_id] = (t.header.frame_id, conversion.transform_to_matrix(t.transform))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.statuses[status.name] = status

    def place_volume(self) -> None:
        self._broadcaster.sendTransform(conversion.matrix_to_transform_stamped(
            transforms.invert(WORLD_TO_VOLUME), "world", "us_volume", Stamp(sec=1)))

    def send(self, topic: str, points: np.ndarray, frame: str, seconds: int, **fields: np.ndarray) -> None:
        self.publishers[topic].publish(conversion.fields_to_cloud(points, frame, Stamp(sec=seconds), **fields))

    def wait(self, done: Callable[[], bool], seconds: float = 90.0) -> bool:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
        return done()

    def account(self, topic: str) -> dict[str, int]:
        """Counters of a stream, as /diagnostics tells them."""
        status = self.statuses.get(f"registration_node: {topic}")
        names = ("received", "used", "pending", "rejected")
        return {v.key: int(v.value) for v in status.values if v.key.startswith(names)} if status else {}

    def says(self, words: str) -> bool:
        status = self.statuses.get("registration_node: state")
        return status is not None and words in status.message

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
def bone() -> np.ndarray:
    points = as_ultrasound(phantom_scene().bone, 4000, noise=0.5, outliers=0.1, seed=1)
    return transforms.apply(WORLD_TO_VOLUME @ CBCT_TO_WORLD, points)


def stamps(bench: Bench) -> list[int]:
    return [message.header.stamp.sec for message in bench.partial]


def settled(bench: Bench, topic: str, count: int) -> bool:
    account = bench.account(topic)
    return account.get("received") == count and account.get("pending") == 0


def test_a_sweep_with_device_cbct_and_xray(bench: Callable[..., Bench], bone: np.ndarray) -> None:
    scene, run = phantom_scene(), bench(**DEVICE)
    run.place_volume()
    run.send("cbct/bone", scene.cbct, "cbct", 3)
    film = transforms.apply(transforms.invert(XRAY_TO_CBCT), scene.bodies)
    run.send("xray/bodies", film, "xray", 4, label=scene.body_labels)
    assert run.wait(lambda: settled(run, "cbct/bone", 1) and settled(run, "xray/bodies", 1))
    for second, share in ((10, 0.15), (11, 0.7), (12, 0.9), (13, 1.0)):
        run.send("us/bone", bone[bone[:, 1] <= np.quantile(bone[:, 1], share)], "us_volume", second)
        run.wait(lambda: False, 0.2)
    assert run.wait(lambda: 13 in stamps(run))  # the last update is answered whatever came before it
    assert run.wait(lambda: settled(run, "us/bone", 4))
    account = run.account("us/bone")
    assert account["received"] == account["used"] + sum(n for name, n in account.items() if name.startswith("rejected"))
    last = run.partial[-1]
    interface.check_cloud(last, ("x", "y", "z", "label", "source"), "spine")
    fields = conversion.cloud_to_fields(last)
    assert set(np.unique(fields["label"])) <= {0, 20, 21, 22, 23, 24}
    assert np.sum(fields["source"] == 1) == len(film) and np.sum(fields["source"] == 0) == len(bone)
    assert {child: parent for child, (parent, _) in run.edges.items()} == {
        "us_volume": "world", "cbct": "us_volume", "xray": "cbct", "spine": "us_volume",
        **{f"vertebra_L{i}": "spine" for i in range(1, 6)}}
    found, truth = run.edges["cbct"][1], WORLD_TO_VOLUME @ CBCT_TO_WORLD
    assert np.linalg.norm(transforms.apply(found, scene.centres) - transforms.apply(truth, scene.centres),
                          axis=1).max() < 1.0
    assert run.says("CBCT registered to ultrasound; levels L1, L2, L3, L4, L5")


def test_ultrasound_alone_then_an_xray_comes_late(bench: Callable[..., Bench], bone: np.ndarray) -> None:
    scene, run = phantom_scene(), bench(**PATIENT)
    run.place_volume()
    run.send("us/bone", bone, "us_volume", 20)
    assert run.wait(lambda: stamps(run) == [20])
    assert not conversion.cloud_to_fields(run.partial[0])["label"].any()
    assert run.says("no X-ray") or run.wait(lambda: run.says("no X-ray"))
    film = transforms.apply(transforms.invert(XRAY_TO_CBCT), scene.bodies)
    run.send("xray/bodies", film, "xray", 4, label=scene.body_labels)
    assert run.wait(lambda: stamps(run) == [20, 20])  # the same bone again, now with levels
    assert conversion.cloud_to_fields(run.partial[1])["label"].any()
    assert run.wait(lambda: settled(run, "us/bone", 1)) and run.account("us/bone")["used"] == 1
    assert run.wait(lambda: run.edges.get("xray", ("", None))[0] == "us_volume")


def test_refusals_are_counted_and_told(bench: Callable[..., Bench], bone: np.ndarray) -> None:
    run = bench(**PATIENT)
    run.place_volume()
    run.send("us/bone", bone, "world", 1)
    assert run.wait(lambda: settled(run, "us/bone", 1))
    run.send("us/bone", bone[:100], "us_volume", 2)
    assert run.wait(lambda: settled(run, "us/bone", 2))
    run.send("us/bone", np.full((10, 3), np.nan), "us_volume", 3)
    assert run.wait(lambda: settled(run, "us/bone", 3))
    run.send("xray/bodies", bone[:10], "xray", 3)
    run.send("cbct/bone", bone[:10], "", 3)
    assert run.wait(lambda: settled(run, "xray/bodies", 1) and settled(run, "cbct/bone", 1))
    assert run.account("us/bone") == {"received": 3, "used": 0, "pending": 0, "rejected.wrong_frame_id": 1,
                                      "rejected.too_few_points": 2}
    assert run.account("xray/bodies")["rejected.missing_field"] == 1
    assert run.account("cbct/bone")["rejected.no_frame_id"] == 1
    assert run.says("refused (too_few_points): 0 ultrasound bone points, 300 are needed")
    assert not run.partial and "spine" not in run.edges


def test_an_empty_cloud_begins_a_new_sweep(bench: Callable[..., Bench], bone: np.ndarray) -> None:
    run = bench(**PATIENT)
    run.place_volume()
    run.send("us/bone", bone, "us_volume", 20)
    assert run.wait(lambda: stamps(run) == [20] and "spine" in run.edges)
    before = run.edges["spine"][1]
    # Straight to the callback, so that no time passes between both: the empty one must not be replaced unseen.
    part = bone[bone[:, 1] >= np.quantile(bone[:, 1], 0.3)]
    for second, points in ((21, np.empty((0, 3))), (22, part)):
        run.node._on_bone(conversion.fields_to_cloud(points, "us_volume", Stamp(sec=second)))
    assert run.wait(lambda: stamps(run) == [20, 22] and settled(run, "us/bone", 3))
    assert run.account("us/bone") == {"received": 3, "used": 2, "pending": 0, "rejected.empty": 1}
    assert run.wait(lambda: np.linalg.norm(run.edges["spine"][1][:3, 3] - before[:3, 3]) > 10.0)


def test_after_an_empty_cloud_the_old_bone_is_not_worked_on_again(bench: Callable[..., Bench],
                                                                  bone: np.ndarray) -> None:
    run = bench(**PATIENT)
    run.place_volume()
    run.send("us/bone", bone, "us_volume", 20)
    assert run.wait(lambda: stamps(run) == [20])
    run.send("us/bone", np.empty((0, 3)), "us_volume", 21)
    assert run.wait(lambda: run.account("us/bone").get("rejected.empty") == 1)
    run.send("cbct/bone", bone, "cbct", 22)
    assert run.wait(lambda: settled(run, "cbct/bone", 1))
    assert run.node._worker.flush(30.0)
    assert not run.wait(lambda: len(run.partial) > 1, 0.5)


def test_empty_bodies_withdraw_the_old_ones(bench: Callable[..., Bench], bone: np.ndarray) -> None:
    scene, run = phantom_scene(), bench(**PATIENT)
    run.place_volume()
    film = transforms.apply(transforms.invert(XRAY_TO_CBCT), scene.bodies)
    run.send("xray/bodies", film, "xray", 4, label=scene.body_labels)
    assert run.wait(lambda: settled(run, "xray/bodies", 1))
    run.send("us/bone", bone, "us_volume", 20)
    assert run.wait(lambda: stamps(run) == [20]) and conversion.cloud_to_fields(run.partial[0])["label"].any()
    run.send("xray/bodies", np.empty((0, 3)), "xray", 5, label=np.empty(0))
    assert run.wait(lambda: stamps(run) == [20, 20])
    fields = conversion.cloud_to_fields(run.partial[1])
    assert not fields["label"].any() and not fields["source"].any()
    assert run.wait(lambda: settled(run, "xray/bodies", 2)) and run.account("xray/bodies")["used"] == 2
    assert run.wait(lambda: run.says("no X-ray"))


def test_an_exception_while_a_message_is_taken_does_not_end_the_node(bench: Callable[..., Bench], bone: np.ndarray,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench(**PATIENT)
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "cloud_points_mm", lambda message: 1 / 0)
        run.send("cbct/bone", bone, "cbct", 3)
        run.send("xray/bodies", bone, "xray", 3, label=np.full(len(bone), 21.0))
        assert run.wait(lambda: settled(run, "cbct/bone", 1) and settled(run, "xray/bodies", 1))
    for topic in ("cbct/bone", "xray/bodies"):
        assert run.account(topic) == {"received": 1, "used": 0, "pending": 0, "rejected.internal_error": 1}


def test_an_exception_after_the_result_is_counted_once(bench: Callable[..., Bench], bone: np.ndarray,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench(**PATIENT)
    run.place_volume()
    monkeypatch.setattr(report, "sentence", lambda outcome: 1 / 0)
    run.send("us/bone", bone, "us_volume", 20)
    assert run.wait(lambda: run.says("failed unexpectedly"))
    assert run.wait(lambda: settled(run, "us/bone", 1))
    assert run.account("us/bone") == {"received": 1, "used": 0, "pending": 0, "rejected.internal_error": 1}


def test_without_patient_axes_it_says_what_to_set(bench: Callable[..., Bench], bone: np.ndarray) -> None:
    run = bench()
    run.send("us/bone", bone, "us_volume", 2)
    assert run.wait(lambda: run.says("refused (no_patient_axes)") and run.says("set both parameters"))
    assert not run.partial and not run.edges


@pytest.mark.parametrize(("parameters", "words"), [
    ({"xray_placement": "guess"}, "xray_placement"),
    ({"min_extent": -5.0}, "min_extent"),
    ({"cbct_to_world": [1.0, 2.0]}, "cbct_to_world"),
    ({"patient_cranial_axis": [0.0, 1.0, 0.0]}, "belong together"),
])
def test_bad_parameters_stop_it_at_start(parameters: dict[str, Any], words: str) -> None:
    rclpy.init(args=arguments(parameters))
    try:
        with pytest.raises(UsxError, match=words):
            RegistrationNode()
    finally:
        rclpy.try_shutdown()
