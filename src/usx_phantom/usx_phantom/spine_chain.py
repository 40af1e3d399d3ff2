"""Bends a chain of vertebrae at its discs, and gives way where bones would run into each other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from usx_common import transforms
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_phantom.body_frames import body_frames
from usx_phantom.overlap import BoneSurface
from usx_phantom.posture import DISCS, BadPosture, PostureChange, disc_rotations

Matrix = NDArray[np.float64]
# Centre of rotation from the middle between two bodies (mm, along y and z there).
CENTRE_BEHIND, CENTRE_BELOW = 6.0, 4.0
TOLERANCE = 0.3
# A disc gives way by this much before it turns less (mm).
MOST_RELIEF = 1.5
RELIEF_STEPS, BISECTIONS = 5, 5


@dataclass(frozen=True)
class PostureDifference:
    """How each vertebra moved between two postures.

    `motions`: level -> (4, 4) rigid, before -> after, mm, patient coordinates. `taken`: disc -> share 0..1 of the
    wanted turn that its bones allowed. `overlap`: disc -> penetration depth (mm) of its two bones after the change.
    """

    motions: dict[str, Matrix]
    taken: dict[str, float]
    overlap: dict[str, float]

    def meshes(self, before: dict[str, Mesh]) -> dict[str, Mesh]:
        """Bones `before` (level -> Mesh, mm, patient) as they stand after the change."""
        return {level: mesh.transformed(self.motions[level]) for level, mesh in before.items()}

    def poses(self, before: dict[str, Matrix]) -> dict[str, Matrix]:
        """Poses `before` (level -> (4, 4) vertebra -> patient, mm) after the change."""
        return {level: self.motions[level] @ pose for level, pose in before.items()}

    def then(self, rigid: Matrix) -> PostureDifference:
        """The same followed by a motion (4, 4) of the whole patient."""
        return PostureDifference({level: rigid @ m for level, m in self.motions.items()}, self.taken, self.overlap)

    def disc_turns(self) -> dict[str, float]:
        """Disc -> angle (degrees) by which its upper vertebra turned against the lower one."""
        return {f"{a}-{b}": float(np.degrees(transforms.rotation_angle(
            transforms.invert(self.motions[b]) @ self.motions[a]))) for a, b in pairwise(self.motions)}

    @property
    def message(self) -> str:
        """One line that names the discs that could not turn as wanted; empty where all did."""
        short = [f"{disc} {share:.0%}" for disc, share in self.taken.items() if share < 1.0]
        return f"bones would overlap, so discs turned less than wanted: {', '.join(short)}" if short else ""


class SpineChain:
    """A spine ready to be bent any number of times."""

    def __init__(self, meshes: dict[str, Mesh], frames: dict[str, Matrix] | None = None) -> None:
        """`meshes`: closed bones of neighbouring levels (two or more of L1..L5), mm, LPS.

        `frames`: vertebra -> patient of each, where known (else read off the meshes). Raises BadPosture for levels
        that are no chain and OpenBone for a mesh that is not closed.
        """
        self.levels = [level for level in LEVELS if level in meshes]
        places = [LEVELS.index(level) for level in self.levels]
        if len(self.levels) < 2 or places[-1] - places[0] != len(places) - 1:
            raise BadPosture(f"levels {', '.join(meshes) or 'none'} are no chain: give two or more neighbours")
        self._bones = {level: BoneSurface(meshes[level], level) for level in self.levels}
        self._frames = body_frames(meshes) if frames is None else frames
        axes = _mean_axes([self._frames[level] for level in self.levels])
        self._discs = {f"{a}-{b}": _disc_frame(self._frames[a], self._frames[b], axes)
                       for a, b in pairwise(self.levels)}
        self._before = {f"{a}-{b}": _deepest(self._bones[a], self._bones[b], np.eye(4))[0]
                        for a, b in pairwise(self.levels)}

    def bend(self, change: PostureChange, tolerance: float = TOLERANCE) -> PostureDifference:
        """Change the posture; the spine as a whole stays in its place.

        Neighbours end up at most `tolerance` mm deeper in each other than they were. Where the wanted turn would
        bring more, the disc first gives way by up to 1.5 mm, then turns less; `message` of the result says so.
        """
        rotations = dict(zip(DISCS, disc_rotations(change.disc_angles()), strict=True))
        motions = {self.levels[-1]: np.eye(4)}
        taken, overlap = {}, {}
        for lower, upper in pairwise(reversed(self.levels)):
            disc = f"{upper}-{lower}"
            step, taken[disc], overlap[disc] = self._turn(upper, lower, rotations[disc], tolerance)
            motions[upper] = motions[lower] @ step
        back = self._anchor(motions)
        order = list(self._discs)
        return PostureDifference({level: back @ motions[level] for level in self.levels},
                                 {d: taken[d] for d in order}, {d: overlap[d] for d in order})

    def _turn(self, upper: str, lower: str, rotation: Matrix, tolerance: float) -> tuple[Matrix, float, float]:
        """Motion (4, 4) of the upper bone against the lower, the share of the turn it holds, and the overlap."""
        disc = f"{upper}-{lower}"
        allowed = self._before[disc] + tolerance
        vector = Rotation.from_matrix(rotation).as_rotvec()

        def attempt(share: float) -> tuple[Matrix, float]:
            part = transforms.make_transform(Rotation.from_rotvec(share * vector).as_matrix(), np.zeros(3))
            step = self._discs[disc] @ part @ transforms.invert(self._discs[disc])
            return _relieved(self._bones[upper], self._bones[lower], step, allowed)

        step, depth = attempt(1.0)
        if depth <= allowed:
            return step, 1.0, depth
        best = (np.eye(4), 0.0, self._before[disc])
        low, high = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            step, depth = attempt(middle)
            if depth <= allowed:
                low, best = middle, (step, middle, depth)
            else:
                high = middle
        return best

    def _anchor(self, motions: dict[str, Matrix]) -> Matrix:
        """Rigid (4, 4) after which the vertebrae have, on average, neither turned nor shifted."""
        mean = np.mean([motion[:3, :3] for motion in motions.values()], axis=0)
        turn = transforms.nearest_rigid(transforms.make_transform(mean, np.zeros(3)))[:3, :3].T
        old = np.mean([self._frames[level][:3, 3] for level in self.levels], axis=0)
        new = np.mean([(motions[level] @ self._frames[level])[:3, 3] for level in self.levels], axis=0)
        return transforms.make_transform(turn, old - turn @ new)


def change_posture(meshes: dict[str, Mesh], change: PostureChange, frames: dict[str, Matrix] | None = None,
                   tolerance: float = TOLERANCE) -> tuple[dict[str, Mesh], PostureDifference]:
    """Bones after a change of posture, and how they moved; see `SpineChain` for arguments and errors."""
    difference = SpineChain(meshes, frames).bend(change, tolerance)
    return difference.meshes({level: meshes[level] for level in difference.motions}), difference


def _mean_axes(frames: list[Matrix]) -> Matrix:
    """(3, 3) axes of the spine as a whole: angles are about these, as a radiograph of the trunk would show them."""
    mean = np.mean([frame[:3, :3] for frame in frames], axis=0)
    return transforms.nearest_rigid(transforms.make_transform(mean, np.zeros(3)))[:3, :3]


def _disc_frame(upper: Matrix, lower: Matrix, axes: Matrix) -> Matrix:
    """disc -> patient (4, 4): origin at the centre of rotation, axes (3, 3) those of the spine."""
    between = transforms.nearest_rigid(transforms.make_transform(0.5 * (upper[:3, :3] + lower[:3, :3]), np.zeros(3)))
    middle = 0.5 * (upper[:3, 3] + lower[:3, 3])
    return transforms.make_transform(axes, middle + CENTRE_BEHIND * between[:3, 1] - CENTRE_BELOW * between[:3, 2])


def _deepest(upper: BoneSurface, lower: BoneSurface, motion: Matrix) -> tuple[float, NDArray[np.float64]]:
    """Penetration depth (mm) when `upper` moves by `motion`, and the unit direction in which to free it."""
    first, out_of_lower = lower.deepest(transforms.apply(motion, upper.mesh.vertices))
    second, out_of_upper = upper.deepest(transforms.apply(transforms.invert(motion), lower.mesh.vertices))
    return (first, out_of_lower) if first >= second else (second, -motion[:3, :3] @ out_of_upper)


def _relieved(upper: BoneSurface, lower: BoneSurface, motion: Matrix, allowed: float) -> tuple[Matrix, float]:
    """`motion` with the shift of at most MOST_RELIEF mm that frees the bones, and the depth left (mm)."""
    depth, way = _deepest(upper, lower, motion)
    best, least = motion, depth
    shift = np.zeros(3)
    for _ in range(RELIEF_STEPS):
        if least <= allowed:
            break
        shift = shift + (depth - 0.7 * allowed) * way
        shift *= min(1.0, MOST_RELIEF / max(float(np.linalg.norm(shift)), 1e-9))
        moved = transforms.make_transform(motion[:3, :3], motion[:3, 3] + shift)
        depth, way = _deepest(upper, lower, moved)
        if depth < least:
            best, least = moved, depth
    return best, least
