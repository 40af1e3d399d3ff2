"""rclpy's manners as the usx nodes rely on them.

Nothing here knows of the embedded runtime: on a machine with ROS 2, `USX_ROS=real pytest tests/nodes` runs the same
tests on the real rclpy.
"""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time as TimeMessage
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, PoseStamped, Quaternion
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

HALF_SECOND = 500_000_000
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def ros() -> Iterator[None]:
    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()


@pytest.fixture
def node(ros: None) -> Iterator[Node]:
    made = Node("tester", namespace="/bench")
    yield made
    made.destroy_node()


def spin_until(node: Node, done: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.05)
    return done()


# messages


def test_messages_have_the_defaults_of_ros() -> None:
    pose = PoseStamped()
    assert (pose.pose.orientation.w, pose.pose.orientation.x, pose.header.frame_id) == (1.0, 0.0, "")
    assert list(CameraInfo().k) == [0.0] * 9 and CameraInfo().k.dtype == np.float64
    assert DiagnosticStatus().level == DiagnosticStatus.OK == b"\x00"
    assert Image().data == array.array("B")


@pytest.mark.parametrize(("message", "field", "value"), [
    (Point(), "x", 1),  # an int is no float
    (Point(), "x", "1.0"),
    (String(), "data", b"bytes"),
    (Image(), "height", -1),
    (Image(), "height", 2**32),
    (Image(), "height", 1.0),
    (Image(), "header", String()),
    (Image(), "data", [256]),
    (Image(), "data", "text"),
    (Image(), "data", array.array("H", [1])),
    (CameraInfo(), "k", [0.0] * 8),
    (CameraInfo(), "k", np.zeros(9, np.float32)),
    (DiagnosticStatus(), "level", 1),
    (PoseStamped(), "pose", Quaternion()),
])
def test_a_field_refuses_what_does_not_fit(message: object, field: str, value: object) -> None:
    with pytest.raises(AssertionError, match=field):
        setattr(message, field, value)


def test_a_constructor_refuses_an_unknown_field() -> None:
    with pytest.raises(AssertionError):
        Point(w=1.0)


@pytest.mark.parametrize(("message", "field", "value", "read"), [
    (CameraInfo(), "k", np.arange(9.0), list(range(9))),
    (CameraInfo(), "k", [1.0] * 9, [1.0] * 9),
    (CameraInfo(), "d", [1.0, 2.0], [1.0, 2.0]),
    (Image(), "data", array.array("B", b"ab"), [97, 98]),
    (Image(), "data", b"ab", [97, 98]),
])
def test_a_field_takes_the_containers_of_rclpy(message: object, field: str, value: object, read: list) -> None:
    setattr(message, field, value)
    assert list(getattr(message, field)) == read


# topics


def test_an_image_arrives_whole(node: Node) -> None:
    got: list[Image] = []
    node.create_subscription(Image, "image", got.append, 10)
    publisher = node.create_publisher(Image, "image", 10)
    pixels = np.arange(480 * 640, dtype=np.uint32).astype(np.uint8)
    sent = Image(height=480, width=640, encoding="mono8", step=640)
    sent.header.frame_id, sent.header.stamp.sec = "us_image", 12
    sent.data = array.array("B", pixels.tobytes())
    assert spin_until(node, lambda: publisher.get_subscription_count() == 1)
    publisher.publish(sent)
    assert spin_until(node, lambda: len(got) == 1)
    assert np.array_equal(np.frombuffer(got[0].data, np.uint8), pixels)
    assert got[0] == sent


def test_names_are_relative_to_the_node(node: Node) -> None:
    publisher = node.create_publisher(String, "topic", 1)
    private = node.create_publisher(String, "~/topic", 1)
    absolute = node.create_publisher(String, "/topic", 1)
    assert [p.topic_name for p in (publisher, private, absolute)] == ["/bench/topic", "/bench/tester/topic", "/topic"]
    assert node.get_fully_qualified_name() == "/bench/tester"


@pytest.mark.parametrize("name", ["", "a b", "a//b", "a/", "9a", "a-b"])
def test_a_bad_topic_name_is_refused(node: Node, name: str) -> None:
    with pytest.raises(Exception, match=r"(?i)topic name|token|invalid"):
        node.create_publisher(String, name, 1)


def test_publishing_another_type_is_refused(node: Node) -> None:
    publisher = node.create_publisher(String, "topic", 1)
    with pytest.raises(TypeError):
        publisher.publish(Point())


