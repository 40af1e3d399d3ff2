"""The radiograph against closed forms and an independent reader: attenuation, beads, slab and sphere, sharpness,
scatter, noise."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_common.transforms import apply, invert
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom import attenuation, dicom_xray, xray
from usx_phantom.detector import blur_by_optics, blur_by_scintillator, noise_share, optics_mtf, scintillator_mtf
from usx_phantom.xray_exposure import collimation, count, expected_photons, expose, scattered
from usx_phantom.xray_paths import integrate
from usx_phantom.xray_settings import XraySettings
from usx_xray.xray_image import read_xray

SMALL = XraySettings(columns=256, rows=320, spacing=1.2, gas=0, mottle=0.0)


class Block:
    """A trunk of 200 x 200 mm about the z axis; its back is at y = 100."""

    def height(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast(x, z).shape, 100.0)

    def inside(self, points: np.ndarray) -> np.ndarray:
        return (np.abs(points[:, :2]) <= 100.0).all(axis=1)


@dataclass
class Patient:
    labelmap: Volume
    intensities: Volume | None = None
    skin: Block = field(default_factory=Block)


def beaded_ct(beads: np.ndarray, spacing: tuple[float, float, float] = (1.0, 0.8, 1.3)) -> Patient:
    """Water with single voxels of 3000 HU at the voxel centres nearest to `beads` (N, 3), which are labelled."""
    size = np.rint(np.array([120.0, 100.0, 160.0]) / spacing).astype(int)
    grid = VolumeGrid(-np.array(spacing) * (size - 1) / 2.0 + [3.1, -7.3, 11.7], np.array(spacing), tuple(size))
    values, labels = np.full(size[::-1], 10.0, np.float32), np.zeros(size[::-1], np.uint8)
    for x, y, z in np.rint((beads - grid.origin) / grid.spacing).astype(int):
        values[z, y, x], labels[z, y, x] = 3000.0, 22
    return Patient(Volume(labels, grid), Volume(values, grid))


def at_centres(patient: Patient) -> np.ndarray:
    z, y, x = np.nonzero(patient.labelmap.values)
    grid = patient.labelmap.grid
    return np.stack([x, y, z], axis=1) * grid.spacing + grid.origin


def centroid(shadow: np.ndarray, near: np.ndarray, reach: int = 8) -> np.ndarray:
    """(column, row) of what stands out near a pixel from a plane through the window's border."""
    column, row = np.rint(near).astype(int)
    part = shadow[row - reach:row + reach + 1, column - reach:column + reach + 1]
    rows, columns = np.indices(part.shape) - reach
    border = np.maximum(np.abs(rows), np.abs(columns)) == reach
    basis = np.stack([np.ones(part.shape), rows, columns], axis=-1)
    part = part - basis @ np.linalg.lstsq(basis[border], part[border], rcond=None)[0]
    part = np.where(part > 0.03 * part.max(), part, 0.0)
    return np.array([(part * columns).sum(), (part * rows).sum()]) / part.sum() + [column, row]


BEADS = np.array([[0.0, 0.0, 0.0], [25.0, -31.0, 40.0], [3.0, 27.0, -45.0], [-30.0, -25.0, -38.0], [20.0, 20.0, 50.0]])


@pytest.mark.parametrize("change", [
    {}, {"detector_side": "right"}, {"primary_angle": 7.0, "secondary_angle": -4.0},
    {"rows": 601, "columns": 431, "spacing": 0.8}, {"source_to_detector": 1500.0, "source_to_isocentre": 900.0}])
