"""rclpy.executors: sleep on a DDS wait set until something is due, then run the callbacks that their groups allow."""

from __future__ import annotations

import inspect
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count
from typing import Any

from usx_runtime.duration import SECOND
from usx_runtime.rclpy.clock_type import ClockType
from usx_runtime.rclpy.exceptions import ExternalShutdownException, NotInitializedException
from usx_runtime.rclpy.task import Future
from usx_runtime.rclpy.utilities import get_default_context

__all__ = ["Executor", "ExternalShutdownException", "MultiThreadedExecutor", "ShutdownException",
           "SingleThreadedExecutor", "TimeoutException"]

# Python runs signal handlers between two instructions of the main thread; a wait must not last longer than this.
SIGNAL_PERIOD_S = 0.1
GRAPH_PERIOD_S = 1.0


class TimeoutException(Exception):
    """Nothing became ready in time."""


class ShutdownException(Exception):
    """The executor was shut down."""


class Executor:
    """Base of the executors; a node belongs to one at a time."""

    def __init__(self, *, context: Any = None) -> None:
        self._context = context or get_default_context()
        self._nodes: list[Any] = []
        self._lock = threading.RLock()
        self._wait_lock = threading.Lock()
        self._waiter: Any = None
        self._ready: deque[Any] = deque()
        self._tasks: deque[Callable[[], None]] = deque()
        self._woken = False  # a plain flag: a signal handler may set it while its own thread clears it
        self._is_shutdown = False
        self._graph_due = 0.0
        self._context.add_waker(self)

    @property
    def context(self) -> Any:
        return self._context

    # nodes

    def add_node(self, node: Any) -> bool:
        with self._lock:
            if self._is_shutdown:
                raise ShutdownException()
            if node in self._nodes:
                return False
            self._nodes.append(node)
        node.executor = self
        self.wake()
        return True

    def remove_node(self, node: Any) -> None:
        with self._lock:
            if node not in self._nodes:
                return
            self._nodes.remove(node)
        if node.executor is self:
            node.executor = None
        self.refresh()

    def get_nodes(self) -> list[Any]:
        return list(self._nodes)

    # waiting

    def wake(self) -> None:
        """Ends a wait, from any thread."""
        self._woken = True
        waiter = self._waiter
        if waiter is not None:
            waiter.wake()

    def refresh(self) -> None:
        """Lets go of readers that are no longer wanted: the spinning thread does so, or this one if none spins."""
        self.wake()
        if self._wait_lock.acquire(blocking=False):
            try:
                if self._waiter is not None:
                    self._waiter.watch(e.reader for e in self._entities() if hasattr(e, "reader"))
            finally:
                self._wait_lock.release()

    def release(self) -> None:
        """Lets go of the DDS wait set."""
        self.wake()
        if self._wait_lock.acquire(timeout=1.0):
            try:
                waiter, self._waiter = self._waiter, None
                if waiter is not None:
                    waiter.close()
            finally:
                self._wait_lock.release()

    def _entities(self) -> list[Any]:
        """Everything of the nodes that can become ready, in rclpy's order."""
        return [entity for node in self.get_nodes() for entity in node.waitables()]

    def _has_room(self) -> bool:
        """Whether another callback can be started."""
        return True

    def _next(self, timeout_sec: float | None) -> Callable[[], None] | None:
        """A callback that is due and allowed, waiting for one at most `timeout_sec`; None when none came."""
        end = None if timeout_sec is None or timeout_sec < 0 else time.monotonic() + timeout_sec
        while True:
            if self._is_shutdown:
                raise ShutdownException()
            work = self._pick() if self._has_room() else None
            if work is not None:
                return work
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._sleep(left)
            if not self._context.ok():
                raise ExternalShutdownException()

    def _pick(self) -> Callable[[], None] | None:
        """What is due first among what has been listed; then among what has become ready since."""
        if self._tasks:
            return self._tasks.popleft()
        work = self._pick_listed()
        if work is None:
            listed = set(map(id, self._ready))  # those whose group is busy
            self._ready.extend(e for e in self._entities() if id(e) not in listed and e.is_ready())
            work = self._pick_listed()
        return work

    def _pick_listed(self) -> Callable[[], None] | None:
        for entity in list(self._ready):
            if entity not in entity.node.waitables() or entity.node not in self._nodes:
                self._ready.remove(entity)  # destroyed, or its node has left, since it was listed
                continue
            if not entity.callback_group.beginning_execution(entity):
                continue
            self._ready.remove(entity)
            call = entity.take()
            if call is not None:
                return partial(self._run, entity, call)
            entity.callback_group.ending_execution(entity)
        return None

    def _run(self, entity: Any, call: Callable[[], Any]) -> None:
        try:
            if inspect.iscoroutine(call()):
                raise NotImplementedError("coroutine callbacks are not supported by the embedded rclpy")
        finally:
            entity.callback_group.ending_execution(entity)

    def _sleep(self, left: float | None) -> None:
        """Waits for data, a timer, a wake-up or the next look at signals and the graph."""
        with self._wait_lock:
            waiter = self._open_waiter()
            entities = [e for e in self._entities() if e.callback_group.can_execute(e)] if self._has_room() else []
            waiter.watch(e.reader for e in entities if hasattr(e, "reader"))
            span = SIGNAL_PERIOD_S if threading.current_thread() is threading.main_thread() else GRAPH_PERIOD_S
            if left is not None:
                span = min(span, left)
            for timer in (e for e in entities if hasattr(e, "remaining_ns")):
                if not timer.is_canceled() and (timer.clock.clock_type is not ClockType.ROS_TIME
                                                or not timer.clock.ros_time_is_active):
                    span = min(span, timer.remaining_ns() / SECOND)
            if not self._woken:
                waiter.wait(span)
            self._woken = False
        if time.monotonic() >= self._graph_due:
            self._graph_due = time.monotonic() + GRAPH_PERIOD_S
            for node in self.get_nodes():
                node.look_after_graph()

    def _open_waiter(self) -> Any:
        if self._waiter is None:
            try:
                self._waiter = self._context.participant().create_waiter()
            except NotInitializedException:
                raise ExternalShutdownException() from None
        return self._waiter

    # spinning

    def create_task(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Future:
        """Runs `callback` in this executor -> the future of its result."""
        future = Future()

        def run() -> None:
            try:
                future.set_result(callback(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        self._tasks.append(run)
        self.wake()
        return future

    def spin(self) -> None:
        """Runs callbacks until shutdown; raises ExternalShutdownException when it comes during a wait."""
        while self._context.ok() and not self._is_shutdown:
            self.spin_once()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Runs one callback, waiting for it at most `timeout_sec`."""
        try:
            work = self._next(timeout_sec)
        except ShutdownException:
            return
        if work is not None:
            self._start(work)

    def _start(self, work: Callable[[], None]) -> None:
        work()

    def spin_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        """Runs callbacks until `future` is done, the time is over or the context shut down."""
        end = None if timeout_sec is None or timeout_sec < 0 else time.monotonic() + timeout_sec
        future.add_done_callback(lambda _: self.wake())
        while self._context.ok() and not future.done() and not self._is_shutdown:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            self.spin_once_until_future_complete(future, left)

    def spin_once_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        """Runs one callback, unless `future` is done."""
        if not future.done():
            self.spin_once(SIGNAL_PERIOD_S if timeout_sec is None else min(SIGNAL_PERIOD_S, timeout_sec))

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Ends spinning and lets go of the nodes."""
        self._is_shutdown = True
        self.wake()
        for node in self.get_nodes():
            self.remove_node(node)
        self.release()
        return True

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: Any) -> None:
        self.shutdown()


class SingleThreadedExecutor(Executor):
    """Runs callbacks in the thread that spins."""


class MultiThreadedExecutor(Executor):
    """Runs callbacks in a pool of threads, as their callback groups allow; their exceptions leave spin()."""

    def __init__(self, num_threads: int | None = None, *, context: Any = None) -> None:
        super().__init__(context=context)
        self._threads = num_threads or max(2, cpu_count() or 2)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="executor")
        self._busy = 0
        self._errors: deque[BaseException] = deque()

    def _has_room(self) -> bool:
        return self._busy < self._threads

    def _start(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._busy += 1
        self._pool.submit(self._run_in_pool, work)

    def _run_in_pool(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._errors.append(error)
        finally:
            with self._lock:
                self._busy -= 1
            self.wake()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        super().spin_once(timeout_sec)
        if self._errors:
            raise self._errors.popleft()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        done = super().shutdown(timeout_sec)
        self._pool.shutdown(wait=timeout_sec is None)
        return done
