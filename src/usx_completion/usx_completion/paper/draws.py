"""Random numbers of a training step, drawn for each sample by itself.

They depend on the sample's own seed alone, so a step is the same whether one process computes it or several, and after
a training was stopped and resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from usx_completion.paper.settings import PaperNetworkSettings


@dataclass(frozen=True)
class Draws:
    """Standard normal ``completion`` and ``reconstruction`` (B, latent); dropout ``masks`` (2B, bottleneck / 2) and
    (2B, bottleneck), the samples on the path of completion before those of reconstruction."""

    completion: Tensor
    reconstruction: Tensor
    masks: tuple[Tensor, Tensor]


def draw(seeds: Sequence[int], settings: PaperNetworkSettings, device: torch.device) -> Draws:
    """Draws of samples with these seeds, on the device."""
    latent, kept = settings.latent, 1.0 - settings.dropout
    sizes = (settings.bottleneck // 2, settings.bottleneck)
    noise, masks = [], []
    for seed in seeds:
        random = np.random.default_rng(np.random.SeedSequence([0x44524157, seed]))
        noise.append(random.standard_normal((2, latent), dtype=np.float32))
        uniform = random.random((2, sum(sizes)), dtype=np.float32)
        masks.append((uniform < kept).astype(np.float32) / np.float32(kept))
    both = torch.from_numpy(np.stack(noise, axis=1)).to(device)
    mask = torch.from_numpy(np.concatenate(np.stack(masks, axis=1))).to(device)
    return Draws(both[0], both[1], (mask[:, :sizes[0]], mask[:, sizes[0]:]))
