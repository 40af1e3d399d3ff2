"""Earth mover's distance between point clouds: exact, and by auction as the paper's authors approximate it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from usx_common.errors import UsxError
from usx_completion.assignment import assign, assign_by_auction
from usx_completion.data.sampling_points import farthest_points_fast

EMD_POINTS = 1_024
AUCTION_STEP = 0.004


def earth_mover(truth: NDArray, prediction: NDArray, count: int = EMD_POINTS) -> float:
    """EMD: mean distance (units) of the exact one-to-one assignment between ``count`` furthest points of each cloud.

    Clouds with fewer points are compared on as many as both have. Raises UsxError for an empty cloud.
    """
    cost = _distances(truth, prediction, count)
    return float(cost[np.arange(len(cost)), assign(cost)].mean())


def earth_mover_by_auction(truth: NDArray, prediction: NDArray, step: float = AUCTION_STEP, count: int = EMD_POINTS
                           ) -> float:
    """EMD as `earth_mover`, but of an assignment found by auction: at most ``step`` (units) above the exact value.

    0.004 is the step of the authors, who stop the auction after 3,000 rounds and force the rest, so that theirs is no
    one-to-one assignment. Ours runs to its end. Raises UsxError for an empty cloud.
    """
    cost = _distances(truth, prediction, count)
    return float(cost[np.arange(len(cost)), assign_by_auction(cost, step)].mean())


def _distances(truth: NDArray, prediction: NDArray, count: int) -> NDArray[np.float64]:
    count = min(count, len(truth), len(prediction))
    if count == 0:
        raise UsxError(f"cannot compare clouds of {len(truth)} and {len(prediction)} points")
    return cdist(truth[farthest_points_fast(truth, count)], prediction[farthest_points_fast(prediction, count)])
