"""Anatomical points of a vertebra found by geometry on its mesh alone, to judge a correspondence by.

Found independently on a mesh and on the template, they tell whether a template vertex lands on the part of the bone
it stands for: a residual distance between surfaces cannot, because a surface may slide along itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.meshes import Mesh, sample_surface
from usx_common.transforms import Matrix, apply, invert, make_transform
from usx_completion.rigid import rotation_matrix
from usx_completion.shape_statistics import upright
from usx_completion.simulated_partial import posterior_wall

SAMPLES = 60_000  # about four a square millimetre
BEHIND_MM = 20.0  # of the body's middle: where the processes are
EDGE_MM = 6.0  # the rear edge of the spinous process is what lies this near to its rearmost point
TIP_MM = 1.5  # a tip is the middle of the surface this near to the extreme point
NAMES = ("spinous tip", "left transverse tip", "right transverse tip", "left superior facet tip",
         "right superior facet tip", "left inferior facet tip", "right inferior facet tip", "upper end plate centre",
         "lower end plate centre", "upper anterior rim", "lower anterior rim", "upper left rim", "upper right rim",
         "lower left rim", "lower right rim", "canal centre")


@dataclass(frozen=True)
class Landmarks:
    """``points`` name -> (P, 3) mm in the mesh's frame: one point on the surface, or for the canal's centre the four
    points of its wall whose mean it is."""

    points: dict[str, NDArray[np.float64]]

    def centre(self, name: str) -> NDArray[np.float64]:
        """(3,) the landmark."""
        return self.points[name].mean(axis=0)


def find_landmarks(mesh: Mesh) -> Landmarks:
    """Landmarks of a vertebra (mm, LPS). One that the geometry does not show is left out (see `NAMES`).

    Raises UsxError for a mesh without a vertebral canal.
    """
    points = sample_surface(mesh, SAMPLES, seed=0)
    body = posterior_wall(mesh).behind(points) <= 0.5
    to_frame = _frame(points, body)
    local = apply(to_frame, points)
    found = {**_tips(local, ~body & (local[:, 1] > BEHIND_MM)), **_plates(local, body), **_canal(local)}
    return Landmarks({name: apply(invert(to_frame), found[name]) for name in NAMES if name in found})


def transferred(landmarks: Landmarks, template: Mesh, vertices: NDArray) -> dict[str, NDArray[np.float64]]:
    """Name -> (3,) where the template's landmarks go when its vertices go to ``vertices`` (V, 3), mm."""
    names = list(landmarks.points)
    points = np.concatenate([landmarks.points[name] for name in names])
    corners = template.vertices[template.faces]
    near = cKDTree(corners.mean(axis=1)).query(points, k=24)[1]
    closest = trimesh.triangles.closest_point(corners[near.ravel()], np.repeat(points, 24, axis=0)).reshape(-1, 24, 3)
    best = np.linalg.norm(closest - points[:, None], axis=2).argmin(axis=1)
    rows = np.arange(len(points))
    face = near[rows, best]
    weights = trimesh.triangles.points_to_barycentric(corners[face], closest[rows, best])
    moved = np.einsum("pk,pki->pi", weights, vertices[template.faces[face]])
    parts = np.split(moved, np.cumsum([len(landmarks.points[name]) for name in names])[:-1])
    return {name: part.mean(axis=0) for name, part in zip(names, parts, strict=True)}


def _frame(points: NDArray, body: NDArray[np.bool_]) -> Matrix:
    """(4, 4) to the middle of the body, end plates level in both directions, the spinous process straight behind."""
    to_frame = upright(points, body)
    for _ in range(4):
        local = apply(to_frame, points)
        tip = local[local[:, 1] > local[:, 1].max() - TIP_MM].mean(axis=0)
        turn = rotation_matrix(np.array([0.0, 0.0, np.arctan2(tip[0], tip[1])]))
        local = local @ turn.T
        plates = [part for part in _near_plates(local, body) if len(part) > 10]
        roll = np.arctan(np.mean([np.polyfit(part[:, 0], part[:, 2], 1)[0] for part in plates])) if plates else 0.0
        leveled = rotation_matrix(np.array([0.0, roll, 0.0]))
        local = local @ leveled.T
        depth = _middle_depth(np.sort(local[(np.abs(local[:, 0]) < 3.0) & (np.abs(local[:, 2]) < 4.0), 1]))
        height = float(np.mean([np.median(part[:, 2]) for part in plates])) if len(plates) == 2 else 0.0
        to_frame = make_transform(leveled @ turn, np.array([0.0, -depth, -height])) @ to_frame
    return to_frame


def _middle_depth(depths: NDArray) -> float:
    """Middle between the front of the body and its back wall, which the canal follows; ``depths`` sorted, mm."""
    gaps = np.flatnonzero(np.diff(depths) >= 7.0)
    if len(gaps) < 2:
        return 0.0
    return 0.5 * float(depths[0] + depths[gaps[1]])


