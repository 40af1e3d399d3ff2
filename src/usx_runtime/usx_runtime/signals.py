"""Ending a command that runs until it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, in place of ending the process. A second signal ends it."""
    event = threading.Event()
    handlers: dict[int, Any] = {}

    def stop(number: int, frame: object) -> None:
        event.set()
        for each, handler in handlers.items():
            signal.signal(each, handler)

    for wanted in (signal.SIGINT, signal.SIGTERM):
        handlers[wanted] = signal.signal(wanted, stop)
    try:
        yield event
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
