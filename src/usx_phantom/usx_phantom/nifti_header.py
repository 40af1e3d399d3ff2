"""The part of a NIfTI-1 header that says where the voxels lie (nifti1.h), checked.

Readers of images choose between the header's two affines in silence; here they must agree.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from usx_common.errors import UsxError

SIZE = 348
LARGEST_DISAGREEMENT = 1.0  # mm
UNITS = {1: "metres", 3: "micrometres"}


class BadHeader(UsxError):
    """A header that leaves the place of the voxels open."""


@dataclass(frozen=True)
class NiftiHeader:
    """`size` (3,) voxels; `units` 0 unknown, 1 m, 2 mm, 3 um; `qform`, `sform` (4, 4) voxel -> RAS or None."""

    size: tuple[int, int, int]
    units: int
    qform: NDArray[np.float64] | None
    sform: NDArray[np.float64] | None


def read_header(path: Path) -> NiftiHeader:
    """Header of a .nii or .nii.gz file of version 1. Raises BadHeader naming the file when it is none."""
    try:
        with (gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")) as file:
            data = file.read(SIZE)
    except (OSError, EOFError, zlib.error) as error:
        raise BadHeader(f"{path} cannot be read: {error}") from error
    order = next((order for order in "<>" if len(data) == SIZE and struct.unpack_from(f"{order}i", data)[0] == SIZE),
                 None)
    if order is None:
        raise BadHeader(f"{path} is no NIfTI-1 file: its header does not begin as one")

    def numbers(kind: str, offset: int) -> tuple[float, ...]:
        return struct.unpack_from(order + kind, data, offset)

    size = numbers("3h", 42)
    has_qform, has_sform = (code > 0 for code in numbers("2h", 252))
    qform = _quaternion_affine(numbers("4f", 76), numbers("6f", 256)) if has_qform else None
    sform = np.vstack([np.array(numbers("12f", 280)).reshape(3, 4), [0.0, 0.0, 0.0, 1.0]]) if has_sform else None
    return NiftiHeader((int(size[0]), int(size[1]), int(size[2])), data[123] & 7, qform, sform)


def check_header(path: Path) -> None:
    """Raise BadHeader naming `path` for units that are not mm, for no affine, and for two that differ by > 1 mm."""
    header = read_header(path)
    if header.units in UNITS:
        raise BadHeader(f"{path} is in {UNITS[header.units]}: convert it to millimetres")
    if header.qform is None and header.sform is None:
        raise BadHeader(f"{path} says nothing about its axes (qform and sform codes are 0): set an affine")
    if header.qform is not None and header.sform is not None:
        off = _corner_distance(header.qform, header.sform, header.size)
        if not off <= LARGEST_DISAGREEMENT:
            raise BadHeader(f"{path} has two affines (qform and sform) that differ by {off:.3g} mm: keep the right one")


def _quaternion_affine(pixdim: tuple[float, ...], numbers: tuple[float, ...]) -> NDArray[np.float64]:
    """Affine of qfac and spacing (4 numbers) and quaternion b, c, d with offset (6 numbers)."""
    b, c, d = numbers[:3]
    a = np.sqrt(max(1.0 - b * b - c * c - d * d, 0.0))
    spacing = np.array(pixdim[1:]) * (1.0, 1.0, -1.0 if pixdim[0] < 0.0 else 1.0)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_quat([b, c, d, a]).as_matrix() * spacing
    affine[:3, 3] = numbers[3:]
    return affine


def _corner_distance(a: NDArray[np.float64], b: NDArray[np.float64], size: tuple[int, int, int]) -> float:
    corners = np.stack(np.meshgrid(*[(0.0, n - 1.0) for n in size], indexing="ij"), -1).reshape(-1, 3)
    corners = np.column_stack([corners, np.ones(len(corners))])
    return float(np.linalg.norm(corners @ (a - b).T, axis=1).max())
