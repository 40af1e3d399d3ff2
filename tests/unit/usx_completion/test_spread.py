"""Amplitudes: stored and checked, fitted to known fields, and matched by the sampler."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_completion import shape_model as module
from usx_completion.gaussian_process import Kernel, low_rank_basis
from usx_completion.leave_one_out import LeftOut
from usx_completion.mesh_model import _mode_sd, _residual_sd
from usx_completion.people import People, along_normals, analyse
from usx_completion.shape_model import BadModel, load_shape_model, save_shape_model
from usx_completion.spine_sampler import make_sampler
from usx_completion.spread import Spread
from usx_completion.spread_calibration import (
    between_levels,
    calibrate,
    goal_amplitude,
    kernel_shares,
    mode_correlation,
    sampled_amplitude,
)

METADATA = {"seeds": "1..2", "count": "2", "generator_version": "test"}


def left_out_fields(points, width, correlation, people=20):
    """Two levels of each person: fields of a known width and correlation."""
    random = np.random.default_rng(8)
    basis = low_rank_basis(points, [Kernel(width, 1.0)], 300)
    offsets = []
    for _ in range(people):
        common = random.normal(size=(basis.shape[1], 3))
        for _ in range(2):
            own = random.normal(size=common.shape)
            offsets.append(basis @ (np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * own))
    count = 2 * people
    flat = np.full((count, 2), 1.0)
    return LeftOut((0, 1), flat, flat, np.stack(offsets), np.arange(count), np.tile([0, 1], people),
                   np.repeat(np.arange(people), 2))


def test_the_width_of_a_known_field_is_found(shape_model):
    for width in (16.0, 5.0):
        widths, shares = kernel_shares(left_out_fields(shape_model.means[2], width, 0.0), shape_model.means[2])
        assert shares[widths.index(width)] > 0.75


def test_the_correlation_between_levels_is_found(shape_model):
    points = shape_model.means[2][::6]
    assert between_levels(left_out_fields(points, 16.0, 0.6, 60)) == pytest.approx(0.6, abs=0.1)
    assert between_levels(left_out_fields(points, 16.0, 0.0, 60)) < 0.1


def test_sampled_shapes_are_as_far_from_the_model_as_the_people_left_out(shape_model):
    small = replace(shape_model, modes=shape_model.modes[:12], mode_sd=shape_model.mode_sd[:, :12],
                    mode_correlation=shape_model.mode_correlation[:12])
    goal_mean, goal_rest = np.array([1.3, 1.0, 1.1, 1.2, 1.5]), np.array([0.6, 0.5, 0.7, 0.55, 0.8])
    fields = left_out_fields(shape_model.means[2], 8.0, 0.3, 3)
    errors = np.column_stack([goal_mean, goal_rest])
    left_out = LeftOut((0, 12), errors, errors, fields.offsets[:5], np.arange(5), np.arange(5), np.arange(5))
    model = calibrate(small, left_out, count=12)
    found = sampled_amplitude(make_sampler(model), 12)  # the spines it was scaled with: it converged
    goal = goal_amplitude(left_out)
    np.testing.assert_allclose(found.to_mean_mm, goal.to_mean_mm, rtol=0.05)
    np.testing.assert_allclose(found.left_over_mm, goal.left_over_mm, rtol=0.1)
    np.testing.assert_allclose(model.spread.left_over_mm, goal.left_over_mm)


def test_the_goal_of_a_level_with_few_people_is_drawn_to_that_of_all():
    levels = np.array([0] * 20 + [4])
    errors = np.where(levels[:, None] == 4, [2.0, 1.0], [1.0, 0.5])
    goal = goal_amplitude(LeftOut((0, 9), errors, errors, np.zeros((21, 4, 3)), np.arange(21), levels, np.arange(21)))
    assert goal.to_mean_mm[0] == pytest.approx(1.0, abs=0.02)
    assert goal.to_mean_mm[4] == pytest.approx((2.0 + 5.0 * 22.0 / 21.0) / 6.0)
    assert goal.left_over_mm[4] == pytest.approx(goal.to_mean_mm[4] / 2.0)


def test_what_is_left_over_is_that_of_people_left_out(shape_model):
    normals = np.stack([along_normals(np.tile(axis, (1, shape_model.means.shape[1], 1)), shape_model.means[1],
                                      shape_model.faces)[0] for axis in np.eye(3)], axis=1)
    levels = np.full(6, 1)
    flat = np.ones((6, 2))
    offsets = np.random.default_rng(4).choice([-0.7, 0.7], 6)[:, None, None] * normals
    left_out = LeftOut((0, 1), flat, flat, offsets, np.arange(6), levels, np.arange(6))
    np.testing.assert_allclose(_residual_sd(left_out, shape_model.means, shape_model.faces)[1], 0.7, rtol=1e-6)


def test_the_correlation_of_a_mode_is_drawn_to_that_of_all_modes(shape_model):
    random = np.random.default_rng(9)
    mean, field = shape_model.means[1:3], shape_model.modes[0]
    scores = np.repeat(random.normal(size=15), 2)  # both levels of a person alike
    shapes = np.stack([mean[row % 2] + 2.0 * scores[row] * field for row in range(30)])
    people = People(shapes, np.tile([1, 2], 15), np.repeat(np.arange(15), 2), np.zeros(30, int), np.zeros(30, int),
                    np.ones(30), np.ones(30))
    found = mode_correlation(people, analyse(people, shape_model.body, 1))
    assert found[0] > 0.9


def test_generated_spines_tell_neither_the_size_nor_the_correlation_of_modes(shape_model):
    """Real people: one mode of size 2, levels unrelated. Generated ones: of size 9, levels alike."""
    random = np.random.default_rng(10)
    field = shape_model.modes[0]
    real, generated = random.choice([-2.0, 2.0], size=80), np.repeat(9.0 * random.normal(size=40), 2)
    scores = np.concatenate([real, generated])
    shapes = np.stack([shape_model.means[1 + row % 2] + score * field for row, score in enumerate(scores)])
    groups = np.repeat([0, 1], 80)
    people = People(shapes, np.tile([1, 2], 80), np.repeat(np.arange(80), 2), np.zeros(160, int), groups,
                    np.ones(160), np.ones(160))
    statistics = analyse(people, shape_model.body, 1)
    assert mode_correlation(people, statistics)[0] < 0.3
    offsets = statistics.residuals[:80]
    size = statistics.values[0] * _mode_sd(people, statistics)[1:3, 0]
    np.testing.assert_allclose(size, np.sqrt(np.mean(np.sum(offsets**2, axis=1))), rtol=0.1)


def test_the_spread_cannot_be_changed_unseen_and_earlier_files_load(shape_model, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_shape_model(path, shape_model, METADATA)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"process_correlation\\\": 0.0", b"process_correlation\\\": 0.5"))
    assert path.read_bytes() != data
    with pytest.raises(BadModel, match="SHA-256"):
        load_shape_model(path)
    monkeypatch.setattr(module, "FORMAT", module.EARLIER)
    monkeypatch.setattr(module, "content_hash", lambda arrays, spread="", hashed=module.content_hash: hashed(arrays))
    save_shape_model(path, shape_model, METADATA)
    monkeypatch.undo()
    assert load_shape_model(path)[1]["format"] == module.EARLIER


def test_a_models_spread_is_stored_with_it_and_a_damaged_one_refused(shape_model, tmp_path):
    spread = Spread((8.0, 16.0), (0.4, 0.6), (1.0, 1.1, 1.2, 1.3, 1.4), 0.2, (0.9,) * 5, (1.2,) * 5, (0.7,) * 5)
    path = tmp_path / "m.safetensors"
    save_shape_model(path, replace(shape_model, spread=spread), METADATA)
    assert load_shape_model(path)[0].spread == spread
    data = path.read_bytes()
    path.write_bytes(data.replace(b"process_sd_mm", b"process_ed_mm"))
    with pytest.raises(BadModel, match="SHA-256"):
        load_shape_model(path)


@pytest.mark.parametrize("values, words", [
    ({"process_sd_mm": (1.0,)}, "process_sd_mm"), ({"mode_scale": (1.0, 1.0, 1.0, 1.0, -1.0)}, "mode_scale"),
    ({"kernel_share": (0.2,)}, "sum to 1"), ({"kernel_width_mm": (0.0,)}, "within 1"),
    ({"kernel_width_mm": (9.0, 8.0)}, "as many"), ({"process_correlation": 1.0}, "process_correlation"),
])
def test_absurd_spreads_are_refused(values, words):
    with pytest.raises(UsxError, match=words):
        Spread(**values)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"mode_scale": 3}'])
def test_text_that_is_no_spread_is_refused(text):
    with pytest.raises(UsxError, match="spread"):
        Spread.from_json(text)
