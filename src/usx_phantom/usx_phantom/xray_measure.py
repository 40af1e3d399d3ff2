"""Measurements of simulated radiographs: where beads lie, line integrals, sharpness, noise, contrast."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from usx_common.transforms import apply, invert
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom import attenuation, dicom_xray, xray
from usx_phantom.density import XrayScene
from usx_phantom.detector import blur_by_scintillator
from usx_phantom.phantom_scene import body_centres
from usx_phantom.xray_exposure import count, expected_photons, expose, scattered
from usx_phantom.xray_paths import integrate
from usx_phantom.xray_settings import XraySettings

PATCH = 8.0  # mm at the detector, radius of what is measured
IN_FRONT = 36.0  # mm from a body's centre
BEADS = ((0.0, 0.0, 0.0), (25.0, -31.0, 40.0), (3.0, 27.0, -45.0), (-30.0, -25.0, -38.0), (20.0, 20.0, 50.0))


@dataclass(frozen=True)
class Block:
    """A trunk of 200 x 200 mm about the z axis."""

    def height(self, x: NDArray, z: NDArray) -> NDArray:
        """y (mm) of the back."""
        return np.full(np.broadcast(x, z).shape, 100.0)

    def inside(self, points: NDArray) -> NDArray:
        """Which points (N, 3) lie in it."""
        result: NDArray = (np.abs(points[:, :2]) <= 100.0).all(axis=1)
        return result


@dataclass(frozen=True)
class WaterTank:
    """A scene of water with something in it."""

    labelmap: Volume
    intensities: Volume
    skin: Block = field(default_factory=Block)


@dataclass(frozen=True)
class Contrast:
    """The middle of one vertebral body against soft tissue in front of it in a trunk as thick: `path` mm of water that
    it adds; share of the photons that it takes, without scatter and with; difference of the logarithms over the noise
    of a pixel."""

    level: str
    path: float
    primary: float
    total: float
    to_noise: float


def bead_error(seed: int, settings: XraySettings) -> float:
    """Largest distance in pixels (along rows or columns) between beads in the noise-free picture and the places that
    the DICOM file's distances, spacing and size give them."""
    settings = replace(settings, columns=640, rows=700, spacing=0.6, scatter=0.0, gas=0, mottle=0.0)
    beads, centres = _beads()
    path, pose = xray.line_integrals(beads, settings, seed)
    picture = -np.log(blur_by_scintillator(expected_photons(path, settings), settings) / settings.photons)
    dataset = dicom_xray.to_dataset(xray.Radiograph(expose(path, settings, seed), pose, settings, seed))
    expected = pixels_of(dataset, apply(invert(pose), centres))
    found = np.array([_centroid(picture, pixel) for pixel in expected])
    return float(np.abs(found - expected).max())


def pixels_of(dataset: Dataset, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) column and row of points (N, 3), mm, frame `xray`, from a DX file's attributes alone."""
    row, column = (float(value) for value in dataset.ImagerPixelSpacing)
    at_detector = points[:, :2] / points[:, 2:] * float(dataset.DistanceSourceToDetector)
    return at_detector / [column, row] + [(dataset.Columns - 1) / 2.0, (dataset.Rows - 1) / 2.0]


def sphere_error() -> float:
    """Largest difference in mm between integrals through a sphere of ones and its chords, of 22 to 44 mm."""
    spacing, radius = 0.8, 22.0
    axis = -28.0 + spacing * np.arange(71)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    ball = np.clip((radius - distance) / spacing + 0.5, 0.0, 1.0).astype(np.float32)
    pose = np.eye(4)
    pose[2, 3] = -750.0
    settings = XraySettings(columns=101, rows=101, spacing=1.2)
    found = integrate(Volume(ball, VolumeGrid(np.full(3, -28.0), np.full(3, spacing), (71, 71, 71))), pose, settings)
    u, v = np.meshgrid((np.arange(101) - 50) * 1.2, (np.arange(101) - 50) * 1.2)
    off = 750.0 * np.hypot(u, v) / np.sqrt(u**2 + v**2 + 1100.0**2)
    chord = 2.0 * np.sqrt(np.maximum(radius**2 - off**2, 0.0))
    return float(np.abs(found - chord)[chord > radius].max())


def noise_ratios(settings: XraySettings, seed: int) -> NDArray[np.float64]:
    """Variance over mean in even fields of decreasing brightness; equal where noise is that of counted photons."""
    ratios = []
    for number, level in enumerate((0.0, 2.0, 4.0, 6.0)):  # each with noise of its own
        counts = count(np.full((400, 400), level), replace(settings, scatter=0.0, collimator=None), 4 * seed + number)
        ratios.append((counts.var() - 9.0) / counts.mean())
    return np.array(ratios)


