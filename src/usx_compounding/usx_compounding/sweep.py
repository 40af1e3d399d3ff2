"""One sweep: its frames compounded into a volume of grey levels and one of bone response, and what they show."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.transforms import Matrix, apply, invert
from usx_common.volumes import Volume
from usx_compounding import bone_surface, hole_filling
from usx_compounding.bone_response import BoneDetector, BoneSettings
from usx_compounding.bone_surface import BoneChannel, SurfacePoints
from usx_compounding.calibration import pixel_spacing
from usx_compounding.cells import CellKind
from usx_compounding.compounding import Compounder, CompoundingSettings, Frames, filled_volume, make_engine
from usx_compounding.coverage import Coverage
from usx_compounding.engine import Engine
from usx_compounding.mask import MaskSettings, make_mask, outline, to_runs
from usx_compounding.matching import MatchedFrame, TimedFrame
from usx_compounding.region import Lattice

SLICE_POINTS = 4000
BONE_KIND = CellKind("nearest", "maximum")  # 2 bytes per voxel; most voxels are met by one frame only


@dataclass(frozen=True)
class SweepSettings:
    """``image_to_probe``: (4, 4) pixels -> mm, exactly as given. ``bone_threshold``: least response, 0 .. 255."""

    image_to_probe: Matrix
    lattice: Lattice
    compounding: CompoundingSettings = field(default_factory=CompoundingSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    bone: BoneSettings = field(default_factory=BoneSettings)
    bone_threshold: float = 60.0


@dataclass(frozen=True)
class SlicePoints:
    """The live frame in space: ``points`` (n, 3) mm in the volume's frame, ``intensity`` (n,) grey levels."""

    points: NDArray[np.float64]
    intensity: NDArray[np.float32]


class Sweep:
    """Compounds matched frames of one image size. One thread at a time."""

    def __init__(self, settings: SweepSettings, engine: Engine, shape: tuple[int, int]) -> None:
        self.settings, self.shape = settings, shape
        mask = make_mask(settings.mask, *shape)
        runs = to_runs(mask)
        share = settings.compounding.kind.bytes_per_voxel + BONE_KIND.bytes_per_voxel
        limit = settings.compounding.memory_limit_bytes
        grey_limit = limit * settings.compounding.kind.bytes_per_voxel // share
        grey = CompoundingSettings(settings.compounding.kind, settings.compounding.rejection_threshold, grey_limit)
        self._grey = Compounder(grey, settings.lattice, runs, engine)
        self._bone = Compounder(CompoundingSettings(BONE_KIND, 1, limit - grey_limit), settings.lattice, runs, engine)
        self._detector = BoneDetector(settings.mask, shape, pixel_spacing(settings.image_to_probe), settings.bone)
        self._outline = _as_pixels(outline(settings.mask, *shape))
        self._sparse = _sparse_pixels(mask)
        self.coverage = Coverage(settings.lattice.spacing)
        self._beams = np.zeros(3, dtype=np.int64)
        self._bricks: set[tuple[int, int, int]] = set()  # parts of the lattice where any bone was seen
        self._world_to_volume = invert(settings.lattice.volume_to_world)
        self.newest_stamp = 0
        self.frames = 0  # compounded so far

    @property
    def bytes_held(self) -> int:
        """Memory of the cells."""
        return self._grey.bytes_held + self._bone.bytes_held

    def add(self, matched: MatchedFrame) -> None:
        """Compound a frame. Raises UsxError (VolumeTooLarge: no room) and leaves the sweep as it was when it cannot."""
        frame = matched.frame
        if frame.image.shape != self.shape:
            raise UsxError(f"frame of {frame.image.shape[::-1]} pixels in a sweep of {self.shape[::-1]}")
        image_to_world = (matched.probe_to_world @ self.settings.image_to_probe)[None]
        response = self._detector.response(frame.image)
        self._bone.reserve(image_to_world, self.shape)
        stamp, sequence = np.array([frame.stamp]), np.array([frame.sequence])
        self._grey.add(Frames(frame.image[None], image_to_world, stamp, sequence))
        self._bone.add(Frames(response[None], image_to_world, stamp, sequence))
        rows, columns = np.nonzero(response)
        voxels = self._bone.voxels_of(image_to_world, self.shape, columns, rows)
        self._bricks.update(map(tuple, np.unique(voxels // bone_surface.BRICK, axis=0).tolist()))
        image_to_volume = self._world_to_volume @ image_to_world[0]
        self.coverage.add(frame.stamp, apply(image_to_volume, self._outline))
        beam = image_to_volume[:3, 1] / np.linalg.norm(image_to_volume[:3, 1])
        self._beams += np.rint(beam * 2**30).astype(np.int64)  # integers: the mean does not depend on the frames' order
        self.newest_stamp = max(self.newest_stamp, frame.stamp)
        self.frames += 1

    def snapshot(self) -> Sweep:
        """The sweep as it is now: another thread may read its volumes while this one takes frames."""
        twin = copy.copy(self)
        twin._grey, twin._bone = self._grey.snapshot(), self._bone.snapshot()
        return twin

    def bone_points(self) -> SurfacePoints:
        """Bone surface seen so far, in the volume's frame, mm."""
        region = self._bone.region
        if region is None:
            return SurfacePoints(np.empty((0, 3)), np.empty(0, np.float32))
        channel = BoneChannel(self._bone.cells()[..., 0], region.low, self.settings.lattice.spacing,
                              np.array(sorted(self._bricks), dtype=np.int64).reshape(-1, 3))
        return bone_surface.thin(channel, self._beams.astype(np.float64), self.settings.bone_threshold)

    def slice_points(self, matched: MatchedFrame) -> SlicePoints:
        """Every k-th pixel of a frame in the field of view, in the volume's frame, mm."""
        to_volume = self._world_to_volume @ matched.probe_to_world @ self.settings.image_to_probe
        columns, rows = self._sparse.T
        grey = matched.frame.image[rows, columns].astype(np.float32)
        return SlicePoints(apply(to_volume, _as_pixels(self._sparse)), grey)

    def grey_volume(self, filling: hole_filling.Method = "none", reach: int = 9) -> Volume:
        """Grey levels in world, mm, holes filled over ``reach`` voxels. Raises UsxError before the first frame."""
        return filled_volume(self._grey, filling, reach)

    def bone_volume(self) -> Volume:
        """Compounded bone response in world, mm."""
        return self._bone.volume()


def _sparse_pixels(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n, 2) columns and rows of every k-th pixel of a mask, about SLICE_POINTS of them."""
    stride = max(int(np.ceil(np.sqrt(mask.sum() / SLICE_POINTS))), 1)
    rows, columns = np.nonzero(mask[::stride, ::stride])
    return np.stack([columns * stride, rows * stride], axis=1)


def _as_pixels(columns_rows: NDArray) -> NDArray[np.float64]:
    """(n, 3) points of the image plane from (n, 2) columns and rows."""
    return np.column_stack([columns_rows, np.zeros(len(columns_rows))]).astype(np.float64)


def warm_up(kind: CellKind) -> None:
    """Compile what a sweep of ``kind`` calls on the CPU, or load it from the cache, so that no frame waits."""
    engine = make_engine("numba", threads=1)
    lattice = Lattice(np.eye(4), 1.0)
    settings = SweepSettings(np.eye(4), lattice, CompoundingSettings(kind, memory_limit_bytes=2**26))
    sweep = Sweep(settings, engine, (64, 64))
    sweep.add(MatchedFrame(TimedFrame(1, 0, np.zeros((64, 64), dtype=np.uint8)), np.eye(4)))
    sweep.bone_points()
