"""Fast furthest point sampling, rasterised views and near points, held against slow or closed-form answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from usx_common.clouds import farthest_points
from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_completion.data.raster import near_any, nearest_surface
from usx_completion.data.sampling_points import even_surface_points, farthest_points_fast, resample
from usx_completion.surface_distance import surface_distances


def clouds():
    random = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(9.0)] * 3), axis=-1).reshape(-1, 3)
    sphere = random.standard_normal((1500, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    return {"random": random.normal(size=(1200, 3)), "grid, many ties": grid, "surface": sphere,
            "every point three times": np.repeat(sphere[:400], 3, axis=0), "flat": sphere * [1.0, 1.0, 0.0],
            "one place": np.zeros((50, 3)), "one point": np.ones((1, 3))}


@pytest.mark.parametrize("name", clouds())
@pytest.mark.parametrize("start", [0, -1])
def test_fast_sampling_is_exactly_furthest_point_sampling(name, start):
    points = clouds()[name]
    start = start % len(points)
    count = min(len(points), 700)
    assert np.array_equal(farthest_points_fast(points, count, start), farthest_points(points, count, start))


@pytest.mark.parametrize("points, count", [(np.zeros((3, 3)), 4), (np.zeros((3, 3)), 0), (np.full((5, 3), np.nan), 2)])
def test_clouds_that_cannot_be_sampled_are_refused(points, count):
    with pytest.raises(UsxError):
        farthest_points_fast(points, count)


def test_a_small_cloud_is_repeated_and_a_large_one_begins_far_out():
    points = np.random.default_rng(0).normal(size=(10, 3))
    assert resample(points, 23).tolist() == [*range(10), *range(10), 0, 1, 2]
    assert resample(points, 4)[0] == np.linalg.norm(points, axis=1).argmax()
    with pytest.raises(UsxError, match="empty"):
        resample(points[:0], 4)


def test_surface_points_are_on_the_surface_and_evener_than_random_ones(shape_model):
    mesh = shape_model.mean_mesh("L3")
    points = even_surface_points(mesh, 1000, 5)
    assert surface_distances(points, mesh).max() < 1e-6
    gap = cKDTree(points).query(points, k=2)[0][:, 1]
    area = 0.5 * np.linalg.norm(np.cross(*(mesh.vertices[mesh.faces[:, k]] - mesh.vertices[mesh.faces[:, 0]]
                                           for k in (1, 2))), axis=1).sum()
    # random points are sqrt(area / n) / 2 from their nearest one on average; here even the closest pair is wider
    assert gap.min() > 0.5 * np.sqrt(area / 1000)


def test_a_triangle_fills_the_pixels_inside_it_and_the_nearer_one_wins():
    vertices = np.array([[1.0, 1.0, 2.0], [9.5, 1.0, 2.0], [1.0, 9.5, 2.0], [0.0, 0.0, 1.0], [18.5, 0.0, 1.0],
                         [0.0, 18.5, 1.0], [0.0, 0.0, -np.inf], [5.0, 0.0, 9.0], [0.0, 5.0, 9.0]])
    nearness, owner = nearest_surface(vertices, np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]], np.int32), 12, 11)
    column, row = np.meshgrid(np.arange(12), np.arange(11), indexing="ij")
    near = (column >= 1) & (row >= 1) & (column + row <= 10)
    far = ~near & (column + row <= 18)
    assert np.array_equal(owner, np.where(near, 0, np.where(far, 1, -1)))
    np.testing.assert_allclose(nearness, np.where(near, 2.0, np.where(far, 1.0, -np.inf)), rtol=1e-14)


def test_near_points_are_those_a_search_tree_finds():
    random = np.random.default_rng(8)
    points, others = random.uniform(-9, 9, (3000, 3)), random.uniform(-9, 9, (2500, 3)) + [4.0, 0.0, 0.0]
    expected = cKDTree(others).query(points)[0] <= 1.0
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(near_any(points, others, 1.0), expected)
    assert not near_any(points, others[:0], 1.0).any() and len(near_any(points[:0], others, 1.0)) == 0


def test_meshes_far_from_the_origin_sample_alike(shape_model):
    mesh = shape_model.mean_mesh("L2")
    far = Mesh(mesh.vertices + 512.0, mesh.faces)
    np.testing.assert_allclose(even_surface_points(far, 300, 1) - 512.0, even_surface_points(mesh, 300, 1), atol=1e-9)
