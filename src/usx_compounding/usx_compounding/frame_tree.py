"""The chain of transforms from the probe to the world, as a robot publishes it, turned into pose samples.

A pose sample is made only at a moment at which the robot said something about the chain, and only when every moving
edge of the chain has a sample at that moment or two near ones around it. tf2's own look-up interpolates across gaps
of any length, so samples made from it would hide just those faults that the gates of `pose_buffer` must see.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from usx_common.errors import UsxError
from usx_common.transforms import Matrix
from usx_compounding.pose_buffer import PoseBuffer, PoseGates, PoseSample

MAX_DEPTH = 64
MAX_WAITING = 256


class FrameTree:
    """Edges child -> parent, fixed or moving. ``target`` is the frame whose pose in ``root`` is wanted."""

    def __init__(self, root: str, target: str, gates: PoseGates) -> None:
        self._root, self._target = root.strip("/"), target.strip("/")
        self._gates = PoseGates(max_gap=gates.max_gap, max_speed=0, max_turn_rate=0, jump_back=gates.jump_back)
        self._parents: dict[str, str] = {}
        self._fixed: dict[str, Matrix] = {}
        self._moving: dict[str, PoseBuffer] = {}
        self._waiting: deque[int] = deque(maxlen=MAX_WAITING)
        self._moments: set[int] = set()

    def set_fixed(self, parent: str, child: str, child_to_parent: Matrix) -> None:
        """An edge that does not move (from /tf_static)."""
        child = child.strip("/")
        self._parents[child] = parent.strip("/")
        self._fixed[child] = child_to_parent
        self._moving.pop(child, None)

    def add(self, parent: str, child: str, stamp: int, child_to_parent: Matrix) -> None:
        """One sample of a moving edge (from /tf), ``stamp`` in ns; `samples` makes poses of it."""
        child = child.strip("/")
        self._parents[child] = parent.strip("/")
        self._fixed.pop(child, None)
        buffer = self._moving.setdefault(child, PoseBuffer(self._gates, capacity=1024))
        if buffer.add(PoseSample(stamp, child_to_parent)) == "jumped_back":
            self._waiting.clear()
            self._moments.clear()
        if stamp not in self._moments:
            self._moments.add(stamp)
            self._waiting.append(stamp)

    def chain(self) -> list[str] | None:
        """Children of the edges from target up to root, or None while they are not all known."""
        names: list[str] = []
        frame = self._target
        while frame != self._root:
            if frame not in self._parents or len(names) > MAX_DEPTH:
                return None
            names.append(frame)
            frame = self._parents[frame]
        return names

    def wants(self, child: str) -> bool:
        """Whether an edge can matter: always while the chain is unknown, then only the edges of the chain."""
        chain = self.chain()
        return chain is None or child.strip("/") in chain

    def fixed_pose(self) -> Matrix | None:
        """Target in root when no edge between them moves, else None."""
        chain = self.chain()
        if chain is None or any(name in self._moving for name in chain):
            return None
        return self._compose(chain, 0)

    def samples(self) -> list[PoseSample]:
        """Poses of target in root for the moments that have become complete, in order of time."""
        chain = self.chain()
        if chain is None:
            return []
        moving = [name for name in chain if name in self._moving]
        newest = max((self._moving[name].newest or 0 for name in moving), default=0)
        found: list[PoseSample] = []
        waiting = sorted(self._waiting)
        self._waiting.clear()
        for stamp in waiting:
            own = any(self._moving[name].has(stamp) for name in moving)
            pose = self._compose(chain, stamp) if own else None
            if pose is not None:
                found.append(PoseSample(stamp, pose))
            if pose is None and own and newest - stamp <= round(self._gates.max_gap * 1e9):
                self._waiting.append(stamp)
        self._moments = set(self._waiting) | {sample.stamp for sample in found[-1:]}
        return found

    def missing(self) -> str:
        """Words for a person: what is missing between target and root; empty when the chain is complete."""
        if self.chain() is not None:
            if self.fixed_pose() is None:
                return ""
            return f"all transforms between '{self._target}' and '{self._root}' are static: no tracker speaks on /tf"
        frame, seen = self._target, set()
        while frame in self._parents and frame not in seen:
            seen.add(frame)
            frame = self._parents[frame]
        return f"no transform from frame '{frame}' towards '{self._root}' has come"

    def _compose(self, chain: list[str], stamp: int) -> Matrix | None:
        pose = np.eye(4)
        for name in chain:
            if name in self._fixed:
                edge: Matrix | None = self._fixed[name]
            else:
                edge = self._moving[name].at(stamp).probe_to_world
            if edge is None:
                return None
            pose = edge @ pose
        return pose


def check_frame_name(name: str, what: str) -> str:
    """The name without a leading slash. Raises UsxError when it is empty."""
    if not name.strip("/ "):
        raise UsxError(f"{what} must name a frame")
    return name.strip("/ ")
