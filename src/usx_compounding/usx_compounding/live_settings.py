"""What a live sweep is told at start, and what it tells the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from usx_compounding.bone_surface import SurfacePoints
from usx_compounding.coverage import Coverage
from usx_compounding.pose_buffer import PoseGates
from usx_compounding.sweep import SlicePoints, SweepSettings


@dataclass(frozen=True)
class LiveSettings:
    """Times in s; ``idle_timeout`` is measured on the steady clock: a bag's own clock stops with the bag.

    ``update_period``: between updates of the bone surface; ``slice_period``: between live slices.
    ``facts_period``: between updates of the figures that others read.
    ``inbox``: frames that may wait for the worker, and again for a later pose; those waiting for the worker may hold
    ``inbox_bytes``: a sweep of some seconds on a machine that cannot follow it.
    """

    sweep: SweepSettings | None
    gates: PoseGates = field(default_factory=PoseGates)
    pose_delay: float = 0.0
    idle_timeout: float = 3.0
    update_period: float = 0.5
    slice_period: float = 0.1
    inbox: int = 512
    inbox_bytes: int = 256 * 2**20
    facts_period: float = 1.0


class Outputs(Protocol):
    """What a live sweep tells the world; called from the worker thread. Stamps in ns are those of the data."""

    def bone(self, points: SurfacePoints, stamp: int) -> None:
        """The bone surface so far."""

    def slice(self, points: SlicePoints, stamp: int) -> None:
        """The newest frame in space."""

    def coverage(self, coverage: Coverage, stamp: int) -> None:
        """Where the probe has been."""

    def cleared(self, stamp: int) -> None:
        """Bone surface and coverage that were told before hold no more."""
