"""Meshes of real vertebrae: axes, levels, units and closedness are checked before anything is made of them."""

import shutil

import numpy as np
import pytest
import trimesh

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, write_mesh
from usx_phantom.anatomy import BadAnatomy, centre_of_mass, spinous_is_posterior
from usx_phantom.mesh_import import read_spine
from usx_phantom.spine import mean_spine

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def spine():
    return mean_spine(spacing=2.4).meshes


@pytest.fixture(scope="module")
def folder(tmp_path_factory, spine):
    """L1..L5 as PLY in RAS, far from the origin as scanners place them."""
    path = tmp_path_factory.mktemp("ras")
    for level, mesh in spine.items():
        moved = Mesh(mesh.vertices + (30.0, -120.0, 800.0), mesh.faces)
        write_mesh(path / f"{level}.ply", moved.transformed(RAS))
    return path


def test_ras_meshes_come_back_in_lps_near_the_origin(folder, spine):
    read = read_spine(folder, "RAS")
    shift = read["L3"].vertices - spine["L3"].vertices
    assert np.allclose(shift, shift[0], atol=1e-3)
    assert np.abs(0.5 * (read["L3"].vertices.min(0) + read["L3"].vertices.max(0))).max() <= 0.51
    for level in LEVELS:
        assert np.allclose(read[level].vertices - spine[level].vertices, shift[0], atol=1e-3)


def test_lps_and_stl_give_the_same_bones(tmp_path, spine, folder):
    for level, mesh in spine.items():
        moved = Mesh(mesh.vertices + (30.0, -120.0, 800.0), mesh.faces)
        write_mesh(tmp_path / f"{level.lower()}.stl", moved)
    there, here = read_spine(tmp_path, "LPS"), read_spine(folder, "RAS")
    for level in LEVELS:
        assert np.allclose(there[level].vertices.min(0), here[level].vertices.min(0), atol=0.01)


def test_inside_out_meshes_are_turned(tmp_path, spine):
    for level, mesh in spine.items():
        write_mesh(tmp_path / f"{level}.ply", Mesh(mesh.vertices, mesh.faces[:, ::-1]))
    for mesh in read_spine(tmp_path, "LPS").values():
        assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).volume > 0


def remove_level(path):
    (path / "L4.ply").unlink()


def add_twin(path):
    mesh = trimesh.load(path / "L2.ply", process=False)
    mesh.export(path / "L2.stl")


def open_one(path):
    mesh = trimesh.load(path / "L5.ply", process=False)
    write_mesh(path / "L5.ply", Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces)[:-30]))


def swap_ends(path):
    (path / "L1.ply").rename(path / "x")
    (path / "L5.ply").rename(path / "L1.ply")
    (path / "x").rename(path / "L5.ply")


def change(path, function):
    for level in LEVELS:
        mesh = trimesh.load(path / f"{level}.ply", process=False)
        write_mesh(path / f"{level}.ply", Mesh(function(np.asarray(mesh.vertices)), np.asarray(mesh.faces)))


def in_metres(path):
    change(path, lambda v: v * 1e-3)


def face_right(path):
    change(path, lambda v: v[:, [1, 0, 2]] * (1, -1, 1))


def upside_down(path):
    change(path, lambda v: v * (-1, 1, -1))


def on_one_spot(path):
    change(path, lambda v: v - v.mean(0))


def garbage(path):
    (path / "L3.ply").write_bytes(b"ply\nnonsense")


@pytest.mark.parametrize(("spoil", "axes", "message"), [
    (remove_level, "RAS", "no L4.ply"), (add_twin, "RAS", "L2 twice"), (open_one, "RAS", "L5.ply is not closed"),
    (swap_ends, "RAS", "L1 .*L2"), (in_metres, "RAS", "convert it to mm"),
    (face_right, "RAS", "spinous process"), (upside_down, "RAS", "z must point to the head"),
    (on_one_spot, "RAS", "L1"), (garbage, "RAS", "L3.ply"), (lambda path: None, "LPS", "try --axes RAS"),
    (lambda path: None, "XYZ", "must be one of LPS, RAS"),
])
def test_wrong_anatomy_is_refused_by_name(tmp_path, folder, spoil, axes, message):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    spoil(copy)
    with pytest.raises(ValueError, match=message):
        read_spine(copy, axes)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(BadAnatomy, match="does not exist"):
        read_spine(tmp_path / "nothing")


def test_centre_of_mass_against_trimesh(spine):
    for mesh in spine.values():
        oracle = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).center_mass
        assert np.allclose(centre_of_mass(mesh), oracle, atol=1e-6)


@pytest.mark.real_data
def test_every_real_vertebra_is_told_front_from_back(usx_data):
    files = sorted((usx_data / "shapes").glob("*/L?.ply"))[::2]
    assert len(files) > 15
    for path in files:
        loaded = trimesh.load(path, process=False)
        mesh = Mesh(np.asarray(loaded.vertices), np.asarray(loaded.faces)).transformed(RAS)
        if loaded.volume < 0:
            mesh = Mesh(mesh.vertices, mesh.faces[:, ::-1])
        assert spinous_is_posterior(mesh), path
        assert not spinous_is_posterior(mesh.transformed(RAS)), path


@pytest.mark.real_data
@pytest.mark.parametrize("subject", ["verse004", "verse008", "verse009", "verse010"])
def test_full_columns_are_read(usx_data, subject):
    assert list(read_spine(usx_data / "shapes" / subject)) == list(LEVELS)
