"""Training data: CPU time of a spine of five levels (4,096 points a cloud) by preset, and spines a second on 2 cores.

CPU time is the fair figure on a machine that does other things: 0.33 CPU s a spine are 6 spines a second on 2 cores.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from usx_common.clouds import farthest_points
from usx_common.meshes import sample_surface
from usx_completion.data.dataset import from_samples
from usx_completion.data.generate import Maker, Task, generate
from usx_completion.data.presets import PRESETS, SampleSettings
from usx_completion.data.sampling_points import farthest_points_fast
from usx_completion.data.spine_source import SourceChoice
from usx_completion.data.storage import DatasetWriter
from usx_completion.shape_model import load_shape_model

SPINES, WARM, STREAM = 20, 2, 40
DENSE, KEPT = 10_000, 4096


def run(device: str = "cpu") -> list[dict[str, object]]:
    """Rows for `python -m benchmarks`; data are made on the CPU whatever the device."""
    rows: list[dict[str, object]] = []
    for name in ("paper", "realistic"):
        task = Task(SourceChoice(), SampleSettings(PRESETS[name]), 0)
        simulate, store, size = _cpu_per_spine(task)
        rows += [{"name": f"data, {name}: CPU of a spine, simulated", "value": simulate, "unit": "s"},
                 {"name": f"data, {name}: CPU of a spine, compressed and written", "value": store, "unit": "s"},
                 {"name": f"data, {name}: CPU of a spine, all", "value": simulate + store, "unit": "s"},
                 {"name": f"data, {name}: two processes", "value": _rate(task), "unit": "spines/s"},
                 {"name": f"data, {name}: file", "value": size / 1e6, "unit": "MB/spine"}]
    return rows + _sampling()


def _cpu_per_spine(task: Task) -> tuple[float, float, float]:
    """CPU s of a spine for simulating and for writing, in this process; bytes of the file per spine."""
    maker = Maker(task)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.h5"
        simulate = store = 0.0
        with DatasetWriter(path, {}) as writer:
            for index in range(WARM + SPINES):
                began = time.process_time()
                samples = maker.samples(index)
                middle = time.process_time()
                writer.append(from_samples(samples, [index] * len(samples), ["train"] * len(samples),
                                           maker.source.faces))
                if index >= WARM:
                    simulate += middle - began
                    store += time.process_time() - middle
        return simulate / SPINES, store / SPINES, path.stat().st_size / (WARM + SPINES)


def _rate(task: Task) -> float:
    """Spines a second of two processes, wall time, once both are warm; written to a file as make_dataset does."""
    warm = 10
    with tempfile.TemporaryDirectory() as folder, DatasetWriter(Path(folder) / "bench.h5", {}) as writer:
        began = 0.0
        for index, part in enumerate(generate(task, ["train"] * (warm + STREAM), 2)):
            if not isinstance(part, str):
                writer.append(part)
            if index == warm - 1:
                began = time.perf_counter()
        return STREAM / (time.perf_counter() - began)


def _sampling() -> list[dict[str, object]]:
    """Furthest point sampling of a vertebra, against the plain loop with the same answer."""
    points = sample_surface(load_shape_model()[0].mean_mesh("L3"), DENSE, 0)
    rows: list[dict[str, object]] = []
    for name, method in (("plain", farthest_points), ("in boxes", farthest_points_fast)):
        method(points, 10)
        began = time.process_time()
        for _ in range(10):
            method(points, KEPT)
        rows.append({"name": f"data: {KEPT} furthest of {DENSE} points, {name}, CPU",
                     "value": (time.process_time() - began) / 10 * 1000, "unit": "ms"})
    return rows
