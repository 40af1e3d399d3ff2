"""Bone surfaces as clouds with oriented normals, and the part of a CBCT surface that ultrasound can see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from usx_common.clouds import estimate_normals, finite_rows, voxel_downsample
from usx_common.errors import UsxError

Array = NDArray[np.float64]


class BadSurface(UsxError):
    """A cloud that cannot serve as a bone surface."""


@dataclass(frozen=True)
class Visibility:
    """How the posterior surface is found: tilts of the view in degrees about the cranial axis (the fan of the probe
    looks at a point from several sides during a sweep), cell of the depth buffer and depth kept below it in mm."""

    tilts_deg: tuple[float, ...] = (-30.0, -15.0, 0.0, 15.0, 30.0)
    cell: float = 1.5
    depth: float = 1.5


@dataclass(frozen=True)
class Surface:
    """``points`` (N, 3) mm and unit ``normals`` (N, 3) towards the viewer, in one frame, with a search tree."""

    points: Array
    normals: Array
    tree: cKDTree

    def __len__(self) -> int:
        return len(self.points)


def unit(vector: ArrayLike, name: str = "axis") -> Array:
    """(3,) vector of length 1. Raises BadSurface naming ``name`` when it is zero or not finite."""
    values = np.asarray(vector, dtype=np.float64).reshape(-1)
    norm = float(np.linalg.norm(values))
    if values.size != 3 or not np.isfinite(norm) or norm < 1e-9:
        raise BadSurface(f"{name} = {values.tolist()} has no direction; give three numbers that are not all zero")
    return values / norm


def make_surface(points: Array, towards: ArrayLike, voxel: float, neighbours: int = 16) -> Surface:
    """Surface of a cloud (N, 3) in mm, thinned to one point per cube of ``voxel`` mm, normals turned to ``towards``.

    Normals are the smallest principal direction of the nearest neighbours. Rows that are not finite are left out.
    Raises BadSurface when fewer than ``neighbours`` points remain.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    thin = voxel_downsample(points[finite_rows(points)], voxel)
    if len(thin) < neighbours:
        raise BadSurface(f"a surface of {len(thin)} points is too small; {neighbours} or more are needed")
    return Surface(thin, point_normals(thin, towards, neighbours), cKDTree(thin))


def point_normals(points: Array, towards: ArrayLike, neighbours: int = 16) -> Array:
    """(N, 3) unit normals turned to the side of ``towards``: the smallest principal direction of the neighbours."""
    normals = estimate_normals(points, neighbours)
    return normals * np.where(normals @ unit(towards) < 0, -1.0, 1.0)[:, None]


def visible_mask(points: Array, posterior: ArrayLike, cranial: ArrayLike,
                 settings: Visibility = Visibility()) -> NDArray[np.bool_]:
    """(N,) mask of the points (N, 3) in mm that are seen from behind, ``posterior`` and ``cranial`` being directions.

    A depth buffer per viewing direction: a point is seen when nothing in its cell lies more than ``depth`` in front.
    """
    back, up = unit(posterior, "posterior axis"), unit(cranial, "cranial axis")
    side = unit(np.cross(back, up), "left axis")
    up = np.cross(side, back)
    seen = np.zeros(len(points), dtype=bool)
    for tilt in np.radians(settings.tilts_deg):
        view = np.cos(tilt) * back + np.sin(tilt) * side
        across = np.cos(tilt) * side - np.sin(tilt) * back
        seen |= _front(points @ across, points @ up, points @ view, settings)
    return seen


def _front(across: Array, along: Array, height: Array, settings: Visibility) -> NDArray[np.bool_]:
    cells = np.floor(np.stack([across, along], axis=1) / settings.cell).astype(np.int64)
    cells -= cells.min(axis=0)
    key = cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1]
    top = np.full(int(key.max()) + 1, -np.inf)
    np.maximum.at(top, key, height)
    return height >= top[key] - settings.depth


def posterior_surface(points: Array, posterior: ArrayLike, cranial: ArrayLike, voxel: float = 1.0,
                      settings: Visibility = Visibility()) -> Surface:
    """The part of a bone cloud (N, 3), mm, that ultrasound from behind can see, as a surface.

    Raises BadSurface when too little of it is left.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    points = points[finite_rows(points)]
    if len(points) == 0:
        raise BadSurface("the bone cloud is empty")
    return make_surface(points[visible_mask(points, posterior, cranial, settings)], posterior, voxel)


def main_bone_mask(points: Array, link: float = 5.0, least: float = 0.02) -> NDArray[np.bool_]:
    """(N,) mask of the points (N, 3), mm, in sets linked by steps of ``link`` mm that hold ``least`` of all points.

    Counted after thinning to 2 mm. What is left out are islands of noise, which lie centimetres from the bone and
    would move middles, extremes and lengths.
    """
    if len(points) < 3:
        return np.ones(len(points), dtype=bool)
    thin = voxel_downsample(points, 2.0)
    tree = cKDTree(thin)
    pairs = tree.query_pairs(link, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(thin), len(thin)))
    _, sets = connected_components(links, directed=False)
    large = np.bincount(sets) >= max(least * len(thin), 2.0)
    return large[sets][tree.query(points)[1]]
