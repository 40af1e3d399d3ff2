"""rclpy.client."""

from usx_runtime.rclpy.service import Client

__all__ = ["Client"]
