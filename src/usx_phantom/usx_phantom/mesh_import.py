"""Real vertebrae from files: a folder of meshes L1..L5, checked before anything is simulated from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh, volume
from usx_phantom.anatomy import (
    BadAnatomy,
    centre_of_mass,
    check_order,
    check_posterior,
    check_size,
    spinous_is_posterior,
)

__all__ = ["AXES", "SUFFIXES", "BadAnatomy", "centre_of_mass", "centring_shift", "read_spine", "spinous_is_posterior"]

AXES = {"LPS": np.eye(4), "RAS": np.diag([-1.0, -1.0, 1.0, 1.0])}
SUFFIXES = (".ply", ".stl")


def read_spine(folder: Path, axes: str = "RAS") -> dict[str, Mesh]:
    """Meshes L1..L5 (PLY or STL, mm) of a folder, in patient coordinates (LPS mm), shifted to a centre near 0.

    `axes`: the files' axes, "RAS" or "LPS". Raises BadAnatomy naming the file and the reason: a level missing or
    twice, an open mesh, sizes that are not millimetres, L1 not above L5, a spinous process not behind its body.
    """
    folder = Path(folder)
    if axes not in AXES:
        raise BadAnatomy(f"axes {axes!r}: must be one of {', '.join(AXES)}")
    if not folder.is_dir():
        raise BadAnatomy(f"mesh folder {folder} does not exist")
    meshes = {}
    for level in LEVELS:
        path = _file_of(folder, level)
        mesh = read_mesh(path)
        if not mesh.is_watertight:
            raise BadAnatomy(f"{path} is not closed: fill its holes, or make it anew from the segmentation")
        mesh = mesh.transformed(AXES[axes])
        if volume(mesh) < 0.0:
            mesh = Mesh(mesh.vertices, mesh.faces[:, ::-1])
        check_size(str(path), mesh)
        meshes[level] = mesh
    check_order(str(folder), meshes)
    check_posterior(str(folder), meshes, axes, f"try --axes {'RAS' if axes == 'LPS' else 'LPS'}, or turn the meshes")
    shift = centring_shift(meshes)
    return {level: Mesh(mesh.vertices + shift, mesh.faces) for level, mesh in meshes.items()}


def centring_shift(meshes: dict[str, Mesh]) -> np.ndarray:
    """(3,) whole millimetres that bring L3 to the origin."""
    return -np.round(0.5 * (meshes["L3"].vertices.min(0) + meshes["L3"].vertices.max(0)))


def _file_of(folder: Path, level: str) -> Path:
    found = [path for path in sorted(folder.iterdir())
             if path.stem.upper() == level and path.suffix.lower() in SUFFIXES]
    if not found:
        raise BadAnatomy(f"{folder} has no {level}.ply or {level}.stl: all of L1 to L5 are needed")
    if len(found) > 1:
        raise BadAnatomy(f"{folder} has {level} twice ({', '.join(p.name for p in found)}): keep one")
    return found[0]
