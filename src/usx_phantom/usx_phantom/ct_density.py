"""Density of a scene from its CT: real vertebrae and what lies near them, within a trunk that the CT does not show.

A CT of a spine is cut close. What it does not show whole (beyond its faces, in corners that a resampling filled with
one value, air that its faces cut through: lungs, bowel, what is behind the back) is soft tissue of the trunk. Between
the two the CT fades, but never within a labelled vertebra, so that no edge of the CT shows in an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_common.volumes import Volume, VolumeGrid
from usx_phantom.ct_scan import FAT, SOFT_TISSUE
from usx_phantom.density import BadScene, Ellipsoid, Material, Trunk, XrayScene, check_axes, label_bounds

FADE = 14.0  # mm from the CT's faces
FADE_AT_AIR = 4.0  # mm from air that was cut, which has a surface of its own
REACH = 50.0  # mm around the labels that are taken from the CT
MOST_CT_VOXELS = 80_000_000  # some 40 bytes each are needed
AIR = -1000.0
CUT_AIR = -250.0  # HU below which voxels connected to a face are air that was cut
SOFT = (-150.0, 150.0)  # HU of soft tissue
DENSEST = 3071.0  # HU, the most that a CT stores


@dataclass(frozen=True)
class CtPart:
    """`hounsfield` (z, y, x) float32: the CT faded into the trunk; `trunk` (z, y, x) float32: the trunk alone, HU;
    both on `grid` (LPS, mm); `soft`: HU of the CT's soft tissue, of which the trunk is made."""

    hounsfield: NDArray[np.float32]
    trunk: NDArray[np.float32]
    grid: VolumeGrid
    soft: float


def intensities_of(scene: XrayScene) -> Volume | None:
    """The scene's CT (HU, frame `cbct`), where it has one."""
    volume: Volume | None = getattr(scene, "intensities", None)
    return volume


def ct_part(scene: XrayScene, material: Material, fat: bool = False) -> CtPart | None:
    """The part of a scene that its CT shows; None for a scene without CT. `fat`: the trunk has a layer of fat.

    Raises BadScene for a CT that holds NaN, is not axis aligned, is not in Hounsfield units, or whose bone does not
    lie where the label map says.
    """
    intensities = intensities_of(scene)
    if intensities is None:
        return None
    check_axes("the CT", intensities.grid)
    volume = _crop(intensities, *label_bounds(scene.labelmap))
    values = np.clip(volume.values.astype(np.float32), AIR, DENSEST)
    labels = _labels_on(scene.labelmap, volume.grid)
    trunk = trunk_hounsfield(scene.skin, volume.grid, material, fat)
    outside = (trunk == np.float32(AIR)) & ~labels
    filled = _filled_in(volume.values, {0.0, min(float(volume.values.min()), CUT_AIR), SOFT_TISSUE})
    air = _cut_air(volume.values) | _filled_in(volume.values, {FAT})
    soft = _check_values(values, labels, outside | filled | air)
    trunk[trunk == np.float32(material.soft)] = soft
    weight = _weight(labels, filled, air, volume.grid.spacing[::-1])
    weight[outside] = 0.0  # what a CT holds behind the skin (air filled with tissue, a table) is not of the body
    return CtPart(trunk + weight * (values - trunk), trunk, volume.grid, soft)


def trunk_hounsfield(skin: Trunk, grid: VolumeGrid, material: Material, fat: bool) -> NDArray[np.float32]:
    """(z, y, x) HU of a trunk without organs on an axis-aligned grid: soft tissue, fat below the back's skin, air."""
    nx, ny, nz = grid.size
    x = grid.origin[0] + np.arange(nx) * grid.spacing[0]
    y = grid.origin[1] + np.arange(ny) * grid.spacing[1]
    hounsfield = np.empty((nz, ny, nx), dtype=np.float32)
    plane = np.stack([*np.meshgrid(x, y), np.zeros((ny, nx))], axis=-1).reshape(-1, 3)
    for k in range(nz):
        plane[:, 2] = grid.origin[2] + k * grid.spacing[2]
        values = np.full(len(plane), material.soft)
        if fat:
            depth = skin.height(plane[:, 0], plane[:, 2]) - plane[:, 1]
            values[depth < material.fat_thickness] = material.fat
        values[~skin.inside(plane)] = AIR
        hounsfield[k] = values.reshape(ny, nx)
    return hounsfield


