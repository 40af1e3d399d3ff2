"""Bringing frames and poses together: which frames have a pose, which must wait for one, which never get one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.transforms import Matrix
from usx_compounding.pose_buffer import SECOND, Insertion, PoseBuffer, PoseGates, PoseSample


@dataclass(frozen=True)
class TimedFrame:
    """An image (rows, columns) uint8 of ``stamp`` (ns); ``sequence`` tells frames of one stamp apart."""

    stamp: int
    sequence: int
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class MatchedFrame:
    """A frame with the pose of the probe at its moment, (4, 4) rigid, mm."""

    frame: TimedFrame
    probe_to_world: Matrix


@dataclass(frozen=True)
class RejectedFrame:
    """A frame that goes into no volume, and why (a short snake_case name)."""

    frame: TimedFrame
    reason: str


Decision = MatchedFrame | RejectedFrame


class FrameMatcher:
    """Decides on frames in the order of their arrival per pose that becomes known; one thread at a time.

    ``delay`` (s) is added to a frame's stamp before its pose is looked up (temporal calibration). At most ``capacity``
    frames wait for a later pose; the oldest gives way.
    """

    def __init__(self, gates: PoseGates, delay: float = 0.0, capacity: int = 64) -> None:
        self.poses = PoseBuffer(gates)
        self._delay = round(delay * SECOND)
        self._capacity = capacity
        self._waiting: deque[TimedFrame] = deque()
        self._newest_frame: int | None = None

    @property
    def waiting(self) -> int:
        """Frames without a decision yet."""
        return len(self._waiting)

    def add_pose(self, sample: PoseSample) -> tuple[Insertion, list[Decision]]:
        """Take a pose; what became of it, and the frames that it decides.

        "jumped_back" means that time was set back: frames that waited are rejected as ``time_jump``.
        """
        insertion = self.poses.add(sample)
        if insertion == "jumped_back":
            self._newest_frame = None
            return insertion, self.give_up("time_jump")
        return insertion, self._decide()

    def add_frame(self, frame: TimedFrame) -> tuple[bool, list[Decision]]:
        """Take a frame; whether it shows that time was set back, and the frames decided now."""
        decisions: list[Decision] = []
        newest = self._newest_frame
        jumped = newest is not None and frame.stamp < newest - round(self.poses.gates.jump_back * SECOND)
        if jumped:
            decisions += self.give_up("time_jump")
            self.poses.clear()
        elif newest == frame.stamp:
            return False, [RejectedFrame(frame, "duplicate_stamp")]
        self._newest_frame = frame.stamp if newest is None or jumped else max(newest, frame.stamp)
        self._waiting.append(frame)
        decisions += self._decide()
        while len(self._waiting) > self._capacity:
            decisions.append(RejectedFrame(self._waiting.popleft(), "queue_full"))
        return jumped, decisions

    def give_up(self, reason: str) -> list[Decision]:
        """Reject all frames that wait."""
        decisions: list[Decision] = [RejectedFrame(frame, reason) for frame in self._waiting]
        self._waiting.clear()
        return decisions

    def clear(self) -> list[Decision]:
        """Forget poses and times; frames that waited are rejected as ``reset``."""
        self.poses.clear()
        self._newest_frame = None
        return self.give_up("reset")

    def _decide(self) -> list[Decision]:
        decisions: list[Decision] = []
        still: deque[TimedFrame] = deque()
        newest = max(filter(None, (self.poses.newest, self._newest_frame)), default=0)
        patience = round(self.poses.gates.staleness * SECOND)
        for frame in self._waiting:
            answer = self.poses.at(frame.stamp + self._delay)
            if answer.probe_to_world is not None:
                decisions.append(MatchedFrame(frame, answer.probe_to_world))
            elif answer.reason not in ("no_pose", "no_later_pose"):
                decisions.append(RejectedFrame(frame, answer.reason))
            elif newest - frame.stamp > patience:
                decisions.append(RejectedFrame(frame, "no_pose" if answer.reason == "no_pose" else "pose_stale"))
            else:
                still.append(frame)
        self._waiting = still
        return decisions
