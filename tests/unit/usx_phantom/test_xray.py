"""Radiographs: where truth points appear, closed-form path lengths, noise statistics, determinism, bad input."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import ndimage

from usx_common.errors import UsxError
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom.density import Material, bone_excess, gas_pockets
from usx_phantom.xray import Radiograph, XraySettings, line_integrals, simulate_lateral
from usx_phantom.xray_exposure import display, expose, smooth
from usx_phantom.xray_paths import integrate, trunk_chord

# Rays are not scattered, blurred or shown nicely: the picture is exp(-path) but for a trace of noise.
BARE = XraySettings(columns=256, rows=320, spacing=1.2, photons=1e11, scatter=0.0, detector_mtf=1.0,
                    focal_spot=0.0, bits_stored=16, intent="PROCESSING", gas=0, mottle=0.0)


class NoSkin:
    def height(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast(x, z).shape, -1e9)

    def inside(self, points: np.ndarray) -> np.ndarray:
        return np.zeros(len(points), bool)


class Cylinder(NoSkin):
    """A round trunk along z."""

    def __init__(self, radius: float, x: float = 0.0, y: float = 0.0) -> None:
        self.radius, self.x, self.y = radius, x, y

    def inside(self, points: np.ndarray) -> np.ndarray:
        return np.hypot(points[:, 0] - self.x, points[:, 1] - self.y) <= self.radius


@dataclass
class Patient:
    labelmap: Volume
    skin: NoSkin


def balls(centres: np.ndarray, radius: float, spacing: float = 0.5) -> Volume:
    """Label map with a ball at each centre; voxel centres off the balls' own."""
    low = np.min(centres, axis=0) - radius - 4.13
    size = np.ceil((np.max(centres, axis=0) + radius + 4.0 - low) / spacing).astype(int)
    z, y, x = np.meshgrid(*(low[a] + spacing * np.arange(size[a]) for a in (2, 1, 0)), indexing="ij")
    values = np.zeros(x.shape, np.uint8)
    for centre in centres:
        values[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2] = 20
    return Volume(values, VolumeGrid(low, np.full(3, spacing), tuple(size)))


CENTRES = np.array([[-20.0, 0.0, 0.0], [25.0, -31.0, 40.0], [3.0, 37.0, -55.0], [-30.0, -25.0, -38.0]])


@pytest.mark.parametrize("settings", [
    BARE, replace(BARE, detector_side="right"), replace(BARE, primary_angle=7.0, secondary_angle=-4.0),
    replace(BARE, source_to_detector=1500.0, source_to_isocentre=900.0, columns=300)])
def test_truth_points_project_onto_their_shadows(settings: XraySettings) -> None:
    patient = Patient(balls(CENTRES, 4.0), NoSkin())
    radiograph = simulate_lateral(patient, settings, 5)
    path = -np.log((radiograph.pixels + 0.5) / 65535.0)
    source, axes = radiograph.xray_to_cbct[:3, 3], radiograph.xray_to_cbct[:3, :3]
    assert source[0] * (1 if settings.detector_side == "left" else -1) < -500  # the source faces the detector
    for centre in CENTRES:
        # by hand: similar triangles in the source's frame
        right, down, depth = axes.T @ (centre - source)
        sid = settings.source_to_detector
        expected = np.array([(settings.columns - 1) / 2 + right / depth * sid / settings.spacing,
                             (settings.rows - 1) / 2 + down / depth * sid / settings.spacing])
        np.testing.assert_allclose(radiograph.project(centre[None])[0], expected, atol=1e-9)
        column, row = np.rint(expected).astype(int)
        part = path[row - 9:row + 10, column - 9:column + 10]
        shadow = np.clip(part - 0.01, 0, None)
        assert shadow.max() > 0.05
        found = np.array(ndimage.center_of_mass(shadow))[::-1] + [column - 9, row - 9]
        assert np.abs(found - expected).max() < 0.2


def test_the_head_is_up_and_the_letters_say_where_the_columns_run() -> None:
    patient = Patient(balls(CENTRES, 3.0), NoSkin())
    for side, letters in (("left", ("A", "F")), ("right", ("P", "F"))):
        radiograph = simulate_lateral(patient, replace(BARE, detector_side=side), 0)
        assert radiograph.patient_orientation == letters
        head, feet, front, back = radiograph.project(
            np.array([[0, 0, 50.0], [0, 0, -50.0], [0, -50.0, 0], [0, 50.0, 0]]))
        assert head[1] < feet[1]
        assert (front[0] > back[0]) == (letters[0] == "A")


