"""Density of a scene in Hounsfield units: bone with cortex and spongiosa from the label map, soft tissue, bowel gas.

Shared by the radiograph and the CBCT, so that both show the same patient. HU = 1000 (mu / mu_water - 1).
Values: cortical bone about 1000-1300 HU after partial volume, lumbar spongiosa 100-250 HU (Schreiber et al.,
"Hounsfield units for assessing bone mineral density and strength", JBJS 2011), muscle 50, fat -100, air -1000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from usx_common.errors import UsxError
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom.scatter import TEXTURE_SIZE, texture_lattice

BODY_CORE = 9.0  # mm below the surface, which only vertebral bodies reach
BODY_REACH = 6.0  # mm by which a body's corners lie further from that core than its faces
MARGIN = 3.0  # mm around the bones; the density is zero beyond
MOST_VOXELS = 400_000_000


class BadScene(UsxError):
    """A scene that cannot be imaged."""


class Trunk(Protocol):
    """What is asked of the skin: which points lie in the body, and the back's surface y(x, z)."""

    def height(self, x: NDArray, z: NDArray) -> NDArray:
        """y (mm) of the skin of the back above (x, z)."""

    def inside(self, points: NDArray) -> NDArray:
        """Which points (N, 3), mm, lie in the trunk."""


class XrayScene(Protocol):
    """What is asked of a scene: label map (0 = no bone) and skin, mm, frame `cbct` (LPS)."""

    @property
    def labelmap(self) -> Volume:
        """Labels on a grid, 0 = no bone."""

    @property
    def skin(self) -> Trunk:
        """The body's surface."""


@dataclass(frozen=True)
class Material:
    """HU of the tissues and mm of the cortical shell: `body_shell` on vertebral bodies, `shell` on all else, where
    the spongiosa is denser by `arch_excess`."""

    soft: float = 45.0
    fat: float = -95.0
    fat_thickness: float = 9.0
    gas: float = -960.0
    spongiosa: float = 160.0
    arch_excess: float = 140.0
    cortex: float = 1250.0
    shell: float = 1.0
    body_shell: float = 0.6
    texture: float = 70.0  # one sd of the spongiosa's pattern


@dataclass(frozen=True)
class Ellipsoid:
    """A pocket of gas: `centre` and half axes along LPS x, y, z, mm."""

    centre: tuple[float, float, float]
    half_axes: tuple[float, float, float]

    def inside(self, points: NDArray) -> NDArray:
        """Which points (N, 3) lie in it."""
        return (((points - np.array(self.centre)) / np.array(self.half_axes)) ** 2).sum(axis=-1) <= 1.0

    def chord(self, source: NDArray, directions: NDArray) -> NDArray:
        """Length in mm (N,) of the rays from `source` (3,) along unit `directions` (N, 3) inside it."""
        start = (source - np.array(self.centre)) / np.array(self.half_axes)
        along = directions / np.array(self.half_axes)
        a = (along**2).sum(axis=-1)
        b = along @ start
        root = b**2 - a * (start @ start - 1.0)
        return 2.0 * np.sqrt(np.maximum(root, 0.0)) / a


def bone_excess(labelmap: Volume, material: Material, seed: int) -> Volume:
    """HU above soft tissue, float32, on the label map's grid cropped to the bones; 0 outside bone.

    Within bone: a cortical shell, then spongiosa with a pattern of columns along the spine. Surfaces are smoothed
    below the voxel size. Raises BadScene for a map without labels, without finite geometry, or not axis aligned.
    """
    mask, grid = _crop(labelmap)
    half_voxel = 0.5 * float(grid.spacing.mean())
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(grid.spacing.tolist())
    depth = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, True, False, True))  # inside +, not squared, mm
    depth = depth + np.float32(half_voxel)  # it runs from the outermost voxel centres, the surface lies beyond
    depth = ndimage.gaussian_filter(depth, 0.7)
    share = np.clip(depth / (2.0 * half_voxel) + 0.5, 0.0, 1.0)
    arch = _arch_share(depth, grid)
    shell = material.body_shell + arch * np.float32(material.shell - material.body_shell)
    inner = np.clip((depth - shell) / 0.8 + 0.5, 0.0, 1.0)
    spongiosa = material.spongiosa + arch * np.float32(material.arch_excess)
    spongiosa += np.float32(material.texture) * _pattern(mask.shape, grid, seed)
    hounsfield = material.cortex + inner * (spongiosa - material.cortex)
    return Volume(np.ascontiguousarray(share * (hounsfield - material.soft), dtype=np.float32), grid)


def _arch_share(depth: NDArray[np.float32], grid: VolumeGrid) -> NDArray[np.float32]:
    """1 in posterior elements and other thin bone, 0 in vertebral bodies (z, y, x): far from what is deep inside."""
    core = depth > BODY_CORE
    if not core.any():
        return np.ones(depth.shape, np.float32)
    image = sitk.GetImageFromArray(core.astype(np.uint8))
    image.SetSpacing(grid.spacing.tolist())
    beyond = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, False, False, True))
    share: NDArray[np.float32] = np.clip((beyond - np.float32(BODY_CORE + BODY_REACH)) / np.float32(4.0), 0.0, 1.0)
    return share


