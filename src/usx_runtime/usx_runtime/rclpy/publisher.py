"""rclpy.publisher."""

from __future__ import annotations

from typing import Any

from usx_runtime.duration import SECOND, Duration
from usx_runtime.messages import serialize, type_name_of
from usx_runtime.qos import QoSProfile


class Publisher:
    """Publishes messages of one type on one topic; publish() never waits for a subscriber."""

    def __init__(self, node: Any, msg_type: Any, topic: str, qos_profile: QoSProfile) -> None:
        self.node, self.msg_type, self.topic, self.qos_profile = node, msg_type, topic, qos_profile
        self._writer = node.participant.create_writer(topic, type_name_of(msg_type), qos_profile, node.graph_name)

    @property
    def topic_name(self) -> str:
        return self.topic

    @property
    def logger_name(self) -> str:
        return self.node.get_logger().name

    def publish(self, msg: Any) -> None:
        """Sends a message, or one that is serialised already (bytes). Raises TypeError for another type."""
        if isinstance(msg, self.msg_type):
            self._writer.write(serialize(msg))
        elif isinstance(msg, bytes):
            self._writer.write(msg)
        else:
            raise TypeError(f"Expected {self.msg_type}, got {type(msg)}")

    def get_subscription_count(self) -> int:
        return self._writer.matched()

    def wait_for_all_acked(self, timeout: Duration = Duration(seconds=-1)) -> bool:  # noqa: B008
        """Whether every reliable subscriber has confirmed what was published."""
        limit = timeout.nanoseconds / SECOND
        return self._writer.wait_for_acknowledgements(limit if limit >= 0 else 3600.0)

    def destroy(self) -> None:
        self.node.destroy_publisher(self)

    def close(self) -> None:
        self._writer.close()