def test_the_integral_of_ones_is_the_length_of_the_ray_in_the_box() -> None:
    grid = VolumeGrid([-20.0, -15.0, -30.0], [0.5, 0.5, 0.5], (81, 61, 121))
    settings = replace(BARE, columns=65, rows=65, spacing=2.0)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    pose[:3, 3] = [-750.0, 0.0, 0.0]
    lengths = integrate(Volume(np.ones((121, 61, 81), np.float32), grid), pose, settings)
    for row, column in ((32, 32), (28, 35), (40, 30)):
        u, v = (column - 32) * 2.0 / 1100.0, (row - 32) * 2.0 / 1100.0
        assert lengths[row, column] == pytest.approx(40.0 * np.sqrt(1 + u * u + v * v), abs=0.6)
    assert lengths[0, 0] == 0.0


def test_the_trunk_is_as_thick_as_its_chords() -> None:
    settings = replace(BARE, columns=129, rows=65, spacing=3.0)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    pose[:3, 3] = [-750.0, 0.0, 0.0]
    chord = trunk_chord(Cylinder(120.0, y=10.0), pose, settings)
    for column in (64, 40, 80):
        angle = np.arctan((column - 64) * 3.0 / 1100.0)
        off_axis = abs(750.0 * np.sin(angle) + 10.0 * np.cos(angle))
        assert chord[32, column] == pytest.approx(2 * np.sqrt(120.0**2 - off_axis**2), rel=0.01)


def test_attenuation_follows_beer_and_lambert() -> None:
    thickness = np.array([[0.0, 1.0, 2.0, 3.0]])
    stored = [expose(np.full((16, 16), value), BARE, 0).astype(float).mean() for value in thickness[0]]
    np.testing.assert_allclose(np.array(stored) / stored[0], np.exp(-thickness[0]), rtol=2e-4)


def test_noise_is_that_of_counted_photons() -> None:
    settings = replace(BARE, photons=4000.0)
    stored = expose(np.full((300, 300), 0.7), settings, 3) / 65535.0 * 4000.0
    mean = 4000.0 * np.exp(-0.7)
    assert stored.mean() == pytest.approx(mean, rel=0.005)
    assert stored.var() == pytest.approx(mean + 9.0, rel=0.03)  # and 3 electrons of the read-out


def test_grey_scales_mirror_each_other() -> None:
    density = np.random.default_rng(0).uniform(0.0, 4.0, (60, 50))
    settings = replace(BARE, intent="PRESENTATION", bits_stored=12, photons=1e9)
    two, one = (expose(density, replace(settings, photometric=kind), 1) for kind in ("MONOCHROME2", "MONOCHROME1"))
    assert two.max() == 4095 and (two.astype(int) + one == 4095).all()
    assert two[density > 3.5].mean() > two[density < 3.0].mean()  # dense is bright
    assert np.ptp(display(density, 1.0)) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("density", [np.zeros((20, 20)), np.full((20, 20), -3.0), np.eye(20)])
def test_a_radiograph_of_nothing_has_grey_values_too(density: np.ndarray) -> None:
    grey = display(density, 1.0)
    assert np.isfinite(grey).all() and grey.min() >= 0.0 and grey.max() <= 1.0


def test_wide_smoothing_is_near_the_gaussian_it_stands_for() -> None:
    rows, columns = np.mgrid[:203, :151]
    image = np.sin(rows / 31.0) + np.cos(columns / 23.0) + np.random.default_rng(0).normal(size=rows.shape)
    exact = ndimage.gaussian_filter(image, 14.0, mode="nearest")
    error = np.abs(smooth(image, 14.0) - exact)
    assert error[14:-14, 14:-14].max() < 0.03 * np.ptp(exact)
    assert error.max() < 0.15 * np.ptp(exact)  # the picture is continued by its edge: blocks see another edge


def shells_of_a_ball(radius: float, material: Material) -> tuple[np.ndarray, np.ndarray]:
    bone = bone_excess(balls(np.array([[1.0, 2.0, 3.0]]), radius), material, 0)
    z, y, x = np.meshgrid(*(bone.grid.origin[a] + bone.grid.spacing[a] * np.arange(bone.grid.size[a])
                            for a in (2, 1, 0)), indexing="ij")
    return np.sqrt((x - 1.0) ** 2 + (y - 2.0) ** 2 + (z - 3.0) ** 2), bone.values + material.soft


