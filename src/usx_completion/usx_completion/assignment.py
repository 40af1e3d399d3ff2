"""Linear assignment of as many columns as rows: exact, and by auction."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError

# Of the mean distance to the nearest: enough to price the columns, not to end the auction's own way.
STEPS = (1.0, 0.2, 0.04)
BIDS_A_ROW = 60


def assign(cost: NDArray) -> NDArray[np.int64]:
    """(N,) column of each row at which the sum of ``cost`` (N, N) is smallest; one column for each row.

    Short auctions of shrinking step give prices; rows whose best column at these prices is free get it, the others find
    shortest augmenting paths (Jonker and Volgenant, Computing 38, 1987), which are short by then. Exact but for
    rounding. Raises UsxError for a cost that is not square or not finite.
    """
    cost = _checked(cost)
    scale = float(np.mean(cost.min(axis=1) - cost.min()) + 1e-3 * np.mean(cost - cost.min())) if len(cost) else 0.0
    return _assign(cost, np.array(STEPS) * scale if scale > 0 else np.empty(0))


def assign_by_auction(cost: NDArray, step: float) -> NDArray[np.int64]:
    """(N,) column of each row, one for each; the mean cost is at most ``step`` above the smallest.

    Bertsekas, "The auction algorithm", Annals of Operations Research 14, 1988. Raises the same as `assign`, and for a
    step that is not positive.
    """
    if not step > 0:
        raise UsxError(f"the auction's step {step} must be positive")
    cost = _checked(cost)
    return _auction(cost, step, np.zeros(len(cost)), 0)


def _checked(cost: NDArray) -> NDArray[np.float64]:
    cost = np.ascontiguousarray(cost, dtype=np.float64)
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or not np.isfinite(cost).all():
        raise UsxError(f"a cost of shape {cost.shape} cannot be assigned; it must be square and finite")
    return cost


@numba.njit(cache=True)
def _assign(cost: NDArray, steps: NDArray) -> NDArray:  # pragma: no cover - compiled
    count = len(cost)
    asked = np.zeros(count)
    for step in steps:
        _auction(cost, step, asked, BIDS_A_ROW * count)
    price = -asked
    column, row = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    for i in range(count):
        best = np.argmin(cost[i] - price)
        if row[best] < 0:
            column[i], row[best] = best, i
    for i in range(count):
        if column[i] < 0:
            _augment(cost, column, row, price, i)
    return column


@numba.njit(cache=True)
def _augment(cost: NDArray, column: NDArray, row: NDArray, price: NDArray, start: int
             ) -> None:  # pragma: no cover - compiled
    """Shortest augmenting path (Dijkstra) from row ``start`` to a column without a row."""
    count = len(cost)
    distance, before = np.full(count, np.inf), np.full(count, -1, np.int64)
    done = np.zeros(count, np.bool_)
    i, reached = start, 0.0
    while True:
        offset = reached - (cost[i, column[i]] - price[column[i]] if i != start else 0.0)
        least, nearest = np.inf, -1
        for j in range(count):
            if not done[j]:
                value = cost[i, j] - price[j] + offset
                if value < distance[j]:
                    distance[j], before[j] = value, i
                if distance[j] < least or (distance[j] == least and row[j] < 0):
                    least, nearest = distance[j], j
        reached = least
        if row[nearest] < 0:
            break
        done[nearest] = True
        i = row[nearest]
    for j in range(count):
        if done[j]:
            price[j] += distance[j] - reached
    j = nearest
    while True:
        i = before[j]
        row[j] = i
        column[i], j = j, column[i]
        if i == start:
            break


@numba.njit(cache=True)
def _auction(cost: NDArray, step: float, price: NDArray, most: int) -> NDArray:  # pragma: no cover - compiled
    """(N,) column of each row, found by bids one after the other; ``price`` of the columns is raised in place. After
    ``most`` bids (0: no bound) it stops, and rows may be without a column (-1)."""
    count, bids = len(cost), 0
    owner, column = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    waiting = np.arange(count)[::-1].copy()
    left = count
    while left > 0 and (most == 0 or bids < most):
        bids += 1
        left -= 1
        bidder = waiting[left]
        best, second, at = np.inf, np.inf, 0
        for j in range(count):
            value = cost[bidder, j] + price[j]
            if value < best:
                second, best, at = best, value, j
            elif value < second:
                second = value
        price[at] += (second - best if count > 1 else 0.0) + step
        if owner[at] >= 0:
            waiting[left] = owner[at]
            column[owner[at]] = -1
            left += 1
        owner[at], column[bidder] = bidder, at
    return column
