"""What a voxel remembers for each way of combining pixels, and how a result is read from it.

| combination | distribution | per voxel                                       | most pixels per voxel |
|-------------|--------------|-------------------------------------------------|-----------------------|
| mean        | nearest      | int64: count << 36 | sum                        | 2**27 - 1             |
| mean        | linear       | int64 sum of weights, int64 sum of weight*value | 2**31 - 1 full weights|
| maximum     | both         | int16: largest value + 1                        | no limit              |
| latest      | both         | int64 stamp (ns), int64 key                     | no limit              |

The key of "latest" is (sequence + 1) << 32 | row-major pixel index << 8 | value, for images below 2**24 pixels.
Zero always means "nothing came", so fresh memory needs no filling. 2**27 pixels of 255 sum to less than 2**35; a full
linear weight is 2**24, times 255 below 2**32. The compounder counts what may have come and checks before a limit is
near.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError

Distribution = Literal["nearest", "linear"]
Combination = Literal["mean", "maximum", "latest"]
DISTRIBUTIONS = ("nearest", "linear")
COMBINATIONS = ("mean", "maximum", "latest")
COUNT_SHIFT = 36
SUM_MASK = (1 << COUNT_SHIFT) - 1
FULL_WEIGHT_BITS = 24


@dataclass(frozen=True)
class CellKind:
    """One row of the table above."""

    distribution: Distribution
    combination: Combination

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise UsxError(f"distribution {self.distribution!r} is unknown: it must be {' or '.join(DISTRIBUTIONS)}")
        if self.combination not in COMBINATIONS:
            raise UsxError(f"combination {self.combination!r} is unknown: it must be one of {', '.join(COMBINATIONS)}")

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int16 if self.combination == "maximum" else np.int64)

    @property
    def values(self) -> int:
        """Numbers per voxel."""
        if self.combination == "mean":
            return 1 if self.distribution == "nearest" else 2
        return 1 if self.combination == "maximum" else 2

    @property
    def bytes_per_voxel(self) -> int:
        return self.dtype.itemsize * self.values

    @property
    def most_hits(self) -> int | None:
        """Pixels (full weights) that one voxel can take before its sums would overflow; None for no limit."""
        if self.combination != "mean":
            return None
        return 2**27 - 1 if self.distribution == "nearest" else 2**31 - 1

    def table(self, rejection_threshold: int) -> NDArray:
        """(256,) what a pixel of each value adds to or sets in a voxel; 0 below the rejection threshold."""
        values = np.arange(256, dtype=np.int64)
        if self.combination == "mean" and self.distribution == "nearest":
            table = (1 << COUNT_SHIFT) | values
        else:
            table = values + 1
        return np.where(values >= rejection_threshold, table, 0).astype(self.dtype)


@dataclass(frozen=True)
class Compounded:
    """A read-out: (z, y, x) arrays of one region. ``hit``: where any pixel came; values are 0 elsewhere.

    ``mean``: float64, unrounded (for maximum and latest the value itself). ``weight``: float64, pixels (or sum of
    linear weights) per voxel; 0 or 1 for maximum and latest.
    """

    mean: NDArray[np.float64]
    weight: NDArray[np.float64]

    @property
    def hit(self) -> NDArray[np.bool_]:
        return self.weight > 0


def hits(cells: NDArray, kind: CellKind) -> NDArray[np.bool_]:
    """Where any pixel came; ``cells``: (..., values per voxel)."""
    return cells[..., 1] > 0 if kind.combination == "latest" else cells[..., 0] > 0


def read(cells: NDArray, kind: CellKind) -> Compounded:
    """Float read-out of (z, y, x, values) cells."""
    total, weight, scale = _sums(cells, kind)
    known = weight > 0
    mean = np.divide(total, weight, out=np.zeros(total.shape), where=known)
    return Compounded(mean, weight / scale)


def grey(cells: NDArray, kind: CellKind) -> NDArray[np.uint8]:
    """uint8 read-out of (z, y, x, values) cells: floor(mean + 0.5) in exact arithmetic, 0 where nothing came.

    Slice by slice, because whole 64-bit intermediates of a large volume would take several times its memory.
    """
    out = np.empty(cells.shape[:-1], dtype=np.uint8)
    for place, layer in zip(out, cells, strict=True):
        place[...] = _grey_layer(layer, kind)
    return out


def _grey_layer(cells: NDArray, kind: CellKind) -> NDArray:
    if kind.combination == "maximum":
        return np.maximum(cells[..., 0] - 1, 0)
    if kind.combination == "latest":
        return cells[..., 1] & 0xFF
    total, weight, _ = _sums(cells, kind)
    safe = np.maximum(weight, 1)
    quotient = total // safe
    quotient += total - quotient * safe >= safe - safe // 2  # remainder of one half or more: no doubling, no overflow
    return np.where(weight > 0, quotient, 0)


def most_hits_so_far(cells: NDArray, kind: CellKind) -> int:
    """Largest number of full weights in any voxel, rounded up."""
    if not cells.size:
        return 0
    top = int(cells[..., 0].max())
    return (top >> COUNT_SHIFT if kind.distribution == "nearest" else top >> FULL_WEIGHT_BITS) + 1


def _sums(cells: NDArray, kind: CellKind) -> tuple[NDArray, NDArray, float]:
    """Sum of weight * value, sum of weights, and what a full weight counts."""
    if kind.combination == "mean" and kind.distribution == "nearest":
        return cells[..., 0] & SUM_MASK, cells[..., 0] >> COUNT_SHIFT, 1.0
    if kind.combination == "mean":
        return cells[..., 1], cells[..., 0], float(1 << FULL_WEIGHT_BITS)
    known = hits(cells, kind).astype(np.int64)
    return _grey_layer(cells, kind).astype(np.int64), known, 1.0
