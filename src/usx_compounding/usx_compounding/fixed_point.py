"""Voxel coordinates in fixed point: what makes a volume the same for any order of frames, threads or device.

A frame's matrix image -> lattice (pixels -> voxels) is rounded once to multiples of 2**-32 voxel. From there on a
pixel's coordinate is exact integer arithmetic, t + column * a + row * b, which every machine computes alike and
which a kernel can walk by addition. The rounding moves no pixel by more than (columns + rows) * 2**-33 voxel: 2e-7
voxel for a large image. Sums and weights are integers too, and integer sums do not depend on their order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError

FRACTION_BITS = 32
WEIGHT_BITS = 8  # of a linear weight, along each axis: three axes make 2**24 for a full weight
LARGEST_COORDINATE = 2**29  # voxels; leaves 2 bits of the 64 for sums of products

Steps = NDArray[np.int64]


def quantise(image_to_lattice: NDArray[np.float64], columns: int, rows: int) -> Steps:
    """(frames, 3, 3) int64 steps of (frames, 4, 4) matrices from pixels to voxels.

    ``steps[f, axis]`` = (change per column, change per row, coordinate of pixel (0, 0)) in 2**-32 voxel.
    Raises UsxError for a matrix that is not finite or leads out of all reason.
    """
    matrices = np.asarray(image_to_lattice, dtype=np.float64).reshape(-1, 4, 4)
    reach = np.abs(matrices[:, :3, [0, 1, 3]]) @ np.array([columns, rows, 1.0])
    if not np.all(np.isfinite(matrices)) or (reach.size and reach.max() > LARGEST_COORDINATE):
        raise UsxError(f"a frame lies up to {reach.max():.3g} voxels from the volume's origin, the limit is "
                       f"{LARGEST_COORDINATE}: check calibration, pose and units (mm)")
    return np.rint(matrices[:, :3, [0, 1, 3]] * 2.0**FRACTION_BITS).astype(np.int64)


def rounding_offset(distribution: str) -> int:
    """What to add to every coordinate before its fraction is cut off, so that cutting rounds.

    Nearest: half a voxel, floor(q + 0.5). Linear: half of the last bit that a weight keeps.
    """
    return 1 << (FRACTION_BITS - 1 if distribution == "nearest" else FRACTION_BITS - WEIGHT_BITS - 1)


def pixel_coordinates(steps: Steps, columns: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(frames, pixels, 3) fixed-point coordinates of pixels given by (pixels,) columns and rows."""
    weights = np.stack([columns, rows, np.ones_like(columns)]).astype(np.int64)
    return np.swapaxes(steps @ weights, 1, 2)


def voxel_box(steps: Steps, corners: NDArray[np.int64]) -> NDArray[np.int64]:
    """(frames, 2, 3) smallest voxel index and one past the largest that each frame can touch.

    ``corners``: (4, 2) columns and rows of the rectangle that holds all pixels in use. Valid for both distributions:
    a pixel reaches the voxels at floor(q) and floor(q) + 1.
    """
    coordinates = pixel_coordinates(steps, corners[:, 0], corners[:, 1])
    low = coordinates.min(axis=1) >> FRACTION_BITS
    high = (coordinates.max(axis=1) >> FRACTION_BITS) + 2
    return np.stack([low, high], axis=1)
