"""The transform buffer against pytransform3d and scipy, and against tf2's rules of what is an error."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pytransform3d.transform_manager import TransformManager
from pytransform3d.transformations import transform_from_pq
from scipy.spatial.transform import Rotation, Slerp

from usx_runtime import rclpy
from usx_runtime.duration import Duration
from usx_runtime.messages import get_message
from usx_runtime.rclpy.clock import Clock, ClockType
from usx_runtime.rclpy.context import Context
from usx_runtime.rclpy.node import Node
from usx_runtime.rclpy.time import Time
from usx_runtime.tf2_ros import (
    Buffer,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    StaticTransformBroadcaster,
    TransformBroadcaster,
    TransformException,
    TransformListener,
)

SECOND = 10**9


def stamped(parent: str, child: str, stamp_ns: int, translation=(0, 0, 0), xyzw=(0, 0, 0, 1)):
    message = get_message("geometry_msgs/msg/TransformStamped")()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    message.header.frame_id, message.child_frame_id = parent, child
    for target, values in ((message.transform.translation, translation), (message.transform.rotation, xyzw)):
        for name, value in zip("xyzw", values, strict=False):
            setattr(target, name, float(value))
    return message


def matrix(message) -> np.ndarray:
    t, q = message.transform.translation, message.transform.rotation
    return transform_from_pq([t.x, t.y, t.z, q.w, q.x, q.y, q.z])


def at(seconds: float) -> Time:
    return Time(nanoseconds=round(seconds * SECOND), clock_type=ClockType.ROS_TIME)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 12), static=st.booleans())
def test_any_pair_of_frames_of_any_tree(seed: int, size: int, static: bool) -> None:
    random = np.random.default_rng(seed)
    oracle, buffer = TransformManager(), Buffer()
    for child in range(1, size):
        parent = int(random.integers(0, child))
        translation, q = random.normal(size=3) * 10, Rotation.random(random_state=random).as_quat()
        message = stamped(f"f{parent}", f"f{child}", 5 * SECOND, translation, q)
        assert (buffer.set_transform_static if static else buffer.set_transform)(message, "test")
        oracle.add_transform(f"f{child}", f"f{parent}", matrix(message))
    for _ in range(5):
        target, source = (f"f{k}" for k in random.integers(0, size, 2))
        found = buffer.lookup_transform(target, source, Time())
        np.testing.assert_allclose(matrix(found), oracle.get_transform(source, target), atol=1e-9)
        assert (found.header.frame_id, found.child_frame_id) == (target, source)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), fraction=st.floats(0, 1), flip=st.booleans())
def test_interpolation_is_linear_and_along_the_shorter_arc(seed: int, fraction: float, flip: bool) -> None:
    random = np.random.default_rng(seed)
    turns = Rotation.random(2, random_state=random)
    ends = random.normal(size=(2, 3))
    q = turns.as_quat() * np.array([[1], [-1 if flip else 1]])  # q and -q are the same rotation
    buffer = Buffer()
    for stamp, translation, rotation in zip((1, 3), ends, q, strict=True):
        buffer.set_transform(stamped("a", "b", stamp * SECOND, translation, rotation), "test")
    found = buffer.lookup_transform("a", "b", at(1 + 2 * fraction))
    exact = round((1 + 2 * fraction) * SECOND) / SECOND
    np.testing.assert_allclose(matrix(found)[:3, 3], ends[0] + (ends[1] - ends[0]) * (exact - 1) / 2, atol=1e-9)
    if (turns[0].inv() * turns[1]).magnitude() < np.pi - 1e-3:  # at half a turn both ways are the shorter one
        np.testing.assert_allclose(matrix(found)[:3, :3], Slerp([1, 3], turns)(exact).as_matrix(), atol=1e-7)
    assert found.header.stamp.sec * SECOND + found.header.stamp.nanosec == round(exact * SECOND)


@pytest.fixture
def chain() -> Buffer:
    """world -> base (static) -> arm (1 s to 5 s) -> probe (2 s to 4 s); apart: island -> rock."""
    buffer = Buffer()
    buffer.set_transform_static(stamped("world", "base", 0, (1, 0, 0)), "driver")
    for second in (1, 3, 5):
        buffer.set_transform(stamped("base", "arm", second * SECOND, (0, second, 0)), "driver")
    for second in (4, 2):  # out of order
        buffer.set_transform(stamped("arm", "probe", second * SECOND, (0, 0, second)), "driver")
    buffer.set_transform(stamped("island", "rock", SECOND), "driver")
    return buffer


@pytest.mark.parametrize(
    ("target", "source", "seconds", "expected"),
    [
        ("world", "probe", 3.0, (1, 3, 3)),
        ("world", "probe", 2.0, (1, 2, 2)),
        ("probe", "world", 3.0, (-1, -3, -3)),
        ("base", "arm", 4.5, (0, 4.5, 0)),
        ("world", "base", 99.0, (1, 0, 0)),
        ("world", "probe", 0.0, (1, 4, 4)),  # the latest common time is 4 s
        ("arm", "arm", 77.0, (0, 0, 0)),
    ],
)
def test_chains(chain: Buffer, target: str, source: str, seconds: float, expected: tuple) -> None:
    found = chain.lookup_transform(target, source, at(seconds))
    np.testing.assert_allclose(matrix(found)[:3, 3], expected, atol=1e-12)
    assert chain.can_transform(target, source, at(seconds))


@pytest.mark.parametrize(
    ("target", "source", "seconds", "error", "message"),
    [
        ("world", "probe", 4.5, ExtrapolationException, "into the future.  Requested time 4.500000 but the latest"),
        ("world", "probe", 1.5, ExtrapolationException, "into the past.*from frame \\[probe\\] to frame \\[world\\]"),
        ("island", "rock", 2.0, ExtrapolationException, "only time 1.000000 is in the buffer"),
        ("world", "nowhere", 3.0, LookupException, '"nowhere" passed to lookupTransform argument source_frame'),
        ("nowhere", "world", 3.0, LookupException, "target_frame does not exist"),
        ("world", "island", 0.0, ConnectivityException, "two or more unconnected trees"),
        ("base", "island", 3.0, ConnectivityException, "'base' and 'island'"),
        ("/world", "probe", 3.0, InvalidArgumentException, "cannot start with a '/'"),
        ("", "probe", 3.0, InvalidArgumentException, "frame_id is empty"),
    ],
)
def test_errors(chain: Buffer, target: str, source: str, seconds: float, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        chain.lookup_transform(target, source, at(seconds))
    assert isinstance(caught.value, TransformException)
    possible, reason = chain.can_transform(target, source, at(seconds), return_debug_tuple=True)
    assert not possible and reason == str(caught.value)


def test_an_extrapolation_above_the_common_ancestor_does_not_matter() -> None:
    buffer = Buffer()
    buffer.set_transform(stamped("root", "base", SECOND), "test")  # far in the past
    for child in ("left", "right"):
        buffer.set_transform(stamped("base", child, 5 * SECOND, (1, 0, 0)), "test")
    assert buffer.can_transform("left", "right", at(5))


@pytest.mark.parametrize(
    "message",
    [
        stamped("a", "a", 0),
        stamped("", "b", 0),
        stamped("a", "", 0),
        stamped("a", "b", 0, (float("nan"), 0, 0)),
        stamped("a", "b", 0, (0, 0, 0), (0, 0, 0, 0)),
        stamped("a", "b", 0, (0, 0, 0), (0, 0, 0, 1.1)),
    ],
)
def test_transforms_that_make_no_sense_are_refused(message, capfd: pytest.CaptureFixture) -> None:
    buffer = Buffer()
    assert not buffer.set_transform(message, "bad driver")
    assert "bad driver" in capfd.readouterr().err
    assert buffer.all_frames_as_yaml() == "[]"


def test_what_is_older_than_the_cache_is_forgotten_and_refused() -> None:
    buffer = Buffer(cache_time=Duration(seconds=10))
    for second in range(1, 31):
        assert buffer.set_transform(stamped("a", "b", second * SECOND, (second, 0, 0)), "test")
    assert not buffer.set_transform(stamped("a", "b", 15 * SECOND), "test")
    assert buffer.can_transform("a", "b", at(20)) and not buffer.can_transform("a", "b", at(19.9))
    assert yaml.safe_load(buffer.all_frames_as_yaml())["b"]["buffer_length"] == 10.0


def test_leading_slashes_are_stripped_and_a_repeated_stamp_replaces() -> None:
    buffer = Buffer()
    buffer.set_transform(stamped("/a", "/b", SECOND, (1, 0, 0)), "test")
    buffer.set_transform(stamped("a", "b", SECOND, (2, 0, 0)), "test")
    assert buffer.lookup_transform("a", "b", at(1)).transform.translation.x == 2.0


def test_a_loop_is_an_error_and_not_an_endless_one() -> None:
    buffer = Buffer()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a")):
        buffer.set_transform(stamped(parent, child, SECOND), "test")
    buffer.set_transform(stamped("x", "y", SECOND), "test")
    with pytest.raises(LookupException, match="loop"):
        buffer.lookup_transform("x", "a", at(1))


def test_a_frame_that_changes_its_parent() -> None:
    buffer = Buffer()
    buffer.set_transform(stamped("tray", "tool", 1 * SECOND, (1, 0, 0)), "test")
    buffer.set_transform(stamped("hand", "tool", 3 * SECOND, (2, 0, 0)), "test")
    assert buffer.lookup_transform("tray", "tool", at(2)).transform.translation.x == 1.0
    assert buffer.lookup_transform("hand", "tool", at(3)).transform.translation.x == 2.0
    with pytest.raises(ConnectivityException):
        buffer.lookup_transform("hand", "tool", at(2))


def test_full_lookup_through_a_fixed_frame(chain: Buffer) -> None:
    found = chain.lookup_transform_full("arm", at(5), "arm", at(1), "world")
    np.testing.assert_allclose(matrix(found)[:3, 3], (0, 1 - 5, 0), atol=1e-12)


def test_waiting_ends_when_the_transform_comes() -> None:
    buffer = Buffer()
    thread = threading.Timer(0.2, lambda: buffer.set_transform(stamped("a", "b", SECOND), "late"))
    thread.start()
    assert buffer.lookup_transform("a", "b", at(1), timeout=Duration(seconds=20)).child_frame_id == "b"
    thread.join()


def test_waiting_ends_with_the_reason() -> None:
    began = time.monotonic()
    with pytest.raises(LookupException, match="does not exist"):
        Buffer().lookup_transform("a", "b", at(1), timeout=Duration(seconds=0.2))
    assert time.monotonic() - began >= 0.2


def test_a_backward_jump_of_time_forgets_all_but_static() -> None:
    clock = Clock(clock_type=ClockType.ROS_TIME)
    buffer = Buffer()
    buffer.watch_clock(clock)
    clock._set_ros_time_is_active(True)
    clock.set_ros_time_override(at(10))
    buffer.set_transform_static(stamped("world", "base", 0), "test")
    buffer.set_transform(stamped("base", "arm", 10 * SECOND), "test")
    clock.set_ros_time_override(at(11))
    assert buffer.can_transform("world", "arm", Time())
    clock.set_ros_time_override(at(2))
    assert buffer.can_transform("world", "base", Time())
    with pytest.raises(ConnectivityException):
        buffer.lookup_transform("world", "arm", Time())
    buffer.set_transform(stamped("base", "arm", 2 * SECOND), "test")
    assert buffer.can_transform("world", "arm", at(2))


def test_latest_common_time(chain: Buffer) -> None:
    assert chain.get_latest_common_time("world", "probe").nanoseconds == 4 * SECOND
    assert chain.get_latest_common_time("world", "base").nanoseconds == 0
    assert chain.get_latest_common_time("arm", "probe").nanoseconds == 4 * SECOND


def test_frames_can_be_listed(chain: Buffer) -> None:
    frames = yaml.safe_load(chain.all_frames_as_yaml())
    assert {child: frame["parent"] for child, frame in frames.items()} == {
        "base": "world",
        "arm": "base",
        "probe": "arm",
        "rock": "island",
    }
    assert frames["arm"]["broadcaster"] == "driver" and frames["arm"]["most_recent_transform"] == 5.0
    assert "Frame probe exists with parent arm.\n" in chain.all_frames_as_string()


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    """A talking and a listening node in a context of their own."""
    context = Context()
    rclpy.init(context=context)
    pair = Node("talker", context=context), Node("listener", context=context)
    yield pair
    for node in pair:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_broadcasters_and_listener(nodes: tuple[Node, Node]) -> None:
    talker, node = nodes
    buffer = Buffer(node=node)
    listener = TransformListener(buffer, node, spin_thread=True)
    static = StaticTransformBroadcaster(talker)
    static.sendTransform(stamped("world", "base", 0, (1, 0, 0)))
    static.sendTransform([stamped("base", "rail", 0, (0, 1, 0))])  # keeps the first one latched
    moving = TransformBroadcaster(talker)
    end = time.monotonic() + 30
    while not buffer.can_transform("world", "probe", at(5)) and time.monotonic() < end:
        for second in (4, 6):
            moving.sendTransform([stamped("rail", "probe", second * SECOND, (0, 0, second))])
        time.sleep(0.05)
    found = buffer.lookup_transform("world", "probe", at(5), timeout=Duration(seconds=5))
    np.testing.assert_allclose(matrix(found)[:3, 3], (1, 1, 5), atol=1e-12)
    late = Buffer()
    late_listener = TransformListener(late, node)  # its node is spun by the first listener's thread already
    assert late.can_transform("world", "rail", Time(), timeout=Duration(seconds=20))
    for each in (listener, late_listener):
        each.unregister()
    listener.executor.shutdown()
    listener.dedicated_listener_thread.join(10)
    assert not listener.dedicated_listener_thread.is_alive()
