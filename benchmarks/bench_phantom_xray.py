"""Speed of the simulated radiograph (1024 x 1280) and CBCT, from a label map and from a CT cut close to the spine.

Seconds of processor time beside seconds on the clock, as other work on the machine slows the latter; the goal is 2 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from usx_phantom import cbct, xray
from usx_phantom.phantom_scene import build_scene
from usx_phantom.spine import sample_spine
from usx_phantom.xray_report import narrow_ct

REPEATS = 3


def run(device: str = "cpu") -> list[dict[str, Any]]:
    """Rows of seconds per image, the best of three."""
    meshes = sample_spine(0).meshes
    sampled = build_scene(meshes, 0)
    scenes = {"label map": sampled, "CT": build_scene(meshes, 0, ct=narrow_ct(sampled, 0))}
    rows = []
    for name, scene in scenes.items():
        xray.simulate_lateral(scene, xray.XraySettings(columns=64, rows=64))  # compiles
        rows += _rows(f"phantom radiograph 1024x1280 from {name}", partial(xray.simulate_lateral, scene))
        rows += _rows(f"phantom CBCT 1 mm from {name}", partial(cbct.simulate, scene))
    return rows


def _rows(name: str, action: Callable[[], object]) -> list[dict[str, Any]]:
    best = [float("inf"), float("inf")]
    for _ in range(REPEATS):
        start, used = time.perf_counter(), time.process_time()
        action()
        best = [min(best[0], time.perf_counter() - start), min(best[1], time.process_time() - used)]
    return [{"name": text, "value": value, "unit": "s"}
            for text, value in zip((name, f"{name}, processor"), best, strict=True)]
