"""TransformListener and the broadcasters: tf2_ros' ends of /tf and /tf_static."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from threading import Thread
from typing import Any

from usx_runtime import messages
from usx_runtime.qos import DurabilityPolicy, QoSProfile
from usx_runtime.tf2_ros.buffer import Buffer

DYNAMIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.VOLATILE)
STATIC_LISTENER_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STATIC_BROADCASTER_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class TransformListener:
    """Fills `buffer` from /tf and /tf_static.

    `spin_thread`: run the node's callbacks in a thread of its own, as tf2_ros does."""

    def __init__(
        self,
        buffer: Buffer,
        node: Any,
        *,
        spin_thread: bool = False,
        qos: QoSProfile | None = None,
        static_qos: QoSProfile | None = None,
    ) -> None:
        from usx_runtime.rclpy.callback_groups import ReentrantCallbackGroup

        self.buffer = buffer
        self.node = node
        buffer.watch_clock(node.get_clock())
        self.group = ReentrantCallbackGroup()
        kind = messages.get_message("tf2_msgs/msg/TFMessage")
        self.tf_sub = node.create_subscription(
            kind, "/tf", self.callback, qos or DYNAMIC_QOS, callback_group=self.group
        )
        self.tf_static_sub = node.create_subscription(
            kind, "/tf_static", self.static_callback, static_qos or STATIC_LISTENER_QOS, callback_group=self.group
        )
        if spin_thread:
            self._spin_in_thread()

    def _spin_in_thread(self) -> None:
        from usx_runtime.rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

        self.executor = SingleThreadedExecutor(context=self.node.context)
        self.executor.add_node(self.node)

        def run() -> None:
            with suppress(ExternalShutdownException):
                self.executor.spin()

        self.dedicated_listener_thread = Thread(target=run, daemon=True, name="transform_listener")
        self.dedicated_listener_thread.start()

    def callback(self, data: Any) -> None:
        for transform in data.transforms:
            self.buffer.set_transform(transform, "default_authority")

    def static_callback(self, data: Any) -> None:
        for transform in data.transforms:
            self.buffer.set_transform_static(transform, "default_authority")

    def unregister(self) -> None:
        """Stop listening."""
        self.node.destroy_subscription(self.tf_sub)
        self.node.destroy_subscription(self.tf_static_sub)


class TransformBroadcaster:
    """Publishes transforms on /tf."""

    def __init__(self, node: Any, qos: QoSProfile | int | None = None) -> None:
        self._kind = messages.get_message("tf2_msgs/msg/TFMessage")
        self.pub_tf = node.create_publisher(self._kind, "/tf", DYNAMIC_QOS if qos is None else qos)

    def sendTransform(self, transform: Any) -> None:
        """Publish one TransformStamped or several."""
        self.pub_tf.publish(self._kind(transforms=_as_list(transform)))


class StaticTransformBroadcaster:
    """Publishes transforms on /tf_static: a latched message with the latest transform of every child frame."""

    def __init__(self, node: Any, qos: QoSProfile | int | None = None) -> None:
        self._kind = messages.get_message("tf2_msgs/msg/TFMessage")
        self.pub_tf = node.create_publisher(self._kind, "/tf_static", STATIC_BROADCASTER_QOS if qos is None else qos)
        self._latest: dict[str, Any] = {}

    def sendTransform(self, transform: Any) -> None:
        """Publish one TransformStamped or several, together with those sent before."""
        self._latest.update({item.child_frame_id: item for item in _as_list(transform)})
        self.pub_tf.publish(self._kind(transforms=list(self._latest.values())))


def _as_list(transform: Any) -> list[Any]:
    return list(transform) if isinstance(transform, Iterable) else [transform]
