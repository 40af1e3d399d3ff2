"""Who is whose neighbour in the refinement: found once for a cloud, before any feature is computed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from usx_completion.paper.search import Search, take
from usx_completion.paper.settings import PaperNetworkSettings

SMALLEST_DISTANCE = 1e-10


@dataclass(frozen=True)
class Below:
    """How a level of n points hangs together with the coarser one of m below it.

    ``kept`` (B, m): its points that are the coarser level's; ``pooled`` (B, m, k): the points around each of these;
    ``nearest`` (B, n, 3): the coarser points around each of its points, and their ``weights`` (B, n, 3), which add up
    to 1: the inverse Euclidean distance (Qi et al., "PointNet++", NeurIPS 2017, with the distance squared there).
    """

    kept: Tensor
    pooled: Tensor
    nearest: Tensor
    weights: Tensor

    def interpolate(self, coarser: Tensor) -> Tensor:
        """Values (B, n, C) of the coarser level's (B, m, C)."""
        return (take(coarser, self.nearest) * self.weights.unsqueeze(-1).to(coarser.dtype)).sum(dim=2)


@dataclass(frozen=True)
class Level:
    """A level: ``neighbours`` (B, n, k) of its points, themselves first, and what is ``below``, None for the last."""

    neighbours: Tensor
    below: Below | None


def find_levels(points: Tensor, settings: PaperNetworkSettings, search: Search) -> list[Level]:
    """All levels of clouds (B, N, 3), finest first. Raises UsxError where a level asks for more points than there are.

    The points around a kept one are its nearest of the finer level, which the level's own search has found already.
    """
    points, levels = points.detach().float(), []
    for count in (*settings.level_points, None):
        wanted = max(*settings.kernels, settings.pooled)
        neighbours = search.neighbours(points, points, wanted)
        below = None
        if count is not None:
            kept = search.farthest(points, count)
            coarser = take(points, kept)
            nearest = search.neighbours(coarser, points, settings.interpolated)
            distance = (take(coarser, nearest) - points.unsqueeze(2)).norm(dim=-1).clamp(min=SMALLEST_DISTANCE)
            weights = 1.0 / distance
            weights = weights / weights.sum(dim=-1, keepdim=True)
            below = Below(kept, take(neighbours, kept)[..., :settings.pooled], nearest, weights)
            points = coarser
        levels.append(Level(neighbours, below))
    return levels
