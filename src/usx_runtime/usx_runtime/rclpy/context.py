"""rclpy.context: what init() opens and shutdown() closes: ROS arguments, the DDS participant, the executors to wake."""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from usx_runtime.rclpy import arguments, logging
from usx_runtime.rclpy.exceptions import ContextEnded, NotInitializedException

_ALL: weakref.WeakSet[Context] = weakref.WeakSet()


class Context:
    """The life of ROS in a process, from init to shutdown.

    The DDS participant is joined by the first node and left when the context is shut down and its last node destroyed:
    a signal during start-up must not pull it from under a node that is being built."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running = False
        self._participant: Any = None
        self._domain_id: int | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._wakers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._nodes: list[Any] = []
        self.arguments = arguments.Arguments()

    def init(self, args: Sequence[str] | None = None, *, initialize_logging: bool = True,
             domain_id: int | None = None) -> None:
        """Reads the ROS arguments and the domain; raises DomainError, UnknownROSArgsError, RuntimeError."""
        from usx_runtime.dds import config

        with self._lock:
            if self._running:
                raise RuntimeError("Context.init() must only be called once")
            parsed = arguments.parse(sys.argv if args is None else args)
            self._domain_id = config.domain_id() if domain_id is None else config.checked_domain(domain_id)
            config.discovery_range()
            self.arguments = parsed
            for logger, level in parsed.log_levels if initialize_logging else ():
                logging.set_logger_level(logger, logging.get_logging_severity_from_string(level))
            self._running = True
            _ALL.add(self)

    def ok(self) -> bool:
        return self._running

    @property
    def ended(self) -> bool:
        """Whether it ran and was shut down."""
        return not self._running and self._domain_id is not None

    def get_domain_id(self) -> int:
        if self._domain_id is None:
            raise NotInitializedException()
        return self._domain_id

    def participant(self) -> Any:
        """The DDS participant, joined at the first call."""
        from usx_runtime.dds import Participant

        with self._lock:
            if self._participant is None:
                if not self._running:
                    raise (ContextEnded if self.ended else NotInitializedException)()
                self._participant = Participant(self._domain_id)
            return self._participant

    def add_node(self, node: Any) -> None:
        with self._lock:
            self._nodes.append(node)

    def remove_node(self, node: Any) -> None:
        with self._lock:
            if node in self._nodes:
                self._nodes.remove(node)
            self._leave_if_unused()

    def add_waker(self, executor: Any) -> None:
        """`executor.wake()` is called at shutdown."""
        self._wakers.add(executor)

    def on_shutdown(self, callback: Callable[[], None]) -> None:
        """Calls `callback()` at shutdown."""
        with self._lock:
            self._callbacks.append(callback)

    def try_shutdown(self) -> None:
        """Shuts down if it has not been done."""
        with self._lock:
            if not self._running:
                return
            self._running = False
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        for executor in list(self._wakers):
            executor.wake()
        with self._lock:
            self._leave_if_unused()

    def shutdown(self) -> None:
        """Raises RuntimeError when it is not running."""
        if not self._running:
            raise RuntimeError("Context must be initialized before it can be shutdown")
        self.try_shutdown()

    def destroy(self) -> None:
        """Shuts down and destroys the nodes that are left."""
        self.try_shutdown()
        for node in list(self._nodes):
            node.destroy_node()

    def _leave_if_unused(self) -> None:
        if not self._running and not self._nodes and self._participant is not None:
            for executor in list(self._wakers):
                executor.release()
            self._participant.close()
            self._participant = None

    def __enter__(self) -> Context:
        self.init()
        return self

    def __exit__(self, *_: Any) -> None:
        self.try_shutdown()


@atexit.register
def _destroy_all() -> None:
    for context in list(_ALL):
        context.destroy()
