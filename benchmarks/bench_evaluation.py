"""Metrics of one vertebra on one thread, and the exact earth mover's distance beside scipy's and an auction."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from usx_completion.assignment import assign, assign_by_auction
from usx_completion.data.model_spines import ModelSpines
from usx_completion.data.sampling_points import farthest_points_fast
from usx_completion.earth_mover import AUCTION_STEP, EMD_POINTS
from usx_completion.metrics import PARTS, SampledSurface, compare, part_masks

UNIT_MM, SEEDS = 120.0, (0, 1, 2)


def run(device: str = "cpu") -> list[dict[str, object]]:
    """Rows for `python -m benchmarks`; all of it runs on the CPU whatever the device."""
    source = ModelSpines(4_000_000)
    meshes = [source.sample(seed).meshes["L3"] for seed in (*SEEDS, 3)]
    truth = SampledSurface.of(meshes[-1])
    _cpu(lambda: compare(truth, SampledSurface.of(meshes[0]), UNIT_MM))  # compiles
    rows = [_row("sample a mesh", float(np.median([_cpu(lambda m=m: SampledSurface.of(m)) for m in meshes])))]
    sampled = [SampledSurface.of(mesh) for mesh in meshes[:-1]]
    for name, emd in (("all metrics of a vertebra, three parts", True), ("the same without EMD", False)):
        rows.append(_row(name, float(np.median([_cpu(lambda s=s, e=emd: compare(truth, s, UNIT_MM, e))
                                                for s in sampled]))))
    return rows + _assignments(truth, sampled)


def _assignments(truth: SampledSurface, sampled: list[SampledSurface]) -> list[dict[str, object]]:
    times: dict[str, list[float]] = {"exact": [], "scipy": [], "auction": []}
    gaps, differences = [], []
    for one in sampled:
        mine, theirs = part_masks(truth.points, truth.points), part_masks(truth.points, one.points)
        for part in PARTS:
            first, second = truth.points[mine[part]] / UNIT_MM, one.points[theirs[part]] / UNIT_MM
            cost = cdist(first[farthest_points_fast(first, EMD_POINTS)],
                         second[farthest_points_fast(second, EMD_POINTS)])
            rows = np.arange(EMD_POINTS)
            exact, reference = cost[rows, assign(cost)].mean(), cost[linear_sum_assignment(cost)].mean()
            gaps.append(1e4 * (cost[rows, assign_by_auction(cost, AUCTION_STEP)].mean() - exact))
            differences.append(1e4 * abs(exact - reference))
            times["exact"].append(_cpu(lambda c=cost: assign(c)))
            times["scipy"].append(_cpu(lambda c=cost: linear_sum_assignment(c)))
            times["auction"].append(_cpu(lambda c=cost: assign_by_auction(c, AUCTION_STEP)))
    return [*(_row(f"EMD of {EMD_POINTS} points, {name}", float(np.median(values))) for name, values in times.items()),
            {"name": "evaluation: exact EMD against scipy's, largest difference", "value": max(differences),
             "unit": "x1e4"},
            {"name": "evaluation: auction above the exact EMD, mean", "value": float(np.mean(gaps)), "unit": "x1e4"},
            {"name": "evaluation: auction above the exact EMD, largest", "value": max(gaps), "unit": "x1e4"}]


def _cpu(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def _row(name: str, seconds: float) -> dict[str, object]:
    return {"name": f"evaluation: {name}", "value": 1e3 * seconds, "unit": "CPU ms"}
