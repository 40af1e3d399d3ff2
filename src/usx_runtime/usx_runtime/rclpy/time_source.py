"""rclpy.time_source: a node's ROS clock follows /clock while its parameter use_sim_time is true."""

from __future__ import annotations

from typing import Any

from usx_runtime.messages import get_message
from usx_runtime.qos import QoSProfile, ReliabilityPolicy
from usx_runtime.rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from usx_runtime.rclpy.clock import ROSClock
from usx_runtime.rclpy.parameter import Parameter
from usx_runtime.rclpy.time import Time

CLOCK_TOPIC = "/clock"
USE_SIM_TIME_NAME = "use_sim_time"
_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class TimeSource:
    """Switches `clock` between system time and /clock."""

    def __init__(self, node: Any, clock: ROSClock) -> None:
        self._node, self._clock = node, clock
        self._subscription: Any = None
        if not node.has_parameter(USE_SIM_TIME_NAME):
            node.declare_parameter(USE_SIM_TIME_NAME, False)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._follow)
        self._switch(node.get_parameter(USE_SIM_TIME_NAME).value)

    def _check(self, parameters: list[Parameter]) -> Any:
        result = get_message("rcl_interfaces/msg/SetParametersResult")(successful=True)
        if any(p.name == USE_SIM_TIME_NAME and p.type_ is not Parameter.Type.BOOL for p in parameters):
            result.successful, result.reason = False, f"{USE_SIM_TIME_NAME} parameter must be a boolean"
        return result

    def _follow(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == USE_SIM_TIME_NAME:
                self._switch(parameter.value)

    def _switch(self, enabled: bool) -> None:
        self._clock._set_ros_time_is_active(enabled)
        if enabled and self._subscription is None:
            self._subscription = self._node.create_subscription(
                get_message("rosgraph_msgs/msg/Clock"), CLOCK_TOPIC, self._on_clock, _QOS,
                callback_group=MutuallyExclusiveCallbackGroup())
        elif not enabled and self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_clock(self, message: Any) -> None:
        self._clock.set_ros_time_override(Time.from_msg(message.clock))
