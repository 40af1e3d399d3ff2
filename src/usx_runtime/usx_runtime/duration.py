"""Spans of time, as rclpy.duration has them."""

from __future__ import annotations

from typing import Any

SECOND = 1_000_000_000
INT64_MAX = 2**63 - 1


def total_nanoseconds(seconds: float, nanoseconds: float) -> int:
    """`seconds` + `nanoseconds` as whole nanoseconds; a fraction of a second is not rounded through one float."""
    whole = int(seconds)
    return whole * SECOND + int((seconds - whole) * SECOND) + int(nanoseconds)


class Duration:
    """A signed span of time in whole nanoseconds (64 bits)."""

    def __init__(self, *, seconds: float = 0, nanoseconds: int = 0) -> None:
        total = total_nanoseconds(seconds, nanoseconds)
        if not -INT64_MAX - 1 <= total <= INT64_MAX:
            raise OverflowError("Total nanoseconds value is too large to store in C duration.")
        self._nanoseconds = total

    @property
    def nanoseconds(self) -> int:
        return self._nanoseconds

    def __repr__(self) -> str:
        return f"Duration(nanoseconds={self._nanoseconds})"

    def __str__(self) -> str:
        return "Infinite" if self._nanoseconds == INT64_MAX else f"{self._nanoseconds} nanoseconds"

    def __hash__(self) -> int:
        return hash(self._nanoseconds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self._nanoseconds == other._nanoseconds

    def _other(self, other: Any) -> int:
        if not isinstance(other, Duration):
            raise TypeError(f"a Duration cannot be compared with {type(other).__name__}")
        return other._nanoseconds

    def __lt__(self, other: Any) -> bool:
        return self._nanoseconds < self._other(other)

    def __le__(self, other: Any) -> bool:
        return self._nanoseconds <= self._other(other)

    def __gt__(self, other: Any) -> bool:
        return self._nanoseconds > self._other(other)

    def __ge__(self, other: Any) -> bool:
        return self._nanoseconds >= self._other(other)

    def to_msg(self) -> Any:
        """builtin_interfaces/msg/Duration."""
        from usx_runtime.messages import get_message

        seconds, nanoseconds = divmod(self._nanoseconds, SECOND)
        return get_message("builtin_interfaces/msg/Duration")(sec=seconds, nanosec=nanoseconds)

    @classmethod
    def from_msg(cls, msg: Any) -> Duration:
        """Of a builtin_interfaces/msg/Duration."""
        if type(msg).__name__ != "Duration" or not hasattr(msg, "nanosec"):
            raise TypeError("Must pass a builtin_interfaces.msg.Duration object")
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec)


Infinite = Duration(nanoseconds=INT64_MAX)
