"""Dense correspondence: one template mesh bent onto another vertebra by non-rigid registration.

Three stages: similarity ICP from several pitch angles; iterated closest points in the space of a low-rank Gaussian
process with annealed noise, correspondences taken both ways so that the tips of the processes are pulled out
(Lüthi et al. 2018); a projection onto the surface that a Laplacian keeps smooth (Amberg et al., CVPR 2007, in spirit).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import Matrix, apply, make_transform, rotation_about_axis
from usx_completion.gaussian_process import Kernel, low_rank_basis
from usx_completion.rigid import align


@dataclass(frozen=True)
class RegistrationSettings:
    """Amplitudes in mm. ``noise_mm`` is the annealing schedule, one Gaussian process iteration per entry."""

    kernels: tuple[Kernel, ...] = (Kernel(40.0, 8.0), Kernel(18.0, 3.0), Kernel(9.0, 1.6))
    rank: int = 110
    pitches_deg: tuple[float, ...] = (-20.0, 0.0, 20.0)
    icp_iterations: int = 25
    noise_mm: tuple[float, ...] = (6.0, 5.0, 4.2, 3.6, 3.0, 2.6, 2.2, 1.9, 1.6, 1.4, 1.2, 1.0, 0.9, 0.8)
    stiffness: tuple[float, ...] = (5.0, 4.0, 3.2, 2.6, 2.1, 1.7, 1.4, 1.2, 1.0)
    normal_agreement: float = 0.4
    reach_mm: float = 12.0


@dataclass(frozen=True)
class Template:
    """The mesh that is bent; what depends on it alone is computed once. Watertight, mm, axes LPS."""

    mesh: Mesh
    settings: RegistrationSettings = field(default_factory=RegistrationSettings)

    @cached_property
    def basis(self) -> NDArray[np.float64]:
        """(V, R) Gaussian process basis on the template's vertices."""
        return low_rank_basis(self.mesh.vertices, self.settings.kernels, self.settings.rank)

    @cached_property
    def bending(self) -> sparse.csc_matrix:
        """(V, V) thin-plate energy: the squared umbrella Laplacian of the mesh graph."""
        laplacian = graph_laplacian(self.mesh)
        return (laplacian.T @ laplacian).tocsc()


def graph_laplacian(mesh: Mesh) -> sparse.csr_matrix:
    """(V, V) Laplacian whose rows are a vertex minus the mean of its neighbours."""
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    count = len(mesh.vertices)
    adjacency = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count)).tocsr()
    adjacency.data[:] = 1.0
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    return (sparse.identity(count) - sparse.diags(1.0 / np.maximum(degree, 1.0)) @ adjacency).tocsr()


class Surface:
    """A target surface for closest-point queries: vertices, outward normals, search tree. mm."""

    def __init__(self, mesh: Mesh) -> None:
        self.points = mesh.vertices
        self.normals = vertex_normals(mesh)
        self.tree = cKDTree(self.points)

    def nearest(self, points: NDArray, normals: NDArray, candidates: int = 6) -> tuple[NDArray, NDArray]:
        """Index (N,) of the nearest vertex, and the cosine (N,) between its normal and the query's.

        Of the nearest ``candidates`` the one with agreeing normal wins over nearer ones that face away: thin bone
        has two sides.
        """
        distances, index = self.tree.query(points, k=candidates)
        cosine = np.einsum("nki,ni->nk", self.normals[index], normals)
        best = np.argmin(distances + 4.0 * (1.0 - cosine), axis=1)
        rows = np.arange(len(points))
        return index[rows, best], cosine[rows, best]


def register(template: Template, target: Mesh) -> NDArray[np.float64]:
    """(V, 3) vertices of the template bent onto ``target`` (mm; axes LPS, tilted by at most about 40 degrees)."""
    surface = Surface(target)
    start = similarity_icp(template, surface)
    bent = gaussian_process_icp(template, surface, start)
    return project(template, surface, bent)


def similarity_icp(template: Template, surface: Surface) -> Matrix:
    """``template_to_target`` (4, 4) with scale: the best of several starts that differ in pitch."""
    settings = template.settings
    every = slice(None, None, 3)
    points, normals = template.mesh.vertices[every], vertex_normals(template.mesh)[every]
    best, best_error = np.eye(4), np.inf
    for pitch in settings.pitches_deg:
        rotation = rotation_about_axis([1.0, 0.0, 0.0], np.radians(pitch))
        pose = make_transform(rotation, surface.points.mean(axis=0) - rotation @ points.mean(axis=0))
        for _ in range(settings.icp_iterations):
            moved = apply(pose, points)
            turned = normals @ pose[:3, :3].T / np.cbrt(np.linalg.det(pose[:3, :3]))
            index, cosine = surface.nearest(moved, turned)
            gaps = np.linalg.norm(surface.points[index] - moved, axis=1)
            weights = np.clip(cosine, 0.0, 1.0) / (1.0 + (gaps / max(2.0, np.median(gaps) * 2.0)) ** 2) + 1e-9
            pose = align(points, surface.points[index], weights, scale=True)
        error = float(np.mean(np.minimum(gaps, 10.0) + 5.0 * (1.0 - cosine)))
        if error < best_error:
            best, best_error = pose, error
    return best


