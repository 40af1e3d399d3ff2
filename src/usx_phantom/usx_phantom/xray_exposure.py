"""From line integrals to the stored pixels of a radiograph: photons, scatter, blur, noise, grey scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_phantom.xray_paths import stretch
from usx_phantom.xray_settings import XraySettings


def expose(attenuation: NDArray[np.float64], settings: XraySettings, seed: int) -> NDArray[np.uint16]:
    """Stored pixels of a map of line integrals mu x length: scatter, detector blur, quantum noise, grey scale."""
    random = np.random.default_rng([int(seed), 21])
    primary = settings.photons * np.exp(-attenuation)
    scattered = settings.scatter * smooth(primary, 25.0 / settings.spacing)
    expected = ndimage.gaussian_filter(primary + scattered, settings.blur) if settings.blur > 0 else primary + scattered
    counts = random.poisson(np.minimum(expected, 1e15)).astype(np.float64) + random.normal(0.0, 3.0, expected.shape)
    top = (1 << settings.bits_stored) - 1
    if settings.intent == "PROCESSING":
        grey = counts / (settings.photons * (1.0 + settings.scatter)) * top
        return np.clip(np.rint(grey), 0, top).astype(np.uint16)
    density = -np.log(np.maximum(counts, 1.0) / settings.photons)
    grey = display(density, settings.spacing)
    stored = np.rint(grey * top)
    return (stored if settings.photometric == "MONOCHROME2" else top - stored).astype(np.uint16)


def display(density: NDArray[np.float64], spacing: float) -> NDArray[np.float64]:
    """Grey 0..1 (dense = bright) of optical densities, as the processing of a digital X-ray device makes it.

    Most of what varies over more than 2 cm is taken out; the range within the body is spread, the air beside it is
    black.
    """
    air = 0.5 * max(float(np.percentile(density, 98.0)), 0.0)
    body = density >= air
    if not body.any():
        body = np.ones_like(body)
    equalised = density - 0.7 * np.maximum(smooth(density, 20.0 / spacing), air)
    low, high = np.percentile(equalised[body], [0.5, 99.9])
    low -= 0.15 * (high - low)
    return np.clip((equalised - low) / max(float(high - low), 1e-9), 0.0, 1.0)


def smooth(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Wide Gaussian (`sigma` pixels, one sd) of an image, from the means of blocks: quick and near enough."""
    block = max(int(sigma / 6.0), 1)
    rows, columns = (-n % block for n in image.shape)
    padded = np.pad(image, ((0, rows), (0, columns)), mode="edge")
    means = padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block).mean(axis=(1, 3))
    means = ndimage.gaussian_filter(means, sigma / block, mode="nearest")
    return stretch(means, image.shape, block, (block - 1) / 2.0)
