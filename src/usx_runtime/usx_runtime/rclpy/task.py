"""rclpy.task: the future that a service call or an executor's task fulfils."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Future:
    """A result that comes later."""

    def __init__(self, *, executor: Any = None) -> None:
        self._lock = threading.Lock()
        self._state = "pending"
        self._result: Any = None
        self._exception: BaseException | None = None
        self._callbacks: list[Callable[[Future], Any]] = []

    def done(self) -> bool:
        return self._state != "pending"

    def cancelled(self) -> bool:
        return self._state == "cancelled"

    def cancel(self) -> None:
        self._finish("cancelled", None, None)

    def result(self) -> Any:
        """The result, None as long as there is none; raises the exception that came instead."""
        if self._exception is not None:
            raise self._exception
        return self._result

    def exception(self) -> BaseException | None:
        return self._exception

    def set_result(self, result: Any) -> None:
        self._finish("done", result, None)

    def set_exception(self, exception: BaseException) -> None:
        self._finish("done", None, exception)

    def add_done_callback(self, callback: Callable[[Future], Any]) -> None:
        """Calls `callback(future)` when done, at once if it is."""
        with self._lock:
            if not self.done():
                self._callbacks.append(callback)
                return
        callback(self)

    def _finish(self, state: str, result: Any, exception: BaseException | None) -> None:
        with self._lock:
            if self.done():
                return
            self._state, self._result, self._exception = state, result, exception
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def __await__(self) -> Any:
        raise NotImplementedError("coroutines are not supported by the embedded rclpy; use add_done_callback")
