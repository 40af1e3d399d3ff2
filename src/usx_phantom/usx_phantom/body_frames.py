"""Where the bodies of a spine are and how they stand, read off the meshes alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh

# The body takes up the front 40 % or so of a lumbar vertebra's depth; the front third holds nothing else.
FRONT_SHARE = 0.33
# End plates are about 0.72 times as deep as they are wide (34 by 47 mm at L3).
HALF_DEPTH_PER_WIDTH = 0.36
BACK_SHARE = 0.25


def body_frames(meshes: dict[str, Mesh]) -> dict[str, NDArray[np.float64]]:
    """vertebra -> patient (4, 4) mm of each level: origin in the middle of the body, x left, y posterior, z cranial.

    `meshes`: closed bones of two or more levels, one frame, roughly LPS (within 45 degrees), mm. z follows the line
    through the bodies, y points at the spinous process. Good to 5 mm and 12 degrees (L5): enough to bend a spine.
    """
    levels = [level for level in LEVELS if level in meshes]
    axes = {level: np.eye(3) for level in levels}
    centres = np.zeros((len(levels), 3))
    for _ in range(3):
        for i, level in enumerate(levels):
            centres[i] = _body_centre(meshes[level].vertices, axes[level])
        tangents = np.asarray(np.gradient(centres[::-1], axis=0))[::-1]
        for i, level in enumerate(levels):
            axes[level] = _axes(meshes[level].vertices, centres[i], tangents[i], axes[level])
    return {level: transforms.make_transform(axes[level], centres[i]) for i, level in enumerate(levels)}


def _body_centre(vertices: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    local = vertices @ axes
    front, depth = local[:, 1].min(), np.ptp(local[:, 1])
    body = local[local[:, 1] < front + FRONT_SHARE * depth]
    middle = 0.5 * (body.min(0) + body.max(0))
    middle[1] = front + HALF_DEPTH_PER_WIDTH * float(np.ptp(body[:, 0]))
    return axes @ middle


def _axes(vertices: NDArray[np.float64], centre: NDArray[np.float64], tangent: NDArray[np.float64],
          axes: NDArray[np.float64]) -> NDArray[np.float64]:
    local = vertices @ axes
    tail = vertices[local[:, 1] > local[:, 1].max() - BACK_SHARE * np.ptp(local[:, 1])]
    z = tangent / np.linalg.norm(tangent)
    y = tail.mean(0) - centre
    y -= z * (y @ z)
    y /= np.linalg.norm(y)
    return np.column_stack([np.cross(y, z), y, z])
