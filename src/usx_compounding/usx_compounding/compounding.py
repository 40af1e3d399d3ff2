"""Compounding of tracked frames into a volume: settings, memory, growth; the arithmetic is the engine's."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.volumes import Volume
from usx_compounding import cells as cell_reading
from usx_compounding.cells import CellKind, Compounded
from usx_compounding.engine import Deposit, Engine
from usx_compounding.fixed_point import FRACTION_BITS, pixel_coordinates, quantise, rounding_offset, voxel_box
from usx_compounding.hole_filling import Method, fill_holes
from usx_compounding.mask import Runs, run_corners
from usx_compounding.region import Lattice, Region, check_memory, grown

EngineName = Literal["numba", "torch"]
LARGEST_IMAGE = 2**24  # pixels; "latest" keeps the pixel's index in 24 bits


@dataclass(frozen=True)
class CompoundingSettings:
    """How pixels become voxels. ``rejection_threshold``: darker pixels are left out (0 keeps all, as grey levels).

    ``memory_limit_bytes`` bounds the memory of the cells, while a volume grows too.
    """

    kind: CellKind = field(default_factory=lambda: CellKind("nearest", "mean"))
    rejection_threshold: int = 0
    memory_limit_bytes: int = 2 * 2**30

    def __post_init__(self) -> None:
        if not 0 <= self.rejection_threshold <= 255:
            raise UsxError(f"pixel rejection threshold {self.rejection_threshold}: it must be 0 .. 255")


@dataclass(frozen=True)
class Frames:
    """Frames with their place. ``images``: (frames, rows, columns) uint8; ``image_to_world``: (frames, 4, 4),
    pixels to mm; ``stamps``: (frames,) int64 ns; ``sequences``: (frames,) int64, to tell frames of one stamp apart."""

    images: NDArray[np.uint8]
    image_to_world: NDArray[np.float64]
    stamps: NDArray[np.int64]
    sequences: NDArray[np.int64]

    @staticmethod
    def in_order(images: NDArray[np.uint8], image_to_world: NDArray[np.float64]) -> Frames:
        """Frames whose place in the array is their time."""
        numbers = np.arange(len(images), dtype=np.int64)
        return Frames(images, image_to_world, numbers, numbers)


def make_engine(name: EngineName = "numba", threads: int = 2, device: str = "cuda") -> Engine:
    """Engine ``numba`` (CPU, ``threads``) or ``torch`` (``device``). Raises UsxError when it cannot run here."""
    if name == "numba":
        from usx_compounding.engine_numba import NumbaEngine

        return NumbaEngine(threads)
    if name == "torch":
        from usx_compounding.engine_torch import TorchEngine

        return TorchEngine(device)
    raise UsxError(f"engine {name!r} is unknown: it must be numba or torch")


class Compounder:
    """A volume in the making. The result depends on the set of frames only, not on their order nor on the engine.

    With ``region`` the volume is that box and pixels outside are left out; without, it grows to hold every frame.
    One thread at a time may call it.
    """

    def __init__(self, settings: CompoundingSettings, lattice: Lattice, runs: Runs, engine: Engine,
                 region: Region | None = None) -> None:
        self.settings, self.lattice = settings, lattice
        self._runs, self._engine = runs, engine
        self._fixed = region is not None
        self._table = settings.kind.table(settings.rejection_threshold)
        self._region: Region | None = None
        self._cells: Any = None
        self._touched: Region | None = None
        self._first: Region | None = None
        self._headroom = settings.kind.most_hits
        if region is not None:
            check_memory(region, settings.kind.bytes_per_voxel, settings.memory_limit_bytes, lattice.spacing)
            self._region, self._cells = region, engine.allocate(region.size, settings.kind)

    @property
    def region(self) -> Region | None:
        """Box around all frames so far (with ``region`` given: that box); None before the first frame."""
        return self._region if self._fixed else self._touched

    @property
    def bytes_held(self) -> int:
        """Memory of the cells."""
        return 0 if self._region is None else self._taken(self._region).voxels * self.settings.kind.bytes_per_voxel

    def needed_region(self, image_to_world: NDArray[np.float64], shape: tuple[int, int]) -> Region:
        """Box that frames of ``shape`` (rows, columns) at these (frames, 4, 4) places would touch."""
        return _hull(voxel_box(self._steps(image_to_world, shape), run_corners(self._runs)))

    def voxels_of(self, image_to_world: NDArray[np.float64], shape: tuple[int, int], columns: NDArray[np.int64],
                  rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(pixels, 3) lattice index of the (lower) voxel that each pixel of a frame of ``shape`` falls into."""
        coordinates = pixel_coordinates(self._steps(image_to_world, shape), columns, rows)[0]
        return (coordinates + rounding_offset(self.settings.kind.distribution)) >> FRACTION_BITS

    def reserve(self, image_to_world: NDArray[np.float64], shape: tuple[int, int]) -> None:
        """Make room for frames of ``shape`` (rows, columns) at these places. Raises VolumeTooLarge if there is none."""
        if not self._fixed:
            self._hold(self.needed_region(image_to_world, shape))

    def add(self, frames: Frames) -> None:
        """Add frames. Raises UsxError (VolumeTooLarge, ...) and adds none of them when they cannot be taken."""
        if not len(frames.images):
            return
        images = _checked_images(frames)
        steps = self._steps(frames.image_to_world, images.shape[1:])  # type: ignore[arg-type]
        self._check_overflow(len(images))
        if not self._fixed:
            self._hold(_hull(voxel_box(steps, run_corners(self._runs))))
        assert self._region is not None
        steps = steps.copy()
        steps[:, :, 2] -= np.array(self._region.low, dtype=np.int64) << FRACTION_BITS
        steps[:, :, 2] += rounding_offset(self.settings.kind.distribution)
        order = np.stack([frames.stamps, frames.sequences], axis=1).astype(np.int64)
        self._engine.deposit(self._cells, self.settings.kind, Deposit(images, steps, order, self._runs, self._table))

    def cells(self) -> NDArray:
        """(z, y, x, values) numpy cells of `region`; a view on the CPU: read it before the next `add`."""
        if self._region is None:
            raise UsxError("no frame has been compounded yet: there is no volume")
        region = self.region
        assert region is not None
        return self._engine.to_numpy(self._cells[region.slices_in(self._region)])

    def snapshot(self) -> Compounder:
        """The volume as it is now, with cells of its own: another thread may read it while this one grows."""
        twin, region = copy.copy(self), self.region
        if region is not None and self._region is not None:
            twin._region, twin._cells = region, self._engine.allocate(region.size, self.settings.kind)
            everything = region.slices_in(region)
            self._engine.place(self._cells[region.slices_in(self._region)], twin._cells, everything)
        return twin

    def read(self) -> Compounded:
        """Unrounded read-out of `region`."""
        return cell_reading.read(self.cells(), self.settings.kind)

    def volume(self) -> Volume:
        """uint8 volume of `region` in world, mm; 0 where nothing came."""
        cells, region = self.cells(), self.region
        assert region is not None
        return Volume(cell_reading.grey(cells, self.settings.kind), region.grid(self.lattice))

    def hits(self) -> NDArray[np.bool_]:
        """(z, y, x): where any pixel came."""
        return cell_reading.hits(self.cells(), self.settings.kind)

    def _steps(self, image_to_world: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.int64]:
        matrices = self.lattice.world_to_lattice @ np.asarray(image_to_world, dtype=np.float64).reshape(-1, 4, 4)
        return quantise(matrices, columns=shape[1], rows=shape[0])

    def _hold(self, needed: Region) -> None:
        """Grow the cells, if need be, so that they hold ``needed``."""
        limit, spacing, each = (self.settings.memory_limit_bytes, self.lattice.spacing,
                                self.settings.kind.bytes_per_voxel)
        touched = needed if self._touched is None else self._touched.joined(needed)
        if self._region is not None and self._region.holds(needed):
            if self._taken(self._region, touched).voxels * each <= limit:
                self._touched = touched
                return
        old = 0 if self._engine.lazy else self.bytes_held
        target = grown(self._region, needed, self._first or needed)
        if self._taken(target, touched).voxels * each + old > limit:
            target = touched  # no room to spare
        check_memory(self._taken(target, touched), each, limit, spacing, old)
        cells = self._engine.allocate(target.size, self.settings.kind)
        if self._region is not None and self._touched is not None:  # what was never touched is zero there as here
            self._engine.move(self._cells, self._touched.slices_in(self._region), cells,
                              self._touched.slices_in(target))
        self._region, self._cells, self._touched = target, cells, touched
        self._first = self._first or needed

    def _taken(self, region: Region, touched: Region | None = None) -> Region:
        """The part of cells of ``region`` that takes memory once ``touched`` is: whole rows of x, which share pages."""
        touched = touched or self._touched
        if self._fixed or not self._engine.lazy or touched is None:
            return region
        return Region((region.low[0], *touched.low[1:]), (region.high[0], *touched.high[1:]))

    def _check_overflow(self, frames: int) -> None:
        """Refuse frames that could overflow a voxel's sums; looks at the cells only when a limit may be near."""
        if self._headroom is None:
            return
        limit = self.settings.kind.most_hits or 0
        most = frames * int((self._runs[:, 2] - self._runs[:, 1]).sum())
        if most > self._headroom and self._cells is not None:
            held = cell_reading.most_hits_so_far(self._engine.to_numpy(self._cells), self.settings.kind)
            self._headroom = limit - held
        if most > self._headroom:
            raise UsxError(f"a voxel has taken so many pixels ({limit - self._headroom}) that its sums could overflow: "
                           "save and reset the sweep")
        self._headroom -= most


def filled_volume(compounder: Compounder, filling: Method = "none", reach: int = 9) -> Volume:
    """uint8 volume with holes filled over ``reach`` voxels; hit voxels keep their value, floor(mean + 0.5)."""
    volume = compounder.volume()
    if filling == "none":
        return volume
    result = compounder.read()
    values, _ = fill_holes(result.mean, result.hit, filling, reach)
    grey = np.where(result.hit, volume.values, np.clip(np.floor(values + 0.5), 0, 255)).astype(np.uint8)
    return Volume(grey, volume.grid)


def _checked_images(frames: Frames) -> NDArray[np.uint8]:
    images = np.asarray(frames.images)
    if images.dtype != np.uint8 or images.ndim != 3 or images[0].size > LARGEST_IMAGE or not images.size:
        raise UsxError(f"images of type {images.dtype} and shape {images.shape}: needed are 8-bit grey images "
                       f"(frames, rows, columns) of at most {LARGEST_IMAGE} pixels")
    return np.ascontiguousarray(images)


def _hull(boxes: NDArray[np.int64]) -> Region:
    return Region.of(boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0))
