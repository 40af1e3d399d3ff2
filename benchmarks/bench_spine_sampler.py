"""Spines drawn from the packaged shape models: CPU and wall time of one."""

from __future__ import annotations

import time
from typing import Any

from usx_completion.shape_model import PACKAGED, PACKAGED_REAL
from usx_completion.spine_sampler import load_sampler, sample_model_spine

SPINES = 40


def run(device: str) -> list[dict[str, Any]]:
    """Milliseconds for a spine of five vertebrae, one thread."""
    rows = []
    for name, path in (("generated", PACKAGED), ("real", PACKAGED_REAL)):
        sampler = load_sampler(path)
        sample_model_spine(sampler, 0)
        wall, processor = time.perf_counter(), time.process_time()
        for seed in range(SPINES):
            sample_model_spine(sampler, seed)
        rows += [{"name": f"sampled spine, {name} shape model, CPU",
                  "value": (time.process_time() - processor) / SPINES * 1e3, "unit": "ms"},
                 {"name": f"sampled spine, {name} shape model, wall",
                  "value": (time.perf_counter() - wall) / SPINES * 1e3, "unit": "ms"}]
    return rows
