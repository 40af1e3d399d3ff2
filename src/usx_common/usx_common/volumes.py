"""Regular 3D images and their files (NRRD, NIfTI, MetaImage), in DICOM's LPS millimetres."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from usx_common.errors import UsxError

FILE_KINDS = (".nrrd", ".nii.gz", ".nii", ".mha", ".mhd")


@dataclass(frozen=True)
class VolumeGrid:
    """Where the voxels of a volume lie: centre of voxel (0, 0, 0), spacing and size along x, y, z, axes as columns."""

    origin: NDArray[np.float64]
    spacing: NDArray[np.float64]
    size: tuple[int, int, int]
    direction: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", np.asarray(self.origin, dtype=np.float64))
        object.__setattr__(self, "spacing", np.asarray(self.spacing, dtype=np.float64))
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        object.__setattr__(self, "direction", np.asarray(self.direction, dtype=np.float64).reshape(3, 3))
        if not (self.spacing > 0).all():
            raise UsxError(f"voxel spacing {self.spacing.tolist()} mm must be positive")
        if min(self.size) < 1:
            raise UsxError(f"volume size {self.size} must be one voxel or more along each axis")

    @property
    def index_to_world(self) -> NDArray[np.float64]:
        """(4, 4) matrix from voxel index (x, y, z) to mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * self.spacing
        matrix[:3, 3] = self.origin
        return matrix


@dataclass(frozen=True)
class Volume:
    """Voxel values (size z, size y, size x) on a grid."""

    values: NDArray
    grid: VolumeGrid

    def __post_init__(self) -> None:
        if self.values.shape != self.grid.size[::-1]:
            raise UsxError(f"values of shape {self.values.shape} (z, y, x) do not fit a grid of size {self.grid.size}")


def read_volume(path: str | Path) -> Volume:
    """Volume of a file of one of FILE_KINDS. Raises UsxError naming the file when it is missing or unreadable."""
    path = Path(path)
    _check_kind(path)
    if not path.is_file():
        raise UsxError(f"volume file {path} does not exist")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise UsxError(f"volume file {path} cannot be read: {str(error).splitlines()[-1]}") from error
    if image.GetDimension() != 3:
        raise UsxError(f"volume file {path} has {image.GetDimension()} dimensions; 3 are needed")
    grid = VolumeGrid(np.array(image.GetOrigin()), np.array(image.GetSpacing()), image.GetSize(),
                      np.array(image.GetDirection()))
    return Volume(sitk.GetArrayFromImage(image), grid)


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write a compressed file of one of FILE_KINDS. Raises UsxError naming the file when that fails."""
    path = Path(path)
    _check_kind(path)
    image = sitk.GetImageFromArray(volume.values)
    image.SetOrigin(volume.grid.origin.tolist())
    image.SetSpacing(volume.grid.spacing.tolist())
    image.SetDirection(volume.grid.direction.reshape(-1).tolist())
    try:
        sitk.WriteImage(image, str(path), True)
    except RuntimeError as error:
        raise UsxError(f"volume file {path} cannot be written: {str(error).splitlines()[-1]}") from error


def _check_kind(path: Path) -> None:
    if not path.name.lower().endswith(FILE_KINDS):
        raise UsxError(f"volume file {path} is of an unknown kind; known are {', '.join(FILE_KINDS)}")
