"""Temporal calibration: by how much the tracker's clock is behind the images' clock, from one motion seen by both.

The probe is moved up and down over a flat bottom (a water tank). The images show the bottom's depth, the tracker the
probe's place; both are one signal over time but for scale, sign and delay. The delay is where their normalised
cross-correlation is largest (method of the PLUS toolkit, "Temporal calibration").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes

from usx_common.errors import UsxError

Signal = NDArray[np.float64]


class CannotCalibrate(UsxError):
    """Two signals from which no delay can be found; says why."""


@dataclass(frozen=True)
class Delay:
    """``tracker_lag`` (s): a pose of tracker time t belongs to an image of time t - tracker_lag; negative when the
    tracker's stamps are early. A frame's pose is thus found at its stamp + tracker_lag: the node's ``pose_delay``.
    ``correlation``: of the signals at that lag, -1 .. 1; its sign is that of the axes.
    """

    tracker_lag: float
    correlation: float


def bottom_depth(images: NDArray[np.uint8], faintest: int = 30) -> Signal:
    """(frames,) row at which the flat bottom crosses the middle column of each image (frames, rows, columns).

    In every fourth column the brightest pixel is taken; the line through them is that of the median slope
    (Theil-Sen), so a third of them may lie elsewhere. Frames with fewer than ten columns that reach ``faintest``
    grey levels give NaN.
    """
    columns = np.arange(0, images.shape[2], 4)
    depth = np.full(len(images), np.nan)
    for number, image in enumerate(images):
        lines = image[:, columns]
        seen = lines.max(axis=0) >= faintest
        if seen.sum() >= 10:
            fit = theilslopes(lines.argmax(axis=0)[seen], columns[seen])
            depth[number] = fit[1] + fit[0] * (images.shape[2] - 1) / 2
    return depth


def main_motion(positions: NDArray[np.float64]) -> Signal:
    """(n,) place along the direction in which (n, 3) positions spread most."""
    centred = positions - positions.mean(axis=0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][0]


def find_delay(image_times: Signal, image_signal: Signal, tracker_times: Signal, tracker_signal: Signal,
               max_lag: float = 0.5, step: float = 0.001) -> Delay:
    """Delay between two signals of one motion; times in s, any sampling; samples that are not finite are left out.

    Raises CannotCalibrate when they do not overlap by four times ``max_lag``, when one does not move, when the best lag
    lies at the edge of +-``max_lag``, or when the signals have little in common there (correlation below 0.8).
    """
    image_times, image_signal = _cleaned(image_times, image_signal, "image")
    tracker_times, tracker_signal = _cleaned(tracker_times, tracker_signal, "tracker")
    first = max(image_times[0], tracker_times[0]) + max_lag
    last = min(image_times[-1], tracker_times[-1]) - max_lag
    if last - first < 2 * max_lag:
        raise CannotCalibrate(f"the signals overlap by {last - first + 2 * max_lag:.2f} s; needed: {4 * max_lag:g} s")
    grid = np.arange(first, last, step)
    wanted = _normalised(np.interp(grid, image_times, image_signal), "image")
    lags = np.arange(-round(max_lag / step), round(max_lag / step) + 1) * step
    scores = np.array([np.mean(wanted * _normalised(np.interp(grid + lag, tracker_times, tracker_signal), "tracker"))
                       for lag in lags])
    best = int(np.abs(scores).argmax())
    if best in (0, len(lags) - 1):
        raise CannotCalibrate(f"the best lag lies at the edge, {lags[best]:+.3f} s: the true one is larger, or the "
                              "signals show different motions")
    if abs(scores[best]) < 0.8:
        raise CannotCalibrate(f"the signals correlate by {scores[best]:.2f} at best; 0.8 is needed: is it one motion?")
    before, here, after = np.abs(scores[best - 1:best + 2])
    curve = before - 2 * here + after
    fraction = 0.5 * (before - after) / curve if curve < 0 else 0.0
    return Delay(float(lags[best] + fraction * step), float(scores[best]))


def _cleaned(times: Signal, signal: Signal, name: str) -> tuple[Signal, Signal]:
    times, signal = np.asarray(times, dtype=np.float64), np.asarray(signal, dtype=np.float64)
    if times.shape != signal.shape or times.ndim != 1:
        raise CannotCalibrate(f"the {name} signal has {signal.shape} values for {times.shape} times")
    good = np.isfinite(times) & np.isfinite(signal)
    if good.sum() < 10:
        raise CannotCalibrate(f"the {name} signal has {int(good.sum())} usable samples; 10 are needed")
    order = np.argsort(times[good], kind="stable")
    return times[good][order], signal[good][order]


def _normalised(values: Signal, name: str) -> Signal:
    spread = values.std()
    if spread < 1e-9:
        raise CannotCalibrate(f"the {name} signal does not move")
    return (values - values.mean()) / spread
