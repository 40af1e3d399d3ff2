"""rclpy.duration."""

from usx_runtime.duration import Duration, Infinite

__all__ = ["Duration", "Infinite"]
