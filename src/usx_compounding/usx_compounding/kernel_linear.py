"""CPU kernels, linear distribution: each pixel is shared among the eight voxels around it (trilinear splat).

Arguments as in `kernel_nearest`; ``high`` bounds the lower voxel of a pixel's cell, so a call writes up to ``high``
itself. A weight is the product of three integers of 8 bits, (256 - f) or f, and the eight weights of a pixel sum to
2**24 exactly.
"""

from __future__ import annotations

import numba
import numpy as np

from usx_compounding.fixed_point import WEIGHT_BITS
from usx_compounding.kernel_nearest import keep_latest
from usx_compounding.kernel_walk import BITS, enter_run

ONE = 1 << WEIGHT_BITS
CUT = BITS - WEIGHT_BITS


@numba.njit(inline="always")
def _corners(count, x, y, z, xy, xz, yz, xyz):  # type: ignore[no-untyped-def]
    """Sums of the eight trilinear weights from sums of the fractions' products; corner order x fastest, then y, z."""
    w7 = xyz
    w6 = (yz << WEIGHT_BITS) - xyz
    w5 = (xz << WEIGHT_BITS) - xyz
    w3 = (xy << WEIGHT_BITS) - xyz
    w4 = (z << 2 * WEIGHT_BITS) - (w5 + w6 + w7)
    w2 = (y << 2 * WEIGHT_BITS) - (w3 + w6 + w7)
    w1 = (x << 2 * WEIGHT_BITS) - (w3 + w5 + w7)
    w0 = (count << 3 * WEIGHT_BITS) - (w1 + w2 + w3 + w4 + w5 + w6 + w7)
    return w0, w1, w2, w3, w4, w5, w6, w7


@numba.njit(nogil=True, cache=True)
def mean(cells, images, steps, runs, low, high, strides, table, order):  # type: ignore[no-untyped-def]
    """Add (weight, weight * value) to the eight voxels around each pixel.

    Neighbouring pixels mostly share a cell. While they do, only the sums of the fractions' products (the moments 1, x,
    y, z, xy, xz, yz, xyz, plain and times value) are kept, in registers; the weights of the eight corners are linear in
    them and are formed once when the cell is left. Integer arithmetic makes that equal to adding pixel by pixel.
    """
    along_y, along_z = strides[0], strides[1]
    for frame in range(len(images)):
        step = steps[frame]
        dx, dy, dz = step[0, 0], step[1, 0], step[2, 0]
        for run in range(len(runs)):
            x, y, z, column, last = enter_run(step, runs[run], low, high)
            pixels = images[frame, runs[run, 0]]
            while column < last:
                voxel = (x >> BITS) + along_y * (y >> BITS) + along_z * (z >> BITS)
                here = voxel
                n = sx = sy = sz = sxy = sxz = syz = sxyz = np.int64(0)
                vn = vx = vy = vz = vxy = vxz = vyz = vxyz = np.int64(0)
                while here == voxel:
                    value = np.int64(pixels[column])
                    if table[value] > 0:
                        fx, fy, fz = (x >> CUT) & (ONE - 1), (y >> CUT) & (ONE - 1), (z >> CUT) & (ONE - 1)
                        xy, xz, yz = fx * fy, fx * fz, fy * fz
                        xyz = xy * fz
                        n += 1
                        sx, sy, sz = sx + fx, sy + fy, sz + fz
                        sxy, sxz, syz, sxyz = sxy + xy, sxz + xz, syz + yz, sxyz + xyz
                        vn, vx, vy, vz = vn + value, vx + fx * value, vy + fy * value, vz + fz * value
                        vxy, vxz = vxy + xy * value, vxz + xz * value
                        vyz, vxyz = vyz + yz * value, vxyz + xyz * value
                    x, y, z, column = x + dx, y + dy, z + dz, column + 1
                    if column >= last:
                        break
                    here = (x >> BITS) + along_y * (y >> BITS) + along_z * (z >> BITS)
                w0, w1, w2, w3, w4, w5, w6, w7 = _corners(n, sx, sy, sz, sxy, sxz, syz, sxyz)
                u0, u1, u2, u3, u4, u5, u6, u7 = _corners(vn, vx, vy, vz, vxy, vxz, vyz, vxyz)
                _add_pair(cells, voxel, w0, u0, w1, u1)
                _add_pair(cells, voxel + along_y, w2, u2, w3, u3)
                _add_pair(cells, voxel + along_z, w4, u4, w5, u5)
                _add_pair(cells, voxel + along_y + along_z, w6, u6, w7, u7)


@numba.njit(inline="always")
def _add_pair(cells, voxel, weight, product, next_weight, next_product):  # type: ignore[no-untyped-def]
    cells[voxel, 0] += weight
    cells[voxel, 1] += product
    cells[voxel + 1, 0] += next_weight
    cells[voxel + 1, 1] += next_product


@numba.njit(inline="always")
def _reached(corner, fx, fy, fz, along_y, along_z):  # type: ignore[no-untyped-def]
    """Offset of a corner voxel, or -1 when the pixel's weight there is zero."""
    right, down, deep = corner & 1, corner >> 1 & 1, corner >> 2
    if (right and fx == 0) or (down and fy == 0) or (deep and fz == 0):
        return -1
    return right + down * along_y + deep * along_z


@numba.njit(nogil=True, cache=True)
def maximum(cells, images, steps, runs, low, high, strides, table, order):  # type: ignore[no-untyped-def]
    """Keep the largest value + 1 among the pixels whose weight at the voxel is not zero."""
    flat = cells.reshape(-1)
    along_y, along_z = strides[0], strides[1]
    for frame in range(len(images)):
        step = steps[frame]
        for run in range(len(runs)):
            x, y, z, first, last = enter_run(step, runs[run], low, high)
            for column in range(first, last):
                key = table[images[frame, runs[run, 0], column]]
                voxel = (x >> BITS) + along_y * (y >> BITS) + along_z * (z >> BITS)
                fx, fy, fz = (x >> CUT) & (ONE - 1), (y >> CUT) & (ONE - 1), (z >> CUT) & (ONE - 1)
                for corner in range(8):
                    offset = _reached(corner, fx, fy, fz, along_y, along_z)
                    if offset >= 0:
                        flat[voxel + offset] = max(flat[voxel + offset], key)
                x, y, z = x + step[0, 0], y + step[1, 0], z + step[2, 0]


@numba.njit(nogil=True, cache=True)
def latest(cells, images, steps, runs, low, high, strides, table, order):  # type: ignore[no-untyped-def]
    """Keep the value of the largest (stamp, sequence, pixel index) whose weight at the voxel is not zero."""
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
                    key = sequence | (row * width + column) << 8 | value
                    voxel = (x >> BITS) + along_y * (y >> BITS) + along_z * (z >> BITS)
                    fx, fy, fz = (x >> CUT) & (ONE - 1), (y >> CUT) & (ONE - 1), (z >> CUT) & (ONE - 1)
                    for corner in range(8):
                        offset = _reached(corner, fx, fy, fz, along_y, along_z)
                        if offset >= 0:
                            keep_latest(cells, voxel + offset, stamp, key)
                x, y, z = x + step[0, 0], y + step[1, 0], z + step[2, 0]
