"""What every usx node needs: checked parameters, /diagnostics, and a main function that ends cleanly."""

from __future__ import annotations

import gc
import math
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterValueException, NameValidationException, ParameterException
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from usx_common.counters import StreamCounters
from usx_common.errors import UsxError
from usx_common.parameters import Parameter, validate
from usx_common.rates import LatencyMeter, RateMeter

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
DIAGNOSTICS_PERIOD_S = 1.0


def declare_parameters(node: Node, table: Iterable[Parameter],
                       on_change: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Declare a table of parameters and return their checked values.

    Raises UsxError naming the parameter for a bad start value. Later changes are checked alike; a read-only one is
    refused. Accepted changes land in the returned dictionary and are handed to ``on_change``.
    """
    specifications = {parameter.name: parameter for parameter in table}
    values = {name: _declare(node, parameter) for name, parameter in specifications.items()}

    def on_set(changes: Sequence[RosParameter]) -> SetParametersResult:
        accepted: dict[str, Any] = {}
        try:
            for change in changes:
                if change.name in specifications:
                    accepted[change.name] = _changed(specifications[change.name], change.value)
        except UsxError as error:
            return SetParametersResult(successful=False, reason=str(error))
        values.update(accepted)
        if on_change is not None and accepted:
            on_change(accepted)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_set)
    return values


def _declare(node: Node, parameter: Parameter) -> Any:
    # dynamic typing: a value of another type reaches validate(), whose words name the value and what it must be
    descriptor = ParameterDescriptor(description=parameter.description, dynamic_typing=True)
    if not parameter.is_list:
        _describe_range(parameter, descriptor)
    default = list(parameter.default) if parameter.is_list else parameter.default
    try:
        declared = node.declare_parameter(parameter.name, default, descriptor)
    except InvalidParameterValueException as error:
        raise UsxError(str(error)) from error
    return validate(parameter, declared.value)


def _describe_range(parameter: Parameter, descriptor: ParameterDescriptor) -> None:
    """Let ``ros2 param describe`` show the range of a number."""
    low = -math.inf if parameter.minimum is None else float(parameter.minimum)
    high = math.inf if parameter.maximum is None else float(parameter.maximum)
    if parameter.element_type is float and (low, high) != (-math.inf, math.inf):
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    if parameter.element_type is int and math.isfinite(low) and math.isfinite(high):
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]


def _changed(parameter: Parameter, value: Any) -> Any:
    if parameter.read_only:
        raise UsxError(f"parameter '{parameter.name}' is fixed at start; restart the node to set it to {value!r}")
    return validate(parameter, value)


class Diagnostics:
    """Publishes /diagnostics once a second on the steady clock: the node's state in words, and each input stream.

    Statuses are named ``<node>: state`` and ``<node>: <stream>``.
    """

    def __init__(self, node: Node, hardware_id: str = "usx") -> None:
        self._node, self._hardware_id = node, hardware_id
        self._level, self._text = OK, "starting"
        self._facts: dict[str, str] = {}
        self._streams: dict[str, tuple[StreamCounters, RateMeter | None, LatencyMeter | None]] = {}
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # /clock stops with the bag; the reports must not
        self._timer = node.create_timer(DIAGNOSTICS_PERIOD_S, self.publish, clock=steady)

    def watch(self, counters: StreamCounters, rate: RateMeter | None = None,
              latency: LatencyMeter | None = None) -> StreamCounters:
        """Report a stream's counters, and its rate and latency where given; returns the counters."""
        self._streams[counters.name] = (counters, rate, latency)
        return counters

    def set_state(self, level: bytes, text: str, **facts: object) -> None:
        """What the node is doing, in one sentence, with named facts; a changed sentence is also logged."""
        changed = (level, text) != (self._level, self._text)
        self._level, self._text = level, text
        self._facts = {name: str(value) for name, value in facts.items()}
        if changed and level == OK:
            self._node.get_logger().info(text)
        elif changed:
            self._node.get_logger().warning(text)

    def publish(self) -> None:
        """Publish now; the timer does so once a second."""
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status = [self._status("state", self._level, self._text, self._facts),
                          *(self._stream_status(name) for name in self._streams)]
        self._publisher.publish(message)

    def _stream_status(self, name: str) -> DiagnosticStatus:
        counters, rate, latency = self._streams[name]
        account = counters.snapshot()
        values = {"received": str(account.received), "used": str(account.used), "pending": str(account.pending)}
        values |= {f"rejected.{reason}": str(count) for reason, count in sorted(account.rejected.items())}
        if rate is not None:
            values["rate_hz"] = f"{rate.rate():.1f}"
        if latency is not None:
            values["latency_p50_ms"] = f"{latency.percentile(50) * 1e3:.1f}"
            values["latency_p99_ms"] = f"{latency.percentile(99) * 1e3:.1f}"
        rejected = sum(account.rejected.values())
        level = WARN if rejected else OK
        text = f"{account.used} of {account.received} used, {rejected} rejected"
        return self._status(name, level, text, values)

    def _status(self, name: str, level: bytes, text: str, values: dict[str, str]) -> DiagnosticStatus:
        return DiagnosticStatus(level=level, name=f"{self._node.get_name()}: {name}", message=text,
                                hardware_id=self._hardware_id,
                                values=[KeyValue(key=key, value=value) for key, value in values.items()])


def make_executor(node: Node) -> Executor:
    """The executor that ``node`` is spun by: one thread, or as many as its attribute ``executor_threads`` asks for.

    A node asks for more when a service may take long; all its other callbacks then still belong to one mutually
    exclusive group (a node's default one), so that they never run at the same time.
    """
    threads = getattr(node, "executor_threads", 1)
    executor = MultiThreadedExecutor(num_threads=threads) if threads > 1 else SingleThreadedExecutor()
    executor.add_node(node)
    return executor


def run(make_node: Callable[[], Node], args: list[str] | None = None) -> int:
    """Main function of a node: spin until SIGINT or SIGTERM, then ``node.close()`` (where it has one) and shut down.

    What stops it at start (a bad parameter, a taken port, a domain out of range) is told in one line; the exit code is
    then 2.
    """
    node: Node | None = None
    try:
        rclpy.init(args=args)
        node = make_node()
    except KeyboardInterrupt:
        _end(node)
        return 0
    except (UsxError, RuntimeError, ParameterException, NameValidationException) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        _end(node)
        return 2
    gc.collect()
    gc.freeze()  # what was made at start stays: looking through it again would stop a node for a while
    try:
        make_executor(node).spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        _end(node)
    return 0


def _end(node: Node | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the orderly end
    if node is not None:
        close = getattr(node, "close", None)
        if close is not None:
            close()
        node.destroy_node()
    rclpy.try_shutdown()
