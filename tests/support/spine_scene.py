"""A spine as the sensors see it, with known answers: ray-cast ultrasound points, CBCT surface, X-ray bodies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, cKDTree

from usx_common.levels import LEVEL_NAMES
from usx_common.meshes import Mesh, sample_surface
from usx_phantom.mesh_import import read_spine
from usx_phantom.raycast import TriangleTree
from usx_phantom.spine import mean_spine, sample_spine

LABELS = dict(zip(LEVEL_NAMES.values(), LEVEL_NAMES, strict=True))


@dataclass(frozen=True)
class SpineScene:
    """All in patient coordinates (LPS, mm): `bone` (N, 3) seen from behind with true `labels`, `cbct` (M, 3) the whole
    surface, `bodies` (K, 3) in the mid-plane with `body_labels`, `centres` (5, 3) of the vertebrae."""

    bone: np.ndarray
    labels: np.ndarray
    cbct: np.ndarray
    bodies: np.ndarray
    body_labels: np.ndarray
    centres: np.ndarray


@cache
def phantom_scene(seed: int | None = None) -> SpineScene:
    """The phantom's mean spine, or the one of a seed."""
    spine = mean_spine() if seed is None else sample_spine(seed)
    return make_scene(spine.meshes)


@cache
def real_scene(folder: Path) -> SpineScene:
    """A real column of USX_DATA/shapes."""
    return make_scene(read_spine(folder))


def make_scene(meshes: dict[str, Mesh]) -> SpineScene:
    bone, labels = seen_from_behind(meshes)
    clouds = [sample_surface(mesh, 20000, seed=5) for mesh in meshes.values()]
    parts = {name: body_in_mid_plane(mesh) for name, mesh in meshes.items()}
    return SpineScene(bone, labels, np.concatenate(clouds), np.concatenate(list(parts.values())),
                      np.concatenate([np.full(len(p), LABELS[name]) for name, p in parts.items()]),
                      np.array([cloud.mean(axis=0) for cloud in clouds]))


def seen_from_behind(meshes: dict[str, Mesh]) -> tuple[np.ndarray, np.ndarray]:
    """First hits of the scan lines of a curvilinear probe (radius 60 mm, 60 degrees) on three parallel paths."""
    tree = TriangleTree.build(list(meshes.values()))
    vertices = np.concatenate([mesh.vertices for mesh in meshes.values()])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle = np.median(vertices[:, 0])
    points, labels = [], []
    angles = np.radians(np.arange(-30.0, 30.1, 0.5))
    for offset in (-18.0, 0.0, 18.0):
        for z in np.arange(low[2] - 2.0, high[2] + 2.0, 1.0):
            directions = np.stack([np.sin(angles), -np.cos(angles), np.zeros(len(angles))], axis=1)
            origins = np.tile([middle + offset, high[1] + 80.0, z], (len(angles), 1))
            hits = tree.cast(origins, directions, 190.0)
            hit = np.isfinite(hits.distance)
            points.append(origins[hit] + hits.distance[hit, None] * directions[hit])
            labels.append(np.array(list(LABELS.values()))[hits.mesh[hit]])
    return np.concatenate(points), np.concatenate(labels)


def body_in_mid_plane(mesh: Mesh, count: int = 800) -> np.ndarray:
    """Points (N, 3) that fill the body's outline in the mid-sagittal plane: the part in front of the canal."""
    surface = sample_surface(mesh, 120000, seed=1)
    middle = np.median(surface[:, 0])
    for half in (4.0, 3.0, 2.0, 6.0):
        slab = surface[np.abs(surface[:, 0] - middle) < half]
        pairs = cKDTree(slab).query_pairs(1.6, output_type="ndarray")
        links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(slab),) * 2)
        _, part = connected_components(links, directed=False)
        largest = np.argsort(-np.bincount(part))[:2]
        if len(largest) == 2 and np.sum(part == largest[1]) > 0.08 * len(slab):
            body = slab[part == min(largest, key=lambda k: slab[part == k, 1].mean())][:, 1:]
            random = np.random.default_rng(2).uniform(body.min(axis=0), body.max(axis=0), (4 * count, 2))
            planes = ConvexHull(body).equations
            inside = random[np.all(random @ planes[:, :2].T + planes[:, 2] <= 0.0, axis=1)][:count]
            return np.column_stack([np.full(len(inside), middle), inside])
    raise AssertionError("no body found in the mid-plane")


def as_ultrasound(points: np.ndarray, count: int, noise: float, outliers: float, seed: int) -> np.ndarray:
    """`count` of the points with Gaussian noise (mm), and a share of outliers up to 25 mm behind the bone."""
    random = np.random.default_rng(seed)
    chosen = points[random.choice(len(points), count, replace=False)] + random.normal(0.0, noise, (count, 3))
    stray = int(count * outliers / (1.0 - outliers))
    low, high = chosen.min(axis=0), chosen.max(axis=0) + np.array([0.0, 25.0, 0.0])
    return random.permutation(np.concatenate([chosen, random.uniform(low, high, (stray, 3))]))
