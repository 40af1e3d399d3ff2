"""The voxels of a volume: a lattice fixed in space, and the box of it that is held in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.transforms import Matrix, is_rigid
from usx_common.volumes import VolumeGrid

GIB = 2**30
SPARE = 48  # voxels


class VolumeTooLarge(UsxError):
    """A volume would need more memory than allowed; told before any of it is taken."""


@dataclass(frozen=True)
class Lattice:
    """All voxel centres that there could be: ``volume_to_world`` @ (index * ``spacing``), index of whole numbers.

    ``volume_to_world``: (4, 4) rigid, mm; its origin is voxel (0, 0, 0). ``spacing``: mm, the same along all axes.
    The lattice never moves while a volume grows, so growing changes no result.
    """

    volume_to_world: Matrix
    spacing: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.spacing) and self.spacing > 0):
            raise UsxError(f"voxel spacing {self.spacing} mm must be positive")
        if not is_rigid(self.volume_to_world, 1e-6):
            raise UsxError("the volume's axes (volume_to_world) must be rigid: rotation and translation only")

    @property
    def world_to_lattice(self) -> Matrix:
        """(4, 4) from mm in world to voxel indices."""
        scale = np.diag([1.0 / self.spacing] * 3 + [1.0])
        return scale @ np.linalg.inv(self.volume_to_world)


@dataclass(frozen=True)
class Region:
    """A box of a lattice: index of its first voxel along x, y, z, and one past the last."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        return tuple(int(b - a) for a, b in zip(self.low, self.high, strict=True))  # type: ignore[return-value]

    @property
    def voxels(self) -> int:
        nx, ny, nz = self.size
        return nx * ny * nz

    def holds(self, other: Region) -> bool:
        """Whether ``other`` lies within."""
        return all(a <= b for a, b in zip(self.low, other.low, strict=True)) and all(
            a >= b for a, b in zip(self.high, other.high, strict=True))

    def joined(self, other: Region) -> Region:
        """Smallest box around both."""
        return Region.of(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def slices_in(self, outer: Region) -> tuple[slice, slice, slice]:
        """Where this box lies in the (z, y, x) array of ``outer``."""
        return tuple(slice(a - o, b - o) for a, b, o in  # type: ignore[return-value]
                     zip(self.low[::-1], self.high[::-1], outer.low[::-1], strict=True))

    def grid(self, lattice: Lattice) -> VolumeGrid:
        """Where the voxels lie in world, mm."""
        axes = lattice.volume_to_world[:3, :3]
        origin = lattice.volume_to_world[:3, 3] + axes @ (np.array(self.low) * lattice.spacing)
        return VolumeGrid(origin, np.full(3, lattice.spacing), self.size, axes)

    @staticmethod
    def of(low: NDArray, high: NDArray) -> Region:
        """Region of two rows of three numbers."""
        return Region(tuple(int(n) for n in low), tuple(int(n) for n in high))  # type: ignore[arg-type]


def grown(current: Region | None, needed: Region, first: Region) -> Region:
    """A region around both, with room to spare: on all sides at first, then on the sides that had to move.

    A side gets twice the room that it has moved since the ``first`` frame's region, SPARE voxels at least: the
    direction of the sweep triples and is re-allocated only once or twice. Room that no frame touches costs addresses,
    not memory.
    """
    low = np.minimum((current or needed).low, needed.low)
    high = np.maximum((current or needed).high, needed.high)
    moved_low = np.ones(3, dtype=bool) if current is None else low < np.array(current.low)
    moved_high = np.ones(3, dtype=bool) if current is None else high > np.array(current.high)
    spare_low = np.where(moved_low, np.maximum(2 * (np.array(first.low) - low), SPARE), 0)
    spare_high = np.where(moved_high, np.maximum(2 * (high - np.array(first.high)), SPARE), 0)
    return Region.of(low - spare_low, high + spare_high)


def check_memory(region: Region, bytes_per_voxel: int, limit_bytes: int, spacing: float, held_bytes: int = 0) -> None:
    """Raise VolumeTooLarge unless ``region`` fits into ``limit_bytes`` beside ``held_bytes`` already in use.

    The error says what was asked, the limit, and the spacing that would fit.
    """
    asked = region.voxels * bytes_per_voxel + held_bytes
    if asked <= limit_bytes:
        return
    fitting = spacing * (asked / limit_bytes) ** (1 / 3)
    fitting = np.ceil(fitting * 1.02 * 100) / 100  # boxes are whole voxels: leave two percent
    nx, ny, nz = region.size
    raise VolumeTooLarge(
        f"a volume of {nx} x {ny} x {nz} voxels at {spacing:g} mm needs {asked / GIB:.2f} GiB, the limit is "
        f"{limit_bytes / GIB:.2f} GiB: a spacing of {fitting:.2f} mm or more would fit, or raise the memory limit")


def scout(image_to_world: NDArray[np.float64], corners: NDArray[np.int64], spacing: float,
          axes: NDArray[np.float64] | None = None) -> tuple[Lattice, Region]:
    """Lattice and region that hold given frames tightly: the first pass of an off-line reconstruction.

    ``image_to_world``: (frames, 4, 4), pixels to mm; ``corners``: (4, 2) columns and rows of the used rectangle;
    ``axes``: (3, 3) directions of the volume as columns, default those of world. Voxel (0, 0, 0) lies at the corner
    of the box around all frames, a hair (2**-16 voxel) outside it so that no rounding leaves a corner pixel out.
    """
    axes = np.eye(3) if axes is None else axes
    pixels = np.column_stack([corners, np.zeros(len(corners)), np.ones(len(corners))]).astype(np.float64)
    points = np.einsum("fij,pj->fpi", np.asarray(image_to_world, dtype=np.float64), pixels)[..., :3].reshape(-1, 3)
    if not len(points):
        raise UsxError("no frame with a valid pose: there is no volume to reconstruct")
    along = points @ axes
    low = along.min(axis=0) - spacing * 2.0**-16
    volume_to_world = np.eye(4)
    volume_to_world[:3, :3], volume_to_world[:3, 3] = axes, axes @ low
    size = np.floor((along.max(axis=0) - low) / spacing).astype(int) + 2
    return Lattice(volume_to_world, spacing), Region.of(np.zeros(3, int), size)
