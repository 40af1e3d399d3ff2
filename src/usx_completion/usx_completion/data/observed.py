"""What a simulated examination gives: points of the whole spine, whose they really are, and clouds of the X-ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh


@dataclass(frozen=True)
class SeenPoints:
    """Ultrasound ``points`` (N, 3) mm, frame spine; ``owners`` (N,) uint8: the level 20..24 they lie on, 0 = clutter.

    Owners are truth: for reports and losses, never an input.
    """

    points: NDArray[np.float64]
    owners: NDArray[np.uint8]

    def chosen(self, rows: NDArray) -> SeenPoints:
        """The points of a mask or of indices."""
        return SeenPoints(self.points[rows], self.owners[rows])


@dataclass(frozen=True)
class XrayBody:
    """One body in the X-ray: ``filled`` (N, 3) and ``outline`` (M, 3) points, mm, frame spine, in the X-ray's plane.

    ``normals`` (M, 2): outward normals of the outline along the plane's posterior and cranial axes.
    """

    filled: NDArray[np.float64]
    outline: NDArray[np.float64]
    normals: NDArray[np.float64]


def stacked(meshes: Mapping[str, Mesh]) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.uint8]]:
    """Vertices (V, 3), faces (F, 3) and the level 20..24 of each face of all levels together."""
    parts = [meshes[level] for level in LEVELS]
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in parts])
    faces = np.concatenate([mesh.faces + offset for mesh, offset in zip(parts, offsets, strict=False)])
    owners = np.repeat(np.arange(20, 25, dtype=np.uint8), [len(mesh.faces) for mesh in parts])
    return np.concatenate([mesh.vertices for mesh in parts]), np.ascontiguousarray(faces, np.int32), owners
