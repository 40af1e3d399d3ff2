"""Pictures of the phantom for the documentation: `phantom_pictures --out docs/images`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from usx_common import transforms
from usx_common.drawing import save_small
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_phantom.mesh_import import read_spine
from usx_phantom.phantom_scene import build_scene
from usx_phantom.scene import Scene
from usx_phantom.spine import mean_spine, sample_spine
from usx_phantom.sweep import SweepSettings, path_pose
from usx_phantom.template import template_mesh

X, Y, Z = np.eye(3)
# name -> directions on the page to the right and upwards
VIEWS = {"from behind": (-X, Z), "from the right": (Y, Z), "from above": (X, Y)}
BONE = np.array([0.96, 0.91, 0.80])


def oblique() -> tuple[np.ndarray, np.ndarray]:
    """Page directions of a view from behind, left and above."""
    view = np.array([0.5, 0.75, 0.45]) / np.linalg.norm([0.5, 0.75, 0.45])
    right = np.cross(Z, view) / np.linalg.norm(np.cross(Z, view))
    return right, np.cross(view, right)


def draw(axes: Axes, meshes: list[Mesh], right: np.ndarray, up: np.ndarray) -> None:
    """Shaded triangles, farthest first (painter's algorithm)."""
    view = np.cross(right, up)
    corners = np.concatenate([mesh.vertices[mesh.faces] for mesh in meshes])
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    facing = normals @ view > 0
    corners, normals = corners[facing], normals[facing]
    order = np.argsort(corners.mean(1) @ view)
    light = 0.3 * right + 0.4 * up + 0.87 * view
    shade = 0.12 + 0.85 * np.clip(normals[order] @ light, 0.0, 1.0)
    colours = np.clip(shade[:, None] * BONE, 0.0, 1.0)
    flat = np.stack([corners[order] @ right, corners[order] @ up], -1)
    axes.add_collection(PolyCollection(list(flat), facecolors=colours, edgecolors=colours, linewidths=0.3))
    axes.autoscale()
    axes.set_aspect("equal")
    axes.axis("off")


def vertebrae(path: Path) -> None:
    """The mean vertebra of each level in four views."""
    figure, grid = plt.subplots(4, 5, figsize=(14, 9.5))
    for column, level in enumerate(LEVELS):
        for row, (name, page) in enumerate([*VIEWS.items(), ("oblique", oblique())]):
            draw(grid[row, column], [template_mesh(level, 1.0)], *page)
            grid[row, column].set_title(f"{level}, {name}", fontsize=9)
    _save(figure, path)


def spines(path: Path) -> None:
    """The mean spine and three sampled people, from behind and from the right."""
    figure, grid = plt.subplots(1, 8, figsize=(17, 6.5))
    shown = [("mean", mean_spine(1.0))] + [(f"seed {seed}", sample_spine(seed, spacing=1.0)) for seed in (0, 3, 7)]
    for number, (name, spine) in enumerate(shown):
        for side, view in enumerate(("from behind", "from the right")):
            axes = grid[2 * number + side]
            draw(axes, list(spine.meshes.values()), *VIEWS[view])
            axes.set_title(f"{name}, {view}", fontsize=9)
    _save(figure, path)


def samples_beside_real(path: Path, folders: list[Path]) -> None:
    """L3 of sampled people above L3 of real ones."""
    count = max(len(folders), 1)
    figure, grid = plt.subplots(2, count, figsize=(3.2 * count, 6), squeeze=False)
    for column, folder in enumerate(folders):
        draw(grid[0, column], [sample_spine(20 + column, spacing=1.0).local("L3")], *oblique())
        draw(grid[1, column], [read_spine(folder)["L3"]], *oblique())
        grid[0, column].set_title(f"sampled, seed {20 + column}", fontsize=9)
        grid[1, column].set_title(folder.name, fontsize=9)
    _save(figure, path)


def sweep_overview(path: Path, scene: Scene) -> None:
    """Bones, skin and the probe's way, seen from the right."""
    figure, axes = plt.subplots(figsize=(8.5, 5.5))
    draw(axes, list(scene.meshes.values()), Z, Y)
    z = np.linspace(-130, 130, 200)
    axes.plot(z, scene.skin.height(np.full_like(z, scene.skin.x0), z), color="tab:brown", label="skin")
    for fraction in np.linspace(0, 1, 12):
        pose = path_pose(scene, SweepSettings(), fraction)
        ends = transforms.apply(pose, np.array([[0, 0, 0], [0, 0, 60.0]]))
        axes.annotate("", tuple(ends[1, [2, 1]]), tuple(ends[0, [2, 1]]),
                      arrowprops={"arrowstyle": "->", "color": "tab:blue", "lw": 0.8})
    axes.plot([], [], color="tab:blue", label="probe and beam, 12 of the poses")
    axes.autoscale()
    axes.legend(loc="lower left", fontsize=8)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    save_small(figure, path, 72, 120)
    plt.close(figure)
    print(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser("phantom_pictures", description="Draw the pictures of docs/phantom.md.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the PNG files")
    parser.add_argument("--real", type=Path, nargs="*", default=[], metavar="DIR",
                        help="folders of real vertebrae L1..L5 (RAS, mm) to show beside sampled ones")
    options = parser.parse_args(arguments)
    plt.switch_backend("Agg")
    options.out.mkdir(parents=True, exist_ok=True)
    vertebrae(options.out / "phantom_vertebrae.png")
    spines(options.out / "phantom_spines.png")
    scene = build_scene(sample_spine(0).meshes, 0)
    sweep_overview(options.out / "phantom_sweep.png", scene)
    if options.real:
        samples_beside_real(options.out / "phantom_samples.png", options.real)
    return 0


if __name__ == "__main__":
    sys.exit(main())
