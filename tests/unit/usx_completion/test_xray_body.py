"""What a lateral X-ray shows as the vertebral body: the same place is cut in every kind of spine."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import apply, invert, rotation_about_axis
from usx_completion.data.spine_source import SourceChoice, open_source
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model
from usx_completion.xray_body import body_masks


@pytest.fixture(scope="module")
def spine():
    return open_source(SourceChoice("real", 7)).sample(0)


def _other_triangles(mesh: Mesh) -> Mesh:
    """The same surface with four triangles for each one, vertices in another order."""
    vertices, faces = trimesh.remesh.subdivide(mesh.vertices, mesh.faces)
    order = np.random.default_rng(3).permutation(len(vertices))
    return Mesh(vertices[order], np.argsort(order)[faces])


def _box(mesh: Mesh, mask, pose):
    """Low and high corner (2, 3) of the faces of a mask in the level's frame."""
    vertices = apply(invert(pose), mesh.vertices)
    used = np.unique(mesh.faces[mask[mesh.faces].all(axis=1)])
    return np.stack([vertices[used].min(axis=0), vertices[used].max(axis=0)])


def test_a_mesh_of_other_triangles_is_cut_where_the_sampled_spine_is(spine):
    meshes = {level: _other_triangles(mesh) for level, mesh in spine.meshes.items()}
    found = body_masks(meshes)
    middles = []
    for level in LEVELS:
        own = _box(spine.meshes[level], spine.body[level], spine.level_to_spine[level])
        other = _box(meshes[level], found[level], spine.level_to_spine[level])
        assert np.abs(own - other)[:, 1:].max() < 2.0  # the triangles are 2 mm wide
        middles.append((other - own).mean(axis=0)[1])
    # what would be read as an X-ray turned in its plane: a slope over the levels, 35 mm apart
    assert abs(np.polyfit(35.0 * np.arange(5), middles, 1)[0]) < np.radians(0.5)


def test_no_mask_reaches_into_the_arch_or_the_processes():
    model, _ = load_shape_model(PACKAGED_REAL)
    for mean, body in zip(model.means, model.xray_bodies, strict=True):
        tip = mean[np.argmax(mean[:, 1])]
        widest = mean[np.abs(mean[:, 0]) > 0.95 * np.abs(mean[:, 0]).max()]
        assert mean[body, 1].max() < 0.5 * tip[1] and np.abs(mean[body, 0]).max() < np.abs(widest[:, 0]).min()
        # the canal's front edge, found another way: the widest gap along y behind the body's middle
        middle = np.sort(mean[(np.abs(mean[:, 0]) < 3.0) & (np.abs(mean[:, 2]) < 8.0), 1])
        gap = np.argmax(np.diff(middle) * (middle[:-1] > 5.0))
        assert abs(mean[body, 1].max() - middle[gap]) < 3.0


def test_the_mask_moves_with_the_mesh(spine):
    mesh = spine.meshes["L5"]
    turn = rotation_about_axis([1.0, 0.0, 0.0], np.radians(12.0))
    moved = Mesh(mesh.vertices @ turn.T + [30.0, -20.0, 400.0], mesh.faces)
    still, turned = body_masks({"L5": mesh})["L5"], body_masks({"L5": moved})["L5"]
    assert 0.3 < still.mean() < 0.6 and np.mean(still != turned) < 0.01