def gas_pockets(labelmap: Volume, seed: int, count: int = 7) -> tuple[Ellipsoid, ...]:
    """Bowel gas in front of the spine: `count` ellipsoids, the same for the same seed and label map."""
    random = np.random.default_rng([seed, 11])
    low, high = label_bounds(labelmap)
    middle = (low + high) / 2.0
    pockets = []
    for _ in range(count):
        half_axes = random.uniform([9.0, 6.0, 7.0], [26.0, 13.0, 20.0])
        front = low[1] - 22.0 - half_axes[1] - random.uniform(0.0, 45.0)
        centre = (middle[0] + random.uniform(-75.0, 75.0), front, random.uniform(low[2] - 20.0, high[2] + 20.0))
        pockets.append(Ellipsoid(tuple(map(float, centre)), tuple(map(float, half_axes))))  # type: ignore[arg-type]
    return tuple(pockets)


def label_bounds(labelmap: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high corner (3,) mm of the voxel centres with a label. Raises BadScene as `bone_excess` does."""
    _, grid = _crop(labelmap, margin=0.0)
    return grid.origin, grid.origin + grid.spacing * (np.array(grid.size) - 1)


def check_axes(what: str, grid: VolumeGrid) -> None:
    """Raise BadScene unless the grid's axes are the patient's and its place is finite."""
    if not np.allclose(grid.direction, np.eye(3), atol=1e-6):
        raise BadScene(f"the axes of {what} are not those of the patient (LPS): resample it to direction identity")
    if not (np.isfinite(grid.origin).all() and np.isfinite(grid.spacing).all()):
        raise BadScene(f"origin {grid.origin} or spacing {grid.spacing} of {what} is not finite")


def check_upright(labelmap: Volume) -> None:
    """Raise BadScene unless the levels (labels 1..25 from the neck down) follow each other from head to feet.

    A transposed or flipped label map of several levels is caught; one of a single level cannot be.
    """
    values = np.asarray(labelmap.values)
    levels = [int(label) for label in np.unique(values) if 1 <= label <= 25]
    if len(levels) < 2:
        return
    first, last = (np.mean(np.nonzero(values == label), axis=1) for label in (levels[0], levels[-1]))
    upwards = (first - last)[::-1] * labelmap.grid.spacing
    if np.abs(upwards).argmax() != 2 or upwards[2] < 0:
        raise BadScene(f"label {levels[-1]} lies at {np.round(-upwards, 1).tolist()} mm (left, back, up) from label "
                       f"{levels[0]}, but it must lie below it: the label map is transposed or flipped")


def _crop(labelmap: Volume, margin: float = MARGIN) -> tuple[NDArray[np.bool_], VolumeGrid]:
    """The labelled part of a label map with a margin of empty voxels: mask (z, y, x) and its grid."""
    grid = labelmap.grid
    check_axes("the label map", grid)
    values = np.asarray(labelmap.values)
    if not np.isfinite(values).all():
        raise BadScene("the label map holds values that are not finite: labels are whole numbers, 0 is no bone")
    mask = values > 0
    if not mask.any():
        raise BadScene("the label map holds no label: there is no bone to image")
    pad = np.ceil(margin / grid.spacing).astype(int)[::-1]
    where = ndimage.find_objects(mask.astype(np.uint8))[0]
    low = np.array([part.start for part in where]) - pad
    size = np.array([part.stop for part in where]) + pad - low
    if size.prod() > MOST_VOXELS:
        raise BadScene(f"the label map spans {size[::-1].tolist()} voxels; coarsen it below {MOST_VOXELS} voxels")
    cropped = np.zeros(size, dtype=bool)
    inner = tuple(slice(p, n - p) for p, n in zip(pad, size, strict=True))
    cropped[inner] = mask[where]
    return cropped, VolumeGrid(grid.origin + low[::-1] * grid.spacing, grid.spacing, tuple(size[::-1].tolist()))


def _pattern(shape: tuple[int, ...], grid: VolumeGrid, seed: int) -> NDArray[np.float32]:
    """(z, y, x) random pattern of zero mean and unit sd, stretched along the spine, steps of 1.6 x 1.6 x 5 mm."""
    lattice = texture_lattice(seed)
    axes = [np.arange(n) * step / period for n, step, period in zip(shape, grid.spacing[::-1], (5.0, 1.6, 1.6),
                                                                    strict=True)]
    pattern = lattice
    for axis, position in enumerate(axes):
        whole = np.floor(position).astype(int)
        part = (position - whole).astype(np.float32)
        part = part.reshape([-1 if a == axis else 1 for a in range(3)])
        near = np.take(pattern, whole % TEXTURE_SIZE, axis=axis)
        pattern = near + part * (np.take(pattern, (whole + 1) % TEXTURE_SIZE, axis=axis) - near)
    return (pattern - pattern.mean()) / max(float(pattern.std()), 1e-6)
