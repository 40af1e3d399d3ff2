"""Spinous processes in an ultrasound bone cloud: the crests of the back's midline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from usx_common.errors import UsxError

BIN_MM = 2.0
HALF_WIDTH_MM = 6.0
LEVEL_COUNT = 5
LOWEST_CREST_MM = 14.0


def spinous_tips(points: NDArray, smallest_step: float = 20.0, largest_step: float = 50.0) -> NDArray[np.float64]:
    """(5, 3) tips of five spinous processes, cranial first; ``points`` (N, 3), mm, frame spine.

    Along the midline the most posterior bone rises at every spinous process and falls between them. Raises UsxError
    when not exactly five processes show, or their spacing is not that of a lumbar spine.
    """
    if len(points) < 200 or np.ptp(points[:, 2]) < 4 * smallest_step:
        raise UsxError(f"{len(points)} points over {np.ptp(points[:, 2]) if len(points) else 0.0:.0f} mm "
                       "are too little of a spine")
    heights, crest, middle = midline_profile(points)
    rise = gaussian_filter1d(crest, 2.5 / BIN_MM)
    peaks, _ = find_peaks(np.r_[rise.min() - 50.0, rise, rise.min() - 50.0], prominence=2.0,
                          distance=max(1, int(smallest_step / BIN_MM)))
    peaks = peaks - 1
    # a rise far below the others is a facet joint or the edge of the view
    peaks = peaks[rise[peaks] > np.median(rise[peaks]) - LOWEST_CREST_MM]
    if len(peaks) != LEVEL_COUNT:
        raise UsxError(f"{len(peaks)} spinous processes show where five are needed")
    peaks = np.asarray([_centre_of_crest(rise, peak) for peak in peaks])[::-1]
    tips = np.column_stack([middle[peaks], crest[peaks], heights[peaks]])
    steps = -np.diff(tips[:, 2])
    if steps.min() < smallest_step or steps.max() > largest_step:
        raise UsxError(f"the spinous processes lie {steps.min():.0f} to {steps.max():.0f} mm apart; "
                       f"lumbar ones lie {smallest_step:.0f} to {largest_step:.0f} mm apart")
    return tips


def midline_profile(points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Along z in steps of BIN_MM: heights z, y of the most posterior bone near the midline, and x of the midline."""
    low = points[:, 2].min()
    index = np.floor((points[:, 2] - low) / BIN_MM).astype(int)
    count = index.max() + 1
    heights = low + (np.arange(count) + 0.5) * BIN_MM
    # the crests are the most posterior bone of all: they show where the midline runs
    high = points[:, 1] >= np.quantile(points[:, 1], 0.85)
    degree = 2 if high.sum() > 50 else 0
    middle = np.polyval(np.polyfit(points[high, 2], points[high, 0], degree), heights)
    near = np.abs(points[:, 0] - middle[index]) < HALF_WIDTH_MM
    crest = np.full(count, np.nan)
    for bin_ in range(count):
        y = points[near & (index == bin_), 1]
        if len(y) >= 2:
            crest[bin_] = np.quantile(y, 0.9)
    known = np.flatnonzero(np.isfinite(crest))
    if len(known) < LEVEL_COUNT:
        raise UsxError("there is no bone along the midline")
    # a short hole in the data is bridged; a long one is a space between processes
    bridged = np.interp(heights, heights[known], crest[known])
    hole = np.abs(known[np.argmin(np.abs(known[None, :] - np.arange(count)[:, None]), axis=1)] - np.arange(count))
    crest = np.where(hole > 2, np.nanquantile(crest, 0.05), bridged)
    return heights, crest, middle


def tip_of(vertices: NDArray) -> NDArray[np.float64]:
    """(3,) tip of the spinous process of a vertebra (V, 3) in its usual tilt: middle of its most posterior 4 mm."""
    tip = vertices[vertices[:, 1] > vertices[:, 1].max() - 4.0]
    return np.array([tip[:, 0].mean(), tip[:, 1].max(), 0.5 * (tip[:, 2].min() + tip[:, 2].max())])


def _centre_of_crest(rise: NDArray, peak: int, drop: float = 2.0) -> int:
    """Middle of the stretch around a peak that lies within ``drop`` mm of it: crests are plateaus."""
    first = last = peak
    while first > 0 and rise[first - 1] > rise[peak] - drop:
        first -= 1
    while last < len(rise) - 1 and rise[last + 1] > rise[peak] - drop:
        last += 1
    return (first + last) // 2
