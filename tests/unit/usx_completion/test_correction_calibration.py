"""What the network's sigma is multiplied by."""

from __future__ import annotations

import json

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.correction import calibration


def levels(random, needed, residuals, power=1.0):
    """Levels whose errors are normal with an SD of ``needed[residual] * sigma ** power``."""
    found = []
    for residual in residuals:
        sigma = random.uniform(0.2, 2.5, 4_000)
        errors = np.abs(needed[residual] * sigma**power * random.standard_normal(4_000))
        found.append(calibration.Judged(errors, sigma, residual))
    return found


def test_sigma_is_scaled_by_what_validation_finds():
    random = np.random.default_rng(2)
    needed = {0.2: 1.0, 0.5: 1.6, 1.5: 1.2}
    residuals = [residual for residual in needed for _ in range(20)]
    judged = levels(random, needed, residuals, power=0.6)
    found = calibration.calibrate([judged[row] for row in random.permutation(60)])
    assert found["within_sigma"] == pytest.approx(0.6827, abs=3e-3)
    assert found["within_two_sigma"] == pytest.approx(0.9545, abs=3e-3)
    assert found["sigma_power"] == pytest.approx(0.6, abs=0.02)
    scale = calibration.scale_of({"validation": json.dumps(found)})
    for residual, expected in needed.items():
        told = scale.of(np.array([0.3, 1.0, 2.0]), residual)
        assert told == pytest.approx(expected * np.array([0.3, 1.0, 2.0]) ** 0.6, rel=0.03)
    one = np.ones(1)
    assert scale.of(one, np.sqrt(0.1)) == pytest.approx(1.3, rel=0.01)  # half way between the first two
    assert scale.of(one, 99.0) == scale.of(one, 1.5) and scale.of(one, 0.0) == scale.of(one, 0.2)
    assert scale.of(9.0 * one, 1.5) == pytest.approx(3.0 * scale.of(3.0 * one, 1.5))  # as 3 mm is


def test_one_factor_where_levels_are_few_or_alike():
    random = np.random.default_rng(2)
    for residuals in ([0.5] * 60, [0.1, 0.3, 0.5, 1.0, 2.0]):
        found = calibration.calibrate(levels(random, dict.fromkeys(residuals, 1.7), residuals))
        assert found["sigma_factor_1"] == pytest.approx(1.7, rel=0.02) and "sigma_factor_2" not in found
        assert found["sigma_power"] == pytest.approx(1.0, abs=0.02)


def test_no_power_where_sigma_is_the_same_everywhere():
    random = np.random.default_rng(2)
    judged = [calibration.Judged(np.abs(random.standard_normal(500)), random.uniform(0.79, 0.81, 500), 0.5)
              for _ in range(9)]
    found = calibration.calibrate(judged)
    assert found["sigma_power"] == 1.0 and found["sigma_factor_1"] == pytest.approx(1.0 / 0.8, rel=0.05)


def test_sigma_that_says_nothing_or_the_contrary_stays_finite():
    random = np.random.default_rng(4)
    sigma = np.concatenate([[0.0], random.uniform(0.2, 2.5, 999)])
    judged = [calibration.Judged(np.abs(random.standard_normal(1000)) / np.maximum(sigma, 0.2), sigma, 0.5)] * 3
    found = calibration.calibrate(judged)
    assert np.isfinite(list(found.values())).all() and found["sigma_power"] == 0.3
    assert (calibration.scale_of({"validation": json.dumps(found)}).of(sigma, 0.5) > 0.0).all()


@pytest.mark.parametrize("validation, reason", [
    (None, "sigma_power"), ("not json", "no scale of sigma"), ("3", "no scale of sigma"), ("{}", "no scale of sigma"),
])
def test_a_card_without_a_scale_is_refused(validation, reason):
    with pytest.raises(UsxError, match=reason):
        calibration.scale_of({} if validation is None else {"validation": validation})


