"""What is left between an answer and what was seen of the bone, spread over the surface by a Gaussian process.

The network tells pose and shape from what nodes some millimetres apart see. Points and outlines still ask for a little
more, finer than that. Displacements along the normals are a Gaussian process here, with the width that the shape model
of real people found in what its modes leave over (`Spread`); its mean, given what points and outlines ask for, is added
(Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 2). How far data are believed is told by
the data: by how close to the answer they lie already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.spatial import cKDTree
from trimesh.triangles import closest_point, points_to_barycentric

from usx_common.meshes import Mesh, vertex_normals
from usx_completion.correction.scene import Scene
from usx_completion.data.setting_checks import check_settings
from usx_completion.outline import silhouette
from usx_completion.shape_model import ShapeModel
from usx_completion.surface_distance import nearest_faces

FEWEST = 10
EDGE_MM = 2.0  # a place of a surface has a vertex about that near
ROBUST = 1.4826  # standard deviation of normal numbers over their median distance


@dataclass(frozen=True)
class PolishSettings:
    """``field_mm``: standard deviation of what is looked for; ``width_mm``: how far it is alike along the surface;
    ``facing``: the same for normals, in lengths of their difference (the two sides of a lamina are apart);
    ``reach_mm``: data farther off are not of this surface; ``noise``: of a place on the bone, over the median distance
    of the level's points, but ``noise_least_mm``; ``outline_noise`` over the robust standard deviation of the rims,
    but ``outline_least_mm``."""

    field_mm: float = 0.7
    width_mm: float = 5.0
    facing: float = 0.8
    reach_mm: float = 4.0
    noise: float = 0.7
    noise_least_mm: float = 0.1
    outline_noise: float = 1.2
    outline_least_mm: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, {name: (0.0 if name == "field_mm" else 1e-3, 50.0) for name in vars(self)})


@dataclass(frozen=True)
class Asked:
    """What data ask of a level's surface: at R ``places`` (R, 3) mm where its ``normals`` (R, 3) are these, to go
    ``along`` (R,) mm in a direction of which the normal has the ``share`` (R,), give or take ``noise`` (R,) mm."""

    places: NDArray[np.float64]
    normals: NDArray[np.float64]
    along: NDArray[np.float64]
    share: NDArray[np.float64]
    noise: NDArray[np.float64]

    def __add__(self, other: Asked) -> Asked:
        return Asked(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in vars(self)))


class Polish:
    """For answers with the topology of ``model`` (V vertices)."""

    def __init__(self, model: ShapeModel, settings: PolishSettings | None = None) -> None:
        self._faces, self._bodies = model.faces, model.xray_bodies
        self._settings = settings or PolishSettings()

    def __call__(self, vertices: NDArray, scene: Scene, outlines: tuple[NDArray, NDArray]
                 ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(L, V, 3) vertices of all levels, mm, frame spine, that lie nearer to the scene's points and to ``outlines``:
        points and normals (L, 72, 2), corrected as the answer says. And (L, V), to what share of it the standard
        deviation of each is brought down. Levels that are not placed stay."""
        result, doubt = np.array(vertices, np.float64), np.ones(vertices.shape[:2])
        placed = np.flatnonzero(scene.placed)
        if len(placed) == 0 or self._settings.field_mm == 0.0:
            return result, doubt
        meshes = [Mesh(level, self._faces) for level in result]
        normals = {int(k): vertex_normals(meshes[k]) for k in placed}
        asked = self._by_points(meshes, normals, scene.points.astype(np.float64))
        for k, more in self._by_outlines(meshes, normals, scene, outlines).items():
            asked[k] = asked[k] + more if k in asked else more
        for k, mine in ((k, mine) for k, mine in asked.items() if len(mine.along)):
            along, doubt[k] = self._posterior(meshes[k].vertices, normals[k], mine)
            result[k] += along[:, None] * normals[k]
        return result, doubt

    def _by_points(self, meshes: Sequence[Mesh], normals: dict[int, NDArray], points: NDArray) -> dict[int, Asked]:
        """What the points ask of each level of ``normals``; a point is of the level of the nearest vertex of all."""
        everything = np.concatenate([mesh.vertices for mesh in meshes])
        gaps, rows = cKDTree(everything).query(points, distance_upper_bound=self._settings.reach_mm + EDGE_MM)
        count = self._bodies.shape[1]
        owner = np.where(np.isfinite(gaps), rows // count, -1)
        asked = {}
        for k in normals:
            mine = owner == k
            if mine.sum() >= FEWEST:
                asked[k] = self._of_level(meshes[k], normals[k], points[mine], rows[mine] % count)
        return asked

    def _of_level(self, mesh: Mesh, normals: NDArray, points: NDArray, rows: NDArray) -> Asked:
        """``rows``: the vertex nearest to each point; those that share one are averaged."""
        settings = self._settings
        distance, faces = nearest_faces(points, mesh)
        near = distance < settings.reach_mm
        if not near.any():
            return Asked(np.zeros((0, 3)), np.zeros((0, 3)), *np.zeros((3, 0)))
        points, rows, touched = points[near], rows[near], mesh.faces[faces[near]]
        corners = mesh.vertices[touched]
        feet = closest_point(corners, points)
        parts = points_to_barycentric(corners, feet)
        facing = _unit(np.einsum("nk,nki->ni", parts, normals[touched]))  # the same on both sides of an edge
        offsets = np.copysign(distance[near], np.einsum("ni,ni->n", points - feet, facing))
        noise = max(settings.noise * float(np.median(np.abs(offsets))), settings.noise_least_mm)
        _, group, size = np.unique(rows, return_inverse=True, return_counts=True)
        mean = sparse.csr_matrix((1.0 / size[group], (group, np.arange(len(group)))))
        # what lies at one place of the bone shares half of its error
        return Asked(mean @ feet, _unit(mean @ facing), mean @ offsets, np.ones(len(size)),
                     noise * np.sqrt(0.5 + 0.5 / size))

    def _by_outlines(self, meshes: Sequence[Mesh], normals: dict[int, NDArray], scene: Scene,
                     outlines: tuple[NDArray, NDArray]) -> dict[int, Asked]:
        """What the X-ray's outlines ask of the vertices that are outermost in its plane.

        How far outside of these all outlines lie together is no matter of a single place: a silhouette is the outermost
        of a bumpy surface and what is told is smooth, and everybody draws outlines farther out or in.
        """
        settings = self._settings
        asked = {k: self._rim(k, meshes[k], normals[k], scene, outlines) for k in normals if scene.shown[k]}
        everything = np.concatenate([part.along for part in asked.values()] or [np.zeros(0)])
        if len(everything) < FEWEST:
            return {}
        usual = float(np.median(everything))
        spread = ROBUST * float(np.median(np.abs(everything - usual)))
        noise = max(settings.outline_noise * spread, settings.outline_least_mm)
        result = {}
        for k, part in asked.items():
            near = np.abs(part.along - usual) < settings.reach_mm
            result[k] = Asked(part.places[near], part.normals[near], part.along[near] - usual, part.share[near],
                              np.full(int(near.sum()), noise))
        return result

    def _rim(self, k: int, mesh: Mesh, normals: NDArray, scene: Scene, outlines: tuple[NDArray, NDArray]) -> Asked:
        """How far level ``k``'s outline lies outside of the vertices that are outermost; noise is not known yet."""
        plane, body = scene.plane.astype(np.float64), np.flatnonzero(self._bodies[k])
        flat = (mesh.vertices[body] - plane[0]) @ plane[2:].T
        rim = silhouette(flat)
        gaps, near = cKDTree(outlines[0][k]).query(flat[rim])
        facing = outlines[1][k][near].astype(np.float64)
        along = np.einsum("ni,ni->n", outlines[0][k][near] - flat[rim], facing)
        rows = body[rim]
        share = np.einsum("ni,ni->n", normals[rows], facing @ plane[2:])
        mine = (gaps < 2.0 * self._settings.reach_mm) & (share > 0.0)
        rows = rows[mine]
        return Asked(mesh.vertices[rows], normals[rows], along[mine], share[mine], np.zeros(len(rows)))

    def _posterior(self, vertices: NDArray, normals: NDArray, asked: Asked
                   ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(V,) mm along the normals: the process's mean, given what is asked. (V,) share of the standard deviation that
        is left by the one place that tells most; all places together leave a quarter less, but take long to ask."""
        middle = asked.places.mean(axis=0)  # squares of what lies far from the origin would lose digits
        known = self._features(asked.places - middle, asked.normals)
        covariance = asked.share[:, None] * self._kernel(known, known) * asked.share + np.diag(asked.noise**2)
        across = self._kernel(self._features(vertices - middle, normals), known)
        across *= asked.share
        try:
            weights = cho_solve(cho_factor(covariance, lower=True), asked.along)
        except LinAlgError:
            return np.zeros(len(vertices)), np.ones(len(vertices))
        along = across @ weights
        np.square(across, out=across)
        across /= np.diag(covariance)
        told = np.max(across, axis=1, initial=0.0) / self._settings.field_mm**2
        return along, np.sqrt(1.0 - told)

    def _features(self, places: NDArray, normals: NDArray) -> NDArray[np.float64]:
        return np.hstack([places / self._settings.width_mm, normals / self._settings.facing])

    def _kernel(self, first: NDArray, second: NDArray) -> NDArray[np.float64]:
        """In place, because these matrices are most of what the polish has to do."""
        field = first @ second.T
        field -= 0.5 * np.einsum("ni,ni->n", first, first)[:, None]
        field -= 0.5 * np.einsum("ni,ni->n", second, second)
        np.exp(np.minimum(field, 0.0, out=field), out=field)
        field *= self._settings.field_mm**2
        return field


def _unit(vectors: NDArray) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
