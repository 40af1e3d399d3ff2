"""One vector for a whole cloud, whatever its size and the order of its points."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from usx_completion.paper.layers import JoinedLinear
from usx_completion.paper.search import take
from usx_completion.paper.settings import PaperNetworkSettings


class CloudEncoder(nn.Module):
    """Two rounds of point-wise layers and a maximum over the points (Yuan et al., "PCN", 3DV 2018), not normalised."""

    def __init__(self, settings: PaperNetworkSettings) -> None:
        super().__init__()
        first, second, third = settings.encoder
        self.first = nn.Linear(3, first)
        self.second = nn.Linear(first, second)
        self.third = JoinedLinear(second, second, third)
        self.fourth = nn.Linear(third, settings.code)

    def forward(self, points: Tensor) -> Tensor:
        """(B, code) of clouds (B, N, 3)."""
        local = self.second(torch.relu(self.first(points)))
        whole = local.max(dim=1, keepdim=True).values
        if not torch.is_grad_enabled():
            return self._second_round(local, whole).max(dim=1).values
        # only the points that are a maximum have a gradient: the rest need not take part in the way back
        with torch.no_grad():
            largest = self._second_round(local, whole).max(dim=1).indices
        hidden = self._hidden(take(local, largest), whole)
        return (hidden * self.fourth.weight).sum(dim=-1) + self.fourth.bias

    def _second_round(self, local: Tensor, whole: Tensor) -> Tensor:
        return self.fourth(self._hidden(local, whole))

    def _hidden(self, local: Tensor, whole: Tensor) -> Tensor:
        return torch.relu(self.third.of_first(local) + self.third.of_second(whole))
