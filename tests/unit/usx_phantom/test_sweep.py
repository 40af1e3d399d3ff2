"""The sweep: over all of L1 to L5, beam forward, face in the skin, smooth and within the robot's limits."""

import numpy as np
import pytest

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_phantom import robot
from usx_phantom.phantom_scene import build_scene
from usx_phantom.sweep import PATTERNS, SweepSettings, path_pose, plan
from usx_phantom.voxels import label_meshes


def boxes():
    """Five boxes in the places of vertebrae: the sweep needs no more."""
    meshes = {}
    faces = np.array([[0, 2, 1], [0, 3, 2], [4, 5, 6], [4, 6, 7], [0, 1, 5], [0, 5, 4], [1, 2, 6], [1, 6, 5],
                      [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7]])
    corners = np.array([[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, 1], [1, 1, 1],
                        [-1, 1, 1.0]])
    for number in range(5):
        centre = np.array([0.0, 25.0 - 3.0 * number, 70.0 - 35.0 * number])
        meshes[f"L{number + 1}"] = Mesh(corners * (40.0, 45.0, 20.0) + centre, faces)
    return meshes


@pytest.fixture(scope="module")
def scene():
    return build_scene(boxes(), seed=3, spacing=4.0)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_probe_passes_over_every_level(scene, pattern):
    settings = SweepSettings(pattern=pattern)
    poses = [path_pose(scene, settings, f) for f in np.linspace(0, 1, 200)]
    z = np.array([pose[2, 3] for pose in poses])
    vertices = np.concatenate([mesh.vertices for mesh in scene.meshes.values()])
    assert z.max() >= vertices[:, 2].max() and z.min() <= vertices[:, 2].min()
    for pose in poses:
        assert transforms.is_rigid(pose)
        beam, lateral = pose[:3, 2], pose[:3, 0]
        assert beam[1] < -0.9  # forward, towards the bones
        assert lateral[0] > 0.9  # image columns run to the patient's left
        skin = scene.skin.height(pose[0, 3], pose[2, 3])
        assert -0.5 < skin - pose[1, 3] <= settings.press + 0.1
    assert np.abs(np.diff(z)).max() < 5.0 * np.abs(np.ptp(z)) / 200 * 2


def test_paramedian_passes_look_inwards_from_both_sides(scene):
    settings = SweepSettings(pattern="paramedian")
    left, right = path_pose(scene, settings, 0.2), path_pose(scene, settings, 0.8)
    assert left[0, 3] > scene.skin.x0 + 10 and left[0, 2] < -0.15
    assert right[0, 3] < scene.skin.x0 - 10 and right[0, 2] > 0.15


@pytest.mark.parametrize("pattern", PATTERNS)
def test_robot_follows_the_path_within_its_limits(scene, pattern):
    settings = SweepSettings(duration=8.0, pattern=pattern)
    trajectory = plan(scene, settings)
    times = np.linspace(0.0, settings.duration, 400)
    q = np.array([trajectory.angles(t) for t in times])
    assert (np.abs(q) < robot.POSITION_LIMITS).all()
    velocity = np.array([trajectory.velocities(t) for t in times])
    assert (np.abs(velocity) < robot.VELOCITY_LIMITS).all()
    assert np.allclose(np.gradient(q, times, axis=0)[2:-2], velocity[2:-2], atol=0.02)
    assert np.abs(velocity[[0, -1]]).max() < 1e-9
    for t in times[::20]:
        wanted = scene.cbct_to_world @ path_pose(scene, settings, t / settings.duration)
        assert np.abs(trajectory.probe_to_world(t) - wanted).max() < 0.3


def test_sweep_that_is_too_fast_or_out_of_reach_is_refused(scene):
    with pytest.raises(robot.BadRobotTarget, match="greatest speed"):
        plan(scene, SweepSettings(duration=0.5, pattern="paramedian"))
    far = transforms.make_transform(np.eye(3), [900.0, 0.0, 0.0]) @ scene.cbct_to_world
    away = type(scene)(scene.meshes, label_meshes(scene.meshes, 4.0), scene.skin, far)
    with pytest.raises(robot.BadRobotTarget, match="reach"):
        plan(away, SweepSettings())


@pytest.mark.parametrize(("change", "message"), [
    ({"duration": 0.0}, "sweep duration"), ({"duration": float("nan")}, "sweep duration"),
    ({"frame_rate": 0.0}, "sweep frame_rate"), ({"frame_rate": 1e4}, "sweep frame_rate"),
    ({"press": -1.0}, "sweep press"), ({"press": 99.0}, "sweep press"), ({"margin": 500.0}, "sweep margin"),
    ({"pattern": "zigzag"}, "must be one of midline, paramedian"),
])
def test_senseless_settings_are_refused(change, message):
    with pytest.raises(UsxError, match=message):
        SweepSettings(**change)


def test_number_of_frames():
    assert SweepSettings(duration=11.0, frame_rate=30.0).frames == 330
    assert SweepSettings(duration=0.5, frame_rate=1.0).frames == 2
