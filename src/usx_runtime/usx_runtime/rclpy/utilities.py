"""rclpy.utilities: the default context and its state."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from usx_runtime.rclpy import arguments
from usx_runtime.rclpy.context import Context

_default: Context | None = None


def get_default_context(*, shutting_down: bool = False) -> Context:
    """The context used where none is given."""
    global _default
    if _default is None:
        _default = Context()
    return _default


def fresh_default_context() -> Context:
    """The default context, replaced by a new one if it has been shut down."""
    global _default
    context = get_default_context()
    if context.ended:
        _default = context = Context()
    return context


def ok(*, context: Context | None = None) -> bool:
    return (context or get_default_context()).ok()


def shutdown(*, context: Context | None = None) -> None:
    (context or get_default_context()).shutdown()


def try_shutdown(*, context: Context | None = None) -> None:
    (context or get_default_context()).try_shutdown()


def remove_ros_args(args: Sequence[str] | None = None) -> list[str]:
    """`args` (sys.argv) without what stands behind --ros-args."""
    return arguments.parse(sys.argv if args is None else args).others


def get_rmw_implementation_identifier() -> str:
    return "rmw_cyclonedds_cpp"


def timeout_sec_to_nsec(timeout_sec: Any) -> int:
    """Seconds as nanoseconds; None and negative mean no limit (-1)."""
    return -1 if timeout_sec is None or timeout_sec < 0 else int(float(timeout_sec) * 1e9)
