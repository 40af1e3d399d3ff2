"""Compounding on the CPU: numba kernels on slabs of the volume, one slab per thread.

Every thread walks all frames, but only where they lie in its own slab, so no two threads ever write the same voxel
and no sum needs a lock or a merge. The cuts between slabs are quantiles of the pixels' coordinates, so the slabs
hold equal work.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_compounding import kernel_linear, kernel_nearest
from usx_compounding.cells import CellKind
from usx_compounding.engine import Deposit, Slices, base_limits
from usx_compounding.fixed_point import FRACTION_BITS, pixel_coordinates
from usx_compounding.mask import Runs

Box = tuple[NDArray[np.int64], NDArray[np.int64]]
KERNELS = {("nearest", "mean"): kernel_nearest.mean, ("nearest", "maximum"): kernel_nearest.maximum,
           ("nearest", "latest"): kernel_nearest.latest, ("linear", "mean"): kernel_linear.mean,
           ("linear", "maximum"): kernel_linear.maximum, ("linear", "latest"): kernel_linear.latest}
SAMPLES_PER_FRAME = 64
LARGE = 2**22  # bytes


class NumbaEngine:
    """See `engine.Engine`. ``threads``: how many slabs are worked on at once."""

    lazy = True

    def __init__(self, threads: int = 2) -> None:
        if threads < 1:
            raise UsxError(f"{threads} compounding threads: it must be 1 or more")
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="compounding") if threads > 1 else None

    def allocate(self, size: tuple[int, int, int], kind: CellKind) -> NDArray:
        return _untouched((*size[::-1], kind.values), kind.dtype)

    def place(self, cells: NDArray, outer: NDArray, where: Slices) -> None:
        outer[where] = cells

    def move(self, cells: NDArray, part: Slices, outer: NDArray, where: Slices) -> None:
        pages = _pages_of(cells)
        for old, new in zip(range(*part[0].indices(len(cells))), range(*where[0].indices(len(outer))), strict=True):
            outer[new][where[1:]] = cells[old][part[1:]]
            if pages is not None:
                _give_back(pages, old * cells.strides[0], cells.strides[0])

    def to_numpy(self, cells: NDArray) -> NDArray:
        return cells

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def deposit(self, cells: NDArray, kind: CellKind, frames: Deposit) -> None:
        kernel = KERNELS[(kind.distribution, kind.combination)]
        nz, ny, nx, values = cells.shape
        flat = cells.reshape(-1, values)
        strides = np.array([nx, nx * ny], dtype=np.int64)

        def work(box: Box) -> None:
            kernel(flat, frames.images, frames.steps, frames.runs, box[0], box[1], strides, frames.table, frames.order)

        low, high = np.zeros(3, dtype=np.int64), base_limits((nx, ny, nz), kind)
        axis, cuts = _cuts(frames.steps, frames.runs, self._threads, high)
        if self._pool is None or not cuts:
            work((low, high))
            return
        for boxes in _phases(low, high, axis, cuts, seam=kind.distribution == "linear"):
            for _ in self._pool.map(work, boxes):
                pass


def _untouched(shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
    """Zeros whose memory is taken page by page as voxels are first touched.

    Without large pages: with them, one frame through a volume would take nearly all of it at once.
    """
    length = int(np.prod(shape)) * dtype.itemsize
    if length < LARGE or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.zeros(shape, dtype=dtype)
    pages = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared ones cannot be given back
    with contextlib.suppress(OSError):  # a kernel without large pages knows no such advice
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype=dtype).reshape(shape)


def _pages_of(cells: NDArray) -> mmap.mmap | None:
    """The pages behind cells of `_untouched`, None for small ones."""
    base: object = cells
    while isinstance(base, np.ndarray):
        base = base.base
    pages = base.obj if isinstance(base, memoryview) else base
    return pages if isinstance(pages, mmap.mmap) else None


def _give_back(pages: mmap.mmap, start: int, length: int) -> None:
    """Return the memory of the pages that end within these bytes; what precedes them is not needed any more."""
    first, last = start // mmap.PAGESIZE * mmap.PAGESIZE, (start + length) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        pages.madvise(mmap.MADV_DONTNEED, first, last - first)


def _cuts(steps: NDArray[np.int64], runs: Runs, threads: int, limits: NDArray[np.int64]) -> tuple[int, list[int]]:
    """The axis along which the frames spread most, and where to cut it so that every slab gets equally many pixels."""
    if threads == 1:
        return 0, []
    chosen = runs[np.linspace(0, len(runs) - 1, SAMPLES_PER_FRAME).astype(int)].astype(np.int64)
    scattered = np.argsort(np.arange(SAMPLES_PER_FRAME) * 37 % SAMPLES_PER_FRAME)
    fractions = np.linspace(0.0, 1.0, SAMPLES_PER_FRAME)[scattered]
    columns = (chosen[:, 1] + fractions * (chosen[:, 2] - 1 - chosen[:, 1])).astype(np.int64)
    voxels = (pixel_coordinates(steps, columns, chosen[:, 0]) >> FRACTION_BITS).reshape(-1, 3)
    inside = voxels[((voxels >= 0) & (voxels < limits)).all(axis=1)]
    if not len(inside):
        return 0, []
    axis = int(np.argmax(np.ptp(inside, axis=0)))
    quantiles = np.quantile(inside[:, axis], np.arange(1, threads) / threads).astype(int)
    cuts: list[int] = []
    for cut in quantiles.tolist():  # two voxels apart at least, so that seams never touch
        if cut >= (cuts[-1] if cuts else 0) + 2 and cut <= limits[axis] - 2:
            cuts.append(cut)
    return axis, cuts


def _phases(low: NDArray[np.int64], high: NDArray[np.int64], axis: int, cuts: list[int], seam: bool) -> list[list[Box]]:
    """Boxes that may be worked on together, phase after phase.

    With ``seam`` a pixel also writes one voxel further: the last layer before each cut is left for a second phase.
    """
    edges = [int(low[axis]), *cuts, int(high[axis])]
    slabs, seams = [], []
    for first, last in itertools.pairwise(edges):
        inner = last - 1 if seam and last != edges[-1] else last
        slabs.append(_cut_box(low, high, axis, first, inner))
        if inner != last:
            seams.append(_cut_box(low, high, axis, inner, last))
    return [slabs, seams] if seams else [slabs]


def _cut_box(low: NDArray[np.int64], high: NDArray[np.int64], axis: int, first: int, last: int) -> Box:
    box_low, box_high = low.copy(), high.copy()
    box_low[axis], box_high[axis] = first, last
    return box_low, box_high
