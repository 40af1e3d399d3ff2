"""Reverberation, attenuation and depth gain, the transmit focus, bone from a label map, tissue from CT intensities."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import trimesh

from usx_common.errors import UsxError
from usx_common.meshes import Mesh, volume
from usx_common.transforms import make_transform
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom.label_surfaces import label_surfaces
from usx_phantom.ultrasound import UltrasoundSimulator
from usx_phantom.ultrasound_settings import (
    BeamSettings,
    BoneSettings,
    ReceiverSettings,
    TissueSettings,
    UltrasoundSettings,
)

POSE = make_transform(np.column_stack([[1, 0, 0], np.cross([0, -1, 0], [1, 0, 0]), [0, -1, 0]]), [0.0, 0.0, 0.0])
PLAIN = TissueSettings(texture=0.0, interfaces=0.0, skin_thickness=0.0, fat_thickness=0.0)
FLAT = ReceiverSettings(gain_slope=0.0, noise=0.0, ring=0.0)
LEVEL = UltrasoundSettings(BeamSettings(focus_gain=0.0), tissue=replace(PLAIN, attenuation=0.0), receiver=FLAT)


class Skin:
    def height(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast(x, z).shape, 10.0)


@dataclass
class Patient:
    meshes: dict
    labelmap: Volume | None = None
    intensities: Volume | None = None
    skin: Skin = Skin()  # noqa: RUF009


def plate(depth: float) -> Mesh:
    solid = trimesh.creation.box(bounds=[[-300, -depth - 20, -300], [300, -depth, 300]])
    return Mesh(solid.vertices, solid.faces)


def envelope(patient: Patient, settings: UltrasoundSettings = LEVEL) -> np.ndarray:
    return np.mean([UltrasoundSimulator(patient, seed=seed, settings=settings).envelope(POSE, 0)
                    for seed in (1, 2, 3)], axis=0)


def block(value: float, size: float = 240.0, spacing: float = 4.0) -> Volume:
    """CT of one value around the field of view."""
    n = int(size / spacing)
    grid = VolumeGrid(np.array([-size / 2, -size + 20.0, -size / 2]), np.full(3, spacing), (n, n, n))
    return Volume(np.full((n, n, n), value, np.int16), grid)


FAR = plate(900.0)


def test_a_face_on_plate_repeats_at_twice_and_three_times_its_depth() -> None:
    """The echo runs between face and bone: decaying copies at 2 d and 3 d, and none without reverberation."""
    loud = replace(LEVEL, bone=BoneSettings(reverberation=0.3, haze=0.0, tail=0.0))
    middle = envelope(Patient({"L3": plate(40.0)}), loud)[118:138].mean(axis=0)
    silent = envelope(Patient({"L3": plate(40.0)}), replace(loud, bone=replace(loud.bone, reverberation=0.0)))[118:138]
    depth = np.arange(641) * 0.25
    strength = [middle[np.abs(depth - n * 40.0) < 3.0].max() for n in (1, 2, 3)]
    between = middle[np.abs(depth - 60.0) < 5.0].max()
    assert strength[0] > 3.0 * strength[1] > 3.0 * 1.5 * strength[2] > 0.0
    assert strength[2] > 5.0 * max(between, 1e-6)
    assert silent[:, depth > 45.0].max() < 1e-3 * strength[1]


def test_tissue_attenuates_as_its_coefficient_says_and_depth_gain_lifts_it_back() -> None:
    """0.5 dB / (cm MHz) at 4 MHz is 0.4 dB per mm of depth, there and back."""
    tissue = replace(PLAIN, attenuation=0.5)
    beam = BeamSettings(focus_gain=0.0, frequency=4.0)
    scan = envelope(Patient({"L3": FAR}), UltrasoundSettings(beam, tissue=tissue, receiver=FLAT))
    level = 20.0 * np.log10(scan[10:-10].mean(axis=0))
    slope = np.polyfit(np.arange(60, 600) * 0.25, level[60:600], 1)[0]
    assert slope == pytest.approx(-0.4, abs=0.01)
    lifted = UltrasoundSettings(beam, tissue=tissue, receiver=replace(FLAT, gain_slope=0.4))
    flat = 20.0 * np.log10(envelope(Patient({"L3": FAR}), lifted)[10:-10].mean(axis=0))
    assert abs(np.polyfit(np.arange(60, 600) * 0.25, flat[60:600], 1)[0]) < 0.01


def test_sliders_of_the_depth_gain_act_at_their_depths() -> None:
    raised = replace(LEVEL, receiver=replace(FLAT, sliders=(0.0, 0.0, 12.0, 0.0, 0.0)))  # stops at 0, 40, 80, 120, 160
    ratio = 20.0 * np.log10(envelope(Patient({"L3": FAR}), raised)[5] / envelope(Patient({"L3": FAR}))[5])
    assert ratio[[120, 320, 480]] == pytest.approx([0.0, 12.0, 0.0], abs=0.05)
    assert ratio[240] == pytest.approx(6.0, abs=0.05)


def test_the_beam_is_narrowest_at_its_focus() -> None:
    """Width of the speckle across the lines, in mm, from its autocorrelation."""
    made = UltrasoundSimulator(Patient({"L3": FAR}), seed=5, settings=LEVEL)
    scans = [made.envelope(make_transform(POSE[:3, :3], [0, 0, 6.0 * n]), n) for n in range(6)]

    def width(depth: float) -> float:
        rows = np.concatenate([scan[:, int(depth / made.step) - 12:int(depth / made.step) + 12] for scan in scans], 1)
        rows = rows - rows.mean(axis=0)
        fall = [(rows[lag:] * rows[:len(rows) - lag]).mean() / (rows**2).mean() for lag in range(1, 4)]
        gap = (60.0 + depth) * made.geometry.half_angle * 2.0 / 255
        return gap * float(np.interp(-0.5, -np.array([1.0, *fall]), np.arange(4)))

    at_focus = width(70.0)
    assert width(20.0) > 1.05 * at_focus and width(140.0) > 1.1 * at_focus


def ball_labels(direction: np.ndarray | None = None) -> Volume:
    """A ball of radius 15 mm, 60 mm in front of the probe, as label 22 on voxels of 1 x 1 x 2 mm."""
    direction = np.eye(3) if direction is None else direction
    size = (60, 60, 30)
    spacing = np.array([1.0, 1.0, 2.0])
    centre = np.array([3.0, -75.0, 2.0])
    origin = centre - direction @ (spacing * (np.array(size) - 1) / 2.0)
    grid = VolumeGrid(origin, spacing, size, direction)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1).reshape(-1, 3)
    points = index @ grid.index_to_world[:3, :3].T + origin
    inside = np.linalg.norm(points - centre, axis=1) < 15.0
    values = np.zeros(size, np.uint8)
    values.reshape(-1)[inside] = 22
    return Volume(np.ascontiguousarray(values.transpose(2, 1, 0)), grid)


@pytest.mark.parametrize("direction", [np.eye(3), np.diag([1.0, -1.0, -1.0]), np.diag([-1.0, 1.0, 1.0])])
def test_a_labelled_ball_becomes_a_closed_ball_whatever_the_axes_of_the_volume(direction: np.ndarray) -> None:
    meshes = label_surfaces(ball_labels(direction))
    assert list(meshes) == ["L3"] and meshes["L3"].is_watertight
    radius = np.linalg.norm(meshes["L3"].vertices - [3.0, -75.0, 2.0], axis=1)
    assert radius.mean() == pytest.approx(15.0, abs=0.15) and radius.std() < 0.35
    assert volume(meshes["L3"]) == pytest.approx(4.0 / 3.0 * np.pi * 15.0**3, rel=0.03)  # positive: normals outward


def test_other_labels_do_not_matter() -> None:
    labels = ball_labels()
    values = labels.values.astype(np.float32)
    values[0, 0, :3] = [-3.0, np.nan, 1e9]
    np.testing.assert_array_equal(label_surfaces(Volume(values, labels.grid))["L3"].vertices,
                                  label_surfaces(labels)["L3"].vertices)


def test_a_scene_of_labels_only_shows_its_bone() -> None:
    made = UltrasoundSimulator(Patient({}, labelmap=ball_labels()), seed=1)
    depths = made.bone_depths(POSE)
    assert depths.min() == pytest.approx(60.0, abs=0.4)


@pytest.mark.parametrize("labels, match", [(0, "none of the labels"), (7, "none of the labels"), (22, "smoothing")])
def test_label_maps_without_bone_are_refused(labels: int, match: str) -> None:
    values = np.zeros((8, 8, 8), np.uint8)
    values[4, 4, 4] = labels
    with pytest.raises(UsxError, match=match):
        label_surfaces(Volume(values, VolumeGrid(np.zeros(3), np.ones(3), (8, 8, 8))))


def test_fat_in_the_ct_is_darker_and_fatty_muscle_brighter_than_muscle() -> None:
    level = {hu: envelope(Patient({"L3": FAR}, intensities=block(hu)))[60:200, 100:500].mean()
             for hu in (-110, -20, 55)}
    assert level[-110] < 0.75 * level[55] < 0.75 * level[-20]


def test_a_ct_with_values_that_are_no_numbers_is_refused() -> None:
    ct = block(55.0)
    values = ct.values.astype(float)
    values[3, 4, 5] = np.nan
    with pytest.raises(UsxError, match="not finite"):
        UltrasoundSimulator(Patient({"L3": FAR}, intensities=Volume(values, ct.grid)))


def test_the_noise_of_a_ct_does_not_shine() -> None:
    quiet, noisy = block(55.0, spacing=2.0), block(55.0, spacing=2.0)
    noisy.values[:] = 55 + np.random.default_rng(1).normal(0.0, 25.0, noisy.values.shape)
    settings = replace(LEVEL, tissue=replace(LEVEL.tissue, interfaces=30.0))
    levels = [envelope(Patient({"L3": FAR}, intensities=ct), settings)[60:200, 100:500].mean()
              for ct in (quiet, noisy)]
    assert levels[1] == pytest.approx(levels[0], rel=0.15)


def test_nothing_is_seen_behind_gas_but_air_before_the_skin_does_not_count() -> None:
    ct = block(55.0)
    y = ct.grid.origin[1] + np.arange(60) * 4.0
    ct.values[:, (y < -60.0) & (y > -80.0)] = -950  # bowel gas 60 to 80 mm deep
    ct.values[:, y > -3.0] = -1000  # air over the back, and a gap of 3 mm to the CT's skin
    scan = envelope(Patient({"L3": FAR}, intensities=ct), replace(LEVEL, bone=BoneSettings(reverberation=0.0)))
    depth = np.arange(641) * 0.25
    middle = scan[118:138].mean(axis=0)
    echo = depth[middle.argmax()]
    assert 56.0 < echo < 64.0
    assert middle[(depth > 70.0)].mean() < 0.3 * middle[(depth > 20.0) & (depth < 50.0)].mean()
    assert middle[(depth > 20.0) & (depth < 50.0)].mean() > 0.5


def test_a_boundary_between_fat_and_muscle_in_the_ct_echoes() -> None:
    ct = block(55.0, spacing=2.0)
    y = ct.grid.origin[1] + np.arange(len(ct.values)) * 2.0
    ct.values[:, y > -30.0] = -100
    scan = envelope(Patient({"L3": FAR}, intensities=ct), replace(LEVEL, tissue=replace(LEVEL.tissue, interfaces=30.0)))
    middle = scan[118:138].mean(axis=0)
    depth = np.arange(641) * 0.25
    assert abs(depth[60 + middle[60:].argmax()] - 30.0) < 2.0
