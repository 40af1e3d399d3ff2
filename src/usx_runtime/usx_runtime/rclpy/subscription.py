"""rclpy.subscription."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from usx_runtime.messages import MalformedMessage, deserialize, type_name_of
from usx_runtime.qos import QoSProfile


def _wants_info(callback: Callable[..., Any]) -> bool:
    """Whether a callback takes the message information besides the message."""
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    return len(needed) == 2


class Subscription:
    """Hands the messages of a topic to a callback, oldest first."""

    def __init__(self, node: Any, msg_type: Any, topic: str, callback: Callable[..., Any], qos_profile: QoSProfile,
                 callback_group: Any, raw: bool = False) -> None:
        self.node, self.msg_type, self.topic, self.callback = node, msg_type, topic, callback
        self.qos_profile, self.callback_group, self.raw = qos_profile, callback_group, raw
        self._with_info = _wants_info(callback)
        self.reader = node.participant.create_reader(topic, type_name_of(msg_type), qos_profile, node.graph_name)
        callback_group.add_entity(self)

    @property
    def topic_name(self) -> str:
        return self.topic

    def get_publisher_count(self) -> int:
        return self.reader.matched()

    def is_ready(self) -> bool:
        return self.reader.ready()

    def take(self) -> Callable[[], Any] | None:
        """The callback for the oldest message that waits, None if there is none."""
        samples = self.reader.take(1)
        if not samples:
            return None
        sample = samples[0]
        try:
            message = sample.data if self.raw else deserialize(sample.data, self.msg_type)
        except MalformedMessage as error:
            self.node.get_logger().error(f"{self.topic}: message dropped: {error}")
            return None
        if not self._with_info:
            return lambda: self.callback(message)
        info = {"source_timestamp": sample.source_ns, "received_timestamp": sample.received_ns}
        return lambda: self.callback(message, info)

    def destroy(self) -> None:
        self.node.destroy_subscription(self)

    def close(self) -> None:
        self.reader.close()
