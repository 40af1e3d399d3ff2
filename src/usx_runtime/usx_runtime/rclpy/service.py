"""rclpy.service and rclpy.client on the wire of rmw_cyclonedds.

A request travels on `rq/NAMERequest`, its answer on `rr/NAMEReply`; before the fields stand 16 bytes, the client's
number and the request's, which the answer repeats.
"""

from __future__ import annotations

import secrets
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from usx_runtime.cdr import HEADER
from usx_runtime.dds import quality
from usx_runtime.dds.typehash import type_hash
from usx_runtime.messages import MalformedMessage, deserialize, serialize, type_name_of
from usx_runtime.qos import QoSProfile
from usx_runtime.rclpy.task import Future

_IDENTITY = struct.Struct("<Qq")
_START = len(HEADER)
_BODY = _START + _IDENTITY.size
_CONNECTING_S = 0.1  # how long an answer waits for the client's reader to be discovered
_POLL_S = 0.02


def _pack(client: int, number: int, message: Any) -> bytes:
    return HEADER + _IDENTITY.pack(client, number) + serialize(message)[_START:]


def _unpack(data: bytes, kind: Any) -> tuple[int, int, Any]:
    if len(data) < _BODY:
        raise MalformedMessage(f"{len(data)} bytes are no service message")
    client, number = _IDENTITY.unpack_from(data, _START)
    return client, number, deserialize(data[:_START] + data[_BODY:], kind)


class _Ends:
    """The two DDS endpoints of a service's or a client's side."""

    def __init__(self, node: Any, srv_type: Any, name: str, qos: QoSProfile, role: str) -> None:
        self.node, self.srv_type, self.name, self.qos_profile = node, srv_type, name, qos
        kind = type_name_of(srv_type)
        request, reply = (f"rq{name}Request", f"{kind}_Request"), (f"rr{name}Reply", f"{kind}_Response")
        writes, reads = (request, reply) if role == "client" else (reply, request)
        identity = ".".join(f"{b:x}" for b in secrets.token_bytes(16))
        data = f"{role}id= {identity};typehash={type_hash(kind)};".encode()
        participant, owner = node.participant, node.graph_name
        self.reader = participant.open_reader(*reads, quality.to_dds(qos, False, data), owner, service=True)
        self.writer = participant.open_writer(*writes, quality.to_dds(qos, True, data), owner, service=True)

    def is_ready(self) -> bool:
        return self.reader.ready()

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


class Service(_Ends):
    """Answers requests with `callback(request, response) -> response`."""

    def __init__(self, node: Any, srv_type: Any, srv_name: str, callback: Callable[..., Any], callback_group: Any,
                 qos_profile: QoSProfile) -> None:
        super().__init__(node, srv_type, srv_name, qos_profile, "service")
        self.srv_name, self.callback, self.callback_group = srv_name, callback, callback_group
        callback_group.add_entity(self)

    @property
    def service_name(self) -> str:
        return self.name

    def take(self) -> Callable[[], Any] | None:
        for sample in self.reader.take(1):
            try:
                client, number, request = _unpack(sample.data, self.srv_type.Request)
            except MalformedMessage as error:
                self.node.get_logger().error(f"{self.name}: request dropped: {error}")
                continue
            return lambda: self._answer(client, number, request)
        return None

    def _answer(self, client: int, number: int, request: Any) -> None:
        response = self.callback(request, self.srv_type.Response())
        if not isinstance(response, self.srv_type.Response):
            raise TypeError(f"the callback of service {self.name} returned {response!r}, not the response")
        deadline = time.monotonic() + _CONNECTING_S
        while self.writer.matched() < self.reader.matched() and time.monotonic() < deadline:
            time.sleep(0.001)
        self.writer.write(_pack(client, number, response))

    def destroy(self) -> None:
        self.node.destroy_service(self)


class Client(_Ends):
    """Calls a service."""

    def __init__(self, node: Any, srv_type: Any, srv_name: str, qos_profile: QoSProfile, callback_group: Any) -> None:
        super().__init__(node, srv_type, srv_name, qos_profile, "client")
        self.srv_name, self.callback_group = srv_name, callback_group
        self._identity, self._number = secrets.randbits(63), 0
        self._pending: dict[int, Future] = {}
        self._lock = threading.Lock()
        callback_group.add_entity(self)

    @property
    def service_name(self) -> str:
        return self.name

    def service_is_ready(self) -> bool:
        return self.writer.matched() > 0 and self.reader.matched() > 0

    def wait_for_service(self, timeout_sec: float | None = None) -> bool:
        """Waits until a server is connected -> False when the time is over or the context shut down."""
        limit = float("inf") if timeout_sec is None or timeout_sec < 0 else timeout_sec
        end = time.monotonic() + limit
        while self.node.context.ok() and not self.service_is_ready() and time.monotonic() < end:
            time.sleep(max(0.0, min(_POLL_S, end - time.monotonic())))
        return self.service_is_ready()

    def call_async(self, request: Any) -> Future:
        """Sends a request -> the future of its answer, which an executor must be spinning to fulfil."""
        if not isinstance(request, self.srv_type.Request):
            raise TypeError(f"Expected {self.srv_type.Request}, got {type(request)}")
        future = Future()
        with self._lock:
            self._number += 1
            number = self._number
            self._pending[number] = future
        self.writer.write(_pack(self._identity, number, request))
        return future

    def call(self, request: Any, timeout_sec: float | None = None) -> Any:
        """Sends a request and waits for its answer; from a callback of a single-threaded executor it never comes.

        Raises TimeoutError."""
        done = threading.Event()
        future = self.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_sec):
            self.remove_pending_request(future)
            raise TimeoutError(f"service {self.name} gave no answer within {timeout_sec} s")
        return future.result()

    def remove_pending_request(self, future: Future) -> None:
        """Forgets a request whose answer is not wanted any more."""
        with self._lock:
            self._pending = {number: pending for number, pending in self._pending.items() if pending is not future}

    def take(self) -> Callable[[], Any] | None:
        for sample in self.reader.take(1):
            try:
                client, number, response = _unpack(sample.data, self.srv_type.Response)
            except MalformedMessage as error:
                self.node.get_logger().error(f"{self.name}: answer dropped: {error}")
                continue
            with self._lock:
                future = self._pending.pop(number, None) if client == self._identity else None
            if future is not None:
                return partial(future.set_result, response)
        return None

    def destroy(self) -> None:
        self.node.destroy_client(self)
