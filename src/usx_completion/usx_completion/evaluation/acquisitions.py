"""Cases of whole acquisitions: the partial spine that the nodes made, as the demo's report folder holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.levels import LEVELS, SOURCE_ULTRASOUND, label_of_level
from usx_common.meshes import Mesh, read_mesh
from usx_completion.data.examination import LevelInput
from usx_completion.data.normalisation import normalisation_of
from usx_completion.data.presets import SampleSettings
from usx_completion.data.sampling_points import resample
from usx_completion.evaluation.case import Case, CaseInput, CaseName, units_of
from usx_completion.observation import as_codes
from usx_completion.outline import XrayPlane, fit_plane, outline_of_region

MM_PER_M = 1000.0
CLOUD = "cloud|spine/partial|"


def acquisition_case(name: CaseName, folder: Path) -> Case:
    """Case of a folder written by ``usx run usx_bringup demo --out FOLDER``.

    The partial spine is what the completion node got; the truth (acquisition/truth of the folder, only a simulated
    acquisition has it) is brought into frame spine through the transforms that the nodes published. Raises UsxError
    that names the folder when something is missing or unreadable.
    """
    points, labels, sources = _partial(folder)
    inputs = _inputs(points, labels, sources)
    truth = _truth(folder)
    return Case(name.dataset, name.number, folder.resolve().name, 0, CaseInput(inputs, points, labels, sources), truth,
                units_of(inputs, truth))


def _partial(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    path = folder / "results.npz"
    try:
        with np.load(path) as arrays:
            fields = {name: arrays[CLOUD + name] for name in ("x", "y", "z", "label", "source")}
    except (OSError, ValueError, KeyError) as error:
        raise UsxError(f"{path} holds no partial spine of the nodes ({error}); make it with `usx run usx_bringup demo "
                       f"--out {folder}`") from error
    points = np.stack([fields["x"], fields["y"], fields["z"]], axis=1).astype(np.float64) * MM_PER_M
    labels, sources = (as_codes(fields[name], name, points) for name in ("label", "source"))
    finite = np.isfinite(points).all(axis=1)
    return points[finite], labels[finite], sources[finite]


def _truth(folder: Path) -> dict[str, Mesh]:
    facts = _read(folder / "results.json", json.loads)
    truth = folder / "acquisition" / "truth"
    numbers = _read(truth / "transforms.yaml", yaml.safe_load)
    try:
        published = facts["transforms"]
        volume_to_world = transforms.parse_matrix(published["us_volume_to_world"], "us_volume_to_world")
        spine_to_volume = transforms.parse_matrix(published["spine_to_us_volume"], "spine_to_us_volume")
        cbct_to_world = transforms.parse_matrix(numbers["cbct_to_world"], "cbct_to_world")
    except (KeyError, TypeError) as error:
        raise UsxError(f"{folder} lacks the transform {error}: the nodes published no way from world to spine, so the "
                       "truth cannot be compared") from error
    cbct_to_spine = transforms.invert(volume_to_world @ spine_to_volume) @ cbct_to_world
    meshes = {level: read_mesh(truth / f"{level}.ply").transformed(cbct_to_spine)
              for level in LEVELS if (truth / f"{level}.ply").is_file()}
    if not meshes:
        raise UsxError(f"{truth} holds no mesh L1.ply .. L5.ply of the truth")
    return meshes


def _read(path: Path, parse: Any) -> Mapping[str, Any]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsxError(f"{path} cannot be read: {error}; only a simulated acquisition replayed by the demo, with its "
                       "folder acquisition/ inside, can be evaluated") from error
    if not isinstance(content, dict):
        raise UsxError(f"{path} holds no table of keys and values")
    return content


def _inputs(points: NDArray, labels: NDArray, sources: NDArray) -> dict[str, LevelInput]:
    """The levels' inputs by the nodes' own labels, with the sizes and the unit of the paper's recipe."""
    settings = SampleSettings()
    seen = sources == SOURCE_ULTRASOUND
    labelled = ~seen & (labels > 0)
    plane = fit_plane(points[labelled]) if labelled.sum() >= 3 else None
    inputs = {}
    for level in LEVELS:
        mine = points[seen & (labels == label_of_level(level))]
        body = points[~seen & (labels == label_of_level(level))]
        if len(mine) < settings.drop_rules.smallest or len(body) < 20 or plane is None:
            continue
        frame = normalisation_of(mine, settings.preset.normalisation)
        rim, normals = _outline(body, plane, settings.xray.outline)
        partial = frame.apply(mine)
        filled = frame.apply(body)
        inputs[level] = LevelInput(partial[resample(partial, settings.points)],
                                   np.zeros(settings.points, dtype=np.uint8),
                                   filled[resample(filled, settings.xray.filled)], frame.apply(rim), normals, frame)
    return inputs


def _outline(body: NDArray, plane: XrayPlane, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(count, 3) points of a body's outline, mm, and outward normals (count, 2), evenly along it."""
    found = outline_of_region(plane.flatten(body))
    closed, turned = np.vstack([found.points, found.points[:1]]), np.vstack([found.normals, found.normals[:1]])
    way = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))]
    at = np.arange(count) * way[-1] / count
    flat, normals = (np.column_stack([np.interp(at, way, values[:, axis]) for axis in range(2)])
                     for values in (closed, turned))
    across = float(np.mean((body - plane.origin) @ plane.axes[0]))
    rim = plane.origin + across * plane.axes[0] + flat @ plane.axes[1:]
    return rim, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
