"""Shaded meshes and clouds in plain matplotlib axes, seen orthographically: no window, no GPU, the same everywhere."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from usx_common.meshes import Mesh

LIGHT = np.array([0.35, 0.45, 0.82])  # in view axes: from the upper right, in front of the picture
AMBIENT = 0.35


@dataclass(frozen=True)
class View:
    """An orthographic view: the directions of the frame that point right and up in the picture."""

    right: tuple[float, float, float]
    up: tuple[float, float, float]

    def project(self, points: NDArray) -> NDArray[np.float64]:
        """(N, 3) points as right, up, towards the viewer; mm."""
        right, up = np.asarray(self.right, float), np.asarray(self.up, float)
        right, up = right / np.linalg.norm(right), up / np.linalg.norm(up)
        return np.asarray(points, float) @ np.stack([right, up, np.cross(right, up)], axis=1)


# Frame spine (LPS): x left, y posterior, z cranial.
FROM_BEHIND = View(right=(-1.0, 0.0, 0.0), up=(0.0, 0.0, 1.0))
FROM_LEFT = View(right=(0.0, 1.0, 0.0), up=(0.0, 0.0, 1.0))
OBLIQUE = View(right=(-0.75, 0.66, 0.0), up=(0.22, 0.26, 0.94))


def draw_meshes(axes: Axes, meshes: list[Mesh], colours: list[str], view: View, opacity: float = 1.0) -> None:
    """Draw meshes (mm), each in one colour, nearer faces over farther ones (painter's algorithm, Lambert shading)."""
    polygons, shades = [], []
    for mesh, colour in zip(meshes, colours, strict=True):
        corners = view.project(mesh.vertices)[mesh.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(normals, axis=1)
        facing = (normals[:, 2] > 0) & (length > 0)
        normals = normals[facing] / length[facing, None]
        light = AMBIENT + (1 - AMBIENT) * np.clip(normals @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
        polygons.append(corners[facing])
        shades.append(light[:, None] * np.asarray(to_rgb(colour)))
    corners, shade = np.concatenate(polygons), np.concatenate(shades)
    order = np.argsort(corners[:, :, 2].mean(axis=1), kind="stable")
    axes.add_collection(PolyCollection(list(corners[order][:, :, :2]), facecolors=shade[order], alpha=opacity,
                                       edgecolors=shade[order], linewidths=0.15))
    finish(axes)


def draw_points(axes: Axes, points: NDArray, colour: str, view: View, size: float = 0.6) -> None:
    """Draw a cloud (N, 3), mm."""
    flat = view.project(points)
    axes.scatter(flat[:, 0], flat[:, 1], s=size, c=colour, linewidths=0)
    finish(axes)


def finish(axes: Axes) -> None:
    """Equal scales, the limits of what was drawn, no frame."""
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.set_axis_off()


def save_small(figure: Figure, path: Path, dpi: float, colours: int = 250) -> None:
    """Write a PNG of a few ``colours``: shaded bone needs 48, and takes a fifth of the bytes of all of them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    small = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    small.save(path, optimize=True)