def test_a_late_subscriber_gets_the_latched_message_only(node: Node) -> None:
    latched, volatile = node.create_publisher(String, "latched", LATCHED), node.create_publisher(String, "volatile", 1)
    for text in ("old", "new"):
        latched.publish(String(data=text))
        volatile.publish(String(data=text))
    got: list[str] = []
    node.create_subscription(String, "latched", lambda m: got.append(m.data), LATCHED)
    node.create_subscription(String, "volatile", lambda m: got.append("volatile"), 1)
    assert spin_until(node, lambda: bool(got))
    rclpy.spin_once(node, timeout_sec=0.2)
    assert got == ["new"]


def test_incompatible_quality_of_service_does_not_connect(node: Node) -> None:
    publisher = node.create_publisher(String, "topic", qos_profile_sensor_data)
    subscription = node.create_subscription(String, "topic", lambda _: None, QoSProfile(depth=1))
    other = node.create_subscription(String, "topic", lambda _: None, qos_profile_sensor_data)
    assert spin_until(node, lambda: publisher.get_subscription_count() > 0)
    rclpy.spin_once(node, timeout_sec=0.2)
    assert publisher.get_subscription_count() == 1
    assert node.count_subscribers("topic") == 2
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE != other.qos_profile.reliability


def test_a_destroyed_subscription_is_silent(node: Node) -> None:
    got: list[String] = []
    publisher = node.create_publisher(String, "topic", 10)
    subscription = node.create_subscription(String, "topic", got.append, 10)
    assert spin_until(node, lambda: publisher.get_subscription_count() == 1)
    node.destroy_subscription(subscription)
    publisher.publish(String(data="x"))
    for _ in range(3):
        rclpy.spin_once(node, timeout_sec=0.05)
    assert not got and spin_until(node, lambda: publisher.get_subscription_count() == 0)


def test_an_exception_of_a_callback_leaves_spin(node: Node) -> None:
    def fail() -> None:
        raise ValueError("from the callback")

    node.create_timer(0.01, fail)
    with pytest.raises(ValueError, match="from the callback"):
        for _ in range(50):
            rclpy.spin_once(node, timeout_sec=0.1)


# graph


def test_the_graph_tells_nodes_topics_and_ends(node: Node) -> None:
    other = Node("other")
    other.create_publisher(String, "/shared", LATCHED)
    node.create_subscription(String, "/shared", lambda _: None, 5)
    assert spin_until(node, lambda: {"tester", "other"} <= set(node.get_node_names()))
    assert ("tester", "/bench") in node.get_node_names_and_namespaces()
    assert spin_until(node, lambda: ("/shared", ["std_msgs/msg/String"]) in node.get_topic_names_and_types())
    assert (node.count_publishers("/shared"), node.count_subscribers("/shared")) == (1, 1)
    assert spin_until(node, lambda: node.get_publishers_info_by_topic("/shared")[0].node_name == "other")
    info = node.get_publishers_info_by_topic("/shared")[0]
    assert (info.topic_type, info.node_namespace) == ("std_msgs/msg/String", "/")
    assert info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    other.destroy_node()
    assert spin_until(node, lambda: "other" not in node.get_node_names() and node.count_publishers("/shared") == 0)


# parameters


def test_a_parameter_has_the_type_of_its_default(node: Node) -> None:
    assert node.declare_parameter("speed", 1.5).value == 1.5
    assert node.get_parameter("speed").type_ == Parameter.Type.DOUBLE
    result = node.set_parameters([Parameter("speed", value=2)])[0]
    assert not result.successful and "DOUBLE" in result.reason
    assert node.get_parameter("speed").value == 1.5
    assert node.set_parameters([Parameter("speed", value=2.0)])[0].successful
    assert node.get_parameter("speed").value == 2.0


def test_undeclared_twice_declared_and_unset_parameters(node: Node) -> None:
    with pytest.raises(ParameterNotDeclaredException):
        node.get_parameter("missing")
    with pytest.raises(ParameterNotDeclaredException):
        node.set_parameters([Parameter("missing", value=1)])
    node.declare_parameter("once", 1)
    with pytest.raises(ParameterAlreadyDeclaredException):
        node.declare_parameter("once", 1)
    node.declare_parameter("unset", Parameter.Type.INTEGER)
    with pytest.raises(ParameterUninitializedException):
        node.get_parameter("unset")
    assert node.set_parameters([Parameter("unset", value=3)])[0].successful
    assert node.get_parameter("unset").value == 3


