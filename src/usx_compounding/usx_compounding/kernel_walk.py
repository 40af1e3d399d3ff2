"""The walk over a frame's pixels that all CPU kernels share: along a run, by addition, inside a box of voxels."""

from __future__ import annotations

import numba

from usx_compounding.fixed_point import FRACTION_BITS

BITS = FRACTION_BITS


@numba.njit(inline="always")
def clip_run(start: int, step: int, low: int, high: int, first: int, last: int) -> tuple[int, int]:
    """Part of columns [first, last) where low <= start + column * step < high; empty when last <= first.

    A coordinate is a straight line along the run, so the part is found by division: the inner loop needs no test.
    """
    if step > 0:
        first = max(first, -((start - low) // step))
        last = min(last, -((start - high) // step))
    elif step < 0:
        first = max(first, (start - high) // -step + 1)
        last = min(last, (start - low) // -step + 1)
    elif not low <= start < high:
        last = first
    return first, last


@numba.njit(inline="always")
def enter_run(steps, run, low, high):  # type: ignore[no-untyped-def]
    """Coordinates at column 0 of a run's row, and the columns of the run that stay within voxels [low, high)."""
    row = numba.int64(run[0])
    x = steps[0, 1] * row + steps[0, 2]
    y = steps[1, 1] * row + steps[1, 2]
    z = steps[2, 1] * row + steps[2, 2]
    first, last = numba.int64(run[1]), numba.int64(run[2])
    first, last = clip_run(x, steps[0, 0], low[0] << BITS, high[0] << BITS, first, last)
    first, last = clip_run(y, steps[1, 0], low[1] << BITS, high[1] << BITS, first, last)
    first, last = clip_run(z, steps[2, 0], low[2] << BITS, high[2] << BITS, first, last)
    return x + first * steps[0, 0], y + first * steps[1, 0], z + first * steps[2, 0], first, last
