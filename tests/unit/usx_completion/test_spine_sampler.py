"""Spines drawn from a shape model: determinism, spread, poses, and bones that keep clear of each other."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial import cKDTree

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.transforms import apply, invert
from usx_completion.gaussian_process import Kernel
from usx_completion.shape_model import PACKAGED_REAL
from usx_completion.smooth_field import SmoothField
from usx_completion.spine_sampler import SamplerSettings, load_sampler, make_sampler, sample_model_spine
from usx_completion.spread import Spread
from usx_completion.surface_distance import surface_distances
from usx_phantom.overlap import BoneSurface


@pytest.fixture(scope="module")
def sampler(shape_model):
    return make_sampler(shape_model)


@pytest.fixture(scope="module")
def spine(sampler):
    return sample_model_spine(sampler, 5)


def test_the_same_seed_gives_the_same_spine_and_another_seed_another(sampler, spine):
    again, other = sample_model_spine(sampler, 5), sample_model_spine(sampler, 6)
    for level in LEVELS:
        np.testing.assert_array_equal(again.meshes[level].vertices, spine.meshes[level].vertices)
        assert np.abs(other.meshes[level].vertices - spine.meshes[level].vertices).mean() > 0.3


def test_a_spine_stands_in_patient_axes_with_level_three_in_the_middle(spine):
    assert list(spine.meshes) == list(LEVELS)
    heights = [spine.vertebra_to_patient[level][2, 3] for level in LEVELS]
    assert (np.diff(heights) < -20.0).all() and (np.diff(heights) > -50.0).all()
    np.testing.assert_allclose(spine.vertebra_to_patient["L3"][:3, 3], 0.0, atol=1e-9)
    for level, mesh in spine.meshes.items():
        assert mesh.is_watertight
        assert mesh.transformed(invert(spine.vertebra_to_patient[level])).vertices[:, 1].max() > 30.0  # y is posterior


def test_without_spread_every_spine_is_the_mean(shape_model):
    still = make_sampler(shape_model, SamplerSettings(modes=0.0, process=0.0, posture=0.0))
    spine = sample_model_spine(still, 3)
    for index, level in enumerate(LEVELS):
        np.testing.assert_allclose(spine.local(level).vertices, shape_model.means[index], atol=1e-9)


def test_the_modes_have_the_models_spread_and_correlation(shape_model):
    sampler = make_sampler(shape_model, SamplerSettings(process=0.0))
    random = np.random.default_rng(1)
    flat = shape_model.modes.reshape(shape_model.mode_count, -1)
    offsets = np.stack([sampler.shapes(random) - shape_model.means for _ in range(200)]).reshape(200, 5, -1)
    scores = np.einsum("slv,kv->slk", offsets, flat[:3]) / np.sum(flat[:3] ** 2, axis=1)
    np.testing.assert_allclose(scores.std(axis=0), shape_model.mode_sd[:, :3], rtol=0.2)
    for mode in range(3):
        found = np.corrcoef(scores[:, :, mode].T)[np.triu_indices(5, 1)].mean()
        assert found == pytest.approx(shape_model.mode_correlation[mode], abs=0.15)


def test_the_smooth_field_has_the_standard_deviation_and_correlation_asked_for_and_moves_no_level(shape_model):
    spread = Spread((18.0,), (1.0,), (0.2, 0.4, 0.6, 0.8, 1.0), 0.5)
    sampler = make_sampler(replace(shape_model, spread=spread), SamplerSettings(modes=0.0))
    random = np.random.default_rng(2)
    fields = np.stack([sampler.shapes(random) for _ in range(100)]) - shape_model.means
    found = np.sqrt(np.mean(fields**2, axis=(0, 2, 3)))
    # six rigid motions are taken out of a field of this width
    assert (found < spread.process_sd_mm).all() and (found > 0.7 * np.asarray(spread.process_sd_mm)).all()
    np.testing.assert_allclose(fields.mean(axis=2), 0.0, atol=1e-5)
    flat = fields.reshape(100, 5, -1)
    products = np.einsum("sld,smd->lm", flat, flat)
    size = np.sqrt(np.diag(products))
    correlation = (products / np.outer(size, size))[np.triu_indices(5, 1)]
    np.testing.assert_allclose(correlation, 0.5, atol=0.15)


def test_steps_follow_the_heights_of_the_bodies(shape_model):
    sampler = make_sampler(shape_model, SamplerSettings(posture=0.0))
    taller = shape_model.means * [1.0, 1.0, 1.1]
    random = np.random.default_rng(0)
    usual, longer = sampler.poses(shape_model.means, random), sampler.poses(taller, random)
    first = invert(longer[0]) @ longer[1]
    grown = sampler._heights(taller) - sampler._heights(shape_model.means)
    change = first[2, 3] - (invert(usual[0]) @ usual[1])[2, 3]
    assert change == pytest.approx(-0.5 * (grown[0] + grown[1]), abs=1e-9)
    assert 1.5 < grown[0] < 4.0  # a tenth of the height of a body


@pytest.mark.parametrize("scale, process", [(1.0, 0.3), (0.5, 0.3), (0.3, 1.2)])
def test_steps_have_the_models_spread_whatever_the_bodies_add(shape_model, scale, process):
    spread = Spread((8.0,), (1.0,), (process,) * 5, 0.2, (scale,) * 5)
    wide = replace(shape_model, step_sd=shape_model.step_sd * [1, 1, 1, 1, 1, 0] + [0, 0, 0, 0, 0, 2.5], spread=spread)
    sampler = make_sampler(wide)
    random = np.random.default_rng(3)
    steps = []
    for _ in range(150):
        poses = sampler.poses(sampler.shapes(random), random)
        steps.append([(invert(upper) @ lower)[2, 3] for upper, lower in pairwise(poses)])
    np.testing.assert_allclose(np.std(steps, axis=0), 2.5, rtol=0.2)


def test_a_narrow_field_has_all_of_its_variance_and_falls_off_as_its_kernel(shape_model):
    points = shape_model.means[2]
    random = np.random.default_rng(4)
    field = SmoothField.on(points, [Kernel(5.0, 0.8), Kernel(3.0, 0.6)], 160)
    drawn = np.stack([field.draw(random, 2, 0.4) for _ in range(150)]).reshape(150, 2, -1, 3)
    np.testing.assert_allclose(np.mean(drawn**2), 1.0, rtol=0.03)
    near = cKDTree(points).query(points[:300], k=8)
    products = np.einsum("nlvi,nlvki->vk", drawn[:, :, :300], drawn[:, :, near[1]]) / (150 * 2 * 3)
    wanted = 0.64 * np.exp(-0.5 * (near[0] / 5.0) ** 2) + 0.36 * np.exp(-0.5 * (near[0] / 3.0) ** 2)
    assert products[:, 5:].mean() == pytest.approx(wanted[:, 5:].mean(), abs=0.04)
    assert np.mean(drawn[:, 0] * drawn[:, 1]) == pytest.approx(0.4, abs=0.04)


def test_bones_that_cannot_keep_clear_are_refused(shape_model):
    touching = replace(shape_model, step_mean=0.5 * shape_model.step_mean)
    with pytest.raises(UsxError, match=r"spine 4: bones overlap by .* in 2 draws"):
        sample_model_spine(make_sampler(touching, SamplerSettings(overlap_mm=0.01, attempts=1, people=2)), 4)


def test_spines_of_the_model_of_real_people_keep_clear():
    sampler = load_sampler(PACKAGED_REAL)
    for seed in range(100, 108):
        spine = sample_model_spine(sampler, seed)
        for upper, lower in pairwise(LEVELS):
            above, below = spine.meshes[upper], spine.meshes[lower]
            # exact distances to triangles; the sampler itself asks the planes of the nearest vertices
            assert BoneSurface(above).deepest(below.vertices)[0] <= 0.85, (seed, upper)
            assert BoneSurface(below).deepest(above.vertices)[0] <= 0.85, (seed, upper)


def winding_number(points, mesh):
    """1 inside, 0 outside (van Oosterom and Strackee, 1983)."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] - points[:, None] for corner in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=2) for v in (a, b, c))
    triple = np.einsum("nfi,nfi->nf", a, np.cross(b, c))
    below = la * lb * lc + lc * np.einsum("nfi,nfi->nf", a, b)
    below += la * np.einsum("nfi,nfi->nf", b, c) + lb * np.einsum("nfi,nfi->nf", a, c)
    return np.arctan2(triple, below).sum(axis=1) / (2.0 * np.pi)


def test_bones_keep_clear_of_their_neighbours(spine):
    for upper, lower in pairwise(LEVELS):
        solid, points = spine.meshes[lower], spine.meshes[upper].vertices
        low, high = solid.vertices.min(axis=0), solid.vertices.max(axis=0)
        points = points[((points > low) & (points < high)).all(axis=1)]
        points = points[:: len(points) // 80]
        inside = points[winding_number(points, solid) > 0.5]
        assert len(points) >= 80
        assert surface_distances(inside, solid).max(initial=0.0) < 1.0


def test_a_common_motion_of_the_poses_is_rigid(spine):
    for pose in spine.vertebra_to_patient.values():
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(apply(pose, np.zeros((1, 3)))[0], pose[:3, 3])


@pytest.mark.parametrize("values, words", [
    ({"modes": -1.0}, "modes"), ({"process": np.nan}, "process"), ({"posture": 9.0}, "posture"),
    ({"overlap_mm": 0.0}, "overlap"), ({"attempts": 0}, "attempts"), ({"people": 0}, "people"),
    ({"rank": 0}, "rank"),
])
def test_absurd_settings_are_refused(values, words):
    with pytest.raises(UsxError, match=words):
        SamplerSettings(**values)
