"""The published loss: chamfer distances of the stages and two divergences of the latent distributions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from usx_common.errors import UsxError
from usx_completion.paper.latent import Normal
from usx_completion.paper.network import TrainingStages
from usx_completion.paper.search import FAST, Search, take


@dataclass(frozen=True)
class LossSettings:
    """Weights of the terms. ``final``: pairs (share of the training, weight) of the further weight that the final cloud
    has from that share on: the authors count it twice, under two names, and let the second grow."""

    coarse: float = 10.0
    refined: float = 0.5
    output: float = 1.0
    final: tuple[tuple[float, float], ...] = ((0.0, 0.01), (0.05, 0.1), (0.15, 0.5), (0.3, 1.0))
    divergence: float = 20.0

    def __post_init__(self) -> None:
        for name in ("coarse", "refined", "output", "divergence"):
            if not 0.0 <= getattr(self, name) <= 1e6:
                raise UsxError(f"loss setting {name} = {getattr(self, name)} must be within 0 .. 1e6")
        shares = [share for share, _ in self.final]
        if not shares or shares[0] != 0.0 or shares != sorted(set(shares)) or shares[-1] > 1.0:
            raise UsxError(f"loss setting final = {self.final} must begin at share 0 and rise to at most 1")

    def final_at(self, share: float) -> float:
        """The further weight of the final cloud after this share of the training."""
        return [weight for start, weight in self.final if start <= share][-1]


def training_loss(result: TrainingStages, complete: Tensor, share: float, settings: LossSettings,
                  search: Search = FAST) -> dict[str, Tensor]:
    """Terms of the loss, unweighted, and their weighted "total"; ``complete`` (B, M, 3), ``share`` of the training.

    Divergences are means over samples and latent numbers. The posterior is drawn to the prior, never the other way.
    """
    stages = result.stages
    truth = torch.cat([complete, complete])
    to_truth = nearest_index(stages.refined, truth, search)
    terms = {
        "coarse": chamfer(stages.coarse, truth, search),
        "refined": chamfer(stages.refined, truth, search, to_truth),
        "output": chamfer(stages.output, truth, search, to_truth.gather(1, stages.chosen)),
        "prior": divergence(standard_normal(result.prior), result.prior),
        "posterior": divergence(result.prior.fixed(), result.posterior),
    }
    weight = settings.output + settings.final_at(share)
    terms["total"] = (settings.coarse * terms["coarse"] + settings.refined * terms["refined"]
                      + weight * terms["output"] + settings.divergence * (terms["prior"] + terms["posterior"]))
    return terms


def chamfer(prediction: Tensor, truth: Tensor, search: Search = FAST, to_truth: Tensor | None = None) -> Tensor:
    """CD-P: half the sum of both directed mean Euclidean distances between clouds (B, N, 3) and (B, M, 3), a mean
    over the batch. ``to_truth`` (B, N): index of the truth nearest to each predicted point, where it is known.

    The neighbours are found without gradient; the distances to them have one, 0 where points coincide.
    """
    if to_truth is None:
        to_truth = nearest_index(prediction, truth, search)
    to_prediction = nearest_index(truth, prediction, search)
    forth = _length(prediction - take(truth, to_truth))
    back = _length(truth - take(prediction, to_prediction))
    return 0.5 * (forth.mean() + back.mean())


def nearest_index(queries: Tensor, references: Tensor, search: Search = FAST) -> Tensor:
    """Index (B, Q) of the reference nearest to each query."""
    return search.neighbours(references, queries, 1).squeeze(-1)


def divergence(first: Normal, second: Normal) -> Tensor:
    """Kullback-Leibler divergence of ``second`` from ``first``, KL(first || second), averaged over all numbers."""
    ratio = first.sd / second.sd
    shift = (first.mean - second.mean) / second.sd
    return (0.5 * (ratio.square() + shift.square() - 1.0) - torch.log(ratio)).mean()


def standard_normal(like: Normal) -> Normal:
    """Mean 0 and standard deviation 1 in the shape of another."""
    return Normal(torch.zeros_like(like.mean), torch.ones_like(like.sd))


def _length(vectors: Tensor) -> Tensor:
    squared = vectors.square().sum(dim=-1)
    apart = squared > 0.0
    # the slope of a root at 0 is infinite, and infinity times 0 is no number: so its argument is never 0
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
