"""Gaussian process, correspondence, statistics and the command that builds the model."""

from __future__ import annotations

import numpy as np
import pytest

from usx_common.meshes import Mesh
from usx_common.transforms import make_transform, rotation_about_axis
from usx_completion import build_shape_model, rigid
from usx_completion.correspondence import RegistrationSettings, Template, register
from usx_completion.gaussian_process import Kernel, low_rank_basis
from usx_completion.shape_statistics import align_spines, principal_components
from usx_completion.surface_distance import surface_distances


def test_the_low_rank_basis_reproduces_the_kernel():
    points = np.random.default_rng(0).uniform(-40, 40, (300, 3))
    kernels = (Kernel(40.0, 2.0), Kernel(20.0, 0.5))
    basis = low_rank_basis(points, kernels, 300)
    squared = np.sum((points[:, None] - points[None]) ** 2, axis=2)
    exact = 4.0 * np.exp(-0.5 * squared / 1600) + 0.25 * np.exp(-0.5 * squared / 400)
    assert basis.shape[1] < 300
    np.testing.assert_allclose(basis @ basis.T, exact, atol=0.02)


def test_alignment_recovers_a_similarity():
    points = np.random.default_rng(1).normal(size=(30, 3)) * 20
    rotation = rotation_about_axis([1, 2, 3], 0.7)
    moved = 1.3 * points @ rotation.T + [4, 5, 6]
    np.testing.assert_allclose(rigid.align(points, moved, scale=True)[:3, :3], 1.3 * rotation, atol=1e-9)
    mirrored = points * [-1, 1, 1]
    assert np.linalg.det(rigid.align(points, mirrored)[:3, :3]) == pytest.approx(1.0)


def test_registration_follows_a_smooth_deformation(shape_model):
    mean = shape_model.mean_mesh("L3")
    bent = mean.vertices * [1.06, 0.95, 1.03]
    bent = bent + 1.5 * np.sin(mean.vertices[:, [1, 2, 0]] / 15.0)
    turn = make_transform(rotation_about_axis([1, 0.2, 0.1], 0.25), [40.0, -20.0, 300.0])
    target = Mesh(bent, mean.faces).transformed(turn)
    found = register(Template(mean, RegistrationSettings()), target)
    assert surface_distances(found, target).mean() < 0.15
    assert surface_distances(target.vertices, Mesh(found, mean.faces)).mean() < 0.25
    assert np.linalg.norm(found - target.vertices, axis=1).mean() < 1.5  # little sliding


def test_procrustes_takes_poses_out_and_keeps_shape(shape_model):
    random = np.random.default_rng(4)
    shapes = np.stack([shape_model.instance("L2", random.normal(size=5)).vertices for _ in range(6)])
    posed = np.empty((6, 1, *shapes.shape[1:]))
    for row in range(6):
        posed[row, 0] = shapes[row] @ rotation_about_axis(random.normal(size=3), 0.3).T + random.normal(size=3) * 50
    aligned = align_spines(posed, shape_model.body)
    spread = np.linalg.norm(aligned.local - aligned.means, axis=-1).mean()
    assert 0.3 < spread < 4.0
    back = aligned.local[2, 0] @ aligned.level_to_spine[2, 0][:3, :3].T + aligned.level_to_spine[2, 0][:3, 3]
    np.testing.assert_allclose(back, posed[2, 0], atol=1e-9)


def test_principal_components_agree_with_a_singular_value_decomposition():
    rows = np.random.default_rng(5).normal(size=(20, 60)) * np.linspace(3, 0.1, 60)
    directions, values = principal_components(rows, 5)
    _, expected, right = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(values, expected[:5] / np.sqrt(20), rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(directions * right[:5], axis=1)), 1.0, atol=1e-9)


@pytest.mark.parametrize("arguments, words", [
    (["--first-seed", "999"], "demonstrations"), (["--count", "0"], "count"), (["--modes", "0"], "modes"),
    (["--spacing", "9"], "spacing"), (["--jobs", "0"], "jobs"), (["--count", "many"], "count"),
])
def test_the_build_command_refuses_bad_arguments(arguments, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        build_shape_model.parse_arguments(arguments)
    assert exit_.value.code == 2
    assert words in capsys.readouterr().err


def test_a_model_tells_the_revision_of_the_generator_it_was_built_with(monkeypatch):
    monkeypatch.setattr("usx_phantom.make_phantom.GENERATOR", 77)
    assert build_shape_model._metadata(build_shape_model.parse_arguments([]))["generator_revision"] == "77"
