"""What makes a sampled vertebra look like a bone that was scanned: fine roughness, and osteophytes at the rims."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usx_phantom.vertebra import VertebraShape

_LOBES = 5


@dataclass(frozen=True)
class DetailSettings:
    """Lengths in mm: `roughness` SDs at the correlation lengths `roughness_length` (unevenness where muscles and
    ligaments are attached; grain of the bone); `lip`: median size of a person's largest osteophyte.

    `lip_spread`: SD of its logarithm among people (most have little, some much); none is larger than `largest_lip`.
    """

    roughness: tuple[float, float] = (0.36, 0.34)
    roughness_length: tuple[float, float] = (7.0, 3.2)
    lip: float = 0.9
    lip_spread: float = 0.6
    largest_lip: float = 3.0


def smooth_field(points: np.ndarray, rng: np.random.Generator, sd: float, length: float, waves: int = 96) -> np.ndarray:
    """Displacements (N, 3) mm of a smooth Gaussian random field of standard deviation `sd` and correlation `length` mm.

    Random Fourier features (Rahimi and Recht 2007). The field is one of space: neighbouring bones move together.
    """
    frequencies = rng.normal(size=(waves, 3)) / length
    phases = rng.uniform(0.0, 2.0 * np.pi, waves)
    weights = rng.normal(size=(waves, 3)) * np.sqrt(2.0 / waves) * sd
    return np.asarray(np.cos(points @ frequencies.T + phases) @ weights)


@dataclass(frozen=True)
class Lips:
    """Osteophytes of one vertebra: `size` mm, and coefficients (2, lobes, 2) of their spread round either rim."""

    size: float
    lobes: np.ndarray


def sample_lips(settings: DetailSettings, score: float, rng: np.random.Generator) -> Lips:
    """Osteophytes of one vertebra of a person whose degeneration has the standard normal `score`."""
    own = np.sqrt(0.7) * score + np.sqrt(0.3) * rng.normal()
    size = settings.lip * np.exp(settings.lip_spread * np.clip(own, -2.5, 2.5))
    falling = 1.0 / np.arange(1, _LOBES + 1)
    lobes = rng.normal(size=(2, _LOBES, 2)) * falling[None, :, None]
    return Lips(float(min(size, settings.largest_lip)), lobes)


def lip_displacements(vertices: np.ndarray, shape: VertebraShape, lips: Lips) -> np.ndarray:
    """Displacements (N, 3) mm of `vertices` (N, 3), in the vertebra's frame, that draw the rims of its body out.

    Outwards and a little towards the disc; none at the back wall, where the canal and the pedicles are.
    """
    b = shape.body
    x, y, z = vertices[:, 0], vertices[:, 1] - b[18], vertices[:, 2] - b[19]
    u, v, s = x / b[0], y / b[1], z / b[2]
    radius = np.hypot(u, v)
    rim = np.exp(-(((np.abs(s) - 0.88) / 0.17) ** 2)) * _rise(radius, 0.72, 0.92) * _rise(-v, -0.75, -0.35)
    rim *= _rise(-radius, -1.35, -1.15)
    angle = np.arctan2(v, u)
    turns = np.arange(1, _LOBES + 1)[:, None] * angle
    spread = np.where(s > 0.0, *(lobe[:, 0] @ np.cos(turns) + lobe[:, 1] @ np.sin(turns) for lobe in lips.lobes))
    amount = lips.size * rim * np.clip(0.35 + 0.6 * spread, 0.0, 1.3)
    outwards = np.stack([u, v], axis=1) / np.maximum(radius, 1e-9)[:, None]
    return np.concatenate([outwards, 0.35 * np.sign(s)[:, None]], axis=1) * amount[:, None]


def _rise(value: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))
