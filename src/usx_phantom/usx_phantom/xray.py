"""Lateral cone-beam radiograph of a scene: point source, flat detector, Beer-Lambert, blur, scatter, quantum noise.

Frame `xray`: origin at the source, x along detector columns, y along rows, z towards the detector (principal ray).
The principal ray meets the detector at its middle; the isocentre lies `source_to_isocentre` from the source, at the
middle of the label map. Bone, from the scene's CT where it has one and from the label map otherwise, is integrated by
ray marching; soft tissue and gas beyond it by the lengths of their chords.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usx_common.transforms import apply, invert, make_transform, rotation_about_axis
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom import attenuation
from usx_phantom.checks import check_whole
from usx_phantom.ct_density import beside, ct_part
from usx_phantom.density import BadScene, XrayScene, bone_excess, check_upright, gas_pockets, label_bounds
from usx_phantom.xray_exposure import expose
from usx_phantom.xray_paths import gas_chord, integrate, mottle, trunk_chord
from usx_phantom.xray_settings import XraySettings

__all__ = ["Radiograph", "XraySettings", "camera_matrix", "line_integrals", "place", "simulate_lateral"]


@dataclass(frozen=True)
class Radiograph:
    """A radiograph: `pixels` (rows, columns) uint16 as stored, `xray_to_cbct` (4, 4) rigid mm of the optical frame,
    the settings that it was made with, and the seed of its noise."""

    pixels: NDArray[np.uint16]
    xray_to_cbct: NDArray[np.float64]
    settings: XraySettings
    seed: int

    @property
    def camera_matrix(self) -> NDArray[np.float64]:
        """K (3, 3) in pixels; (column, row, 1) ~ K p for p in frame `xray`; pixel centres at whole numbers."""
        return camera_matrix(self.settings)

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) column and row of points (N, 3), mm, frame `cbct`."""
        homogeneous = apply(invert(self.xray_to_cbct), points) @ self.camera_matrix.T
        return homogeneous[:, :2] / homogeneous[:, 2:]

    @property
    def patient_orientation(self) -> tuple[str, str]:
        """DICOM letters of the directions in which columns (along a row) and rows (downwards) run."""
        return letter(self.xray_to_cbct[:3, 0]), letter(self.xray_to_cbct[:3, 1])


def simulate_lateral(scene: XrayScene, settings: XraySettings | None = None, seed: int = 0) -> Radiograph:
    """Lateral radiograph of a scene. The same scene, settings and seed give the same pixels.

    Raises BadScene for an empty label map or one that reaches beyond source or detector, BadSettings for a bad seed.
    """
    settings, seed = settings or XraySettings(), check_whole("X-ray seed", seed)
    path, xray_to_cbct = line_integrals(scene, settings, seed)
    return Radiograph(expose(path, settings, seed), xray_to_cbct, settings, seed)


def line_integrals(scene: XrayScene, settings: XraySettings, seed: int) -> tuple[NDArray[np.float64],
                                                                                NDArray[np.float64]]:
    """(rows, columns) integral of the attenuation along the ray to each pixel's centre, and xray_to_cbct (4, 4).

    The picture without blur, scatter and noise is exp(-integral). Raises BadScene as `simulate_lateral` does.
    """
    material, energy = settings.material, settings.energy
    check_upright(scene.labelmap)
    xray_to_cbct = place(scene.labelmap, settings)
    _check_between(scene.labelmap, xray_to_cbct, settings)
    dense, soft, grid = dense_part(scene, settings, seed)
    pockets = gas_pockets(scene.labelmap, seed, settings.gas)
    pockets = pockets if grid is None else beside(pockets, grid)
    trunk = trunk_chord(scene.skin, xray_to_cbct, settings)
    uneven = mottle(settings, seed) if settings.mottle > 0 else 1.0
    around, gas = attenuation.relative(np.array([soft, material.gas]), energy)
    water_path = trunk * float(around) * uneven + integrate(dense, xray_to_cbct, settings)
    if pockets:
        water_path += np.minimum(gas_chord(pockets, xray_to_cbct, settings), trunk) * float(gas - around)
    return attenuation.water(energy) * np.maximum(water_path, 0.0), xray_to_cbct


def dense_part(scene: XrayScene, settings: XraySettings, seed: int) -> tuple[Volume, float, VolumeGrid | None]:
    """What adds to the trunk, as multiples of water's attenuation; the trunk's HU; the grid of the CT, if any."""
    part = ct_part(scene, settings.material)
    if part is not None:
        more = attenuation.relative(part.hounsfield, settings.energy) - attenuation.relative(part.trunk,
                                                                                             settings.energy)
        return Volume(np.ascontiguousarray(more), part.grid), part.soft, part.grid
    soft = settings.material.soft
    bone = bone_excess(scene.labelmap, settings.material, seed)
    more = attenuation.relative(bone.values + np.float32(soft), settings.energy)
    return Volume(more - attenuation.relative(np.array(soft), settings.energy), bone.grid), soft, None


def place(labelmap: Volume, settings: XraySettings) -> NDArray[np.float64]:
    """xray_to_cbct (4, 4): view through the middle of the label map, detector rows running towards the feet."""
    low, high = label_bounds(labelmap)
    side = 1.0 if settings.detector_side == "left" else -1.0
    z_axis, y_axis = np.array([side, 0.0, 0.0]), np.array([0.0, 0.0, -1.0])
    turn = rotation_about_axis([0.0, 0.0, 1.0], np.radians(settings.primary_angle))
    tilt = rotation_about_axis([0.0, 1.0, 0.0], np.radians(settings.secondary_angle))
    axes = turn @ tilt @ np.stack([np.cross(y_axis, z_axis), y_axis, z_axis], axis=1)
    return make_transform(axes, (low + high) / 2.0 - settings.source_to_isocentre * axes[:, 2])


def camera_matrix(settings: XraySettings) -> NDArray[np.float64]:
    """K (3, 3) of a detector whose middle is met by the principal ray."""
    f = settings.source_to_detector / settings.spacing
    return np.array([[f, 0.0, (settings.columns - 1) / 2.0], [0.0, f, (settings.rows - 1) / 2.0], [0.0, 0.0, 1.0]])


def letter(direction: NDArray[np.float64]) -> str:
    """DICOM PatientOrientation letter of the LPS axis nearest to `direction`."""
    axis = int(np.abs(direction).argmax())
    return ("LPH" if direction[axis] > 0 else "RAF")[axis]


def _check_between(labelmap: Volume, xray_to_cbct: NDArray[np.float64], settings: XraySettings) -> None:
    low, high = label_bounds(labelmap)
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
    depth = apply(invert(xray_to_cbct), corners)[:, 2]
    if depth.min() <= 0.0 or depth.max() >= settings.source_to_detector:
        raise BadScene(f"bone lies {depth.min():.0f} to {depth.max():.0f} mm from the source; it must fit between the "
                       f"source and the detector at {settings.source_to_detector:.0f} mm")
