"""The history of one frame's transform to its parent."""

from __future__ import annotations

from bisect import bisect_left

from usx_runtime.tf2_ros.exceptions import ExtrapolationException
from usx_runtime.tf2_ros.rigid import Rigid, interpolate


class StaticEdge:
    """A transform that holds at every time."""

    is_static = True
    latest = 0
    oldest = 0

    def __init__(self, parent: str, transform: Rigid, authority: str) -> None:
        self.parent = parent
        self.transform = transform
        self.authority = authority

    def insert(self, stamp: int, parent: str, transform: Rigid) -> bool:
        self.parent, self.transform = parent, transform
        return True

    def at(self, stamp: int) -> tuple[str, Rigid]:
        """(parent frame, transform that maps this frame's points into the parent)."""
        return self.parent, self.transform

    def clear(self) -> None:
        """tf2 keeps static transforms when time jumps back."""

    def __len__(self) -> int:
        return 1


class DynamicEdge:
    """Stamped transforms of the last `cache_ns` nanoseconds, sorted by stamp; look-ups bisect and interpolate."""

    is_static = False

    def __init__(self, cache_ns: int, authority: str) -> None:
        self.cache_ns = cache_ns
        self.authority = authority
        self._stamps: list[int] = []
        self._samples: list[tuple[str, Rigid]] = []

    def insert(self, stamp: int, parent: str, transform: Rigid) -> bool:
        """False where `stamp` is older than everything the cache may hold."""
        if self._stamps and stamp < self._stamps[-1] - self.cache_ns:
            return False
        place = bisect_left(self._stamps, stamp)
        if place < len(self._stamps) and self._stamps[place] == stamp:
            self._samples[place] = (parent, transform)
            return True
        self._stamps.insert(place, stamp)
        self._samples.insert(place, (parent, transform))
        expired = bisect_left(self._stamps, self._stamps[-1] - self.cache_ns)
        del self._stamps[:expired], self._samples[:expired]
        return True

    def at(self, stamp: int) -> tuple[str, Rigid]:
        """(parent frame, transform into it) at `stamp` nanoseconds, 0 = latest; never extrapolated."""
        if stamp == 0:
            return self._samples[-1]
        place = bisect_left(self._stamps, stamp)
        if place < len(self._stamps) and self._stamps[place] == stamp:
            return self._samples[place]
        if place in (0, len(self._stamps)):
            raise self._outside(stamp, place == 0)
        before, after = self._samples[place - 1], self._samples[place]
        if before[0] != after[0]:  # the frame got another parent in between
            return before
        start, end = self._stamps[place - 1], self._stamps[place]
        return before[0], interpolate(before[1], after[1], (stamp - start) / (end - start))

    def _outside(self, stamp: int, past: bool) -> ExtrapolationException:
        if len(self._stamps) == 1:
            return ExtrapolationException(
                f"Lookup would require extrapolation at time {seconds(stamp)}, "
                f"but only time {seconds(self._stamps[0])} is in the buffer"
            )
        side, bound, edge = ("past", "earliest", self.oldest) if past else ("future", "latest", self.latest)
        return ExtrapolationException(
            f"Lookup would require extrapolation into the {side}.  Requested time {seconds(stamp)} "
            f"but the {bound} data is at time {seconds(edge)}"
        )

    @property
    def parent(self) -> str:
        return self._samples[-1][0] if self._samples else ""

    @property
    def latest(self) -> int:
        return self._stamps[-1] if self._stamps else 0

    @property
    def oldest(self) -> int:
        return self._stamps[0] if self._stamps else 0

    def clear(self) -> None:
        self._stamps.clear()
        self._samples.clear()

    def __len__(self) -> int:
        return len(self._stamps)


def seconds(stamp: int) -> str:
    """Nanoseconds as tf2 prints times."""
    return f"{stamp // 10**9}.{stamp % 10**9:09d}"[:-3]
