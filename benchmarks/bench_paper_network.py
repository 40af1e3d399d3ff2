"""The paper's network on one thread: a vertebra with the fast and the plain searches, and a training step.

Weights are untrained, clouds random; 4,096 X-ray points. CPU time beside wall time: other load does not change it.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from usx_completion.paper.completion import PaperCompletion
from usx_completion.paper.draws import draw
from usx_completion.paper.learner import PaperConfiguration
from usx_completion.paper.loss import LossSettings, training_loss
from usx_completion.paper.network import PaperNetwork
from usx_completion.paper.search_naive import NaiveSearch
from usx_completion.training.configuration import build, find_configuration, read_configuration

RUNS = 5
BATCH = 4


def run(device: str = "cpu") -> list[dict[str, object]]:
    """Rows for `python -m benchmarks`; plain searches are measured once, on the CPU."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for name in ("paper", "paper_small"):
        sections = read_configuration(find_configuration(name))
        chosen = {key: sections[key] for key in ("network", "loss", "data")}
        rows += _of(name, build(PaperConfiguration, chosen, name), device)
    naive = PaperNetwork(search=NaiveSearch()).eval()
    wall, cpu = _seconds(lambda: _inference(naive, _clouds(1, 4096)), 1)
    rows += [_row("paper: one vertebra, plain searches, wall", wall, "s"),
             _row("paper: one vertebra, plain searches, CPU", cpu, "s"),
             _row("peak memory of the process, plain searches included",
                  resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")]
    return rows


def _of(name: str, settings: PaperConfiguration, device: str) -> list[dict[str, object]]:
    network = PaperNetwork(settings.network).to(device).eval()
    points = settings.data.partial_points
    clouds = [cloud.to(device) for cloud in _clouds(1, points)]
    wall, cpu = _seconds(lambda: _inference(network, clouds), RUNS)
    rows = [_row(f"{name}: one vertebra, wall", wall, "s"), _row(f"{name}: one vertebra, CPU", cpu, "s"),
            _row(f"{name}: peak memory of the process so far",
                 resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")]
    completion = PaperCompletion(network, settings.data, device=device)
    partial, filled = (cloud[0].numpy() for cloud in _clouds(1, 4096))
    wall, cpu = _seconds(lambda: completion.complete(partial, filled), RUNS)
    rows += [_row(f"{name}: complete() with 4,096 points, wall", wall, "s"),
             _row(f"{name}: complete() with 4,096 points, CPU", cpu, "s")]
    batch = [cloud.to(device) for cloud in _clouds(BATCH, points)]
    wall, cpu = _seconds(lambda: _training_step(network, batch, settings.loss), 2)
    rows += [_row(f"{name}: gradient of {BATCH} samples, wall", wall, "s"),
             _row(f"{name}: gradient of {BATCH} samples, CPU", cpu, "s")]
    return rows


def _clouds(count: int, points: int) -> list[torch.Tensor]:
    random = np.random.default_rng(0)
    clouds = 0.25 * random.normal(size=(2, count, points, 3))
    clouds[1, :, :, 0] = 0.0  # the X-ray is flat
    return [torch.from_numpy(cloud.astype(np.float32)) for cloud in clouds]


@torch.no_grad()
def _inference(network: PaperNetwork, clouds: list[torch.Tensor]) -> None:
    network(*clouds)


def _training_step(network: PaperNetwork, clouds: list[torch.Tensor], loss: LossSettings) -> None:
    partial, filled = clouds
    device = partial.device
    result = network.training_stages((partial, filled), partial, draw(range(BATCH), network.settings, device))
    training_loss(result, partial, 0.5, loss)["total"].backward()
    network.zero_grad()


def _seconds(work: Callable[[], None], runs: int) -> tuple[float, float]:
    """Median wall and CPU seconds of several runs; the first one (compilation, caches) is not counted."""
    walls, cpus = [], []
    for _ in range(runs + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return float(np.median(walls[1:])), float(np.median(cpus[1:]))


def _row(name: str, value: float, unit: str) -> dict[str, object]:
    return {"name": f"paper network: {name}", "value": value, "unit": unit}
