"""rclpy.clock_type."""

from enum import IntEnum


class ClockType(IntEnum):
    """Where a clock takes its time from."""

    UNINITIALIZED = 0
    ROS_TIME = 1
    SYSTEM_TIME = 2
    STEADY_TIME = 3
