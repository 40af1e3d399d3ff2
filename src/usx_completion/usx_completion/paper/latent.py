"""The latent code of a shape: its distribution given what was seen, and given the whole shape while training."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from usx_completion.paper.layers import ResidualLinear, in_full_precision
from usx_completion.paper.settings import PaperNetworkSettings


@dataclass(frozen=True)
class Normal:
    """Independent normal distributions: ``mean`` and ``sd`` (B, latent)."""

    mean: Tensor
    sd: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """The draw (B, latent) that standard normal noise (B, latent) stands for."""
        return self.mean + self.sd * noise

    def fixed(self) -> Normal:
        """The same distributions, through which no gradient passes."""
        return Normal(self.mean.detach(), self.sd.detach())


class FeatureSelector(nn.Module):
    """Early fusion: the ultrasound's and the X-ray's vector (B, code) become one."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * code, 2 * code)
        self.second = nn.Linear(2 * code, code)

    def forward(self, ultrasound: Tensor, xray: Tensor) -> Tensor:
        """(B, code)."""
        joined = torch.cat([ultrasound, xray], dim=1)
        return torch.relu(self.second(torch.relu(self.first(joined))))


class InferenceNet(nn.Module):
    """From a vector (B, code) to the distribution of the latent code; ``blocks`` residual blocks."""

    def __init__(self, settings: PaperNetworkSettings, blocks: int) -> None:
        super().__init__()
        widths = [settings.code] * blocks + [2 * settings.latent]
        self.blocks = nn.ModuleList(ResidualLinear(a, b) for a, b in pairwise(widths))

    def forward(self, values: Tensor) -> Normal:
        """Distribution of (B, latent) codes, in float32."""
        for block in self.blocks:
            values = in_full_precision(block, values)
        mean, raw = values.chunk(2, dim=1)
        return Normal(mean, functional.softplus(raw).clamp(min=1e-6))
