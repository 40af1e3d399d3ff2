"""Cone-beam CT of a scene: a volume of Hounsfield units, and its files as a DICOM CT series.

The grid's axes are those of the patient (LPS); z runs from feet to head. The reconstructed field is a cylinder about
the middle of the label map; outside it there is the fill value, air, as devices write it. Bone comes from the scene's
CT where it has one and from the label map otherwise. The image is made without projections: noise, cupping and the
brightening of truncated projections (Ohnesorge et al., Med. Phys. 27, 39, 2000) are added to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from scipy import ndimage

from usx_common.transforms import apply, invert
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom.checks import check_range, check_whole
from usx_phantom.ct_density import beside, ct_part, intensities_of, trunk_hounsfield
from usx_phantom.density import (
    BadScene,
    Ellipsoid,
    Material,
    XrayScene,
    bone_excess,
    check_upright,
    gas_pockets,
    label_bounds,
)
from usx_phantom.dicom_common import CannotWrite, decimal, digest, make_uid, new_dataset, save, set_pixels

AIR = -1000.0
LOWEST, HIGHEST = -1024, 3071  # the 12 bits of a CT
INTERCEPT = -1024
MOST_VOXELS = 200_000_000


@dataclass(frozen=True)
class CbctSettings:
    """Grid and quality: `spacing` mm (isotropic), `diameter` of the reconstructed cylinder mm, `margin` mm above and
    below the labels, `blur` mm (one sd of the point spread), `noise` HU (one sd in the middle), `cupping` HU that are
    missing in the middle, `truncation` HU that are too many at the cylinder's rim where the body reaches beyond it,
    falling to 1/e over `truncation_depth` mm."""

    spacing: float = 1.0
    diameter: float = 240.0
    margin: float = 12.0
    blur: float = 0.5
    noise: float = 38.0
    cupping: float = 30.0
    truncation: float = 60.0
    truncation_depth: float = 7.0
    material: Material = field(default_factory=Material)

    def __post_init__(self) -> None:
        for name, low, high in (("spacing", 0.1, 10.0), ("diameter", 20.0, 600.0), ("margin", 0.0, 300.0),
                                ("blur", 0.0, 5.0), ("noise", 0.0, 500.0), ("cupping", 0.0, 500.0),
                                ("truncation", 0.0, 1000.0), ("truncation_depth", 0.5, 100.0)):
            check_range(f"CBCT {name}", getattr(self, name), low, high)


def simulate(scene: XrayScene, settings: CbctSettings | None = None, seed: int = 0) -> Volume:
    """Volume of HU (int16) of a scene. The same scene, settings and seed give the same voxels.

    Raises BadScene for an empty, transposed or broken label map or CT and for a grid of more than 200 million voxels,
    BadSettings for a bad seed.
    """
    settings, seed = settings or CbctSettings(), check_whole("CBCT seed", seed)
    check_upright(scene.labelmap)
    grid = plan_grid(scene.labelmap, settings)
    if (ct := intensities_of(scene)) is not None:
        grid = onto_voxels(grid, ct.grid)
    hounsfield = _body(scene, grid, settings, seed)
    if settings.blur > 0:
        ndimage.gaussian_filter(hounsfield, settings.blur / settings.spacing, output=hounsfield)
    if settings.truncation > 0:
        _brighten_rim(hounsfield, grid, settings)
    radius = _distance_from_axis(grid) / (settings.diameter / 2.0)
    hounsfield -= (settings.cupping * (1.0 - np.minimum(radius, 1.0) ** 2)).astype(np.float32)
    hounsfield += _noise(hounsfield.shape, settings, seed) * (1.15 - 0.35 * np.minimum(radius, 1.0)).astype(np.float32)
    hounsfield[:, radius > 1.0] = AIR
    return Volume(np.clip(np.rint(hounsfield), LOWEST, HIGHEST).astype(np.int16), grid)


def plan_grid(labelmap: Volume, settings: CbctSettings) -> VolumeGrid:
    """Grid around the middle of the labels. Raises BadScene when it would be too large."""
    low, high = label_bounds(labelmap)
    extent = np.array([settings.diameter, settings.diameter, high[2] - low[2] + 2.0 * settings.margin])
    size = np.maximum(np.rint(extent / settings.spacing).astype(int), 2)
    if size.prod() > MOST_VOXELS:
        raise BadScene(f"a CBCT of {size.tolist()} voxels is too large; at most {MOST_VOXELS}: use a larger spacing")
    origin = (low + high) / 2.0 - (size - 1) / 2.0 * settings.spacing
    return VolumeGrid(origin, np.full(3, settings.spacing), tuple(size.tolist()))


def onto_voxels(grid: VolumeGrid, ct: VolumeGrid) -> VolumeGrid:
    """`grid` moved by half a voxel of the CT at most, so that its first voxel lies on one of the CT's.

    At the CT's own spacing nothing is interpolated then; linear interpolation blurs thin bone, and a CT has been
    resampled once already.
    """
    return replace(grid, origin=ct.origin + np.rint((grid.origin - ct.origin) / ct.spacing) * ct.spacing)


def _body(scene: XrayScene, grid: VolumeGrid, settings: CbctSettings, seed: int) -> NDArray[np.float32]:
    """(z, y, x) HU of trunk, gas and bone, or of the scene's CT within the trunk."""
    part = ct_part(scene, settings.material, fat=True)
    pockets = gas_pockets(scene.labelmap, seed)
    material = settings.material
    if part is not None:
        material, pockets = replace(material, soft=part.soft), beside(pockets, part.grid)
    hounsfield = trunk_hounsfield(scene.skin, grid, material, fat=True)
    _add_gas(hounsfield, grid, pockets, material)
    if part is not None:
        _add(hounsfield, grid, Volume(part.hounsfield - part.trunk, part.grid))
    else:
        _add(hounsfield, grid, bone_excess(scene.labelmap, material, seed))
    return hounsfield


