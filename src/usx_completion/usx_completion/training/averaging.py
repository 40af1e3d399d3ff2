"""A running average of a model's parameters: smoother than the last step's, and no dearer at inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RunningAverage:
    """Exponential average of the parameters (Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992); it forgets
    faster while the training is young. With ``decay`` 0 it is the parameters themselves."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self.tensors: dict[str, Tensor] = {}
        if decay > 0.0:
            self.tensors = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step ``step``."""
        decay = min(self._decay, (1.0 + step) / (10.0 + step))
        for name, value in self._module.named_parameters():
            if name in self.tensors:
                self.tensors[name].lerp_(value.detach(), 1.0 - decay)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from the tensors of a checkpoint."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[nn.Module]:
        """The module with the averaged parameters for a while."""
        own = {name: value.detach().clone() for name, value in self._module.named_parameters() if name in self.tensors}
        self._set(self.tensors)
        try:
            yield self._module
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self._module.named_parameters():
            if name in tensors:
                value.copy_(tensors[name])
