"""One background thread with a bounded inbox, for work that would block a node's callbacks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

Item = TypeVar("Item")


class Worker(Generic[Item]):
    """Calls ``handle(item)`` for submitted items, one at a time, in the order of their arrival.

    With policy ``latest`` a full inbox gives up its oldest item for the new one; with ``queue`` the new one is
    refused. Either way ``on_drop`` is called, in the submitting thread, with the item that is lost. An exception of
    ``handle`` goes to ``on_error(item, error)`` and the thread lives on.
    """

    def __init__(self, handle: Callable[[Item], None], name: str, capacity: int = 1,
                 policy: Literal["latest", "queue"] = "latest",
                 on_drop: Callable[[Item], None] | None = None,
                 on_error: Callable[[Item, Exception], None] | None = None) -> None:
        self._handle, self._capacity, self._policy = handle, capacity, policy
        self._on_drop = on_drop or (lambda item: None)
        self._on_error = on_error
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._open = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> bool:
        """Hand over an item; False when it was refused (inbox full with policy ``queue``, or closed)."""
        dropped: list[Item] = []
        with self._changed:
            accepted = self._open and not (self._policy == "queue" and len(self._items) >= self._capacity)
            if accepted:
                while len(self._items) >= self._capacity:
                    dropped.append(self._items.popleft())
                self._items.append(item)
                self._changed.notify_all()
            else:
                dropped.append(item)
        for lost in dropped:
            self._on_drop(lost)
        return accepted

    def waiting(self) -> int:
        """Items in the inbox, the one being handled left out."""
        with self._changed:
            return len(self._items)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is waiting or being handled; False when ``timeout`` seconds did not suffice."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._items and not self._busy, timeout)

    def close(self, timeout: float | None = 5.0) -> None:
        """Drop what waits, finish what is being handled, end the thread."""
        with self._changed:
            self._open = False
            dropped = list(self._items)
            self._items.clear()
            self._changed.notify_all()
        for lost in dropped:
            self._on_drop(lost)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or not self._open)
                if not self._items:
                    return
                item = self._items.popleft()
                self._busy = True
            try:
                self._handle(item)
            except Exception as error:
                self._tell(item, error)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _tell(self, item: Item, error: Exception) -> None:
        """Hand an error over; where nobody takes it, or taking it fails, Python's hook for threads prints it."""
        if self._on_error is not None:
            try:
                self._on_error(item, error)
                return
            except Exception as another:
                error = another
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__,
                                                       threading.current_thread())))
