"""Attention over the neighbours of a point, and the unit of the refinement built around it.

Pan et al., "Variational relational point completion network" (CVPR 2021), after the self-attention of Zhao et al.,
"Exploring self-attention for image recognition" (CVPR 2020) and the selective kernels of Li et al. (CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from usx_completion.paper.search import take

SHARING = 8


class NeighbourAttention(nn.Module):
    """A weighted sum over ``neighbours`` points; a small network makes the weights of all features at once, there is no
    softmax. Groups of channels share weights: channel c takes row ``c mod rows``."""

    def __init__(self, channels: int, neighbours: int) -> None:
        super().__init__()
        relation, middle = max(1, channels // 16), max(1, channels // 4)
        self._rows = max(1, middle // SHARING)
        self._neighbours = neighbours
        self.centre = nn.Linear(channels, relation)
        self.around = nn.Linear(channels, relation)
        self.value = nn.Linear(channels, middle)
        self.relation = nn.Linear((neighbours + 1) * relation, self._rows, bias=False)
        self.weights = nn.Linear(self._rows, neighbours * self._rows)
        self.output = nn.Linear(middle, channels)

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """(B, n, C) of features (B, n, C) and indices (B, n, k) of each point's neighbours."""
        seen = torch.relu(features)
        around = take(self.around(seen), neighbours).transpose(2, 3).flatten(2)
        relation = torch.cat([self.centre(seen), around], dim=-1)
        weights = self.weights(torch.relu(self.relation(torch.relu(relation))))
        weights = weights.unflatten(-1, (self._rows, self._neighbours)).transpose(2, 3).unsqueeze(3)
        values = take(self.value(seen), neighbours).unflatten(-1, (-1, self._rows))
        mixed = (weights * values).sum(dim=2).flatten(2)
        return features + self.output(torch.relu(mixed))


class SelectiveKernels(nn.Module):
    """Attention over several numbers of neighbours; a gate for each cloud and channel mixes the branches.

    With one branch, the published setting, the gate is a softmax over one entry and so always 1: its layers exist but
    never learn, and are not even computed.
    """

    def __init__(self, channels: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self._kernels = tuple(kernels)
        inner = max(channels // 2, 32)
        self.branches = nn.ModuleList(NeighbourAttention(channels, kernel) for kernel in kernels)
        self.gate = nn.Linear(channels, inner)
        self.gates = nn.ModuleList(nn.Linear(inner, channels) for _ in kernels)

    def gate_parameters(self) -> list[nn.Parameter]:
        """Parameters that act on nothing but the mixture of branches."""
        return [*self.gate.parameters(), *self.gates.parameters()]

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """(B, n, C) of features (B, n, C) and neighbours (B, n, k), k at least the largest kernel."""
        results = [torch.relu(branch(features, neighbours[..., :kernel]))
                   for branch, kernel in zip(self.branches, self._kernels, strict=True)]
        if len(results) == 1:
            return results[0]
        squeezed = self.gate(torch.stack(results).sum(dim=0).mean(dim=1))
        shares = torch.softmax(torch.stack([gate(squeezed) for gate in self.gates]), dim=0).unsqueeze(2)
        return (torch.stack(results) * shares).sum(dim=0)


class LevelUnit(nn.Module):
    """Attention between two point-wise layers, with a point-wise shortcut."""

    def __init__(self, in_channels: int, channels: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Linear(in_channels, channels, bias=False)
        self.attention = SelectiveKernels(channels, kernels)
        self.second = nn.Linear(channels, channels, bias=False)
        self.shortcut = nn.Linear(in_channels, channels, bias=False)

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """(B, n, C) of features (B, n, in) and neighbours (B, n, k)."""
        inner = torch.relu(self.attention(self.first(features), neighbours))
        return torch.relu(self.second(inner) + self.shortcut(features))
