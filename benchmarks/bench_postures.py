"""CPU time of changing a spine's posture without overlap, and of making a vertebra's mesh of its mask."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from usx_phantom.mask_surface import mask_surface
from usx_phantom.posture import PostureChange, random_change
from usx_phantom.spine import sample_spine
from usx_phantom.spine_chain import SpineChain
from usx_phantom.voxels import label_meshes

CHANGES = 20


def run(device: str = "cpu") -> list[dict[str, Any]]:
    """Rows of CPU seconds on one thread, whatever the load of the machine."""
    meshes = sample_spine(0).meshes
    chain = SpineChain(meshes)
    chain.bend(random_change(0))  # compiles
    labels = label_meshes({"L3": meshes["L3"]}, 1.0)
    mask = (labels.values > 0).transpose(2, 1, 0)
    mask_surface(mask, np.ones(3), 1.0)  # compiles
    changes = [random_change(seed) for seed in range(CHANGES)]
    return [
        {"name": "spine made ready to bend", "value": _seconds(lambda: SpineChain(meshes)), "unit": "CPU s"},
        {"name": "random posture", "value": _seconds(lambda: [chain.bend(c) for c in changes]) / CHANGES,
         "unit": "CPU s"},
        {"name": "scoliosis 25 degrees, bones in the way",
         "value": _seconds(lambda: chain.bend(PostureChange(scoliosis=25.0))), "unit": "CPU s"},
        {"name": "vertebra of a mask of 1 mm", "value": _seconds(lambda: mask_surface(mask, np.ones(3), 1.0)),
         "unit": "CPU s"},
    ]


def _seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start
