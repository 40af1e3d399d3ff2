"""Which frames and poses of one sweep suffer which trouble, and when each message is received."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from usx_common import transforms
from usx_phantom.trouble import BadTrouble, Trouble

SEED = 0x54524F55
# One random stream each. Those that hit frames come first, in the order in which they choose.
STREAMS = ("reorder", "late", "duplicate", "drop", "pose_gap", "lift_off", "calibration")
LATE_BY, TWICE_AFTER, OVERTAKEN_BY = 300_000_000, 2_000_000, 1_000_000  # ns
# How high the probe is lifted, and how long lifting and putting down takes.
LIFT_MM, LIFT_RAMP_S = 18.0, 0.6
# Point about which the calibration is turned: the middle of the image's depth in us_probe, mm.
CALIBRATION_PIVOT = np.array([0.0, 0.0, 60.0])


@dataclass(frozen=True)
class TroublePlan:
    """Fates of the frames of a sweep. Frame numbers are sorted; `pose_gap`, `lifted` are (start, end) s or None."""

    dropped: tuple[int, ...] = ()
    duplicated: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    overtaken: tuple[int, ...] = ()
    pose_gap: tuple[float, float] | None = None
    lifted: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for truth/trouble.yaml."""
        return {"frames_dropped": list(self.dropped), "frames_duplicated": list(self.duplicated),
                "frames_late": list(self.late), "frames_overtaken": list(self.overtaken),
                "pose_gap_s": None if self.pose_gap is None else list(self.pose_gap),
                "lifted_off_s": None if self.lifted is None else list(self.lifted)}

    def messages(self, frames: int) -> int:
        """Image messages in the bag of a sweep of `frames` frames."""
        return frames - len(self.dropped) + len(self.duplicated)

    def lift(self, time: float) -> float:
        """How far (mm) the probe is lifted off the skin at `time` s: up, held, and down again, smoothly."""
        if self.lifted is None:
            return 0.0
        way = min(time - self.lifted[0], self.lifted[1] - time) / LIFT_RAMP_S
        part = min(max(way, 0.0), 1.0)
        return LIFT_MM * part * part * (3.0 - 2.0 * part)

    def in_gap(self, time: float) -> bool:
        """Whether the robot says nothing at `time` s."""
        return self.pose_gap is not None and self.pose_gap[0] <= time < self.pose_gap[1]


def plan_trouble(trouble: Trouble, times: NDArray[np.float64], duration: float, seed: int) -> TroublePlan:
    """Fates of frames taken at `times` (frames,) s of a sweep of `duration` s; the same seed gives the same.

    Each trouble has its own random order of the frames and takes the first that are free, so of its frames only those
    change that a trouble before it in STREAMS takes. A share that is not 0 hits one frame at least. Raises BadTrouble
    where the sweep is too short for it.
    """
    free = set(range(len(times)))
    chosen: dict[str, tuple[int, ...]] = {}
    for name in STREAMS[:4]:
        share = getattr(trouble, name)
        order = [int(i) for i in _stream(seed, name).permutation(len(times))]
        count = max(round(share * len(times)), 1) if share > 0.0 else 0
        chosen[name] = _take(order, count, free, pairs=name == "reorder")
        if len(chosen[name]) < count:
            raise BadTrouble(f"trouble {name} = {share:g}: a sweep of {len(times)} frames has no room for it")
    place_gap, place_lift = (_stream(seed, name).uniform(0.35, 0.65) for name in ("pose_gap", "lift_off"))
    return TroublePlan(chosen["drop"], chosen["duplicate"], chosen["late"], chosen["reorder"],
                       _window("pose_gap", trouble.pose_gap, place_gap, duration),
                       _lift_window(trouble.lift_off, place_lift, duration))


def _stream(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([SEED, int(seed), STREAMS.index(name)]))


def _take(order: list[int], count: int, free: set[int], pairs: bool) -> tuple[int, ...]:
    """The first `count` of `order` that are free; with `pairs` the frame after each must be free too, and stays so
    for nobody else."""
    taken: list[int] = []
    for frame in order:
        if len(taken) == count:
            break
        if frame in free and (not pairs or frame + 1 in free):
            taken.append(frame)
            free.discard(frame)
            if pairs:
                free.discard(frame + 1)
    return tuple(sorted(taken))


def _window(name: str, length: float, place: float, duration: float) -> tuple[float, float] | None:
    if length == 0.0:
        return None
    if length > 0.8 * duration:
        raise BadTrouble(f"trouble {name} of {length:g} s: at most 80 % of a sweep of {duration:g} s")
    start = float(np.clip(place * duration - 0.5 * length, 0.1 * duration, 0.9 * duration - length))
    return round(start, 3), round(start + length, 3)


def _lift_window(share: float, place: float, duration: float) -> tuple[float, float] | None:
    if 0.0 < share * duration < 2.0 * LIFT_RAMP_S:
        raise BadTrouble(f"trouble lift_off = {share:g} of {duration:g} s: the probe needs {2 * LIFT_RAMP_S:g} s to "
                         f"go up and down, so at least {2 * LIFT_RAMP_S / duration:.2g}")
    return _window("lift_off", share * duration, place, duration)


def receipts(plan: TroublePlan, taken: list[int], latency: int) -> list[list[int]]:
    """Receive times (ns) of each frame: none, one or two. `taken`: when the frames were taken, ns."""
    late, twice = set(plan.late), set(plan.duplicated)
    dropped, overtaken = set(plan.dropped), set(plan.overtaken)
    result = []
    for number, moment in enumerate(taken):
        time = moment + latency
        if number in overtaken:
            time = taken[number + 1] + latency + OVERTAKEN_BY
        if number in late:
            time += LATE_BY
        result.append([] if number in dropped else [time, time + TWICE_AFTER] if number in twice else [time])
    return result


def in_order(receive: list[list[int]], frames: Iterator[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """(receive time, frame number, message) in the order of receipt; `frames`: the messages in the order taken.

    Only messages that still wait for their turn are held in memory.
    """
    waiting: list[tuple[int, int, bytes]] = []
    earliest = [min(times, default=None) for times in receive]
    # The soonest that this or any later frame can be received.
    soonest: list[float] = [float("inf")] * (len(receive) + 1)
    for number in range(len(receive) - 1, -1, -1):
        own = earliest[number]
        soonest[number] = min(soonest[number + 1], float("inf") if own is None else own)
    for number, data in enumerate(frames):
        waiting += [(time, number, data) for time in receive[number]]
        waiting.sort(key=lambda message: message[:2])
        while waiting and waiting[0][0] < soonest[number + 1]:
            yield waiting.pop(0)
    yield from waiting


def wrong_calibration(trouble: Trouble, image_to_probe: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """`image_to_probe` (4, 4) as it would be believed: shifted and turned about the middle of the image."""
    if trouble.calibration == 0.0 and trouble.calibration_turn == 0.0:
        return image_to_probe
    rng = _stream(seed, "calibration")
    axis, way = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    turn = Rotation.from_rotvec(np.radians(trouble.calibration_turn) * axis).as_matrix()
    shift = CALIBRATION_PIVOT + trouble.calibration * way - turn @ CALIBRATION_PIVOT
    return transforms.make_transform(turn, shift) @ image_to_probe