def beside(pockets: tuple[Ellipsoid, ...], grid: VolumeGrid) -> tuple[Ellipsoid, ...]:
    """The gas pockets that do not reach into the box of a grid: a CT shows gas of its own."""
    high = grid.origin + grid.spacing * (np.array(grid.size) - 1)
    kept = []
    for pocket in pockets:
        centre, half_axes = np.array(pocket.centre), np.array(pocket.half_axes)
        if (centre + half_axes < grid.origin).any() or (centre - half_axes > high).any():
            kept.append(pocket)
    return tuple(kept)


def _crop(volume: Volume, low: NDArray[np.float64], high: NDArray[np.float64]) -> Volume:
    """The part of a volume within REACH of the box `low`..`high` mm."""
    grid = volume.grid
    size = np.array(grid.size)
    first = np.clip(np.floor((low - REACH - grid.origin) / grid.spacing).astype(int), 0, size)
    last = np.clip(np.ceil((high + REACH - grid.origin) / grid.spacing).astype(int) + 1, 0, size)
    if (last - first < 2).any():
        raise BadScene(f"the CT ({_box(grid)}) does not reach the labels, which lie at {np.round(low, 1).tolist()} to "
                       f"{np.round(high, 1).tolist()} mm: both must be in one frame")
    if (last - first).prod() > MOST_CT_VOXELS:
        raise BadScene(f"the CT spans {(last - first).tolist()} voxels; resample it to at most {MOST_CT_VOXELS}")
    part = volume.values[first[2]:last[2], first[1]:last[1], first[0]:last[0]]
    if not np.isfinite(part).all():
        raise BadScene(f"the CT holds {int((~np.isfinite(part)).sum())} voxels that are not finite: fill what was not "
                       "scanned with one value, such as -1024 HU")
    return Volume(part, VolumeGrid(grid.origin + first * grid.spacing, grid.spacing, tuple((last - first).tolist())))


def _box(grid: VolumeGrid) -> str:
    high = grid.origin + grid.spacing * (np.array(grid.size) - 1)
    return f"{np.round(grid.origin, 1).tolist()} to {np.round(high, 1).tolist()} mm"


def _labels_on(labelmap: Volume, grid: VolumeGrid) -> NDArray[np.bool_]:
    """Where the voxels (z, y, x) of another axis-aligned grid are labelled: the nearest label."""
    index = [np.rint((grid.origin[a] + grid.spacing[a] * np.arange(grid.size[a]) - labelmap.grid.origin[a])
                     / labelmap.grid.spacing[a]).astype(int) for a in range(3)]
    valid = [(i >= 0) & (i < n) for i, n in zip(index, labelmap.grid.size, strict=True)]
    inside = [i.clip(0, n - 1) for i, n in zip(index, labelmap.grid.size, strict=True)]
    labelled = np.asarray(labelmap.values)[np.ix_(inside[2], inside[1], inside[0])] > 0
    result: NDArray[np.bool_] = labelled & valid[2][:, None, None] & valid[1][:, None] & valid[0]
    return result


def _check_values(values: NDArray[np.float32], labels: NDArray[np.bool_], unknown: NDArray[np.bool_]) -> float:
    """HU of the CT's soft tissue (median) where it is not `unknown`. Raises BadScene for values that are no HU, or bone
    that is elsewhere."""
    if not labels.any():
        raise BadScene("none of the label map's voxels lies within the CT: both must be in one frame")
    soft = values[(values > SOFT[0]) & (values < SOFT[1]) & ~labels & ~unknown]
    count = max(values.size - int(unknown.sum()), 1)
    if soft.size < 0.05 * count:
        raise BadScene(f"{soft.size / count:.1%} of the CT's voxels are soft tissue of {SOFT[0]:g} to {SOFT[1]:g}"
                       " HU: its values are no Hounsfield units (apply rescale slope and intercept)")
    middle, bone = float(np.median(soft)), float(np.median(values[labels]))
    if bone < middle + 50.0:
        raise BadScene(f"the labelled voxels have {bone:.0f} HU in the CT, soft tissue {middle:.0f} HU: the labels lie "
                       "on no bone; CT and label map are transposed, shifted, or of different patients")
    return middle