def test_ranges_and_read_only_are_enforced(node: Node) -> None:
    ranged = ParameterDescriptor(floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1.0, step=0.25)])
    node.declare_parameter("share", 0.5, ranged)
    node.declare_parameter("count", 4, ParameterDescriptor(
        integer_range=[IntegerRange(from_value=2, to_value=8, step=2)]))
    node.declare_parameter("fixed", "a", ParameterDescriptor(read_only=True))
    outcomes = {
        (name, value): node.set_parameters([Parameter(name, value=value)])[0].successful
        for name, value in [("share", 0.75), ("share", 1.5), ("share", 0.3), ("count", 8), ("count", 3), ("count", 9),
                            ("fixed", "b")]
    }
    assert [key for key, good in outcomes.items() if good] == [("share", 0.75), ("count", 8)]
    with pytest.raises(InvalidParameterValueException):
        node.declare_parameter("bad", 2.0, ParameterDescriptor(
            floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1.0, step=0.0)]))
    assert not node.has_parameter("bad")


def test_a_callback_can_refuse_a_change(node: Node) -> None:
    node.declare_parameters("", [("low", 1), ("high", 5)])

    def check(parameters: list[Parameter]) -> SetParametersResult:
        bad = [p for p in parameters if p.value < 0]
        return SetParametersResult(successful=not bad, reason="negative" if bad else "")

    node.add_on_set_parameters_callback(check)
    result = node.set_parameters_atomically([Parameter("low", value=2), Parameter("high", value=-1)])
    assert (result.successful, result.reason) == (False, "negative")
    assert node.get_parameter("low").value == 1
    node.remove_on_set_parameters_callback(check)
    assert node.set_parameters([Parameter("high", value=-1)])[0].successful


def test_overrides_come_from_the_command_line(ros: None, tmp_path) -> None:
    (tmp_path / "params.yaml").write_text(
        "/**:\n  ros__parameters: {rate: 1.0, name: all}\n"
        "/ns/special:\n  ros__parameters:\n    rate: 2.0\n    flag: true\n    group: {sub: 7}\n"
        "other:\n  ros__parameters: {rate: 9.0}\n")
    cli = ["--ros-args", "--params-file", str(tmp_path / "params.yaml"), "-p", "matrix:=[1.0, 0.0]",
           "-r", "in:=/renamed", "-r", "__ns:=/ns"]
    node = Node("special", cli_args=cli)
    declared = node.declare_parameters("", [
        ("rate", 0.0), ("name", ""), ("group.sub", 0), ("flag", False), ("matrix", [0.0])])
    assert [p.value if not hasattr(p.value, "tolist") else p.value.tolist() for p in declared] == [
        2.0, "all", 7, True, [1.0, 0.0]]
    assert node.create_publisher(String, "in", 1).topic_name == "/renamed"
    assert node.get_namespace() == "/ns"
    node.destroy_node()


def test_an_override_of_another_type_is_refused(ros: None) -> None:
    node = Node("typed", cli_args=["--ros-args", "-p", "rate:=3"])
    with pytest.raises(InvalidParameterTypeException, match="rate"):
        node.declare_parameter("rate", 1.0)
    node.destroy_node()


# time


def test_times_and_durations() -> None:
    assert Time(seconds=1, nanoseconds=5).seconds_nanoseconds() == (1, 5)
    assert Time(seconds=2) - Time(seconds=1) == Duration(seconds=1)
    assert (Time(seconds=1) + Duration(nanoseconds=7)).nanoseconds == 1_000_000_007
    assert Time.from_msg(TimeMessage(sec=3, nanosec=4)).to_msg() == TimeMessage(sec=3, nanosec=4)
    assert Duration(seconds=-1.5).nanoseconds == -1_500_000_000
    with pytest.raises(TypeError):
        _ = Time(clock_type=ClockType.ROS_TIME) < Time(clock_type=ClockType.STEADY_TIME)
    with pytest.raises(ValueError):
        Time(seconds=-1)


