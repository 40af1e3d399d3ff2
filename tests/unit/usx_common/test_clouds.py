"""Cloud helpers against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from usx_common import clouds
from usx_common.errors import UsxError

cloud = arrays(np.float64, st.tuples(st.integers(1, 60), st.just(3)), elements=st.floats(-50, 50, width=32))


@given(cloud, st.randoms(use_true_random=False))
def test_voxel_downsampling_ignores_the_order_and_keeps_the_mean(points, shuffler):
    order = list(range(len(points)))
    shuffler.shuffle(order)
    first = clouds.voxel_downsample(points, 7.0)
    np.testing.assert_array_equal(first, clouds.voxel_downsample(points[order], 7.0))
    keys, counts = np.unique(np.floor(points / 7.0), axis=0, return_counts=True)
    assert len(first) == len(keys)
    np.testing.assert_allclose(np.sort(clouds.voxel_downsample(points, 1e3).sum(axis=0)),
                               np.sort(sum(points[(np.floor(points / 1e3) == key).all(1)].mean(0)
                                           for key in np.unique(np.floor(points / 1e3), axis=0))), atol=1e-9)
    assert counts.sum() == len(points)


@settings(max_examples=25)
@given(cloud)
def test_furthest_points_are_the_greedy_choice(points):
    count = min(5, len(points))
    chosen = clouds.farthest_points(points, count)
    distance = np.full(len(points), np.inf)
    current = 0
    for expected in chosen:
        assert expected == current
        distance = np.minimum(distance, ((points - points[current]) ** 2).sum(axis=1))
        current = int(distance.argmax())


def test_normals_of_a_plane():
    random = np.random.default_rng(1)
    points = np.c_[random.uniform(-10, 10, (200, 2)), np.zeros(200)]
    np.testing.assert_allclose(np.abs(clouds.estimate_normals(points)[:, 2]), 1.0, atol=1e-9)


def test_the_largest_cluster_is_found():
    random = np.random.default_rng(2)
    far = random.normal([40, 0, 0], 0.5, (30, 3))
    near = random.normal([0, 0, 0], 0.5, (50, 3))
    mask = clouds.largest_cluster(np.r_[far, near], radius_mm=2.0)
    np.testing.assert_array_equal(mask, np.r_[np.zeros(30, bool), np.ones(50, bool)])


def test_principal_axes_of_a_box():
    random = np.random.default_rng(3)
    points = random.uniform(-1, 1, (4000, 3)) * [5, 30, 12] + [100, 200, 300]
    centroid, axes, extents = clouds.principal_axes(points)
    np.testing.assert_allclose(centroid, [100, 200, 300], atol=1.0)
    np.testing.assert_allclose(np.abs(axes), [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=0.05)
    np.testing.assert_allclose(extents, [60, 24, 10], rtol=0.05)


@pytest.mark.parametrize("call", [
    lambda: clouds.bounds(np.empty((0, 3))),
    lambda: clouds.voxel_downsample(np.zeros((1, 3)), 0.0),
    lambda: clouds.farthest_points(np.zeros((2, 3)), 3),
    lambda: clouds.nearest_distances(np.zeros((1, 3)), np.empty((0, 3))),
    lambda: clouds.estimate_normals(np.zeros((2, 3))),
    lambda: clouds.principal_axes(np.zeros((2, 3))),
])
def test_clouds_that_are_too_small_are_refused(call):
    with pytest.raises(UsxError):
        call()


def test_empty_clouds_that_have_an_answer():
    assert clouds.voxel_downsample(np.empty((0, 3)), 1.0).shape == (0, 3)
    assert clouds.largest_cluster(np.empty((0, 3)), 1.0).shape == (0,)
    assert clouds.finite_rows(np.array([[0, 1, 2], [np.nan, 0, 0]])).tolist() == [True, False]