@pytest.mark.parametrize("changed, reason", [
    ({"sigma_power": None}, "sigma_power"), ({"sigma_factor_unseen": None}, "sigma_factor_unseen"),
    ({"residual_1": None}, "must ascend"), ({"residual_1": "a"}, "no scale of sigma"),
    ({"sigma_factor_1": float("nan")}, "finite"), ({"sigma_factor_1": -1.0}, "above 0"),
    ({"sigma_factor_unseen": 0.0}, "above 0"), ({"residual_2": 0.2, "sigma_factor_2": 1.0}, "must ascend")])
def test_a_scale_that_no_validation_gives_is_refused(changed, reason):
    good = {"residual_1": 0.3, "sigma_factor_1": 1.0, "sigma_power": 1.0, "sigma_factor_unseen": 1.5}
    assert calibration.scale_of({"validation": json.dumps(good)}) == calibration.SigmaScale(1.0, (0.3,), (1.0,), 1.5)
    bad = {key: value for key, value in {**good, **changed}.items() if value is not None}
    with pytest.raises(UsxError, match=reason):
        calibration.scale_of({"validation": json.dumps(bad)})


def test_answers_to_an_xray_alone_have_a_factor_of_their_own():
    random = np.random.default_rng(2)
    seen = levels(random, {0.5: 1.2}, [0.5] * 20)
    alone = [calibration.Judged(2.5 / 1.2 * level.errors, level.sigma, None) for level in seen]
    found = calibration.calibrate([*seen, *alone])
    assert found["sigma_factor_1"] == pytest.approx(1.2, rel=0.03)
    assert found["sigma_factor_unseen"] == pytest.approx(2.5, rel=0.03)
    for name in ("", "deaf_"):
        assert found[f"{name}within_sigma"] == pytest.approx(0.6827, abs=0.01)
    scale = calibration.scale_of({"validation": json.dumps(found)})
    assert scale.of(np.ones(1), None) == pytest.approx(2.5, rel=0.03)
    assert calibration.fit_scale(seen).unseen == calibration.fit_scale(seen).factors[-1]
    assert calibration.calibrate(alone) == {}


def test_only_neighbours_with_alike_residuals_become_one_group():
    random = np.random.default_rng(2)
    residuals = [0.5] * 20 + [0.51] * 20 + [2.0] * 20
    found = calibration.calibrate(levels(random, {0.5: 1.2, 0.51: 1.2, 2.0: 1.9}, residuals))
    assert found["residual_1"] == pytest.approx(0.505) and found["sigma_factor_1"] == pytest.approx(1.2, rel=0.02)
    assert found["residual_2"] == 2.0 and found["sigma_factor_2"] == pytest.approx(1.9, rel=0.02)
    assert "residual_3" not in found


def test_an_answer_without_points_near_it_is_not_judged(real_model):
    mesh = Mesh(real_model.means[2], real_model.faces)
    sigma = np.ones(len(mesh.vertices))
    assert calibration.Judged.of(mesh, sigma, mesh.vertices[:29], mesh) is None
    assert calibration.Judged.of(mesh, sigma, mesh.vertices[:30], mesh).residual == 0.0
    assert calibration.calibrate([]) == {}


def test_long_tails_are_shared_between_one_and_two_sigma():
    random = np.random.default_rng(3)
    judged = [calibration.Judged(np.abs(random.standard_t(4, 4_000)), np.ones(4_000), 0.5) for _ in range(40)]
    found = calibration.calibrate(judged)
    # Student's t with 4 degrees of freedom: 1.142 and 2.870 / 2 would be needed
    assert found["sigma_factor_1"] == pytest.approx(1.142 ** (2 / 3) * 1.435 ** (1 / 3), rel=0.02)
    assert found["within_sigma"] > 0.7 and found["within_two_sigma"] < 0.95


def test_the_residual_is_how_far_points_lie_off_the_answer(real_model):
    mesh = Mesh(real_model.means[2], real_model.faces)
    normals, rows = vertex_normals(mesh), slice(None, None, 5)
    points = mesh.vertices[rows] + 0.8 * normals[rows]
    far = mesh.vertices[rows] + [0.0, 300.0, 0.0]
    offsets = calibration.offsets_near(mesh, np.concatenate([points, far]))
    assert len(offsets) == len(points) and calibration.residual_of(offsets) == pytest.approx(0.8, abs=0.05)
    assert not len(calibration.offsets_near(mesh, far))
