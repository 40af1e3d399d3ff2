"""Meshes and volumes: round trips through files, and files that must be refused."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from usx_common import meshes, volumes
from usx_common.errors import UsxError


@pytest.fixture
def sphere() -> meshes.Mesh:
    shape = trimesh.creation.icosphere(subdivisions=3, radius=10.0)
    return meshes.Mesh(shape.vertices, shape.faces)


@pytest.mark.parametrize("name", ["a.ply", "a.stl"])
def test_mesh_round_trip(tmp_path, sphere, name):
    path = tmp_path / name
    meshes.write_mesh(path, sphere, comment="mm, frame spine (LPS)")
    back = meshes.read_mesh(path)
    assert back.is_watertight
    assert len(back.vertices) == len(sphere.vertices)
    assert meshes.volume(back) == pytest.approx(meshes.volume(sphere), rel=1e-5)
    if name.endswith("ply"):
        assert b"comment mm, frame spine (LPS)" in path.read_bytes()[:400]


def test_volume_normals_and_samples_of_a_sphere(sphere):
    assert meshes.volume(sphere) == pytest.approx(4 / 3 * np.pi * 1000, rel=0.02)
    directions = sphere.vertices / 10.0
    assert np.einsum("ni,ni->n", meshes.vertex_normals(sphere), directions).min() > 0.99
    points = meshes.sample_surface(sphere, 20000, seed=4)
    np.testing.assert_array_equal(points, meshes.sample_surface(sphere, 20000, seed=4))
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=0.2)
    assert abs((points[:, 2] > 5).mean() - 0.25) < 0.015  # Archimedes: area goes with height


def test_a_mirror_turns_the_faces(sphere):
    mirrored = sphere.transformed(np.diag([-1.0, 1.0, 1.0, 1.0]))
    assert meshes.volume(mirrored) == pytest.approx(meshes.volume(sphere))


def test_bad_mesh_files_are_refused(tmp_path):
    (tmp_path / "cut.ply").write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex 10\n")
    (tmp_path / "empty.stl").write_bytes(b"")
    (tmp_path / "points.ply").write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
                                         "property float z\nend_header\n0 0 0\n")
    (tmp_path / "mesh.xyz").write_text("0 0 0")
    for name in ["cut.ply", "empty.stl", "points.ply", "mesh.xyz", "absent.ply"]:
        with pytest.raises(UsxError, match=name):
            meshes.read_mesh(tmp_path / name)
    with pytest.raises(UsxError, match="unknown kind"):
        meshes.write_mesh(tmp_path / "a.xyz", meshes.Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])))
    with pytest.raises(UsxError, match="no area"):
        meshes.sample_surface(meshes.Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), 10, 0)


@pytest.mark.parametrize("name", ["v.nrrd", "v.nii.gz", "v.mha"])
def test_volume_round_trip(tmp_path, name):
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    grid = volumes.VolumeGrid(np.array([1.0, -2.0, 3.0]), np.array([0.5, 1.0, 2.0]), (4, 3, 2), turn)
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volumes.write_volume(tmp_path / name, volumes.Volume(values, grid))
    back = volumes.read_volume(tmp_path / name)
    np.testing.assert_array_equal(back.values, values)
    np.testing.assert_allclose(back.grid.index_to_world, grid.index_to_world, atol=1e-5)
    np.testing.assert_allclose(back.grid.index_to_world @ [1, 0, 0, 1], [1.0, -1.5, 3.0, 1.0], atol=1e-5)


def test_bad_volumes_are_refused(tmp_path):
    (tmp_path / "cut.nrrd").write_text("NRRD0004\ntype: short\n")
    with pytest.raises(UsxError, match=r"cut\.nrrd"):
        volumes.read_volume(tmp_path / "cut.nrrd")
    with pytest.raises(UsxError, match="does not exist"):
        volumes.read_volume(tmp_path / "absent.mha")
    grid = volumes.VolumeGrid(np.zeros(3), np.ones(3), (4, 3, 2))
    with pytest.raises(UsxError, match="do not fit"):
        volumes.Volume(np.zeros((4, 3, 2)), grid)
    with pytest.raises(UsxError, match="unknown kind"):
        volumes.write_volume(tmp_path / "v.raw", volumes.Volume(np.zeros((2, 3, 4)), grid))
    with pytest.raises(UsxError, match="cannot be written"):
        volumes.write_volume(tmp_path / "no" / "v.nrrd", volumes.Volume(np.zeros((2, 3, 4)), grid))
    with pytest.raises(UsxError, match="positive"):
        volumes.VolumeGrid(np.zeros(3), np.array([1.0, 0.0, 1.0]), (1, 1, 1))
