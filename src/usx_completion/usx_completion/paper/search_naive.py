"""The searches in plain torch, as the definitions say: slow, for tests and to measure the fast ones against."""

from __future__ import annotations

import torch
from torch import Tensor

from usx_completion.paper.search import check_count


class NaiveSearch:
    """The answers of `FastSearch` from dense matrices of squared distances."""

    def neighbours(self, references: Tensor, queries: Tensor, count: int) -> Tensor:
        """Indices (B, Q, count), the nearest first; all B x Q x N distances are in memory at once."""
        check_count(references, count)
        squared = _squared(queries.detach().unsqueeze(2), references.detach().unsqueeze(1))
        return squared.topk(count, largest=False).indices

    def farthest(self, points: Tensor, count: int) -> Tensor:
        """Indices (B, count) from point 0, point after point."""
        check_count(points, count)
        cloud = points.detach().double()
        rows = torch.arange(len(cloud), device=cloud.device)
        nearest = torch.full(cloud.shape[:2], torch.inf, dtype=cloud.dtype, device=cloud.device)
        current = torch.zeros(len(cloud), dtype=torch.int64, device=cloud.device)
        chosen = []
        for _ in range(count):
            chosen.append(current)
            nearest = torch.minimum(nearest, _squared(cloud, cloud[rows, current].unsqueeze(1)))
            current = nearest.argmax(dim=1)
        return torch.stack(chosen, dim=1)


def _squared(first: Tensor, second: Tensor) -> Tensor:
    x, y, z = (first - second).unbind(-1)
    return x * x + y * y + z * z
