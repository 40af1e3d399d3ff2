"""The vertebral body as a lateral X-ray shows it: in front of the canal, without the processes at its sides.

One definition for all (`ShapeModel.xray_bodies`): spines drawn from a shape model share it by correspondence, meshes
of other origin get it from the mean vertebra of their level that is bent onto them. A rule that looks for the canal in
every mesh would cut each kind of spine at another place, and 3 mm more at L1 with 2 mm less at L5 look like an X-ray
that is turned by 2 degrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.correspondence import Surface, Template, gaussian_process_icp, similarity_icp
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model

NORMAL_MM = 4.0  # what a normal that points elsewhere is worth: the wall of the canal has bone on one side only


def body_masks(meshes: Mapping[str, Mesh]) -> dict[str, NDArray[np.bool_]]:
    """Level -> (V,) mask of the body in a mesh of any topology, mm, axes LPS; about half a second each."""
    return {level: _transferred(LEVELS.index(level), mesh) for level, mesh in meshes.items()}


def _transferred(index: int, mesh: Mesh) -> NDArray[np.bool_]:
    """That of the nearest vertex, normals considered, of the mean vertebra after it was bent onto the mesh."""
    template, body = _usual()[index]
    surface = Surface(mesh)
    bent = gaussian_process_icp(template, surface, similarity_icp(template, surface))
    directed = np.hstack([bent, NORMAL_MM * vertex_normals(Mesh(bent, template.mesh.faces))])
    _, nearest = cKDTree(directed).query(np.hstack([surface.points, NORMAL_MM * surface.normals]))
    return body[nearest]


@lru_cache(maxsize=1)
def _usual() -> list[tuple[Template, NDArray[np.bool_]]]:
    """Mean vertebra and body of each level of the packaged model of real people."""
    model, _ = load_shape_model(PACKAGED_REAL)
    return [(Template(Mesh(mean, model.faces)), body)
            for mean, body in zip(model.means, model.xray_bodies, strict=True)]
