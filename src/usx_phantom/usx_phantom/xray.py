"""Lateral cone-beam radiograph of a scene: point source, flat detector, Beer-Lambert, blur, scatter, quantum noise.

Frame `xray`: origin at the source, x along detector columns, y along rows, z towards the detector (principal ray).
The principal ray meets the detector at its middle; the isocentre lies `source_to_isocentre` from the source, at the
middle of the label map. Bone is integrated by ray marching through the density volume, soft tissue and gas by the
lengths of their chords.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from usx_common.transforms import apply, invert, make_transform, rotate, rotation_about_axis
from usx_common.volumes import Volume

from usx_phantom.density import BadScene, Ellipsoid, Material, Trunk, XrayScene, bone_excess, gas_pockets, label_bounds
from usx_phantom.ultrasound_settings import BadSettings

MU_WATER = 0.0205  # per mm, about 65 keV: the mean of a 90 kV beam behind its filter (NIST XCOM)
STEP = 0.5  # mm of the ray march
COARSE = 8  # the trunk's chord is computed at every eighth pixel


@dataclass(frozen=True)
class XraySettings:
    """Set-up of the device. Lengths in mm, angles in degrees.

    `detector_side` is the side of the patient that the detector is on ("left": a left lateral view).
    `primary_angle` and `secondary_angle` turn the view away from the true lateral, about the patient's long axis and
    about the sagittal axis. `photons` reach an open pixel; `scatter` is the share of scattered to primary radiation.
    """

    source_to_detector: float = 1100.0
    source_to_isocentre: float = 750.0
    columns: int = 1024
    rows: int = 1280
    spacing: float = 0.3
    detector_side: str = "left"
    primary_angle: float = 0.0
    secondary_angle: float = 0.0
    photons: float = 1.5e6
    scatter: float = 0.8
    blur: float = 0.7  # pixels, one sd
    bits_stored: int = 14
    photometric: str = "MONOCHROME2"
    intent: str = "PRESENTATION"
    gas: int = 7
    material: Material = field(default_factory=Material)

    def __post_init__(self) -> None:
        _within("source_to_detector", self.source_to_detector, 200.0, 5000.0)
        _within("source_to_isocentre", self.source_to_isocentre, 100.0, self.source_to_detector - 1.0)
        _within("columns", self.columns, 16, 8192)
        _within("rows", self.rows, 16, 8192)
        _within("spacing", self.spacing, 0.02, 5.0)
        _within("primary_angle", self.primary_angle, -45.0, 45.0)
        _within("secondary_angle", self.secondary_angle, -45.0, 45.0)
        _within("photons", self.photons, 10.0, 1e12)
        _within("scatter", self.scatter, 0.0, 20.0)
        _within("blur", self.blur, 0.0, 20.0)
        _within("bits_stored", self.bits_stored, 8, 16)
        _within("gas", self.gas, 0, 100)
        for name, value, known in (("detector_side", self.detector_side, ("left", "right")),
                                   ("photometric", self.photometric, ("MONOCHROME1", "MONOCHROME2")),
                                   ("intent", self.intent, ("PRESENTATION", "PROCESSING"))):
            if value not in known:
                raise BadSettings(f"{name} = {value!r}: must be {known[0]!r} or {known[1]!r}")


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

    Raises BadScene for an empty label map, one that lies beyond source or detector, or one whose centre is seen by no
    pixel.
    """
    settings = settings or XraySettings()
    material = settings.material
    xray_to_cbct = place(scene.labelmap, settings)
    source = xray_to_cbct[:3, 3]
    _check_between(scene.labelmap, xray_to_cbct, settings)
    bone = bone_excess(scene.labelmap, material, seed)
    bone_path = integrate(bone, xray_to_cbct, settings) / 1000.0
    pockets = gas_pockets(scene.labelmap, seed, settings.gas)
    trunk = trunk_chord(scene.skin, xray_to_cbct, settings)
    water_path = trunk * (1.0 + material.soft / 1000.0) + bone_path
    if pockets:
        gas = _gas_chord(pockets, source, xray_to_cbct, settings)
        water_path += np.minimum(gas, trunk) * (material.gas - material.soft) / 1000.0
    pixels = expose(MU_WATER * np.maximum(water_path, 0.0), settings, seed)
    return Radiograph(pixels, xray_to_cbct, settings, int(seed))


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


