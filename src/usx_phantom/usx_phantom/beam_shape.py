"""Point spread and depth curves of the ultrasound model, from its settings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.ultrasound_settings import BeamSettings, UltrasoundSettings

FOCAL_ZONE = 25.0  # mm, one standard deviation of the depth over which the transmit focus raises the pressure


def axial_kernel(width: float) -> NDArray[np.float32]:
    """Half of a symmetric Gaussian of `width` samples (one sd) with unit energy: [centre, +1, +2, ...]."""
    half = max(int(np.ceil(3.0 * width)), 1)
    taps = np.exp(-0.5 * (np.arange(half + 1) / width) ** 2)
    return (taps / np.sqrt(taps[0] ** 2 + 2.0 * (taps[1:] ** 2).sum())).astype(np.float32)


def lateral_kernels(beam: BeamSettings, geometry: ProbeGeometry) -> NDArray[np.float32]:
    """(T, samples): half of a Gaussian across the lines for each depth, unit energy; narrowest at the focus."""
    depth = np.linspace(0.0, geometry.depth, beam.samples)
    width = np.hypot(beam.lateral_width, beam.lateral_divergence * (depth - beam.focus_depth))
    line_gap = (geometry.radius + depth) * 2.0 * geometry.half_angle / (beam.lines - 1)
    sigma = width / line_gap
    half = int(np.ceil(2.5 * sigma.max()))
    taps = np.exp(-0.5 * (np.arange(half + 1)[:, None] / sigma) ** 2)
    return np.ascontiguousarray(taps / np.sqrt(taps[0] ** 2 + 2.0 * (taps[1:] ** 2).sum(axis=0)), dtype=np.float32)


def depth_curves(settings: UltrasoundSettings, step: float) -> tuple[NDArray, NDArray, NDArray]:
    """Along a line (samples,) float32: depth gain of the signal, the ring-down of the face, the electronic noise."""
    receiver, beam = settings.receiver, settings.beam
    depth = np.arange(beam.samples) * step
    stops = np.linspace(0.0, depth[-1], len(receiver.sliders))
    gain = 10.0 ** ((receiver.gain_slope * depth + np.interp(depth, stops, receiver.sliders)) / 20.0)
    focus = 10.0 ** (beam.focus_gain * np.exp(-0.5 * ((depth - beam.focus_depth) / FOCAL_ZONE) ** 2) / 20.0)
    ring = receiver.ring * np.exp(-depth / 0.9) * (1.0 + 0.4 * np.cos(2.0 * np.pi * depth / 1.1))
    return (gain * focus).astype(np.float32), ring.astype(np.float32), (receiver.noise * gain).astype(np.float32)
