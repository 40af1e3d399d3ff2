"""Bones that touch: depths of known overlaps, poses and joint surfaces that give way."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import make_transform
from usx_completion.contact import fit_joints, overlaps, separate

RADIUS = 20.0


@pytest.fixture(scope="module")
def balls():
    ball = trimesh.creation.icosphere(4, RADIUS)
    mesh = Mesh(np.asarray(ball.vertices), np.asarray(ball.faces))
    return np.stack([mesh.vertices] * 3), np.stack([vertex_normals(mesh)] * 3)


def stack(*heights):
    return np.stack([make_transform(np.eye(3), [0.0, 0.0, height]) for height in heights])


def depth(shapes, normals, poses, upper=0):
    return overlaps(shapes, normals, poses)[upper]


def test_the_depth_of_overlapping_balls_is_that_of_the_geometry(balls):
    assert depth(*balls, stack(37.0, 0.0, -60.0)) == pytest.approx(3.0, abs=0.15)
    assert depth(*balls, stack(40.5, 0.0, -60.0)) == 0.0
    assert depth(*balls, stack(90.0, 0.0, -60.0)) == 0.0


def test_poses_give_way_until_bones_are_clear_and_what_hangs_on_them_follows(balls):
    before = stack(38.0, 0.0, -38.0)
    poses, deepest = separate(*balls, before, fixed=0, rounds=60)
    assert deepest <= 0.3
    np.testing.assert_array_equal(poses[0], before[0])
    steps = -np.diff(poses[:, 2, 3])
    assert (steps > 39.5).all() and (steps < 41.0).all()


def test_bones_that_do_not_touch_stay_where_they_are(balls):
    before = stack(45.0, 0.0, -45.0)
    poses, deepest = separate(*balls, before, fixed=1)
    np.testing.assert_allclose(poses, before, atol=1e-12)
    assert deepest == 0.0


def test_joint_surfaces_draw_back_by_half_the_depth_each_and_only_there(balls):
    shapes, normals = balls
    poses = stack(38.0, 0.0, -60.0)
    fitted, deepest = fit_joints(shapes, normals, poses)
    assert deepest <= 0.3
    moved = np.linalg.norm(fitted - shapes, axis=2)
    assert moved[0].max() == pytest.approx(1.0, abs=0.35) and moved[1].max() == pytest.approx(1.0, abs=0.35)
    assert moved[2].max() == 0.0
    assert moved[0][shapes[0][:, 2] > 0.0].max() == 0.0  # the far side
