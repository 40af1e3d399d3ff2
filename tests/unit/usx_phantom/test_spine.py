"""Sampled spines: five separate bones in order, with discs, lordosis and corresponding vertices; label maps; scene."""

import itertools

import numpy as np
import open3d
import pytest
import trimesh

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.levels import LEVELS, label_of_level
from usx_common.meshes import Mesh
from usx_phantom.phantom_scene import body_centres, build_scene
from usx_phantom.spine import SpineSettings, mean_spine, sample_spine
from usx_phantom.voxels import label_meshes

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def spines():
    return {seed: sample_spine(seed) for seed in SEEDS}


def signed_distance(mesh, points):
    """Oracle: open3d's ray casting, negative inside."""
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(mesh.vertices.astype(np.float32)),
                        open3d.core.Tensor(mesh.faces.astype(np.uint32)))
    return scene.compute_signed_distance(open3d.core.Tensor(points.astype(np.float32))).numpy()


@pytest.mark.parametrize("seed", SEEDS)
def test_bones_are_closed_and_do_not_overlap(spines, seed):
    meshes = spines[seed].meshes
    for level in LEVELS:
        assert trimesh.Trimesh(meshes[level].vertices, meshes[level].faces, process=False).is_watertight
    for upper, lower in itertools.pairwise(LEVELS):
        for a, b in ((upper, lower), (lower, upper)):
            distance = signed_distance(meshes[b], meshes[a].vertices)
            assert distance.min() > -0.4
            assert (distance < 0).mean() < 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_levels_stand_in_order_with_discs_and_lordosis(spines, seed):
    poses = spines[seed].vertebra_to_patient
    centres = np.array([poses[level][:3, 3] for level in LEVELS])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert (np.diff(centres[:, 2]) < -20).all()
    assert ((steps > 27) & (steps < 45)).all()
    tilt = [np.degrees(np.arctan2(poses[level][2, 1], poses[level][1, 1])) for level in LEVELS]
    assert 15 < tilt[4] - tilt[0] < 60  # lordosis of L1-L5, degrees
    assert all(transforms.is_rigid(pose) for pose in poses.values())


def test_vertebra_frame_has_its_origin_in_the_body_and_the_process_behind(spines):
    for level in LEVELS:
        mesh = spines[0].local(level)
        assert signed_distance(mesh, np.zeros((1, 3)))[0] < -8.0
        tip = mesh.vertices[mesh.vertices[:, 1].argmax()]
        assert abs(tip[0]) < 8.0 and tip[1] > 45.0
        assert abs(mesh.vertices[:, 0].max() + mesh.vertices[:, 0].min()) < 12.0


def test_same_seed_same_bytes_and_faces_correspond(spines):
    again = sample_spine(1)
    for level in LEVELS:
        assert np.array_equal(again.meshes[level].vertices, spines[1].meshes[level].vertices)
        assert np.array_equal(spines[0].meshes[level].faces, spines[2].meshes[level].faces)
        assert not np.array_equal(spines[0].meshes[level].vertices, spines[2].meshes[level].vertices)


def test_no_amplitude_gives_the_mean_of_a_sex():
    calm = SpineSettings(amplitude=0.0, lordosis_sd=0.0, tilt_sd=0.0, bend_sd=0.0, disc_sd=0.0, warp_sd=0.0)
    still, mean = sample_spine(4, calm, 2.4), mean_spine(2.4)
    ratio = np.ptp(still.meshes["L3"].vertices[:, 0]) / np.ptp(mean.meshes["L3"].vertices[:, 0])
    assert 0.9 < ratio < 1.1 and abs(ratio - 1.0) > 0.01


def test_label_map_holds_the_volume_of_each_bone(spines):
    meshes = spines[2].meshes
    labels = label_meshes(meshes, 0.8)
    assert labels.values.dtype == np.uint8
    assert set(np.unique(labels.values)) == {0, 20, 21, 22, 23, 24}
    for level in LEVELS:
        voxels = (labels.values == label_of_level(level)).sum() * 0.8**3
        solid = trimesh.Trimesh(meshes[level].vertices, meshes[level].faces, process=False)
        assert voxels == pytest.approx(solid.volume, rel=0.01)
    rng = np.random.default_rng(0)
    index = rng.integers(0, labels.grid.size, (4000, 3))
    points = labels.grid.origin + index * 0.8
    inside = signed_distance(meshes["L3"], points)
    clear = np.abs(inside) > 0.05
    found = labels.values[index[:, 2], index[:, 1], index[:, 0]] == label_of_level("L3")
    assert (found == (inside < 0))[clear].all()


def test_label_map_of_a_box_is_exact():
    box = trimesh.creation.box((10.0, 6.0, 4.0))
    meshes = {"L1": Mesh(np.asarray(box.vertices) + 0.25, np.asarray(box.faces))}
    labels = label_meshes(meshes, 0.5, margin=2.0)
    assert (labels.values == 20).sum() == 20 * 12 * 8


@pytest.mark.parametrize("spacing", [0.0, -1.0, 50.0, float("nan")])
def test_senseless_voxels_are_refused(spines, spacing):
    with pytest.raises(UsxError, match="voxel spacing"):
        label_meshes(spines[0].meshes, spacing)


def test_scene_puts_a_prone_patient_under_a_skin(spines):
    scene = build_scene(spines[1].meshes, seed=1, spacing=1.5)
    assert transforms.is_rigid(scene.cbct_to_world)
    up = scene.cbct_to_world[:3, :3] @ (0, 1, 0)
    head = scene.cbct_to_world[:3, :3] @ (0, 0, 1)
    assert up[2] > 0.98 and head[1] > 0.98
    vertices = np.concatenate([mesh.vertices for mesh in scene.meshes.values()])
    clearance = scene.skin.height(vertices[:, 0], vertices[:, 2]) - vertices[:, 1]
    assert 12.0 < clearance.min() < 22.0
    assert scene.skin.inside(vertices).all()
    assert not scene.skin.inside(vertices + (0, 200, 0)).any()


def test_body_centres_of_the_label_map_are_those_of_the_vertebra_frames(spines):
    labels = label_meshes(spines[0].meshes, 1.0)
    for level, centre in body_centres(labels).items():
        assert np.linalg.norm(centre - spines[0].vertebra_to_patient[level][:3, 3]) < 5.0
