"""What a model must offer to be trained by the `Trainer`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """A training step: its ``number`` (from 0) of ``total``. The total may still change while ``--minutes`` counts."""

    number: int
    total: int

    @property
    def share(self) -> float:
        """Share of the training that is done before this step, 0 .. 1."""
        return min(self.number / max(self.total, 1), 1.0)


class Learner(Protocol):
    """A model with its data. The trainer knows nothing else of it.

    ``module``: what is trained; it is on the trainer's device before anything is asked. ``samples``: how many make an
    epoch. ``card``: text for the metadata of the exported file (format, settings, data, licence).
    """

    module: nn.Module
    samples: int
    card: dict[str, str]

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """Scalars of a batch, each a mean over its samples; "total" is what is minimised, the others are logged."""

    def batches(self, first: int, rank: int, world: int) -> Iterator[Any]:
        """Batch ``first`` and all after it, without end: of each the part of process ``rank`` of ``world``.

        All parts of a batch must be of one size, and depend on the batch's number and the seed alone.
        """

    def validate(self) -> dict[str, float]:
        """Figures on the validation split, never on the test split; the module is in evaluation mode."""
