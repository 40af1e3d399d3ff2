"""The ROS graph: which nodes, topics and endpoints exist.

DDS discovery knows the endpoints; `ros_discovery_info`, which every ROS process publishes, tells which node owns each.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from cyclonedds.builtin import (
    BuiltinDataReader,
    BuiltinTopicDcpsParticipant,
    BuiltinTopicDcpsPublication,
    BuiltinTopicDcpsSubscription,
)
from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState
from cyclonedds.qos import Policy

from usx_runtime.dds import quality
from usx_runtime.dds.types import ros_type_name
from usx_runtime.messages import MalformedMessage, deserialize, get_message, serialize
from usx_runtime.qos import DurabilityPolicy, HistoryPolicy, QoSProfile

if TYPE_CHECKING:
    from usx_runtime.dds.participant import Participant

INFO_TOPIC, INFO_TYPE = "ros_discovery_info", "rmw_dds_common/msg/ParticipantEntitiesInfo"
UNKNOWN_NODE = ("_NODE_NAME_UNKNOWN_", "_NODE_NAMESPACE_UNKNOWN_")
_ALIVE = SampleState.Any | ViewState.Any | InstanceState.Alive
_ALL = 100_000
Name = tuple[str, str]


class Endpoint(NamedTuple):
    """A publisher or subscription somewhere in the domain."""

    topic: str
    type_name: str
    type_hash: str  # RIHS01_..., empty where the peer does not tell
    qos: QoSProfile
    gid: bytes
    node_name: str
    node_namespace: str


class Graph:
    """What a participant tells and knows of the ROS graph."""

    def __init__(self, participant: Participant) -> None:
        self._participant = participant
        self._lock = threading.RLock()
        self._gid = participant.entity.guid.bytes
        self._nodes: dict[Name, tuple[list[bytes], list[bytes]]] = {}  # -> gids of readers, of writers
        self._others: dict[bytes, list[Any]] = {}  # participant gid -> its NodeEntitiesInfo
        self._builtin: dict[Any, tuple[Any, Any]] = {}
        latched = {"durability": DurabilityPolicy.TRANSIENT_LOCAL}
        self._writer: Any = None
        self._reader: Any = None
        self._writer = participant.open_writer(
            INFO_TOPIC, INFO_TYPE, quality.to_dds(QoSProfile(depth=1, **latched), True))
        self._reader = participant.open_reader(
            INFO_TOPIC, INFO_TYPE, quality.to_dds(QoSProfile(history=HistoryPolicy.KEEP_ALL, **latched), False))

    # what this process tells

    def add_node(self, name: str, namespace: str) -> None:
        with self._lock:
            self._nodes.setdefault((name, namespace), ([], []))
            self._announce()

    def remove_node(self, name: str, namespace: str) -> None:
        with self._lock:
            if self._nodes.pop((name, namespace), None) is not None:
                self._announce()

    def own(self, gid: bytes, node: Name | None, writer: bool) -> None:
        """Notes that `node` has an endpoint."""
        with self._lock:
            if node in self._nodes:
                self._nodes[node][writer].append(gid)
                self._announce()

    def disown(self, gid: bytes) -> None:
        with self._lock:
            for lists in self._nodes.values():
                for gids in lists:
                    if gid in gids:
                        gids.remove(gid)
                        self._announce()

    def _announce(self) -> None:
        if self._writer is None:
            return
        make_gid, make_node = get_message("rmw_dds_common/msg/Gid"), get_message("rmw_dds_common/msg/NodeEntitiesInfo")

        def gids(values: list[bytes]) -> list[Any]:
            return [make_gid(data=value) for value in values]

        message = get_message(INFO_TYPE)(gid=make_gid(data=self._gid), node_entities_info_seq=[
            make_node(node_name=name, node_namespace=namespace, reader_gid_seq=gids(readers),
                      writer_gid_seq=gids(writers))
            for (name, namespace), (readers, writers) in self._nodes.items()
        ])
        self._writer.write(serialize(message))

    # what it knows

    def drain(self) -> None:
        """Takes in what other processes have told."""
        with self._lock:
            if self._reader is None:
                return
            kind = get_message(INFO_TYPE)
            for sample in self._reader.take(_ALL):
                try:
                    message = deserialize(sample.data, kind)
                except MalformedMessage:  # a peer of ROS 2 Humble or older has gids of 24 bytes
                    continue
                self._others[bytes(message.gid.data)] = message.node_entities_info_seq

    def _discovered(self, topic: Any) -> list[Any]:
        with self._lock:
            if self._participant.entity is None:
                return []
            if topic not in self._builtin:
                reader = BuiltinDataReader(self._participant.entity, topic)
                self._builtin[topic] = (reader, ReadCondition(reader, _ALIVE))
            reader, condition = self._builtin[topic]
            return reader.read(_ALL, condition)

    def nodes(self) -> list[Name]:
        """(name, namespace) of every node, own and foreign."""
        self.drain()
        alive = {sample.key.bytes for sample in self._discovered(BuiltinTopicDcpsParticipant)}
        with self._lock:
            for gid in self._others.keys() - alive:
                del self._others[gid]
            found = list(self._nodes)
            for gid, infos in self._others.items():
                if gid != self._gid:
                    found += [(info.node_name, info.node_namespace) for info in infos]
        return found

    def _owners(self) -> dict[bytes, Name]:
        self.nodes()
        with self._lock:
            owners = {gid: node for node, lists in self._nodes.items() for gids in lists for gid in gids}
            for infos in self._others.values():
                for info in infos:
                    for gid in (*info.reader_gid_seq, *info.writer_gid_seq):
                        owners[bytes(gid.data)] = (info.node_name, info.node_namespace)
        return owners

    def _endpoints(self, builtin: Any, dds_topic: str | None) -> list[Endpoint]:
        owners = self._owners()
        found = []
        for sample in self._discovered(builtin):
            if dds_topic is not None and sample.topic_name != dds_topic:
                continue
            name, namespace = owners.get(sample.key.bytes, UNKNOWN_NODE)
            topic = sample.topic_name[2:] if sample.topic_name.startswith("rt/") else sample.topic_name
            found.append(Endpoint(topic, ros_type_name(sample.type_name), user_value(sample.qos, "typehash"),
                                  quality.from_dds(sample.qos), sample.key.bytes, name, namespace))
        return found

    def writers(self, topic: str | None = None, dds_topic: str | None = None) -> list[Endpoint]:
        """Publishers of a ROS topic (or of a DDS topic name, or all)."""
        return self._endpoints(BuiltinTopicDcpsPublication, f"rt{topic}" if topic else dds_topic)

    def readers(self, topic: str | None = None, dds_topic: str | None = None) -> list[Endpoint]:
        """Subscriptions of a ROS topic (or of a DDS topic name, or all)."""
        return self._endpoints(BuiltinTopicDcpsSubscription, f"rt{topic}" if topic else dds_topic)

    def count(self, dds_topic: str, writers: bool) -> int:
        """Number of writers or readers of a DDS topic."""
        builtin = BuiltinTopicDcpsPublication if writers else BuiltinTopicDcpsSubscription
        return sum(sample.topic_name == dds_topic for sample in self._discovered(builtin))

    def dds_topics(self) -> dict[str, set[str]]:
        """DDS topic names of all endpoints -> their DDS type names."""
        found: dict[str, set[str]] = {}
        for builtin in (BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription):
            for sample in self._discovered(builtin):
                found.setdefault(sample.topic_name, set()).add(sample.type_name)
        return found

    def topics(self) -> dict[str, list[str]]:
        """ROS topics -> ROS types, sorted."""
        return {name[2:]: sorted(map(ros_type_name, types)) for name, types in sorted(self.dds_topics().items())
                if name.startswith("rt/")}

    def services(self) -> dict[str, list[str]]:
        """ROS services -> ROS types, sorted."""
        return {
            name[2:-len("Request")]: sorted(ros_type_name(kind).removesuffix("_Request") for kind in types)
            for name, types in sorted(self.dds_topics().items())
            if name.startswith("rq/") and name.endswith("Request")
        }

    def close(self) -> None:
        with self._lock:
            self._nodes.clear()
            self._builtin.clear()
            self._writer = self._reader = None  # the participant closes them


def user_value(qos: Any, key: str) -> str:
    """Value of `key=value;` in an endpoint's USER_DATA, empty where it is not there."""
    policy = qos[Policy.Userdata]
    text = policy.data.decode("utf-8", "replace") if policy is not None else ""
    for part in text.split(";"):
        name, _, value = part.partition("=")
        if name == key:
            return value
    return ""

