"""Triangle meshes in millimetres and their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from usx_common.errors import UsxError

READABLE = (".ply", ".stl", ".obj", ".off")


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: ``vertices`` (V, 3) float64 in mm, ``faces`` (F, 3) int32, counter-clockwise from outside."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", np.ascontiguousarray(self.vertices, dtype=np.float64))
        object.__setattr__(self, "faces", np.ascontiguousarray(self.faces, dtype=np.int32))

    def transformed(self, a_to_b: NDArray[np.float64]) -> Mesh:
        """The mesh in another frame; faces are turned over when the transform mirrors."""
        vertices = self.vertices @ a_to_b[:3, :3].T + a_to_b[:3, 3]
        mirrored = np.linalg.det(a_to_b[:3, :3]) < 0
        return Mesh(vertices, self.faces[:, ::-1] if mirrored else self.faces)

    @property
    def is_watertight(self) -> bool:
        """Whether every edge is shared by exactly two faces with opposite directions."""
        return bool(_as_trimesh(self).is_watertight)


def read_mesh(path: str | Path) -> Mesh:
    """Mesh of a PLY, STL, OBJ or OFF file, in the file's units and axes.

    Vertices at the same place are merged (an STL repeats them for every face). Raises UsxError naming the file when
    it is missing, unreadable, empty, without faces, or holds numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise UsxError(f"mesh file {path} does not exist")
    if path.suffix.lower() not in READABLE:
        raise UsxError(f"mesh file {path} is of an unknown kind; readable are {', '.join(READABLE)}")
    try:
        loaded = trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # the readers raise whatever the bytes lead them to
        raise UsxError(f"mesh file {path} cannot be read: {error}") from error
    if not isinstance(loaded, trimesh.Trimesh) or len(loaded.vertices) == 0 or len(loaded.faces) == 0:
        raise UsxError(f"mesh file {path} has no faces")
    if not np.isfinite(loaded.vertices).all():
        raise UsxError(f"mesh file {path} has vertices that are not finite numbers")
    if loaded.faces.min() < 0 or loaded.faces.max() >= len(loaded.vertices):
        raise UsxError(f"mesh file {path} has faces that name vertices it does not hold")
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    return Mesh(np.asarray(loaded.vertices), np.asarray(loaded.faces))


def write_mesh(path: str | Path, mesh: Mesh, comment: str = "") -> None:
    """Write a binary PLY (with ``comment`` in its header, one line) or STL file. Raises UsxError for other kinds."""
    path = Path(path)
    if path.suffix.lower() == ".stl":
        path.write_bytes(trimesh.exchange.stl.export_stl(_as_trimesh(mesh)))
        return
    if path.suffix.lower() != ".ply":
        raise UsxError(f"mesh file {path} is of an unknown kind; writable are .ply and .stl")
    if "\n" in comment:
        raise UsxError("the comment of a PLY file is one line")
    data = trimesh.exchange.ply.export_ply(_as_trimesh(mesh), vertex_normal=False)
    head, marker, rest = data.partition(b"\nelement vertex")
    note = f"\ncomment {comment}".encode() if comment else b""
    path.write_bytes(head + note + marker + rest)


def sample_surface(mesh: Mesh, count: int, seed: int) -> NDArray[np.float64]:
    """(count, 3) points spread uniformly by area over the mesh, mm; the same seed gives the same points.

    Raises UsxError for a mesh without area.
    """
    corners = mesh.vertices[mesh.faces]
    areas = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    total = areas.sum()
    if not total > 0:
        raise UsxError("the mesh has no area to sample")
    random = np.random.default_rng(seed)
    face = np.searchsorted(np.cumsum(areas), random.random(count) * total, side="right").clip(max=len(areas) - 1)
    u, v = np.sqrt(random.random(count)), random.random(count)
    weights = np.stack([1 - u, u * (1 - v), u * v], axis=1)
    return np.einsum("nk,nkd->nd", weights, corners[face])


def volume(mesh: Mesh) -> float:
    """Signed volume in mm3 by the divergence theorem; negative when the faces look inwards."""
    corners = mesh.vertices[mesh.faces]
    return float(np.einsum("ni,ni->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0)


def vertex_normals(mesh: Mesh) -> NDArray[np.float64]:
    """(V, 3) area-weighted unit normals, outward for outward faces; zero for a vertex without faces."""
    corners = mesh.vertices[mesh.faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    corner_of = mesh.faces.T.ravel()
    normals = np.column_stack([np.bincount(corner_of, np.tile(axis, 3), len(mesh.vertices)) for axis in face_normals.T])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)


def _as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
