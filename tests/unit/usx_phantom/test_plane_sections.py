"""Sections by planes against closed-form outlines."""

import numpy as np
import pytest
import trimesh

from usx_common.meshes import Mesh
from usx_phantom.plane_sections import section


def mesh_of(solid):
    return Mesh(np.asarray(solid.vertices), np.asarray(solid.faces))


@pytest.mark.parametrize("height", [0.0, 6.0, -8.0])
def test_section_of_a_ball_is_a_circle(height):
    outline = section(mesh_of(trimesh.creation.icosphere(5, 10.0)), 2, height)
    radius = np.linalg.norm(outline.points, axis=1)
    assert np.allclose(radius, np.sqrt(100.0 - height**2), atol=0.03)
    assert set(outline.pieces) == {0}
    length = np.linalg.norm(outline.segments[:, 1] - outline.segments[:, 0], axis=1).sum()
    assert length == pytest.approx(2.0 * np.pi * np.sqrt(100.0 - height**2), rel=0.01)


def test_a_ring_is_cut_into_two_outlines_and_rays_meet_its_walls():
    ring = mesh_of(trimesh.creation.torus(20.0, 5.0, 128, 64))
    across = section(ring, 0, 0.0)
    assert len(np.unique(across.pieces)) == 2
    for piece in np.unique(across.pieces):
        centre = np.sign(across.piece(piece)[:, 0].mean()) * np.array([20.0, 0.0])
        assert np.allclose(np.linalg.norm(across.piece(piece) - centre, axis=1), 5.0, atol=0.05)
    flat = section(ring, 2, 0.0)
    assert np.allclose(flat.crossings(np.zeros(2), np.array([3.0, 4.0])), (15.0, 25.0), atol=0.05)
    assert np.allclose(flat.crossings(np.array([30.0, 0.0]), np.array([-1.0, 0.0])), (5, 15, 45, 55), atol=0.05)


def test_a_plane_through_vertices_and_one_beside_the_mesh():
    box = mesh_of(trimesh.creation.box((10.0, 6.0, 4.0)))
    assert len(section(box, 2, 3.0).segments) == 0
    assert len(section(box, 2, 3.0).crossings(np.zeros(2), np.array([1.0, 0.0]))) == 0
    outline = section(box, 0, -5.0)  # the plane of a face
    assert np.allclose(np.ptp(outline.segments.reshape(-1, 2), axis=0), (6.0, 4.0))