def _add_gas(hounsfield: NDArray[np.float32], grid: VolumeGrid, pockets: tuple[Ellipsoid, ...],
             material: Material) -> None:
    """Put gas into the body, in place."""
    x, y, z = (grid.origin[a] + np.arange(grid.size[a]) * grid.spacing[a] for a in range(3))
    for pocket in pockets:
        for k in np.flatnonzero(np.abs(z - pocket.centre[2]) <= pocket.half_axes[2]):
            plane = np.stack([*np.meshgrid(x, y), np.full((len(y), len(x)), z[k])], axis=-1)
            where = pocket.inside(plane) & (hounsfield[k] > AIR)
            hounsfield[k][where] = material.gas


def _brighten_rim(hounsfield: NDArray[np.float32], grid: VolumeGrid, settings: CbctSettings) -> None:
    """Add what truncated projections leave at the rim, in place: only where there is body at the rim."""
    radius, distance = settings.diameter / 2.0, _distance_from_axis(grid)
    outwards = 0.97 * radius / np.maximum(distance, grid.spacing[0])
    row, column = (np.clip(np.rint(m + (i - m) * outwards), 0, n - 1).astype(int) for i, m, n in zip(
        np.indices(distance.shape), (np.array(distance.shape) - 1) / 2.0, distance.shape, strict=True))
    rise = settings.truncation * np.exp((np.minimum(distance, radius) - radius) / settings.truncation_depth)
    for plane in hounsfield:
        plane += np.where(plane[row, column] > 0.5 * AIR, rise, 0.0).astype(np.float32)


def write_series(volume: Volume, folder: str | Path, seed: int = 0) -> list[Path]:
    """Write HU (z, y, x) as one DICOM CT file per slice; returns the files, feet first. Same input, same bytes.

    Raises CannotWrite when the volume holds values outside a CT's range, its axes are not right-handed and
    orthonormal, or a file cannot be written.
    """
    values = np.asarray(volume.values)
    if not np.isfinite(values).all() or values.min() < LOWEST or values.max() > HIGHEST:
        raise CannotWrite(f"the CBCT holds values outside {LOWEST}..{HIGHEST} HU or that are not finite")
    direction = volume.grid.direction
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-6) or np.linalg.det(direction) < 0:
        raise CannotWrite(f"the CBCT's axes {direction.tolist()} are not orthonormal and right-handed")
    content = digest(values, volume.grid.index_to_world)
    paths = []
    for k in range(values.shape[0]):
        path = Path(folder) / f"ct_{k + 1:04d}.dcm"
        save(_slice(volume, k, content, seed), path)
        paths.append(path)
    return paths


