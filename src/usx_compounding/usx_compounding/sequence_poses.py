"""Where the frames of a sequence file lie: the chain Image -> Probe -> Tracker -> Reference of IGSIO recordings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.transforms import Matrix, invert
from usx_compounding.sequence import BadSequence, Sequence


@dataclass(frozen=True)
class TransformNames:
    """Names of the transforms in the file. An empty ``reference`` means that world is the tracker itself."""

    probe: str = "ProbeToTracker"
    reference: str = "ReferenceToTracker"


@dataclass(frozen=True)
class PlacedFrames:
    """Frames whose image and pose are good. ``numbers``: (n,) in the file; ``probe_to_world``: (n, 4, 4) mm.

    ``rejected``: how many frames were left out, by reason.
    """

    numbers: NDArray[np.int64]
    probe_to_world: NDArray[np.float64]
    rejected: dict[str, int]

    def image_to_world(self, image_to_probe: Matrix) -> NDArray[np.float64]:
        """(n, 4, 4) from pixels to mm in world; the calibration is used exactly as given."""
        return self.probe_to_world @ image_to_probe


def probe_pose(sequence: Sequence, frame: int, names: TransformNames) -> Matrix | None:
    """(4, 4) probe -> world, mm, of a frame, or None when the tracker did not vouch for it.

    world is the file's Reference: inv(ReferenceToTracker) @ ProbeToTracker, exactly as the file's numbers give it.
    They have six digits, so the product is off a rigid transform by 1e-6, and so is the pixel at the end of it by
    some 1e-4 mm.
    """
    probe = sequence.transform(names.probe, frame)
    pose, ok = probe.a_to_b, probe.ok
    if names.reference:
        reference = sequence.transform(names.reference, frame)
        pose, ok = invert(reference.a_to_b) @ pose, ok and reference.ok
    return pose if ok else None


def place_frames(sequence: Sequence, names: TransformNames | None = None) -> PlacedFrames:
    """Poses of all good frames. Raises BadSequence naming those at hand when the file has no such transform."""
    names = names or TransformNames()
    for name in filter(None, (names.probe, names.reference)):
        if name not in sequence.transform_names():
            at_hand = ", ".join(sequence.transform_names()) or "none"
            raise BadSequence(f"the sequence has no transform {name}; at hand: {at_hand}")
    numbers, poses = [], []
    rejected: dict[str, int] = {}
    for frame in range(len(sequence)):
        pose = probe_pose(sequence, frame, names) if sequence.image_ok(frame) else None
        if pose is not None:
            numbers.append(frame)
            poses.append(pose)
        else:
            reason = "pose_invalid" if sequence.image_ok(frame) else "image_invalid"
            rejected[reason] = rejected.get(reason, 0) + 1
    return PlacedFrames(np.array(numbers, dtype=np.int64), np.array(poses).reshape(-1, 4, 4), rejected)


def stamp_nanoseconds(seconds: float) -> int:
    """Whole nanoseconds of a file's time. Raises UsxError for a time that a ROS stamp cannot carry."""
    nanoseconds = round(seconds * 1e9)
    if not 0 <= nanoseconds < 2**31 * 1_000_000_000:
        raise UsxError(f"time {seconds} s cannot be a stamp: it must be 0 .. 2147483647 s")
    return nanoseconds
