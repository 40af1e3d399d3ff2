"""How near the parametric vertebrae come to real ones: similarity fit and symmetric surface distance.

`compare_shapes --meshes DIR` prints the distance of each level's mean to the meshes in DIR, and theirs to their mirror
image.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.spatial import cKDTree

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh, volume
from usx_phantom.mesh_import import AXES
from usx_phantom.template import template_mesh

DENSE, SPARSE = 30000, 4000


def surface_samples(mesh: Mesh, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 3) spread evenly by area and their face normals (count, 3)."""
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    rng = np.random.default_rng(seed)
    picked = rng.choice(len(areas), count, p=areas / areas.sum())
    u, v = rng.random((2, count))
    u, v = np.where(u + v > 1.0, 1.0 - u, u), np.where(u + v > 1.0, 1.0 - v, v)
    points = corners[picked, 0] + u[:, None] * (corners[picked, 1] - corners[picked, 0]) \
        + v[:, None] * (corners[picked, 2] - corners[picked, 0])
    return points, normals[picked] / areas[picked][:, None]


def distances_to(mesh: Mesh, points: np.ndarray, dense: int = DENSE) -> np.ndarray:
    """Distances (N,) mm of `points` to the surface: nearest of `dense` samples, along its normal where that is less."""
    samples, normals = surface_samples(mesh, dense, seed=7)
    straight, nearest = cKDTree(samples).query(points)
    plane = np.abs(((points - samples[nearest]) * normals[nearest]).sum(1))
    return np.where(straight < 3.0, plane, straight)


def mean_surface_distance(a: Mesh, b: Mesh, dense: int = DENSE, sparse: int = SPARSE) -> float:
    """Mean symmetric surface distance (mm) of two meshes in one frame: `sparse` points of each to the other."""
    there = distances_to(b, surface_samples(a, sparse)[0], dense).mean()
    back = distances_to(a, surface_samples(b, sparse)[0], dense).mean()
    return float(0.5 * (there + back))


def similarity_fit(moving: Mesh, fixed: Mesh, steps: int = 40) -> np.ndarray:
    """(4, 4) similarity that lays `moving` on `fixed`: closest points both ways, from the centroids (Horn 1987)."""
    target = surface_samples(fixed, SPARSE, seed=1)[0]
    source = surface_samples(moving, SPARSE, seed=2)[0]
    tree, total = cKDTree(target), np.eye(4)
    total[:3, 3] = target.mean(0) - source.mean(0)
    for _ in range(steps):
        now = source @ total[:3, :3].T + total[:3, 3]
        forth, back = tree.query(now)[1], cKDTree(now).query(target)[1]
        step = similarity(np.concatenate([now, now[back]]), np.concatenate([target[forth], target]))
        total = step @ total
    return total


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(4, 4) similarity of least squared distance from points `a` (N, 3) to `b` (N, 3) (Umeyama 1991)."""
    ma, mb = a.mean(0), b.mean(0)
    u, s, vt = np.linalg.svd((b - mb).T @ (a - ma))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = (s * sign).sum() / ((a - ma) ** 2).sum()
    step = np.eye(4)
    step[:3, :3] = scale * rotation
    step[:3, 3] = mb - scale * rotation @ ma
    return step


def real_meshes(folder: Path, axes: str = "RAS") -> dict[str, Mesh]:
    """Level -> mesh (LPS mm, outward faces) of L1.ply .. L5.ply in `folder`. Raises UsxError where there is none."""
    found = {}
    for level in LEVELS:
        path = folder / f"{level}.ply"
        if path.is_file():
            real = read_mesh(path).transformed(AXES[axes])
            found[level] = real if volume(real) > 0.0 else Mesh(real.vertices, real.faces[:, ::-1])
    if not found:
        raise UsxError(f"{folder} has none of L1.ply to L5.ply")
    return found


def compare(folder: Path, axes: str = "RAS") -> dict[str, float]:
    """Level -> mean symmetric surface distance (mm), after a similarity fit, of the mean to the mesh in `folder`."""
    found = {}
    for level, real in real_meshes(folder, axes).items():
        mean = template_mesh(level)
        found[level] = mean_surface_distance(mean.transformed(similarity_fit(mean, real)), real)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; exit status 2 for bad input."""
    parser = argparse.ArgumentParser("compare_shapes", description="Distance of the mean parametric vertebrae to real "
                                     "ones (mean symmetric surface distance after a similarity fit, mm).")
    parser.add_argument("--meshes", type=Path, required=True, metavar="DIR", help="folder with L1.ply .. L5.ply, mm")
    parser.add_argument("--axes", choices=sorted(AXES), default="RAS", help="axes of the meshes (default RAS)")
    options = parser.parse_args(arguments)
    from usx_phantom.morphometry import asymmetry  # morphometry needs this module
    try:
        found = compare(options.meshes, options.axes)
        mirrored = {level: asymmetry(mesh) for level, mesh in real_meshes(options.meshes, options.axes).items()}
    except UsxError as error:
        print(f"compare_shapes: {error}", file=sys.stderr)
        return 2
    table = Table("level", "mean surface distance, mm", "to its own mirror image, mm")
    for level, distance in found.items():
        table.add_row(level, f"{distance:.2f}", f"{mirrored[level]:.2f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
