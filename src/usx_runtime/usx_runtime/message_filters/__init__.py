"""message_filters: bring messages of several topics together by their stamps."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

NANOSECONDS = 10**9


class SimpleFilter:
    """Something that hands messages on to registered callbacks."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., None], *args: Any) -> int:
        """Call `cb(*messages, *args)` for every set of messages; returns a number that names the registration."""
        number = len(self.callbacks)
        self.callbacks[number] = (cb, args)
        return number

    def signalMessage(self, *msg: Any) -> None:
        for callback, args in list(self.callbacks.values()):
            callback(*msg, *args)


class Subscriber(SimpleFilter):
    """A subscription as the source of a chain of filters: `Subscriber(node, Image, "us/image_raw", qos_profile=10)`."""

    def __init__(self, node: Any, msg_type: type, topic: str, qos_profile: Any = 10, **options: Any) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        self.sub = node.create_subscription(msg_type, topic, self.callback, qos_profile, **options)

    def callback(self, msg: Any) -> None:
        self.signalMessage(msg)

    def getTopic(self) -> str:
        return self.topic


def _stamp(message: Any, allow_headerless: bool) -> int:
    """Nanoseconds of the header; for a message without one the clock's now, where that is allowed."""
    header = getattr(message, "header", None)
    if header is not None and hasattr(header, "stamp"):
        return int(header.stamp.sec) * NANOSECONDS + int(header.stamp.nanosec)
    if allow_headerless:
        from usx_runtime.rclpy.clock import Clock, ClockType

        return int(Clock(clock_type=ClockType.ROS_TIME).now().nanoseconds)
    raise AttributeError(f"message_filters: {type(message).__name__} has no header with a stamp (see allow_headerless)")


class Cache(SimpleFilter):
    """The last `cache_size` messages of a filter, sorted by stamp. Times are rclpy Time objects."""

    def __init__(self, f: SimpleFilter | None = None, cache_size: int = 1, allow_headerless: bool = False) -> None:
        super().__init__()
        self.cache_size = cache_size
        self.allow_headerless = allow_headerless
        self._items: list[tuple[int, int, Any]] = []
        self._count = itertools.count()
        self._lock = threading.Lock()
        if f is not None:
            self.connectInput(f)

    def connectInput(self, f: SimpleFilter) -> None:
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg: Any) -> None:
        stamp = _stamp(msg, self.allow_headerless)
        with self._lock:
            self._items.append((stamp, next(self._count), msg))
            self._items.sort(key=lambda item: item[:2])
            del self._items[: -self.cache_size]
        self.signalMessage(msg)

    def getInterval(self, from_stamp: Any, to_stamp: Any) -> list[Any]:
        """Messages with from_stamp <= stamp <= to_stamp."""
        low, high = from_stamp.nanoseconds, to_stamp.nanoseconds
        with self._lock:
            return [msg for stamp, _, msg in self._items if low <= stamp <= high]

    def getElemAfterTime(self, stamp: Any) -> Any | None:
        """The oldest message not before `stamp`."""
        with self._lock:
            return next((msg for time, _, msg in self._items if time >= stamp.nanoseconds), None)

    def getElemBeforeTime(self, stamp: Any) -> Any | None:
        """The newest message not after `stamp`."""
        with self._lock:
            return next((msg for time, _, msg in reversed(self._items) if time <= stamp.nanoseconds), None)

    def getLatestTime(self) -> Any | None:
        return self._time(-1)

    getLastestTime = getLatestTime  # noqa: N815 (the misspelt name is message_filters' own)

    def getOldestTime(self) -> Any | None:
        return self._time(0)

    def getLast(self) -> Any | None:
        with self._lock:
            return self._items[-1][2] if self._items else None

    def _time(self, place: int) -> Any | None:
        from usx_runtime.rclpy.time import Time

        with self._lock:
            return Time(nanoseconds=self._items[place][0]) if self._items else None


class TimeSynchronizer(SimpleFilter):
    """Calls back with one message of each filter when their stamps are equal."""

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.allow_headerless = False
        self.queues: list[dict[int, Any]] = []
        self.lock = threading.Lock()
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:
        self.queues = [{} for _ in fs]
        for place, source in enumerate(fs):
            source.registerCallback(self.add, place)

    def add(self, msg: Any, place: int) -> None:
        """Take `msg` of filter number `place`."""
        stamp = _stamp(msg, self.allow_headerless)
        with self.lock:
            queue = self.queues[place]
            queue[stamp] = msg
            while len(queue) > self.queue_size:
                del queue[min(queue)]
            chosen = self._match(place, stamp) if stamp in queue else None
            messages = self._pop(chosen) if chosen else None
        if messages:
            self.signalMessage(*messages)

    def _match(self, place: int, stamp: int) -> tuple[int, ...] | None:
        return (stamp,) * len(self.queues) if all(stamp in queue for queue in self.queues) else None

    def _pop(self, chosen: tuple[int, ...]) -> list[Any]:
        return [queue.pop(stamp) for queue, stamp in zip(self.queues, chosen, strict=True)]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Calls back with one message of each filter when their stamps lie within `slop` seconds of each other."""

    def __init__(
        self, fs: Sequence[SimpleFilter], queue_size: int, slop: float, allow_headerless: bool = False
    ) -> None:
        super().__init__(fs, queue_size)
        self.slop = round(slop * NANOSECONDS)
        self.allow_headerless = allow_headerless

    def _match(self, place: int, stamp: int) -> tuple[int, ...] | None:
        candidates = []
        for number, queue in enumerate(self.queues):
            near = [stamp] if number == place else [time for time in queue if abs(time - stamp) <= self.slop]
            candidates.append(sorted(near, key=lambda time: abs(time - stamp)))
        for chosen in itertools.product(*candidates):
            if max(chosen) - min(chosen) <= self.slop:
                return chosen
        return None
