"""rclpy.clock: steady, system and ROS time, and the notice of jumps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from usx_runtime.duration import SECOND, Duration
from usx_runtime.rclpy.clock_type import ClockType
from usx_runtime.rclpy.time import Time

__all__ = ["Clock", "ClockChange", "ClockType", "JumpHandle", "JumpThreshold", "ROSClock", "TimeJump"]

_SLICE = 0.1  # seconds: how late a sleeping thread sees a shutdown


class ClockChange(IntEnum):
    """How the source of a clock changed in a jump."""

    ROS_TIME_NO_CHANGE = 1
    ROS_TIME_ACTIVATED = 2
    ROS_TIME_DEACTIVATED = 3
    SYSTEM_TIME_NO_CHANGE = 4


class JumpThreshold:
    """Which jumps to tell of: `min_forward` > 0, `min_backward` < 0, changes of the source."""

    def __init__(
        self, *, min_forward: Duration | None, min_backward: Duration | None, on_clock_change: bool = True,
    ) -> None:
        if min_forward is not None and min_forward.nanoseconds <= 0:
            raise ValueError("min_forward must be a positive non-zero duration")
        if min_backward is not None and min_backward.nanoseconds >= 0:
            raise ValueError("min_backward must be a negative non-zero duration")
        if not on_clock_change and min_forward is None and min_backward is None:
            raise ValueError("At least one threshold must be given")
        self.min_forward, self.min_backward, self.on_clock_change = min_forward, min_backward, on_clock_change

    def met(self, jump: TimeJump) -> bool:
        if self.on_clock_change and jump.clock_change in (
                ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED):
            return True
        delta = jump.delta.nanoseconds
        return (self.min_forward is not None and delta >= self.min_forward.nanoseconds) or (
            self.min_backward is not None and delta <= self.min_backward.nanoseconds)


class TimeJump:
    """A jump: what changed, and by how much."""

    def __init__(self, clock_change: ClockChange, delta: Duration) -> None:
        self.clock_change, self.delta = clock_change, delta


class JumpHandle:
    """A registered pair of callbacks; `unregister` ends it."""

    def __init__(
        self, *, clock: Clock, threshold: JumpThreshold, pre_callback: Callable[[], None] | None,
        post_callback: Callable[[TimeJump], None] | None,
    ) -> None:
        if pre_callback is None and post_callback is None:
            raise ValueError("One of pre_callback or post_callback must be callable")
        self.threshold, self.pre_callback, self.post_callback = threshold, pre_callback, post_callback
        self._clock = clock
        clock._handles.append(self)

    def unregister(self) -> None:
        if self in self._clock._handles:
            self._clock._handles.remove(self)

    def __enter__(self) -> JumpHandle:
        return self

    def __exit__(self, *_: Any) -> None:
        self.unregister()


class Clock:
    """A clock; of type ROS_TIME it is a ROSClock, which follows /clock once a node's use_sim_time is set."""

    _handles: list[JumpHandle]
    _clock_type: ClockType

    def __new__(cls, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> Clock:
        if not isinstance(clock_type, ClockType):
            raise TypeError("Clock type must be a ClockType enum")
        self: Clock = super().__new__(ROSClock if clock_type is ClockType.ROS_TIME else cls)
        self._clock_type = clock_type
        self._handles = []
        return self

    def __init__(self, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> None:
        pass

    @property
    def clock_type(self) -> ClockType:
        return self._clock_type

    def __repr__(self) -> str:
        return f"Clock(clock_type={self._clock_type.name})"

    def now_ns(self) -> int:
        """The time in nanoseconds."""
        return time.monotonic_ns() if self._clock_type is ClockType.STEADY_TIME else time.time_ns()

    def now(self) -> Time:
        return Time(nanoseconds=self.now_ns(), clock_type=self._clock_type)

    def create_jump_callback(
        self, threshold: JumpThreshold, *, pre_callback: Callable[[], None] | None = None,
        post_callback: Callable[[TimeJump], None] | None = None,
    ) -> JumpHandle:
        """Calls back before and after jumps that meet `threshold`."""
        return JumpHandle(clock=self, threshold=threshold, pre_callback=pre_callback, post_callback=post_callback)

    def sleep_until(self, until: Time, context: Any = None) -> bool:
        """Sleeps until this clock shows `until` -> False if the context was shut down before."""
        from usx_runtime.rclpy.utilities import get_default_context

        context = context or get_default_context()
        if until.clock_type != self._clock_type:
            raise ValueError("until's clock type does not match this clock's type")
        waiting = threading.Event()
        while context.ok():
            left = until.nanoseconds - self.now_ns()
            if left <= 0:
                return True
            follows_topic = getattr(self, "ros_time_is_active", False)
            waiting.wait(min(_SLICE / 20 if follows_topic else _SLICE, left / SECOND))
        return False

    def sleep_for(self, rel_time: Duration, context: Any = None) -> bool:
        return self.sleep_until(self.now() + rel_time, context)


class ROSClock(Clock):
    """System time, or the time of /clock while that is active."""

    _override: int | None = None

    def __new__(cls, **_: Any) -> ROSClock:
        return super().__new__(cls, clock_type=ClockType.ROS_TIME)  # type: ignore[return-value]

    def __init__(self, **_: Any) -> None:
        pass

    @property
    def ros_time_is_active(self) -> bool:
        return self._override is not None

    def _set_ros_time_is_active(self, enabled: bool) -> None:
        if enabled != self.ros_time_is_active:
            change = ClockChange.ROS_TIME_ACTIVATED if enabled else ClockChange.ROS_TIME_DEACTIVATED
            self._change(0 if enabled else None, change)

    def set_ros_time_override(self, time: Time) -> None:
        """Sets the time that is shown while ROS time is active."""
        if time.clock_type != ClockType.ROS_TIME:
            raise TypeError("the override must be a Time of type ROS_TIME")
        if self.ros_time_is_active:
            self._change(time.nanoseconds, ClockChange.ROS_TIME_NO_CHANGE)

    def now_ns(self) -> int:
        override = self._override
        return time.time_ns() if override is None else override

    def _change(self, override: int | None, change: ClockChange) -> None:
        new = time.time_ns() if override is None else override
        jump = TimeJump(change, Duration(nanoseconds=new - self.now_ns()))
        told = [handle for handle in self._handles if handle.threshold.met(jump)]
        for handle in told:
            if handle.pre_callback is not None:
                handle.pre_callback()
        self._override = override
        for handle in told:
            if handle.post_callback is not None:
                handle.post_callback(jump)
