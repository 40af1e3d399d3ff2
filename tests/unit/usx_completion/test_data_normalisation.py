"""Normalisation: from the input alone, exact to undo, and indifferent to where the spine lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import apply
from usx_completion.data.examination import Examination, examine, level_inputs, level_samples
from usx_completion.data.normalisation import NormalisationSettings, normalisation_of
from usx_completion.data.observed import SeenPoints, XrayBody
from usx_completion.data.presets import PAPER, REALISTIC, SampleSettings, preset_named

INPUTS = ("partial", "owners", "filled", "outline", "outline_normals")
coordinates = st.floats(-300.0, 300.0, allow_nan=False, width=32)
clouds = arrays.arrays(np.float64, st.tuples(st.integers(20, 60), st.just(3)), elements=coordinates).filter(
    lambda points: np.ptp(points[:, 0]) > 6.0)


@given(clouds)
@settings(max_examples=60, deadline=None)
def test_going_there_and_back_is_exact_to_a_ten_thousandth_of_a_millimetre(points):
    frame = normalisation_of(points)
    normalised = frame.apply(points)
    assert np.abs(frame.invert(normalised) - points).max() < 1e-9
    assert np.abs(frame.invert(normalised.astype(np.float32)) - points).max() < 1e-4
    np.testing.assert_allclose(apply(frame.normalised_to_mm, normalised), points, atol=1e-9)
    assert np.ptp(normalised[:, 0]) < 1.0 and np.abs(normalised.mean(axis=0)).max() < 1e-9


@given(clouds, arrays.arrays(np.float64, 3, elements=coordinates))
@settings(max_examples=60, deadline=None)
def test_a_shifted_cloud_has_the_same_normalised_form(points, shift):
    here, there = normalisation_of(points), normalisation_of(points + shift)
    np.testing.assert_allclose(there.apply(points + shift), here.apply(points), atol=1e-9)
    assert there.scale == pytest.approx(here.scale, rel=1e-9)
    np.testing.assert_allclose(there.origin_mm - here.origin_mm, shift, atol=1e-9)


@pytest.mark.parametrize("points, reason", [
    (np.zeros((0, 3)), "shape"), (np.zeros((5, 2)), "shape"), (np.full((5, 3), np.nan), "finite"),
    (np.zeros((50, 3)), "wide"), (np.random.default_rng(0).uniform(-0.05, 0.05, (50, 3)), "metres"),
])
def test_clouds_that_cannot_be_normalised_are_refused(points, reason):
    with pytest.raises(UsxError, match=reason):
        normalisation_of(points)


def test_quantiles_are_proof_against_clutter():
    points = np.random.default_rng(0).uniform(-40, 40, (2000, 3))
    dirty = np.vstack([points, [[150.0, 0.0, 0.0]]])
    robust = NormalisationSettings(quantile=0.01)
    assert normalisation_of(dirty, robust).unit_mm == pytest.approx(normalisation_of(points, robust).unit_mm, abs=0.5)
    assert normalisation_of(dirty).unit_mm > normalisation_of(points).unit_mm + 100.0


@pytest.fixture(scope="module", params=[("paper", "placed_mean"), ("realistic", "placed_mean"),
                                        ("realistic", "nearest_mean")], ids="-".join)
def examined(request, data_spine):
    sampling = SampleSettings(preset_named(*request.param), points=256)
    return sampling, examine(data_spine, sampling, 3)


def changed(spine, seed, size):
    """Another truth: bones of other size, place and roughness."""
    random = np.random.default_rng(seed)
    meshes = {level: Mesh(mesh.vertices * random.uniform(1 - size, 1 + size, 3) + random.normal(0, 20 * size, 3)
                          + random.normal(0, size, mesh.vertices.shape), mesh.faces)
              for level, mesh in spine.meshes.items()}
    return replace(spine, meshes=meshes)


@given(seed=st.integers(0, 2**31), size=st.floats(0.01, 0.5))
@settings(max_examples=8, deadline=None)
def test_changing_the_truth_changes_nothing_in_the_input(examined, data_spine, data_chain, seed, size):
    sampling, observed = examined
    ours = level_samples(observed, data_spine, sampling, data_chain, 3)
    others = level_samples(observed, changed(data_spine, seed, size), sampling, data_chain, 3)
    assert [sample.level for sample in ours] == [sample.level for sample in others] and len(ours) >= 4
    for one, other in zip(ours, others, strict=True):
        assert not np.array_equal(one.complete, other.complete)
        assert np.array_equal(one.input.normalisation.normalised_to_mm, other.input.normalisation.normalised_to_mm)
        for name in INPUTS:
            assert getattr(one.input, name).tobytes() == getattr(other.input, name).tobytes()


def test_the_papers_own_crop_does_leak_the_truth(data_spine, data_chain):
    """The property above can fail: with the box of the true vertebra a taller truth gives another input."""
    sampling = SampleSettings(PAPER, points=256)
    observed = examine(data_spine, sampling, 3)
    ours = level_samples(observed, data_spine, sampling, data_chain, 3)
    others = level_samples(observed, changed(data_spine, 1, 0.3), sampling, data_chain, 3)
    assert not np.array_equal(ours[2].input.partial, others[2].input.partial)


def shifted(observed, by):
    bodies = {level: XrayBody(body.filled + by, body.outline + by, body.normals)
              for level, body in observed.bodies.items()}
    return Examination(SeenPoints(observed.seen.points + by, observed.seen.owners), bodies)


@pytest.mark.parametrize("by", [[512.0, -256.0, 1024.0], [-64.0, 32.0, 8.0]])
def test_inputs_do_not_depend_on_where_the_spine_lies(examined, data_chain, by):
    sampling, observed = examined
    here = level_inputs(observed, sampling, data_chain, 3)
    there = level_inputs(shifted(observed, np.array(by)), sampling, data_chain, 3)
    assert here.keys() == there.keys()
    for level, mine in here.items():
        for name in INPUTS:
            np.testing.assert_allclose(getattr(there[level], name), getattr(mine, name), atol=1e-9)
        np.testing.assert_allclose(there[level].normalisation.origin_mm - mine.normalisation.origin_mm, by, atol=1e-8)


def test_truth_and_input_are_in_one_frame(data_spine, data_chain):
    """Back in mm, the complete cloud is the true surface and the level's own points lie on it."""
    from usx_completion.surface_distance import surface_distances

    sampling = SampleSettings(PAPER, points=512)
    samples = level_samples(examine(data_spine, sampling, 3), data_spine, sampling, data_chain, 3)
    for sample in samples:
        mesh, frame = data_spine.meshes[sample.level], sample.input.normalisation
        own = sample.input.owners == 20 + LEVELS.index(sample.level)
        assert surface_distances(frame.invert(sample.complete), mesh).max() < 1e-6
        assert surface_distances(frame.invert(sample.input.partial[own]), mesh).max() < 1e-6
        np.testing.assert_array_equal(sample.vertices, mesh.vertices)
    assert REALISTIC.crop.rule == "placed_mean"
