"""Answers that are not to be believed: against what was seen, against each other, or by their own sigma."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usx_common.levels import LEVELS, SOURCE_XRAY, label_of_level
from usx_common.meshes import Mesh
from usx_common.transforms import apply, make_transform
from usx_completion.completed import CompletedLevel, reasons_for
from usx_completion.correction.completion import CorrectionCompletion
from usx_completion.correction.start import mean_chain
from usx_completion.output import describe, level_texts
from usx_completion.parameters import WEIGHTS
from usx_completion.plausibility import doubts

NOTHING = np.zeros((0, 3)), np.zeros(0, int)


@pytest.fixture(scope="module")
def answers(shape_model):
    """The mean spine as an answer, 1 mm sure."""
    return {level: CompletedLevel(Mesh(apply(pose, mean), shape_model.faces), np.ones(len(mean)), pose)
            for level, pose, mean in zip(LEVELS, mean_chain(shape_model), shape_model.means, strict=True)}


@pytest.fixture(scope="module")
def network():
    return CorrectionCompletion.load(WEIGHTS)


@pytest.fixture(scope="module")
def methods(network, method):
    return {"usx": network, "shape_model": method}


def moved(answer, offset):
    pose = make_transform(answer.level_to_spine[:3, :3], answer.level_to_spine[:3, 3] + offset)
    return CompletedLevel(Mesh(answer.mesh.vertices + offset, answer.mesh.faces), answer.sigma, pose)


def seen_of(answers, step=9):
    points = [answer.mesh.vertices[::step] for answer in answers.values()]
    labels = np.repeat([label_of_level(level) for level in answers], [len(some) for some in points])
    return np.concatenate(points), labels


def test_a_usual_spine_is_believed(shape_model, answers):
    assert doubts(shape_model, answers, *NOTHING) == {} and doubts(shape_model, {}, *NOTHING) == {}
    points, labels = seen_of(answers)
    assert doubts(shape_model, answers, points, labels) == {}
    assert doubts(shape_model, answers, points, np.zeros_like(labels)) == {}


@pytest.mark.parametrize("level", LEVELS)
def test_one_level_that_lies_elsewhere_is_named(shape_model, answers, level):
    there = {**answers, level: moved(answers[level], np.array([0.0, 15.0, 20.0]))}
    found = doubts(shape_model, there, *NOTHING)
    assert list(found) == [level] and "25 mm from where" in found[level]
    assert doubts(shape_model, {**answers, level: moved(answers[level], np.array([0.0, 0.0, 15.0]))}, *NOTHING) == {}


def test_the_one_that_is_turned_over_is_named(shape_model, answers):
    pose = answers["L4"].level_to_spine @ np.diag([1.0, -1.0, -1.0, 1.0])
    assert list(doubts(shape_model, {**answers, "L4": replace(answers["L4"], level_to_spine=pose)}, *NOTHING)) == ["L4"]


def test_two_levels_at_one_place_are_not_both_believed(shape_model, answers):
    twice = {**answers, "L4": replace(answers["L3"])}
    assert list(doubts(shape_model, twice, *NOTHING)) == ["L4"]


def test_where_most_contradict_each_other_none_is_believed(shape_model, answers):
    reversed_ = dict(zip(LEVELS, reversed(answers.values()), strict=True))
    found = doubts(shape_model, reversed_, *NOTHING)
    assert sorted(found) == list(LEVELS) and all("from where" in reason for reason in found.values())
    halves = {level: moved(answers[level], np.array([0.0, 45.0 * (level < "L3"), 0.0]))
              for level in ("L1", "L2", "L4", "L5")}
    found = doubts(shape_model, halves, *NOTHING)
    assert sorted(found) == ["L1", "L2", "L4", "L5"] and "contradict each other" in found["L1"]
    gap = {level: answers[level] for level in ("L1", "L4")}
    assert doubts(shape_model, gap, *NOTHING) == {}
    far = {**gap, "L4": moved(gap["L4"], np.array([0.0, 0.0, 70.0]))}
    assert sorted(doubts(shape_model, far, *NOTHING)) == ["L1", "L4"]


def test_a_level_must_be_sure_and_near_its_points(shape_model, answers):
    unsure = {**answers, "L2": replace(answers["L2"], sigma=np.full(len(answers["L2"].sigma), 12.0))}
    assert doubts(shape_model, unsure, *NOTHING) == {"L2": "sigma is 12 mm; 10 are the most"}
    points, labels = seen_of(answers)
    mine = np.flatnonzero(labels == 23)
    points = points.copy()
    points[mine[: len(mine) // 2]] += [0.0, 60.0, 0.0]
    found = doubts(shape_model, answers, points, labels)
    assert list(found) == ["L4"] and "% of its ultrasound points are within 4 mm" in found["L4"]


@pytest.mark.parametrize("name", ["usx", "shape_model"])
def test_impossible_input_is_not_answered_as_if_it_were_a_spine(methods, partial, name):
    complete = methods[name].complete
    upside_down = np.where(partial.labels > 0, 44 - partial.labels, 0)
    assert not complete(partial.points, upside_down, partial.sources).levels
    random = np.random.default_rng(0)
    low, high = partial.points.min(axis=0), partial.points.max(axis=0)
    clutter = random.uniform(low, high, (60000, 3))
    labels = 20 + np.clip(5 * (high[2] - clutter[:, 2]) / (high[2] - low[2]), 0, 4).astype(int)
    xray = partial.sources == SOURCE_XRAY
    answer = complete(np.r_[clutter, partial.points[xray]], np.r_[labels, partial.labels[xray]],
                      np.r_[np.zeros(len(clutter), int), partial.sources[xray]])
    assert not answer.levels and "% of its ultrasound points" in answer.reasons["L3"]
    apart = partial.points + np.where(partial.labels == 20, 300.0, 0.0)[:, None] * [0.0, 0.0, 1.0]
    assert "L1" not in complete(apart, partial.labels, partial.sources).levels


def test_with_too_few_points_a_growing_sweep_is_answered_by_the_x_ray(network, partial, held_out_spine):
    xray = partial.sources == SOURCE_XRAY
    for count in (0, 10, 45):
        keep = xray.copy()
        for label in range(20, 25):
            own = np.flatnonzero(~xray & (partial.labels == label))
            keep[own[:: len(own) // 45][:count]] = True
        levels = network.complete(partial.points[keep], partial.labels[keep], partial.sources[keep]).levels
        assert tuple(levels) == LEVELS
        for level, truth in held_out_spine.items():
            assert np.linalg.norm(levels[level].mesh.vertices.mean(axis=0) - truth.vertices.mean(axis=0)) < 10.0


def test_levels_that_the_sweep_has_not_reached_are_answered_by_the_x_ray_and_become_surer(network, partial,
                                                                                        held_out_spine):
    before = np.full(5, np.inf)
    for reached in range(1, 6):
        keep = (partial.sources == SOURCE_XRAY) | (partial.labels < 20 + reached)
        answer = network.complete(partial.points[keep], partial.labels[keep], partial.sources[keep])
        assert tuple(answer.levels) == LEVELS and not answer.reasons
        for level, truth in held_out_spine.items():
            assert np.linalg.norm(answer.levels[level].mesh.vertices.mean(axis=0) - truth.vertices.mean(axis=0)) < 10.0
        assert [found.by_xray for found in answer.levels.values()] == [number >= reached for number in range(5)]
        assert ("L5  ±" in level_texts(answer)["L5"][0]) and ("X-ray alone" in describe(answer)) is (reached < 5)
        sigma = np.array([np.median(found.sigma) for found in answer.levels.values()])
        assert sigma[reached - 1] < 0.8 * before[reached - 1]  # of the level that has just come
        before = sigma


@pytest.mark.parametrize("shown", [(20, 21, 22), (21, 22, 23), (22,), (20, 22, 24)])
def test_points_without_names_of_neighbours_do_not_speak_against_a_level(network, partial, shown):
    keep = (partial.sources != SOURCE_XRAY) | np.isin(partial.labels, shown)
    labels = np.where(partial.sources == SOURCE_XRAY, partial.labels, 0)
    answer = network.complete(partial.points[keep], labels[keep], partial.sources[keep])
    assert tuple(answer.levels) == tuple(LEVELS[label - 20] for label in shown)


@pytest.mark.parametrize("name", ["usx", "shape_model"])
def test_levels_are_found_across_a_gap_from_a_body_without_ultrasound(methods, partial, name):
    xray = partial.sources == SOURCE_XRAY
    keep = np.where(xray, partial.labels == 24, partial.labels < 23)
    answer = methods[name].complete(partial.points[keep], partial.labels[keep], partial.sources[keep])
    assert tuple(answer.levels)[:3] == ("L1", "L2", "L3") and "0 ultrasound points" in answer.reasons["L4"]


def test_joints_that_cannot_be_parted_are_told_of(network, answers):
    near = {"L3": answers["L3"], "L4": moved(answers["L4"], np.array([0.0, 0.0, 20.0])), "L1": answers["L1"]}
    levels, touching = network._joints_fitted(near)
    assert list(touching) == ["L3-L4"] and "they run into each other by" in touching["L3-L4"]
    assert levels["L1"] is answers["L1"]
    assert network._joints_fitted(answers)[1] == {}


@pytest.mark.parametrize("name", ["usx", "shape_model"])
def test_a_stray_label_does_not_forbid_to_name_the_others_by_the_x_ray(methods, partial, name):
    labels = np.where(partial.sources == SOURCE_XRAY, partial.labels, 0)
    labels[np.flatnonzero((partial.sources != SOURCE_XRAY) & (partial.labels == 20))[0]] = 20
    assert tuple(methods[name].complete(partial.points, labels, partial.sources).levels) == LEVELS


@pytest.mark.parametrize("name", ["usx", "shape_model"])
def test_a_body_that_is_no_body_is_told_of_though_its_level_is_answered(methods, partial, name):
    points, mine = partial.points.copy(), (partial.sources == SOURCE_XRAY) & (partial.labels == 24)
    points[mine] = points[mine].mean(axis=0)
    answer = methods[name].complete(points, partial.labels, partial.sources)
    assert tuple(answer.levels) == LEVELS and "the body of L5 was not used: the body's region" in answer.reasons["xray"]


def test_reasons_are_of_what_is_missing(answers):
    some = {"L2": answers["L2"]}
    refused = {"L2": "small", "xray": "tilted", "L1": "small", "L3": "large"}
    assert reasons_for(some, refused, {"L1": "few", "L2": "few"}) == {
        "xray": "tilted; the body of L2 was not used: small; the body of L1 was not used: small",
        "L1": "few", "L3": "large"}


def test_only_with_an_x_ray_is_there_a_displacement_of_it(network, partial):
    ultrasound = partial.sources != SOURCE_XRAY
    alone = network.complete(*(column[ultrasound] for column in (partial.points, partial.labels, partial.sources)))
    assert not alone.xray_shift.any()
    assert network.complete(partial.points, partial.labels, partial.sources).xray_shift.any()
    assert network.moved_to("cpu").card == network.card
