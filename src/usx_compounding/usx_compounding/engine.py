"""What a compounding engine must do; the numba and the torch engine give equal results bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from usx_compounding.cells import CellKind
from usx_compounding.mask import Runs

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Deposit:
    """Frames to add to a volume.

    ``images``: (frames, rows, columns) uint8, C order. ``steps``: (frames, 3, 3) int64 (`fixed_point`), relative to the
    first voxel of the cells, rounding offset added. ``order``: (frames, 2) int64 stamp (ns) and sequence.
    """

    images: NDArray[np.uint8]
    steps: NDArray[np.int64]
    order: NDArray[np.int64]
    runs: Runs
    table: NDArray


class Engine(Protocol):
    """Holds no state of its own; ``cells`` is its own kind of array of shape (z, y, x, values per voxel).

    ``lazy``: cells that were never touched take no memory, and `move` frees the old cells as it goes.
    """

    lazy: bool

    def allocate(self, size: tuple[int, int, int], kind: CellKind) -> Any:
        """Zeroed cells for ``size`` voxels along x, y, z."""

    def place(self, cells: Any, outer: Any, where: Slices) -> None:
        """Copy ``cells`` into the part ``where`` (z, y, x) of the larger ``outer``."""

    def move(self, cells: Any, part: Slices, outer: Any, where: Slices) -> None:
        """Move the ``part`` (z, y, x) of ``cells`` to ``where`` in ``outer``. ``cells`` must not be used any more."""

    def deposit(self, cells: Any, kind: CellKind, frames: Deposit) -> None:
        """Add frames to cells; pixels outside are left out."""

    def to_numpy(self, cells: Any) -> NDArray:
        """The cells as a numpy array; a view where that is possible."""

    def close(self) -> None:
        """Give back threads and memory."""


def base_limits(size: tuple[int, int, int], kind: CellKind) -> NDArray[np.int64]:
    """One past the largest voxel that a pixel's coordinate may fall into: linear needs the next one as well."""
    return np.array(size, dtype=np.int64) - (1 if kind.distribution == "linear" else 0)
