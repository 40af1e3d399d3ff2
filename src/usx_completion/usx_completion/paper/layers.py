"""Small layers that several parts of the network share; features are channel-last, (..., C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class JoinedLinear(nn.Linear):
    """A linear layer of two joined inputs, ``[first, second]``, applied to each part by itself.

    What is the same for all points, or lives on fewer points, then need not be repeated before the layer; the sum of
    both parts is the published layer's result.
    """

    def __init__(self, first: int, second: int, out_channels: int) -> None:
        super().__init__(first + second, out_channels)
        self._first = first

    def of_first(self, values: Tensor) -> Tensor:
        """Part of the first input (..., first), without bias."""
        return functional.linear(values, self.weight[:, :self._first])

    def of_second(self, values: Tensor) -> Tensor:
        """Part of the second input (..., second), with the bias."""
        return functional.linear(values, self.weight[:, self._first:], self.bias)


class ResidualLinear(nn.Module):
    """``W2 relu(W1 relu(x)) + Wr x``, the block of the inference nets and the generator."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.inner = nn.Linear(in_channels, in_channels)
        self.outer = nn.Linear(in_channels, out_channels)
        self.shortcut = nn.Linear(in_channels, out_channels)

    def forward(self, values: Tensor) -> Tensor:
        """(B, in) to (B, out)."""
        return self.outer(torch.relu(self.inner(torch.relu(values)))) + self.shortcut(values)


def initialise(module: nn.Module) -> None:
    """Start all linear layers of a module as He et al., "Delving deep into rectifiers" (ICCV 2015), without biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def in_full_precision(layer: nn.Module, values: Tensor) -> Tensor:
    """The layer's float32 result whatever autocast says: coordinates need more digits than features."""
    with torch.autocast(values.device.type, enabled=False):
        return layer(values.float())
