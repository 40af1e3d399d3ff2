"""First hits of rays with meshes, against closed forms and against a test of every triangle."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_phantom.raycast import TriangleTree


def box(low, high):
    solid = trimesh.creation.box(bounds=[low, high])
    return Mesh(solid.vertices, solid.faces)


def sphere(centre, radius, subdivisions=5):
    solid = trimesh.creation.icosphere(subdivisions, radius)
    return Mesh(solid.vertices + centre, solid.faces)


def test_sphere_is_hit_where_the_quadratic_says() -> None:
    radius, centre = 30.0, np.array([5.0, -3.0, 11.0])
    random = np.random.default_rng(1)
    origins = centre + 100.0 * (lambda v: v / np.linalg.norm(v, axis=1, keepdims=True))(random.normal(size=(500, 3)))
    directions = centre + random.normal(scale=9.0, size=(500, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    hits = TriangleTree.build([sphere(centre, radius)]).cast(origins, directions)
    offset = origins - centre
    along = (offset * directions).sum(axis=1)
    expected = -along - np.sqrt(along**2 - (offset**2).sum(axis=1) + radius**2)
    outward = (origins + expected[:, None] * directions - centre) / radius
    # facets lie inside the sphere by up to edge^2 / (6 R) = 0.012 mm, which a slanting ray sees stretched
    assert (np.abs(hits.distance - expected) * -(outward * directions).sum(axis=1)).max() < 0.015
    assert ((hits.normal * outward).sum(axis=1) > 0.999).all()


def test_box_is_hit_at_its_faces_also_by_rays_along_the_axes() -> None:
    tree = TriangleTree.build([box([-1, -2, -3], [1, 2, 3])])
    origins = np.array([[10.0, 0.3, 0.2], [0.1, 10.0, 0.2], [0.1, 0.3, -10.0], [10.0, 2.5, 0.0], [0.1, 0.2, 0.3]])
    directions = np.array([[-1.0, 0, 0], [0, -1.0, 0], [0, 0, 1.0], [-1.0, 0, 0], [0, 0, 1.0]])
    hits = tree.cast(origins, directions)
    np.testing.assert_allclose(hits.distance, [9.0, 8.0, 7.0, np.inf, 2.7], atol=1e-9)
    assert hits.mesh.tolist() == [0, 0, 0, -1, 0]
    assert (hits.normal[3] == 0.0).all()


def test_the_nearest_of_several_meshes_is_met_and_reach_is_kept() -> None:
    tree = TriangleTree.build([box([20, -5, -5], [30, 5, 5]), box([5, -5, -5], [10, 5, 5])])
    origins, directions = np.zeros((1, 3)), np.array([[1.0, 0.0, 0.0]])
    assert tree.cast(origins, directions).mesh.tolist() == [1]
    assert np.isinf(tree.cast(origins, directions, reach=4.9).distance[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_the_tree_finds_what_testing_every_triangle_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    vertices = random.uniform(-10, 10, size=(90, 3))
    faces = random.permutation(90).reshape(30, 3)
    origin = random.uniform(-20, 20, size=3)
    direction = random.normal(size=3)
    direction /= np.linalg.norm(direction)
    hits = TriangleTree.build([Mesh(vertices, faces)]).cast(origin[None], direction[None])
    best = np.inf
    for a, b, c in vertices[faces]:  # origin + t d = a + u (b - a) + v (c - a)
        t, u, v = np.linalg.solve(np.column_stack([-direction, b - a, c - a]), origin - a)
        if t >= 0 and u >= 0 and v >= 0 and u + v <= 1:
            best = min(best, t)
    assert hits.distance[0] == pytest.approx(best, abs=1e-8) or np.isinf(best) == np.isinf(hits.distance[0])


def test_nothing_to_hit_is_refused() -> None:
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), int))
    broken = Mesh(np.array([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]]), np.array([[0, 1, 2]]))
    for meshes in ([], [empty], [broken]):
        with pytest.raises(UsxError):
            TriangleTree.build(meshes)
    with pytest.raises(UsxError, match="shapes"):
        TriangleTree.build([box([0, 0, 0], [1, 1, 1])]).cast(np.zeros((2, 3)), np.zeros((3, 3)))
