"""What the network's sigma is multiplied by."""

from __future__ import annotations

import json

import numpy as np
import pytest

from usx_common.meshes import Mesh, vertex_normals
from usx_completion.correction import calibration


def test_sigma_is_scaled_by_what_validation_finds():
    random = np.random.default_rng(2)
    residuals = list(random.uniform(0.3, 1.2, 60))
    levels = [np.abs(1.7 * residual**0.5 * random.standard_normal(4_000)) for residual in residuals]
    found = calibration.calibrate(levels, residuals)
    assert found["sigma_scale"] == pytest.approx(1.7, rel=0.01) and found["sigma_power"] == pytest.approx(0.5, abs=0.03)
    assert found["within_sigma"] == pytest.approx(0.6827, abs=3e-3)
    assert found["within_two_sigma"] == pytest.approx(0.9545, abs=3e-3)
    factor = calibration.factor_of({"validation": json.dumps(found)})
    assert factor.of(0.64) == pytest.approx(1.7 * 0.8, rel=0.02) and factor.of(99.0) == factor.of(3.0)
    alike = calibration.calibrate(levels, [0.5] * len(levels))  # nothing to learn the power from
    assert alike["sigma_power"] == 0.0
    plain = calibration.SigmaFactor()
    assert plain.of(2.0) == 1.0
    assert calibration.factor_of({}) == calibration.factor_of({"validation": "not json"}) == plain


def test_long_tails_are_shared_between_one_and_two_sigma():
    random = np.random.default_rng(3)
    levels = [np.abs(random.standard_t(4, 4_000)) for _ in range(40)]
    found = calibration.calibrate(levels, [0.5] * len(levels))
    # Student's t with 4 degrees of freedom: 1.142 and 2.870 / 2 would be needed
    assert found["sigma_scale"] == pytest.approx(np.sqrt(1.142 * 1.435), rel=0.02)
    assert found["within_sigma"] > 0.7 and found["within_two_sigma"] < 0.95


def test_the_residual_is_how_far_points_lie_off_the_answer(real_model):
    mesh = Mesh(real_model.means[2], real_model.faces)
    normals, rows = vertex_normals(mesh), slice(None, None, 5)
    points = mesh.vertices[rows] + 0.8 * normals[rows]
    far = mesh.vertices[rows] + [0.0, 300.0, 0.0]
    offsets = calibration.offsets_near(mesh, np.concatenate([points, far]))
    assert len(offsets) == len(points) and calibration.residual_of(offsets) == pytest.approx(0.8, abs=0.05)
    assert calibration.residual_of(calibration.offsets_near(mesh, far)) == 1.0
