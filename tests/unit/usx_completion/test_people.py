"""Statistics of people who give some levels only: known modes come back, weights count, nobody explains themselves."""

from __future__ import annotations

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_common.transforms import apply, make_transform, rotation_about_axis
from usx_completion.leave_one_out import leave_one_out, process_fit
from usx_completion.people import People, analyse, weighted_components
from usx_completion.rigid import align

PEOPLE = 9


@pytest.fixture(scope="module")
def truth(shape_model):
    """Two orthonormal displacement fields without rigid part, of 60 and 25 mm over all vertices."""
    random = np.random.default_rng(3)
    mean = shape_model.means[2]
    centred = mean - mean.mean(axis=0)
    fields = [np.sin(centred / 20.0).ravel(), (centred[:, [1, 2, 0]] ** 2 / 900.0).ravel()]
    rigid = [np.tile(axis, (len(mean), 1)).ravel() for axis in np.eye(3)]
    rigid += [np.cross(axis, centred).ravel() for axis in np.eye(3)]
    basis = np.linalg.qr(np.stack([*rigid, *fields], axis=1))[0][:, 6:].T
    scores = random.normal(size=(PEOPLE, 2)) * [60.0, 25.0]
    scores -= scores.mean(axis=0)
    return basis, scores


@pytest.fixture(scope="module")
def people(shape_model, truth):
    """Each person gives two levels (the first ones one), anywhere in space; both levels are alike."""
    basis, scores = truth
    random = np.random.default_rng(4)
    shapes, levels, subjects = [], [], []
    for person, score in enumerate(scores):
        for level in (1, 2) if person > 1 else (1,):
            shape = shape_model.means[2] + (score @ basis).reshape(-1, 3)
            pose = make_transform(rotation_about_axis(random.normal(size=3), 0.1), random.normal(size=3) * 50.0)
            shapes.append(apply(pose, shape))
            levels.append(level)
            subjects.append(person)
    count = len(shapes)
    return People(np.stack(shapes), np.array(levels), np.array(subjects), np.zeros(count, int), np.zeros(count, int),
                  np.ones(count), np.ones(count))


def test_known_modes_come_back(people, truth, shape_model):
    basis, _ = truth
    found = analyse(people, shape_model.body, 5)
    power = found.values**2 / np.sum(found.values**2)
    assert power[:2].sum() > 0.99  # rigid alignment is not linear: a little spills over
    level = align(found.means[2], shape_model.means[2])  # the level's frame may be turned against the prior's
    turned = found.directions[:2].reshape(2, -1, 3) @ level[:3, :3].T
    overlap = np.linalg.svd(turned.reshape(2, -1) @ basis.T)[1]
    assert (overlap > 0.98).all()
    assert np.isnan(found.means[[0, 3, 4]]).all() and not np.isnan(found.means[[1, 2]]).any()


def test_somebody_left_out_is_explained_by_modes_that_span_them_and_not_by_fewer(people, shape_model):
    left_out = leave_one_out(people, shape_model.body, shape_model.faces, (0, 1, 6))
    assert sorted(set(left_out.subjects)) == list(range(PEOPLE))
    to_mean, one, all_ = left_out.vertex_mm.mean(axis=0)
    assert all_ < 0.1 * one < 0.1 * to_mean
    assert (left_out.normal_mm <= left_out.vertex_mm + 1e-12).all()
    assert np.isnan(left_out.by_level(left_out.normal_mm)[0]).all()


def test_numbers_of_modes_that_others_do_not_have_are_not_named(people, shape_model):
    left_out = leave_one_out(people, shape_model.body, shape_model.faces, (0, 5, 12, 40, 60))
    fewest = min(len(analyse(people.rows(people.subjects != person), shape_model.body, 60).values)
                 for person in range(PEOPLE))
    assert left_out.mode_counts == tuple(sorted({min(count, fewest) for count in (0, 5, 12, 40, 60)}))
    assert left_out.normal_mm.shape[1] == len(left_out.mode_counts)


def test_nobody_is_explained_by_their_own_mirror_image(people, shape_model):
    both = People(*(np.concatenate([getattr(people, name)] * 2) for name in people.__dataclass_fields__))
    object.__setattr__(both, "copies", np.repeat([0, 1], len(people.levels)))
    single = leave_one_out(people, shape_model.body, shape_model.faces, (1,))
    double = leave_one_out(both, shape_model.body, shape_model.faces, (1,))
    np.testing.assert_allclose(double.vertex_mm, single.vertex_mm, rtol=1e-6)


def test_a_mean_of_many_counts_as_many_in_the_mean_and_not_in_the_modes(people, shape_model):
    rows = people.rows(np.flatnonzero(people.levels == 1))
    weights = np.ones(PEOPLE)
    weights[0] = 1e6
    spread = np.ones(PEOPLE)
    spread[0] = 0.0
    heavy = People(rows.shapes, rows.levels, rows.subjects, rows.copies, rows.groups, weights, spread)
    found = analyse(heavy, shape_model.body, 3)
    np.testing.assert_allclose(found.local[0], found.means[1], atol=1e-3)
    without = analyse(People(*(getattr(heavy, name)[1:] for name in heavy.__dataclass_fields__)), shape_model.body, 3)
    # about the first one's shape, not about the mean of the others: more variance than there
    assert found.values[0] > without.values[0]


def test_weighted_components_equal_those_of_repeated_rows():
    rows = np.random.default_rng(5).normal(size=(6, 40))
    weights = np.array([1.0, 3.0, 0.0, 2.0, 1.0, 1.0])
    directions, values = weighted_components(rows, weights, 4)
    repeated = np.repeat(rows, weights.astype(int), axis=0)
    _, expected, right = np.linalg.svd(repeated, full_matrices=False)
    np.testing.assert_allclose(values, expected[:4] / np.sqrt(len(repeated)), rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(directions * right[:4], axis=1)), 1.0, atol=1e-9)


def test_a_smooth_field_follows_what_it_spans_and_no_more():
    random = np.random.default_rng(6)
    basis = np.linalg.qr(random.normal(size=(50, 10)))[0] * 5.0
    inside = basis @ random.normal(size=(10, 3))
    outside = random.normal(size=(50, 3))
    outside -= basis @ np.linalg.lstsq(basis, outside, rcond=None)[0]
    assert np.abs(process_fit(inside, basis, 1.0, 1e-3)).max() < 1e-4
    np.testing.assert_allclose(process_fit(outside, basis, 1.0), outside, atol=1e-9)


def test_too_few_people_are_refused(people, shape_model):
    with pytest.raises(UsxError, match="three people"):
        leave_one_out(people.rows(people.subjects < 2), shape_model.body, shape_model.faces, (0,))
    with pytest.raises(UsxError, match="at least two"):
        analyse(people.rows(np.array([0])), shape_model.body, 1)
