"""Account of images that wait for the camera_info of the same time."""

from __future__ import annotations

from usx_common.counters import StreamCounters


class PendingImages:
    """Counts every image once: as ``no_camera_info`` when its partner does not come within ``timeout`` seconds of the
    caller's steady clock, or more than ``most`` wait; what becomes of the others is counted by who uses them."""

    def __init__(self, counters: StreamCounters, most: int = 10, timeout: float = 2.0) -> None:
        self._counters, self._most, self._timeout = counters, most, timeout
        self._arrivals: list[tuple[int, float]] = []

    def arrived(self, stamp_ns: int, now: float) -> None:
        """An image of this time came in."""
        self._counters.received()
        self._arrivals.append((stamp_ns, now))
        if len(self._arrivals) > self._most:
            self._arrivals.pop(0)
            self._counters.rejected("no_camera_info")

    def paired(self, stamp_ns: int) -> bool:
        """The partner came; False when the image has been given up already."""
        for index, (stamp, _) in enumerate(self._arrivals):
            if stamp == stamp_ns:
                del self._arrivals[index]
                return True
        return False

    def expire(self, now: float) -> None:
        """Give up images that have waited too long."""
        late = [entry for entry in self._arrivals if now - entry[1] > self._timeout]
        self._arrivals = [entry for entry in self._arrivals if now - entry[1] <= self._timeout]
        if late:
            self._counters.rejected("no_camera_info", len(late))
