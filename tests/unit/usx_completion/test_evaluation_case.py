"""Cases and inputs made worse: nothing of the truth reaches a method, and levels' inputs and the cloud agree."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from usx_common.levels import LEVELS, label_of_level
from usx_completion.data.examination import examine, in_observed_frame
from usx_completion.data.presets import PAPER, REALISTIC, SampleSettings
from usx_completion.data.xray_cloud import CloudSizes
from usx_completion.evaluation.case import CaseName, simulated_case
from usx_completion.evaluation.perturb import CONDITIONS, QUICK_CONDITIONS, Condition, perturbed

NAME = CaseName("synthetic", 3)


def settings(preset):
    return SampleSettings(preset, 512, CloudSizes(300, 48))


@pytest.fixture(scope="module")
def observed(data_spine):
    return in_observed_frame(data_spine, examine(data_spine, settings(PAPER), 7))


@pytest.fixture(scope="module")
def case(observed, data_chain):
    return simulated_case(NAME, *observed, settings(PAPER), data_chain, 7)


def seen(given):
    return given.points[given.sources == 0]


def xray(given, label=None):
    return given.points[(given.sources == 1) & ((given.labels == label) if label else True)]


def test_a_method_is_given_nothing_of_the_truth(case):
    bytes_given = pickle.dumps(case.given)
    for mesh in case.truth.values():
        assert mesh.vertices[:2].tobytes() not in bytes_given
    assert all(not mine.owners.any() for mine in case.given.inputs.values())


def test_another_truth_leaves_the_input_as_it_is(observed, data_chain):
    sample, seen_of_it = observed
    other = sample.moved({level: np.diag([1.0, 1.0, 1.0, 1.0]) + np.eye(4, k=3) for level in LEVELS})
    first, second = (simulated_case(NAME, truth, seen_of_it, settings(replace(REALISTIC, name="r")), data_chain, 7)
                     for truth in (sample, other))
    assert pickle.dumps(first.given) == pickle.dumps(second.given)
    assert not np.array_equal(first.truth["L1"].vertices, second.truth["L1"].vertices)


def test_the_same_spine_and_seed_give_the_same_bytes(observed, data_chain, case):
    assert pickle.dumps(simulated_case(NAME, *observed, settings(PAPER), data_chain, 7)) == pickle.dumps(case)


def test_labels_are_mostly_those_of_the_bone_and_bodies_carry_their_level(case, observed):
    given = case.given
    labels = given.labels[given.sources == 0]
    owners = observed[1].seen.owners
    assert np.mean(labels[labels > 0] == owners[labels > 0]) > 0.9
    for level in LEVELS:
        body = xray(given, label_of_level(level))
        np.testing.assert_allclose(body, case.given.inputs[level].normalisation.invert(case.given.inputs[level].filled))


def test_units_are_those_of_the_inputs(case):
    for level, mine in case.given.inputs.items():
        width = np.ptp(mine.normalisation.invert(mine.partial)[:, 0])
        assert width + 30.0 <= case.units[level] + 1e-9 <= width + 32.0  # the input is a thinned cloud


@pytest.mark.parametrize("name", [name for name in CONDITIONS if name.startswith("X-ray")])
def test_a_moved_x_ray_moves_rigidly_and_alone(case, name):
    condition = CONDITIONS[name]
    worse = perturbed(case, condition)
    np.testing.assert_array_equal(seen(worse.given), seen(case.given))
    before, after = xray(case.given), xray(worse.given)
    middles = after.mean(axis=0) - before.mean(axis=0)
    assert np.linalg.norm(middles) == pytest.approx(condition.shift_mm, abs=1e-9) and abs(middles[0]) < 1e-9
    a, b = before - before.mean(axis=0), after - after.mean(axis=0)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1), atol=1e-9)
    # by the chord: the last bit of a cosine near 1 is 1.2e-6 degrees
    turned = np.degrees(2.0 * np.arcsin(0.5 * np.sqrt(np.sum((a - b) ** 2) / np.sum(a * a))))
    assert turned <= condition.turn_deg + condition.tilt_deg + 1e-6
    if condition.turn_deg:
        assert turned == pytest.approx(condition.turn_deg, abs=1e-6)
    for level, mine in worse.given.inputs.items():
        np.testing.assert_allclose(mine.normalisation.invert(mine.filled), xray(worse.given, label_of_level(level)))
        np.testing.assert_array_equal(mine.partial, case.given.inputs[level].partial)


def test_a_moved_x_ray_names_the_ultrasound_anew(observed, data_chain):
    """As an examination would be named that had its X-ray there from the start."""
    sample, examined = observed
    first = simulated_case(NAME, sample, examined, settings(REALISTIC), data_chain, 7)
    worse = perturbed(first, CONDITIONS["X-ray 10 mm off"])
    move = (xray(worse.given) - xray(first.given))[0]
    bodies = {level: replace(body, filled=body.filled + move, outline=body.outline + move)
              for level, body in examined.bodies.items()}
    there = simulated_case(NAME, sample, replace(examined, bodies=bodies), settings(REALISTIC), data_chain, 7)
    np.testing.assert_array_equal(worse.given.labels, there.given.labels)
    ultrasound = first.given.sources == 0
    assert 0.003 < np.mean((worse.given.labels != first.given.labels)[ultrasound]) < 0.3
    assert np.array_equal(worse.given.labels[~ultrasound], first.given.labels[~ultrasound])


def test_a_tilted_x_ray_leans_by_its_angle(case):
    worse = perturbed(case, CONDITIONS["X-ray tilted 8 deg"])
    normal = np.linalg.svd(xray(worse.given) - xray(worse.given).mean(axis=0))[2][2]
    assert np.degrees(np.arccos(abs(normal[0]))) == pytest.approx(8.0, abs=0.01)


def test_outline_normals_turn_with_the_x_ray(case):
    worse = perturbed(case, Condition("other", 0.0, turn_deg=90.0))
    first, turned = (given.inputs["L3"] for given in (case.given, worse.given))
    flat = (turned.outline - turned.outline.mean(axis=0))[:, 1:]
    assert np.mean(np.einsum("ni,ni->n", flat, turned.outline_normals) > 0) > 0.95
    assert np.mean(np.einsum("ni,ni->n", flat, first.outline_normals) > 0) < 0.9


def test_displacements_of_one_case_have_one_direction(case):
    moves = [xray(perturbed(case, CONDITIONS[f"X-ray {mm:g} mm off"]).given)[0] - xray(case.given)[0]
             for mm in (2.5, 5.0, 10.0)]
    np.testing.assert_allclose(moves[0] * 4.0, moves[2], atol=1e-9)
    np.testing.assert_allclose(moves[1] * 2.0, moves[2], atol=1e-9)


def test_noise_has_its_standard_deviation_and_the_unit_of_the_metric_stays(case):
    worse = perturbed(case, CONDITIONS["noise 2 mm"])
    offset = seen(worse.given) - seen(case.given)
    assert offset.std(axis=0) == pytest.approx([2.0] * 3, rel=0.05)
    np.testing.assert_array_equal(xray(worse.given), xray(case.given))
    assert worse.units == case.units
    mine = worse.given.inputs["L3"]
    assert mine.normalisation.unit_mm == pytest.approx(np.ptp(mine.normalisation.invert(mine.partial)[:, 0]) + 30.0)


@pytest.mark.parametrize("amount", [-1.0, 1.0])
def test_bodies_drawn_otherwise_keep_their_middle_and_change_their_size(case, amount):
    worse = perturbed(case, next(condition for condition in CONDITIONS.values() if condition.drawn_mm == amount)).given
    np.testing.assert_array_equal(seen(worse), seen(case.given))
    for level, mine in worse.inputs.items():
        before, after = (xray(given, label_of_level(level)) for given in (case.given, worse))
        low, high = after.min(axis=0) - before.min(axis=0), after.max(axis=0) - before.max(axis=0)
        np.testing.assert_allclose(low, [0.0, -amount, -amount], atol=1e-9)
        np.testing.assert_allclose(high, [0.0, amount, amount], atol=1e-9)
        outline = mine.normalisation.invert(mine.outline) - case.given.inputs[level].normalisation.invert(
            case.given.inputs[level].outline)
        assert np.abs(outline).max() == pytest.approx(abs(amount), abs=1e-9)
        assert len(mine.filled) == len(case.given.inputs[level].filled)


def test_half_of_the_ultrasound_and_an_end_of_the_sweep_go_missing(case):
    half = perturbed(case, CONDITIONS["right half missing"]).given
    middle = 0.5 * (seen(case.given)[:, 0].min() + seen(case.given)[:, 0].max())
    shifted = xray(half) - xray(case.given)
    assert np.ptp(shifted, axis=0).max() < 1e-9 and shifted[0, 0] > 10.0  # amid what is left
    np.testing.assert_allclose(half.inputs["L3"].normalisation.invert(half.inputs["L3"].filled), xray(half, 22))
    assert seen(half)[:, 0].min() >= middle and 0.3 < len(seen(half)) / len(seen(case.given)) < 0.7
    for mine in half.inputs.values():
        assert mine.normalisation.invert(mine.partial)[:, 0].min() >= middle - 1e-9
    cut = perturbed(case, CONDITIONS["40 % of the sweep missing"]).given
    assert np.ptp(seen(cut)[:, 2]) < 0.62 * np.ptp(seen(case.given)[:, 2])
    assert seen(cut)[:, 2].max() == seen(case.given)[:, 2].max()
    assert len(cut.inputs) < len(LEVELS)
    np.testing.assert_allclose(xray(cut)[:, 1:], xray(case.given)[:, 1:])


def test_mistaken_levels_keep_bone_and_input_together(case):
    worse = perturbed(case, CONDITIONS["levels off by one"])
    assert list(worse.truth) == list(LEVELS[:-1])
    assert worse.truth["L1"] is case.truth["L2"] and worse.given.inputs["L4"] is case.given.inputs["L5"]
    np.testing.assert_array_equal(xray(worse.given, 20), xray(case.given, 21))
    assert len(seen(worse.given)) == len(seen(case.given)) and worse.given.labels.max() == 23
    assert worse.units["L1"] == case.units["L2"]


def test_without_x_ray_there_is_no_point_of_it(case):
    worse = perturbed(case, CONDITIONS["no X-ray"]).given
    assert not (worse.sources == 1).any() and all(len(mine.filled) == 0 for mine in worse.inputs.values())


def test_without_ultrasound_bodies_are_left_and_no_input_of_a_level(case):
    worse = perturbed(case, CONDITIONS["no ultrasound"])
    assert (worse.given.sources == 1).all() and not worse.given.inputs and worse.units == case.units
    np.testing.assert_array_equal(worse.given.points, xray(case.given))
    assert set(worse.given.labels) == {label_of_level(level) for level in LEVELS} and worse.truth is case.truth


def test_the_clean_condition_changes_nothing_and_the_quick_ones_exist(case):
    assert perturbed(case, CONDITIONS["clean"]) is case
    assert set(QUICK_CONDITIONS) <= set(CONDITIONS)
