"""What a node can ask of the ROS graph."""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Any

from usx_runtime.dds import Endpoint
from usx_runtime.qos import QoSProfile
from usx_runtime.rclpy.names import fully_qualified

_POLL_S = 0.05


class TopicEndpointTypeEnum(IntEnum):
    INVALID = 0
    PUBLISHER = 1
    SUBSCRIPTION = 2


class TopicEndpointInfo:
    """Which node has which kind of end of a topic, with which quality of service."""

    def __init__(self, endpoint: Endpoint, kind: TopicEndpointTypeEnum) -> None:
        self.node_name: str = endpoint.node_name
        self.node_namespace: str = endpoint.node_namespace
        self.topic_type: str = endpoint.type_name
        self.topic_type_hash: str = endpoint.type_hash
        self.endpoint_type = kind
        self.endpoint_gid: list[int] = list(endpoint.gid)
        self.qos_profile: QoSProfile = endpoint.qos


class NodeGraph:
    """Base of Node with the queries of the graph. As in rclpy, the counts do not remap the name, the lists do."""

    participant: Any
    context: Any

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        raise NotImplementedError

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        return self.participant.graph.nodes()

    def get_node_names(self) -> list[str]:
        return [name for name, _ in self.get_node_names_and_namespaces()]

    def get_fully_qualified_node_names(self) -> list[str]:
        return [fully_qualified(*node) for node in self.get_node_names_and_namespaces()]

    def wait_for_node(self, fully_qualified_node_name: str, timeout: float) -> bool:
        """Whether a node appears within `timeout` seconds."""
        end = time.monotonic() + timeout
        wanted = "/" + fully_qualified_node_name.lstrip("/")
        while wanted not in self.get_fully_qualified_node_names():
            if time.monotonic() >= end or not self.context.ok():
                return False
            time.sleep(_POLL_S)
        return True

    def get_topic_names_and_types(self, no_demangle: bool = False) -> list[tuple[str, list[str]]]:
        graph = self.participant.graph
        if no_demangle:
            return [(name, sorted(types)) for name, types in sorted(graph.dds_topics().items())]
        return list(graph.topics().items())

    def get_service_names_and_types(self) -> list[tuple[str, list[str]]]:
        return list(self.participant.graph.services().items())

    def count_publishers(self, topic_name: str) -> int:
        return self.participant.graph.count("rt" + self.resolve_topic_name(topic_name, only_expand=True), True)

    def count_subscribers(self, topic_name: str) -> int:
        return self.participant.graph.count("rt" + self.resolve_topic_name(topic_name, only_expand=True), False)

    def get_publishers_info_by_topic(self, topic_name: str, no_mangle: bool = False) -> list[TopicEndpointInfo]:
        found = self.participant.graph.writers(self.resolve_topic_name(topic_name))
        return [TopicEndpointInfo(endpoint, TopicEndpointTypeEnum.PUBLISHER) for endpoint in found]

    def get_subscriptions_info_by_topic(self, topic_name: str, no_mangle: bool = False) -> list[TopicEndpointInfo]:
        found = self.participant.graph.readers(self.resolve_topic_name(topic_name))
        return [TopicEndpointInfo(endpoint, TopicEndpointTypeEnum.SUBSCRIPTION) for endpoint in found]
