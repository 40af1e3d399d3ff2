"""rclpy.timer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from usx_runtime.rclpy.clock import Clock


class Timer:
    """Calls back periodically on a clock; periods that were missed are skipped, not made up for."""

    def __init__(self, node: Any, callback: Callable[..., Any] | None, callback_group: Any, timer_period_ns: int,
                 clock: Clock, autostart: bool = True) -> None:
        if timer_period_ns < 0:
            raise ValueError(f"timer period = {timer_period_ns} ns: must not be negative")
        self.node, self.callback, self.callback_group, self.clock = node, callback, callback_group, clock
        self._period = timer_period_ns
        self._canceled = not autostart
        self._last = clock.now_ns()
        self._next = self._last + timer_period_ns
        callback_group.add_entity(self)

    @property
    def timer_period_ns(self) -> int:
        return self._period

    @timer_period_ns.setter
    def timer_period_ns(self, value: int) -> None:
        self._period = int(value)

    def is_canceled(self) -> bool:
        return self._canceled

    def cancel(self) -> None:
        self._canceled = True

    def reset(self) -> None:
        """Starts anew: the next call comes one period from now."""
        self._next = self.clock.now_ns() + self._period
        self._canceled = False
        self.node.wake_executor()

    def is_ready(self) -> bool:
        return not self._canceled and self.remaining_ns() <= 0

    def remaining_ns(self) -> int:
        """Nanoseconds on the timer's clock until the next call."""
        now = self.clock.now_ns()
        if self._next - now > self._period:  # the clock jumped back
            self._next, self._last = now + self._period, min(self._last, now)
        return self._next - now

    def time_until_next_call(self) -> int | None:
        return None if self._canceled else self.remaining_ns()

    def time_since_last_call(self) -> int:
        return self.clock.now_ns() - self._last

    def take(self) -> Callable[[], Any] | None:
        """The call that is due, None if there is none."""
        if not self.is_ready():
            return None
        now = self.clock.now_ns()
        self._last = now
        self._next += self._period
        if self._next < now:  # rcl's rule: by as many periods as bring it to now or behind it
            missed = -((self._next - now) // self._period) if self._period else 0
            self._next = self._next + missed * self._period if self._period else now
        return self.callback

    def destroy(self) -> None:
        self.node.destroy_timer(self)
