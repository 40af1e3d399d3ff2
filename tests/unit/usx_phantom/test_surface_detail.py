"""Roughness and osteophytes: statistics of the random field, where rims grow and where they must not."""

import numpy as np
import pytest

from usx_phantom.surface_detail import DetailSettings, Lips, lip_displacements, sample_lips, smooth_field
from usx_phantom.template import template_mesh
from usx_phantom.vertebra import mean_vertebra


def test_field_has_the_spread_and_the_correlation_that_were_asked_for():
    rng = np.random.default_rng(3)
    points = rng.uniform(-200.0, 200.0, (4000, 3))
    ahead = points + (5.0, 0.0, 0.0)
    here, there = np.split(smooth_field(np.concatenate([points, ahead]), rng, 0.4, 5.0, waves=600), 2)
    assert here.std() == pytest.approx(0.4, rel=0.08)
    correlation = (here * there).mean() / (here**2).mean()
    assert correlation == pytest.approx(np.exp(-0.5), abs=0.06)  # Gaussian kernel at one correlation length


def test_rims_grow_outwards_and_the_canal_stays_free():
    shape, vertices = mean_vertebra("L3").shape, template_mesh("L3").vertices
    lips = Lips(2.0, np.zeros((2, 5, 2)))
    moved = lip_displacements(vertices, shape, lips)
    size = np.linalg.norm(moved, axis=1)
    back = vertices[:, 1] > 0.8 * shape.body[1]
    assert size[back].max() < 1e-9
    assert size[np.abs(vertices[:, 2]) < 0.3 * shape.body[2]].max() < 0.01
    assert 0.4 < size.max() < 2.0
    outwards = (moved[:, :2] * vertices[:, :2]).sum(1)
    assert (outwards >= -1e-9).all()
    assert (moved[:, 2] * np.sign(vertices[:, 2]) >= -1e-9).all()
    assert np.allclose(lip_displacements(vertices, shape, Lips(0.0, lips.lobes)), 0.0)


def test_lips_are_small_in_most_and_bounded_in_all():
    rng = np.random.default_rng(1)
    settings = DetailSettings()
    sizes = np.array([sample_lips(settings, float(rng.normal()), rng).size for _ in range(2000)])
    assert np.median(sizes) == pytest.approx(settings.lip, rel=0.1)
    assert sizes.max() <= settings.largest_lip and (sizes > 2.0 * settings.lip).mean() < 0.2
