"""The template mesh of the shape model: one topology for all levels, watertight, evenly coarse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_completion.shape_statistics import upright
from usx_completion.simulated_partial import posterior_wall


def decimate(mesh: Mesh, faces: int) -> Mesh:
    """The mesh with at most ``faces`` faces by quadric decimation (Garland and Heckbert, SIGGRAPH 1997); needs open3d.

    Raises UsxError when the result is not watertight.
    """
    import open3d  # only the building of a model needs it

    full = open3d.geometry.TriangleMesh(open3d.utility.Vector3dVector(mesh.vertices),
                                        open3d.utility.Vector3iVector(mesh.faces))
    small = full.simplify_quadric_decimation(faces)
    small.remove_unreferenced_vertices()
    result = Mesh(np.asarray(small.vertices), np.asarray(small.triangles))
    if not result.is_watertight:
        raise UsxError(f"decimation to {faces} faces opened the mesh; try another number of faces")
    return result


def body_of(mesh: Mesh) -> NDArray[np.bool_]:
    """(V,) mask of the vertices of the vertebral body: in front of the vertebral canal. Axes LPS, mm."""
    return posterior_wall(mesh).behind(mesh.vertices) <= 0.5


def make_template(sample: Mesh, faces: int) -> tuple[Mesh, NDArray[np.bool_]]:
    """Template in its own frame (body centroid at the origin, endplates level, axes LPS) and its body mask (V,)."""
    small = decimate(sample, faces)
    body = body_of(small)
    level = small.transformed(upright(small.vertices, body))
    return level, body_of(level)
