"""The DDS side of one process: participant, topics, writers and readers of serialised messages, waiting.

Waiting is done with wait sets only: data listeners of Cyclone call Python from its receive threads and can deadlock on
the interpreter lock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from cyclonedds.core import DDSException, GuardCondition, InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.internal import InvalidSample
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from usx_runtime.dds import config, quality
from usx_runtime.dds.graph import Graph
from usx_runtime.dds.typehash import type_hash
from usx_runtime.dds.types import raw_type, wrap
from usx_runtime.qos import QoSProfile

_UNREAD = SampleState.NotRead | ViewState.Any | InstanceState.Any
_SECOND = 1_000_000_000


class RawSample(NamedTuple):
    """One received message."""

    data: bytes  # CDR with header
    source_ns: int  # time of writing, nanoseconds since 1970
    received_ns: int  # time of taking


class RawWriter:
    """Writes serialised messages; made by Participant.create_writer."""

    def __init__(self, participant: Participant, topic: Topic, qos: Qos) -> None:
        self._participant = participant
        self._kind = topic.data_type
        self._writer: Any = DataWriter(participant.entity, topic, qos)
        self.gid = self._writer.guid.bytes

    def write(self, cdr: bytes | bytearray | memoryview, stamp_ns: int | None = None) -> None:
        """Sends one message; never waits for a reader. Raises RuntimeError on a closed writer or a DDS error."""
        if self._writer is None:
            raise RuntimeError("the writer is closed")
        try:
            self._writer.write(wrap(self._kind, bytes(cdr)), stamp_ns)
        except DDSException as error:
            if error.code != DDSException.DDS_RETCODE_TIMEOUT:
                raise RuntimeError(f"DDS could not write: {error}") from error

    def refused(self) -> int:
        """Number of readers newly found whose QoS this writer does not meet."""
        return self._writer.get_offered_incompatible_qos_status().total_count_change if self._writer else 0

    def matched(self) -> int:
        """Number of readers connected."""
        return len(self._writer.get_matched_subscriptions()) if self._writer is not None else 0

    def wait_for_acknowledgements(self, seconds: float) -> bool:
        """Whether all reliable readers confirmed all messages within `seconds`."""
        return _acknowledged(self._writer, int(seconds * _SECOND))

    def close(self) -> None:
        """Removes the writer; what latched it is gone with it."""
        if self._writer is not None:
            self._participant.forget(self.gid)
            self._writer = None


def _acknowledged(writer: Any, nanoseconds: int) -> bool:
    try:
        return bool(writer.wait_for_acks(nanoseconds))
    except (DDSException, AttributeError):  # cyclonedds 11.0.1 takes the time-out's code from the wrong class
        return False


class RawReader:
    """Receives serialised messages; made by Participant.create_reader."""

    def __init__(self, participant: Participant, topic: Topic, qos: Qos) -> None:
        self._participant = participant
        self._reader: Any = DataReader(participant.entity, topic, qos)
        self.condition: Any = ReadCondition(self._reader, _UNREAD)
        self.gid = self._reader.guid.bytes

    def take(self, limit: int = 1) -> list[RawSample]:
        """Up to `limit` messages that have arrived, oldest first; does not wait."""
        if self._reader is None:
            return []
        now = time.time_ns()
        return [
            RawSample(sample.data, sample.sample_info.source_timestamp, now)
            for sample in self._reader.take(limit) if not isinstance(sample, InvalidSample)
        ]

    def ready(self) -> bool:
        """Whether something has arrived."""
        return self.condition is not None and self.condition.triggered

    def refused(self) -> int:
        """Number of writers newly found that do not meet this reader's QoS."""
        return self._reader.get_requested_incompatible_qos_status().total_count_change if self._reader else 0

    def matched(self) -> int:
        """Number of writers connected."""
        return len(self._reader.get_matched_publications()) if self._reader is not None else 0

    def close(self) -> None:
        if self._reader is not None:
            self._participant.forget(self.gid)
            self.condition = None
            self._reader = None


class Waiter:
    """A wait set over readers, which another thread can wake."""

    def __init__(self, participant: Participant) -> None:
        self._waitset: Any = WaitSet(participant.entity)
        self._guard: Any = GuardCondition(participant.entity)
        self._waitset.attach(self._guard)
        self._attached: dict[int, Any] = {}
        self._lock = threading.RLock()  # a signal handler may wake the thread that it interrupts

    def watch(self, readers: Iterable[RawReader]) -> None:
        """Replaces the readers watched."""
        wanted = {id(r.condition): r.condition for r in readers if r.condition is not None}
        for key in self._attached.keys() - wanted.keys():
            self._waitset.detach(self._attached.pop(key))
        for key in wanted.keys() - self._attached.keys():
            self._waitset.attach(wanted[key])
            self._attached[key] = wanted[key]

    def wait(self, seconds: float) -> None:
        """Sleeps until a watched reader has data, `wake` is called, or the time is over."""
        self._waitset.wait(max(0, int(seconds * _SECOND)))
        with self._lock:
            if self._guard is not None:
                self._guard.take()

    def wake(self) -> None:
        """Ends the wait in progress, or the next one."""
        with self._lock:
            if self._guard is not None:
                self._guard.set(True)

    def close(self) -> None:
        with self._lock:
            self.watch(())
            if self._guard is not None:
                self._waitset.detach(self._guard)
            self._guard = self._waitset = None