def test_simulated_time_follows_the_clock_topic(node: Node) -> None:
    publisher = node.create_publisher(ClockMessage, "/clock", 10)
    assert node.set_parameters([Parameter("use_sim_time", value=True)])[0].successful
    clock, calls, jumps = node.get_clock(), [], []
    clock.create_jump_callback(
        JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1)),
        post_callback=lambda jump: jumps.append(jump.delta.nanoseconds))
    steady_calls: list[int] = []
    node.create_timer(1.0, lambda: calls.append(clock.now().nanoseconds))
    node.create_timer(0.02, lambda: steady_calls.append(1), clock=Clock(clock_type=ClockType.STEADY_TIME))
    assert clock.now().nanoseconds == 0
    assert spin_until(node, lambda: publisher.get_subscription_count() == 1)

    def advance(seconds: int) -> None:
        message = ClockMessage()
        message.clock.sec, message.clock.nanosec = seconds, HALF_SECOND
        publisher.publish(message)
        assert spin_until(node, lambda: clock.now().nanoseconds == seconds * 10**9 + HALF_SECOND)
        for _ in range(5):
            rclpy.spin_once(node, timeout_sec=0.02)

    for seconds in (100, 101, 101, 103):
        advance(seconds)
    assert [c // 10**9 for c in calls] == [100, 101, 103]
    advance(50)
    assert jumps == [-53 * 10**9]
    assert len(calls) == 3 and len(steady_calls) > 3
    advance(51)
    assert len(calls) == 4


def test_a_timer_can_be_cancelled_and_reset(node: Node) -> None:
    calls: list[int] = []
    timer = node.create_timer(0.01, lambda: calls.append(1))
    assert spin_until(node, lambda: len(calls) >= 3)
    timer.cancel()
    count = len(calls)
    rclpy.spin_once(node, timeout_sec=0.05)
    assert timer.is_canceled() and len(calls) == count
    timer.reset()
    assert spin_until(node, lambda: len(calls) > count)


# services


def test_a_service_answers(node: Node) -> None:
    def switch(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = request.data, f"was {request.data}"
        return response

    node.create_service(SetBool, "~/switch", switch)
    client = node.create_client(SetBool, "tester/switch")
    assert client.wait_for_service(timeout_sec=10.0)
    for value in (True, False):
        future = client.call_async(SetBool.Request(data=value))
        rclpy.spin_until_future_complete(node, future, timeout_sec=10.0)
        assert future.done() and (future.result().success, future.result().message) == (value, f"was {value}")


def test_a_missing_service_is_told_in_time(node: Node) -> None:
    client = node.create_client(Trigger, "nowhere")
    assert not client.wait_for_service(timeout_sec=0.2)
    assert not client.service_is_ready()


# executors


def test_a_blocking_callback_in_its_own_group_does_not_stop_the_others(ros: None) -> None:
    node, release, ticks = Node("busy"), threading.Event(), []
    node.create_timer(0.01, lambda: release.wait(10.0), callback_group=MutuallyExclusiveCallbackGroup())
    node.create_timer(0.01, lambda: ticks.append(1), callback_group=ReentrantCallbackGroup())
    executor = MultiThreadedExecutor(num_threads=3)
    executor.add_node(node)
    end = time.monotonic() + 10.0
    while len(ticks) < 5 and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    release.set()
    executor.shutdown()
    node.destroy_node()
    assert len(ticks) >= 5


def test_a_mutually_exclusive_group_runs_one_callback_at_a_time(ros: None) -> None:
    node, group, inside, worst = Node("exclusive"), MutuallyExclusiveCallbackGroup(), [], []

    def work() -> None:
        inside.append(1)
        worst.append(len(inside))
        time.sleep(0.005)
        inside.pop()

    for _ in range(3):
        node.create_timer(0.005, work, callback_group=group)
    executor = MultiThreadedExecutor(num_threads=3)
    executor.add_node(node)
    end = time.monotonic() + 10.0
    while len(worst) < 20 and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()
    assert len(worst) >= 20 and max(worst) == 1


def test_a_guard_condition_of_another_thread_wakes_the_executor(node: Node) -> None:
    woken = threading.Event()
    guard = node.create_guard_condition(woken.set)
    thread = threading.Timer(0.1, guard.trigger)
    thread.start()
    assert spin_until(node, woken.is_set)
    thread.join()


def test_what_is_due_of_a_removed_node_is_not_run(ros: None) -> None:
    here, gone, calls = Node("here"), Node("gone"), []
    for _ in range(3):
        gone.create_timer(0.01, lambda: calls.append("gone"))
    here.create_timer(0.01, lambda: calls.append("here"))
    executor = SingleThreadedExecutor()
    executor.add_node(gone)
    time.sleep(0.05)
    executor.spin_once(timeout_sec=1.0)
    executor.remove_node(gone)
    executor.add_node(here)
    for _ in range(3):
        executor.spin_once(timeout_sec=1.0)
    executor.shutdown()
    here.destroy_node()
    gone.destroy_node()
    assert calls == ["gone", "here", "here", "here"]


def test_shutdown_from_another_thread_ends_spin(ros: None) -> None:
    from rclpy.executors import ExternalShutdownException

    node = Node("spinner")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Timer(0.2, rclpy.shutdown)
    thread.start()
    with pytest.raises(ExternalShutdownException):
        executor.spin()
    thread.join()
    node.destroy_node()
    assert not rclpy.ok()
