"""The fit of the shape model to five levels on one thread: from a partial cloud to meshes with sigma."""

from __future__ import annotations

import resource
import time

import numpy as np

from usx_completion.completion import ShapeModelCompletion
from usx_completion.shape_model import load_shape_model
from usx_completion.simulated_partial import simulate_partial
from usx_phantom.spine import sample_spine

SEED, RUNS = 601, 3


def run(device: str = "cpu") -> list[dict[str, object]]:
    """Rows for `python -m benchmarks`; the fit runs on the CPU whatever the device."""
    partial = simulate_partial(dict(sample_spine(SEED).meshes))
    began = time.perf_counter()
    method = ShapeModelCompletion(load_shape_model()[0])
    load_s = time.perf_counter() - began
    walls, cpus = [], []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        method.complete(partial.points, partial.labels, partial.sources)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [{"name": "completion: load the shape model", "value": load_s, "unit": "s"},
            {"name": "completion: five levels, wall", "value": float(np.median(walls)), "unit": "s"},
            {"name": "completion: five levels, CPU", "value": float(np.median(cpus)), "unit": "s"},
            {"name": "completion: peak memory of the process so far", "value": peak_mib, "unit": "MiB"}]
