"""Filling the gaps that a sweep leaves between its frames. Every voxel that a frame hit keeps its value.

* ``stick``: the shortest straight stick through the empty voxel that has hit voxels at both ends, linearly interpolated
  (after the sticks of PLUS's hole filler): fills between frames, never beyond them.
* ``nearest``: the value of the nearest hit voxel within the reach.
* ``gaussian``: the mean of the hit voxels around, weighted by a Gaussian of a third of the reach.
"""

from __future__ import annotations

from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_common.errors import UsxError

Method = Literal["none", "stick", "nearest", "gaussian"]
METHODS = ("none", "stick", "nearest", "gaussian")


def fill_holes(values: NDArray, hit: NDArray[np.bool_], method: Method = "stick", reach: int = 9,
               ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values with holes filled, and where there is a value now; both (z, y, x).

    ``values``: (z, y, x); ``hit``: where they count. ``reach``, voxels: longest stick (the voxels from one end to the
    other), or largest distance of a voxel that gives its value. Raises UsxError for an unknown method or reach.
    """
    if method not in METHODS:
        raise UsxError(f"hole filling {method!r} is unknown: it must be one of {', '.join(METHODS)}")
    if not 1 <= reach <= 100:
        raise UsxError(f"hole filling over {reach} voxels: it must be 1 .. 100")
    known = np.where(hit, values, 0).astype(np.float64)
    if method == "none" or not hit.any():
        return known, hit.copy()
    if method == "stick":
        return _fill_sticks(known, np.ascontiguousarray(hit), _directions(), reach)
    if method == "nearest":
        return _fill_nearest(known, hit, reach)
    return _fill_gaussian(known, hit, reach)


def _fill_nearest(known: NDArray, hit: NDArray[np.bool_], reach: int) -> tuple[NDArray, NDArray[np.bool_]]:
    distance, (z, y, x) = ndimage.distance_transform_edt(~hit, return_indices=True)
    near = distance <= reach
    return np.where(near, known[z, y, x], 0.0), near


def _fill_gaussian(known: NDArray, hit: NDArray[np.bool_], reach: int) -> tuple[NDArray, NDArray[np.bool_]]:
    sigma = reach / 3.0
    weight = ndimage.gaussian_filter(hit.astype(np.float64), sigma, mode="constant", radius=reach)
    total = ndimage.gaussian_filter(known, sigma, mode="constant", radius=reach)
    near = ndimage.distance_transform_edt(~hit) <= reach
    filled = np.divide(total, weight, out=np.zeros_like(known), where=near & (weight > 1e-12))
    return np.where(hit, known, filled), near & (hit | (weight > 1e-12))


def _directions() -> NDArray[np.int64]:
    """(13, 3) the 26 neighbours' directions without opposites, along z, y, x; straight ones first."""
    steps = [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    half = [step for step in steps if step > (0, 0, 0)]
    return np.array(sorted(half, key=lambda step: sum(map(abs, step))), dtype=np.int64)


@numba.njit(inline="always")
def _reach_out(hit, z, y, x, step, reach):  # type: ignore[no-untyped-def]
    """Steps to the first hit voxel along ``step``, or 0 when none lies within reach and volume."""
    for n in range(1, reach + 1):
        a, b, c = z + n * step[0], y + n * step[1], x + n * step[2]
        if not (0 <= a < hit.shape[0] and 0 <= b < hit.shape[1] and 0 <= c < hit.shape[2]):
            return 0
        if hit[a, b, c]:
            return n
    return 0


@numba.njit(cache=True, nogil=True)
def _fill_sticks(known, hit, directions, reach):  # type: ignore[no-untyped-def]
    filled, now = known.copy(), hit.copy()
    for z in range(hit.shape[0]):
        for y in range(hit.shape[1]):
            for x in range(hit.shape[2]):
                if hit[z, y, x]:
                    continue
                shortest = np.inf
                for number in range(len(directions)):
                    step = directions[number]
                    ahead = _reach_out(hit, z, y, x, step, reach)
                    if ahead == 0:
                        continue
                    back = _reach_out(hit, z, y, x, -step, reach - ahead)
                    if back == 0:
                        continue
                    length = (ahead + back) * np.sqrt(np.float64((step * step).sum()))
                    if length < shortest:
                        shortest = length
                        front = known[z + ahead * step[0], y + ahead * step[1], x + ahead * step[2]]
                        behind = known[z - back * step[0], y - back * step[1], x - back * step[2]]
                        filled[z, y, x] = (front * back + behind * ahead) / (ahead + back)
                        now[z, y, x] = True
    return filled, now
