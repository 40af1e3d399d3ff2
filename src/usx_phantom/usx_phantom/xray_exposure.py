"""From line integrals to the stored pixels of a radiograph: photons, scatter, blur, noise, grey scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_phantom.detector import blur_by_optics, blur_by_scintillator
from usx_phantom.xray_paths import stretch
from usx_phantom.xray_settings import XraySettings

READ_OUT = 3.0  # photons, one sd of the electronics' noise
LEAKAGE = 1e-3  # share of the photons that passes the collimator's blades
PENUMBRA = 3.0  # mm over which the collimator's edge falls from 90 to 10 %
THICK = 0.75  # share of the greatest line integral from which on the body is thick


def expose(attenuation: NDArray[np.float64], settings: XraySettings, seed: int) -> NDArray[np.uint16]:
    """Stored pixels of a map of line integrals (rows, columns): scatter, blur, quantum noise, grey scale."""
    counts = count(attenuation, settings, seed)
    top = (1 << settings.bits_stored) - 1
    if settings.intent == "PROCESSING":
        grey = counts / (settings.photons * (1.0 + settings.scatter)) * top
        return np.clip(np.rint(grey), 0, top).astype(np.uint16)
    density = -np.log(np.maximum(counts, 1.0) / settings.photons)
    grey = display(density, settings.spacing)
    stored = np.rint(grey * top)
    return (stored if settings.photometric == "MONOCHROME2" else top - stored).astype(np.uint16)


def count(attenuation: NDArray[np.float64], settings: XraySettings, seed: int) -> NDArray[np.float64]:
    """Detector's signal (rows, columns) in photons, with noise.

    Photons are counted as Poisson's law says; the scintillator then spreads each one's light, so that noise of
    neighbours is alike and its variance is proportional to the mean, `detector.noise_share` of it.
    """
    random = np.random.default_rng([int(seed), 21])
    photons = random.poisson(np.minimum(expected_photons(attenuation, settings), 1e15)).astype(np.float64)
    return blur_by_scintillator(photons, settings) + random.normal(0.0, READ_OUT, photons.shape)


def expected_photons(attenuation: NDArray[np.float64], settings: XraySettings) -> NDArray[np.float64]:
    """Mean number of photons (rows, columns) that reach each pixel, primary and scattered."""
    primary = settings.photons * np.exp(-attenuation) * collimation(attenuation.shape, settings)
    photons = blur_by_optics(primary, settings)
    if settings.scatter > 0.0:
        photons = photons + scattered(primary, attenuation, settings)
    return np.maximum(photons, 0.0)


def scattered(primary: NDArray[np.float64], attenuation: NDArray[np.float64],
              settings: XraySettings) -> NDArray[np.float64]:
    """Scattered photons (rows, columns): in the median `settings.scatter` times the primary where the body is thick.

    Their source is the primary times its line integral, so that air scatters nothing (forward scatter potential of
    Ohnesorge et al., Eur. Radiol. 9, 563, 1999), spread by a wide Gaussian. A ratio of 0.8 is of the order behind a
    grid for a trunk of 30 cm; without grid it would be several times as much.
    """
    spread = smooth(primary * attenuation, settings.scatter_width / settings.spacing)
    thick = (attenuation > 0.02) & (attenuation >= THICK * np.percentile(attenuation, 99.0))
    thick &= collimation(attenuation.shape, settings) > 0.5
    if not thick.any():
        return np.zeros_like(primary)
    return spread * (settings.scatter / float(np.median(spread[thick] / primary[thick])))


def collimation(shape: tuple[int, ...], settings: XraySettings) -> NDArray[np.float64]:
    """(rows, columns) share of the photons that the collimator's blades let through."""
    if settings.collimator is None:
        return np.ones(shape)
    open_along = []
    for pixels, length in ((shape[1], settings.collimator[0]), (shape[0], settings.collimator[1])):
        inside = length / 2.0 - np.abs(np.arange(pixels) - (pixels - 1) / 2.0) * settings.spacing
        open_along.append(1.0 / (1.0 + np.exp(np.clip(-4.4 * inside / PENUMBRA, -50.0, 50.0))))
    result: NDArray[np.float64] = LEAKAGE + (1.0 - LEAKAGE) * open_along[0][None, :] * open_along[1][:, None]
    return result


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
