"""Label maps and CT scans from files: headers checked, axes put in the order of the patient's (LPS)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from usx_common.errors import UsxError
from usx_common.volumes import FILE_KINDS, Volume, VolumeGrid, read_volume
from usx_phantom.nifti_header import check_header

MOST_VOXELS = 200_000_000
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
    with memory_watched(path):
        volume = read_volume(path)
    spacing = volume.grid.spacing
    if not np.isfinite(volume.grid.index_to_world).all():
        raise BadScan(f"{path} has an origin, spacing or direction that is not finite")
    if not (SPACINGS[0] <= spacing.min() and spacing.max() <= SPACINGS[1]):
        raise BadScan(f"{path} has voxels of {' x '.join(f'{v:.3g}' for v in spacing)}; in mm they would be "
                      f"{SPACINGS[0]:g} to {SPACINGS[1]:g}: convert it to mm")
    with memory_watched(path):
        return in_patient_order(volume)


@contextmanager
def memory_watched(what: str | Path) -> Iterator[None]:
    """Within it, running out of memory becomes a BadScan that names `what` (SimpleITK tells it by a RuntimeError)."""
    try:
        yield
    except MemoryError as error:
        raise BadScan(f"{what} needs more memory than there is: crop it to the lumbar spine, or coarsen it") from error
    except RuntimeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise BadScan(f"{what} cannot be used: {reason}") from error


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


def cropped(volume: Volume, low: NDArray[np.float64], high: NDArray[np.float64]) -> Volume:
    """The part of a volume (a view of it) within the box `low`..`high` (3,) mm of its world; one voxel or more."""
    grid = volume.grid
    ends = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)
    index = (ends - grid.origin) @ np.linalg.inv(grid.direction * grid.spacing).T
    first = np.clip(np.floor(index.min(0)).astype(int), 0, np.array(grid.size) - 1)
    last = np.clip(np.ceil(index.max(0)).astype(int) + 1, first + 1, grid.size)
    part = volume.values[first[2]:last[2], first[1]:last[1], first[0]:last[0]]
    origin = grid.origin + grid.direction @ (first * grid.spacing)
    return Volume(part, VolumeGrid(origin, grid.spacing, tuple((last - first).tolist()), grid.direction))


def box_of(mask: NDArray[np.bool_], grid: VolumeGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners (3,) mm of the box along the world's axes that holds the centres of a mask's voxels (z, y, x).

    Raises BadScan for an empty mask.
    """
    where = ndimage.find_objects(mask.view(np.uint8))
    if not where:
        raise BadScan("none of the voxels is labelled as L1 to L5")
    ends = np.stack(np.meshgrid(*[(part.start, part.stop - 1.0) for part in where[0][::-1]], indexing="ij"), -1)
    corners = ends.reshape(-1, 3) @ (grid.direction * grid.spacing).T + grid.origin
    return corners.min(0), corners.max(0)


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