def edge_transfer(settings: XraySettings, cycles: float) -> float:
    """Modulation transfer at `cycles` per mm of the detector from an edge slanted by 3 degrees (IEC 62220-1): the
    edge's profile at a tenth of a pixel, differentiated, transformed."""
    rows, columns = np.mgrid[:256, :256].astype(float)
    distance = ((columns - 127.3) * np.cos(np.radians(3.0)) + (rows - 127.3) * np.sin(np.radians(3.0)))
    open_settings = replace(settings, scatter=0.0, collimator=None)
    edge = np.clip(distance + 0.5, 0.0, 1.0) + 1.0  # the part of a pixel beyond the edge
    path = -np.log(edge / 2.0)
    picture = blur_by_scintillator(expected_photons(path, open_settings), open_settings)
    inside = np.abs(distance) < 60.0
    bins = np.floor(distance[inside] * 10.0).astype(int)
    bins -= bins.min()
    profile = np.bincount(bins, picture[inside]) / np.maximum(np.bincount(bins), 1)
    spread = np.diff(profile)
    place = (np.arange(len(spread)) - len(spread) / 2.0) * settings.spacing / 10.0
    wave = np.exp(-2j * np.pi * cycles * place)
    # the edge was drawn with the pixel's own width, which the optics' function holds as well
    return float(abs((spread * wave).sum()) / abs(spread.sum()) / np.sinc(settings.spacing * cycles))


def contrasts(scene: XrayScene, settings: XraySettings, seed: int) -> list[Contrast]:
    """Contrast of each level of L1..L5 that the label map holds and the picture shows."""
    path, pose = xray.line_integrals(scene, settings, seed)
    made = xray.Radiograph(np.zeros(path.shape, np.uint16), pose, settings, seed)
    added = integrate(xray.dense_part(scene, settings, seed)[0], pose, settings)
    primary = settings.photons * np.exp(-path)
    scatter = scattered(primary, path, settings)
    density = -np.log(np.maximum(count(path, settings, seed), 1.0))
    fine = density - ndimage.gaussian_filter(density, 4.0)
    result = []
    for level, centre in body_centres(scene.labelmap).items():
        body, front = (_disc(path.shape, made.project((centre + shift)[None])[0], PATCH / settings.spacing)
                       for shift in (np.zeros(3), np.array([0.0, -IN_FRONT, 0.0])))
        if not (body.any() and front.any()):
            continue
        more = float(added[body].mean() - added[front].mean())
        bone, other = float(primary[body].mean()), float(scatter[body].mean())
        tissue = bone * np.exp(attenuation.water(settings.energy) * more)
        result.append(Contrast(level, more, 1.0 - bone / tissue, 1.0 - (bone + other) / (tissue + other),
                               np.log((tissue + other) / (bone + other)) / max(float(fine[body].std()), 1e-9)))
    return result


def _beads() -> tuple[WaterTank, NDArray[np.float64]]:
    """Single voxels of 3000 HU in tissue of 10 HU, and their centres (N, 3) mm."""
    spacing = np.array([1.0, 0.8, 1.3])
    size = np.rint(np.array([120.0, 100.0, 160.0]) / spacing).astype(int)
    grid = VolumeGrid(-spacing * (size - 1) / 2.0 + [3.1, -7.3, 11.7], spacing, tuple(size.tolist()))
    values, labels = np.full(size[::-1], 10.0, np.float32), np.zeros(size[::-1], np.uint8)
    places = np.rint((np.array(BEADS) - grid.origin) / spacing).astype(int)
    values[places[:, 2], places[:, 1], places[:, 0]] = 3000.0
    labels[places[:, 2], places[:, 1], places[:, 0]] = 22
    return WaterTank(Volume(labels, grid), Volume(values, grid)), grid.origin + places * spacing


def _centroid(shadow: NDArray[np.float64], near: NDArray[np.float64], reach: int = 8) -> NDArray[np.float64]:
    """(column, row) of what stands out near a pixel from a plane through the window's border."""
    column, row = np.rint(near).astype(int)
    part = shadow[row - reach:row + reach + 1, column - reach:column + reach + 1]
    rows, columns = np.indices(part.shape) - reach
    border = np.maximum(np.abs(rows), np.abs(columns)) == reach
    basis = np.stack([np.ones(part.shape), rows, columns], axis=-1)
    part = part - basis @ np.linalg.lstsq(basis[border], part[border], rcond=None)[0]
    part = np.where(part > 0.03 * part.max(), part, 0.0)
    result: NDArray[np.float64] = np.array([(part * columns).sum(), (part * rows).sum()]) / part.sum() + [column, row]
    return result


def _disc(shape: tuple[int, ...], centre: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    rows, columns = np.indices(shape)
    result: NDArray[np.bool_] = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 <= radius**2
    return result
