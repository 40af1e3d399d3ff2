"""Bone surfaces of a label map, for whatever casts rays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_common.errors import UsxError
from usx_common.levels import LEVELS, label_of_level
from usx_common.meshes import Mesh
from usx_common.transforms import apply
from usx_common.volumes import Volume
from usx_phantom.marching_cubes import iso_surface

SMOOTHING = 0.7  # mm, one standard deviation: takes the steps of the voxels away, moves a flat surface by nothing


def label_surfaces(labelmap: Volume, smoothing: float = SMOOTHING) -> dict[str, Mesh]:
    """Closed meshes with outward normals, mm, frame of the volume, of the levels with labels 20..24 that are there.

    A voxel map has steps that no bone has: the mask is blurred by `smoothing` mm before its surface is taken at one
    half (marching cubes). Raises UsxError where no level is labelled, or where the smoothing leaves nothing of one.
    """
    values, grid = labelmap.values, labelmap.grid
    if not 0.0 <= smoothing <= 5.0:
        raise UsxError(f"smoothing of {smoothing} mm: must be 0 to 5")
    first, last = label_of_level(LEVELS[0]), label_of_level(LEVELS[-1])
    ours = (values >= first) & (values <= last)  # other labels, other bones, may be any number
    boxes = ndimage.find_objects(np.where(ours, values, 0).astype(np.uint8))
    meshes = {}
    for level in LEVELS:
        label = label_of_level(level)
        if label > len(boxes) or boxes[label - 1] is None:
            continue
        sigma = smoothing / grid.spacing[::-1]
        field, low = _field(values, label, boxes[label - 1], sigma)
        try:
            mesh = iso_surface(field.transpose(2, 1, 0), low, 1.0)
        except UsxError as error:
            raise UsxError(f"label {label} ({level}) has no surface after smoothing by {smoothing} mm") from error
        faces = mesh.faces if np.linalg.det(grid.direction) > 0.0 else mesh.faces[:, ::-1]
        meshes[level] = Mesh(apply(grid.index_to_world, mesh.vertices), faces)
    if not meshes:
        raise UsxError(f"the label map has none of the labels {label_of_level('L1')} to {label_of_level('L5')}: "
                       "there is no bone to look at")
    return meshes


def _field(values: NDArray, label: int, box: tuple[slice, ...], sigma: NDArray) -> tuple[NDArray, NDArray]:
    """Half minus the blurred mask (z, y, x), padded so that it is positive all around, and its corner (x, y, z)."""
    pad = int(np.ceil(3.0 * sigma.max())) + 2
    mask = np.pad((np.asarray(values[box]) == label).astype(np.float32), pad)
    low = np.array([part.start - pad for part in box[::-1]], dtype=float)
    return 0.5 - ndimage.gaussian_filter(mask, sigma), low
