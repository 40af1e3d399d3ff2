"""CPU kernels, nearest distribution: each pixel goes to the one voxel whose centre is nearest, floor(q + 0.5).

All take ``cells`` (voxels, values per voxel), ``images`` (frames, rows, columns) uint8, ``steps`` (frames, 3, 3)
with the rounding offset added, ``runs`` of the mask, and the box ``low`` <= voxel < ``high`` that this call may
write; ``strides`` are the distances of neighbours along y and z in ``cells``. They hold no lock, so calls on
separate boxes run in parallel.
"""

from __future__ import annotations

import numba
import numpy as np

from usx_compounding.kernel_walk import BITS, enter_run


@numba.njit(nogil=True, cache=True)
def mean(cells, images, steps, runs, low, high, strides, table, order):  # type: ignore[no-untyped-def]
    """Add table[value] = count << 36 | sum to a voxel; the table holds 0 for rejected values."""
    flat = cells.reshape(-1)
    along_y, along_z = strides[0], strides[1]
    for frame in range(len(images)):
        step = steps[frame]
        dx, dy, dz = step[0, 0], step[1, 0], step[2, 0]
        for run in range(len(runs)):
            x, y, z, first, last = enter_run(step, runs[run], low, high)
            pixels = images[frame, runs[run, 0]]
            for column in range(first, last):
                flat[(x >> BITS) + along_y * (y >> BITS) + along_z * (z >> BITS)] += table[pixels[column]]
                x += dx
                y += dy
                z += dz


@numba.njit(nogil=True, cache=True)
def maximum(cells, images, steps, runs, low, high, strides, table, order):  # type: ignore[no-untyped-def]
    """Keep the largest value + 1; 0 means that no pixel came."""
    flat = cells.reshape(-1)
    along_y, along_z = strides[0], strides[1]
    for frame in range(len(images)):
        step = steps[frame]
        dx, dy, dz = step[0, 0], step[1, 0], step[2, 0]
        for run in range(len(runs)):
            x, y, z, first, last = enter_run(step, runs[run], low, high)
            pixels = images[frame, runs[run, 0]]
            for column in range(first, last):
                voxel = (x >> BITS) + along_y * (y >> BITS) + along_z * (z >> BITS)
                flat[voxel] = max(flat[voxel], table[pixels[column]])
                x += dx
                y += dy
                z += dz


@numba.njit(inline="always")
def keep_latest(cells, voxel, stamp, key):  # type: ignore[no-untyped-def]
    """Keep the larger (stamp, key); a key of 0 means that nothing came yet."""
    held = cells[voxel, 0]
    if cells[voxel, 1] == 0 or stamp > held or (stamp == held and key > cells[voxel, 1]):
        cells[voxel, 0] = stamp
        cells[voxel, 1] = key


@numba.njit(nogil=True, cache=True)
def latest(cells, images, steps, runs, low, high, strides, table, order):  # type: ignore[no-untyped-def]
    """Keep the value of the largest (stamp, sequence, row-major pixel index).

    A voxel holds the stamp, and the key (sequence + 1) << 32 | pixel index << 8 | value.
    """
    along_y, along_z = strides[0], strides[1]
    width = images.shape[2]
    for frame in range(len(images)):
        step = steps[frame]
        stamp, sequence = order[frame, 0], (order[frame, 1] + 1) << 32
        for run in range(len(runs)):
            x, y, z, first, last = enter_run(step, runs[run], low, high)
            row = np.int64(runs[run, 0])
            for column in range(first, last):
                value = np.int64(images[frame, row, column])
                if table[value] > 0:
                    voxel = (x >> BITS) + along_y * (y >> BITS) + along_z * (z >> BITS)
                    keep_latest(cells, voxel, stamp, sequence | (row * width + column) << 8 | value)
                x, y, z = x + step[0, 0], y + step[1, 0], z + step[2, 0]
