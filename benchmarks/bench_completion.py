"""Five levels from a partial cloud to meshes with sigma: the shape model's fit, and the project's network."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from usx_completion import methods, parameters
from usx_completion.completion import ShapeModelCompletion
from usx_completion.correction.completion import CorrectionCompletion
from usx_completion.correction.reading import Batch
from usx_completion.correction.scene import Scene, make_scene
from usx_completion.observation import observe
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model
from usx_completion.simulated_partial import PartialCloud, simulate_partial
from usx_phantom.spine import sample_spine

SEED, RUNS, NETWORK_RUNS = 601, 3, 20


def run(device: str = "cpu") -> list[dict[str, object]]:
    """Rows for `python -m benchmarks`; the fit runs on the CPU whatever the device, the network on the device."""
    partial = simulate_partial(dict(sample_spine(SEED).meshes))
    began = time.perf_counter()
    method = ShapeModelCompletion(load_shape_model()[0])
    load_s = time.perf_counter() - began
    rows = _network(partial, device)
    walls, cpus = [], []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        method.complete(partial.points, partial.labels, partial.sources)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    peak_mib = _peak_mib()
    return [*rows,
            {"name": "completion: load the shape model", "value": load_s, "unit": "s"},
            {"name": "completion: five levels, wall", "value": float(np.median(walls)), "unit": "s"},
            {"name": "completion: five levels, CPU", "value": float(np.median(cpus)), "unit": "s"},
            {"name": "completion: peak memory of the process so far", "value": peak_mib, "unit": "MiB"}]


def _network(partial: PartialCloud, device: str) -> list[dict[str, object]]:
    """The network with placement and joints, and alone, with the threads that torch takes by itself and with one."""
    model, _ = load_shape_model(PACKAGED_REAL)
    completion = CorrectionCompletion.load(parameters.WEIGHTS, device)
    completion.complete(*methods.usual_partial(model))
    scene, _ = make_scene(model, observe(partial.points, partial.labels, partial.sources))
    rows: list[dict[str, object]] = []
    whole = torch.get_num_threads()
    for threads in (whole, 1):
        torch.set_num_threads(threads)
        times = {"five levels": _median(lambda: completion.complete(partial.points, partial.labels, partial.sources)),
                 "network alone": _median(lambda: _alone(completion, scene, device))}
        rows += [{"name": f"usx on {device}: {name}, {threads} threads", "value": value, "unit": "s"}
                 for name, value in times.items()]
    torch.set_num_threads(whole)
    return [*rows, {"name": "usx: peak memory of the process so far", "value": _peak_mib(), "unit": "MiB"}]


def _alone(completion: CorrectionCompletion, scene: Scene, device: str) -> None:
    with torch.inference_mode():
        completion.network(Batch.of([scene], device))
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(NETWORK_RUNS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
