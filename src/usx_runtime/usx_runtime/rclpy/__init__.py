"""rclpy's API, on Cyclone DDS: what the usx nodes use of it. An API that is lacking says so by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from usx_runtime.rclpy.signals import SignalHandlerOptions, install_signal_handlers
from usx_runtime.rclpy.utilities import (
    fresh_default_context,
    get_default_context,
    get_rmw_implementation_identifier,
    ok,
    shutdown,
    try_shutdown,
)

__all__ = [
    "create_node", "get_default_context", "get_global_executor", "get_rmw_implementation_identifier", "init", "ok",
    "shutdown", "spin", "spin_once", "spin_until_future_complete", "try_shutdown",
]
_MODULES = (
    "callback_groups", "client", "clock", "context", "duration", "exceptions", "executors", "guard_condition",
    "logging", "node", "parameter", "publisher", "qos", "service", "signals", "subscription", "task", "time",
    "time_source", "timer", "utilities",
)
_executor: Any = None


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"rclpy.{name} is not part of the embedded rclpy")


class InitContextManager:
    """`with rclpy.init(): ...` shuts down at the end."""

    def __init__(self, context: Any) -> None:
        self.context = context

    def __enter__(self) -> InitContextManager:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        try_shutdown(context=self.context)


def init(
    *, args: Sequence[str] | None = None, context: Any = None, domain_id: int | None = None,
    signal_handler_options: SignalHandlerOptions | None = None,
) -> InitContextManager:
    """Starts ROS: reads the ROS arguments (of sys.argv) and, in the default context, handles SIGINT and SIGTERM."""
    if signal_handler_options is None:
        signal_handler_options = SignalHandlerOptions.ALL if context is None else SignalHandlerOptions.NO
    used = context or fresh_default_context()
    used.init(args, domain_id=domain_id)
    install_signal_handlers(signal_handler_options, used)
    return InitContextManager(used)


def create_node(node_name: str, **options: Any) -> Any:
    """A Node."""
    from usx_runtime.rclpy.node import Node

    return Node(node_name, **options)


def get_global_executor() -> Any:
    """The single-threaded executor of spin(), spin_once() and spin_until_future_complete()."""
    from usx_runtime.rclpy.executors import SingleThreadedExecutor

    global _executor
    context = get_default_context()
    if _executor is None or _executor.context is not context:
        _executor = SingleThreadedExecutor(context=context)
    return _executor


def spin_once(node: Any, *, executor: Any = None, timeout_sec: float | None = None) -> None:
    """Runs one callback of a node, waiting for it at most `timeout_sec`."""
    executor = executor or get_global_executor()
    try:
        executor.add_node(node)
        executor.spin_once(timeout_sec=timeout_sec)
    finally:
        executor.remove_node(node)


def spin(node: Any, executor: Any = None) -> None:
    """Runs the callbacks of a node until shutdown."""
    executor = executor or get_global_executor()
    try:
        executor.add_node(node)
        while executor.context.ok():
            executor.spin_once()
    finally:
        executor.remove_node(node)


def spin_until_future_complete(node: Any, future: Any, executor: Any = None, timeout_sec: float | None = None) -> None:
    """Runs the callbacks of a node until `future` is done."""
    executor = executor or get_global_executor()
    try:
        executor.add_node(node)
        executor.spin_until_future_complete(future, timeout_sec)
    finally:
        executor.remove_node(node)