def gaussian_process_icp(template: Template, surface: Surface, start: Matrix) -> NDArray[np.float64]:
    """(V, 3) vertices after the annealed registration in the Gaussian process space, frame of the target."""
    settings, basis = template.settings, template.basis
    initial = apply(start, template.mesh.vertices)
    rank = basis.shape[1]
    coefficients = np.zeros((rank, 3))
    vertices = initial
    back = np.arange(0, len(surface.points), max(1, len(surface.points) // 2500))
    for noise in settings.noise_mm:
        rows, goals, normals, weights = _correspondences(template, surface, vertices, back)
        local = basis[rows]
        residual = goals - initial[rows]
        weights = weights / noise**2
        # the tangential part counts little: a vertex may slide along the surface
        system = _normal_matrix(local, normals, weights, tangential=0.08) + np.eye(3 * rank)
        along = np.einsum("ni,ni->n", normals, residual)
        pull = 0.92 * along[:, None] * normals + 0.08 * residual
        right = np.einsum("nr,ni->ri", local * weights[:, None], pull).reshape(-1)
        coefficients = cho_solve(cho_factor(system), right).reshape(rank, 3)
        vertices = initial + basis @ coefficients
    return vertices


def project(template: Template, surface: Surface, vertices: NDArray) -> NDArray[np.float64]:
    """(V, 3) vertices drawn onto the surface in steps; the displacement stays smooth in the thin-plate sense."""
    settings = template.settings
    for stiffness in settings.stiffness:
        normals = vertex_normals(Mesh(vertices, template.mesh.faces))
        index, cosine = surface.nearest(vertices, normals)
        offset = surface.points[index] - vertices
        ahead = np.einsum("ni,ni->n", offset, surface.normals[index])[:, None] * surface.normals[index]
        gap = np.linalg.norm(offset, axis=1)
        weights = np.where(cosine > settings.normal_agreement, 1.0 / (1.0 + (gap / 2.0) ** 2), 0.0)
        solver = splu((sparse.diags(weights + 1e-6) + stiffness * template.bending).tocsc())
        vertices = vertices + solver.solve(weights[:, None] * ahead)
    return vertices


def _correspondences(template: Template, surface: Surface, vertices: NDArray, back: NDArray
                     ) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Template vertex, goal point, goal normal and weight of the pairs from the template and from the target."""
    settings = template.settings
    mine = vertex_normals(Mesh(vertices, template.mesh.faces))
    forward = np.arange(0, len(vertices), 2)
    index, cosine = surface.nearest(vertices[forward], mine[forward])
    tree_surface = cKDTree(vertices)
    distances, near = tree_surface.query(surface.points[back], k=6)
    agreement = np.einsum("nki,ni->nk", mine[near], surface.normals[back])
    best = np.argmin(distances + 4.0 * (1.0 - agreement), axis=1)
    rows_back, cosine_back = near[np.arange(len(back)), best], agreement[np.arange(len(back)), best]
    rows = np.concatenate([forward, rows_back])
    goal_index = np.concatenate([index, back])
    cosines = np.concatenate([cosine, cosine_back])
    gaps = np.linalg.norm(surface.points[goal_index] - vertices[rows], axis=1)
    usable = (cosines > settings.normal_agreement) & (gaps < settings.reach_mm)
    return rows[usable], surface.points[goal_index[usable]], surface.normals[goal_index[usable]], cosines[usable]


def _normal_matrix(local: NDArray, normals: NDArray, weights: NDArray, tangential: float) -> NDArray[np.float64]:
    """(3R, 3R) matrix of sum w (B (x) I)^T (tangential I + (1 - tangential) n n^T) (B (x) I), index r * 3 + axis."""
    rank = local.shape[1]
    directed = (local[:, :, None] * normals[:, None, :]).reshape(len(local), 3 * rank)
    directed *= np.sqrt(weights * (1.0 - tangential))[:, None]
    matrix = directed.T @ directed
    plain = (local * (tangential * weights)[:, None]).T @ local
    for axis in range(3):
        matrix[axis::3, axis::3] += plain
    return matrix