def integrate(volume: Volume, xray_to_cbct: NDArray[np.float64], settings: XraySettings) -> NDArray[np.float64]:
    """(rows, columns) integral of a volume's values along the ray to each pixel, value x mm (trilinear, 0 outside)."""
    source = apply(invert(volume.grid.index_to_world), xray_to_cbct[:3, 3])
    corner, along, down = _detector(xray_to_cbct, settings)
    result = np.zeros((settings.rows, settings.columns))
    _march(volume.values, source, xray_to_cbct[:3, 3], corner, along, down, 1.0 / volume.grid.spacing, STEP, result)
    return result


def trunk_chord(skin: Trunk, xray_to_cbct: NDArray[np.float64], settings: XraySettings) -> NDArray[np.float64]:
    """(rows, columns) mm of the rays within the trunk, from every eighth pixel and steps of 2 mm."""
    corner, along, down = _detector(xray_to_cbct, settings)
    rows = np.arange(0, settings.rows + COARSE, COARSE)
    columns = np.arange(0, settings.columns + COARSE, COARSE)
    source = xray_to_cbct[:3, 3]
    chord = np.zeros((len(rows), len(columns)))
    reach = np.arange(1.0, settings.source_to_detector, 2.0)
    for i, row in enumerate(rows):
        directions = corner + columns[:, None] * along + row * down - source
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        points = source + reach[None, :, None] * directions[:, None, :]
        chord[i] = 2.0 * skin.inside(points.reshape(-1, 3)).reshape(points.shape[:2]).sum(axis=1)
    position = np.mgrid[: settings.rows, : settings.columns].astype(np.float64) / COARSE
    return ndimage.map_coordinates(ndimage.gaussian_filter(chord, 0.6), position, order=1, mode="nearest")


def expose(attenuation: NDArray[np.float64], settings: XraySettings, seed: int) -> NDArray[np.uint16]:
    """Stored pixels of a map of line integrals mu x length: scatter, detector blur, quantum noise, grey scale."""
    random = np.random.default_rng([int(seed), 21])
    primary = settings.photons * np.exp(-attenuation)
    scattered = settings.scatter * ndimage.gaussian_filter(primary, 25.0 / settings.spacing, truncate=2.0)
    expected = ndimage.gaussian_filter(primary + scattered, settings.blur) if settings.blur > 0 else primary + scattered
    counts = random.poisson(np.minimum(expected, 1e15)).astype(np.float64) + random.normal(0.0, 3.0, expected.shape)
    top = (1 << settings.bits_stored) - 1
    if settings.intent == "PROCESSING":
        grey = counts / (settings.photons * (1.0 + settings.scatter)) * top
        return np.clip(np.rint(grey), 0, top).astype(np.uint16)
    density = -np.log(np.maximum(counts, 1.0) / settings.photons)
    grey = display(density, settings.spacing)
    stored = np.rint(grey * top)
    return (stored if settings.photometric == "MONOCHROME2" else top - stored).astype(np.uint16)


def display(density: NDArray[np.float64], spacing: float) -> NDArray[np.float64]:
    """Grey 0..1 (dense = bright) of optical densities: half of what varies over more than 3 cm is taken out, as the
    equalisation of a digital X-ray device does, then the 0.5 to 99.8 % range is spread."""
    coarse = ndimage.gaussian_filter(density, 30.0 / spacing, truncate=2.0)
    equalised = density - 0.5 * coarse
    low, high = np.percentile(equalised, [0.5, 99.8])
    return np.clip((equalised - low) / max(float(high - low), 1e-9), 0.0, 1.0)


