"""Transforms against pytransform3d, an independent library, over random motions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytransform3d import transformations as pt

from usx_common import transforms
from usx_common.errors import UsxError

number = st.floats(-500.0, 500.0, allow_nan=False, width=32)
vector = arrays(np.float64, 3, elements=number)


@st.composite
def rigid(draw: st.DrawFn, largest_turn: float = 3.0) -> np.ndarray:
    axis = draw(arrays(np.float64, 3, elements=st.floats(-1.0, 1.0))) + np.array([0.0, 0.0, 1e-3])
    angle = draw(st.floats(-largest_turn, largest_turn))
    return transforms.make_transform(transforms.rotation_about_axis(axis, angle), draw(vector))


@given(rigid(), rigid(), vector)
def test_composition_and_application_agree_with_the_oracle(a_to_b, b_to_c, point):
    expected = pt.transform(pt.concat(a_to_b, b_to_c), pt.vector_to_point(point))[:3]
    np.testing.assert_allclose(transforms.apply(b_to_c @ a_to_b, point), expected, atol=1e-8)


@given(rigid())
def test_inverse_agrees_with_the_oracle(a_to_b):
    np.testing.assert_allclose(transforms.invert(a_to_b), pt.invert_transform(a_to_b), atol=1e-9)


@given(rigid())
def test_quaternion_round_trip_and_sign(a_to_b):
    translation, quaternion = transforms.to_quaternion(a_to_b)
    assert quaternion[3] >= 0
    np.testing.assert_allclose(transforms.from_quaternion(translation, quaternion), a_to_b, atol=1e-9)
    xyz_wxyz = np.r_[translation, quaternion[3], quaternion[:3]]
    np.testing.assert_allclose(pt.transform_from_pq(xyz_wxyz), a_to_b, atol=1e-9)


@given(rigid(), rigid(largest_turn=2.5), st.floats(0.0, 1.0))
def test_screw_interpolation_agrees_with_the_oracle(start, motion, fraction):
    end = start @ motion
    logarithm = pt.exponential_coordinates_from_transform(pt.concat(end, pt.invert_transform(start)))
    expected = pt.concat(pt.transform_from_exponential_coordinates(fraction * logarithm), start)
    np.testing.assert_allclose(transforms.interpolate_screw(start, end, fraction), expected, atol=1e-6)


@given(rigid(), rigid(largest_turn=2.5))
def test_screw_interpolation_hits_both_ends_and_runs_backwards(start, motion):
    end = start @ motion
    np.testing.assert_allclose(transforms.interpolate_screw(start, end, 0.0), start, atol=1e-9)
    np.testing.assert_allclose(transforms.interpolate_screw(start, end, 1.0), end, atol=1e-6)
    np.testing.assert_allclose(transforms.interpolate_screw(start, end, 0.3),
                               transforms.interpolate_screw(end, start, 0.7), atol=1e-6)


@given(rigid(), arrays(np.float64, (3, 3), elements=st.floats(-0.05, 0.05)))
def test_nearest_rigid_is_rigid_and_no_rotation_is_nearer(a_to_b, shear):
    affine = a_to_b.copy()
    affine[:3, :3] = a_to_b[:3, :3] @ (np.eye(3) + shear)
    near = transforms.nearest_rigid(affine)
    assert transforms.is_rigid(near, 1e-9)
    best = np.linalg.norm(near[:3, :3] - affine[:3, :3])
    for axis in np.eye(3):
        other = near[:3, :3] @ transforms.rotation_about_axis(axis, 1e-3)
        assert np.linalg.norm(other - affine[:3, :3]) >= best - 1e-12


def test_rotation_angle_of_a_known_turn():
    turn = transforms.make_transform(transforms.rotation_about_axis([0, 0, 2], 0.25), [1, 2, 3])
    assert transforms.rotation_angle(turn) == pytest.approx(0.25)


@pytest.mark.parametrize(("numbers", "words"), [
    (np.eye(3).ravel(), "9 numbers"),
    (np.full(16, np.nan), "not finite"),
    (np.eye(4).T.ravel() + np.eye(4, k=-3).ravel() * 5, "last row"),
    (np.diag([1.0, 1.0, 0.0, 1.0]).ravel(), "not independent"),
])
def test_a_bad_matrix_is_refused_and_named(numbers, words):
    with pytest.raises(UsxError, match="image_to_probe") as caught:
        transforms.parse_matrix(numbers, "image_to_probe")
    assert words in str(caught.value)


@pytest.mark.parametrize("call", [
    lambda: transforms.from_quaternion([0, 0, 0], [0, 0, 0, 0]),
    lambda: transforms.from_quaternion([0, 0, 0], [np.nan, 0, 0, 1]),
    lambda: transforms.invert(np.diag([1.0, 0.0, 1.0, 1.0])),
    lambda: transforms.nearest_rigid(np.diag([1.0, -1.0, 1.0, 1.0])),
    lambda: transforms.rotation_about_axis([0, 0, 0], 1.0),
])
def test_what_is_no_motion_is_refused(call):
    with pytest.raises(UsxError):
        call()