def _near_plates(local: NDArray, body: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    inner = local[body & (np.abs(local[:, 0]) < 12.0) & (np.abs(local[:, 1]) < 8.0)]
    return [inner[inner[:, 2] > 6.0], inner[inner[:, 2] < -6.0]]


def _tips(local: NDArray, arch: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    x, z = local[:, 0], local[:, 2]
    found: dict[str, NDArray | None] = {"spinous tip": _rear_edge(local[np.abs(x) < 15.0])}
    for name, side in (("left", 1.0), ("right", -1.0)):
        wide = arch & (side * x > 5.0)
        low = (side * x < 28.0) & (z < 0.0) & (local[:, 1] < 46.0)  # the spinous process lies farther behind
        found[f"{name} transverse tip"] = _extreme(local, wide, [side, 0.0, 0.0])
        found[f"{name} superior facet tip"] = _extreme(local, wide & (side * x < 28.0) & (z > 0.0), [0.0, 0.0, 1.0])
        found[f"{name} inferior facet tip"] = _extreme(local, wide & low, [0.0, 0.0, -1.0])
    return {name: point for name, point in found.items() if point is not None}


def _plates(local: NDArray, body: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    x, y, z = local.T
    found: dict[str, NDArray | None] = {}
    for name, side in (("upper", 1.0), ("lower", -1.0)):
        half = body & (side * z > 0.0)
        centre = local[half & (np.hypot(x, y) < 3.0)]
        if len(centre):
            found[f"{name} end plate centre"] = np.array([[0.0, 0.0, np.median(centre[:, 2])]])
        found[f"{name} anterior rim"] = _extreme(local, half & (np.abs(x) < 3.0), [0.0, -1.0, side])
        found[f"{name} left rim"] = _extreme(local, half & (np.abs(y) < 3.0), [1.0, 0.0, side])
        found[f"{name} right rim"] = _extreme(local, half & (np.abs(y) < 3.0), [-1.0, 0.0, side])
    return {name: point for name, point in found.items() if point is not None}


def _canal(local: NDArray) -> dict[str, NDArray[np.float64]]:
    """Front, back, left and right wall of the canal at the middle of the lamina's height, in the mid-plane."""
    middle = local[np.abs(local[:, 0]) < 1.5]
    fronts, backs, heights = [], [], []
    for height in np.arange(-14.0, 8.0, 1.0):
        depths = np.sort(middle[np.abs(middle[:, 2] - height) < 1.0, 1])
        depths = depths[depths > 4.0]
        gaps = np.diff(depths)
        if len(gaps) == 0 or gaps.max() < 7.0:
            continue
        first = int(np.argmax(gaps >= 7.0))
        if gaps[first] <= 32.0 and depths[first] < 26.0:
            fronts.append(depths[first])
            backs.append(depths[first + 1])
            heights.append(height)
    if not heights:
        return {}
    height = float(np.median(heights))
    front, back = float(np.median(fronts)), float(np.median(backs))
    centre = 0.5 * (front + back)
    ring = local[(np.abs(local[:, 1] - centre) < 1.5) & (np.abs(local[:, 2] - height) < 1.5), 0]
    left, right = ring[ring > 3.0], ring[ring < -3.0]
    if len(left) == 0 or len(right) == 0:
        return {}
    return {"canal centre": np.array([[0.0, front, height], [0.0, back, height], [left.min(), centre, height],
                                      [right.max(), centre, height]])}


def _rear_edge(points: NDArray) -> NDArray[np.float64] | None:
    """(1, 3) middle, in height, of the edge that ends the spinous process behind; None without points.

    The edge may be nearly vertical: its rearmost point alone would jump along it.
    """
    edge = points[points[:, 1] > points[:, 1].max(initial=-np.inf) - EDGE_MM]
    if len(edge) == 0:
        return None
    low, high = np.percentile(edge[:, 2], [2.0, 98.0])
    slab = edge[np.abs(edge[:, 2] - 0.5 * (low + high)) < TIP_MM]
    if len(slab) == 0:
        slab = edge
    return slab[slab[:, 1] > slab[:, 1].max() - TIP_MM].mean(axis=0, keepdims=True)


def _extreme(local: NDArray, mask: NDArray[np.bool_], direction: list[float]) -> NDArray[np.float64] | None:
    """(1, 3) middle of the surface near the farthest masked point along ``direction``; None for an empty mask."""
    points = local[mask]
    if len(points) == 0:
        return None
    along = points @ (np.asarray(direction) / np.linalg.norm(direction))
    farthest = points[int(np.argmax(along))]
    close = np.linalg.norm(points - farthest, axis=1) < 2.0 * TIP_MM
    return points[close & (along > along.max() - TIP_MM)].mean(axis=0, keepdims=True)
