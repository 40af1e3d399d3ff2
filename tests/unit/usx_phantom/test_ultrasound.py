"""B-mode frames: where bone appears, what lies in its shadow, the statistics of speckle, determinism."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import trimesh
from scipy import ndimage

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_common.transforms import make_transform, rotation_about_axis
from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.ultrasound import UltrasoundSettings, UltrasoundSimulator
from usx_phantom.ultrasound_settings import BeamSettings, BoneSettings, ReceiverSettings, TissueSettings

# The probe looks along -y (from the back to the front), columns along x: the patient lies under y = 0.
POSE = make_transform(np.column_stack([[1, 0, 0], np.cross([0, -1, 0], [1, 0, 0]), [0, -1, 0]]), [0.0, 0.0, 0.0])
PLAIN = TissueSettings(texture=0.0, interfaces=0.0, attenuation=0.0, skin_thickness=0.0, fat_thickness=0.0)
FLAT = ReceiverSettings(gain_slope=0.0, noise=0.0)
THIN = BeamSettings(focus_gain=0.0, elevation_offsets=(0.0,), elevation_weights=(1.0,))


class FlatSkin:
    def __init__(self, y: float = 10.0) -> None:
        self.y = y

    def height(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast(x, z).shape, self.y)


@dataclass
class Patient:
    meshes: dict
    skin: FlatSkin


def sphere(centre, radius: float) -> Mesh:
    solid = trimesh.creation.icosphere(5, radius)
    return Mesh(solid.vertices + np.asarray(centre), solid.faces)


def slab(depth: float, tilt: float = 0.0) -> Mesh:
    """A plate whose upper face passes `depth` mm below the probe, tilted about z by `tilt` degrees."""
    solid = trimesh.creation.box(bounds=[[-300, -20, -300], [300, 0, 300]])
    turned = solid.vertices @ rotation_about_axis([0, 0, 1], np.radians(tilt)).T
    return Mesh(turned + [0.0, -depth, 0.0], solid.faces)


def simulator(mesh: Mesh, settings: UltrasoundSettings | None = None, seed: int = 3, skin: float = 10.0):
    return UltrasoundSimulator(Patient({"L3": mesh}, FlatSkin(skin)), seed=seed, settings=settings)


FAR = sphere([0.0, -900.0, 0.0], 5.0)  # bone that no line reaches


def test_geometry_is_that_of_a_5c1_and_its_numbers_agree_with_each_other() -> None:
    probe = ProbeGeometry()
    assert (probe.radius, probe.field_of_view, probe.depth, probe.columns, probe.rows) == (60, 60, 160, 640, 480)
    column, row, nearest, farthest, first, last = probe.mask_fan
    for angle in np.radians([first, -12.0, 0.0, 20.0, last]):
        for radius in (nearest, farthest):
            c, r = column + radius * np.sin(angle), row + radius * np.cos(angle)
            assert 0 < c < 639 and 0 < r < 479
            x, y, z, _ = probe.image_to_probe @ [c, r, 0.0, 1.0]
            assert y == pytest.approx(0.0)
            assert np.hypot(x, z + 60.0) == pytest.approx(radius * probe.pixel)
            assert np.arctan2(x, z + 60.0) == pytest.approx(angle)
    assert nearest * probe.pixel == pytest.approx(60.0) and farthest * probe.pixel == pytest.approx(220.0)
    linear = probe.image_to_probe[:3, :3]
    assert np.allclose(linear.T @ linear, probe.pixel**2 * np.eye(3)) and np.linalg.det(linear) > 0


@pytest.mark.parametrize("kwargs", [
    {"radius": -1.0}, {"radius": np.nan}, {"field_of_view": 180.0}, {"depth": 0.0}, {"columns": 1}, {"rows": 10**6}])
def test_absurd_probes_are_refused(kwargs: dict) -> None:
    with pytest.raises(UsxError, match=next(iter(kwargs))):
        ProbeGeometry(**kwargs)


def test_a_sphere_appears_at_its_distance_in_the_picture() -> None:
    """Closed form: the ray from the centre of curvature at angle a meets the sphere at
    t = s cos a - sqrt(R^2 - s^2 sin^2 a), s the distance of the centres."""
    probe, radius, depth = ProbeGeometry(), 25.0, 75.0
    frame = simulator(sphere([0.0, -depth, 0.0], radius)).frame(POSE, 0).astype(float)
    s = probe.radius + depth
    column, row, *_ = probe.mask_fan
    errors = []
    for angle in np.radians(np.linspace(-5.0, 5.0, 41)):
        expected = (s * np.cos(angle) - np.sqrt(radius**2 - (s * np.sin(angle)) ** 2)) / probe.pixel
        along = np.arange(expected - 25, expected + 25, 0.1)
        grey = ndimage.map_coordinates(frame, [row + along * np.cos(angle), column + along * np.sin(angle)], order=1)
        bright = grey >= grey.max() - 8  # the echo may be saturated: the middle of its plateau
        errors.append(along[bright].mean() - expected)
    assert abs(np.median(errors)) < 0.7
    assert np.mean(np.abs(errors) < 1.0) > 0.9  # within a pixel


@pytest.mark.parametrize("tilt", [0.0, 15.0, -25.0])
def test_the_echo_of_a_plane_lies_at_its_closed_form_distance(tilt: float) -> None:
    depth = 60.0
    once = BoneSettings(reverberation=0.0)
    made = simulator(slab(depth, tilt), UltrasoundSettings(THIN, once, PLAIN, FLAT))
    mirror = simulator(slab(depth, tilt), UltrasoundSettings(THIN, replace(once, roughness=0.0), PLAIN, FLAT))
    normal = np.array([-np.sin(np.radians(tilt)), np.cos(np.radians(tilt)), 0.0])
    angles = made.geometry.line_angles(256)
    directions = np.stack([np.sin(angles), -np.cos(angles), 0 * angles], axis=1)
    expected = (60.0 * normal[1] + depth * normal[1]) / -(directions @ normal) - 60.0
    facing = (np.abs(np.degrees(np.arccos(-directions @ normal))) < 35.0) & (expected < 150.0)
    rough, smooth = (np.abs((20 + scan.envelope(POSE, 0)[:, 20:].argmax(axis=1)) * made.step - expected)[facing]
                     for scan in (made, mirror))  # past the ring-down
    assert facing.sum() > 80
    assert smooth.max() < made.geometry.pixel
    assert np.percentile(rough, 90) < made.geometry.pixel and rough.max() < 3 * made.geometry.pixel
    np.testing.assert_allclose(made.bone_depths(POSE)[facing], expected[facing], atol=1e-6)


def test_bone_lies_where_image_to_probe_and_the_pose_put_it_for_any_pose() -> None:
    turn = rotation_about_axis([0.3, -0.5, 0.8], 0.7)
    world = make_transform(turn, [31.0, -12.0, 55.0])
    mesh = sphere([4.0, -70.0, 3.0], 20.0)

    class Everywhere(FlatSkin):
        def height(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
            return np.full(np.broadcast(x, z).shape, 1e6)

    patient = Patient({"L1": mesh.transformed(world)}, Everywhere())
    made = UltrasoundSimulator(patient, seed=1, settings=UltrasoundSettings(beam=THIN, tissue=PLAIN, receiver=FLAT))
    frame = made.frame(world @ POSE, 0)
    rows, columns = np.nonzero(frame > 200)
    rows, columns = rows[rows > 60], columns[rows > 60]  # not the ring-down
    pixels = np.stack([columns, rows, 0 * rows, np.ones(len(rows))])
    points = (world @ POSE @ made.geometry.image_to_probe @ pixels)[:3].T
    centre = world @ [4.0, -70.0, 3.0, 1.0]
    distance = np.linalg.norm(points - centre[:3], axis=1)
    assert len(points) > 50
    assert abs(np.median(distance) - 20.0) < 0.4
    assert np.percentile(np.abs(distance - 20.0), 90) < 1.5


def test_bone_casts_a_shadow() -> None:
    made = simulator(sphere([0.0, -70.0, 0.0], 18.0))
    envelope = made.envelope(POSE, 0)
    deep = slice(int(95 / made.step), int(120 / made.step))
    behind = envelope[118:138, deep].mean()
    beside = envelope[list(range(5, 40)) + list(range(216, 251)), deep].mean()
    assert behind < 0.3 * beside  # in frames of bone in vivo the shadow is 6 dB or more below the tissue
    column, row, nearest, *_ = made.geometry.mask_fan
    top = row + nearest + 52.0 / made.geometry.pixel  # of the sphere, in the picture
    frame = made.frame(POSE, 0)
    assert frame[round(top) - 2:round(top) + 3, round(column)].max() > 200  # the echo is there and bright
    assert frame[round(top) + 25:470, round(column) - 8:round(column) + 9].mean() < 25  # and its shadow is black


def test_bone_seen_aslant_is_fainter() -> None:
    settings = UltrasoundSettings(beam=THIN, tissue=PLAIN, receiver=FLAT)
    peak = [simulator(slab(60.0, tilt), settings).envelope(POSE, 0)[120:136, 100:].max(axis=1).mean()
            for tilt in (0.0, 30.0, 55.0)]
    assert peak[0] > 1.5 * peak[1] > 3.0 * peak[2] > 0


def test_speckle_of_uniform_tissue_is_fully_developed() -> None:
    """Rayleigh distributed envelope: mean / sd = sqrt(pi / (4 - pi)) = 1.913, before compression."""
    made = simulator(FAR, UltrasoundSettings(BeamSettings(focus_gain=0.0), tissue=PLAIN, receiver=FLAT))
    ratios = []
    for step in range(6):
        pose = make_transform(POSE[:3, :3], [0.0, 0.0, 5.0 * step])
        envelope = made.envelope(pose, step)[10:-10, 60:-20]
        ratios.append((envelope.mean(axis=1) / envelope.std(axis=1)).mean())
        uniform = envelope[:, ::9].ravel() / np.sqrt((envelope**2).mean())
        assert abs(np.mean(uniform > 1.0) - np.exp(-1.0)) < 0.02  # tail of the Rayleigh distribution
    assert np.mean(ratios) == pytest.approx(1.913, abs=0.05)


def test_speckle_belongs_to_the_tissue() -> None:
    made = simulator(FAR, UltrasoundSettings(BeamSettings(focus_gain=0.0), tissue=PLAIN, receiver=FLAT))

    def at(z: float) -> np.ndarray:
        return made.envelope(make_transform(POSE[:3, :3], [0.0, 0.0, z]), 0)[:, 40:].ravel()

    here = at(0.05)
    assert np.corrcoef(here, at(0.25))[0, 1] > 0.9
    assert abs(np.corrcoef(here, at(8.0))[0, 1]) < 0.1


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads() -> None:
    mesh = sphere([0.0, -70.0, 0.0], 18.0)
    poses = [make_transform(POSE[:3, :3], [0.0, 0.0, z]) for z in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)]
    one = [frame.tobytes() for frame in simulator(mesh).frames(poses, threads=1)]
    two = [frame.tobytes() for frame in simulator(mesh).frames(poses, threads=2)]
    again = [simulator(mesh).frame(pose, i).tobytes() for i, pose in enumerate(poses)]
    assert one == two == again
    assert simulator(mesh, seed=4).frame(poses[0], 0).tobytes() != one[0]
    assert simulator(mesh).frame(poses[0], 1).tobytes() != one[0]  # the noise is another


def test_a_probe_off_the_skin_sees_nothing() -> None:
    made = simulator(slab(60.0), skin=-12.0)  # 12 mm of air
    frame = made.frame(POSE, 0)
    assert frame.dtype == np.uint8 and frame.shape == (480, 640)
    assert frame[80:].max() < 60
    assert simulator(slab(60.0), skin=-2.0).frame(POSE, 0)[80:].max() > 200  # 2 mm: gel


def test_depth_attenuates_and_gain_brightens() -> None:
    made = simulator(FAR)
    envelope = made.envelope(POSE, 0)
    assert envelope[:, 150:250].mean() > 1.5 * envelope[:, 450:550].mean()
    louder = simulator(FAR, UltrasoundSettings(receiver=ReceiverSettings(gain_db=6.0))).frame(POSE, 0)
    assert louder[150:300, 250:390].mean() > made.frame(POSE, 0)[150:300, 250:390].mean() + 15


@pytest.mark.parametrize("pose", [
    np.eye(3), np.full((4, 4), np.nan), np.diag([2.0, 1.0, 1.0, 1.0]), np.diag([-1.0, 1.0, 1.0, 1.0]),
    np.zeros((4, 4))])
def test_poses_that_are_not_rigid_are_refused(pose: np.ndarray) -> None:
    with pytest.raises(UsxError, match="rigid"):
        simulator(FAR).frame(pose, 0)


@pytest.mark.parametrize("make", [
    lambda: UltrasoundSimulator(Patient({}, FlatSkin())),
    lambda: simulator(FAR, seed=-1),
    lambda: simulator(FAR, seed=1.5),
    lambda: simulator(FAR).frame(POSE, -1),
    lambda: UltrasoundSettings(receiver=ReceiverSettings(dynamic_range_db=0.0)),
    lambda: UltrasoundSettings(receiver=ReceiverSettings(gain_db=np.nan)),
    lambda: UltrasoundSettings(tissue=TissueSettings(attenuation=-1.0)),
    lambda: UltrasoundSettings(beam=BeamSettings(lines=1)),
    lambda: UltrasoundSettings(beam=BeamSettings(elevation_weights=(1.0,))),
])
def test_absurd_input_is_refused_with_one_line(make) -> None:
    with pytest.raises(UsxError) as caught:
        make()
    assert "\n" not in str(caught.value)
