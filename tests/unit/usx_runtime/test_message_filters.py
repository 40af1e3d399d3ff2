"""Filters that bring messages of several topics together by their stamps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usx_runtime.message_filters import ApproximateTimeSynchronizer, Cache, SimpleFilter, Subscriber, TimeSynchronizer
from usx_runtime.messages import get_message
from usx_runtime.rclpy.time import Time

MILLISECOND = 10**6


def stamped(milliseconds: int, name: str = "") -> Any:
    message = get_message("geometry_msgs/msg/PoseStamped")()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(milliseconds * MILLISECOND, 10**9)
    message.header.frame_id = name
    return message


def milliseconds(message: Any) -> int:
    return (message.header.stamp.sec * 10**9 + message.header.stamp.nanosec) // MILLISECOND


class Log(list):
    """Records what a filter hands out, as tuples of stamps."""

    def __init__(self, source: SimpleFilter) -> None:
        super().__init__()
        source.registerCallback(lambda *messages: self.append(tuple(map(milliseconds, messages))))


def test_callbacks_get_their_extra_arguments() -> None:
    seen: list = []
    source = SimpleFilter()
    source.registerCallback(lambda message, extra: seen.append((message, extra)), "extra")
    source.signalMessage("message")
    assert seen == [("message", "extra")]


def test_subscriber_passes_what_the_node_receives() -> None:
    calls: list = []

    class Node:
        def create_subscription(self, *arguments: Any, **options: Any) -> str:
            calls.append((arguments, options))
            return "subscription"

    subscriber = Subscriber(Node(), dict, "topic", qos_profile=7, callback_group="group")
    (kind, topic, callback, qos), options = calls[0]
    assert (kind, topic, qos, options) == (dict, "topic", 7, {"callback_group": "group"})
    log = Log(subscriber)
    callback(stamped(5))
    assert log == [(5,)] and subscriber.sub == "subscription" and subscriber.getTopic() == "topic"


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20), filters=st.integers(2, 4))
def test_exact_synchronizer_finds_every_set_in_any_order(seed: int, count: int, filters: int) -> None:
    random = np.random.default_rng(seed)
    sources = [SimpleFilter() for _ in range(filters)]
    log = Log(TimeSynchronizer(sources, queue_size=count))
    lost = {(int(random.integers(filters)), int(random.integers(count)))}
    messages = [(f, t) for f in range(filters) for t in range(count) if (f, t) not in lost]
    for place in random.permutation(len(messages)):
        source, time = messages[place]
        sources[source].signalMessage(stamped(time))
    expected = [t for t in range(count) if all((f, t) not in lost for f in range(filters))]
    assert sorted(log) == [(t,) * filters for t in expected]


def test_a_full_queue_forgets_its_oldest() -> None:
    left, right = SimpleFilter(), SimpleFilter()
    log = Log(TimeSynchronizer([left, right], queue_size=2))
    for time in (1, 2, 3):
        left.signalMessage(stamped(time))
    for time in (1, 2, 3):
        right.signalMessage(stamped(time))
    assert log == [(2, 2), (3, 3)]


def test_approximate_synchronizer_takes_the_nearest_within_the_slop() -> None:
    left, right = SimpleFilter(), SimpleFilter()
    log = Log(ApproximateTimeSynchronizer([left, right], queue_size=10, slop=0.010))
    for time in (100, 108, 150, 300):
        right.signalMessage(stamped(time))
    for time in (107, 161, 305):
        left.signalMessage(stamped(time))
    assert log == [(107, 108), (305, 300)]  # 150 is 11 ms away from 161
    left.signalMessage(stamped(109))
    assert log[2:] == [(109, 100)]  # 108 is used up


def test_approximate_synchronizer_bounds_the_span_of_three() -> None:
    sources = [SimpleFilter() for _ in range(3)]
    log = Log(ApproximateTimeSynchronizer(sources, queue_size=5, slop=0.010))
    sources[0].signalMessage(stamped(100))
    sources[1].signalMessage(stamped(92))
    sources[2].signalMessage(stamped(108))  # within 10 ms of the first, 16 ms from the second
    assert log == []
    sources[1].signalMessage(stamped(101))
    assert log == [(100, 101, 108)]


def test_messages_without_a_header() -> None:
    plain = get_message("std_msgs/msg/String")()
    left, right = SimpleFilter(), SimpleFilter()
    synchronizer = ApproximateTimeSynchronizer([left, right], 5, slop=30.0, allow_headerless=True)
    seen: list = []
    synchronizer.registerCallback(lambda *messages: seen.append(messages))
    left.signalMessage(plain)
    right.signalMessage(plain)
    assert seen == [(plain, plain)]
    with pytest.raises(AttributeError, match="String has no header"):
        TimeSynchronizer([left], 5).add(plain, 0)


def test_cache() -> None:
    source = SimpleFilter()
    cache = Cache(source, cache_size=3)
    log = Log(cache)
    assert cache.getLast() is None and cache.getOldestTime() is None
    for time in (40, 10, 30, 20):
        source.signalMessage(stamped(time))
    assert log == [(40,), (10,), (30,), (20,)]  # a cache hands everything on

    def moment(time: int) -> Time:
        return Time(nanoseconds=time * MILLISECOND)

    assert cache.getOldestTime() == moment(20) and cache.getLatestTime() == cache.getLastestTime() == moment(40)
    assert [milliseconds(m) for m in cache.getInterval(moment(20), moment(30))] == [20, 30]
    assert milliseconds(cache.getElemAfterTime(moment(21))) == 30
    assert milliseconds(cache.getElemBeforeTime(moment(39))) == 30
    assert milliseconds(cache.getElemBeforeTime(moment(30))) == 30
    assert cache.getElemAfterTime(moment(41)) is None and cache.getElemBeforeTime(moment(19)) is None
    assert milliseconds(cache.getLast()) == 40
