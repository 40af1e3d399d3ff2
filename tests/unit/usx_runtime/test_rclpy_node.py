"""What the embedded rclpy does beyond the shared API tests: restarts, bad bytes, warnings, services of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from usx_runtime import messages, rclpy
from usx_runtime.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from usx_runtime.rclpy.context import Context
from usx_runtime.rclpy.exceptions import ExternalShutdownException, NotInitializedException
from usx_runtime.rclpy.node import Node

STRING = messages.get_message("std_msgs/msg/String")
TRIGGER = messages.get_service("std_srvs/srv/Trigger")
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def node() -> Iterator[Node]:
    rclpy.init(args=[])
    made = Node("tester")
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


def spin_until(node: Node, done: Callable[[], Any], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.05)
    return bool(done())


def test_ros_starts_again_after_a_shutdown() -> None:
    for _ in range(3):
        rclpy.init(args=[])
        with pytest.raises(RuntimeError, match="once"):
            rclpy.init(args=[])
        with Node("again") as node:
            assert node.get_node_names() == ["again"]
        rclpy.shutdown()
        assert not rclpy.ok()
    with pytest.raises(RuntimeError):
        rclpy.shutdown()
    with pytest.raises(NotInitializedException):
        Node("late")


def test_a_node_after_a_shutdown_is_refused_like_a_spin() -> None:
    context = Context()
    context.init([])
    context.shutdown()
    with pytest.raises(ExternalShutdownException):
        Node("late", context=context)


def test_two_contexts_live_side_by_side(node: Node) -> None:
    with Context() as context:
        other = Node("other", context=context)
        assert spin_until(node, lambda: set(node.get_node_names()) == {"tester", "other"})
        other.destroy_node()
    assert spin_until(node, lambda: node.get_node_names() == ["tester"])


def test_foreign_bytes_are_dropped_and_logged(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    got: list[Any] = []
    node.create_subscription(STRING, "text", got.append, 10)
    raw = node.participant.create_writer("/text", "std_msgs/msg/String", QoSProfile(depth=10))
    assert spin_until(node, lambda: raw.matched() == 1)
    with pytest.raises(RuntimeError, match="could not write"):
        raw.write(b"\x00\x01\x00\x00\xff\xff\xff\x7fabcd")  # a string beyond the end: Cyclone looks at it, too
    for data in (messages.serialize(STRING(data="long")) + bytes(8), messages.serialize(STRING(data="good"))):
        raw.write(data)
    assert spin_until(node, lambda: got)
    assert [m.data for m in got] == ["good"]
    assert "/text: message dropped" in capfd.readouterr().err


def test_raw_messages_and_message_information(node: Node) -> None:
    raw: list[bytes] = []
    told: list[dict[str, int]] = []
    node.create_subscription(STRING, "text", raw.append, 10, raw=True)
    node.create_subscription(STRING, "text", lambda m, info: told.append(info), 10)
    publisher = node.create_publisher(STRING, "text", 10)
    assert spin_until(node, lambda: publisher.get_subscription_count() == 2)
    publisher.publish(messages.serialize(STRING(data="abc")))
    assert spin_until(node, lambda: raw and told)
    assert messages.deserialize(raw[0], STRING).data == "abc"
    assert abs(told[0]["received_timestamp"] - told[0]["source_timestamp"]) < 10 * 10**9


def test_incompatible_quality_is_warned_of(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    node.create_publisher(STRING, "text", BEST_EFFORT)
    node.create_subscription(STRING, "text", lambda _: None, 10)
    text = ""

    def warned() -> bool:
        nonlocal text
        text += capfd.readouterr().err
        return text.count("incompatible QoS") == 2

    assert spin_until(node, warned)
    assert "'/text', requesting" in text and "'/text', offering" in text


def test_unsupported_options_are_named(node: Node) -> None:
    with pytest.raises(NotImplementedError, match="event_callbacks"):
        node.create_publisher(STRING, "text", 1, event_callbacks=object())
    with pytest.raises(NotImplementedError, match="KEEP_ALL"):
        node.create_publisher(STRING, "text", QoSProfile(history=HistoryPolicy.KEEP_ALL))
    with pytest.raises(TypeError, match="no ROS message"):
        node.create_publisher(str, "text", 1)
    with pytest.raises(TypeError, match="not a message class"):
        node.create_publisher(TRIGGER, "text", 1)
    with pytest.raises(TypeError, match="qos_profile"):
        node.create_publisher(STRING, "text", "reliable")


def test_a_service_of_another_process_answers_every_call(node: Node) -> None:
    script = """
from usx_runtime import messages, rclpy
from usx_runtime.rclpy.node import Node
rclpy.init()
node, count = Node("server"), 0
def answer(request, response):
    global count
    count += 1
    response.success, response.message = True, str(count)
    return response
node.create_service(messages.get_service("std_srvs/srv/Trigger"), "count", answer)
try:
    rclpy.spin(node)
except BaseException:
    pass
"""
    server = subprocess.Popen([sys.executable, "-c", script], env=dict(os.environ))
    try:
        others = [node.create_client(TRIGGER, "count") for _ in range(3)]  # each must get its own answers only
        answers = []
        for number in range(30):
            client = others[number % 3]
            assert client.wait_for_service(timeout_sec=20.0)
            future = client.call_async(TRIGGER.Request())
            rclpy.spin_until_future_complete(node, future, timeout_sec=10.0)
            answers.append(future.result().message if future.done() else None)
        assert answers == [str(number) for number in range(1, 31)]
    finally:
        server.terminate()
        assert server.wait(20) == 0


def test_a_synchronous_call_times_out(node: Node) -> None:
    client = node.create_client(TRIGGER, "nowhere")
    with pytest.raises(TimeoutError, match="/nowhere"):
        client.call(TRIGGER.Request(), timeout_sec=0.05)