def test_beads_lie_where_the_file_says_that_they_do(change: dict, tmp_path: Path) -> None:
    """Noise-free picture of beads, blur included, against the geometry that the X-ray reader finds in the file."""
    settings = replace(SMALL, **{"spacing": 0.7, "columns": 500, "rows": 580, "scatter": 0.0, **change})
    patient = beaded_ct(BEADS)
    path, pose = xray.line_integrals(patient, settings, 1)
    radiograph = xray.Radiograph(expose(path, settings, 1), pose, settings, 1)
    picture = -np.log(blur_by_scintillator(expected_photons(path, settings), settings) / settings.photons)
    dicom_xray.write(radiograph, tmp_path / "x.dcm")
    geometry = read_xray(tmp_path / "x.dcm").geometry
    expected = geometry.points_to_pixels(apply(invert(pose), at_centres(patient)))
    found = np.array([centroid(picture, pixel) for pixel in expected])
    print(f"largest error {np.abs(found - expected).max():.3f} pixels")
    assert np.abs(found - expected).max() < 0.1
    np.testing.assert_allclose(radiograph.project(at_centres(patient)), expected, atol=1e-6)


@pytest.mark.parametrize("change", [{"primary_angle": 9.0, "secondary_angle": 6.0},
                                    {"primary_angle": -12.0, "secondary_angle": 3.0, "detector_side": "right"}])
def test_the_angles_in_the_file_are_those_of_the_beam(change: dict) -> None:
    """DICOM PS3.3 C.8.7.5.1.2: from the front (0) to the left (+90), then towards the head."""
    settings = replace(SMALL, **change)
    pose = xray.place(beaded_ct(BEADS).labelmap, settings)
    made = xray.Radiograph(np.zeros((settings.rows, settings.columns), np.uint16), pose, settings, 0)
    dataset = dicom_xray.to_dataset(made)
    around, up = np.radians([float(dataset.PositionerPrimaryAngle), float(dataset.PositionerSecondaryAngle)])
    beam = [np.sin(around) * np.cos(up), -np.cos(around) * np.cos(up), np.sin(up)]
    np.testing.assert_allclose(pose[:3, 2], beam, atol=1e-9)


