"""Real vertebrae from files: a folder of meshes L1..L5, checked before anything is simulated from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh, volume

AXES = {"LPS": np.eye(4), "RAS": np.diag([-1.0, -1.0, 1.0, 1.0])}
SUFFIXES = (".ply", ".stl")


class BadAnatomy(UsxError):
    """Meshes that are not a lumbar spine in the axes that were named."""


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
        _check_size(path, mesh)
        meshes[level] = mesh
    _check_orientation(folder, axes, meshes)
    middle = 0.5 * (meshes["L3"].vertices.min(0) + meshes["L3"].vertices.max(0))
    return {level: Mesh(mesh.vertices - np.round(middle), mesh.faces) for level, mesh in meshes.items()}


def _file_of(folder: Path, level: str) -> Path:
    found = [path for path in sorted(folder.iterdir())
             if path.stem.upper() == level and path.suffix.lower() in SUFFIXES]
    if not found:
        raise BadAnatomy(f"{folder} has no {level}.ply or {level}.stl: all of L1 to L5 are needed")
    if len(found) > 1:
        raise BadAnatomy(f"{folder} has {level} twice ({', '.join(p.name for p in found)}): keep one")
    return found[0]


def _check_size(path: Path, mesh: Mesh) -> None:
    extent = mesh.vertices.max(0) - mesh.vertices.min(0)
    if extent.max() < 30.0 or extent.max() > 250.0:
        raise BadAnatomy(f"{path} is {extent.max():.3g} mm wide; a vertebra is 60 to 130 mm: convert it to mm")


def _check_orientation(folder: Path, axes: str, meshes: dict[str, Mesh]) -> None:
    heights = [float(meshes[level].vertices[:, 2].mean()) for level in LEVELS]
    for upper, lower in zip(range(4), range(1, 5), strict=True):
        if heights[upper] <= heights[lower]:
            raise BadAnatomy(f"{folder}: {LEVELS[upper]} lies {heights[lower] - heights[upper]:.0f} mm below "
                             f"{LEVELS[lower]} along z: z must point to the head")
        gap = heights[upper] - heights[lower]
        if not 15.0 <= gap <= 70.0:
            raise BadAnatomy(f"{folder}: {LEVELS[upper]} and {LEVELS[lower]} are {gap:.0f} mm apart; "
                             "neighbours are 25 to 45 mm apart in one spine")
    for level, mesh in meshes.items():
        if not spinous_is_posterior(mesh):
            raise BadAnatomy(f"{folder}: the spinous process of {level} does not point to the back when the axes are "
                             f"{axes}: try --axes {'RAS' if axes == 'LPS' else 'LPS'}, or turn the meshes")


def spinous_is_posterior(mesh: Mesh) -> bool:
    """Whether a vertebra in LPS axes has its heavy body at -y and its thin spinous process at +y.

    The centre of mass of a lumbar vertebra lies before the middle of its bounding box, by 2 to 16 % of its depth
    (41 real ones), and within 6 % of the middle from left to right; it is never tallest along z.
    """
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    offset = (centre_of_mass(mesh) - 0.5 * (low + high)) / (high - low)
    flat = (high - low)[2] < 0.9 * max(high[:2] - low[:2])
    return bool(flat and offset[1] < -0.005 and abs(offset[0]) < 0.1)


def centre_of_mass(mesh: Mesh) -> np.ndarray:
    """(3,) mm centre of the solid that a closed mesh bounds."""
    origin = mesh.vertices.mean(0)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] - origin for i in range(3))
    sixths = np.einsum("ij,ij->i", a, np.cross(b, c))
    return origin + (sixths[:, None] * (a + b + c)).sum(0) / (4.0 * sixths.sum())
