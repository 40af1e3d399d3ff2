"""What the authors of US-X Complete let ultrasound see: pinhole depth images from behind, and a shadow rule.

Source: Gafencu et al., "Shape completion in the dark" (2024), and US-X Complete (arXiv 2511.15600), whose numbers are
the defaults. Two faults of the recipe are not copied: the cameras stand behind their own level (the released script
mirrors them along the spine; ``mirrored_cameras`` brings that back), and surface normals are the mesh's, which point
outwards (normals of unknown sign make the incidence rule arbitrary).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_completion.data.observed import SeenPoints, stacked
from usx_completion.data.raster import near_any, nearest_surface
from usx_completion.data.setting_checks import check_settings

NEAREST_MM = 1.0


@dataclass(frozen=True)
class PaperVisibility:
    """The recipe's numbers. mm, pixels and degrees.

    ``camera_mm``: how far behind the spine's centre the cameras stand; ``merge_mm``: (x, y) shift of the copy that
    casts shadow, to either side; ``keep_mm``: how near a point must lie to the first hits on bone and copy together.
    """

    camera_mm: float = 100.0
    columns: int = 160
    rows: int = 120
    focal_px: float = 100.0
    merge_mm: tuple[float, float] = (5.0, -1.0)
    keep_mm: float = 1.0
    incidence_deg: float = 90.0
    noise_y_mm: float = 0.0
    mirrored_cameras: bool = False

    def __post_init__(self) -> None:
        check_settings(self, {"camera_mm": (20.0, 1000.0), "columns": (8, 4096), "rows": (8, 4096),
                              "focal_px": (1.0, 1e5), "merge_mm": (-50.0, 50.0), "keep_mm": (0.1, 20.0),
                              "incidence_deg": (1.0, 90.0), "noise_y_mm": (0.0, 20.0)})


def see_from_behind(meshes: Mapping[str, Mesh], settings: PaperVisibility, random: np.random.Generator) -> SeenPoints:
    """Points that the five cameras see and that the shadow rule keeps; ``meshes``: mm, LPS, about the spine's centre.

    Points that two views or both halves give are there twice, as in the recipe.
    """
    vertices, faces, owner_of_face = stacked(meshes)
    cameras = camera_places(meshes, settings)
    own = _views(vertices, faces, cameras, settings)
    kept, owners, merged = [], [], []
    for side in (1.0, -1.0):
        shift = np.array([side * settings.merge_mm[0], settings.merge_mm[1], 0.0])
        copy = _views(vertices + shift, faces, cameras, settings)
        both = [np.maximum(a.nearness, b.nearness) for a, b in zip(own, copy, strict=True)]
        points = np.concatenate([_points(near, camera, settings)
                                 for near, camera in zip(both, cameras, strict=True)])
        merged.append(points[side * points[:, 0] >= 0.0])
    limit = np.cos(np.radians(settings.incidence_deg))
    for view, camera in zip(own, cameras, strict=True):
        points = _points(view.nearness, camera, settings)
        face = view.face[view.face >= 0]
        facing = _cosines(vertices, faces[face], points, camera) > limit
        kept.append(points[facing])
        owners.append(owner_of_face[face[facing]])
    seen = SeenPoints(np.concatenate(kept), np.concatenate(owners))
    rows = np.concatenate([np.flatnonzero(near_any(seen.points, half, settings.keep_mm)) for half in merged])
    result = seen.chosen(rows)
    if settings.noise_y_mm > 0.0:
        noise = np.zeros_like(result.points)
        noise[:, 1] = random.normal(0.0, settings.noise_y_mm, len(noise))
        return SeenPoints(result.points + noise, result.owners)
    return result


def camera_places(meshes: Mapping[str, Mesh], settings: PaperVisibility) -> NDArray[np.float64]:
    """(5, 3) mm: behind the mean vertex of each level, at a constant y. All look along -y (anterior)."""
    places = np.stack([meshes[level].vertices.mean(axis=0) for level in LEVELS])
    places[:, 1] = settings.camera_mm
    if settings.mirrored_cameras:
        places[:, 2] *= -1.0
    return places


@dataclass(frozen=True)
class _View:
    """Inverse depth in 1/mm (-inf: nothing) and face (-1: nothing) per pixel, both (columns, rows)."""

    nearness: NDArray[np.float64]
    face: NDArray[np.int32]


def _views(vertices: NDArray, faces: NDArray, cameras: NDArray, settings: PaperVisibility) -> list[_View]:
    views = []
    for camera in cameras:
        depth = camera[1] - vertices[:, 1]
        ahead = depth > NEAREST_MM
        inverse = np.where(ahead, 1.0 / np.where(ahead, depth, 1.0), -np.inf)
        scale = settings.focal_px * np.where(ahead, inverse, 0.0)
        pixels = np.column_stack([(vertices[:, 0] - camera[0]) * scale + 0.5 * (settings.columns - 1),
                                  (vertices[:, 2] - camera[2]) * scale + 0.5 * (settings.rows - 1), inverse])
        views.append(_View(*nearest_surface(pixels, faces, settings.columns, settings.rows)))
    return views


def _points(nearness: NDArray, camera: NDArray, settings: PaperVisibility) -> NDArray[np.float64]:
    """(N, 3) mm of the pixels that show something, in row-major order."""
    column, row = np.nonzero(nearness > -np.inf)
    depth = 1.0 / nearness[column, row]
    x = (column - 0.5 * (settings.columns - 1)) * depth / settings.focal_px
    z = (row - 0.5 * (settings.rows - 1)) * depth / settings.focal_px
    return camera + np.column_stack([x, -depth, z])


def _cosines(vertices: NDArray, triangles: NDArray, points: NDArray, camera: NDArray) -> NDArray[np.float64]:
    """(N,) cosine between the outward normal of each point's triangle and the direction back to the camera."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    back = camera - points
    lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(back, axis=1)
    return np.einsum("ni,ni->n", normals, back) / np.maximum(lengths, 1e-12)
