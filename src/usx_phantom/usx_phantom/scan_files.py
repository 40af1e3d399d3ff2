"""Label maps and CT scans from files: headers checked, axes put in the order of the patient's (LPS)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.optimize import linear_sum_assignment

from usx_common.errors import UsxError
from usx_common.volumes import FILE_KINDS, Volume, VolumeGrid, read_volume
from usx_phantom.nifti_header import check_header

MOST_VOXELS = 600_000_000
SPACINGS = (0.05, 12.0)  # mm


class BadScan(UsxError):
    """A scan or label map that cannot be placed in the patient, or is no scan at all."""


def read_scan(path: Path) -> Volume:
    """Volume of a NIfTI, NRRD or MetaImage file with axes in LPS order (permuted and flipped, never resampled).

    The file's own affine is believed, left-handed ones included. Raises BadScan or UsxError naming the file when it
    is missing, unreadable, not 3D, too large for memory, or when its header has no axes, two that disagree, or units
    other than millimetres.
    """
    path = Path(path)
    if path.is_file() and path.name.lower().endswith(FILE_KINDS):
        if path.name.lower().endswith((".nii", ".nii.gz")):
            check_header(path)
        _check_size(path)
    volume = read_volume(path)
    spacing = volume.grid.spacing
    if not np.isfinite(volume.grid.index_to_world).all():
        raise BadScan(f"{path} has an origin, spacing or direction that is not finite")
    if not (SPACINGS[0] <= spacing.min() and spacing.max() <= SPACINGS[1]):
        raise BadScan(f"{path} has voxels of {' x '.join(f'{v:.3g}' for v in spacing)}; in mm they would be "
                      f"{SPACINGS[0]:g} to {SPACINGS[1]:g}: convert it to mm")
    return in_patient_order(volume)


def in_patient_order(volume: Volume) -> Volume:
    """The same voxels at the same places with axes 0, 1, 2 nearest to left, posterior and cranial."""
    grid = volume.grid
    rows, columns = linear_sum_assignment(-np.abs(grid.direction))
    order = columns[np.argsort(rows)]
    values = volume.values.transpose([2 - order[2], 2 - order[1], 2 - order[0]])
    direction, spacing = grid.direction[:, order], grid.spacing[order]
    size = np.array(grid.size)[order]
    origin = grid.origin.copy()
    for axis in range(3):
        if direction[axis, axis] < 0.0:
            origin = origin + direction[:, axis] * spacing[axis] * (size[axis] - 1)
            direction = direction.copy()
            direction[:, axis] *= -1.0
            values = np.flip(values, 2 - axis)
    return Volume(np.ascontiguousarray(values), VolumeGrid(origin, spacing, tuple(size.tolist()), direction))


def _check_size(path: Path) -> None:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise BadScan(f"{path} cannot be read: {str(error).splitlines()[-1]}") from error
    size = reader.GetSize()
    if float(np.prod(np.array(size, float))) > MOST_VOXELS:
        raise BadScan(f"{path} has {' x '.join(map(str, size))} voxels, more than {MOST_VOXELS:,}: crop or coarsen it")
