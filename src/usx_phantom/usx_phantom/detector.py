"""Sharpness of an X-ray system: focal spot, pixel aperture and scintillator as modulation transfer functions (MTF).

The scintillator follows 1 / (1 + h f^2) (Siewerdsen et al., "Signal, noise power spectrum, and detective quantum
efficiency of indirect-detection flat-panel imagers", Med. Phys. 25, 614, 1998); focal spot and pixel are squares.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from usx_phantom.xray_settings import XraySettings

PAD = 48  # pixels by which the picture's edge is continued


def optics_mtf(u: NDArray, v: NDArray, settings: XraySettings) -> NDArray[np.float64]:
    """MTF before the photons are counted, at `u`, `v` cycles/mm along columns and rows of the detector.

    The focal spot's shadow is that of an object at the isocentre.
    """
    shadow = settings.focal_spot * (settings.source_to_detector / settings.source_to_isocentre - 1.0)
    result: NDArray[np.float64] = (np.sinc(shadow * u) * np.sinc(shadow * v)
                                   * np.sinc(settings.spacing * u) * np.sinc(settings.spacing * v))
    return result


def scintillator_mtf(u: NDArray, v: NDArray, settings: XraySettings) -> NDArray[np.float64]:
    """MTF of the light that a counted photon makes: `settings.detector_mtf` at 1 cycle/mm."""
    result: NDArray[np.float64] = 1.0 / (1.0 + (1.0 / settings.detector_mtf - 1.0) * (u**2 + v**2))
    return result


def blur_by_optics(image: NDArray[np.float64], settings: XraySettings) -> NDArray[np.float64]:
    """Photons (rows, columns) per pixel of a picture sampled at the pixels' centres."""
    return _filtered(image, settings, optics=True)


def blur_by_scintillator(image: NDArray[np.float64], settings: XraySettings) -> NDArray[np.float64]:
    """Signal (rows, columns) of counted photons; the sum stays."""
    return image if settings.detector_mtf >= 1.0 else _filtered(image, settings, optics=False)


def noise_share(settings: XraySettings) -> float:
    """What the scintillator leaves of the variance of white noise: the mean of its MTF squared (Parseval)."""
    u, v = _frequencies((512, 512), settings.spacing)
    half = scintillator_mtf(u, v, settings) ** 2
    weights = np.where((u == u.min()) | (u == u.max()), 1.0, 2.0)
    return float((half * weights).sum() / (512 * 512))


def _filtered(image: NDArray[np.float64], settings: XraySettings, optics: bool) -> NDArray[np.float64]:
    rows, columns = image.shape
    padded = np.pad(image, PAD, mode="edge")
    shape = tuple(fft.next_fast_len(n, real=True) for n in padded.shape)
    padded = np.pad(padded, [(0, shape[0] - padded.shape[0]), (0, shape[1] - padded.shape[1])], mode="edge")
    u, v = _frequencies(shape, settings.spacing)
    transfer = (optics_mtf if optics else scintillator_mtf)(u, v, settings)
    result: NDArray[np.float64] = fft.irfft2(fft.rfft2(padded) * transfer, shape)
    return result[PAD:PAD + rows, PAD:PAD + columns]


def _frequencies(shape: tuple[int, ...], spacing: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """u (1, columns / 2 + 1) and v (rows, 1), cycles/mm, of a real Fourier transform."""
    u, v = fft.rfftfreq(shape[1], spacing), fft.fftfreq(shape[0], spacing)
    return np.asarray(u, np.float64)[None, :], np.asarray(v, np.float64)[:, None]