def _weight(labels: NDArray[np.bool_], filled: NDArray[np.bool_], air: NDArray[np.bool_],
            spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """Share (z, y, x) of the CT in each voxel: 0 where it shows nothing, 1 within, 1 in labels."""
    blurred = ndimage.gaussian_filter(air.astype(np.float32), 2.0 / spacing) > 0.1  # 2 mm of its surface's blur
    share = np.minimum(_from_faces(labels.shape, spacing), _beyond(filled, spacing, FADE))
    share = np.minimum(share, _beyond(blurred, spacing, FADE_AT_AIR))
    near = np.clip(4.0 * ndimage.gaussian_filter(labels.astype(np.float32), 1.5 / spacing), 0.0, 1.0)
    near[filled | air] = 0.0
    weight: NDArray[np.float32] = np.maximum(share, near).astype(np.float32)
    return weight


def _filled_in(values: NDArray, fills: set[float]) -> NDArray[np.bool_]:
    """Voxels (z, y, x) outside of what was scanned: connected to a face, all of one value of `fills`."""
    filled = np.zeros(values.shape, bool)
    for value in sorted(fills):
        same, count = ndimage.label(values == value)
        if not count:
            continue
        faces = np.concatenate([same[[0, -1]].ravel(), same[:, [0, -1]].ravel(), same[:, :, [0, -1]].ravel()])
        sizes = np.bincount(same.ravel(), minlength=count + 1)
        wanted = [k for k in np.unique(faces) if k and sizes[k] >= max(1e-4 * values.size, 8)]
        filled |= np.isin(same, wanted)
    return filled


def _cut_air(values: NDArray) -> NDArray[np.bool_]:
    """Voxels (z, y, x) of air that reaches a face."""
    parts, count = ndimage.label(values < CUT_AIR)
    touching = np.unique(np.concatenate([parts[[0, -1]].ravel(), parts[:, [0, -1]].ravel(),
                                         parts[:, :, [0, -1]].ravel()]))
    wanted = np.zeros(count + 1, bool)
    wanted[touching] = True
    wanted[0] = False
    result: NDArray[np.bool_] = wanted[parts]
    return result


def _from_faces(shape: tuple[int, ...], spacing: NDArray) -> NDArray[np.float32]:
    """Share (z, y, x) that rises smoothly from the faces of a grid to FADE mm within."""
    share = np.ones(shape, np.float32)
    for axis, (count, step) in enumerate(zip(shape, spacing, strict=True)):
        index = np.arange(count)
        depth = (np.minimum(index, count - 1 - index) * step).reshape([-1 if a == axis else 1 for a in range(3)])
        share = np.minimum(share, _rise(depth, FADE))
    return share


def _beyond(unknown: NDArray[np.bool_], spacing: NDArray, length: float) -> NDArray[np.float32]:
    """Share (z, y, x) that rises smoothly from 0 in `unknown` to 1 at `length` mm from it."""
    share = np.ones(unknown.shape, np.float32)
    found = ndimage.find_objects(unknown.astype(np.uint8))
    if not found:
        return share
    margin = np.ceil(length / spacing).astype(int)
    near = tuple(slice(max(part.start - more, 0), part.stop + more)
                 for part, more in zip(found[0], margin, strict=True))
    share[near] = _rise(ndimage.distance_transform_edt(~unknown[near], sampling=spacing), length)
    return share


def _rise(depth: NDArray, length: float) -> NDArray[np.float32]:
    """0 at no depth, 1 from `length` on, level at both ends."""
    share = np.clip(depth / length, 0.0, 1.0).astype(np.float32)
    result: NDArray[np.float32] = share * share * (np.float32(3.0) - np.float32(2.0) * share)
    return result