def _gas_chord(pockets: tuple[Ellipsoid, ...], source: NDArray[np.float64], xray_to_cbct: NDArray[np.float64],
               settings: XraySettings) -> NDArray[np.float64]:
    corner, along, down = _detector(xray_to_cbct, settings)
    gas = np.zeros((settings.rows, settings.columns))
    for row in range(settings.rows):
        directions = corner + np.arange(settings.columns)[:, None] * along + row * down - source
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        for pocket in pockets:
            gas[row] += pocket.chord(source, directions)
    return gas


def _detector(xray_to_cbct: NDArray[np.float64],
              settings: XraySettings) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre of pixel (0, 0) and the steps of one column and one row, mm, frame `cbct`."""
    s = settings.spacing
    corner = np.array([-s * (settings.columns - 1) / 2.0, -s * (settings.rows - 1) / 2.0,
                       settings.source_to_detector])
    return (apply(xray_to_cbct, corner), rotate(xray_to_cbct, np.array([s, 0.0, 0.0])),
            rotate(xray_to_cbct, np.array([0.0, s, 0.0])))


def _check_between(labelmap: Volume, xray_to_cbct: NDArray[np.float64], settings: XraySettings) -> None:
    low, high = label_bounds(labelmap)
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
    depth = apply(invert(xray_to_cbct), corners)[:, 2]
    if depth.min() <= 0.0 or depth.max() >= settings.source_to_detector:
        raise BadScene(f"bone lies {depth.min():.0f} to {depth.max():.0f} mm from the source; it must fit between the "
                       f"source and the detector at {settings.source_to_detector:.0f} mm")


@numba.njit(cache=True, parallel=True)
def _march(values, start, source, corner, along, down, per_mm, step, result):  # type: ignore[no-untyped-def]
    """Sum of trilinear samples along each ray; `start` is the source in voxel units."""
    nz, ny, nx = values.shape
    last = np.array([nx - 1.0, ny - 1.0, nz - 1.0])
    for row in numba.prange(result.shape[0]):
        d = np.empty(3)
        for column in range(result.shape[1]):
            length = 0.0
            for a in range(3):
                d[a] = corner[a] + column * along[a] + row * down[a] - source[a]
                length += d[a] * d[a]
            length = np.sqrt(length)
            near, far = 0.0, length
            for a in range(3):
                d[a] *= per_mm[a] / length
                speed = d[a]
                if abs(speed) < 1e-12:
                    speed = 1e-12
                t0, t1 = -start[a] / speed, (last[a] - start[a]) / speed
                near, far = max(near, min(t0, t1)), min(far, max(t0, t1))
            total = 0.0
            for k in range(np.int64(np.ceil(near / step)), np.int64(np.floor(far / step)) + 1):
                x, y, z = start[0] + k * step * d[0], start[1] + k * step * d[1], start[2] + k * step * d[2]
                i, j, m = min(int(x), nx - 2), min(int(y), ny - 2), min(int(z), nz - 2)
                u, v, w = x - i, y - j, z - m
                lower = (1 - v) * ((1 - u) * values[m, j, i] + u * values[m, j, i + 1]) \
                    + v * ((1 - u) * values[m, j + 1, i] + u * values[m, j + 1, i + 1])
                upper = (1 - v) * ((1 - u) * values[m + 1, j, i] + u * values[m + 1, j, i + 1]) \
                    + v * ((1 - u) * values[m + 1, j + 1, i] + u * values[m + 1, j + 1, i + 1])
                total += (1 - w) * lower + w * upper
            result[row, column] = total * step


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (np.isfinite(value) and low <= value <= high):
        raise BadSettings(f"X-ray {name} = {value}: must be {low:g} to {high:g}")
