"""The second stage: coarse points, ultrasound and X-ray together become the final cloud (late fusion)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from usx_completion.paper.attention import LevelUnit
from usx_completion.paper.geometry import Level, find_levels
from usx_completion.paper.layers import JoinedLinear, in_full_precision
from usx_completion.paper.search import Search, take
from usx_completion.paper.settings import PaperNetworkSettings

SOURCES = 3  # coarse, ultrasound, X-ray: told apart by one-hot vectors


class Refinement(nn.Module):
    """Encoder and decoder over nested point sets: features (B, N, ``features``) of points of three sources."""

    def __init__(self, settings: PaperNetworkSettings) -> None:
        super().__init__()
        channels, last = settings.level_channels, settings.level_channels[-1]
        inputs = (3 + SOURCES, *(2 * width for width in channels[:-1]))
        self.units = nn.ModuleList(LevelUnit(a, b, settings.kernels) for a, b in zip(inputs, channels, strict=True))
        self.whole = nn.Linear(last, settings.bottleneck)
        self.squeeze = nn.Linear(settings.bottleneck, settings.bottleneck // 2)
        self.expand = nn.Linear(settings.bottleneck // 2, settings.bottleneck)
        self.bottom = JoinedLinear(last, settings.bottleneck, last)
        self.up = nn.ModuleList(JoinedLinear(b, a, a) for a, b in reversed(list(pairwise(channels))))
        self.last = nn.Linear(channels[0], settings.features)

    def forward(self, points: Tensor, levels: Sequence[Level], masks: tuple[Tensor, Tensor] | None) -> Tensor:
        """Features of points (B, N, 3 + 3) with their one-hot source; ``masks``: dropout in the bottleneck, or None."""
        kept: list[Tensor] = []
        features = points
        for unit, level in zip(self.units, levels, strict=True):
            features = unit(features, level.neighbours)
            if level.below is not None:
                kept.append(features)
                around = take(features, level.below.pooled).max(dim=2).values
                features = torch.cat([take(features, level.below.kept), around], dim=-1)
        whole = self._bottleneck(features, masks)
        features = torch.relu(self.bottom.of_first(features) + self.bottom.of_second(whole).unsqueeze(1))
        for layer, level, finer in zip(self.up, reversed(levels[:-1]), reversed(kept), strict=True):
            assert isinstance(layer, JoinedLinear) and level.below is not None
            # the layer is linear, so it may act before the interpolation, on fewer points
            features = torch.relu(level.below.interpolate(layer.of_first(features)) + layer.of_second(finer))
        return self.last(features)

    def straight(self) -> list[nn.Module]:
        """The layers that a point's own features pass without attention: shortcuts and the way up."""
        shortcuts = [unit.shortcut for unit in self.units if isinstance(unit, LevelUnit)]
        return [*shortcuts, self.bottom, self.up, self.last]

    def _bottleneck(self, features: Tensor, masks: tuple[Tensor, Tensor] | None) -> Tensor:
        whole = self.whole(features).max(dim=1).values
        squeezed = torch.relu(self.squeeze(whole))
        if masks is not None:
            squeezed = squeezed * masks[0]
        expanded = torch.relu(self.expand(squeezed))
        return expanded if masks is None else expanded * masks[1]


class PointHead(nn.Module):
    """Absolute coordinates (B, N, 3) from features (B, N, ``features``); no offset from the input point."""

    def __init__(self, settings: PaperNetworkSettings) -> None:
        super().__init__()
        self.first = nn.Linear(settings.features, settings.head)
        self.second = nn.Linear(settings.head, 3)

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, 3) float32."""
        return in_full_precision(self.second, torch.relu(self.first(features)))


class UnusedHeads(nn.Module):
    """Layers of the authors' refinement that their sizes switch off: a score of points, folding, and a head for its
    points. They are part of the published count of parameters and of the checkpoints, and of nothing else."""

    def __init__(self, settings: PaperNetworkSettings) -> None:
        super().__init__()
        self.score = nn.ModuleList([nn.Linear(settings.head, 16), nn.Linear(16, 8), nn.Linear(8, 1)])
        self.folding = nn.Linear(settings.head + settings.code + 2, settings.features)
        self.head = PointHead(settings)


def joined_points(clouds: Sequence[Tensor]) -> Tensor:
    """(B, N, 6): the clouds (B, n, 3) of coarse points, ultrasound and X-ray one after the other, each point with
    the one-hot vector of its source. The last cloud may be left out."""
    parts = []
    for source, cloud in enumerate(clouds):
        mark = cloud.new_zeros((*cloud.shape[:2], SOURCES))
        mark[..., source] = 1.0
        parts.append(torch.cat([cloud, mark], dim=-1))
    return torch.cat(parts, dim=1)


def levels_of(points: Tensor, settings: PaperNetworkSettings, search: Search) -> list[Level]:
    """The levels of joined points (B, N, 6)."""
    return find_levels(points[..., :3], settings, search)
