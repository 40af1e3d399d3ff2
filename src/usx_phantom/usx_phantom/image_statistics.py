"""What is measured in B-mode images, real or simulated: speckle statistics, bone line, shadow.

All functions take scan lines: arrays (lines, samples) whose second axis runs away from the probe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from usx_common.errors import UsxError

RAYLEIGH_SNR = float(np.sqrt(np.pi / (4.0 - np.pi)))  # 1.913; Wagner et al., IEEE Trans. Sonics Ultrason. 30, 1983
LOG_RAYLEIGH_SD_DB = float(20.0 / np.log(10.0) * np.pi / np.sqrt(24.0))  # 5.57 dB, whatever the brightness
SHADOW = (5.0, 15.0)  # mm behind the bone that are taken for its shadow
BEFORE = (-6.0, -1.5)  # mm that are taken for the tissue before it
STEEPEST = 2.0  # mm of depth that the bone line may change per mm across the lines


class BadImage(UsxError):
    """Scan lines that nothing can be measured in."""


@dataclass(frozen=True)
class BoneLine:
    """Bone found in scan lines: `sample` (lines,) index of the brightest sample, -1 where there is none; then per
    found line, (N,): `peak` and `shadow` in grey levels, `thickness` in mm (full width at half maximum)."""

    sample: NDArray[np.int64]
    peak: NDArray[np.float64]
    shadow: NDArray[np.float64]
    thickness: NDArray[np.float64]

    @property
    def contrast(self) -> NDArray[np.float64]:
        """(N,) grey levels between the bone and the shadow behind it."""
        return self.peak - self.shadow


def speckle_snr(envelope: NDArray) -> float:
    """Mean over standard deviation of an envelope before compression; 1.913 for fully developed speckle.

    Raises BadImage for fewer than 100 values, or values that do not vary.
    """
    values = np.asarray(envelope, dtype=np.float64).ravel()
    if values.size < 100 or not np.isfinite(values).all() or values.std() <= 0.0:
        raise BadImage(f"{values.size} envelope values: 100 or more finite values that vary are needed")
    return float(values.mean() / values.std())


def rayleigh_distance(envelope: NDArray) -> float:
    """Kolmogorov-Smirnov distance (0..1) of an envelope to the Rayleigh distribution of the same power.

    Neighbouring samples are correlated, so the distance is told, and no probability.
    """
    values = np.asarray(envelope, dtype=np.float64).ravel()
    return float(stats.kstest(values, stats.rayleigh(scale=np.sqrt((values**2).mean() / 2.0)).cdf).statistic)


def undo_log(grey: NDArray, levels_per_db: float) -> NDArray[np.float64]:
    """Envelope, up to a factor, of log compressed grey values with a slope of `levels_per_db`."""
    return 10.0 ** (np.asarray(grey, dtype=np.float64) / (20.0 * levels_per_db))


def undo_fourth_root(grey: NDArray, scale: float = 20.0) -> NDArray[np.float64]:
    """Envelope of grey values made as scale * envelope^(1/4), as the PLUS toolkit does (BrightnessScale = 20)."""
    return (np.asarray(grey, dtype=np.float64) / scale) ** 4


def log_slope(grey: NDArray) -> float:
    """Grey levels per dB of a log compressed patch of speckle: its standard deviation is 5.57 dB, however bright.

    Raises BadImage for a patch that does not vary.
    """
    spread = float(np.std(np.asarray(grey, dtype=np.float64)))
    if not spread > 0.0:
        raise BadImage("a patch of one grey value has no speckle to estimate the compression from")
    return spread / LOG_RAYLEIGH_SD_DB


def find_bone(beams: NDArray, sample_mm: float, line_mm: float, skip_mm: float = 8.0) -> BoneLine:
    """The bone line of grey scan lines (lines, samples): bright, continuous, with a shadow behind it.

    `sample_mm` and `line_mm` are the distances of samples and (at mid depth) of lines; the first `skip_mm` are the
    face's and the skin's. The path through all lines that gains most brightness over its shadow and over what lies
    before it is found by dynamic programming (Foroughi et al., "Ultrasound bone segmentation using dynamic
    programming", IEEE Ultrasonics Symposium 2007); lines whose peak is not well above their shadow are left out.
    Raises BadImage for an image too small or without any bone.
    """
    beams = np.asarray(beams, dtype=np.float64)
    behind = round(SHADOW[1] / sample_mm)
    if beams.ndim != 2 or beams.shape[0] < 3 or beams.shape[1] < 2 * behind:
        raise BadImage(f"scan lines of shape {beams.shape}: at least 3 lines of {2 * behind} samples are needed")
    peak = ndimage.gaussian_filter(beams, (1.0 / line_mm, 0.3 / sample_mm))
    shadow = _mean_between(beams, SHADOW, sample_mm)
    rival = np.maximum(2.0 * shadow, _mean_between(beams, BEFORE, sample_mm))
    gain = np.where(np.isfinite(rival), peak - rival, -255.0)
    gain[:, : int(skip_mm / sample_mm)] = -255.0
    path = _best_path(np.maximum(gain, -20.0), max(int(STEEPEST * line_mm / sample_mm), 1))
    return _measure(beams, shadow, path, gain, sample_mm)


def _mean_between(beams: NDArray[np.float64], zone: tuple[float, float], sample_mm: float) -> NDArray[np.float64]:
    """Mean grey of a zone (mm, negative = before) relative to each sample; nan where it leaves the image."""
    near, far = (round(edge / sample_mm) for edge in zone)
    total = np.concatenate([np.zeros((len(beams), 1)), np.cumsum(beams, axis=1)], axis=1)
    result = np.full(beams.shape, np.nan)
    first, last = max(-near, 0), beams.shape[1] - max(far, 0)
    result[:, first:last] = (total[:, far + first: far + last] - total[:, near + first: near + last]) / (far - near)
    return result


def _measure(beams: NDArray, shadow: NDArray, path: NDArray, gain: NDArray, sample_mm: float) -> BoneLine:
    lines = np.arange(len(beams))
    window = max(round(1.0 / sample_mm), 1)
    sample = np.array([max(p - window, 0) + int(np.argmax(beams[j, max(p - window, 0): p + window + 1]))
                       for j, p in enumerate(path)])
    top = beams[lines, sample]
    found = (gain[lines, path] > 0.0) & (top > 0.6 * np.percentile(top, 95)) & np.isfinite(shadow[lines, sample])
    if not found.any():
        raise BadImage("no bone line was found: nothing bright has a shadow behind it")
    thickness = np.array([_half_width(beams[j], int(sample[j])) for j in lines[found]]) * sample_mm
    return BoneLine(np.where(found, sample, -1), top[found], shadow[lines, sample][found], thickness)


def _half_width(line: NDArray[np.float64], top: int) -> float:
    """Samples around `top` over which a line stays above half its value there, crossings interpolated."""
    half = line[top] / 2.0
    first = top
    while first > 0 and line[first - 1] > half:
        first -= 1
    last = top
    while last < line.size - 1 and line[last + 1] > half:
        last += 1
    before = (line[first] - half) / (line[first] - line[first - 1]) if first > 0 else 0.0
    after = (line[last] - half) / (line[last] - line[last + 1]) if last < line.size - 1 else 0.0
    return float(last - first + before + after)


@numba.njit(cache=True)
def _best_path(gain, reach):  # type: ignore[no-untyped-def]
    """(lines,) samples of the path of largest sum that moves at most `reach` samples from line to line."""
    lines, samples = gain.shape
    best = gain[0].copy()
    came = np.zeros((lines, samples), dtype=np.int32)
    for j in range(1, lines):
        now = np.empty(samples)
        for k in range(samples):
            low, high = max(k - reach, 0), min(k + reach + 1, samples)
            source, value = low, -1e30
            for s in range(low, high):
                candidate = best[s] - 2.0 * abs(s - k) / reach  # level lines are preferred where all is equal
                if candidate > value:
                    source, value = s, candidate
            came[j, k] = source
            now[k] = value + gain[j, k]
        best = now
    path = np.zeros(lines, dtype=np.int64)
    path[lines - 1] = np.argmax(best)
    for j in range(lines - 1, 0, -1):
        path[j - 1] = came[j, path[j]]
    return path