class _Domains:
    """The Cyclone domains of this process, one per id however many participants use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, tuple[Domain, int]] = {}

    def enter(self, number: int) -> None:
        with self._lock:
            domain, users = self._open.get(number, (None, 0))
            if domain is None:
                try:
                    domain = Domain(number, config.cyclone_config(domain=number))
                except DDSException as error:
                    raise _refusal(number, error) from error
            self._open[number] = (domain, users + 1)

    def leave(self, number: int) -> None:
        with self._lock:
            domain, users = self._open.pop(number)
            if users > 1:
                self._open[number] = (domain, users - 1)


def _refusal(number: int, error: DDSException) -> config.DomainError:
    """Cyclone itself has written its reason to the standard error stream; its code does not tell."""
    uri = os.environ.get("CYCLONEDDS_URI", "")
    faulty = f", or CYCLONEDDS_URI is faulty: {uri}" if uri else ""
    return config.DomainError(
        f"cannot join DDS domain {number}: no free port (at most {config.participants(number)} processes share"
        f" a domain; choose another ROS_DOMAIN_ID), or no network interface{faulty} ({error})")


_DOMAINS = _Domains()


class Participant:
    """The member of a DDS domain that a process is; see the package docstring for its use.

    Raises DomainError for a domain id out of range and for a domain that has no free port left.
    """

    def __init__(self, domain_id: int | None = None) -> None:
        self.domain_id = config.domain_id() if domain_id is None else config.checked_domain(domain_id)
        _DOMAINS.enter(self.domain_id)
        try:
            self.entity: Any = DomainParticipant(self.domain_id, Qos(Policy.Userdata(b"enclave=/;")))
        except DDSException as error:
            _DOMAINS.leave(self.domain_id)
            raise _refusal(self.domain_id, error) from error
        self._topics: dict[tuple[str, str], Topic] = {}
        self._endpoints: dict[bytes, RawWriter | RawReader] = {}  # kept until closed: Cyclone's die with their objects
        self._lock = threading.RLock()
        self.graph = Graph(self)

    def __enter__(self) -> Participant:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self.entity is None

    def _topic(self, name: str, type_name: str, service: bool) -> Topic:
        """One object per topic and process: Cyclone matches endpoints of one process by it."""
        with self._lock:
            if self.entity is None:
                raise RuntimeError("the DDS participant is closed")
            key = (name, type_name)
            if key not in self._topics:
                self._topics[key] = Topic(self.entity, name, raw_type(type_name, service))
            return self._topics[key]

    def create_writer(
        self, topic: str, type_name: str, qos: QoSProfile, node: tuple[str, str] | None = None,
    ) -> RawWriter:
        """Writer of a ROS topic; `node` = (name, namespace) owns it in the graph. Raises UnknownType."""
        user_data = f"typehash={type_hash(type_name)};".encode()
        return self.open_writer("rt" + topic, type_name, quality.to_dds(qos, True, user_data), node)

    def create_reader(
        self, topic: str, type_name: str, qos: QoSProfile, node: tuple[str, str] | None = None,
    ) -> RawReader:
        """Reader of a ROS topic; `node` = (name, namespace) owns it in the graph. Raises UnknownType."""
        user_data = f"typehash={type_hash(type_name)};".encode()
        return self.open_reader("rt" + topic, type_name, quality.to_dds(qos, False, user_data), node)

    def open_writer(
        self, name: str, type_name: str, qos: Qos, node: tuple[str, str] | None = None, service: bool = False,
    ) -> RawWriter:
        """Writer of a DDS topic name with DDS policies."""
        writer = RawWriter(self, self._topic(name, type_name, service), qos)
        self._endpoints[writer.gid] = writer
        if node is not None:
            self.graph.own(writer.gid, node, True)
        return writer

    def open_reader(
        self, name: str, type_name: str, qos: Qos, node: tuple[str, str] | None = None, service: bool = False,
    ) -> RawReader:
        """Reader of a DDS topic name with DDS policies."""
        reader = RawReader(self, self._topic(name, type_name, service), qos)
        self._endpoints[reader.gid] = reader
        if node is not None:
            self.graph.own(reader.gid, node, False)
        return reader

    def forget(self, gid: bytes) -> None:
        """Takes a closed endpoint out of the graph."""
        self._endpoints.pop(gid, None)
        self.graph.disown(gid)

    def add_node(self, name: str, namespace: str = "/") -> None:
        """Announces a node to the ROS graph."""
        self.graph.add_node(name, namespace)

    def remove_node(self, name: str, namespace: str = "/") -> None:
        self.graph.remove_node(name, namespace)

    def create_waiter(self) -> Waiter:
        return Waiter(self)

    def wait(self, readers: Iterable[RawReader], seconds: float) -> bool:
        """Sleeps until one of `readers` has data or the time is over -> whether one has."""
        readers = list(readers)
        waiter = Waiter(self)
        waiter.watch(readers)
        waiter.wait(seconds)
        waiter.close()
        return any(reader.ready() for reader in readers)

    def close(self) -> None:
        """Leaves the domain; writers, readers and waiters of this participant are dead afterwards."""
        with self._lock:
            if self.entity is None:
                return
            self.graph.close()
            for endpoint in list(self._endpoints.values()):
                endpoint.close()
            self._topics.clear()
            self.entity = None
            _DOMAINS.leave(self.domain_id)