def test_thin_bone_has_a_dense_shell_and_a_lighter_core() -> None:
    material = Material(texture=0.0)
    radius, hounsfield = shells_of_a_ball(8.0, material)
    np.testing.assert_allclose(hounsfield[radius < 4.0], material.spongiosa + material.arch_excess, atol=1.0)
    assert np.abs(hounsfield[np.abs(radius - 7.4) < 0.15] - material.cortex).mean() < 150.0
    assert np.abs(hounsfield[radius > 9.0] - material.soft).max() < 1.0
    half = radius[np.abs(hounsfield - (material.cortex + material.soft) / 2) < 150.0]
    assert np.median(half[half > 7.7]) == pytest.approx(8.0, abs=0.15)  # the surface is where it was


def test_a_body_has_a_thinner_shell_and_less_mineral() -> None:
    material = Material(texture=0.0)
    radius, hounsfield = shells_of_a_ball(14.0, material)
    np.testing.assert_allclose(hounsfield[radius < 8.0], material.spongiosa, atol=1.0)
    shell = (radius > 10.0) & (radius < 15.0)
    mineral = (hounsfield[shell] - material.spongiosa).sum() * 0.125 / (4.0 * np.pi * 13.7**2)
    missing = (material.spongiosa - material.soft) * (15.0**3 - 14.0**3) / 3.0 / 13.7**2
    thickness = (mineral + missing) / (material.cortex - material.spongiosa)
    assert thickness == pytest.approx(material.body_shell, abs=0.25)  # half a voxel of the label map


def test_the_same_seed_gives_the_same_pixels() -> None:
    settings = replace(XraySettings(), columns=128, rows=160, spacing=2.4)
    patient = Patient(balls(CENTRES, 4.0), Cylinder(130.0))
    first, again, other = (simulate_lateral(patient, settings, seed).pixels for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    assert first.dtype == np.uint16 and first.max() < 1 << settings.bits_stored
    assert gas_pockets(patient.labelmap, 4) == gas_pockets(patient.labelmap, 4) != gas_pockets(patient.labelmap, 5)


def test_vertebra_is_brighter_than_what_is_around_it() -> None:
    """A body-sized ball in a trunk stands out by several times the noise: a click can be segmented."""
    patient = Patient(balls(np.array([[0.0, 0.0, 0.0], [0.0, 5.0, 70.0]]), 16.0, 1.0), Cylinder(140.0, y=-40.0))
    settings = XraySettings(columns=512, rows=640, spacing=0.6)
    radiograph: Radiograph = simulate_lateral(patient, settings, 3)
    again = expose(line_integrals(patient, settings, 3)[0], settings, 4)  # the same but for the noise
    column, row = np.rint(radiograph.project(np.zeros((1, 3)))[0]).astype(int)
    pixels = radiograph.pixels.astype(float)
    inside = pixels[row - 12:row + 13, column - 12:column + 13]
    beside = pixels[row + 50:row + 54, column - 12:column + 13]
    noise = (beside - again[row + 50:row + 54, column - 12:column + 13]).std() / np.sqrt(2.0)
    assert inside.mean() - beside.mean() > 4.0 * noise


@pytest.mark.parametrize("change", [
    {"source_to_detector": -1.0}, {"source_to_isocentre": 1200.0}, {"source_to_isocentre": np.nan}, {"columns": 0},
    {"rows": 10**6}, {"spacing": 0.0}, {"detector_side": "above"}, {"photons": 0.0}, {"bits_stored": 17},
    {"photometric": "RGB"}, {"intent": "ART"}, {"scatter": -0.1}, {"primary_angle": 90.0}, {"mottle": np.inf}])
def test_absurd_settings_are_refused_by_name(change: dict) -> None:
    with pytest.raises(UsxError, match=next(iter(change))):
        replace(BARE, **change)


def test_scenes_that_cannot_be_imaged_are_refused() -> None:
    good = balls(CENTRES, 3.0)
    empty = Volume(np.zeros_like(good.values), good.grid)
    turned = Volume(good.values, replace(good.grid, direction=np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])))
    far = Volume(good.values, replace(good.grid, spacing=np.array([30.0, 0.5, 0.5])))
    lost = Volume(good.values, replace(good.grid, origin=np.array([np.nan, 0.0, 0.0])))
    for labelmap, word in ((empty, "no label"), (turned, "axes"), (far, "source"), (lost, "finite")):
        with pytest.raises(UsxError, match=word):
            simulate_lateral(Patient(labelmap, NoSkin()), BARE, 0)
    for seed in (-1, 2.5):
        with pytest.raises(UsxError, match="seed"):
            simulate_lateral(Patient(good, NoSkin()), BARE, seed)
