"""Folders of people's meshes: what is read, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from usx_common.meshes import Mesh, volume, write_mesh
from usx_completion.mesh_subjects import BadMeshes, mirrored, read_subjects

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def vertebra(shape_model):
    return shape_model.mean_mesh("L3")


def put(folder, name, level, mesh, height=0.0, axes=RAS, suffix=".ply"):
    (folder / name).mkdir(exist_ok=True)
    moved = mesh.transformed(axes)
    write_mesh(folder / name / f"{level}{suffix}", Mesh(moved.vertices + [0.0, 0.0, height], moved.faces))


def test_people_may_give_some_levels_only_in_either_axes_and_format(tmp_path, vertebra):
    put(tmp_path, "anna", "L1", vertebra, 70.0)
    put(tmp_path, "anna", "L3", vertebra, suffix=".stl")
    put(tmp_path, "all_mean87", "L2", vertebra)
    (tmp_path / "notes").mkdir()
    mean, anna = read_subjects(tmp_path)
    assert (mean.name, mean.people, mean.posed) == ("all_mean87", 87, False)
    assert (anna.name, anna.people, anna.posed) == ("anna", 1, True)
    assert list(anna.meshes) == ["L1", "L3"]
    for mesh in anna.meshes.values():
        assert volume(mesh) > 0.0
    np.testing.assert_allclose(np.ptp(anna.meshes["L3"].vertices, axis=0), np.ptp(vertebra.vertices, axis=0), atol=1e-4)
    assert anna.meshes["L3"].vertices[:, 1].max() == pytest.approx(vertebra.vertices[:, 1].max(), abs=1e-4)  # LPS


def test_levels_without_a_common_frame_are_shapes_without_poses(tmp_path, vertebra):
    put(tmp_path, "ben", "L1", vertebra)
    put(tmp_path, "ben", "L2", vertebra, -2.0)
    assert not read_subjects(tmp_path)[0].posed


def test_people_and_single_levels_can_be_left_out(tmp_path, vertebra):
    for name in ("anna", "ben"):
        put(tmp_path, name, "L1", vertebra, 35.0)
        put(tmp_path, name, "L2", vertebra)
    found = read_subjects(tmp_path, exclude=["anna", "ben/L2"])
    assert [(one.name, list(one.meshes)) for one in found] == [("ben", ["L1"])]


def test_inward_faces_are_turned_and_mirroring_keeps_them_outward(tmp_path, vertebra):
    put(tmp_path, "anna", "L3", Mesh(vertebra.vertices, vertebra.faces[:, ::-1]))
    mesh = read_subjects(tmp_path)[0].meshes["L3"]
    assert volume(mesh) > 0.0
    assert volume(mirrored(mesh)) == pytest.approx(volume(mesh))


def _open(folder, mesh):
    put(folder, "anna", "L3", Mesh(mesh.vertices, mesh.faces[5:]))


def _metres(folder, mesh):
    put(folder, "anna", "L3", Mesh(mesh.vertices / 1000.0, mesh.faces))


def _wrong_axes(folder, mesh):
    put(folder, "anna", "L3", mesh, axes=np.eye(4))


def _upside_down(folder, mesh):
    put(folder, "anna", "L1", mesh)
    put(folder, "anna", "L2", mesh, 35.0)


def _twice(folder, mesh):
    put(folder, "anna", "L3", mesh)
    put(folder, "anna", "L3", mesh, suffix=".stl")


def _nothing(folder, mesh):
    (folder / "anna").mkdir()


@pytest.mark.parametrize("make, words", [
    (_open, "anna/L3.ply is not closed"), (_metres, "mm wide.*convert"), (_wrong_axes, "try --axes LPS"),
    (_upside_down, "L1 lies 35 mm below L2"), (_twice, "L3 twice"), (_nothing, "no folder with L1"),
])
def test_meshes_that_would_spoil_a_model_are_refused(tmp_path, vertebra, make, words):
    make(tmp_path, vertebra)
    with pytest.raises(BadMeshes, match=words):
        read_subjects(tmp_path)


def test_a_folder_an_axis_or_an_exclusion_that_is_not_there_is_refused(tmp_path, vertebra):
    put(tmp_path, "anna", "L3", vertebra)
    with pytest.raises(BadMeshes, match="does not exist"):
        read_subjects(tmp_path / "nowhere")
    with pytest.raises(BadMeshes, match="axes 'LAS'"):
        read_subjects(tmp_path, "LAS")
    with pytest.raises(BadMeshes, match="no anne to exclude"):
        read_subjects(tmp_path, exclude=["anne"])
