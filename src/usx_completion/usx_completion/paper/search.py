"""Neighbours and furthest points of batches of clouds, fast and without custom CUDA operators.

The searches have no gradient. On the CPU neighbours come from k-d trees (exact); on a GPU from distances to a part of
the queries at a time. Furthest points are inherently one after the other, and a CPU core that passes over whole boxes
of points is quicker at it than a GPU that starts thousands of tiny kernels: so they are always taken on the CPU.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from usx_common.errors import UsxError
from usx_completion.data.sampling_points import farthest_points_fast

DISTANCES_AT_ONCE = 2**26  # 256 MiB of float32


class Search(Protocol):
    """What the network asks of a search. Clouds are (B, N, 3); the answers are int64 on the clouds' device."""

    def neighbours(self, references: Tensor, queries: Tensor, count: int) -> Tensor:
        """Indices (B, Q, count) of the references nearest to each query, the nearest first."""

    def farthest(self, points: Tensor, count: int) -> Tensor:
        """Indices (B, count) of furthest point sampling from point 0."""


class FastSearch:
    """Searches by k-d tree and boxes; raises UsxError where a cloud has fewer points than asked for."""

    def neighbours(self, references: Tensor, queries: Tensor, count: int) -> Tensor:
        """See `Search`. Among references at the same distance any may come first."""
        check_count(references, count)
        references, queries = references.detach(), queries.detach()
        if references.is_cuda:
            return _neighbours_in_parts(references, queries, count)
        found = np.empty((*queries.shape[:2], count), dtype=np.int64)
        for cloud, (mine, asked) in enumerate(zip(references.numpy(), queries.numpy(), strict=True)):
            check_finite(mine)
            check_finite(asked)
            tree = cKDTree(mine, balanced_tree=False, compact_nodes=False)
            found[cloud] = tree.query(asked, count, workers=torch.get_num_threads())[1].reshape(-1, count)
        return torch.from_numpy(found)

    def farthest(self, points: Tensor, count: int) -> Tensor:
        """See `Search`; ties go to the lowest index."""
        check_count(points, count)
        clouds = points.detach().cpu().numpy()
        workers = min(torch.get_num_threads(), len(clouds))
        if workers > 1:
            with ThreadPoolExecutor(workers) as pool:
                chosen = list(pool.map(lambda cloud: farthest_points_fast(cloud, count), clouds))
        else:
            chosen = [farthest_points_fast(cloud, count) for cloud in clouds]
        return torch.from_numpy(np.stack(chosen)).to(points.device)


FAST = FastSearch()


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of each cloud's values (B, N, C) by its own indices (B, ...): (B, ..., C)."""
    clouds, count, channels = values.shape
    first = torch.arange(clouds, device=index.device).mul_(count).view(-1, *[1] * (index.dim() - 1))
    rows = values.reshape(clouds * count, channels).index_select(0, (index + first).reshape(-1))
    return rows.view(*index.shape, channels)


def check_count(points: Tensor, count: int) -> None:
    """Raise UsxError unless the clouds (B, N, 3) have ``count`` points or more."""
    if not 0 < count <= points.shape[1]:
        raise UsxError(f"{count} points were asked of a cloud of {points.shape[1]}")


def check_finite(points: np.ndarray) -> None:
    """Raise UsxError unless all numbers are finite: trees would search in them for ever."""
    if not np.isfinite(points).all():
        raise UsxError("a cloud holds numbers that are not finite: a bad input, or a training that diverged")


def _neighbours_in_parts(references: Tensor, queries: Tensor, count: int) -> Tensor:
    rows = max(1, DISTANCES_AT_ONCE // (references.shape[0] * references.shape[1]))
    mode = "donot_use_mm_for_euclid_dist"  # products of matrices lose the digits that near points differ in
    with torch.autocast(references.device.type, enabled=False):
        parts = [torch.cdist(part.float(), references.float(), compute_mode=mode).topk(count, largest=False).indices
                 for part in queries.split(rows, dim=1)]
    return torch.cat(parts, dim=1)