def test_a_slab_attenuates_by_its_thickness_and_hounsfield_units() -> None:
    """Bone block of 40 mm within water of 200 mm, at 60 keV with the coefficients of the tables."""
    patient = beaded_ct(BEADS)
    x, y, z = (patient.intensities.grid.origin[a] + patient.intensities.grid.spacing[a]
               * np.arange(patient.intensities.grid.size[a]) for a in range(3))
    where = (np.abs(z) < 20.1)[:, None, None] & (np.abs(y) < 20.1)[:, None] & (np.abs(x - 3.1) < 20.01)
    patient.intensities.values[:] = 10.0
    patient.intensities.values[where] = 800.0
    patient.labelmap.values[:] = where * 22
    path, pose = xray.line_integrals(patient, SMALL, 0)
    middle, beside = apply(invert(pose), np.array([[3.1, 0.0, 0.0], [3.1, 45.0, 0.0]]))[:, :2] / 750.0
    column, row = np.rint(middle * 1100.0 / 1.2 + [127.5, 159.5]).astype(int)
    water = 0.02059
    bone = 1.92 * 0.03148 / water  # of water
    at_ct = 1.92 * (0.2229 * (0.3148 / 0.2229) ** (np.log(80 / 75) / np.log(80 / 60))) / (
        0.1837 * (0.2059 / 0.1837) ** (np.log(80 / 75) / np.log(80 / 60)))
    per_mm = 1.1 + 0.7 * (bone - 1.0) / (at_ct - 1.0)
    voxels = where[where.shape[0] // 2].any(axis=0).sum()
    ray = np.hypot(1.0, np.linalg.norm((np.array([column, row]) - [127.5, 159.5]) * 1.2 / 1100.0))
    assert path[row, column] == pytest.approx(water * ray * (200.0 * 1.01 + voxels * (per_mm - 1.01)), rel=0.003)
    column, row = np.rint(beside * 1100.0 / 1.2 + [127.5, 159.5]).astype(int)
    ray = np.hypot(1.0, np.linalg.norm((np.array([column, row]) - [127.5, 159.5]) * 1.2 / 1100.0))
    assert path[row, column] == pytest.approx(water * ray * 200.0 * 1.01, rel=0.003)


def test_a_sphere_is_as_thick_as_its_chords() -> None:
    """Linear within a voxel of its surface; the ray's chord by Pythagoras."""
    spacing, radius = 0.8, 22.0
    grid = VolumeGrid(np.full(3, -28.0), np.full(3, spacing), (71, 71, 71))
    axis = grid.origin[0] + spacing * np.arange(71)
    distance = np.sqrt(axis[:, None, None]**2 + axis[:, None]**2 + axis**2)
    values = np.clip((radius - distance) / spacing + 0.5, 0.0, 1.0).astype(np.float32)
    pose = np.eye(4)
    pose[2, 3] = -750.0
    path = integrate(Volume(values, grid), pose, replace(SMALL, columns=101, rows=101))
    for row, column in ((50, 50), (40, 57), (61, 44), (50, 66)):
        ray = np.array([(column - 50) * 1.2, (row - 50) * 1.2, 1100.0])
        off = 750.0 * np.linalg.norm(ray[:2]) / np.linalg.norm(ray)
        assert path[row, column] == pytest.approx(2.0 * np.sqrt(radius**2 - off**2), abs=0.15)


def test_coefficients_are_those_of_the_tables() -> None:
    for energy, of_water, of_bone in ((60.0, 0.2059, 0.3148), (100.0, 0.1707, 0.1855)):
        assert attenuation.water(energy) == pytest.approx(of_water / 10.0, rel=1e-6)
        assert attenuation.cortical_bone(energy) == pytest.approx(of_bone * 0.192, rel=1e-6)
    for energy in (45.0, 60.0, 90.0):
        fat, water, air = attenuation.relative(np.array([-100.0, 0.0, -1000.0]), energy)
        assert (fat, water, air) == (pytest.approx(0.9), 1.0, pytest.approx(0.0, abs=1e-6))
    pure = 1000.0 * (attenuation.cortical_bone(75.0) / attenuation.water(75.0) - 1.0)
    soft_share = 100.0 * (attenuation.mineral_factor(60.0) - 1.0) / 1000.0  # up to 100 HU nothing is mineral
    found = float(attenuation.relative(np.array(pure), 60.0))
    assert found == pytest.approx(attenuation.cortical_bone(60.0) / attenuation.water(60.0) - soft_share, rel=1e-5)


@pytest.mark.parametrize("cycles", [0.2, 0.5, 1.0, 1.4])
def test_stripes_lose_what_the_transfer_function_says(cycles: float) -> None:
    settings = XraySettings(columns=400, rows=96, spacing=0.3)
    columns = np.arange(400) * 0.3
    stripes = np.tile(1000.0 + 100.0 * np.sin(2 * np.pi * cycles * columns), (96, 1))
    shadow = 0.6 * (1100.0 / 750.0 - 1.0)
    expected = np.sinc(0.3 * cycles) * np.sinc(shadow * cycles) / (1.0 + cycles**2 * (1.0 / 0.6 - 1.0))
    assert expected == pytest.approx(float(optics_mtf(np.array(cycles), np.array(0.0), settings)
                                           * scintillator_mtf(np.array(cycles), np.array(0.0), settings)))
    blurred = blur_by_scintillator(blur_by_optics(stripes, settings), settings)[48, 100:300]
    wave = np.exp(2j * np.pi * cycles * columns[100:300])
    basis = np.stack([np.ones(200), wave.real, wave.imag], axis=1)
    offset, real, imaginary = np.linalg.lstsq(basis, blurred, rcond=None)[0]
    assert np.hypot(real, imaginary) / 100.0 == pytest.approx(expected, abs=0.01)
    assert offset == pytest.approx(1000.0, rel=1e-3)
    assert abs(np.angle(complex(imaginary, -real))) < 0.02  # not shifted


@pytest.mark.parametrize("detector_mtf", [1.0, 0.6, 0.3])
def test_variance_is_proportional_to_the_mean(detector_mtf: float) -> None:
    settings = replace(SMALL, photons=4e5, scatter=0.0, detector_mtf=detector_mtf, spacing=0.3)
    ratios = []
    for level in (1.0, 3.0, 5.0):
        counts = count(np.full((320, 256), level), settings, 7)
        assert counts.mean() == pytest.approx(4e5 * np.exp(-level), rel=0.01)
        ratios.append((counts.var() - 9.0) / counts.mean())
    np.testing.assert_allclose(ratios, noise_share(settings), rtol=0.04)
    if detector_mtf == 1.0:
        assert noise_share(settings) == pytest.approx(1.0)


def test_the_share_of_noise_is_the_mean_square_of_the_transfer_function() -> None:
    """By white noise, and by an integral over a fine grid of frequencies."""
    f = (np.arange(2000) + 0.5) / 2000.0 / 0.6
    square = 1.0 / (1.0 + (f[:, None]**2 + f**2) * (1.0 / 0.6 - 1.0)) ** 2
    assert noise_share(XraySettings(spacing=0.3)) == pytest.approx(square.mean(), rel=2e-3)


def thick_and_thin() -> np.ndarray:
    path = np.zeros((320, 256))
    path[:, 60:] = 2.0
    path[:, 90:] = 6.0
    return path


def test_scatter_is_the_stated_share_where_the_body_is_thick_and_none_comes_from_air() -> None:
    settings = replace(SMALL, scatter=0.8)
    path = thick_and_thin()
    primary = settings.photons * np.exp(-path)
    scatter = scattered(primary, path, settings)
    assert np.median((scatter / primary)[:, 90:]) == pytest.approx(0.8, rel=1e-6)
    assert scatter[:, :5].max() < 0.01 * primary[0, 0]
    flat = np.full((320, 256), 4.0)
    np.testing.assert_allclose(scattered(np.exp(-flat), flat, settings), 0.8 * np.exp(-4.0), rtol=1e-6)
    assert not scattered(np.ones((320, 256)), np.zeros((320, 256)), settings).any()
    wide = scattered(primary, path, replace(settings, scatter_width=60.0))
    assert np.abs(np.diff(wide, axis=1)).max() < np.abs(np.diff(scatter, axis=1)).max()  # a wider kernel is flatter


def test_the_collimator_opens_what_it_says() -> None:
    settings = replace(SMALL, collimator=(120.0, 200.0))
    share = collimation((320, 256), settings)
    assert share[160, 128] == pytest.approx(1.0) and share[0, 0] == pytest.approx(1e-3, rel=0.01)
    assert (share[160] > 0.5).sum() * 1.2 == pytest.approx(120.0, abs=1.3)
    assert (share[:, 128] > 0.5).sum() * 1.2 == pytest.approx(200.0, abs=1.3)
    dataset = dicom_xray.to_dataset(xray.Radiograph(np.zeros((320, 256), np.uint16), np.eye(4), settings, 0))
    edges = np.flatnonzero(share[160] > 0.5)[[0, -1]] + 1  # DICOM counts from 1
    assert abs(dataset.CollimatorLeftVerticalEdge - edges[0]) <= 1
    assert abs(dataset.CollimatorRightVerticalEdge - edges[1]) <= 1
    assert dataset.CollimatorLowerHorizontalEdge - dataset.CollimatorUpperHorizontalEdge == round(200.0 / 1.2)


@pytest.mark.parametrize("change", [
    {"energy": 20.0}, {"energy": np.nan}, {"scatter_width": 0.0}, {"detector_mtf": 0.0}, {"detector_mtf": 1.2},
    {"focal_spot": -1.0}, {"collimator": (0.0, 100.0)}, {"collimator": (100.0, np.inf)},
    {"collimator": (100.0,)}, {"rows": 8000, "columns": 8000}])
def test_absurd_settings_are_refused_by_name(change: dict) -> None:
    with pytest.raises(UsxError, match=next(iter(change))):
        replace(SMALL, **change)
