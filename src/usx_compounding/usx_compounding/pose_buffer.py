"""Poses of a tracked probe in time, and the pose at the moment of a frame, or the reason why there is none.

Nothing is extrapolated. A moment between two samples gets the screw motion between them (constant axis, turn and
pitch), provided the samples are near enough in time and the motion is slow enough to be believed. Times are those
of the data.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Literal

import numpy as np

from usx_common.errors import UsxError
from usx_common.transforms import Matrix, interpolate_screw, invert, is_rigid, rotation_angle

SECOND = 1_000_000_000
Reason = Literal["ok", "no_pose", "before_first_pose", "no_later_pose", "pose_gap", "pose_invalid", "pose_speed",
                 "pose_stale"]
Insertion = Literal["added", "duplicate", "too_old", "not_rigid", "jumped_back"]


@dataclass(frozen=True)
class PoseGates:
    """What a pose must satisfy. ``max_gap`` (s) bounds the distance of the two samples around a moment.

    ``max_speed`` (mm/s) and ``max_turn_rate`` (degrees/s) bound the motion between neighbouring samples; 0 = no bound.
    ``staleness`` (s): how long, in the data's own time, a frame waits for a later pose before it is given up.
    ``jump_back`` (s): a sample this much older than the newest is no latecomer but a clock that was set back.
    """

    max_gap: float = 0.05
    max_speed: float = 500.0
    max_turn_rate: float = 360.0
    staleness: float = 0.5
    jump_back: float = 0.5

    def __post_init__(self) -> None:
        for name in ("max_gap", "staleness", "jump_back"):
            if not getattr(self, name) > 0:
                raise UsxError(f"pose gate {name} = {getattr(self, name)}: it must be above 0 s")
        if self.max_speed < 0 or self.max_turn_rate < 0:
            raise UsxError("pose gates max_speed and max_turn_rate must not be negative (0 = no bound)")


@dataclass(frozen=True)
class PoseSample:
    """Pose of the probe at ``stamp`` (ns); ``probe_to_world``: (4, 4) rigid, mm; ``ok``: the tracker vouches for it."""

    stamp: int
    probe_to_world: Matrix
    ok: bool = True


@dataclass(frozen=True)
class PoseAnswer:
    """``probe_to_world`` when ``reason`` is "ok", else None and why."""

    reason: Reason
    probe_to_world: Matrix | None = None


class PoseBuffer:
    """Ring of the last ``capacity`` samples, sorted by time. Not safe for several threads."""

    def __init__(self, gates: PoseGates, capacity: int = 4096) -> None:
        if capacity < 2:
            raise UsxError(f"pose buffer for {capacity} samples: it must hold 2 or more")
        self.gates = gates
        self._capacity = capacity
        self._stamps: list[int] = []
        self._samples: list[PoseSample] = []
        self._still_from = 0  # stamp of the first of the newest samples that repeat one pose

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def newest(self) -> int | None:
        """Stamp of the latest sample, ns."""
        return self._stamps[-1] if self._stamps else None

    def clear(self) -> None:
        """Forget all samples."""
        self._stamps.clear()
        self._samples.clear()

    def add(self, sample: PoseSample) -> Insertion:
        """Put a sample in its place in time; says what became of it.

        "jumped_back": the clock was set back, everything was forgotten and the sample is the first of a new time.
        "duplicate": there is one of that stamp; a usable one replaces one that was not ok. "too_old": older than
        everything in a full ring.
        """
        if sample.ok and not is_rigid(sample.probe_to_world, 1e-3):
            return "not_rigid"
        if self._stamps and sample.stamp < self._stamps[-1] - round(self.gates.jump_back * SECOND):
            self.clear()
            self._insert(0, sample)
            return "jumped_back"
        index = bisect.bisect_left(self._stamps, sample.stamp)
        if index < len(self._stamps) and self._stamps[index] == sample.stamp:
            if sample.ok and not self._samples[index].ok:
                self._samples[index] = sample
                self._still_from = self._find_still()
            return "duplicate"
        if index == 0 and len(self._stamps) >= self._capacity:
            return "too_old"
        self._insert(index, sample)
        return "added"

    def has(self, stamp: int) -> bool:
        """Whether there is a sample of just this time (ns)."""
        index = bisect.bisect_left(self._stamps, stamp)
        return index < len(self._stamps) and self._stamps[index] == stamp

    def at(self, stamp: int) -> PoseAnswer:
        """Pose at ``stamp`` (ns). A sample of just that time needs no neighbours.

        "no_later_pose" means: ask again when a later sample has come, or give the frame up.
        """
        if not self._stamps:
            return PoseAnswer("no_pose")
        index = bisect.bisect_left(self._stamps, stamp)
        if index < len(self._stamps) and self._stamps[index] == stamp:
            return self._exact(index)
        if index == 0:
            return PoseAnswer("before_first_pose")
        if index == len(self._stamps):
            return PoseAnswer("no_later_pose")
        before, after = self._samples[index - 1], self._samples[index]
        if not (before.ok and after.ok):
            return PoseAnswer("pose_invalid")
        if after.stamp - before.stamp > round(self.gates.max_gap * SECOND):
            return PoseAnswer("pose_gap")
        if self._too_fast(before, after):
            return PoseAnswer("pose_speed")
        fraction = (stamp - before.stamp) / (after.stamp - before.stamp)
        return PoseAnswer("ok", interpolate_screw(before.probe_to_world, after.probe_to_world, fraction))

    def still_since(self) -> int:
        """How long (ns) the newest samples have repeated one pose: a probe at rest, or a frozen tracker."""
        return self._stamps[-1] - self._still_from if self._stamps else 0

    def _find_still(self) -> int:
        first = last = self._samples[-1]
        for sample in reversed(self._samples):
            if not _same_pose(sample, last):
                break
            first = sample
        return first.stamp

    def _exact(self, index: int) -> PoseAnswer:
        sample = self._samples[index]
        if not sample.ok:
            return PoseAnswer("pose_invalid")
        if index > 0:
            before = self._samples[index - 1]
            near = sample.stamp - before.stamp <= round(self.gates.max_gap * SECOND)
            if near and before.ok and self._too_fast(before, sample):
                return PoseAnswer("pose_speed")
        return PoseAnswer("ok", sample.probe_to_world)

    def _too_fast(self, before: PoseSample, after: PoseSample) -> bool:
        seconds = (after.stamp - before.stamp) / SECOND
        if self.gates.max_speed:
            distance = float(np.linalg.norm(after.probe_to_world[:3, 3] - before.probe_to_world[:3, 3]))
            if distance > self.gates.max_speed * seconds:
                return True
        if not self.gates.max_turn_rate:
            return False
        turn = rotation_angle(invert(before.probe_to_world) @ after.probe_to_world)
        return bool(np.degrees(turn) > self.gates.max_turn_rate * seconds)

    def _insert(self, index: int, sample: PoseSample) -> None:
        self._note_still(index, sample)
        self._stamps.insert(index, sample.stamp)
        self._samples.insert(index, sample)
        if len(self._stamps) > self._capacity:
            del self._stamps[0], self._samples[0]

    def _note_still(self, index: int, sample: PoseSample) -> None:
        """Keep up the start of the still period with a sample about to be inserted, without a walk through the ring."""
        last = self._samples[-1] if self._samples else sample
        same = _same_pose(sample, last)
        if index == len(self._samples):
            self._still_from = self._still_from if self._samples and same else sample.stamp
        elif same and self._stamps[index] == self._still_from:
            self._still_from = sample.stamp  # just before the period, and part of it
        elif not same and sample.stamp > self._still_from:
            self._still_from = self._stamps[index]  # a late sample that breaks the period


def _same_pose(one: PoseSample, other: PoseSample) -> bool:
    return one.ok == other.ok and np.array_equal(one.probe_to_world, other.probe_to_world)
