"""rclpy.time: points in time."""

from __future__ import annotations

from typing import Any

from usx_runtime.duration import SECOND, Duration, total_nanoseconds
from usx_runtime.rclpy.clock_type import ClockType

CONVERSION_CONSTANT = SECOND


class Time:
    """A point in time in whole nanoseconds of a clock type; two clock types cannot be compared."""

    def __init__(
        self, *, seconds: float = 0, nanoseconds: int = 0, clock_type: ClockType = ClockType.SYSTEM_TIME,
    ) -> None:
        if not isinstance(clock_type, ClockType):
            raise TypeError("Clock type must be a ClockType enum")
        if seconds < 0:
            raise ValueError("Seconds value must not be negative")
        if nanoseconds < 0:
            raise ValueError("Nanoseconds value must not be negative")
        total = total_nanoseconds(seconds, nanoseconds)
        if total >= 2**63:
            raise OverflowError("Total nanoseconds value is too large to store in C time point.")
        self._nanoseconds = total
        self._clock_type = clock_type

    @property
    def nanoseconds(self) -> int:
        return self._nanoseconds

    @property
    def clock_type(self) -> ClockType:
        return self._clock_type

    def seconds_nanoseconds(self) -> tuple[int, int]:
        """(whole seconds, remaining nanoseconds)."""
        return self._nanoseconds // SECOND, self._nanoseconds % SECOND

    def __repr__(self) -> str:
        return f"Time(nanoseconds={self._nanoseconds}, clock_type={self._clock_type.name})"

    def __add__(self, other: Any) -> Time:
        if not isinstance(other, Duration):
            return NotImplemented
        return self._shifted(other.nanoseconds)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, Time):
            self._same_clock(other, "subtract times")
            return Duration(nanoseconds=self._nanoseconds - other._nanoseconds)
        if isinstance(other, Duration):
            return self._shifted(-other.nanoseconds)
        return NotImplemented

    def _shifted(self, nanoseconds: int) -> Time:
        try:
            return Time(nanoseconds=self._nanoseconds + nanoseconds, clock_type=self._clock_type)
        except OverflowError as error:
            raise OverflowError("Addition leads to overflow in C storage.") from error
        except ValueError as error:
            raise ValueError("Subtraction leads to negative time.") from error

    def _same_clock(self, other: Time, action: str) -> None:
        if self._clock_type != other._clock_type:
            raise TypeError(f"Can't {action} with different clock types")

    def _other(self, other: Any) -> int:
        if not isinstance(other, Time):
            raise TypeError(f"a Time cannot be compared with {type(other).__name__}")
        self._same_clock(other, "compare times")
        return other._nanoseconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Time) and self._nanoseconds == self._other(other)

    def __hash__(self) -> int:
        return hash((self._nanoseconds, self._clock_type))

    def __lt__(self, other: Any) -> bool:
        return self._nanoseconds < self._other(other)

    def __le__(self, other: Any) -> bool:
        return self._nanoseconds <= self._other(other)

    def __gt__(self, other: Any) -> bool:
        return self._nanoseconds > self._other(other)

    def __ge__(self, other: Any) -> bool:
        return self._nanoseconds >= self._other(other)

    def to_msg(self) -> Any:
        """builtin_interfaces/msg/Time."""
        from usx_runtime.messages import get_message

        seconds, nanoseconds = self.seconds_nanoseconds()
        return get_message("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)

    @classmethod
    def from_msg(cls, msg: Any, clock_type: ClockType = ClockType.ROS_TIME) -> Time:
        """Of a builtin_interfaces/msg/Time."""
        if type(msg).__name__ != "Time" or not hasattr(msg, "nanosec"):
            raise TypeError("Must pass a builtin_interfaces.msg.Time object")
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec, clock_type=clock_type)
