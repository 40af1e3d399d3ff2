"""Rate and latency over the last few seconds, on the steady clock."""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np


class RateMeter:
    """Events per second over a sliding window."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window = window_s
        self._times: deque[float] = deque(maxlen=4096)
        self._lock = threading.Lock()

    def tick(self, now: float | None = None) -> None:
        """Note one event at ``now`` (s, steady clock)."""
        with self._lock:
            self._times.append(time.monotonic() if now is None else now)

    def rate(self, now: float | None = None) -> float:
        """Events per second; 0 when none fell into the window."""
        now = time.monotonic() if now is None else now
        with self._lock:
            while self._times and self._times[0] < now - self._window:
                self._times.popleft()
            return len(self._times) / self._window


class LatencyMeter:
    """Percentiles of the last durations."""

    def __init__(self, count: int = 256) -> None:
        self._seconds: deque[float] = deque(maxlen=count)
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Note one duration, s."""
        with self._lock:
            self._seconds.append(seconds)

    def percentile(self, q: float) -> float:
        """The q-th percentile (0 .. 100) in s; NaN before the first."""
        with self._lock:
            values = list(self._seconds)
        return float(np.percentile(values, q)) if values else float("nan")
