"""Account of what became of every message: received = used + rejected + pending, always."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Account:
    """One reading of a stream's counters; ``pending`` are the messages that still wait for a decision."""

    received: int
    used: int
    rejected: dict[str, int] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        return self.received - self.used - sum(self.rejected.values())


class StreamCounters:
    """Counters of one input stream, safe to use from several threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._received = 0
        self._used = 0
        self._rejected: dict[str, int] = {}

    def received(self, count: int = 1) -> None:
        """Count arrivals."""
        with self._lock:
            self._received += count

    def used(self, count: int = 1) -> None:
        """Count arrivals that went into the result."""
        with self._lock:
            self._used += count

    def rejected(self, reason: str, count: int = 1) -> None:
        """Count arrivals left out for ``reason``, a short snake_case name."""
        with self._lock:
            self._rejected[reason] = self._rejected.get(reason, 0) + count

    def snapshot(self) -> Account:
        """All counters at one moment."""
        with self._lock:
            return Account(self._received, self._used, dict(self._rejected))