def _slice(volume: Volume, k: int, content: str, seed: int) -> Dataset:
    """Data set of slice `k`."""
    grid = volume.grid
    dataset = new_dataset(CTImageStorage, make_uid("ct", content, seed, k), seed)
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = make_uid("ct series", content, seed)
    dataset.FrameOfReferenceUID = make_uid("frame of reference", seed)
    dataset.PositionReferenceIndicator = ""
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 1, 1, k + 1
    dataset.SeriesDescription = "Simulated cone-beam CT of the lumbar spine"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientPosition = "HFP"
    dataset.KVP = "110"
    dataset.SliceThickness = decimal(grid.spacing[2])
    dataset.SpacingBetweenSlices = decimal(grid.spacing[2])
    dataset.PixelSpacing = [decimal(grid.spacing[1]), decimal(grid.spacing[0])]
    corner = grid.origin + k * grid.spacing[2] * grid.direction[:, 2]
    dataset.ImagePositionPatient = [decimal(number) for number in corner]
    dataset.ImageOrientationPatient = [decimal(number) for number in grid.direction[:, :2].T.reshape(-1)]
    dataset.SliceLocation = decimal(float(corner @ grid.direction[:, 2]))
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(INTERCEPT), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "300", "1500"
    set_pixels(dataset, (np.rint(volume.values[k]).astype(np.int32) - INTERCEPT).astype(np.uint16), 12)
    return dataset


def _add(hounsfield: NDArray[np.float32], grid: VolumeGrid, bone: Volume) -> None:
    """Add the HU of bone or CT above the trunk's, averaged over each voxel's height and width, in place."""
    ratio = grid.spacing / bone.grid.spacing
    values = bone.values
    if (ratio > 1.0).any():  # coarser voxels average what lies in them
        values = ndimage.gaussian_filter(values, np.maximum(ratio[::-1] - 1.0, 0.0) * 0.3)
    start = apply(invert(bone.grid.index_to_world), grid.origin)
    for k in range(hounsfield.shape[0]):
        z = start[2] + k * ratio[2]
        if not -1.0 < z < bone.grid.size[2]:
            continue
        hounsfield[k] += ndimage.affine_transform(
            _between(values, z), ratio[1::-1], offset=start[1::-1], output_shape=hounsfield.shape[1:], order=1)


def _between(values: NDArray[np.float32], z: float) -> NDArray[np.float32]:
    """Plane at a fractional slice, zero beyond the ends."""
    lower = int(np.floor(z))
    part = z - lower
    planes = [values[i] if 0 <= i < values.shape[0] else np.zeros_like(values[0]) for i in (lower, lower + 1)]
    return (1.0 - part) * planes[0] + part * planes[1]


def _distance_from_axis(grid: VolumeGrid) -> NDArray[np.float64]:
    """(y, x) mm from the grid's middle."""
    x = (np.arange(grid.size[0]) - (grid.size[0] - 1) / 2.0) * grid.spacing[0]
    y = (np.arange(grid.size[1]) - (grid.size[1] - 1) / 2.0) * grid.spacing[1]
    return np.hypot(x[None, :], y[:, None])


def _noise(shape: tuple[int, ...], settings: CbctSettings, seed: int) -> NDArray[np.float32]:
    """Noise of `settings.noise` HU, one sd, correlated between neighbours as the reconstruction filter leaves it."""
    white = np.random.default_rng([int(seed), 31]).standard_normal(shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, 0.6)
    return smooth * np.float32(settings.noise / max(float(smooth.std()), 1e-6))
