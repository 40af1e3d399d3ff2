"""What a completion becomes outside: one cloud of all levels, a line of state, and mesh files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS, label_of_level
from usx_common.meshes import write_mesh
from usx_completion.completed import CompletedLevel, Completion

MESH_COMMENT = "mm, frame spine (LPS: x left, y posterior, z cranial)"
COLOURS = {"L1": (0.90, 0.45, 0.35, 1.0), "L2": (0.95, 0.75, 0.35, 1.0), "L3": (0.55, 0.80, 0.45, 1.0),
           "L4": (0.40, 0.70, 0.90, 1.0), "L5": (0.70, 0.55, 0.90, 1.0)}
TEXT_OFFSET_MM = np.array([60.0, 0.0, 0.0])


def completed_cloud(completion: Completion) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Template vertices of all levels: points (N, 3) mm, labels (N,), sigma (N,) in metres; frame spine."""
    levels = list(completion.levels.items())
    if not levels:
        return np.empty((0, 3)), np.empty(0), np.empty(0)
    points = np.concatenate([level.mesh.vertices for _, level in levels])
    labels = np.concatenate([np.full(len(level.mesh.vertices), label_of_level(name)) for name, level in levels])
    return points, labels.astype(np.float64), np.concatenate([level.sigma for _, level in levels]) * 1e-3


def level_texts(completion: Completion) -> dict[str, tuple[str, NDArray[np.float64]]]:
    """Level -> what is written beside it (name and median sigma) and where (3,), mm, frame spine."""
    return {name: (f"{name}  {_how_sure(level)}", level.level_to_spine[:3, 3] + TEXT_OFFSET_MM)
            for name, level in completion.levels.items()}


def _how_sure(level: CompletedLevel) -> str:
    return f"±{np.median(level.sigma):.1f} mm{' by X-ray alone' if level.by_xray else ''}"


def describe(completion: Completion) -> str:
    """One sentence: which levels were completed, how sure, and why the others were not."""
    done = [f"{name} {_how_sure(level)}" for name, level in completion.levels.items()]
    text = f"completed {', '.join(done)}" if done else "no level completed"
    missing: dict[str, list[str]] = {}
    for name, reason in completion.reasons.items():
        missing.setdefault(reason, []).append(name)
    return "; ".join([text, *(f"{', '.join(names)}: {reason}" for reason, names in missing.items())])


def save_meshes(folder: str, completion: Completion | None) -> list[Path]:
    """Write L1.ply .. L5.ply of the completed levels into ``folder``; returns the files.

    Each file is written beside its place and moved there, so a full disk leaves the old one whole. Files of levels
    that are not completed now are left alone. Raises UsxError when there is no folder, no completion, or no room.
    """
    if not folder:
        raise UsxError("nothing saved: set the parameter save_folder to the folder that may be written to")
    if completion is None or not completion.levels:
        raise UsxError("nothing saved: the newest partial spine gave no vertebra, or there was none yet")
    target = Path(folder).expanduser()
    files = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in (level for level in LEVELS if level in completion.levels):
            unfinished = target / f".{name}.unfinished.ply"
            try:
                write_mesh(unfinished, completion.levels[name].mesh, MESH_COMMENT)
                unfinished.replace(target / f"{name}.ply")
            finally:
                unfinished.unlink(missing_ok=True)
            files.append(target / f"{name}.ply")
    except OSError as error:
        raise UsxError(f"cannot save meshes to {target}: {error.strerror or error}") from error
    return files
