"""Ending a command that runs until it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, in place of ending the process. A second signal ends it."""
    event = threading.Event()
    handlers: dict[int, object] = {}

    def stop(number: int, frame: object) -> None:
        event.set()
        for each, handler in handlers.items():
            signal.signal(each, handler)  # type: ignore[arg-type]

    for number in (signal.SIGINT, signal.SIGTERM):
        handlers[number] = signal.signal(number, stop)
    try:
        yield event
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
